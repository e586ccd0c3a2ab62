"""AOTInductor packages in LAMMPS: what the TorchScript file says that they were compiled from, everywhere."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from committees import BUILD, SELF_ENERGIES, TOLERANCE, compare, in_python
from test_model_files import judge
from typer.testing import CliRunner

from rareal.cli import app
from rareal.compiled import compile_file
from rareal.errors import ModelFileError
from rareal.export.modelfile import Committee, write
from rareal.models import zbl
from rareal.testing.lammps import Lammps

Files = Callable[[str], tuple[Path, Path]]
NAMES = ("ani", "painn", "schnet")
DTYPE = {"ani": "float64", "painn": "float32", "schnet": "float64"}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A committee as TorchScript and as a package, compiled once; ANI on top of a repulsive core."""
    folder = tmp_path_factory.mktemp("packages")

    def get(name: str) -> tuple[Path, Path]:
        script, package = folder / f"{name}.pt", folder / f"{name}.pt2"
        if not package.exists():
            core = zbl.ZBL() if name == "ani" else None
            write(BUILD[name](), script, list(SELF_ENERGIES.values()), dtype=DTYPE[name], repulsion=core)
            if name == "schnet":
                done = CliRunner().invoke(app, ["export", str(script), "-o", str(package)])
                assert done.exit_code == 0, done.output
            else:
                compile_file(script, package)
        return script, package

    return get


