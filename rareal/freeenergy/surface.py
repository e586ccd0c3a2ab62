"""Basins and barriers of a free-energy surface over one or two variables.

A barrier is measured along the path whose highest point is lowest (the minimax path): in one dimension that is the
maximum between two minima, in two the lowest saddle. Nothing is fitted, so a surface must be smooth on the scale of
its bins; `rareal.freeenergy.reweighting` sees to that.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rareal.freeenergy.grid import Axis, flat_index, neighbours, points
from rareal.records import Array


@dataclass(frozen=True, eq=False)
class Basins:
    """The catchments of a surface's minima.

    Attributes
    ----------
    minima : the bins (places in the flattened grid) of the minima, lowest first.
    label : [G] which of them a bin belongs to; -1 where the surface is not known.
    """

    minima: tuple[int, ...]
    label: NDArray[np.int64]


@dataclass(frozen=True)
class Barrier:
    """From one basin over the lowest saddle into another, eV.

    Attributes
    ----------
    forward, reverse : saddle minus lowest energy of the first and the second basin.
    path : bins from the one minimum to the other, along which the highest energy is as low as it can be.
    saddle : the highest of them.
    """

    forward: float
    reverse: float
    path: tuple[int, ...]
    saddle: int

    @property
    def reaction(self) -> float:
        """Free energy of the second basin's minimum relative to the first one's, eV."""
        return self.forward - self.reverse


def basins(axes: Sequence[Axis], energy: Array, depth: float) -> Basins:
    """Catchments of the minima that lie at least ``depth`` [eV] below the way out; shallower ones join their neighbour.

    Parameters
    ----------
    axes : the grid.
    energy : [bins, ...] eV, not finite where it is not known.
    depth : eV.
    """
    values, adjacent = energy.ravel(), neighbours(tuple(axes))
    order = [int(k) for k in np.argsort(values, kind="stable") if np.isfinite(values[k])]
    root = np.full(len(values), -1, dtype=np.int64)
    # of every minimum: the deeper one that took it in, or itself
    taken: dict[int, int] = {}
    reach: dict[int, int] = {}
    for place in order:
        around = [other for other in adjacent[place] if root[other] >= 0]
        if not around:
            root[place] = place
            taken[place] = reach[place] = place
            continue
        root[place] = root[min(around, key=lambda k: values[k])]
        lakes = sorted({_find(reach, int(root[other])) for other in around}, key=lambda k: values[k])
        for lake in lakes[1:]:
            reach[lake] = lakes[0]
            if values[place] - values[lake] < depth:
                taken[lake] = lakes[0]
    # the lowest minimum of a lake may itself be too shallow beside a deeper lake, hence the chain
    final = {minimum: _find(taken, minimum) for minimum in taken}
    minima = tuple(sorted(set(final.values()), key=lambda k: values[k]))
    number = {minimum: k for k, minimum in enumerate(minima)}
    label = np.array([number[final[int(k)]] if k >= 0 else -1 for k in root], dtype=np.int64)
    return Basins(minima, label)


def _find(links: dict[int, int], item: int) -> int:
    while links[item] != item:
        item = links[item]
    return item


def nearest(axes: Sequence[Axis], energy: Array, point: Sequence[float]) -> int:
    """The bin with a known energy that is closest to ``point``, counted in bins."""
    place = int(flat_index(axes, np.array([point], dtype=np.float64))[0])
    known = np.isfinite(energy.ravel())
    if place >= 0 and known[place]:
        return place
    everywhere = points(axes)
    apart = [each.difference(everywhere[:, k], point[k]) / each.width for k, each in enumerate(axes)]
    return int(np.argmin(np.where(known, sum(part**2 for part in apart), np.inf)))


def barrier(axes: Sequence[Axis], energy: Array, found: Basins, first: int, second: int) -> Barrier:
    """The barrier from basin ``first`` to basin ``second`` (numbers of ``found``, which may be of a similar surface).

    Both energies are infinite where no known bins connect them.
    """
    values = np.where(np.isfinite(energy.ravel()), energy.ravel(), np.inf)
    ends = [int(np.argmin(np.where(found.label == number, values, np.inf))) for number in (first, second)]
    path = minimax_path(axes, values, *ends)
    if not path:
        return Barrier(np.inf, np.inf, (), -1)
    saddle = max(path, key=lambda k: values[k])
    forward, reverse = (float(values[saddle] - values[end]) for end in ends)
    return Barrier(forward, reverse, path, saddle)


def minimax_path(axes: Sequence[Axis], values: Array, start: int, end: int) -> tuple[int, ...]:
    """Bins from ``start`` to ``end`` whose highest value is as low as possible; none where nothing connects them.

    Among the ways over the same saddle it follows the valleys: bins are taken in the order of their value (Dijkstra's
    algorithm with the maximum in place of the sum).
    """
    if not (np.isfinite(values[start]) and np.isfinite(values[end])):
        return ()
    adjacent, known = neighbours(tuple(axes)), np.isfinite(values).tolist()
    came: dict[int, int] = {start: start}
    front = [(float(values[start]), start)]
    while front:
        _, place = heapq.heappop(front)
        if place == end:
            break
        for other in adjacent[place]:
            if known[other] and other not in came:
                came[other] = place
                heapq.heappush(front, (float(values[other]), other))
    if end not in came:
        return ()
    path = [end]
    while path[-1] != start:
        path.append(came[path[-1]])
    return tuple(reversed(path))
