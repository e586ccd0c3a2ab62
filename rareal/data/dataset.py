"""The data set: one immutable HDF5 delta per round, in the ANI layout, with provenance beside every frame.

A delta is written to a temporary file and renamed, and never opened for writing again, so that no crash can damage
what was there. In each file a group per formula holds ``species`` (symbols), ``coordinates`` [F, N, 3] Å, ``energies``
[F] eV and ``forces`` [F, N, 3] eV/Å, which other tools read, and ``stress`` [F, 6] eV/Å³ if any frame has one;
``cell``, ``pbc`` and an array per field of provenance lie beside them. The file carries the hash of the label engine; a
data set refuses frames of another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from rareal.errors import DatasetError
from rareal.records import Frame, Label, LabeledFrame

NO_STRESS = np.full(6, np.nan)
"""What stands for the stress of a frame that has none, in a group where another has one."""

UNITS = {"energies": "eV", "coordinates": "angstrom", "forces": "eV/angstrom"}


def write(path: Path, frames: Sequence[LabeledFrame]) -> None:
    """Write ``frames`` to ``path`` atomically. An existing file is refused.

    Raises
    ------
    DatasetError
        If the file exists, or the frames carry labels of more than one engine.
    """
    if path.exists():
        raise DatasetError(f"{path} exists already; data sets are only ever added to, by new files")
    engines = sorted({f.label.engine for f in frames})
    if len(engines) > 1:
        raise DatasetError(f"labels of {len(engines)} engines in one data set ({', '.join(e[:12] for e in engines)})")
    temporary = path.with_name(path.name + ".part")
    with h5py.File(temporary, "w") as file:
        file.attrs["engine"] = engines[0] if engines else ""
        file.attrs["format"] = "rareal data set 1"
        for formula, indices in _by_composition(frames).items():
            _write_group(file.create_group(formula), [frames[k] for k in indices], indices)
    with open(temporary, "rb+") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def _by_composition(frames: Sequence[LabeledFrame]) -> dict[str, list[int]]:
    """Indices of frames with the same atoms in the same order, under a name that is unique for the order."""
    groups: dict[bytes, list[int]] = {}
    for k, labeled in enumerate(frames):
        groups.setdefault(np.asarray(labeled.frame.numbers, np.int64).tobytes(), []).append(k)
    named: dict[str, list[int]] = {}
    for indices in groups.values():
        numbers = frames[indices[0]].frame.numbers
        symbols = [chemical_symbols[z] for z in np.unique(numbers)]
        formula = "".join(f"{s}{np.sum(numbers == atomic_numbers[s])}" for s in symbols)
        name, copy = formula, 1
        while name in named:
            copy += 1
            name = f"{formula}_{copy}"
        named[name] = indices
    return named


def _write_group(group: h5py.Group, frames: Sequence[LabeledFrame], indices: Sequence[int]) -> None:
    first = frames[0].frame
    group["species"] = np.array([chemical_symbols[z] for z in first.numbers], dtype="S2")
    group["coordinates"] = np.stack([f.frame.positions for f in frames])
    group["energies"] = np.array([f.label.energy for f in frames])
    group["forces"] = np.stack([f.label.forces for f in frames])
    for name, unit in UNITS.items():
        group[name].attrs["units"] = unit
    group["cell"] = np.stack([f.frame.cell for f in frames])
    group["pbc"] = np.array([f.frame.pbc for f in frames])
    group["order"] = np.array(indices)
    group["origin"] = np.array([f.frame.origin for f in frames], dtype=h5py.string_dtype())
    for name in ("round", "walker", "step", "cv"):
        group[name] = np.array([getattr(f.frame, name) for f in frames])
    group["seconds"] = np.array([f.label.seconds for f in frames])
    group["weight"] = np.array([f.weight for f in frames])
    group["note"] = np.array([f.label.note for f in frames], dtype=h5py.string_dtype())
    if any(f.label.stress is not None for f in frames):
        group["stress"] = np.stack([NO_STRESS if f.label.stress is None else f.label.stress for f in frames])
        group["stress"].attrs["units"] = "eV/angstrom^3"


def read(path: Path) -> list[LabeledFrame]:
    """All frames of one file, in the order they were written.

    Raises
    ------
    DatasetError
        If the file is missing, damaged, or not of this layout.
    """
    try:
        with h5py.File(path, "r") as file:
            engine = str(file.attrs["engine"])
            rows = [row for group in file.values() for row in _read_group(group, engine)]
    except (OSError, KeyError) as error:
        raise DatasetError(f"{path} is no readable rareal data set: {error}") from error
    return [frame for _, frame in sorted(rows, key=lambda row: row[0])]


def _read_group(group: h5py.Group, engine: str) -> list[tuple[int, LabeledFrame]]:
    numbers = np.array([atomic_numbers[s.decode()] for s in group["species"][:]], dtype=np.int64)
    columns = {name: group[name][:] for name in group if name not in ("species", "origin", "note")}
    origins = group["origin"].asstr()[:]
    # files of earlier versions have none
    count = len(columns["energies"])
    weights = columns.get("weight", np.ones(count))
    stresses = columns.get("stress", np.broadcast_to(NO_STRESS, (count, 6)))
    notes = group["note"].asstr()[:] if "note" in group else [""] * count
    rows = []
    for k in range(count):
        periodic = columns["pbc"][k]
        frame = Frame(
            numbers,
            columns["coordinates"][k],
            columns["cell"][k],
            (bool(periodic[0]), bool(periodic[1]), bool(periodic[2])),
            str(origins[k]),
            int(columns["round"][k]),
            int(columns["walker"][k]),
            int(columns["step"][k]),
            float(columns["cv"][k]),
        )
        label = Label(
            float(columns["energies"][k]),
            columns["forces"][k],
            engine,
            float(columns["seconds"][k]),
            None if np.isnan(stresses[k]).any() else stresses[k],
            str(notes[k]),
        )
        rows.append((int(columns["order"][k]), LabeledFrame(frame, label, float(weights[k]))))
    return rows


def refuse_mixture(frames: Sequence[LabeledFrame]) -> None:
    """Refuse labels of more than one engine.

    Raises
    ------
    DatasetError
        With the rounds that hold labels of each engine.
    """
    rounds: dict[str, set[int]] = {}
    for labeled in frames:
        rounds.setdefault(labeled.label.engine, set()).add(labeled.frame.round)
    if len(rounds) > 1:
        held = "; ".join(f"engine {e[:12]}: rounds {', '.join(map(str, sorted(r)))}" for e, r in rounds.items())
        raise DatasetError(f"labels of different engines cannot be mixed ({held}; -1 is the initial data)")


def content_hash(frames: Sequence[LabeledFrame]) -> str:
    """SHA-256 over geometries, labels and weights, in order."""
    digest = hashlib.sha256()
    for labeled in frames:
        digest.update(labeled.label.engine.encode())
        for array in (labeled.frame.numbers, labeled.frame.positions, labeled.frame.cell, labeled.label.forces):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(np.float64(labeled.label.energy).tobytes())
        if labeled.label.stress is not None:
            digest.update(np.ascontiguousarray(labeled.label.stress, dtype=np.float64).tobytes())
        if labeled.weight != 1.0:
            digest.update(np.float64(labeled.weight).tobytes())
    return digest.hexdigest()