@pytest.mark.parametrize(("system", "ranks", "newton"), [("tilted", 1, "on"), ("tiny", 2, "off"), ("crystal", 4, "on")])
@pytest.mark.parametrize("name", NAMES)
def test_in_lammps_what_torchscript_says_in_python(
    name: str, system: str, ranks: int, newton: str, files: Files, lammps: Lammps, request: pytest.FixtureRequest
) -> None:
    atoms: Atoms = request.getfixturevalue(system)
    script, package = files(name)
    result = lammps.single_point(atoms, package, ranks=ranks, newton=newton)
    compare(result, atoms, *in_python(script, atoms), DTYPE[name])


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_atoms_that_a_compiler_may_not_expect(name: str, files: Files, lammps: Lammps) -> None:
    """Processes with one atom or none; atoms without neighbours; a pair."""
    lonely = Atoms("CHC", [[2, 5, 5], [8, 5, 5], [14, 5, 5]], cell=[20, 10, 10])
    pair = Atoms("CH", [[4.6, 5, 5], [5.6, 5, 5]], cell=[10, 10, 10])
    for atoms, ranks, grid in ((lonely, 4, "4 1 1"), (pair, 2, "2 1 1")):
        script, package = (
            lammps.single_point(atoms, file, ranks=ranks, before_data=f"processors {grid}") for file in files(name)
        )
        tolerance = TOLERANCE[DTYPE[name]]
        assert package.energy == pytest.approx(script.energy, abs=tolerance)
        np.testing.assert_allclose(package.forces, script.forces, rtol=0, atol=tolerance)
        np.testing.assert_allclose(package.spread, script.spread, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_in_python(name: str, files: Files, tilted: Atoms) -> None:
    expected, found = (in_python(file, tilted)[0] for file in files(name))
    scale = {"float64": 1e-10, "float32": 1e-5}[DTYPE[name]] * max(1.0, float(np.abs(expected.forces).max()))
    np.testing.assert_allclose(found.atomic, expected.atomic, rtol=0, atol=scale)
    np.testing.assert_allclose(found.gradients, expected.gradients, rtol=0, atol=scale)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false here")
@pytest.mark.parametrize("name", NAMES)
def test_compiled_for_a_gpu(name: str, files: Files, lammps: Lammps, tilted: Atoms) -> None:
    script, _ = files(name)
    package = lammps.folder / "gpu.pt2"
    compile_file(script, package, "cuda")
    output = lammps.run(lammps.single_point_script(tilted, package, style="mlensemble device cuda"))
    assert "AOTInductor on cuda:0" in output
    compare(lammps.parse(tilted, output), tilted, *in_python(script, tilted), DTYPE[name])


RUN = """
velocity all create 300 4711 mom yes
timestep 0.00025
fix integrate all nve
run 10
write_restart half.restart
run 10
"""
STATE = 'print "state $(pe:%20.15g) $(ke:%20.15g)"\n'


def states(output: str) -> list[list[float]]:
    return [[float(word) for word in line.split()[1:]] for line in output.splitlines() if line.startswith("state ")]


def test_restart_clear_and_both_kinds_in_one_process(files: Files, lammps: Lammps, tilted: Atoms) -> None:
    script, package = files("ani")
    again = "clear\natom_modify map array\nread_restart half.restart\n"
    again += f"pair_style mlensemble\npair_coeff * * {package} C H\n"
    again += "timestep 0.00025\nfix integrate all nve\nrun 10\n"
    parts = [lammps.script(tilted, file) + RUN + STATE for file in (package, script, package)]
    output = lammps.run("clear\n".join(parts) + again + STATE, ranks=2)
    found = np.array(states(output))
    assert len(found) == 4
    np.testing.assert_allclose(found, np.broadcast_to(found[1], found.shape), rtol=0, atol=1e-7)
    lines = re.findall(r"^pair_style mlensemble: (.*?),", output, re.M)
    assert lines == ["AOTInductor on cpu", "TorchScript on cpu", "AOTInductor on cpu", "AOTInductor on cpu"]


def changed(source: Path, target: Path, **metadata: Any) -> Path:
    """A copy of a model file with other metadata; an entry None is left out, without any no metadata remain."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("extra/rareal.json"):
                if not metadata:
                    continue
                data = json.dumps(json.loads(data) | metadata).encode()
            new.writestr(entry, data)
    return target


HERE = {"device": "cpu", "torch": "2.13.0", "instructions": "DEFAULT"}


ODD: list[tuple[dict[str, Any], str, str]] = [
    ({}, r"carries no rareal metadata", r"carries no rareal metadata"),
    ({"format": 7, "rareal_version": "9.9"}, r"has format 7, .*\(9\.9\)", r"has format 7; .*\(9\.9\)"),
    ({"compiled": None}, r"do not say what it was compiled for", r"do not say what it is for"),
    ({"compiled": HERE | {"torch": "2.0.1"}}, r"compiled for PyTorch 2\.0\.1, .* uses 2\.13", r"for torch 2\.0\.1"),
    ({"compiled": HERE | {"device": "cuda"}}, r"for device cuda, but .* device cpu", r"device cuda; in Python"),
    ({"compiled": HERE | {"instructions": "AVX4096"}}, r"for processors with AVX4096, this one has", r"with AVX4096"),
    ({"members": 2}, r"other shapes than its metadata promise", r"other shapes"),
    ({"dtype": "float32"}, r"failed|another precision", r"cannot be evaluated|another precision"),
]  # fmt: skip


def test_packages_of_other_metadata(files: Files, lammps: Lammps, cluster: Atoms) -> None:
    names = [f"odd-{k}.pt2" for k in range(len(ODD))]
    for name, (metadata, _, _) in zip(names, ODD, strict=True):
        changed(files("ani")[1], lammps.folder / name, **metadata)
    found = judge(lammps, cluster, files("ani")[0], names)
    for name, (_, said, said_in_python) in zip(names, ODD, strict=True):
        verdict, text = found[name]
        assert verdict == "refused"
        assert name in text
        assert re.search(said, text), text
        with pytest.raises(ModelFileError, match=said_in_python):
            Committee.load(lammps.folder / name)


def test_damaged_package(files: Files, lammps: Lammps, cluster: Atoms) -> None:
    """Cut off, or one bit of the machine code changed."""
    whole = files("ani")[1].read_bytes()
    with zipfile.ZipFile(files("ani")[1]) as archive:
        code = next(entry for entry in archive.infolist() if entry.filename.endswith(".so"))
    flipped = bytearray(whole)
    flipped[code.header_offset + code.compress_size // 2] ^= 4
    for name, content in (("cut.pt2", whole[: len(whole) // 2]), ("flip.pt2", bytes(flipped))):
        (lammps.folder / name).write_bytes(content)
        output = lammps.run(lammps.script(cluster, Path(name)), check=False)
        assert re.search(rf"ERROR: Model file '{name}' is no archive of PyTorch, or is (cut off|damaged)", output)
        with pytest.raises(ModelFileError, match=f"{name} is (no archive|damaged)"):
            Committee.load(lammps.folder / name)
