"""The data set: one immutable HDF5 delta per round, in the ANI layout, with provenance beside every frame.

A delta is written to a temporary file and renamed, and never opened for writing again, so that no crash can damage
what was there. In each file a group per formula holds ``species`` (symbols), ``coordinates`` [F, N, 3] Å, ``energies``
[F] eV and ``forces`` [F, N, 3] eV/Å, which other tools read, and ``stress`` [F, 6] eV/Å³ if any frame has one;
``cell``, ``pbc`` and an array per field of provenance lie beside them. The file carries the hash and the settings of
the label engine; a data set refuses frames of another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from rareal.errors import DatasetError
from rareal.records import Frame, Label, LabeledFrame

NO_STRESS = np.full(6, np.nan)
"""What stands for the stress of a frame that has none, in a group where another has one."""

Settings = Mapping[str, Mapping[str, Any]]
"""What the hash of an engine is of, by hash, as far as it is known."""

UNITS = {"energies": "eV", "coordinates": "angstrom", "forces": "eV/angstrom"}


def write(path: Path, frames: Sequence[LabeledFrame], settings: Settings | None = None) -> None:
    """Write ``frames``, and the ``settings`` of their engine, to ``path`` atomically. An existing file is refused.

    Raises
    ------
    DatasetError
        If the file exists, or the frames carry labels of more than one engine.
    """
    if path.exists():
        raise DatasetError(f"{path} exists already; data sets are only ever added to, by new files")
    refuse_mixture(frames, settings)
    engine = frames[0].label.engine if frames else ""
    temporary = path.with_name(path.name + ".part")
    with h5py.File(temporary, "w") as file:
        file.attrs["engine"] = engine
        file.attrs["settings"] = json.dumps(dict((settings or {}).get(engine, {})), default=str)
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
    if any(f.replaces for f in frames):
        group["replaces"] = np.array([f.replaces for f in frames], dtype=h5py.string_dtype())
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
    columns = {name: group[name][:] for name in group if group[name].dtype.kind in "fiub"}
    origins = group["origin"].asstr()[:]
    # files of earlier versions have none
    count = len(columns["energies"])
    weights = columns.get("weight", np.ones(count))
    stresses = columns.get("stress", np.broadcast_to(NO_STRESS, (count, 6)))
    notes = group["note"].asstr()[:] if "note" in group else [""] * count
    replaced = group["replaces"].asstr()[:] if "replaces" in group else [""] * count
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
        rows.append((int(columns["order"][k]), LabeledFrame(frame, label, float(weights[k]), str(replaced[k]))))
    return rows


def settings(path: Path) -> Settings:
    """The settings of the engine of one file, by its hash; empty where the file does not tell them."""
    try:
        with h5py.File(path, "r") as file:
            known = json.loads(file.attrs.get("settings", "{}"))
            return {str(file.attrs["engine"]): known} if known else {}
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(f"{path} is no readable rareal data set: {error}") from error


def refuse_mixture(frames: Sequence[LabeledFrame], settings: Settings | None = None) -> None:
    """Refuse labels of more than one engine.

    Raises
    ------
    DatasetError
        With what is known of each engine, how many labels are its, and of which rounds.
    """
    held: dict[str, list[Frame]] = {}
    for labeled in frames:
        held.setdefault(labeled.label.engine, []).append(labeled.frame)
    if len(held) < 2:
        return
    known = {engine: (settings or {}).get(engine, {}) for engine in held}
    lines = [f"  engine {e[:12]} ({_telling(e, known)}): {_holding(found)}" for e, found in held.items()]
    raise DatasetError(
        f"labels of {len(held)} engines, or of one with different settings, cannot be mixed:\n"
        + "\n".join(lines)
        + "\nBring them to one level with `rareal relabel DATASET --mixed --config CONFIG -o NEW`"
    )


def _telling(engine: str, known: Settings) -> str:
    """The kind, the method and whatever else tells the settings of ``engine`` from those of the others."""
    mine = known[engine]
    if not mine:
        return "settings not known"
    others = [settings for settings in known.values() if settings]
    different = [key for key in mine if any(settings.get(key) != mine[key] for settings in others)]
    keys = dict.fromkeys([*(key for key in ("kind", "method") if key in mine), *different])
    return ", ".join(f"{key} {short(mine[key])}" for key in keys)


def short(value: Any) -> str:
    """A setting on one line, cut where it gets long."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _holding(frames: Sequence[Frame]) -> str:
    """``154 frames, of the initial data and of rounds 0-2``."""
    rounds = sorted({frame.round for frame in frames if frame.round >= 0})
    # frames of a file that is none of ours have no round either
    initial = any(frame.round < 0 and frame.origin != "file" for frame in frames)
    parts = (["of the initial data"] if initial else []) + (
        [f"of round{'s' * (len(rounds) > 1)} {ranges(rounds)}"] if rounds else []
    )
    count = f"{len(frames)} frame{'s' * (len(frames) > 1)}"
    return f"{count}, {' and '.join(parts)}" if parts else f"{count}, of no round"


def ranges(numbers: Sequence[int]) -> str:
    """``0-2, 5`` for 0, 1, 2 and 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


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
