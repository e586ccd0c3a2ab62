"""What counts as new: the energy std against its own size where the committee is at home.

Rare-events paper, 2.3.2: the threshold is μ + 3σ of the committee's energy std over the first 1000 steps of the pull,
not an absolute value, since the std of one and the same frame changes as data are added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from rareal.errors import SamplingError
from rareal.records import Evidence, Judged, Trajectory
from rareal.schema import Section


class Config(Section):
    """The threshold μ + kσ over a window at the start of the drive."""

    window: int = Field(1000, ge=1, description="Time steps at the start of the drive that give μ and σ.")
    sigmas: float = Field(3.0, gt=0, description="k in μ + kσ.")


def threshold(trajectories: Sequence[Trajectory], config: Config) -> float:
    """μ + kσ [eV] over the first ``config.window`` steps of all trajectories together.

    Raises
    ------
    SamplingError
        If no finite value lies in the window.
    """
    values = np.concatenate([t.energy_std[t.steps < config.window] for t in trajectories] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        raise SamplingError(
            f"no finite energy std within the first {config.window} steps of the drive: the committee failed at the "
            "start structure; see the round's sample folder"
        )
    return float(values.mean() + config.sigmas * values.std())


class Threshold:
    """`Uncertainty` by the energy std."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def judge(self, trajectories: Sequence[Trajectory], evidence: Evidence | None = None) -> list[Judged]:
        """The trajectories as they are, with one threshold for all."""
        limit = threshold(trajectories, self.config)
        return [Judged(t, t.energy_std, limit) for t in trajectories]


def build(config: Config) -> Threshold:
    return Threshold(config)
