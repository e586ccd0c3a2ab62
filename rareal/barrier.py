"""Where a round's barrier is checked: which frames of its own path the engine labels.

The work's maximum (W_max) is the paper's activation energy, and ill-conditioned: the bond goes when the residual
barrier under load has sunk to a few kT, and 0.01 Å of pulling is 1 kcal/mol of work. The error along the path and the
quasi-static rupture (`rareal.rupture`) are well-conditioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rareal.event import find_event, last_row
from rareal.records import Array, Trajectory
from rareal.rupture import Config as RuptureConfig
from rareal.sampling.neb import PathConfig
from rareal.schema import Misfit, Section
from rareal.units import KCAL_MOL, Energy


class Config(Section):
    """How a round's barrier is checked."""

    kind: Literal["path"] = "path"
    path_frames: int = Field(
        48, ge=4, description="frames of the round's own pull that the engine labels; each is a label"
    )
    profile_bins: int = Field(
        6, ge=2, description="thermal samplers: stretches of the collective variable whose mean energies are compared"
    )
    break_frames: int = Field(16, ge=0, description="of these, frames within the break itself")
    scout_frames: int = Field(
        16, ge=2, description="frames that are labelled first; where they show the path to be wrong, no more are"
    )
    scout_walkers: int = Field(2, ge=1, description="pulls per round as long as the path is known to be wrong")
    scout_above: Energy = Field(
        10 * KCAL_MOL,
        gt=0,
        description="path error above which the path counts as wrong, eV; it need not be dense then",
    )
    beyond_steps: int = Field(
        100, ge=0, description="steps after the break that are still checked, and more where the work rises on"
    )
    join: bool = Field(True, description="whether the checked frames join the data set; their labels count anyway")
    rupture_frames: int = Field(
        12, ge=0, description="structures around the committee's own rupture that are labelled for training"
    )
    rupture: RuptureConfig = RuptureConfig.model_validate({})
    minimum_energy_path: PathConfig | None = Field(
        None,
        description="relax a minimum-energy path (nudged elastic band) on the committee's surface between the minima "
        "before and after the path's event, e.g. {images: 9}; {} takes its defaults",
    )

    def check_against(self, config: Any) -> None:
        """Refuse more frames in the break than there are."""
        if self.break_frames > self.path_frames - 4:
            raise Misfit("break_frames", f"must leave 4 of the {self.path_frames} path_frames for before and after")


def path_frames(
    numbers: NDArray[np.int64], trajectory: Trajectory, count: int, in_break: int, beyond: int
) -> NDArray[np.int64]:
    """Rows of a trajectory to be checked, in order, the first row always among them.

    ``in_break`` rows lie within the break. Of the others two thirds lie before it, every second of them in the last
    tenth of the way, and a third after it, up to `last_row`. Without an event they are spread evenly.

    Parameters
    ----------
    numbers : [N] atomic numbers.
    trajectory : the pull.
    count : rows in all; fewer come back where the trajectory has fewer.
    in_break : rows within the break.
    beyond : steps after the break that count as its aftermath.
    """
    last = len(trajectory) - 1
    event = find_event(numbers, trajectory.positions)
    if event is None or last < count:
        return _spread(0, last, min(count, last + 1), ())
    final = last_row(trajectory, event, beyond)
    after = min((count - in_break) // 3, final - event.end)
    chosen = _spread(event.onset, event.end, in_break, ())
    chosen = np.union1d(chosen, _spread(event.end + 1, final, after, chosen))
    near = (count - len(chosen)) // 2
    chosen = np.union1d(chosen, _spread(int(0.9 * event.onset), event.onset - 1, near, chosen))
    chosen = np.union1d(chosen, [0])
    return np.union1d(chosen, _spread(0, event.onset - 1, count - len(chosen), chosen)).astype(np.int64)


def thermal_frames(cv: Array, count: int) -> NDArray[np.int64]:
    """Rows of a thermal trajectory to be checked, in order: as evenly along its collective variable as it went there.

    Parameters
    ----------
    cv : [T] collective variable.
    count : rows in all; fewer come back where the trajectory has fewer.
    """
    rows = np.arange(len(cv))
    if len(cv) <= count:
        return rows
    stretch = bins(cv, count)
    taken: list[int] = []
    # of every stretch the row in the middle of its visits; what empty stretches leave over goes where rows are many
    for part in np.unique(stretch):
        visits = rows[stretch == part]
        taken.append(int(visits[len(visits) // 2]))
    return np.union1d(taken, _spread(0, len(cv) - 1, count - len(taken), taken)).astype(np.int64)


def bins(cv: Array, count: int) -> NDArray[np.int64]:
    """Which of ``count`` equal stretches between the smallest and the largest value each value is in."""
    low, high = float(cv.min()), float(cv.max())
    place = (cv - low) / max(high - low, 1e-12) * count
    found: NDArray[np.int64] = np.minimum(place.astype(np.int64), count - 1)
    return found


def _spread(first: int, last: int, count: int, taken: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """At most ``count`` rows between ``first`` and ``last``, evenly, none of those already taken."""
    free = np.setdiff1d(np.arange(first, last + 1), np.asarray(taken, dtype=np.int64))
    if count < 1 or not len(free):
        return np.empty(0, dtype=np.int64)
    places = np.linspace(0, len(free) - 1, min(count, len(free))).round().astype(np.int64)
    return free[np.unique(places)]


def broken_bond(numbers: NDArray[np.int64], trajectory: Trajectory) -> tuple[int, int] | None:
    """The bond that decides the trajectory's event, atoms counted from 1; None if there is no event."""
    event = find_event(numbers, trajectory.positions)
    return None if event is None else (event.pair[0] + 1, event.pair[1] + 1)


def build(config: Config) -> Config:
    """The check is plain functions; its configuration is all there is to build."""
    return config
