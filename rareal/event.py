"""Where the event is: which bond goes, and when, from the geometries alone.

A bond's order is read off its length, b = 1 / (1 + (r / 1.45 R)^12) with R the sum of the covalent radii: close to 1
for a bond at rest, 1/2 when it is stretched by nearly a half, 0 when it is gone. Nothing here knows a molecule, an
element or a collective variable; a proton that hops is a bond that goes and another that comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from rareal.records import Array, Trajectory

STRETCH = 1.45
POWER = 12
BONDED = 0.3
"""Pairs of at least this order at the start or at the end are looked at (r < 1.55 R)."""

HAPPENED = 0.5
"""A bond has gone or come when its order has changed by more than this from start to end."""

FAST = 0.3
"""The event lasts while the deciding bond's order changes at more than this share of its largest rate."""


@dataclass(frozen=True)
class Event:
    """Rows of a trajectory between which the deciding bond changes: ``onset`` ≤ ``peak`` ≤ ``end``; 0-based atoms."""

    onset: int
    peak: int
    end: int
    pair: tuple[int, int]


def bond_orders(numbers: NDArray[np.int64], positions: Array) -> tuple[Array, NDArray[np.int64]]:
    """Orders [T, B] of the bonds in the first or the last of ``positions`` [T, N, 3], and their atoms [B, 2]."""
    i, j = np.triu_indices(len(numbers), 1)
    reach = STRETCH * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]])

    def orders(geometry: Array, pairs: NDArray[np.int64] | slice) -> Array:
        distance = np.linalg.norm(geometry[..., j[pairs], :] - geometry[..., i[pairs], :], axis=-1)
        order: Array = 1.0 / (1.0 + (distance / reach[pairs]) ** POWER)
        return order

    ends = orders(positions[[0, -1]], slice(None))
    pairs = np.nonzero((ends > BONDED).any(axis=0))[0]
    return orders(positions, pairs), np.stack([i[pairs], j[pairs]], axis=1)


def reaction_progress(numbers: NDArray[np.int64], positions: Array) -> Array:
    """Sum over bonds of the change of their order since the first frame, [T]; about 1 for each bond gone or come."""
    orders, _ = bond_orders(numbers, positions)
    progress: Array = np.abs(orders - orders[0]).sum(axis=1)
    return progress


def find_event(numbers: NDArray[np.int64], positions: Array) -> Event | None:
    """The event of a trajectory [T, N, 3], or None if no bond goes or comes.

    The deciding bond is the one that changes first among those that have changed for good.
    """
    if len(positions) < 3:
        return None
    orders, pairs = bond_orders(numbers, positions)
    change = np.abs(orders[-1] - orders[0])
    events = [_window(orders[:, k], (int(pairs[k, 0]), int(pairs[k, 1]))) for k in np.nonzero(change > HAPPENED)[0]]
    return min(events, key=lambda event: event.onset, default=None)


def _window(order: Array, pair: tuple[int, int]) -> Event:
    """The rows around the last crossing of the middle in which the order changes fast."""
    middle = 0.5 * (order[0] + order[-1])
    above = np.sign(order - middle)
    crossing = int(np.nonzero(above != above[-1])[0][-1])
    width = min(5, len(order))
    rate = np.convolve(np.abs(np.gradient(order)), np.ones(width) / width, mode="same")
    near = slice(max(0, crossing - 50), crossing + 51)
    peak = near.start + int(np.argmax(rate[near]))
    slow = rate < FAST * rate[peak]
    before, after = np.nonzero(slow[:peak])[0], np.nonzero(slow[peak:])[0]
    onset = int(before[-1]) + 1 if len(before) else 0
    end = peak + int(after[0]) if len(after) else len(order) - 1
    return Event(onset, peak, end, pair)


def last_row(trajectory: Trajectory, event: Event, beyond: int) -> int:
    """The last row that belongs to a trajectory's event: ``beyond`` steps after its end, or where the work is greatest.

    A bond that snaps takes the work's maximum with it. One that gives way goes on to resist, and the maximum, which is
    the barrier that a round reports, comes long after the event: what is reported has to be checked.
    """
    after = int(np.searchsorted(trajectory.steps, trajectory.steps[event.end] + beyond, side="right")) - 1
    return max(after, int(np.argmax(trajectory.work)))
