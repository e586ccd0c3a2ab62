"""The free-energy surface of a round, its barrier, how sure that is, and how it has converged in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rareal.files import write_npz
from rareal.freeenergy.bias import free_energy, mean
from rareal.freeenergy.grid import points
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
    hills : [G] what the hills alone say: -γ/(γ-1) times the walkers' mean bias, eV relative to the same bin.
    shape : [V] bins along every variable.
    barrier, barrier_error : from the first basin over the lowest saddle into the second, eV; nan if there is no second.
    reverse, reverse_error : the same way back, eV.
    hills_barrier : the barrier according to ``hills``, eV.
    first, second, saddle : [V] where they are; nan where there is none.
    path : [P] bins from one minimum to the other along which the highest energy is lowest.
    times : [C] time steps per walker.
    so_far, so_far_reverse : [C] both barriers from the frames up to then, eV.
    blocks, block_errors : [B] error of the barrier from so many blocks, eV; the largest is ``barrier_error``.
    frames : that went into it.
    note : empty, or what stands in the way of a barrier.
    """

    coordinates: Array
    energy: Array
    error: Array
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
    path: NDArray[np.int64]
    times: NDArray[np.int64]
    so_far: Array
    so_far_reverse: Array
    blocks: NDArray[np.int64]
    block_errors: Array
    frames: int
    note: str

    def projection(self, kt: float) -> Array:
        """[bins of the first variable] F of that variable alone, eV: the others integrated out, lowest value zero."""
        weights = np.exp(-self.energy / kt).reshape(int(self.shape[0]), -1).sum(axis=1)
        with np.errstate(divide="ignore"):
            along: Array = -kt * np.log(weights)
        return along - along.min()


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
    hills = free_energy(mean([history.start.plus(history.hills) for history in histories]), settings.factor)
    found = basins(frames.axes, energy, settings.depth)
    pair, note = _pair(frames, energy, found, settings)
    if pair is None:
        return _without_barrier(frames, energy, hills, int(kept.sum()), note)

    def measure(chosen: NDArray[np.bool_]) -> tuple[Array, Barrier]:
        surface = frames.free_energy(chosen)
        return surface, barrier(frames.axes, surface, found, *pair)

    way = barrier(frames.axes, energy, found, *pair)
    origin = way.path[0]
    errors = [_jackknife(measure, origin, blocks) for blocks in _blockings(frames, kept, last, settings.discard)]
    worst = int(np.argmax([each.forward for each in errors])) if errors else -1
    times, so_far, so_far_reverse = _in_time(frames, measure, last, settings.discard)
    unknown = _Errors(0, math.nan, math.nan, np.full(energy.size, math.nan))
    chosen = errors[worst] if errors else unknown
    if not math.isfinite(chosen.forward):
        note = "the barrier hangs on a single stretch of the trajectories: it has no error yet"
    where = points(frames.axes)
    return FreeEnergy(
        coordinates=where,
        energy=energy.ravel() - energy.ravel()[origin],
        error=np.max([each.energy for each in errors], axis=0) if errors else unknown.energy,
        hills=hills.ravel() - hills.ravel()[origin],
        shape=np.array(energy.shape),
        barrier=way.forward,
        barrier_error=_known(chosen.forward),
        reverse=way.reverse,
        reverse_error=_known(max((each.reverse for each in errors), default=math.nan)),
        hills_barrier=barrier(frames.axes, hills, found, *pair).forward,
        first=where[origin],
        second=where[way.path[-1]],
        saddle=where[way.saddle],
        path=np.array(way.path),
        times=times,
        so_far=so_far,
        so_far_reverse=so_far_reverse,
        blocks=np.array([each.count for each in errors], dtype=np.int64),
        block_errors=np.array([each.forward for each in errors]),
        frames=int(kept.sum()),
        note=note,
    )


