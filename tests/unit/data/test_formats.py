"""Data sets of other people: what is read, in which units, and what is said about what cannot be."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from rareal.data import dataset
from rareal.data.formats import read
from rareal.errors import DatasetError
from rareal.records import Frame, Label, LabeledFrame

HARTREE = 27.211386245988
BOHR = 0.529177210903
RNG = np.random.default_rng(0)
POSITIONS = RNG.normal(size=(2, 3, 3))
ENERGIES = np.array([-76.1, -76.2])
FORCES = RNG.normal(size=(2, 3, 3))
WATER = {
    "species": np.array(["O", "H", "H"], dtype="S1"),
    "coordinates": POSITIONS,
    "energies": ENERGIES,
    "forces": FORCES,
}


def ani(path: Path, groups: dict[str, dict[str, Any]], units: dict[str, str] | None = None) -> Path:
    with h5py.File(path, "w") as file:
        for group, columns in groups.items():
            for name, values in columns.items():
                file[f"{group}/{name}"] = values
                if units and name in units:
                    file[f"{group}/{name}"].attrs["units"] = units[name]
    return path


def without(*names: str) -> dict[str, Any]:
    return {name: values for name, values in WATER.items() if name not in names}


def expect(frames: list[LabeledFrame], energy: float, force: float, length: float = 1.0) -> None:
    """`WATER`, in eV and Å."""
    assert [f.frame.numbers.tolist() for f in frames] == [[8, 1, 1]] * 2
    np.testing.assert_allclose([f.frame.positions for f in frames], POSITIONS * length, rtol=1e-7)
    np.testing.assert_allclose([f.label.energy for f in frames], ENERGIES * energy, rtol=1e-7)
    np.testing.assert_allclose([f.label.forces for f in frames], FORCES * force, rtol=1e-6)


def test_our_own_files(tmp_path: Path) -> None:
    frame = Frame(np.array([8, 1, 1]), POSITIONS[0], np.eye(3) * 9, (True, False, True), "pull", 3, 1, 7, 6.5)
    frames = [
        LabeledFrame(frame, Label(-3.0, FORCES[0], "a" * 64), 0.5),
        LabeledFrame(frame, Label(-2, FORCES[1], "a" * 64)),
    ]
    dataset.write(tmp_path / "data.h5", frames)
    found = read(tmp_path / "data.h5")
    assert dataset.content_hash(found) == dataset.content_hash(frames)
    assert (found[0].frame.origin, found[0].frame.pbc, found[0].weight) == ("pull", (True, False, True), 0.5)


def test_the_unit_must_be_said_where_the_file_does_not(tmp_path: Path) -> None:
    path = ani(tmp_path / "ani.h5", {"gdb/water": WATER})
    with pytest.raises(DatasetError, match=r"ani\.h5, group /gdb/water does not say .* --units hartree .* --units eV"):
        read(path)
    expect(read(path, "hartree"), HARTREE, HARTREE)
    expect(read(path, "Hartree"), HARTREE, HARTREE)
    expect(read(path, "eV"), 1, 1)
    expect(read(path, "kcal/mol"), 0.04336410424, 0.04336410424)
    with pytest.raises(DatasetError, match="'angstrom' is no unit that converts to eV"):
        read(path, "angstrom")


def test_units_that_the_file_states(tmp_path: Path) -> None:
    stated = {"energies": "Hartree", "coordinates": "Bohr", "forces": "Hartree/Bohr"}
    path = ani(tmp_path / "a.h5", {"water": WATER}, stated)
    expect(read(path), HARTREE, HARTREE / BOHR, BOHR)
    with pytest.raises(DatasetError, match=r"--units eV: the file states its own \(Hartree\)"):
        read(path, "eV")
    path = ani(tmp_path / "b.h5", {"water": WATER}, {"energies": "kcal/mol", "forces": "kcal/mol/Å"})
    expect(read(path), 0.04336410424, 0.04336410424)
    # forces without a unit are in that of the energy by that of the coordinates
    path = ani(tmp_path / "c.h5", {"water": WATER}, {"energies": "eV", "coordinates": "bohr"})
    expect(read(path), 1, 1 / BOHR, BOHR)


@pytest.mark.parametrize(
    "species",
    [
        np.array([8, 1, 1]),
        np.array([[8, 1, 1], [8, 1, 1]], dtype=np.uint8),
        np.array(["O", "H", "H"], dtype=h5py.string_dtype()),
        np.array([["O ", "H ", "H "]] * 2, dtype="S2"),
    ],
)
def test_species_in_every_spelling(tmp_path: Path, species: Any) -> None:
    for name in ("species", "atomic_numbers"):
        path = ani(tmp_path / f"{name}.h5", {"003": {**without("species"), name: species}})
        expect(read(path, "eV"), 1, 1)


def test_groups_at_any_depth_and_different_species_in_one_group(tmp_path: Path) -> None:
    mixed = {**WATER, "species": np.array([[8, 1, 1], [1, 8, 1]]), "energies": ENERGIES[:, None]}
    path = ani(tmp_path / "a.h5", {"x/y/z": WATER, "b": mixed})
    frames = read(path, "eV")
    assert [f.frame.numbers.tolist() for f in frames] == [[8, 1, 1], [1, 8, 1], [8, 1, 1], [8, 1, 1]]
    assert [f.frame.step for f in frames] == [0, 1, 2, 3]


def test_ani_1x(tmp_path: Path) -> None:
    """Several levels of theory; what was not computed at one is NaN."""
    columns = {
        "atomic_numbers": np.array([8, 1, 1], dtype=np.uint8),
        "coordinates": np.concatenate([POSITIONS, POSITIONS[:1]]).astype(np.float32),
        "ccsd(t)_cbs.energy": np.array([np.nan] * 3),
        "wb97x_dz.energy": np.array([*ENERGIES, np.nan]),
        "wb97x_dz.forces": np.concatenate([FORCES, FORCES[:1]]),
        "wb97x_tz.energy": np.zeros(3),
        "wb97x_tz.forces": np.zeros((3, 3, 3)),
    }
    frames = read(ani(tmp_path / "ani1x.h5", {"H2O": columns}), "hartree")
    assert [f.label.energy for f in frames] == pytest.approx(list(ENERGIES * HARTREE))
    for level in ("energy", "forces"):
        columns[f"pbe.{level}"] = columns.pop(f"wb97x_dz.{level}")
    with pytest.raises(DatasetError, match=r"group /H2O has the levels pbe, wb97x_tz; keep one"):
        read(ani(tmp_path / "other.h5", {"H2O": columns}), "hartree")


def test_cells_weights_and_engine(tmp_path: Path) -> None:
    path = ani(tmp_path / "a.h5", {"w": {**WATER, "cell": np.eye(3) * 8, "weight": np.array([1.0, 0.25])}})
    frames = read(path, "eV")
    assert [f.weight for f in frames] == [1.0, 0.25]
    assert frames[1].frame.cell[2, 2] == 8
    assert frames[0].frame.pbc == (True, True, True)
    assert frames[0].label.engine == hashlib.sha256(path.read_bytes()).hexdigest()
    pbc = np.array([[True, False, False], [False, False, False]])
    frames = read(ani(tmp_path / "b.h5", {"w": {**WATER, "cell": np.stack([np.eye(3)] * 2), "pbc": pbc}}), "eV")
    assert [f.frame.pbc for f in frames] == [(True, False, False), (False, False, False)]
    assert read(ani(tmp_path / "c.h5", {"w": WATER}), "eV")[0].frame.pbc == (False, False, False)


def spoilt(name: str, index: Any, value: float) -> dict[str, Any]:
    values = np.array(WATER[name])
    values[index] = value
    return {**WATER, name: values}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (without("forces"), r"group /w has no 'forces' \(it has coordinates, energies, species\)"),
        (without("energies"), r"group /w has no 'energies'"),
        (without("species"), r"group /w has no 'species'; add the symbols or atomic numbers of its 3 atoms"),
        (without("coordinates"), r"bad\.h5 has no group with 'coordinates'"),
        (spoilt("forces", (1, 2), np.nan), r"group /w, frame 1: the forces of atom 3 are not finite; remove"),
        (spoilt("coordinates", (0, 1), np.inf), r"group /w, frame 0: the coordinates of atom 2 are not finite"),
        (spoilt("energies", 1, np.nan), r"group /w, frame 1: the energy is nan; remove"),
        ({**WATER, "weight": np.array([1.0, -1.0])}, r"group /w, frame 1: the weight is -1; give"),
        ({**WATER, "species": np.array(["O", "H", "Q"], dtype="S1")}, r"group /w: 'Q' is no chemical element"),
        ({**WATER, "species": np.array([8, 1, -1])}, r"frame 0: atom 3 has atomic number -1, which is no element"),
        ({**WATER, "species": np.array([8, 1, 119])}, r"atomic number 119"),
        ({**WATER, "species": np.array([8, 1])}, r"'species' has the shape \(2, 2\), expected \(2, 3\)"),
        ({**WATER, "energies": ENERGIES[:1]}, r"'energies' has the shape \(1,\), expected \(2,\)"),
        ({**WATER, "forces": FORCES[:, :2]}, r"'forces' has the shape \(2, 2, 3\), expected \(2, 3, 3\)"),
        (
            {**WATER, "coordinates": POSITIONS[0]},
            r"'coordinates' has the shape \(3, 3\), expected \(frames, atoms, 3\)",
        ),
        ({**WATER, "cell": np.eye(2)}, r"'cell' has the shape \(2, 2\), expected \(2, 3, 3\)"),
        ({name: values[:0] if name != "species" else values for name, values in WATER.items()}, r"holds no frames"),
    ],
)
def test_bad_hdf5(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(ani(tmp_path / "bad.h5", {"w": columns}), "eV")
    assert str(tmp_path / "bad.h5") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_our_own_files_are_checked_too(tmp_path: Path) -> None:
    dataset.write(tmp_path / "empty.h5", [])
    with pytest.raises(DatasetError, match=r"empty\.h5 holds no frames"):
        read(tmp_path / "empty.h5")
    good = LabeledFrame(Frame(np.array([8, 1, 1]), POSITIONS[0]), Label(-3.0, FORCES[0], "a"))
    bad = replace(good, label=replace(good.label, energy=float("nan")))
    dataset.write(tmp_path / "bad.h5", [good, bad])
    with pytest.raises(DatasetError, match=r"bad\.h5, frame 1: the energy is nan"):
        read(tmp_path / "bad.h5")
    with pytest.raises(DatasetError, match=r"--units eV: the file states its own units"):
        read(tmp_path / "bad.h5", "eV")


def images(**info: Any) -> list[Atoms]:
    made = []
    for positions, energy, forces in zip(POSITIONS, ENERGIES, FORCES, strict=True):
        atoms = Atoms("OHH", positions, cell=[7, 8, 9], pbc=[True, True, False], info=dict(info))
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        made.append(atoms)
    return made


def test_extended_xyz(tmp_path: Path) -> None:
    path = tmp_path / "water.xyz"
    first, second = images()
    second.info["weight"] = 0.5
    ase.io.write(path, [first, second], format="extxyz")
    frames = read(path)
    expect(frames, 1, 1)
    assert [f.weight for f in frames] == [1.0, 0.5]
    assert frames[0].frame.pbc == (True, True, False)
    np.testing.assert_allclose(np.diag(frames[0].frame.cell), [7, 8, 9])
    assert frames[0].label.engine == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DatasetError, match="--units eV: ASE reads energies in eV"):
        read(path, "eV")


def test_other_formats_of_ase(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "water.traj", images())
    expect(read(tmp_path / "water.traj"), 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\nProperties=species:S:1:pos:R:3 REF_energy=-1.0\nH 0 0 0\n", r"no 'energy'.* has REF_energy: if one of"),
        ("1\nProperties=species:S:1:pos:R:3 energy=-1.0\nH 0 0 0\n", r"frame 0 has no 'forces'"),
        ("1\n\nH 0 0 0\n", r"frame 0 has no 'energy', which training.*need$"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0\nQq 0 0 0 0 0 0\n", r"unknown element.*Qq"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.0\nH 0 0 0 0 0 nan\n", r"the forces of atom 1"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=nan\nH 0 0 0 0 0 0\n", r"frame 0: the energy is nan"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1 weight=much\nH 0 0 0 0 0 0\n", r"the weight is 'much'"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:2 energy=-1.0\nH 0 0 0 0 0\n", r"forces|ASE cannot read"),
        ("", r"ASE cannot read .*bad\.xyz|bad\.xyz holds no frames"),
        ("some words\n", r"ASE cannot read .*bad\.xyz"),
    ],
)  # fmt: skip
def test_bad_xyz(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.xyz").write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        read(tmp_path / "bad.xyz")
    assert "bad.xyz" in str(caught.value)


def test_no_file_and_a_cut_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nothing\.h5: there is no such file"):
        read(tmp_path / "nothing.h5")
    path = ani(tmp_path / "cut.h5", {"w": WATER})
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DatasetError, match=r"cut\.h5 is damaged"):
        read(path, "eV")
