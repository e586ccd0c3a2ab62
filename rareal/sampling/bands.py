"""First guesses of a reaction path from the frames at hand.

A trajectory goes back and forth, and most of it is vibration. Of its frames those are taken that lie farthest from each
other, so that a break of a few femtoseconds is not lost among thousands of frames before it; the guess is the shortest
way through them where a step costs the square of its length, which prefers many small steps to a leap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.records import Array, Frame

CANDIDATES = 100
"""Frames among which the way is sought."""

LOOKED_AT = 1500
"""Frames of a long trajectory, evenly in time, from which they are taken."""

LEAP = 0.5
"""Share of the whole way that may lie between two neighbouring frames; with a longer gap they do not show the way."""


def aligned(positions: Array, target: Array, free: bool = True) -> Array:
    """Structures [..., N, 3] laid over ``target`` [N, 3] by shift and rotation; as they are unless ``free``.

    W. Kabsch, Acta Cryst. A 1976, 32, 922. Mirror images are not turned into each other.
    """
    if not free:
        return positions
    middle = positions.mean(axis=-2, keepdims=True)
    goal = target.mean(axis=0)
    left, _, right = np.linalg.svd(np.swapaxes(positions - middle, -1, -2) @ (target - goal))
    proper = np.sign(np.linalg.det(left @ right))
    left[..., :, -1] *= proper[..., None]
    laid: Array = (positions - middle) @ (left @ right) + goal
    return laid


def distances(positions: Array, target: Array, free: bool = True) -> Array:
    """[...] Å, root of the summed squares of the atoms' displacements after alignment."""
    away: Array = np.sqrt(((aligned(positions, target, free) - target) ** 2).sum(axis=(-1, -2)))
    return away


def lengths(path: Array) -> Array:
    """[K] Å, way from the first structure of a path [K, N, 3] to each."""
    steps = np.sqrt((np.diff(path, axis=0) ** 2).sum(axis=(1, 2)))
    way: Array = np.r_[0.0, np.cumsum(steps)]
    return way


def through_frames(first: Array, last: Array, frames: Array, count: int, free: bool = True) -> Array | None:
    """A path [count, N, 3] from ``first`` to ``last`` through ``frames`` [T, N, 3], evenly by its length.

    None where the frames leave a gap that they say nothing about.
    """
    from scipy.sparse.csgraph import dijkstra

    nodes = [first, *_spread(first, last, frames, free), last]
    table = np.array([distances(np.array(nodes), node, free) for node in nodes])
    costs, before = dijkstra(np.maximum(table, 1e-6) ** 2, indices=0, return_predecessors=True)
    if not np.isfinite(costs[-1]):
        return None
    way = [len(nodes) - 1]
    while way[-1] != 0:
        way.append(int(before[way[-1]]))
    path = chained([nodes[k] for k in way[::-1]], free)
    travelled = lengths(path)
    if np.diff(travelled).max() > LEAP * travelled[-1]:
        return None
    wanted = np.linspace(0.0, travelled[-1], count)
    flat = path.reshape(len(path), -1)
    columns = [np.interp(wanted, travelled, column) for column in flat.T]
    return np.array(columns).T.reshape(count, *first.shape)


def between(frame: Frame, first: Array, last: Array, count: int) -> Array:
    """A path [count, N, 3] by the image-dependent pair potential.

    S. Smidstrup, A. Pedersen, K. Stokbro and H. Jónsson, J. Chem. Phys. 2014, 140, 214106.
    """
    from ase import Atoms
    from ase.mep import NEB, idpp_interpolate, interpolate

    free = not any(frame.pbc)
    ends = chained([first, last], free)
    images: list[Any] = [
        Atoms(frame.numbers, ends[k // (count - 1)], cell=frame.cell, pbc=frame.pbc) for k in range(count)
    ]
    interpolate(images)
    # a straight line that takes atoms through each other has no gradient to get them out again
    rng = np.random.default_rng(0)
    for image in images[1:-1]:
        image.positions += rng.normal(0.0, 0.01, image.positions.shape)
    idpp_interpolate(NEB(images, method="improvedtangent"), traj=None, log=None, fmax=0.05, steps=200, mic=False)
    return chained([image.positions for image in images], free)


def chained(structures: Sequence[Array], free: bool = True) -> Array:
    """Structures, each laid over the one before, [K, N, 3]."""
    path = [np.asarray(structures[0], dtype=np.float64)]
    for structure in structures[1:]:
        path.append(aligned(np.asarray(structure, dtype=np.float64), path[-1], free))
    return np.array(path)


def _spread(first: Array, last: Array, frames: Array, free: bool) -> Array:
    """At most `CANDIDATES` frames, each the farthest from the ends and from all taken before."""
    if len(frames) > LOOKED_AT:
        rows: NDArray[np.int64] = np.linspace(0, len(frames) - 1, LOOKED_AT).round().astype(np.int64)
        frames = frames[rows]
    if len(frames) <= CANDIDATES:
        return frames
    nearest = np.minimum(distances(frames, first, free), distances(frames, last, free))
    taken = []
    for _ in range(CANDIDATES):
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, distances(frames, frames[taken[-1]], free))
    spread: Array = frames[np.sort(taken)]
    return spread