def _known(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _pair(frames: Reweighting, energy: Array, found: Basins, settings: Settings) -> tuple[tuple[int, int] | None, str]:
    """The two basins of the event, or why there is none."""
    if not found.minima:
        return None, "no frame lies within the limits of the collective variables"

    def basin(point: Sequence[float]) -> int:
        return int(found.label[nearest(frames.axes, energy, point)])

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
    if not barrier(frames.axes, energy, found, first, second).path:
        return None, "the basins are not connected by what has been seen so far"
    return (first, second), ""


def _without_barrier(frames: Reweighting, energy: Array, hills: Array, count: int, note: str) -> FreeEnergy:
    nowhere = np.full(len(frames.axes), math.nan)
    empty = np.empty(0)
    return FreeEnergy(
        coordinates=points(frames.axes),
        energy=energy.ravel(),
        error=np.full(energy.size, math.nan),
        hills=hills.ravel(),
        shape=np.array(energy.shape),
        barrier=math.nan,
        barrier_error=math.nan,
        reverse=math.nan,
        reverse_error=math.nan,
        hills_barrier=math.nan,
        first=nowhere,
        second=nowhere,
        saddle=nowhere,
        path=np.empty(0, dtype=np.int64),
        times=np.empty(0, dtype=np.int64),
        so_far=empty,
        so_far_reverse=empty,
        blocks=np.empty(0, dtype=np.int64),
        block_errors=empty,
        frames=count,
        note=note,
    )


def _blockings(
    frames: Reweighting, kept: NDArray[np.bool_], last: NDArray[np.int64], discard: float
) -> list[NDArray[np.int64]]:
    """Every blocking gives each frame the number of its block, -1 for those left out.

    A block is a stretch of one walker, all equally long.
    """
    found = []
    begin = (discard * last)[frames.walker]
    length = np.maximum(1.0, last[frames.walker] + 1 - begin)
    for count in BLOCKS:
        each = max(1, round(count / len(last)))
        block = frames.walker * each + np.minimum(((frames.step - begin) / length * each).astype(np.int64), each - 1)
        found.append(np.where(kept, block, -1))
    return found


@dataclass(frozen=True, eq=False)
class _Errors:
    count: int
    forward: float
    reverse: float
    energy: Array


def _jackknife(
    measure: Callable[[NDArray[np.bool_]], tuple[Array, Barrier]], origin: int, block: NDArray[np.int64]
) -> _Errors:
    """Standard errors from leaving out one block after the other (B. Efron, Ann. Stat. 1979, 7, 1)."""
    numbers = np.unique(block[block >= 0])
    surfaces, forward, reverse = [], [], []
    for number in numbers:
        surface, way = measure((block >= 0) & (block != number))
        values = surface.ravel()
        surfaces.append(values - values[origin])
        forward.append(way.forward)
        reverse.append(way.reverse)
    with np.errstate(invalid="ignore"):
        return _Errors(len(numbers), *map(_spread, (np.array(forward), np.array(reverse), np.array(surfaces))))


def _spread(values: Array) -> Array:
    """Jackknife standard error along the first axis; nan where any value is not finite."""
    count = len(values)
    error: Array = np.sqrt((count - 1) * np.var(values, axis=0)) if count > 1 else np.full(values.shape[1:], math.nan)
    return error


def _in_time(
    frames: Reweighting,
    measure: Callable[[NDArray[np.bool_]], tuple[Array, Barrier]],
    last: NDArray[np.int64],
    discard: float,
) -> tuple[NDArray[np.int64], Array, Array]:
    """Barriers from the frames up to some instants; the same share of what there is then is left out each time."""
    times = np.unique(np.linspace(0, last.max(), TIMES + 1)[1:].astype(np.int64))
    ways = [measure((frames.step <= time) & (frames.step >= discard * min(time, last.max())))[1] for time in times]
    return times, np.array([_known(way.forward) for way in ways]), np.array([_known(way.reverse) for way in ways])
