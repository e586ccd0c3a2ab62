"""Taking some frames out of a data set, by rules such as ``every=10``, ``rounds=initial,2-4`` or ``diverse=50``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray

from rareal.complaints import closest
from rareal.errors import DatasetError
from rareal.records import Array, Frame, LabeledFrame

CUTOFF = 5.0
"""Å. How far the distances reach that tell frames apart."""

WIDTH = 0.25
"""Å. Grid, and Gaussian broadening, of the distances."""

SAME = 1e-12
"""Squared distance of fingerprints that differ by rounding alone."""

Rule = Callable[[Sequence[LabeledFrame], str, np.random.Generator], NDArray[np.int64]]
"""(frames, what stands behind the =, random stream) -> indices."""


def select(frames: Sequence[LabeledFrame], rules: Sequence[str], seed: int) -> list[int]:
    """Indices, ascending, of the frames that are left after one rule after the other.

    Parameters
    ----------
    rules : ``every=K`` (the first of every K), ``random=COUNT``, ``rounds=A,B-C,initial``, ``origin=NAME,NAME``,
        ``diverse=COUNT`` (see `farthest`).
    seed : of ``random``.

    Raises
    ------
    DatasetError
        If a rule cannot be understood, or leaves no frame.
    """
    rng = np.random.default_rng(seed)
    kept = list(range(len(frames)))
    for rule in rules:
        name, _, value = rule.partition("=")
        if name not in RULES:
            raise DatasetError(f"--select {rule}: there is no rule '{name}'{closest(name, RULES)}; use {EXAMPLES}")
        there = [frames[k] for k in kept]
        chosen = np.sort(RULES[name](there, value, rng)).tolist()
        if not chosen:
            raise DatasetError(f"--select {rule}: no frame is left of {len(kept)}; {_holding(there)}")
        kept = [kept[k] for k in chosen]
    return kept


def every(frames: Sequence[LabeledFrame], value: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """The first of every ``value`` frames."""
    return np.arange(0, len(frames), _count("every", value))


def at_random(frames: Sequence[LabeledFrame], value: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """``value`` frames, all if there are no more."""
    return rng.permutation(len(frames))[: _count("random", value)]


def of_rounds(frames: Sequence[LabeledFrame], value: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """The frames of some rounds."""
    wanted: set[int] = set()
    for part in value.split(","):
        first, _, last = part.strip().partition("-")
        try:
            wanted |= {-1} if first == "initial" else set(range(int(first), int(last or first) + 1))
        except ValueError:
            raise DatasetError(f"--select rounds={value}: '{part}' is no round; write e.g. initial,0,2-4") from None
    return np.flatnonzero([item.frame.round in wanted for item in frames])


def of_origin(frames: Sequence[LabeledFrame], value: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """The frames that something has made: ``path``, ``selected``, ``noise``, ..."""
    wanted = {part.strip() for part in value.split(",")}
    return np.flatnonzero([item.frame.origin in wanted for item in frames])


def diverse(frames: Sequence[LabeledFrame], value: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """``value`` frames that differ most, see `farthest`."""
    return farthest(fingerprints([item.frame for item in frames]), _count("diverse", value))


RULES: dict[str, Rule] = {
    "every": every, "random": at_random, "rounds": of_rounds, "origin": of_origin, "diverse": diverse
}  # fmt: skip
EXAMPLES = "every=10, random=200, rounds=initial,2-4, origin=path,selected or diverse=100"


def _count(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise DatasetError(f"--select {name}={value}: '{value}' is no number above 0; write e.g. {name}=10")
    return int(value)


def _holding(frames: Sequence[LabeledFrame]) -> str:
    rounds = sorted({item.frame.round for item in frames})
    origins = sorted({item.frame.origin for item in frames})
    return f"they are of the rounds {', '.join(map(str, rounds))} (-1: initial) and the origins {', '.join(origins)}"


def fingerprints(frames: Sequence[Frame]) -> Array:
    """How many pairs of atoms are how far apart: [F, P * G] for P pairs of elements on a grid of G distances.

    Every distance below `CUTOFF` counts as a Gaussian of width `WIDTH`, damped to zero at the cutoff. Frames of any
    size compare; turned, shifted or renumbered ones are the same.
    """
    elements = sorted({int(z) for frame in frames for z in frame.numbers})
    pairs = {pair: k for k, pair in enumerate((a, b) for a in elements for b in elements if a <= b)}
    grid = np.arange(WIDTH, CUTOFF, WIDTH)
    found = np.zeros((len(frames), len(pairs), len(grid)))
    for k, frame in enumerate(frames):
        i, j, distances = primitive_neighbor_list("ijd", frame.pbc, frame.cell, frame.positions, CUTOFF)
        once = i <= j  # of the two directions of a pair
        first, second = frame.numbers[i[once]], frame.numbers[j[once]]
        distances = distances[once]
        kind = [pairs[min(a, b), max(a, b)] for a, b in zip(first, second, strict=True)]
        damping = 0.5 * (1.0 + np.cos(np.pi * distances / CUTOFF))
        bumps = damping[:, None] * np.exp(-0.5 * ((distances[:, None] - grid) / WIDTH) ** 2)
        np.add.at(found[k], kind, bumps)
    return found.reshape(len(frames), -1)


def farthest(points: Array, count: int) -> NDArray[np.int64]:
    """Farthest-point sampling: from ``points`` [F, D] take the first, then always the one farthest from all taken.

    T. F. Gonzalez, Theor. Comput. Sci. 1985, 38, 293. Points that coincide with one that is taken are not taken.
    """
    taken = [0] if len(points) else []
    nearest = np.full(len(points), np.inf)
    while taken and len(taken) < min(count, len(points)):
        nearest = np.minimum(nearest, np.sum((points - points[taken[-1]]) ** 2, axis=1))
        candidate = int(np.argmax(nearest))
        if nearest[candidate] < SAME:
            break
        taken.append(candidate)
    return np.array(taken, dtype=np.int64)
