"""Reading the starting structure."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from rareal.complaints import closest
from rareal.records import Array, Frame
from rareal.schema import Misfit

FEW = 500
"""Atoms up to which all distances take less time than loading SciPy."""

_COLUMNS = re.compile(r"(lattice|cell|pbc(?!=\"F F F\")|properties(?!=species:S:1:pos:R:3(\s|$)))", re.IGNORECASE)
"""What the second line of an XYZ file says where it is more than a symbol and a place for each atom of a molecule."""

CLOSEST = 0.3
"""Å. Nearer than that no two nuclei are meant to be (H2: 0.74 Å); engines accept it and return nonsense."""


def read_structure(path: Path) -> Frame:
    """Read the last structure in ``path``, in any format that ASE knows.

    Raises
    ------
    Misfit
        If the file is missing, unreadable, or no sensible structure.
    """
    if not path.is_file():
        names = [item.name for item in path.parent.iterdir() if item.is_file()] if path.parent.is_dir() else []
        guess = closest(path.name, names)
        raise Misfit("structure", f"there is no file {path}{guess}; give a path relative to the YAML")
    frame = _plain(path) or _any(path)
    _check(frame, path)
    return frame


def _plain(path: Path) -> Frame | None:
    """The molecule of a plain XYZ file; None for all else, which is ASE's to read or to refuse.

    ASE's readers load SciPy, which takes longer than all else that `rareal validate` does.
    """
    if path.suffix != ".xyz":
        return None
    from ase.data import atomic_numbers

    try:
        count, comment, *lines = path.read_text().rstrip().split("\n")
        rows = [line.split() for line in lines]
        if int(count) != len(rows) or _COLUMNS.search(comment):
            return None
        numbers = [atomic_numbers[row[0]] for row in rows]
        positions = np.array([row[1:] for row in rows], dtype=np.float64)
    except (OSError, ValueError, KeyError, IndexError):
        return None
    if positions.shape != (len(rows), 3):
        return None
    return Frame(np.array(numbers), positions, np.zeros((3, 3)), (False, False, False), origin="structure")


def _any(path: Path) -> Frame:
    import ase.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms: Any = ase.io.read(path)
    except KeyError as error:
        message = f"{path} has an unknown element {error}; correct the symbol"
        raise Misfit("structure", message) from error
    except Exception as error:  # every reader of ASE fails in its own way
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise Misfit("structure", f"ASE cannot read {path} ({reason}); give a complete file, e.g. XYZ") from error
    return Frame(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        positions=np.asarray(atoms.positions, dtype=np.float64),
        cell=np.asarray(atoms.cell[:], dtype=np.float64),
        pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
        origin="structure",
    )


def _check(frame: Frame, path: Path) -> None:
    if len(frame.numbers) < 2:
        raise Misfit("structure", f"{path} has {len(frame.numbers)} atoms; an event needs at least two")
    if np.any(frame.numbers < 1):
        atom = int(np.argmax(frame.numbers < 1)) + 1
        raise Misfit("structure", f"atom {atom} of {path} is of no known element; correct its symbol")
    if not np.all(np.isfinite(frame.positions)):
        atom = int(np.argmax(~np.isfinite(frame.positions).all(axis=1))) + 1
        raise Misfit("structure", f"atom {atom} of {path} has a coordinate that is no finite number; correct it")
    for first, second in _fused(frame.positions):
        apart = float(np.linalg.norm(frame.positions[first] - frame.positions[second]))
        message = f"atoms {first + 1} and {second + 1} of {path} are {apart:.3f} Å apart; correct the coordinates"
        raise Misfit("structure", message)


def _fused(positions: Array) -> list[tuple[int, int]]:
    """Pairs of atoms nearer than `CLOSEST`."""
    if len(positions) > FEW:
        from scipy.spatial import cKDTree

        return sorted(cKDTree(positions).query_pairs(CLOSEST))
    squares = ((positions[:, None] - positions[None]) ** 2).sum(-1)
    pairs = np.argwhere(np.triu(squares <= CLOSEST**2, k=1))
    return [(int(first), int(second)) for first, second in pairs]
