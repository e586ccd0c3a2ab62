"""Selection that knows where the event is: evenly along the path's length, densely where the bonds change.

The paper's screening asks for 0.01 Å in the collective variable and drops nearly all frames of the event itself: a
bond goes within 50–100 steps, in which the distance pulled at hardly moves. Here a path's length is counted in
everything that may change along it, collective variable, energy and bonds, and a share of the labels is reserved for
the window in which the bonds do change (`rareal.event`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rareal.event import find_event, reaction_progress
from rareal.records import Array, Judged, Trajectory
from rareal.schema import Section
from rareal.units import KCAL_MOL, Energy


class Config(Section):
    """The most uncertain frame of every stretch of the path."""

    kind: Literal["event"] = "event"
    count: int = Field(20, ge=1, description="most frames chosen per round, before noise copies")
    event_share: float = Field(0.6, ge=0, le=1, description="share of the frames taken from within the event")
    lead: int = Field(500, ge=0, description="time steps before the event that count as part of it")
    tail: int = Field(60, ge=0, description="time steps after the event in which frames are still chosen")
    cv_spacing: float = Field(
        0.01, gt=0, description="change of the CV (its own unit) that counts as one unit of length"
    )
    energy_spacing: Energy = Field(KCAL_MOL, gt=0, description="change of energy that counts as one unit of length, eV")
    progress_spacing: float = Field(
        0.02, gt=0, description="change of a bond's order that counts as one unit of length"
    )


class EventSelector:
    """`Selector`: equal stretches of path length, in each the frame of the largest energy std above the threshold."""

    def __init__(self, config: Config, numbers: NDArray[np.int64]) -> None:
        self.config = config
        self.numbers = numbers

    def select(self, judged: Sequence[Judged], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """At most ``count`` pairs (trajectory, row), shared evenly among the trajectories."""
        count = min(count, self.config.count)
        chosen: list[tuple[int, int]] = []
        for k, item in enumerate(judged):
            share = (count - len(chosen)) // (len(judged) - k)
            chosen += [(k, row) for row in self.rows(item.trajectory, item.threshold, share)]
        return chosen

    def rows(self, trajectory: Trajectory, threshold: float, count: int) -> list[int]:
        """At most ``count`` rows of one trajectory, in time order."""
        progress = reaction_progress(self.numbers, trajectory.positions)
        length = self.path_length(trajectory, progress)
        event = find_event(self.numbers, trajectory.positions)
        if event is None:
            return most_uncertain(trajectory.energy_std, length, threshold, np.arange(len(trajectory)), count)
        steps = trajectory.steps
        first = int(np.searchsorted(steps, steps[event.onset] - self.config.lead))
        last = int(np.searchsorted(steps, steps[event.end] + self.config.tail, side="right"))
        within = most_uncertain(
            trajectory.energy_std, length, threshold, np.arange(first, last), round(self.config.event_share * count)
        )
        before = most_uncertain(trajectory.energy_std, length, threshold, np.arange(first), count - len(within))
        return before + within

    def path_length(self, trajectory: Trajectory, progress: Array) -> Array:
        """Length of the path up to every row, in units of the spacings, [T]."""
        parts = (
            (trajectory.cv, self.config.cv_spacing),
            (trajectory.energy, self.config.energy_spacing),
            (progress, self.config.progress_spacing),
        )
        steps = sum(np.abs(np.diff(values, prepend=values[0])) / spacing for values, spacing in parts)
        length: Array = np.cumsum(steps)
        return length


def most_uncertain(
    energy_std: Array, length: Array, threshold: float, rows: NDArray[np.int64], count: int
) -> list[int]:
    """Of ``count`` stretches of equal path length among ``rows``, each one's row of largest std above the threshold."""
    if count < 1 or len(rows) == 0:
        return []
    along = length[rows] - length[rows[0]]
    stretch = np.minimum((count * along / max(along[-1], 1e-12)).astype(int), count - 1)
    chosen = []
    for part in range(count):
        candidates = rows[(stretch == part) & (energy_std[rows] > threshold)]
        if len(candidates):
            chosen.append(int(candidates[np.argmax(energy_std[candidates])]))
    return chosen


def build(config: Config, start: Any) -> EventSelector:
    return EventSelector(config, start.numbers)
