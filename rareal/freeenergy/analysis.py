"""The free-energy surface of a round, its barrier, how sure that is, and how it has converged in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rareal.files import write_npz
from rareal.freeenergy.bias import free_energy, mean
from rareal.freeenergy.grid import Axis, points, shape
from rareal.freeenergy.reweighting import History, Reweighting
from rareal.freeenergy.surface import Barrier, Basins, barrier, basins, nearest
from rareal.records import Array

BLOCKS = (32, 16, 8)
"""Into how many blocks all frames are cut, one after the other; the largest error counts."""

TIMES = 20
"""Instants at which the barrier so far is computed."""


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    """A free-energy surface F(s) = -kT ln p(s) and the barrier between two of its basins.

    It belongs to its variables: p(s) includes their Jacobian (4πr² for a distance), as is usual.

    Attributes
    ----------
    coordinates : [G, V] the middle of every bin, in the variables' units.
    energy : [G] eV relative to the first basin's lowest bin; infinite where no frame was.
    error : [G] its standard error, eV; nan where unknown.
    along, along_error : [bins of the first variable] F of that variable alone, the others integrated out, eV; lowest
        value zero.
    hills : [G] what the hills alone say: -γ/(γ-1) times the walkers' mean bias, eV relative to the same bin.
    shape : [V] bins along every variable.
    barrier, barrier_error : from the first basin over the lowest saddle into the second, eV; nan if there is no second.
    reverse, reverse_error : the same way back, eV.
    hills_barrier : the barrier according to ``hills``, eV.
    first, second, saddle : [V] where they are; nan where there is none.
    way : [P] bins from one minimum to the other along which the highest energy is lowest.
    times : [C] time steps per walker.
    so_far, so_far_reverse : [C] both barriers from the frames up to then, eV.
    blocks, block_errors : [B] error of the barrier from so many blocks, eV; the largest is ``barrier_error``.
    frames : that went into it.
    note : empty, or what stands in the way of a barrier.
    """

    coordinates: Array
    energy: Array
    error: Array
    along: Array
    along_error: Array
    hills: Array
    shape: NDArray[np.int64]
    barrier: float
    barrier_error: float
    reverse: float
    reverse_error: float
    hills_barrier: float
    first: Array
    second: Array
    saddle: Array
    way: NDArray[np.int64]
    times: NDArray[np.int64]
    so_far: Array
    so_far_reverse: Array
    blocks: NDArray[np.int64]
    block_errors: Array
    frames: int
    note: str


def save(path: Path, result: FreeEnergy) -> Path:
    """Write a result to an ``.npz``."""
    return write_npz(path, **{item.name: getattr(result, item.name) for item in fields(FreeEnergy)})


def load(path: Path) -> FreeEnergy:
    """Read what `save` wrote."""
    with np.load(path) as archive:
        values = {item.name: archive[item.name] for item in fields(FreeEnergy)}
    return FreeEnergy(**{name: value.item() if value.ndim == 0 else value for name, value in values.items()})


@dataclass(frozen=True)
class Settings:
    """How histories are analysed.

    Attributes
    ----------
    temperature : K.
    factor : bias factor of the well-tempered hills.
    widths : [V] smoothing of the histogram, in the variables' units.
    limits : [V] the part of every variable that counts, None for all of it.
    discard : share of every walker's steps that is left out at the beginning.
    depth : eV by which a minimum must lie below the way out to count as a basin.
    start : [V] where the walkers begin: the basin that holds it is the first one.
    ends : two points, one in each basin; where not given, ``start`` and the deepest other basin.
    """

    temperature: float
    factor: float
    widths: tuple[float, ...]
    limits: tuple[tuple[float, float] | None, ...]
    discard: float
    depth: float
    start: tuple[float, ...]
    ends: tuple[tuple[float, ...], tuple[float, ...]] | None = None


def analyse(histories: Sequence[History], settings: Settings) -> FreeEnergy:
    """The free energy from all walkers together."""
    frames = Reweighting(histories, settings.temperature, settings.widths, settings.limits)
    last = np.array([history.steps[-1] if len(history.steps) else 0 for history in histories])
    kept = frames.step >= settings.discard * last[frames.walker]
    energy = frames.free_energy(kept)
    found = basins(frames.axes, energy, settings.depth)
    pair, note = _pair(frames.axes, energy, found, settings)
    view = _View(frames, found, pair)
    now = view.measure(kept)
    blocks = blockings(frames, kept, last, settings.discard)
    errors = np.array([view.jackknife(block) for block in blocks])
    # nan where any of them is, for it is not known then
    largest = _Measured.split(errors.max(axis=0), len(now.along))
    if pair and not math.isfinite(largest.barrier):
        note = "the barrier hangs on a single stretch of the trajectories: it has no error yet"
    times, so_far = view.in_time(last, settings.discard)
    hills = free_energy(mean([history.start.plus(history.hills) for history in histories]), settings.factor)
    way = barrier(frames.axes, energy, found, *pair) if pair else Barrier(math.nan, math.nan, (), -1)
    where = points(frames.axes)
    nowhere = np.full(len(frames.axes), math.nan)
    first, second, saddle = (way.path[0], way.path[-1], way.saddle) if pair else (-1, -1, -1)
    return FreeEnergy(
        coordinates=where,
        energy=now.energy,
        error=largest.energy,
        along=now.along,
        along_error=largest.along,
        hills=hills.ravel() - hills.ravel()[view.origin],
        shape=np.array(energy.shape),
        barrier=now.barrier,
        barrier_error=largest.barrier,
        reverse=now.reverse,
        reverse_error=largest.reverse,
        hills_barrier=barrier(frames.axes, hills, found, *pair).forward if pair else math.nan,
        first=where[first] if pair else nowhere,
        second=where[second] if pair else nowhere,
        saddle=where[saddle] if pair else nowhere,
        way=np.array(way.path, dtype=np.int64),
        times=times,
        so_far=np.array([each.barrier for each in so_far]),
        so_far_reverse=np.array([each.reverse for each in so_far]),
        blocks=np.array([len(np.unique(block[block >= 0])) for block in blocks]),
        block_errors=errors[:, 0],
        frames=int(kept.sum()),
        note=note,
    )


def _pair(axes: Sequence[Axis], energy: Array, found: Basins, settings: Settings) -> tuple[tuple[int, int] | None, str]:
    """The two basins of the event, or why there are not two."""
    if not found.minima:
        return None, "no frame lies within the limits of the collective variables"

    def basin(point: Sequence[float]) -> int:
        return int(found.label[nearest(axes, energy, point)])

    if settings.ends is not None:
        first, second = (basin(end) for end in settings.ends)
        if first == second:
            return None, "both ends of the event lie in one basin of what has been seen so far"
    else:
        first = basin(settings.start)
        others = [k for k in range(len(found.minima)) if k != first]
        if not others:
            return None, "no second basin has been seen yet"
        # minima are sorted, the lowest first
        second = others[0]
    if not barrier(axes, energy, found, first, second).path:
        return None, "the basins are not connected by what has been seen so far"
    return (first, second), ""


@dataclass(frozen=True, eq=False)
class _Measured:
    """What is read off one surface; not finite where it cannot be."""

    barrier: float
    reverse: float
    along: Array
    energy: Array

    def join(self) -> Array:
        """All of it in one row."""
        return np.concatenate([[self.barrier, self.reverse], self.along, self.energy])

    @staticmethod
    def split(row: Array, bins: int) -> _Measured:
        """What `join` joined; nan where it is not finite."""
        row = np.where(np.isfinite(row), row, math.nan)
        return _Measured(float(row[0]), float(row[1]), row[2 : 2 + bins], row[2 + bins :])


class _View:
    """How surfaces from parts of the frames are looked at: with the basins of the whole."""

    def __init__(self, frames: Reweighting, found: Basins, pair: tuple[int, int] | None) -> None:
        self.frames = frames
        self.found = found
        self.pair = pair
        self.origin = found.minima[pair[0] if pair else 0] if found.minima else 0

    def measure(self, chosen: NDArray[np.bool_]) -> _Measured:
        """The surface from the ``chosen`` frames."""
        energy = self.frames.free_energy(chosen)
        weights = np.exp(-energy / self.frames.kt).reshape(len(energy), -1).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            along = -self.frames.kt * np.log(weights)
            relative = energy.ravel() - energy.ravel()[self.origin]
            along = along - along.min()
        forward = reverse = math.nan
        if self.pair:
            way = barrier(self.frames.axes, energy, self.found, *self.pair)
            forward, reverse = (value if way.path else math.nan for value in (way.forward, way.reverse))
        return _Measured(forward, reverse, along, relative)

    def jackknife(self, block: NDArray[np.int64]) -> Array:
        """Standard errors from leaving out one block after the other (B. Efron, Ann. Stat. 1979, 7, 1)."""
        numbers = np.unique(block[block >= 0])
        rows = [self.measure((block >= 0) & (block != number)).join() for number in numbers]
        if len(rows) < 2:
            return np.full(2 + self.frames.axes[0].bins + int(np.prod(shape(self.frames.axes))), math.nan)
        with np.errstate(invalid="ignore"):
            error: Array = np.sqrt((len(rows) - 1) * np.var(rows, axis=0))
        return error

    def in_time(self, last: NDArray[np.int64], discard: float) -> tuple[NDArray[np.int64], list[_Measured]]:
        """What the frames up to some instants say; the same share of what there is then is left out each time."""
        times = np.unique(np.linspace(0, last.max(), TIMES + 1)[1:].astype(np.int64))
        step, own = self.frames.step, last[self.frames.walker]
        return times, [self.measure((step <= time) & (step >= discard * np.minimum(time, own))) for time in times]


def blockings(
    frames: Reweighting, kept: NDArray[np.bool_], last: NDArray[np.int64], discard: float
) -> list[NDArray[np.int64]]:
    """For every entry of `BLOCKS` the number of the block that a frame is in, -1 for those left out.

    A block is a stretch of one walker, and all blocks of a walker are equally long; there is one per walker at least.
    """
    found = []
    begin = (discard * last)[frames.walker]
    length = np.maximum(1.0, last[frames.walker] + 1 - begin)
    for count in BLOCKS:
        each = max(1, round(count / len(last)))
        block = frames.walker * each + np.minimum(((frames.step - begin) / length * each).astype(np.int64), each - 1)
        found.append(np.where(kept, block, -1))
    return found
