"""A committee compiled ahead of time by AOTInductor (``.pt2``): for LAMMPS the same as a TorchScript file, and faster.

`compile_package` records what a committee does, the derivative by the edge vectors included, as one graph of PyTorch's
and rareal's operators with the numbers of atoms and edges left open, and compiles that to machine code. It needs a C++
compiler; who uses the package needs none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rareal.errors import InstallationError, ModelFileError

Evaluate = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""The model-file contract: species, edge_index, edge_vec, n_local to energies and gradients."""

FEWEST = 2
"""Compiled code may take every size to be at least this: PyTorch treats arrays of one row, or none, as special."""


class _Program(nn.Module):
    """The committee with arrays as its only arguments; of the last one only the length counts."""

    def __init__(self, committee: nn.Module) -> None:
        super().__init__()
        self.committee = committee

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        energies, gradients = self.committee(species, edge_index, edge_vec, local.size(0))
        return energies, gradients


def compiled_for(device: str) -> dict[str, str]:
    """What a package that is compiled now will run on, for its metadata."""
    return {
        "device": device,
        "torch": torch.__version__.partition("+")[0],
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def check_compiler() -> None:
    """Refuse early where nothing can be compiled.

    Raises
    ------
    InstallationError
        If there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    try:
        subprocess.run([compiler, "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallationError(
            f"A .pt2 package is compiled, and there is no C++ compiler '{compiler}' ({error}); install g++, or name "
            "another with the environment variable CXX. A .pt model file needs none"
        ) from error


def compile_package(committee: nn.Module, path: Path, metadata: str, dtype: torch.dtype, device: str) -> None:
    """Compile ``committee`` (a module of the model-file contract) and write the package with its ``metadata`` (JSON).

    Raises
    ------
    InstallationError
        If there is no C++ compiler, or no such device.
    ModelFileError
        If PyTorch cannot compile the committee.
    """
    check_compiler()  # before PyTorch's compiler is imported, which then looks for the C++ compiler once and for all
    from torch.export.pt2_archive._package import package_pt2

    from rareal.export import fake_operators

    if device == "cuda" and not torch.cuda.is_available():
        raise InstallationError("--device cuda needs a GPU that PyTorch can use; compile where there is one")
    fake_operators.register()
    program = _Program(committee).to(device).eval()
    try:
        files = _compile(program, _example(dtype, device))
        # the folder `extra` is where TorchScript files have their metadata, too
        package_pt2(str(path), aoti_files={"model": files}, extra_files={"rareal.json": metadata})
    except Exception as error:  # of many kinds, from every layer of the compiler
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelFileError(f"PyTorch cannot compile this committee ahead of time: {reason[0]}") from error


def _example(dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """Arguments of unequal sizes, so that none is taken for another: 7 atoms, 5 of them local, in a ring."""
    atoms, local = 7, 5
    centre = torch.arange(atoms).repeat_interleave(2)
    neighbour = (centre + torch.tensor([1, -1]).repeat(atoms)) % atoms
    vectors = torch.linspace(0.6, 1.4, 6 * atoms, dtype=dtype).view(2 * atoms, 3)
    arrays = (torch.arange(atoms) % 2, torch.stack([centre, neighbour]), vectors, torch.zeros(local, dtype=torch.long))
    return tuple(array.to(device) for array in arrays)


def _compile(program: nn.Module, example: tuple[Tensor, ...]) -> Any:
    from torch._inductor import aot_compile
    from torch.export import Dim
    from torch.fx.experimental.proxy_tensor import make_fx

    # autograd inside forward: the first tracing unrolls it, the second finds plain operators
    graph = make_fx(lambda *arrays: program(*arrays), tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    free = Dim.DYNAMIC
    exported = torch.export.export(graph, example, dynamic_shapes=({0: free}, {1: free}, {0: free}, {0: free}))
    settings = {
        "aot_inductor.package": True,
        "cpp.dynamic_threads": True,  # as many as there are when it runs
    }
    return aot_compile(exported.module(), *exported.example_inputs, options=settings)


def _runs(instructions: str, here: str) -> bool:
    """Whether a processor has the instructions that a package was compiled for; each set has all before it."""
    known = ("DEFAULT", "AVX2", "AVX512")
    return instructions == here or (
        instructions in known and here in known and known.index(instructions) <= known.index(here)
    )


@dataclass(frozen=True)
class Package:
    """A loaded package, called as a TorchScript committee is."""

    program: Any
    cutoff: float

    @classmethod
    def load(cls, path: Path, compiled: dict[str, str] | None, cutoff: float) -> Package:
        """Read a package.

        Raises
        ------
        ModelFileError
            If it was compiled for something else than what is here.
        """
        here = compiled_for("cpu")
        if compiled is None:
            raise ModelFileError(f"{path} is an AOTInductor package, but its metadata do not say what it is for")
        if compiled["torch"] != here["torch"]:
            raise ModelFileError(
                f"{path} was compiled for torch {compiled['torch']}, this is {here['torch']}; compile it again"
            )
        if compiled["device"] != "cpu":
            raise ModelFileError(f"{path} was compiled for device {compiled['device']}; in Python use the .pt file")
        if not _runs(compiled["instructions"], here["instructions"]):
            raise ModelFileError(
                f"{path} was compiled for processors with {compiled['instructions']}; compile it again for this one"
            )
        return cls(torch._inductor.aoti_load_package(str(path)), cutoff)

    def __call__(self, species: Tensor, edges: Tensor, vectors: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients [M, P, 3]."""
        count = len(vectors)
        if n_local < FEWEST or count < FEWEST:
            species, edges, vectors, local = self._filled(species, edges, vectors, n_local)
        else:
            local = n_local
        energies, gradients = self.program(species, edges, vectors, species.new_zeros(local))
        return energies[:, :n_local], gradients[:, :count]

    def _filled(self, species: Tensor, edges: Tensor, vectors: Tensor, n_local: int) -> tuple[Any, ...]:
        """The same with atoms that nobody sees and edges too long to count, up to `FEWEST`."""
        atoms, more = max(0, FEWEST - n_local), max(0, FEWEST - len(vectors))
        nodes = torch.cat([species[:n_local], species.new_zeros(atoms), species[n_local:]])
        last = torch.stack([edges.new_full((more,), len(nodes) - 1), edges.new_zeros(more)])
        edges = torch.cat([edges + (edges >= n_local) * atoms, last], 1)
        return nodes, edges, torch.cat([vectors, vectors.new_full((more, 3), 2.0 * self.cutoff)]), n_local + atoms
