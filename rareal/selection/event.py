"""Selection that knows where the event is: evenly along the path, densely where the bonds change.

The paper's screening asks for 0.01 Å in the collective variable and drops nearly all frames of the event itself: a
bond goes within 50–100 steps, in which the distance pulled at hardly moves. What is even, and where is dense, depends
on the kind of path:

- **Driven paths**, such as a pull at low temperature, are divided by their length, counted in everything that may
  change along it, collective variables, energy and bonds; a share of the labels is reserved for the window in which
  the bonds do change (`rareal.event`).
- **Thermal paths**, such as metadynamics, go back and forth: their length is thermal noise, and just another word for
  time, most of which is spent in basins. They are divided by what they have *visited*, cells in the collective
  variables and in the progress of the bonds, so that a barrier crossed in a few steps gets its share. All walkers
  share the cells: what one has seen need not be labelled for another. Energy is left out, since that of a thermal
  frame fluctuates everywhere by many spacings.
- A thermal path on which a bond goes for good, a pull at room temperature, has its window like a driven path. Without
  a bond that changes (an isomerisation), or with bonds that go and come back, there is no window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from rareal.cv import Variable
from rareal.event import bond_orders, find_event, last_row
from rareal.records import Array, Judged, Trajectory
from rareal.schema import Section
from rareal.selection.space import Space, Spacing, check_spacing, spread
from rareal.units import KCAL_MOL, Energy

THERMAL = 10.0
"""A path is thermal when its length in the collective variables is more than this times the range that it visits.

The pull of hexane at 10 K is 1.8 times as long as its range. One that goes forward all the time may well be several
times as long: stretches of equal length are still stretches of equal range.
"""

SWITCHED = 0.7
"""A bond's order has gone back when it has changed by more than this share of the way from start to end, or back."""


class Config(Section):
    """The most uncertain frame of every stretch of the path."""

    kind: Literal["event"] = "event"
    count: int = Field(20, ge=1, description="most frames chosen per round, before noise copies")
    event_share: float = Field(0.6, ge=0, le=1, description="share of the frames taken from within the event")
    lead: int = Field(500, ge=0, description="time steps before the event that count as part of it")
    tail: int = Field(
        60,
        ge=0,
        description="time steps after the event in which frames are still chosen, and more where the work rises on",
    )
    cv_spacing: Spacing = Field(
        None,
        description="change of the CV (its own unit) that counts as one unit of length, one number or a list with one "
        "per CV; where not given 0.01 Å, 1 degree, 0.01 without a unit",
    )
    energy_spacing: Energy = Field(KCAL_MOL, gt=0, description="change of energy that counts as one unit of length, eV")
    progress_spacing: float = Field(
        0.02, gt=0, description="change of a bond's order that counts as one unit of length"
    )

    @field_validator("cv_spacing")
    @classmethod
    def _units_of_length(cls, value: Spacing) -> Spacing:
        if value is not None and np.min(value) <= 0:
            raise ValueError("a unit of length must be above 0; leave the key out for the default")
        return value

    def check_against(self, config: Any) -> None:
        """Refuse spacings that do not go with the collective variables."""
        check_spacing(self.cv_spacing, config.cv)


@dataclass(frozen=True, eq=False)
class Path:
    """What the selection needs of one judged trajectory.

    Attributes
    ----------
    progress : [T] of the bonds, see `rareal.event.reaction_progress`.
    window : first row of the event and the one after its last; None without an event of its own.
    thermal : whether it goes back and forth.
    """

    judged: Judged
    progress: Array
    window: tuple[int, int] | None
    thermal: bool


