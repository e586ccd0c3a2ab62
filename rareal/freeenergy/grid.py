"""Regular grids over one or two collective variables, as Colvars lays them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rareal.records import Array


@dataclass(frozen=True)
class Axis:
    """Bins of equal width along one variable.

    Attributes
    ----------
    low, high : its ends, in the variable's unit.
    bins : how many.
    period : of the variable, None where it does not wrap; ``high - low`` is one period then.
    """

    low: float
    high: float
    bins: int
    period: float | None = None

    @property
    def width(self) -> float:
        """Of one bin."""
        return (self.high - self.low) / self.bins

    @property
    def centres(self) -> Array:
        """[bins] the middle of every bin."""
        return np.asarray(self.low + self.width * (np.arange(self.bins) + 0.5), dtype=np.float64)

    def index(self, values: Array) -> NDArray[np.int64]:
        """The bin of every value, -1 for those outside."""
        values = np.asarray(values, dtype=np.float64)
        if self.period is not None:
            values = self.low + np.mod(values - self.low, self.period)
        place = np.floor((values - self.low) / self.width)
        if self.period is not None:
            # a value just below the lower end is rounded onto the upper one
            place = np.minimum(place, self.bins - 1)
        inside = (place >= 0) & (place < self.bins)
        return np.where(inside, place, -1).astype(np.int64)

    def difference(self, values: Array, origin: Array | float) -> Array:
        """``values`` minus ``origin``, by the shorter way round where the variable wraps."""
        apart: Array = np.asarray(values, dtype=np.float64) - origin
        if self.period is not None:
            apart = apart - self.period * np.round(apart / self.period)
        return apart


def axis(low: float, high: float, width: float, period: float | None = None) -> Axis:
    """An axis whose bins are at most ``width`` wide."""
    return Axis(low, high, max(1, math.ceil((high - low) / width - 1e-9)), period)


def shape(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Of an array over the grid."""
    return tuple(each.bins for each in axes)


def flat_index(axes: Sequence[Axis], values: Array) -> NDArray[np.int64]:
    """The place of every point ``values`` [T, V] in a flattened grid, -1 for those outside."""
    places = np.stack([each.index(values[:, k]) for k, each in enumerate(axes)])
    inside = (places >= 0).all(axis=0)
    flat = np.ravel_multi_index(tuple(np.maximum(places, 0)), shape(axes))
    return np.where(inside, flat, -1).astype(np.int64)


def points(axes: Sequence[Axis]) -> Array:
    """[G, V] centres of all bins, in the order of the flattened grid."""
    mesh = np.meshgrid(*(each.centres for each in axes), indexing="ij")
    return np.stack([each.ravel() for each in mesh], axis=1)


@cache
def neighbours(axes: tuple[Axis, ...]) -> list[list[int]]:
    """For every bin of the flattened grid the bins that share a face with it."""
    places = np.arange(int(np.prod(shape(axes)))).reshape(shape(axes))
    around: list[NDArray[np.int64]] = []
    for k, each in enumerate(axes):
        for step in (-1, 1):
            shifted = np.moveaxis(np.roll(places, step, axis=k), k, 0).copy()
            if each.period is None:
                shifted[0 if step == 1 else -1] = -1
            around.append(np.moveaxis(shifted, 0, k).ravel())
    return [[other for other in row if other >= 0] for row in np.stack(around, axis=1).tolist()]


def smooth(axes: Sequence[Axis], values: Array, widths: Sequence[float]) -> Array:
    """``values`` over the grid, averaged with a Gaussian of standard deviation ``widths`` along each axis.

    Next to an end the average is over what lies inside.
    """
    for k, (each, width) in enumerate(zip(axes, widths, strict=True)):
        apart = each.difference(each.centres[:, None], each.centres[None, :])
        kernel = np.exp(-0.5 * (apart / width) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.tensordot(kernel, values, axes=(1, k)), 0, k)
    return values
