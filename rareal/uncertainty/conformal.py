"""A threshold with a stated false-negative rate: split-conformal prediction against labelled frames.

Take the n labelled frames whose true error exceeds the tolerance, with scores s_1 ≤ … ≤ s_n, and k = ⌊α (n + 1)⌋. The
threshold is just below s_k, so that s_k itself counts as above. **Guarantee**: let a new frame whose error exceeds the
tolerance be exchangeable with those n frames (drawn as they were, and the committee trained on none of them). Then

    P(the new frame's score is at or below the threshold) ≤ k / (n + 1) ≤ α,

whatever the distribution of scores and errors, and however badly the score follows the error: with a score that
means nothing the threshold just becomes low. (The new score is below s_k only if it ranks among the k lowest of n + 1,
and all ranks are equally likely. n + 1 instead of n is the correction for the finite sample.)

What it does not say: the probability is over the draw of the labelled frames as well; for one given set the rate
scatters about it as Beta(k, n + 1 - k), with a standard deviation of about √(α (1 - α) / n). Nothing is said of frames
within the tolerance, and nothing once the frames met are not like the labelled ones: those chosen *because* of their
score are no sample of what the dynamics meets, the frames of the path check, taken along the path whatever their score,
are. Give the latter as `Evidence`, with the errors before the committee learns from them.

k is at least 1 only where n ≥ 1/α - 1 (9 frames for α = 0.1). With fewer, the rule is that of
`rareal.uncertainty.threshold`, and `Judged.note` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from rareal.records import Array, Evidence
from rareal.uncertainty.base import NO_EVIDENCE, UNITS, Level, Series, WindowRule, WindowSettings, parse_score
from rareal.uncertainty.threshold import mean_and_sigmas

ROUNDING = 1e-9
"""So that 0.29 of 100 frames are 29 of them and not 28."""


class Config(WindowSettings):
    """At most a given share of the frames that are really wrong stays below the threshold."""

    kind: Literal["conformal"] = "conformal"
    tolerance: float = Field(
        gt=0, description="true error above which a frame must not be missed, in the unit of the score: eV or eV/Å"
    )
    miss_rate: float = Field(
        0.1, gt=0, lt=1, description="α, the share of frames with a larger error that may be missed"
    )
    sigmas: float = Field(3.0, gt=0, description="k of the rule μ + kσ that holds while there is too little evidence")

    @field_validator("tolerance", mode="before")
    @classmethod
    def _tolerance_in_the_unit_of_the_score(cls, value: Any, info: ValidationInfo) -> Any:
        return parse_score(value, info.data.get("score", ""))

    @property
    def needed(self) -> int:
        """Labelled frames with an error above the tolerance that it takes."""
        return math.ceil(1 / self.miss_rate - ROUNDING) - 1


class ConformalRule(WindowRule):
    """Split-conformal threshold, μ + kσ while there is too little evidence."""

    config: Config

    def of(self, values: Array) -> float:
        """See `WindowRule.of`."""
        return mean_and_sigmas(values, self.config.sigmas)

    def levels(self, pool: Sequence[Series], evidence: Evidence) -> list[Level]:
        """See `Rule.levels`; with enough evidence all walkers have the same threshold."""
        wrong = self.wrong(evidence)
        value = conformal(wrong, self.config.miss_rate)
        if value is not None:
            return [Level(value)] * len(pool)
        unit = UNITS[self.config.score].replace("angstrom", "Å")
        note = (
            f"{len(wrong)} labelled frames have an error above {self.config.tolerance:g} {unit}, a conformal threshold "
            f"needs {self.config.needed}: the threshold is μ + {self.config.sigmas:g}σ"
        )
        return [Level(self.level(pool, evidence), note=note)] * len(pool)

    def wrong(self, evidence: Evidence) -> Array:
        """Scores of the labelled frames whose error exceeds the tolerance."""
        score, error = self.known(evidence)
        return score[error > self.config.tolerance]

    def running(self, history: Array, evidence: Evidence | None = None) -> float:
        """See `Rule.running`."""
        value = conformal(self.wrong(evidence or NO_EVIDENCE), self.config.miss_rate)
        return super().running(history, evidence) if value is None else value


def conformal(scores: Array, rate: float) -> float | None:
    """The threshold for the scores [n] of frames that must not be missed; None where n is too small for ``rate``."""
    rank = min(len(scores), math.floor(rate * (len(scores) + 1) + ROUNDING))
    if rank < 1:
        return None
    # a frame is missed at or below the threshold: this one must not be
    return float(np.nextafter(np.sort(scores)[rank - 1], -np.inf))


def build(config: Config, start: Any) -> ConformalRule:
    """The threshold that ``config`` describes."""
    return ConformalRule(config, len(start.numbers))
