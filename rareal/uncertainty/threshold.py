"""What counts as new: the score against its own size where the committee is at home.

Rare-events paper, 2.3.2: the threshold is μ + 3σ of the committee's energy std over the first 1000 steps of the pull,
not an absolute value, since the std of one and the same frame changes as data are added.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rareal.records import Array
from rareal.uncertainty.base import WindowRule, WindowSettings


class Config(WindowSettings):
    """The threshold μ + kσ over a window at the start of the drive."""

    kind: Literal["threshold"] = "threshold"
    sigmas: float = Field(3.0, gt=0, description="k in μ + kσ")


class ThresholdRule(WindowRule):
    """μ + kσ of the scores in the window."""

    config: Config

    def of(self, values: Array) -> float:
        """See `WindowRule.of`."""
        return mean_and_sigmas(values, self.config.sigmas)


def mean_and_sigmas(values: Array, sigmas: float) -> float:
    """μ + kσ, with the σ of a population."""
    return float(values.mean() + sigmas * values.std())


def build(config: Config, start: Any) -> ThresholdRule:
    """The threshold that ``config`` describes."""
    return ThresholdRule(config, len(start.numbers))