class EventSelector:
    """`Selector`: the frame of the highest score in every stretch of a driven path, every cell of thermal ones.

    Parameters
    ----------
    config : its section.
    numbers : [N] atomic numbers.
    variables : the collective variables.
    """

    def __init__(self, config: Config, numbers: NDArray[np.int64], variables: Sequence[Variable] = ()) -> None:
        self.config = config
        self.numbers = numbers
        self.space = Space(config.cv_spacing, variables)

    def select(self, judged: Sequence[Judged], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """At most ``count`` pairs (trajectory, row), shared evenly among the trajectories."""
        left = min(count, self.config.count)
        paths = [self.path(item) for item in judged]
        roaming = [k for k, path in enumerate(paths) if path.thermal and path.window is None]
        alone = [k for k in range(len(paths)) if k not in roaming]
        chosen: list[tuple[int, int]] = []
        for turn, k in enumerate(alone):
            share = left // (len(alone) - turn + len(roaming))
            found = [(k, row) for row in self.rows(paths[k], share)]
            left -= len(found)
            chosen += found
        return sorted(chosen + self.visited([(k, paths[k]) for k in roaming], left))

    def path(self, judged: Judged) -> Path:
        """A judged trajectory, with its event."""
        trajectory = judged.trajectory
        if len(trajectory) < 2:
            return Path(judged, np.zeros(len(trajectory)), None, False)
        orders, pairs = bond_orders(self.numbers, trajectory.positions)
        progress: Array = np.abs(orders - orders[0]).sum(axis=1)
        length = float(self.space.steps(trajectory.cvs).sum())
        thermal = length > THERMAL * self.space.extent(trajectory.cvs)
        event = find_event(self.numbers, trajectory.positions)
        if event is None:
            return Path(judged, progress, None, thermal)
        steps = trajectory.steps
        first = int(np.searchsorted(steps, steps[event.onset] - self.config.lead))
        last = last_row(trajectory, event, self.config.tail) + 1
        deciding = orders[:, np.nonzero((pairs == event.pair).all(axis=1))[0][0]]
        window = None if went_back(deciding, event.onset, event.end) else (first, last)
        return Path(judged, progress, window, thermal)

    def rows(self, path: Path, count: int) -> list[int]:
        """At most ``count`` rows of one trajectory, in time order."""
        everything = np.arange(len(path.judged.trajectory))
        if path.window is None:
            return self.along(path, everything, count)
        first, last = path.window
        within = self.along(path, everything[first:last], round(self.config.event_share * count))
        return self.along(path, everything[:first], count - len(within)) + within

    def along(self, path: Path, rows: NDArray[np.int64], count: int) -> list[int]:
        """At most ``count`` of ``rows`` of a path, evenly."""
        judged = path.judged
        if len(rows) == 0:
            return []
        if not path.thermal:
            return most_uncertain(judged, self.path_length(judged.trajectory, path.progress), rows, count)
        rows = rows[judged.worthwhile[rows]]
        found = spread(
            self.space, judged.trajectory.cvs[rows], self.bonds(path.progress[rows]), judged.score[rows], count
        )
        return [int(row) for row in rows[found]]

    def visited(self, paths: Sequence[tuple[int, Path]], count: int) -> list[tuple[int, int]]:
        """At most ``count`` pairs (trajectory, row), evenly over what all of the paths together have visited."""
        rows = [np.nonzero(path.judged.worthwhile)[0] for _, path in paths]
        if not sum(map(len, rows)):
            return []
        pairs = [(k, int(row)) for (k, _), some in zip(paths, rows, strict=True) for row in some]
        cvs = np.concatenate([path.judged.trajectory.cvs[some] for (_, path), some in zip(paths, rows, strict=True)])
        progress = np.concatenate([path.progress[some] for (_, path), some in zip(paths, rows, strict=True)])
        score = np.concatenate([path.judged.score[some] for (_, path), some in zip(paths, rows, strict=True)])
        return [pairs[row] for row in spread(self.space, cvs, self.bonds(progress), score, count)]

    def bonds(self, progress: Array) -> Array:
        """The coordinate [T, 1] of the bonds, in its spacing."""
        return progress[:, None] / self.config.progress_spacing

    def path_length(self, trajectory: Trajectory, progress: Array) -> Array:
        """Length of the path up to every row, in units of the spacings, [T]."""
        steps = self.space.steps(trajectory.cvs)
        for values, spacing in (
            (trajectory.energy, self.config.energy_spacing),
            (progress, self.config.progress_spacing),
        ):
            steps = steps + np.abs(np.diff(values, prepend=values[0])) / spacing
        length: Array = np.cumsum(steps)
        return length


def went_back(order: Array, onset: int, end: int) -> bool:
    """Whether a bond of these orders [T] was as at the end before ``onset``, or is as at the start after ``end``."""
    # a single frame of a thermal path says little of how long the bond is
    first, last = np.median(order[: onset + 1]), np.median(order[end:])
    there = (order - first) / (last - first)
    return bool((there[:onset] > SWITCHED).any() or (there[end + 1 :] < 1 - SWITCHED).any())


def most_uncertain(judged: Judged, length: Array, rows: NDArray[np.int64], count: int) -> list[int]:
    """Of ``count`` stretches of equal path length among ``rows``, each one's worthwhile row of the highest score."""
    if count < 1:
        return []
    along = length[rows] - length[rows[0]]
    stretch = np.minimum((count * along / max(along[-1], 1e-12)).astype(int), count - 1)
    worthwhile = judged.worthwhile
    chosen = []
    for part in range(count):
        candidates = rows[(stretch == part) & worthwhile[rows]]
        if len(candidates):
            chosen.append(int(candidates[np.argmax(judged.score[candidates])]))
    return chosen


def build(config: Config, start: Any, variables: Sequence[Variable] = ()) -> EventSelector:
    """The selection that ``config`` describes."""
    return EventSelector(config, start.numbers, variables)
