"""A threshold that the user sets: for a label budget that is known, or to compare runs frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from rareal.records import Array, Evidence
from rareal.uncertainty.base import Rule, Series, Settings, parse_score


class Config(Settings):
    """The same threshold in every round."""

    kind: Literal["fixed"] = "fixed"
    threshold: float = Field(gt=0, description="score above which a frame is worth a label, eV, or eV/Å for forces")

    @field_validator("threshold", mode="before")
    @classmethod
    def _threshold_in_the_unit_of_the_score(cls, value: Any, info: ValidationInfo) -> Any:
        return parse_score(value, info.data.get("score", ""))

    @field_validator("threshold")
    @classmethod
    def _below_the_limit(cls, value: float, info: ValidationInfo) -> float:
        limit = info.data.get("limit")
        if limit is not None and value >= limit:
            raise ValueError(f"nothing lies between this threshold and the upper limit ({limit:g}); raise `limit`")
        return value


class FixedRule(Rule):
    """The threshold of the YAML."""

    config: Config

    def level(self, pool: Sequence[Series], evidence: Evidence) -> float:
        """See `Rule.level`."""
        return self.config.threshold

    def running(self, history: Array, evidence: Evidence | None = None) -> float:
        """See `Rule.running`."""
        return self.config.threshold


def build(config: Config, start: Any) -> FixedRule:
    """The threshold that ``config`` describes."""
    return FixedRule(config, len(start.numbers))
