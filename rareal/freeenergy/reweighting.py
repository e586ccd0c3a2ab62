"""The unbiased distribution from walkers whose bias changes as they go.

While the bias V(s, t) changes slowly, the frames between two hills are a sample of exp[-β(F(s) + V(s, t))]. They are
joined as the windows of umbrella sampling are, by the weighted histogram equations (S. Kumar et al., J. Comput. Chem.
1992, 13, 1011, equations 19 and 20), each stretch of time between hills being a window:

    p(s) = n(s) / Σ_k N_k exp[-β V_k(s)] / z_k,        z_k = Σ_s p(s) exp[-β V_k(s)],

n(s) frames in a bin, N_k frames in stretch k. -kT ln z_k is the offset c(t) of P. Tiwary and M. Parrinello, J. Phys.
Chem. B 2015, 119, 736, but needs no bias that has converged: a bias inherited from another surface is as good as one
grown on this, and frames under different biases get the weights with the least variance. Frames between the first
hills, which have not relaxed yet, are better left out.

Where something else biases the frames as well, by an energy U that may be anything's function but is the same in all
stretches, it drops out of the equations for z_k, and frames count exp(βU) in the n(s) above the fraction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rareal.freeenergy.bias import Bias, Hills
from rareal.freeenergy.grid import Axis, flat_index, shape, smooth
from rareal.records import Array
from rareal.units import KB

LARGEST_TABLE = 2_000_000
"""Entries of the table of bias energies, stretches times bins; hills are taken in groups where it would be larger."""

FEWEST = 5
"""Frames in and around a bin, within the smoothing, below which the free energy there is not known."""

TOLERANCE = 1e-6
"""kT: the equations count as solved where no ln z moves by more."""

ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class History:
    """What one walker saw, and under which bias.

    Attributes
    ----------
    steps : [T] time steps of the frames.
    values : [T, V] the variables.
    start : the bias it began with.
    hills : those that it laid.
    other : [T] energy of biases that are no function of the variables, such as that of uncertainty-driven dynamics, eV;
        None where there are none.
    """

    steps: NDArray[np.int64]
    values: Array
    start: Bias
    hills: Hills
    other: Array | None = None


class Reweighting:
    """The frames of several walkers at one temperature, ready to be weighted.

    Parameters
    ----------
    histories : of the walkers; all on one grid.
    temperature : K.
    widths : standard deviation along each axis of the Gaussian that smooths the histogram, in the variables' units.
        The histogram of a biased run is nearly flat, so this blurs much less than it would the free energy.
    limits : for every axis the part of it that counts; frames outside, where walls act, are left out.

    Attributes
    ----------
    frames : how many there are within the limits.
    walker, step : [frames] where they come from.
    """

    def __init__(
        self,
        histories: Sequence[History],
        temperature: float,
        widths: Sequence[float],
        limits: Sequence[tuple[float, float] | None],
    ) -> None:
        self.axes: tuple[Axis, ...] = histories[0].start.axes
        self.kt = KB * temperature
        self.widths = tuple(widths)
        walker, step, place, count, other = [], [], [], [], []
        for k, history in enumerate(histories):
            inside = flat_index(self.axes, history.values)
            for axis, limit in enumerate(limits):
                if limit is not None:
                    value = history.values[:, axis]
                    inside[(value < limit[0]) | (value > limit[1])] = -1
            kept = inside >= 0
            walker.append(np.full(int(kept.sum()), k))
            step.append(history.steps[kept])
            place.append(inside[kept])
            other.append(np.zeros(int(kept.sum())) if history.other is None else history.other[kept])
            # a hill acts from its own step on
            count.append(np.searchsorted(history.hills.steps, history.steps[kept], side="right"))
        self.walker = np.concatenate(walker)
        self.step = np.concatenate(step)
        self.place = np.concatenate(place)
        self.frames = len(self.place)
        energy = np.concatenate(other)
        self.weight = np.exp((energy - energy.max(initial=-np.inf)) / self.kt)
        # what one frame leaves, spread over the area of the smoothing
        spread = [max(1.0, 2.0 * math.sqrt(math.pi) * w / a.width) for w, a in zip(widths, self.axes, strict=True)]
        self.one = 1.0 / math.prod(spread)
        self.known = np.flatnonzero(self._histogram(np.ones(self.frames, dtype=bool)) >= FEWEST * self.one)
        self.stretch, self.levels = self._stretches(histories, count)
        # near the free energy, so that no exponential below leaves the range of floating-point numbers
        self.guess = -self.levels.mean(axis=0) if self.frames else np.zeros(0)
        energy = self.levels + self.guess
        self.factors = np.exp(-(energy - energy.min(axis=1, keepdims=True, initial=np.inf)) / self.kt)
        self.offsets: Array | None = None

    def _histogram(self, chosen: NDArray[np.bool_], weight: Array | None = None) -> Array:
        """Smoothed number of frames in every bin of the flattened grid, or sum of their weights."""
        size = int(np.prod(shape(self.axes)))
        weights = None if weight is None else weight[chosen]
        raw = np.bincount(self.place[chosen], weights, minlength=size).astype(np.float64)
        return smooth(self.axes, raw.reshape(shape(self.axes)), self.widths).ravel()

    def _stretches(
        self, histories: Sequence[History], counts: Sequence[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], Array]:
        """Which stretch [frames] every frame is in, and the bias energies [K, S] of the stretches at the known bins."""
        total = sum(len(np.unique(count)) for count in counts)
        group = max(1, -(-total * len(self.known) // LARGEST_TABLE))
        stretch, levels, before = [], [], 0
        for history, count in zip(histories, counts, strict=True):
            numbers, rows = np.unique(count // group, return_inverse=True)
            # the bias in the middle of a group stands for all of it
            middle = np.minimum(numbers * group + (group - 1) // 2, len(history.hills))
            stretch.append(rows + before)
            levels.append(history.start.levels(history.hills, middle.tolist(), self.known))
            before += len(numbers)
        return np.concatenate(stretch), np.concatenate(levels)

    def free_energy(self, chosen: NDArray[np.bool_] | None = None) -> Array:
        """[bins, ...] eV, lowest value zero, infinite where there are no frames.

        Parameters
        ----------
        chosen : [frames] which frames to use; all where not given.
        """
        if chosen is None:
            chosen = np.ones(self.frames, dtype=bool)
        surface = np.full(int(np.prod(shape(self.axes))), np.inf)
        if chosen.any() and len(self.known):
            counts = self._histogram(chosen)[self.known]
            weighted = self._histogram(chosen, self.weight)[self.known]
            numbers = np.bincount(self.stretch[chosen], minlength=len(self.levels)).astype(np.float64)
            seen = counts >= self.one
            values = self.kt * (self._solve(counts, numbers)[seen] - np.log(weighted[seen]))
            surface[self.known[seen]] = values
            surface -= surface.min()
        return surface.reshape(shape(self.axes))

    def _solve(self, counts: Array, numbers: Array) -> Array:
        """Logarithm of the sum under the fraction at the known bins."""
        used = numbers > 0
        factors = self.factors if used.all() else self.factors[used]
        first = np.zeros(len(self.levels)) if self.offsets is None else self.offsets
        log_z = first[used]
        for _ in range(ITERATIONS):
            weights = (numbers[used] * np.exp(-log_z)) @ factors
            density = counts / weights
            density /= density.sum()
            new = np.log(factors @ density)
            new -= new[-1]
            moved = np.abs(new - log_z).max()
            log_z = new
            if moved < TOLERANCE:
                break
        offsets = first.copy()
        offsets[used] = log_z
        if used.all():
            self.offsets = offsets
        result: Array = np.log((numbers[used] * np.exp(-log_z)) @ factors) + self.guess / self.kt
        return result
