"""Extended XYZ of ours: every digit and all provenance come back, and others read it too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest

from rareal.data import dataset, formats
from rareal.errors import DatasetError
from rareal.records import Frame, Label, LabeledFrame

SETTINGS = {"a" * 64: {"kind": "tblite", "version": "0.8.0", "depth": [1, 2.5], "text": 'x "y" = z\nend'}}


def rows() -> list[LabeledFrame]:
    """A molecule, a crystal with everything, and what is hard to write."""
    rng = np.random.default_rng(0)
    cell = rng.normal(size=(3, 3))
    free = Frame(np.array([6, 1]), rng.normal(size=(2, 3)) * 1e-7)
    crystal = Frame(
        np.array([17, 11, 1]), rng.normal(size=(3, 3)) * 100, cell, (True, False, True), "path", 3, 1, 7, 6.5
    )
    note = 'mixing 0.1, then "Anderson"\n= T'
    return [
        LabeledFrame(free, Label(-1 / 3, rng.normal(size=(2, 3)), "a" * 64)),
        LabeledFrame(
            crystal, Label(1e-17, rng.normal(size=(3, 3)), "a" * 64, 0.1, rng.normal(size=6), note), 0.25, "b" * 64
        ),
        LabeledFrame(replace(free, numbers=np.array([1, 1]), origin="T"), Label(2.0, np.zeros((2, 3)), "a" * 64)),
    ]


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".h5", ".hdf5"])
def test_all_comes_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"set{suffix}"
    formats.write(path, rows(), SETTINGS)
    formats.write(path, rows(), SETTINGS)  # over what is there
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    found, settings = formats.read_set(path)
    assert settings == SETTINGS
    assert dataset.content_hash(found) == dataset.content_hash(rows())
    for a, b in zip(found, rows(), strict=True):
        assert (a.weight, a.replaces) == (b.weight, b.replaces)
        for name in ("origin", "round", "walker", "step", "pbc"):
            assert getattr(a.frame, name) == getattr(b.frame, name)
        np.testing.assert_array_equal(a.frame.cv, b.frame.cv)
        assert (a.label.seconds, a.label.note) == (b.label.seconds, b.label.note)
        assert (a.label.stress is None) == (b.label.stress is None)


def test_others_read_it(tmp_path: Path) -> None:
    formats.write(tmp_path / "set.xyz", rows(), {})
    atoms = ase.io.read(tmp_path / "set.xyz", index=1)
    row = rows()[1]
    assert str(atoms.symbols) == "ClNaH"
    assert atoms.get_potential_energy() == row.label.energy
    np.testing.assert_array_equal(atoms.get_forces(), row.label.forces)
    np.testing.assert_array_equal(atoms.get_stress(), row.label.stress)
    np.testing.assert_array_equal(atoms.cell[:], row.frame.cell)
    assert atoms.pbc.tolist() == [True, False, True]


def test_files_join_and_their_engines_are_told_apart(tmp_path: Path) -> None:
    other = [replace(row, label=replace(row.label, engine="c" * 64)) for row in rows()]
    for name, held in (("one", rows()), ("other", other)):
        formats.write(tmp_path / f"{name}.xyz", held, SETTINGS | {"c" * 64: {"kind": "gpaw"}})
    joined = tmp_path / "joined.xyz"
    joined.write_text((tmp_path / "one.xyz").read_text() + (tmp_path / "other.xyz").read_text())
    found, settings = formats.read_set(joined)
    assert [row.label.engine[0] for row in found] == list("aaaccc")
    assert settings["c" * 64] == {"kind": "gpaw"}
    with pytest.raises(DatasetError, match="engine cccccccccccc .kind gpaw.: 3 frames"):
        dataset.refuse_mixture(found, settings)


def test_geometries_need_no_labels(tmp_path: Path) -> None:
    formats.write(tmp_path / "set.h5", rows(), {})
    ase.io.write(tmp_path / "bare.xyz", [ase.Atoms("CH", [[0, 0, 0], [0, 0, 1.1]]), ase.Atoms("H")])
    assert [frame.round for frame in formats.read_frames(tmp_path / "set.h5")] == [-1, 3, -1]
    bare = formats.read_frames(tmp_path / "bare.xyz")
    assert [(frame.numbers.tolist(), frame.origin, frame.step) for frame in bare] == [
        ([6, 1], "file", 0),
        ([1], "file", 1),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.xyz", None, "there is no such file"),
        ("empty.xyz", "", "ASE cannot read|holds no frames"),
        ("nan.xyz", "1\n\nH 0 0 nan\n", "frame 0: the coordinates of atom 1 are not finite"),
        ("ghost.xyz", "1\n\nX 0 0 0\n", "frame 0: atom 1 has atomic number 0, which is no element"),
        ("odd.xyz", "1\n\nQq 0 0 0\n", "unknown element"),
    ],
)
def test_what_is_no_geometry(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        formats.read_frames(tmp_path / name)


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "there.h5").touch()
    for name, message in (
        ("set.pdb", r"'\.pdb' is no format to write; use \.h5"),
        ("no/set.h5", "there is no such folder for set.h5"),
        ("there.h5", "exists already; overwrite it with --force"),
    ):
        with pytest.raises(DatasetError, match=message):
            formats.refuse_output(tmp_path / name, force=False)
    formats.refuse_output(tmp_path / "there.h5", force=True)
