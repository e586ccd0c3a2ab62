"""A data set in ASE's data base (SQLite): a row per frame, with all that is known of it.

Energy, forces and stress are where ASE keeps them. Where a frame comes from can be selected by (``round=3``,
``origin=path``, ``engine``, ``walker``, ``step``, ``cv``, ``weight``); the same with the engine's settings is under
``data``, key ``rareal``, as in `rareal.data.extxyz`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
from ase.calculators.singlepoint import SinglePointCalculator

from rareal.data import extxyz
from rareal.data.dataset import Settings
from rareal.records import LabeledFrame


def write(path: Path, frames: Sequence[LabeledFrame], settings: Settings | None = None) -> None:
    """Write ``frames`` to the new file ``path``; ``settings`` are those of the engines, by hash, as far as known."""
    import ase.db

    with ase.db.connect(str(path), type="db", use_lock_file=False) as base:
        for item in frames:
            known = extxyz.provenance(item, (settings or {}).get(item.label.engine, {}))
            base.write(_atoms(item), key_value_pairs=_keys(item), data={extxyz.KEY: known})


def read(path: Path) -> list[Any]:
    """The rows as ASE's atoms, with what `write` has added in ``info``."""
    import ase.db

    found = []
    with ase.db.connect(str(path), type="db", use_lock_file=False) as base:
        for row in base.select():
            atoms = row.toatoms()
            if extxyz.KEY in row.data:
                atoms.info[extxyz.KEY] = row.data[extxyz.KEY]
            if "weight" in row.key_value_pairs:
                atoms.info["weight"] = row.key_value_pairs["weight"]
            found.append(atoms)
    return found


def _atoms(item: LabeledFrame) -> Any:
    frame, label = item.frame, item.label
    atoms = ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    stress = {} if label.stress is None else {"stress": label.stress}
    atoms.calc = SinglePointCalculator(atoms, energy=label.energy, forces=label.forces, **stress)
    return atoms


def _keys(item: LabeledFrame) -> dict[str, Any]:
    """What can be selected by; ASE takes numbers and words that are no numbers."""
    frame = item.frame
    keys: dict[str, Any] = {"round": frame.round, "walker": frame.walker, "step": frame.step, "weight": item.weight}
    if frame.origin:
        keys["origin"] = frame.origin
    if item.label.engine:
        keys["engine"] = f"hash-{item.label.engine}"
    if not math.isnan(frame.cv):
        keys["cv"] = frame.cv
    return keys
