"""The space of collective variables that frames are told apart in: spacings, periods, and evenly covered cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rareal.cv import Variable
from rareal.records import Array
from rareal.schema import Misfit

DEGREES = ("degree", "degrees", "deg", "°")
DEGREE_SPACING, OTHER_SPACING = 1.0, 0.01
"""Spacing of variables in degrees; of those in Å (rare-events paper, 2.3.3), or without a unit."""

Size = Annotated[float, Field(ge=0)]
Spacing = Size | tuple[Size, ...] | None
"""One for all variables, one each, or the default of their units."""

COARSER = 1.1
"""Factor between two grids that are tried."""


def check_spacing(spacing: Spacing, cv: Any, field: str = "cv_spacing") -> None:
    """Refuse a list that does not have one spacing for every collective variable of the section ``cv``.

    Raises
    ------
    Misfit
        If it does not.
    """
    count = len(cv) if isinstance(cv, tuple) else 1
    if isinstance(spacing, tuple) and len(spacing) != count:
        what = f"each of the {count} collective variables" if count > 1 else "the collective variable"
        raise Misfit(field, f"give one number for {what}" + (", or a single one for all" if count > 1 else ""))


class Space:
    """Collective variables in units of their spacings.

    Parameters
    ----------
    spacing : the change of a variable that counts as one unit of length.
    variables : the collective variables, each with a ``unit`` and a ``period``; without them, nothing is periodic.
    """

    def __init__(self, spacing: Spacing, variables: Sequence[Variable] = ()) -> None:
        self.spacing = spacing
        self.variables = variables

    def spacings(self, count: int) -> Array:
        """One for each of ``count`` variables, [V]."""
        if self.spacing is not None:
            return np.broadcast_to(np.asarray(self.spacing, dtype=np.float64), (count,))
        units = [v.unit for v in self.variables] + [""] * count
        return np.array([DEGREE_SPACING if unit in DEGREES else OTHER_SPACING for unit in units[:count]])

    def periods(self, count: int) -> list[float | None]:
        """One for each of ``count`` variables; None where a variable does not wrap."""
        return ([v.period for v in self.variables] + [None] * count)[:count]

    def differences(self, cvs: Array, other: Array) -> Array:
        """Distance of values [..., V] from others, variable by variable, unsigned, in spacings; the short way round."""
        apart = np.abs(cvs - other)
        for k, period in enumerate(self.periods(apart.shape[-1])):
            if period:
                around = apart[..., k] % period
                apart[..., k] = np.minimum(around, period - around)
        spacings = np.broadcast_to(self.spacings(apart.shape[-1]), apart.shape)
        # a spacing of 0 tells apart all that is not equal
        scaled: Array = np.divide(apart, spacings, out=np.where(apart > 0, np.inf, 0.0), where=spacings > 0)
        return scaled

    def steps(self, cvs: Array) -> Array:
        """Length of every step of a path [T, V], in spacings, summed over the variables; 0 for the first row. [T]"""
        along: Array = self.differences(cvs, np.concatenate([cvs[:1], cvs[:-1]])).sum(axis=-1)
        return along

    def extent(self, cvs: Array) -> float:
        """How much of the space a path [T, V] visits: the sum of the variables' ranges, in spacings."""
        spread = np.ptp(cvs, axis=0)
        widest = [min(s, period) if period else s for s, period in zip(spread, self.periods(len(spread)), strict=True)]
        return float(np.sum(np.array(widest) / self.spacings(len(spread))))

    def cells(self, cvs: Array, others: Array, width: float) -> NDArray[np.int64]:
        """The cell of a grid of ``width`` spacings that every row is in, numbered from 0. [T]

        ``others`` [T, W] are further coordinates, in their own spacings.
        """
        spacings = self.spacings(cvs.shape[-1])
        numbers: NDArray[np.int64] = np.zeros(len(cvs), dtype=np.int64)
        for k, period in enumerate(self.periods(cvs.shape[-1])):
            if period:
                # a whole number of cells around the circle
                count = max(1, int(period / (width * spacings[k])))
                index = np.floor(cvs[:, k] % period / period * count) % count
            else:
                index = np.floor((cvs[:, k] - cvs[:, k].min()) / (width * spacings[k]))
            numbers = _numbered(numbers, index)
        for values in others.T:
            numbers = _numbered(numbers, np.floor((values - values.min()) / width))
        return numbers


def _numbered(numbers: NDArray[np.int64], index: Array) -> NDArray[np.int64]:
    """Cells of one coordinate more, renumbered so that they never overflow."""
    _, place = np.unique(index, return_inverse=True)
    _, found = np.unique(numbers * (place.max() + 1) + place, return_inverse=True)
    return found.astype(np.int64)


def spread(space: Space, cvs: Array, others: Array, score: Array, count: int) -> list[int]:
    """At most ``count`` rows, evenly over the space visited, in each place the one of the highest score.

    The grid is made coarser, from cells of one spacing on, until no more than ``count`` of them are occupied. How long
    a trajectory stayed in a cell does not count: a barrier crossed in a few steps gets as many rows as a basin.

    Parameters
    ----------
    cvs, others : [T, V] and [T, W] where the rows are; see `Space.cells`.
    score : [T] of the rows.
    """
    if count < 1 or len(cvs) == 0:
        return []
    width = 1.0
    cells = space.cells(cvs, others, width)
    while cells.max() >= count:
        width *= COARSER
        cells = space.cells(cvs, others, width)
    order = np.lexsort((np.arange(len(score)), -score, cells))
    first = np.r_[True, np.diff(cells[order]) > 0]
    return sorted(int(row) for row in order[first])
