"""Labelled frames from a file of anybody's: ours, HDF5 in the layout of ANI, or what ASE reads (extended XYZ).

The ANI layout is that of the ANI-1 and ANI-1x files: a group per molecule or per number of atoms, nested or not, with
``species`` or ``atomic_numbers`` ([N] or [F, N]; symbols or numbers), ``coordinates`` [F, N, 3], ``energies`` [F] and
``forces`` [F, N, 3]; optional ``cell``, ``pbc`` and ``weight``. Where a file has several levels of theory, as ANI-1x
has (``wb97x_dz.energy``, ``wb97x_dz.forces``; J. S. Smith et al., Sci. Data 2020, 7, 134), NaN marks what was not
computed at a level, and ANI-1x's own level is read.

What rareal writes as extended XYZ (`rareal.data.extxyz`) comes back with its provenance.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from rareal.data import asedb, dataset, extxyz
from rareal.data.dataset import Settings
from rareal.errors import DatasetError
from rareal.records import Array, Frame, Label, LabeledFrame
from rareal.units import parse_quantity

SPECIES = ("species", "atomic_numbers", "numbers")
COORDINATES = ("coordinates", "positions", "coord")
ENERGIES = ("energies", "energy")
FORCES = ("forces", "force")
WEIGHTS = ("weight", "weights")
LEVEL = "wb97x_dz"
"""The level of theory of ANI-1x that every frame of it has."""

HEAVIEST = 118


HDF5, EXTXYZ, DATABASE = (".h5", ".hdf5"), (".extxyz", ".xyz"), (".db",)
"""Suffixes of the files that can be written."""


def read(path: Path, units: str | None = None) -> list[LabeledFrame]:
    """All labelled frames of a file; see `read_set`."""
    return read_set(path, units)[0]


def read_set(path: Path, units: str | None = None) -> tuple[list[LabeledFrame], Settings]:
    """All labelled frames of a file, and the settings of their engines as far as the file tells them.

    A label that does not know its engine carries the hash of the file as its engine's.

    Parameters
    ----------
    path : an HDF5 file (ours, or of the ANI layout) or any file that ASE reads with energies and forces in it.
    units : unit of the energies of an HDF5 file without ``units`` attributes, e.g. ``hartree``; its lengths are in Å
        and its forces in that unit per Å. Any other file states its units or has those of its format.

    Raises
    ------
    DatasetError
        If the file is missing, unreadable or empty, or a frame in it lacks something or makes no sense.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; name a data set, HDF5 in the ANI layout or extended XYZ")
    hdf5 = bool(h5py.is_hdf5(path))
    settings: Settings = {}
    if hdf5 and not _is_ours(path):
        frames = _read_ani(path, units)
    elif units is not None:
        whose = "the file states its own units" if hdf5 else "ASE reads energies in eV and lengths in Å"
        raise DatasetError(f"{path}: --units {units}: {whose}; leave --units out")
    else:
        frames, settings = (dataset.read(path), dataset.settings(path)) if hdf5 else _read_ase(path)
        for k, labeled in enumerate(frames):
            _check(labeled, f"{path}, frame {k}")
    if not frames:
        raise DatasetError(f"{path} holds no frames; name a data set with at least one labelled frame")
    return frames, settings


