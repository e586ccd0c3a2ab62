"""The free energy along a collective variable from unbiased, or reweighted, dynamics: F(x) = -kT ln p(x).

p is the density of the variable itself; for a distance in space F contains -2 kT ln r. Errors are of block averages:
trajectories are cut into blocks, and what blocks say of a bin differs by as much as they are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rareal.records import Array, Profile

FEWEST = 3
"""Blocks that must have been in a bin for its error to be known."""

RELIEF = 2.0
"""A barrier is what rises above both its sides by more than this many of its standard errors, and by kT."""


@dataclass(frozen=True, eq=False)
class Density:
    """Density of a variable.

    Attributes
    ----------
    centres : [K] of the bins.
    energy : [K] -kT ln p, eV, relative to the lowest; nan where nothing has been.
    error : [K] standard error, eV; nan where it is not known.
    """

    centres: Array
    energy: Array
    error: Array


def density(
    values: Sequence[Array], biases: Sequence[Array], thermal: float, bins: int, blocks: int, period: float | None
) -> Density:
    """Free energy from trajectories of a variable.

    Parameters
    ----------
    values : per trajectory [T], in the order of time.
    biases : per trajectory [T], energy of what was added to the potential, eV; taken off by reweighting.
    thermal : kT, eV.
    bins : over the range of the values, or over the period.
    blocks : that each trajectory is cut into.
    period : of the variable, or None.
    """
    low = min(float(v.min()) for v in values)
    high = max(float(v.max()) for v in values)
    if period is not None:
        low, high = -period / 2, period / 2
        values = [(v - low) % period + low for v in values]
    edges = np.linspace(low, max(high, low + 1e-9), bins + 1)
    top = max(float(b.max()) for b in biases)
    histograms = []
    for series, bias in zip(values, biases, strict=True):
        for part, extra in zip(np.array_split(series, blocks), np.array_split(bias, blocks), strict=True):
            histograms.append(np.histogram(part, edges, weights=np.exp((extra - top) / thermal))[0])
    counts = np.array(histograms)
    total = counts.sum(axis=0)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)
    scatter = share.std(axis=0, ddof=1) / math.sqrt(len(share)) if len(share) > 1 else np.full(bins, math.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        energy = np.where(total > 0, -thermal * np.log(total / total.sum()), math.nan)
        error = thermal * scatter / (total / total.sum())
    error = np.where((counts > 0).sum(axis=0) >= FEWEST, error, math.nan)
    return Density(0.5 * (edges[1:] + edges[:-1]), energy - np.nanmin(energy), error)


def barrier(found: Density, start: float, thermal: float, periodic: bool) -> tuple[float, float, str]:
    """Height of the way from the minimum at ``start`` to the next one, its standard error, and a note.

    The height is nan, and the note says so, where no second minimum has been reached.
    """
    known = np.isfinite(found.energy)
    low = _descend(found.energy, int(np.argmin(np.where(known, np.abs(found.centres - start), np.inf))))
    best: tuple[float, int] | None = None
    for step in (1, -1):
        top = _first_pass(found, low, step, thermal, periodic)
        if top is not None and (best is None or found.energy[top] < best[0]):
            best = (float(found.energy[top]), top)
    if best is None:
        return math.nan, math.nan, "The event did not happen: no second minimum along the collective variable."
    height = best[0] - float(found.energy[low])
    return height, float(np.hypot(found.error[best[1]], found.error[low])), ""


def _descend(energy: Array, place: int) -> int:
    """The lowest bin around a place that is reached without a rise over one unknown bin or more."""
    while True:
        near = [k for k in (place - 1, place + 1) if 0 <= k < len(energy) and energy[k] < energy[place]]
        if not near:
            return place
        place = min(near, key=lambda k: energy[k])


def _first_pass(found: Density, low: int, step: int, thermal: float, periodic: bool) -> int | None:
    """The highest bin before the first minimum in a direction; None if there is none within what has been seen.

    A rise that falls again by less than kT, or than errors allow, is noise.
    """
    energy, errors = found.energy, np.where(np.isfinite(found.error), found.error, np.inf)
    top = place = low
    for _ in range(len(energy) - 1):
        place += step
        if periodic:
            place %= len(energy)
        if not 0 <= place < len(energy) or not math.isfinite(energy[place]):
            return None
        if energy[place] > energy[top]:
            top = place
        fall = energy[top] - energy[place]
        doubt = max(thermal, RELIEF * math.hypot(*_finite(errors[[top, place]])))
        if top != low and fall > doubt and energy[top] - energy[low] > thermal:
            return top
        if energy[place] < energy[low]:
            low = top = place
    return None


def _finite(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in values if math.isfinite(value))


def profile(found: Density, start: float, thermal: float, periodic: bool, note: str = "") -> Profile:
    """A `Profile` of what has been visited."""
    seen = np.isfinite(found.energy)
    height, error, missing = barrier(found, start, thermal, periodic)
    notes = " ".join(text for text in (note, missing) if text)
    return Profile("free energy", found.centres[seen], found.energy[seen], found.error[seen], height, error, notes)
