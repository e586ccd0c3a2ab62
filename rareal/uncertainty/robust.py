"""Median and MAD instead of mean and σ: a few wild frames at the start of the drive do not raise the threshold.

μ + kσ breaks down with one frame: a single std of 100 eV among 1000 of 0.01 eV makes it ten eV, and nothing is new any
more. Median and MAD (the median distance from the median) stay where they are until half of the window is wild.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from rareal.records import Array
from rareal.uncertainty.base import WindowRule, WindowSettings


class Config(WindowSettings):
    """The threshold median + k·MAD over a window at the start of the drive."""

    kind: Literal["robust"] = "robust"
    mads: float = Field(4.45, gt=0, description="k in median + k·MAD; 4.45 MAD of a normal distribution are its 3σ")


class RobustRule(WindowRule):
    """Median + k·MAD of the scores in the window."""

    config: Config

    def of(self, values: Array) -> float:
        """See `WindowRule.of`."""
        middle = float(np.median(values))
        return middle + self.config.mads * float(np.median(np.abs(values - middle)))


def build(config: Config, start: Any) -> RobustRule:
    """The threshold that ``config`` describes."""
    return RobustRule(config, len(start.numbers))
