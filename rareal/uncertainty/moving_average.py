"""The threshold that follows the dynamics: a scaled moving average of the scores, aims-PAX equation 2.

δ_t = (1 + c_x) / N Σ δ_n over the N last scores before t, N at most 400, as in VASP's on-the-fly learning. It falls as
the committee improves, so that some frames are always above it; it can be frozen once there are enough data.

aims-PAX meets one frame after the other. Where whole trajectories are judged at once, every row is compared with the
scores before it: those of earlier time steps, of all walkers that share the threshold. A slow rise of the score, as
along a pull, is above its own recent past nearly everywhere; this rule is meant for dynamics that stays in a region for
long, thermal or with metadynamics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rareal.errors import SamplingError
from rareal.records import Array, Evidence
from rareal.uncertainty.base import NO_EVIDENCE, Level, Rule, Series, Settings


class Config(Settings):
    """(1 + c_x) times the mean of the last scores."""

    kind: Literal["moving_average"] = "moving_average"
    window: int = Field(400, ge=1, description="N, how many of the last scores are averaged; 400 in VASP and aims-PAX")
    c_x: float = Field(
        0.0, gt=-1, description="c_x of equation 2: above 0 fewer frames are labelled, below 0 more; try -0.1 to 0.1"
    )
    freeze_at: int | None = Field(
        None, ge=1, description="labelled frames from which on the threshold stays as it was; never if not given"
    )


class MovingAverageRule(Rule):
    """Equation 2 of aims-PAX."""

    config: Config

    def level(self, pool: Sequence[Series], evidence: Evidence) -> float:
        """The average at the end of the drives."""
        values = _in_time(pool)[1]
        if len(values) == 0:
            raise SamplingError(
                "no finite score in any trajectory: the committee failed at the start structure; see the round's "
                "sample folder"
            )
        return self.average(values)

    def average(self, values: Array) -> float:
        """Equation 2 for finite scores in the order of time."""
        return float((1 + self.config.c_x) * values[-self.config.window :].mean())

    def levels(self, pool: Sequence[Series], evidence: Evidence) -> list[Level]:
        """See `Rule.levels`; the threshold moves along the trajectories unless it is frozen."""
        if self.frozen(evidence):
            known = evidence.thresholds
            typical = float(np.median(list(known.values())))
            note = f"threshold frozen, since the committee learns from {evidence.frames} frames"
            return [Level(known.get(one.walker, typical), note=note) for one in pool]
        value = self.level(pool, evidence)
        steps, values = _in_time(pool)
        sums = np.concatenate([[0.0], np.cumsum(values)])
        found = []
        for one in pool:
            # scores of the same instant are not yet known to each other
            before = np.searchsorted(steps, one.steps, side="left")
            first = np.maximum(0, before - self.config.window)
            mean = (sums[before] - sums[first]) / np.maximum(1, before - first)
            found.append(Level(value, np.where(before > 0, (1 + self.config.c_x) * mean, np.inf)))
        return found

    def frozen(self, evidence: Evidence) -> bool:
        """Whether the last round's threshold holds."""
        enough = self.config.freeze_at is not None and evidence.frames >= self.config.freeze_at
        return enough and len(evidence.thresholds) > 0

    def running(self, history: Array, evidence: Evidence | None = None) -> float:
        """See `Rule.running`; infinite before there is a score."""
        evidence = evidence or NO_EVIDENCE
        if self.frozen(evidence):
            return float(np.median(list(evidence.thresholds.values())))
        values = self._counted(np.asarray(history, dtype=np.float64))
        values = values[np.isfinite(values)]
        return self.average(values) if len(values) else np.inf


def _in_time(pool: Sequence[Series]) -> tuple[Array, Array]:
    """Steps and finite scores of all walkers, in the order of the steps."""
    steps = np.concatenate([np.empty(0), *(one.steps for one in pool)])
    values = np.concatenate([np.empty(0), *(one.score for one in pool)])
    keep = np.isfinite(values)
    order = np.argsort(steps[keep], kind="stable")
    return steps[keep][order], values[keep][order]


def build(config: Config, start: Any) -> MovingAverageRule:
    """The threshold that ``config`` describes."""
    return MovingAverageRule(config, len(start.numbers))
