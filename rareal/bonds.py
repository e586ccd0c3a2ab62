"""Which atoms are bonded, by covalent radii, and which bonds are equivalent by their place in the molecule."""

from __future__ import annotations

import hashlib

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from rareal.records import Array

BONDED = 1.3
"""Times the sum of the covalent radii: the longest bond of an intact molecule."""

Pairs = NDArray[np.int64]


def stretches(numbers: NDArray[np.int64], positions: Array, pairs: Pairs) -> Array:
    """Lengths [..., P] of ``pairs`` [P, 2] in units of the sum of covalent radii, for positions [..., N, 3]."""
    lengths = np.linalg.norm(positions[..., pairs[:, 0], :] - positions[..., pairs[:, 1], :], axis=-1)
    radii = covalent_radii[numbers]
    result: Array = lengths / (radii[pairs[:, 0]] + radii[pairs[:, 1]])
    return result


def bonds(numbers: NDArray[np.int64], positions: Array) -> Pairs:
    """The bonded pairs [B, 2] of one intact geometry [N, 3]."""
    pairs = np.stack(np.triu_indices(len(numbers), k=1), axis=1)
    found: Pairs = pairs[stretches(numbers, positions, pairs) < BONDED]
    return found


def bond_class(numbers: NDArray[np.int64], bonded: Pairs, pair: tuple[int, int], depth: int = 4) -> str:
    """A name that equivalent bonds share: elements of its atoms and of their neighbours out to ``depth`` bonds.

    Parameters
    ----------
    numbers : [N] atomic numbers.
    bonded : [B, 2] bonds of the intact molecule.
    pair : the bond's two atoms, counted from 0.
    """
    neighbours: list[list[int]] = [[] for _ in numbers]
    for first, second in bonded:
        neighbours[first].append(int(second))
        neighbours[second].append(int(first))
    names = [str(number) for number in numbers]
    for _ in range(depth):
        around = [",".join(sorted(names[k] for k in near)) for near in neighbours]
        names = [_digest(f"{name}({shell})") for name, shell in zip(names, around, strict=True)]
    return _digest("-".join(sorted(names[atom] for atom in pair)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