def read_frames(path: Path) -> list[Frame]:
    """The geometries in a file, labelled or not: HDF5 of ours, or anything that ASE reads.

    Raises
    ------
    DatasetError
        If the file is missing, unreadable or empty, or a geometry in it makes no sense.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: there is no such file; name one with geometries, e.g. extended XYZ")
    if not h5py.is_hdf5(path):
        frames = [_geometry(atoms, k) for k, atoms in enumerate(_images(path))]
    elif _is_ours(path):
        frames = [labeled.frame for labeled in dataset.read(path)]
    else:
        raise DatasetError(f"{path} is HDF5, but not of rareal; give extended XYZ or another file that ASE reads")
    for k, frame in enumerate(frames):
        _check_geometry(frame, f"{path}, frame {k}")
    if not frames:
        raise DatasetError(f"{path} holds no frames; name a file with at least one geometry")
    return frames


def refuse_output(path: Path, force: bool) -> None:
    """Refuse, before anything is computed, a name that `write` could not write.

    Raises
    ------
    DatasetError
        If the suffix is of no format, there is no such folder, or there is a file and ``force`` is not given.
    """
    if path.suffix.lower() not in (*HDF5, *EXTXYZ, *DATABASE):
        known = f"{', '.join(HDF5)} (ANI layout), {', '.join(EXTXYZ)} or {', '.join(DATABASE)} (ASE)"
        raise DatasetError(f"{path}: '{path.suffix}' is no format to write; use {known}")
    if not path.parent.is_dir():
        raise DatasetError(f"{path.parent}: there is no such folder for {path.name}; make it first")
    if path.is_dir() or (path.exists() and not force):
        raise DatasetError(f"{path} exists already; overwrite it with --force, or give another name with -o")


def write(path: Path, frames: Sequence[LabeledFrame], settings: Settings) -> None:
    """Write labelled frames, atomically and over what is there, in the format of the suffix.

    That is one of `HDF5`, `EXTXYZ` and `DATABASE`.
    """
    if path.suffix.lower() in EXTXYZ:
        extxyz.write(path, frames, settings)
        return
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        (asedb if path.suffix.lower() in DATABASE else dataset).write(new, frames, settings)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("format", "")).startswith("rareal")
    except OSError as error:
        raise DatasetError(f"{path} is damaged: {error}; copy or make it anew") from error


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_geometry(frame: Frame, where: str) -> None:
    """Refuse atoms that are none, and those that are nowhere. The shapes are right already."""
    if not len(frame.numbers):
        raise DatasetError(f"{where} has no atoms; remove it")
    unknown = (frame.numbers < 1) | (frame.numbers > HEAVIEST)
    if unknown.any():
        atom = int(np.argmax(unknown))
        raise DatasetError(
            f"{where}: atom {atom + 1} has atomic number {frame.numbers[atom]}, which is no element; correct it"
        )
    _check_finite("coordinates", frame.positions, where)


def _check_finite(name: str, values: Array, where: str) -> None:
    if not np.isfinite(values).all():
        atom = int(np.argmax(~np.isfinite(values).all(axis=1)))
        raise DatasetError(f"{where}: the {name} of atom {atom + 1} are not finite; remove the frame or correct it")


def _check(labeled: LabeledFrame, where: str) -> None:
    """Refuse what no training should see. The shapes are right already."""
    label = labeled.label
    _check_geometry(labeled.frame, where)
    _check_finite("forces", label.forces, where)
    if not np.isfinite(label.energy):
        raise DatasetError(f"{where}: the energy is {label.energy}; remove the frame or label it anew")
    if label.stress is not None and (label.stress.shape != (6,) or not np.isfinite(label.stress).all()):
        raise DatasetError(f"{where}: the stress is no six finite numbers, nor a 3 x 3 matrix of them; correct it")
    if not (np.isfinite(labeled.weight) and labeled.weight >= 0):
        raise DatasetError(f"{where}: the weight is {labeled.weight:g}; give a finite number of at least 0")


# ---- HDF5 in the layout of ANI


@dataclass(frozen=True)
class _Molecules:
    """A group of the ANI layout: its name, its datasets, and the names that energies and forces have in it."""

    path: Path
    group: h5py.Group
    energies: str
    forces: str
    level: bool

    @property
    def where(self) -> str:
        return f"{self.path}, group {self.group.name}"

    def column(self, names: Sequence[str]) -> Any:
        """The content under the first of ``names`` that there is, None if there is none."""
        name = next((name for name in names if name in self.group), None)
        return None if name is None else self.group[name][()]

    def expect(self, name: str, values: NDArray[Any], shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            raise DatasetError(f"{self.where}: '{name}' has the shape {values.shape}, expected {shape}; correct it")


def _read_ani(path: Path, units: str | None) -> list[LabeledFrame]:
    frames: list[LabeledFrame] = []
    try:
        engine = _hash(path)
        with h5py.File(path, "r") as file:
            groups = list(_molecules(path, file))
            if not groups:
                raise DatasetError(
                    f"{path} has no group with 'coordinates', 'species', 'energies' and 'forces'; "
                    "bring it into the ANI layout, a group per molecule, or give extended XYZ"
                )
            for molecules in groups:
                frames += _read_molecules(molecules, units, engine, len(frames))
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path} is damaged: {error}; copy or make it anew") from error
    return frames


def _molecules(path: Path, group: h5py.Group) -> Iterator[_Molecules]:
    """The groups with coordinates in them, at any depth, in the order of their names."""
    if any(name in group and isinstance(group[name], h5py.Dataset) for name in COORDINATES):
        yield _named(path, group)
        return
    for name in group:
        if isinstance(group[name], h5py.Group):
            yield from _molecules(path, group[name])


def _named(path: Path, group: h5py.Group) -> _Molecules:
    """Find out what energies and forces are called in a group, by which level of theory."""
    where, found = f"{path}, group {group.name}", ", ".join(group)
    energies = next((name for name in ENERGIES if name in group), "")
    forces = next((name for name in FORCES if name in group), "")
    if energies and forces:
        return _Molecules(path, group, energies, forces, False)
    levels = {
        name.rpartition(".")[0]: (name, f"{name.rpartition('.')[0]}.forces")
        for name in group
        if name.endswith(".energy") and f"{name.rpartition('.')[0]}.forces" in group
    }
    if len(levels) > 1 and LEVEL not in levels:
        raise DatasetError(f"{where} has the levels {', '.join(levels)}; keep one of them, as 'energies' and 'forces'")
    if levels:
        return _Molecules(path, group, *levels.get(LEVEL, next(iter(levels.values()))), True)
    lacking = "forces" if energies or any(name.endswith(".energy") for name in group) else "energies"
    raise DatasetError(f"{where} has no '{lacking}' (it has {found}); training and evaluation need energies and forces")


def _read_molecules(molecules: _Molecules, units: str | None, engine: str, first: int) -> list[LabeledFrame]:
    """The frames of a group; ``first`` is the number of the first one in the file."""
    where = molecules.where
    positions = np.asarray(molecules.column(COORDINATES), dtype=np.float64)
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise DatasetError(
            f"{where}: 'coordinates' has the shape {positions.shape}, expected (frames, atoms, 3); correct it"
        )
    count, atoms = positions.shape[:2]
    energies = np.asarray(molecules.column([molecules.energies]), dtype=np.float64)
    energies = energies.reshape(-1) if energies.shape == (count, 1) else energies
    molecules.expect(molecules.energies, energies, (count,))
    forces = np.asarray(molecules.column([molecules.forces]), dtype=np.float64)
    molecules.expect(molecules.forces, forces, (count, atoms, 3))
    numbers = _numbers(molecules, count, atoms)
    weights = molecules.column(WEIGHTS)
    weights = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    molecules.expect("weight", weights, (count,))
    cells, periodic = _boxes(molecules, count)
    to_ev, to_angstrom, to_ev_angstrom = _factors(molecules, units)
    rows = []
    for k in range(count):
        if molecules.level and not (np.isfinite(energies[k]) and np.isfinite(forces[k]).all()):
            continue  # not computed at this level
        frame = Frame(numbers[k], positions[k] * to_angstrom, cells[k], periodic[k], origin="file", step=first + k)
        label = Label(float(energies[k] * to_ev), forces[k] * to_ev_angstrom, engine)
        rows.append(LabeledFrame(frame, label, float(weights[k])))
        _check(rows[-1], f"{where}, frame {k}")
    return rows


def _numbers(molecules: _Molecules, count: int, atoms: int) -> NDArray[np.int64]:
    """Atomic numbers [F, N], from numbers or symbols, of all frames or of each."""
    where = molecules.where
    species = molecules.column(SPECIES)
    if species is None:
        raise DatasetError(f"{where} has no 'species'; add the symbols or atomic numbers of its {atoms} atoms")
    species = np.asarray(species)
    if species.dtype.kind not in "iu":
        species = _from_symbols(species, where)
    if species.ndim == 1:
        species = np.broadcast_to(species, (count, *species.shape))
    molecules.expect("species", species, (count, atoms))
    numbers: NDArray[np.int64] = species.astype(np.int64)
    return numbers


def _from_symbols(species: NDArray[Any], where: str) -> NDArray[np.int64]:
    words, place = np.unique(species.astype(bytes), return_inverse=True)
    symbols = [word.decode(errors="replace").strip() for word in words.tolist()]
    unknown = [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) < 1]
    if unknown:
        raise DatasetError(f"{where}: '{unknown[0]}' is no chemical element; correct 'species'")
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
    return numbers[place].reshape(species.shape)


def _boxes(molecules: _Molecules, count: int) -> tuple[Array, list[tuple[bool, bool, bool]]]:
    """Cells [F, 3, 3] Å and periodic directions of each frame, from one for all or one for each."""
    cell, pbc = molecules.column(["cell"]), molecules.column(["pbc"])
    cells = np.zeros((3, 3)) if cell is None else np.asarray(cell, dtype=np.float64)
    # a cell without a word about its directions is periodic in all of them
    flags = np.full(3, cell is not None) if pbc is None else np.asarray(pbc, dtype=bool)
    cells = np.broadcast_to(cells, (count, 3, 3)) if cells.shape == (3, 3) else cells
    flags = np.broadcast_to(flags, (count, 3)) if flags.shape == (3,) else flags
    molecules.expect("cell", cells, (count, 3, 3))
    molecules.expect("pbc", flags, (count, 3))
    return cells, [(bool(a), bool(b), bool(c)) for a, b, c in flags]


def _factors(molecules: _Molecules, units: str | None) -> tuple[float, float, float]:
    """What energies, coordinates and forces are multiplied by to be in eV, Å and eV/Å."""
    group = molecules.group
    stated = {name: _stated(group[name].attrs) for name in (molecules.energies, molecules.forces)}
    length = next((_stated(group[name].attrs) for name in COORDINATES if name in group), "") or "angstrom"
    energy = stated[molecules.energies]
    if units is not None and energy:
        raise DatasetError(f"{molecules.where}: --units {units}: the file states its own ({energy}); leave --units out")
    if units is None and not energy:
        raise DatasetError(
            f"{molecules.where} does not say in which unit its energies are; say it: --units hartree (with forces in "
            "Hartree/Å, as in the files of ANI-1, ANI-1x and ANI-2x) or --units eV"
        )
    energy = units or energy
    force = stated[molecules.forces] or f"{energy}/{length}"
    return tuple(  # type: ignore[return-value]
        _factor(molecules, text, unit) for text, unit in ((energy, "eV"), (length, "angstrom"), (force, "eV/angstrom"))
    )


def _stated(attributes: Mapping[str, Any]) -> str:
    """The attribute ``units`` (or ``unit``) of a dataset, empty if it has none."""
    text = attributes.get("units", attributes.get("unit", ""))
    return text.decode() if isinstance(text, bytes) else str(text)


def _factor(molecules: _Molecules, text: str, unit: str) -> float:
    # Hartree, Bohr and Angstrom are written with a capital as often as not, which pint refuses
    for spelling in (text, text.lower()):
        try:
            return float(parse_quantity(f"1 {spelling}", unit))
        except ValueError:
            continue
    raise DatasetError(f"{molecules.where}: '{text}' is no unit that converts to {unit}; give e.g. {unit}")


# ---- what ASE reads


def _images(path: Path) -> list[Any]:
    import ase.io

    try:
        if path.suffix.lower() in DATABASE:
            return asedb.read(path)
        return list(ase.io.iread(path, index=":"))
    except KeyError as error:
        raise DatasetError(f"{path} has an unknown element or lacks a column: {error}; correct it") from error
    except Exception as error:  # every reader of ASE fails in its own way
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DatasetError(
            f"ASE cannot read {path} ({reason}); give a data set in HDF5 (ANI layout) or extended XYZ"
        ) from error


def _read_ase(path: Path) -> tuple[list[LabeledFrame], Settings]:
    images, engine = _images(path), _hash(path)
    frames = [_from_atoms(atoms, engine, k, f"{path}, frame {k}") for k, atoms in enumerate(images)]
    told = [extxyz.known(atoms.info) for atoms in images]
    settings = {known["engine"]: known["settings"] for known in told if "engine" in known and "settings" in known}
    return frames, settings


def _geometry(atoms: Any, index: int) -> Frame:
    frame = Frame(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=np.asarray(atoms.positions, dtype=np.float64),
        cell=np.asarray(atoms.cell[:], dtype=np.float64),
        pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
        origin="file",
        step=index,
    )
    return extxyz.restored(frame, extxyz.known(atoms.info))


def _from_atoms(atoms: Any, engine: str, index: int, where: str) -> LabeledFrame:
    results = atoms.calc.results if atoms.calc is not None else {}
    for name in ("energy", "forces"):
        if name not in results:
            others = sorted(set(atoms.info) | set(atoms.arrays) - {"numbers", "positions"} | set(results))
            has = f"; it has {', '.join(others)}: if one of these is it, rename it '{name}'" if others else ""
            raise DatasetError(f"{where} has no '{name}', which training and evaluation need{has}")
    forces = np.asarray(results["forces"], dtype=np.float64)
    if forces.shape != (len(atoms), 3):
        raise DatasetError(f"{where}: 'forces' has the shape {forces.shape}, expected {(len(atoms), 3)}; correct it")
    try:
        weight = float(atoms.info.get("weight", 1.0))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: the weight is {atoms.info['weight']!r}; give a number of at least 0") from error
    known = extxyz.known(atoms.info)
    stress = results.get("stress")
    label = Label(
        float(results["energy"]),
        forces,
        str(known.get("engine", engine)),
        float(known.get("seconds", 0.0)),
        None if stress is None else np.asarray(stress, dtype=np.float64),
        str(known.get("note", "")),
    )
    return LabeledFrame(_geometry(atoms, index), label, weight, str(known.get("replaces", "")))
