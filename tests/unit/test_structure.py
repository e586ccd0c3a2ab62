"""Plain molecules are read without ASE's readers, and exactly as these read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule

from rareal.schema import Misfit
from rareal.structure import _any, _plain, read_structure

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.xyz"))


def equal(path: Path) -> bool:
    ours, theirs = read_structure(path), _any(path)
    return (
        np.array_equal(ours.numbers, theirs.numbers)
        and np.array_equal(ours.positions, theirs.positions)
        and np.array_equal(ours.cell, theirs.cell)
        and ours.pbc == theirs.pbc
        and ours.numbers.dtype == theirs.numbers.dtype
        and ours.origin == theirs.origin
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples(path: Path) -> None:
    assert _plain(path) is not None
    assert equal(path)


@pytest.mark.parametrize("format", ["xyz", "extxyz"])
def test_what_ase_writes(format: str, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.xyz", molecule("CH3CH2OH"), format=format)
    assert _plain(tmp_path / "a.xyz") is not None
    assert equal(tmp_path / "a.xyz")


@pytest.mark.parametrize("comment", ["", "ethanol, relaxed", "step 3 of 5"])
def test_words_as_a_comment(comment: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(f"2\n{comment}\nH 0 0 0\nCl 0 0 1.3\n\n")
    assert _plain(tmp_path / "a.xyz") is not None
    assert equal(tmp_path / "a.xyz")


def test_all_else_is_left_to_ase(tmp_path: Path) -> None:
    molecules = molecule("H2O"), molecule("CH4")
    crystal = bulk("Cu", cubic=True)
    moving = molecule("H2O")
    moving.set_velocities(np.ones((3, 3)))
    cases = {"many": molecules, "crystal": crystal, "moving": moving}
    for name, atoms in cases.items():
        ase.io.write(tmp_path / f"{name}.xyz", atoms, format="extxyz")
    ase.io.write(tmp_path / "vasp.poscar", crystal, format="vasp")
    (tmp_path / "columns.xyz").write_text("2\nProperties=species:S:1:other:R:3:pos:R:3\nH 9 9 9 0 0 0\nH 9 9 9 0 0 1\n")
    (tmp_path / "lattice.xyz").write_text('2\nLattice="9 0 0 0 9 0 0 0 9"\nH 0 0 0\nCl 0 0 1.3\n')
    (tmp_path / "lower.xyz").write_text("2\n\nh 0 0 0\ncl 0 0 1.3\n")
    for path in sorted(tmp_path.iterdir()):
        assert _plain(path) is None, path
        if path.name != "lower.xyz":
            assert equal(path), path


@pytest.mark.parametrize("text", ["", "2\n\nH 0 0 0\n", "two\n\nH 0 0 0\nH 0 0 1\n", "2\n\nH 0 0 x\nH 0 0 1\n"])
def test_broken_files_get_ases_reason(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(Misfit, match="ASE cannot read"):
        read_structure(tmp_path / "a.xyz")


def test_a_plain_molecule_does_not_load_what_takes_long() -> None:
    yaml = EXAMPLES[0].parents[1] / "hexane" / "hexane.yaml"
    code = (
        "import sys; from pathlib import Path\nfrom rareal.config import load\n"
        f"load(Path({str(yaml)!r}))\nslow = 'ase.io', 'scipy.special', 'scipy.optimize'\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
