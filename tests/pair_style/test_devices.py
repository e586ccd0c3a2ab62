"""Devices and threads: who gets what, what the log says, and what a CUDA tensor is computed with."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from rareal.export.modelfile import Committee, write
from rareal.models import ani, painn, schnet
from rareal.models.ani_network import AEVParameters
from rareal.plugin import load_ops
from rareal.records import Frame
from rareal.testing.lammps import Lammps
from rareal.testing.systems import Graph, cluster, crystal

SOURCES = Path(__file__).parents[2] / "pair_style"
CORES = len(os.sched_getaffinity(0))

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false here")

POLICY = """
#include "resource_policy.h"
#include <cstdio>
using namespace rareal;
int main()
{
  for (int rank = 0; rank < 6; ++rank) std::printf("%d ", gpu_of(rank, 4));
  std::printf("\\n");
  const auto all = [](int cores, int processes) { return cores_of_own(std::vector<int>(cores, processes)); };
  std::printf("%d %d %d %d %d %d\\n", all(16, 1), all(16, 4), all(16, 3), all(3, 3), all(2, 8), all(0, 1));
  std::printf("%d %d\\n", cores_of_own({1, 1, 1, 1}), cores_of_own({1, 1, 2, 2}));
  std::printf("%d %d %d %d\\n", threads_of(1, 8), threads_of(4, 8), threads_of(16, 8), threads_of(0, 8));
}
"""


def test_policy(tmp_path: Path) -> None:
    """GPUs in turn; cores shared evenly, those that a process is bound to alone are its own; never more than asked."""
    (tmp_path / "policy.cpp").write_text(POLICY)
    subprocess.run(["g++", "-std=c++17", f"-I{SOURCES}", "policy.cpp", "-o", "policy"], cwd=tmp_path, check=True)
    said = subprocess.run([tmp_path / "policy"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].split() == ["0", "1", "2", "3", "0", "1"]
    assert said[1].split() == ["16", "4", "5", "1", "1", "1"]
    assert said[2].split() == ["4", "3"]
    assert said[3].split() == ["1", "4", "8", "1"]


def log_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("pair_style mlensemble: ")]


@pytest.mark.parametrize(("ranks", "cores", "wanted"), [(1, 1, 1), (1, 1, 4), (1, 2, 2), (2, 2, 2), (2, 1, 1)])
def test_threads(
    ranks: int, cores: int, wanted: int, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    """As many as LAMMPS has, but no more than a process's share of the cores; said once, on the first process."""
    if cores > CORES:
        pytest.skip(f"needs {cores} cores, this process may use {CORES}")
    allowed = os.sched_getaffinity(0)
    script = lammps.script(crystal, models("float64")).replace("units", f"package omp {wanted}\nunits", 1)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        output = lammps.run(script + "run 0\nrun 0\n", ranks)
    finally:
        os.sched_setaffinity(0, allowed)
    threads = max(1, min(wanted, cores // ranks))
    line = f"pair_style mlensemble: TorchScript on cpu, {threads} thread{'s' * (threads > 1)} per process"
    if threads < wanted:
        line += f" instead of {wanted}: {ranks} process{'es' * (ranks > 1)} on {cores} core{'s' * (cores > 1)}"
    assert log_lines(output) == [line]


def test_threads_do_not_change_the_numbers(lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    if CORES < 2:
        pytest.skip("needs 2 cores")
    script = lammps.single_point_script(crystal, models("float64"))
    one = lammps.parse(crystal, lammps.run(script))
    two = lammps.parse(crystal, lammps.run(script.replace("units", "package omp 2\nunits", 1)))
    assert two.energy == pytest.approx(one.energy, abs=1e-10)
    np.testing.assert_allclose(two.forces, one.forces, rtol=0, atol=1e-10)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("ranks", [1, 2])
def test_cuda_that_is_not_there(ranks: int, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    output = lammps.run(lammps.script(cluster, models("float64"), style="mlensemble device cuda"), ranks, check=False)
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, output
    reason = r"this PyTorch 2\S+ was built without CUDA|there is no CUDA driver|CUDA sees no GPU"
    assert re.search(rf"pair_style mlensemble device is cuda, but ({reason})", errors[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_auto_is_the_processor_where_there_is_no_gpu(
    lammps: Lammps, models: Callable[[str], Path], cluster: Atoms
) -> None:
    output = lammps.run(lammps.script(cluster, models("float64"), style="mlensemble device auto") + "run 0\n")
    assert log_lines(output) == ["pair_style mlensemble: TorchScript on cpu, 1 thread per process"]


def test_style_that_comes_again_moves_the_model(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    """pair_style with another device and without pair_coeff: the same file is loaded for that device."""
    script = lammps.script(cluster, models("float64")) + "run 0\n"
    again = (
        script
        + 'print "energy $(pe:%20.15g)"\npair_style mlensemble device auto\nrun 0\nprint "energy $(pe:%20.15g)"\n'
    )
    first, second = (float(word) for word in re.findall(r"^energy +(\S+)", lammps.run(again), re.M))
    assert second == pytest.approx(first, abs=1e-8)


# ---- on a GPU --------------------------------------------------------------------------------------------------------

BUILD: dict[str, Callable[[], Any]] = {
    "ani": lambda: ani.build(ani.Config(hidden={"C": (16, 8), "H": (16, 8)}), ("C", "H"), [1, 2, 3]),
    "painn": lambda: painn.build(painn.Config(features=16, layers=2, cutoff=4.0), ("C", "H"), [1, 2, 3]),
    "schnet": lambda: schnet.build(schnet.Config(features=16, layers=2, cutoff=4.0), ("C", "H"), [1, 2, 3]),
}


@gpu
@pytest.mark.parametrize("device", ["cuda", "auto"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", BUILD)
def test_gpu_in_lammps(name: str, ranks: int, device: str, lammps: Lammps, tmp_path: Path, tilted: Atoms) -> None:
    write(BUILD[name](), tmp_path / "model.pt", [-38.0, -13.0], dtype="float64")
    frame = Frame(tilted.numbers.astype(np.int64), tilted.positions, np.array(tilted.cell), (True, True, True))
    energies, forces = Committee.load(tmp_path / "model.pt").energies_forces(frame)
    script = lammps.single_point_script(tilted, tmp_path / "model.pt", style=f"mlensemble device {device}")
    output = lammps.run(script, ranks)
    assert "TorchScript on cuda:0" in log_lines(output)[0]
    result = lammps.parse(tilted, output)
    assert result.energy == pytest.approx(energies.mean(), abs=1e-8)
    np.testing.assert_allclose(result.forces, forces.mean(axis=0), rtol=0, atol=1e-8)


# ---- what CUDA tensors are computed with, on the processor -----------------------------------------------------------


def of_cuda(name: str, *arguments: Any) -> Any:
    """The kernel that the operator has for CUDA tensors, called with tensors of the processor."""
    load_ops()
    kernel = torch.library.get_kernel(f"rareal::{name}", "CUDA")
    return kernel.call_boxed(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *arguments)


def edges_of(frame: Frame, dtype: torch.dtype) -> tuple[Any, ...]:
    parameters = AEVParameters.of(ani.Config(), 2)
    graph = Graph.of(frame, ("C", "H"), parameters.cutoff)
    # two atoms stand for ghosts: what they feel is somebody else's business
    return graph.species, graph.edges, graph.vectors.to(dtype), graph.n_local - 2, *parameters.arguments()


@pytest.mark.parametrize("frame", [cluster(("C", "H"), 9), crystal(("C", "H"))], ids=["cluster", "crystal"])
def test_portable_descriptor(frame: Frame) -> None:
    load_ops()
    arguments = edges_of(frame, torch.float64)
    cotangents = torch.randn(3, arguments[3], AEVParameters.of(ani.Config(), 2).dimension, dtype=torch.float64)
    for name, extra in (("aev", ()), ("aev_vjp", (cotangents,)), ("aev_jacobian", ())):
        native = getattr(torch.ops.rareal, name)(*extra, *arguments)
        portable = of_cuda(name, *extra, *arguments)
        assert native.abs().max() > 0.01
        torch.testing.assert_close(portable, native, rtol=0, atol=1e-10)


def test_portable_descriptor_of_few_atoms() -> None:
    """One atom, no edge; two atoms, no triple."""
    parameters = AEVParameters.of(ani.Config(), 2)
    for count, edges, vectors in (
        (1, torch.zeros(2, 0, dtype=torch.long), torch.zeros(0, 3, dtype=torch.float64)),
        (2, torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1.1, 0, 0], [-1.1, 0, 0]], dtype=torch.float64)),
    ):
        arguments = (torch.zeros(count, dtype=torch.long), edges, vectors, count, *parameters.arguments())
        for name in ("aev", "aev_jacobian"):
            torch.testing.assert_close(
                of_cuda(name, *arguments), getattr(torch.ops.rareal, name)(*arguments), rtol=0, atol=1e-10
            )


def test_portable_descriptor_refuses_what_the_native_one_refuses() -> None:
    species, edges, vectors, *rest = edges_of(cluster(("C", "H"), 5), torch.float64)
    with pytest.raises(RuntimeError, match="grouped by ascending central atom"):
        of_cuda("aev", species, edges.flip(1), vectors, *rest)


def test_portable_activation_and_products() -> None:
    load_ops()
    z = torch.linspace(-6, 6, 97)
    expected = [part.double() for part in torch.ops.rareal.gelu_derivatives(z)]
    for found, native in zip(of_cuda("gelu_derivatives", z.double()), expected, strict=True):
        torch.testing.assert_close(found, native, rtol=0, atol=1e-6)
    parts = [torch.randn(5, 7) for _ in range(5)]
    native = torch.ops.rareal.gelu_adjoint_(parts[0].clone(), *parts[1:])
    torch.testing.assert_close(of_cuda("gelu_adjoint_", parts[0].clone(), *parts[1:]), native)
    jacobians = [torch.randn(11, 32) for _ in range(4)]
    for name, width in (("jacobian_product", 11), ("jacobian_product_transposed", 32)):
        left = torch.randn(3, 4, width)
        native = getattr(torch.ops.rareal, name)(left, jacobians)
        torch.testing.assert_close(of_cuda(name, left, jacobians), native, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["painn_message", "painn_message_backward", "painn_message_double_backward"])
def test_portable_message(name: str) -> None:
    load_ops()
    frame = cluster(("C", "H"), 8)
    edges = Graph.of(frame, ("C", "H"), 4.0).edges
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    members, atoms, width, count = 3, 8, 10, edges.shape[1]
    arguments = [random(members, atoms, 3 * width), random(members, atoms, 3, width)]
    arguments += [random(members, count, 3 * width), random(members, count, 3), edges]
    if name != "painn_message":
        arguments += [random(members, atoms, width), random(members, atoms, 3, width)]
    if name == "painn_message_double_backward":
        arguments += [random(*array.shape) for array in arguments[:4]]
    native = getattr(torch.ops.rareal, name)(*arguments)
    for found, expected in zip(of_cuda(name, *arguments), native, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
