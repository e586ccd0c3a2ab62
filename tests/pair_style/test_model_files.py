"""Model files that cannot be used: one error that names the file and the reason, in LAMMPS and in Python, no crash."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from toys import ManyBody, save_committee

import rareal
from rareal.errors import ModelFileError
from rareal.export.modelfile import Committee
from rareal.plugin import lmp_environment
from rareal.testing.lammps import Lammps

# One process of LAMMPS for many files: an error leaves it alive, a crash would end it.
PROGRAM = """
import sys
from rareal.plugin import load_mpi
load_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.file("in.start")
for name in sys.argv[1].split(","):
    try:
        lmp.command(f"pair_coeff * * {name} C H")
        lmp.command("run 0")
        print(name, "accepted", repr(lmp.get_thermo("pe")))
    except Exception as error:
        print(name, "refused", " ".join(str(error).split()))
lmp.command("pair_coeff * * good.pt C H")
lmp.command("run 0")
print("after all", repr(lmp.get_thermo("pe")))
lmp.close()
"""


def judge(lammps: Lammps, cluster: Atoms, good: Path, names: list[str]) -> dict[str, tuple[str, str]]:
    """What LAMMPS says of the files ``names`` in its folder: accepted or refused, and the energy or the reason."""
    (lammps.folder / "good.pt").write_bytes(good.read_bytes())
    (lammps.folder / "in.start").write_text(lammps.script(cluster, Path("good.pt")))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(names)],
        cwd=lammps.folder,
        env=lmp_environment() | {"PYTHONPATH": str(Path(rareal.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert lines[-1][:2] == ["after", "all"]
    return {name: (verdict, text) for name, verdict, text in lines[:-1]}


def places(size: int, archive: zipfile.ZipFile) -> list[int]:
    """Where to cut or to change a file: evenly, and at the beginning, middle and end of every record."""
    found = set(np.linspace(0, size - 1, 12, dtype=int).tolist())
    for entry in archive.infolist():
        start = entry.header_offset + 30 + len(entry.filename) + 8
        found |= {start, start + entry.compress_size // 2, start + entry.compress_size - 1}
    return sorted(place for place in found if 0 <= place < size)


def test_cut_anywhere(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    whole = models("float64").read_bytes()
    names = []
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for place in places(len(whole), archive):
            names.append(f"cut-{place}.pt")
            (lammps.folder / names[-1]).write_bytes(whole[:place])
            with pytest.raises(ModelFileError, match=rf"{names[-1]} (is no archive|is damaged)"):
                Committee.load(lammps.folder / names[-1])
    assert len(names) > 20
    for name, (verdict, text) in judge(lammps, cluster, models("float64"), names).items():
        assert verdict == "refused", name
        assert re.search(rf"Model file '{name}' is no archive of PyTorch, or is (cut off|damaged)", text), text


def test_changed_anywhere(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    """A bit of the weights, the code or the metadata: refused, or (in a header nobody reads) the same energy."""
    whole = models("float64").read_bytes()
    names, within = [], set()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        data = {}
        for entry in archive.infolist():
            with archive.open(entry):
                pass
            name, extra = (int.from_bytes(whole[entry.header_offset + k :][:2], "little") for k in (26, 28))
            first = entry.header_offset + 30 + name + extra
            data[entry.filename] = range(first, first + entry.compress_size)
        for place in places(len(whole), archive):
            names.append(f"flip-{place}.pt")
            if any(place in span for span in data.values()):
                within.add(names[-1])
            changed = bytearray(whole)
            changed[place] ^= 0x10
            (lammps.folder / names[-1]).write_bytes(changed)
    assert len(within) > 15
    found = judge(lammps, cluster, models("float64"), ["good.pt", *names])
    for name in names:
        verdict, text = found[name]
        if verdict == "accepted":
            assert name not in within
            assert text == found["good.pt"][1]
        else:
            assert f"'{name}'" in text
        if name in within:
            with pytest.raises(ModelFileError, match=name):
                Committee.load(lammps.folder / name)


def script_without_metadata(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path))


def script_without_forward(path: Path) -> None:
    class Useless(torch.nn.Module):
        @torch.jit.export
        def backward(self) -> int:
            return 1

    good = save_committee(path.with_suffix(".good"), ManyBody(2, seed=1, spread=0.1))
    extra = {"rareal.json": ""}
    torch.jit.load(str(good), _extra_files=extra)
    torch.jit.save(torch.jit.script(Useless()), str(path), _extra_files=extra)


def script_of_other_arguments(path: Path) -> None:
    good = save_committee(path.with_suffix(".good"), ManyBody(2, seed=1, spread=0.1))
    extra = {"rareal.json": ""}
    torch.jit.load(str(good), _extra_files=extra)
    torch.jit.save(torch.jit.script(torch.nn.Identity()), str(path), _extra_files=extra)


def zip_with_metadata(path: Path) -> None:
    good = save_committee(path.with_suffix(".good"), ManyBody(2, seed=1, spread=0.1))
    extra = {"rareal.json": ""}
    torch.jit.load(str(good), _extra_files=extra)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/extra/rareal.json", extra["rareal.json"])
        archive.writestr("model/version", "3\n")


def plain_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("report.txt", "nothing of ours")


def nan_weights(path: Path) -> None:
    module = ManyBody(2, seed=1, spread=0.1)
    with torch.no_grad():
        module.dipole[1, 1] = torch.nan
    save_committee(path, module)


def wrong(**metadata: Any) -> Callable[[Path], None]:
    return lambda path: save_committee(path, ManyBody(2, seed=1, spread=0.1), metadata=metadata) and None


def bad_json(path: Path) -> None:
    script = torch.jit.script(ManyBody(2, seed=1, spread=0.1).double())
    torch.jit.save(script, str(path), _extra_files={"rareal.json": '{"format": 1,'})


def no_object(path: Path) -> None:
    script = torch.jit.script(ManyBody(2, seed=1, spread=0.1).double())
    torch.jit.save(script, str(path), _extra_files={"rareal.json": json.dumps([1, 2])})


FOREIGN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # what it is: who writes it, what LAMMPS says, what Python says
    "empty": (lambda p: p.write_bytes(b""), r"is no archive of PyTorch, or is cut off", r"is no archive"),
    "text": (lambda p: p.write_text("pair_coeff\n" * 99), r"is no archive of PyTorch", r"is no archive"),
    "noise": (lambda p: p.write_bytes(np.random.default_rng(1).bytes(9999)), r"is no archive", r"is no archive"),
    "folder": (lambda p: p.mkdir(), r"is a folder", r"is a folder"),
    "missing": (lambda p: None, r"Cannot open model file", r"no such model file"),
    "zip": (plain_zip, r"is no archive of PyTorch|no rareal metadata", r"no rareal metadata"),
    "weights": (lambda p: torch.save({"w": torch.ones(3)}, p), r"no rareal metadata", r"no rareal metadata"),
    "script": (script_without_metadata, r"no rareal metadata", r"no rareal metadata"),
    "shell": (zip_with_metadata, r"Cannot load model file", r"is no model file that torch"),
    "forward": (script_without_forward, r"no method 'forward'", r"cannot be evaluated"),
    "arguments": (script_of_other_arguments, r"Evaluation of model file .* failed", r"cannot be evaluated"),
    "nan": (nan_weights, r"energies or forces that are no numbers", r"energies or forces that are no numbers"),
    "json": (bad_json, r"Metadata of model file .* cannot be read", r"metadata cannot be read"),
    "list": (no_object, r"Metadata of model file .* cannot be read", r"metadata cannot be read"),
    "newer": (
        wrong(format=2, rareal_version="9.9"),
        r"has format 2, .* reads format 1: use .*\(9\.9\)",
        r"has format 2; this rareal reads format 1.*\(9\.9\)",
    ),
    "units": (
        wrong(units={"energy": "Ha", "length": "angstrom"}),
        r"energy unit 'Ha', .* needs 'eV'",
        r"has units .*Ha",
    ),
    "half": (wrong(dtype="float16"), r"dtype 'float16', .* needs 'float32'", r"dtype 'float16'"),
    "single": (wrong(dtype="float32"), r"failed|another precision", r"cannot be evaluated|another precision"),
    "selves": (wrong(self_energies=[1.0]), r"2 elements and 1 self-energies", r"2 elements and 1 self-energies"),
    "nanself": (wrong(self_energies=[1.0, float("nan")]), r"cannot be read|no number", r"no numbers"),
    "nobody": (wrong(members=0), r"impossible metadata: members 0", r"impossible metadata: members 0"),
    "members": (wrong(members=3), r"arrays of other shapes than its metadata", r"arrays of other shapes"),
    "far": (wrong(cutoff="far"), r"Metadata of model file .* cannot be read", r"metadata cannot be read"),
    "inside": (wrong(cutoff=-1.0), r"impossible metadata: members 2, layers 0, cutoff -1", r"cutoff -1"),
    "elements": (wrong(elements=[], self_energies=[]), r"has 0 elements", r"has 0 elements"),
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory, models: Callable[[str], Path]) -> dict[str, tuple[str, str]]:
    folder = tmp_path_factory.mktemp("foreign")
    for name, (write, _, _) in FOREIGN.items():
        write(folder / f"{name}.pt")
    atoms = Atoms("CHCH", [[5, 5, 5], [6, 5, 5], [5, 6.2, 5], [5, 5, 6.1]], cell=[12, 12, 12])
    found = judge(Lammps(folder), atoms, models("float64"), [f"{name}.pt" for name in FOREIGN])
    for name in FOREIGN:
        try:
            Committee.load(folder / f"{name}.pt")
        except ModelFileError as error:
            found[f"{name} in Python"] = ("refused", str(error))
    return found


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign(name: str, verdicts: dict[str, tuple[str, str]]) -> None:
    _, in_lammps, in_python = FOREIGN[name]
    verdict, text = verdicts[f"{name}.pt"]
    assert verdict == "refused"
    assert f"{name}.pt" in text
    assert re.search(in_lammps, text), text
    verdict, text = verdicts[f"{name} in Python"]
    assert f"{name}.pt" in text
    assert re.search(in_python, text), text


@pytest.mark.parametrize("ranks", [1, 2])
def test_on_several_processes(ranks: int, lammps: Lammps, cluster: Atoms) -> None:
    """All of them stop, with one message."""
    (lammps.folder / "text.pt").write_text("pair_coeff\n")
    output = lammps.run(lammps.script(cluster, lammps.folder / "text.pt"), ranks, check=False)
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, output
    assert "text.pt' is no archive of PyTorch" in errors[0]
