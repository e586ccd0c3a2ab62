"""The paper's own selection (rare-events paper, 2.3.3): above the threshold, and apart in CV and energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from rareal.records import Judged
from rareal.schema import Section
from rareal.units import KCAL_MOL, Energy


class Config(Section):
    """Step by step along each trajectory, a frame must differ from the last chosen one in CV and in energy."""

    kind: Literal["paper"] = "paper"
    count: int = Field(50, ge=1, description="Most frames chosen per round, before noise copies; 50 in the paper.")
    cv_spacing: float = Field(
        0.01, ge=0, description="Smallest difference in the CV (its own unit); 0.01 Å in the paper."
    )
    energy_spacing: Energy = Field(
        KCAL_MOL, ge=0, description="Smallest difference in energy, eV; 1 kcal/mol in the paper."
    )


class PaperSelector:
    """`Selector` of section 2.3.3."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def select(self, judged: Sequence[Judged], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Frames above the threshold in time order, trajectory by trajectory, until ``count`` are found."""
        chosen: list[tuple[int, int]] = []
        for k, item in enumerate(judged):
            trajectory, last = item.trajectory, None
            for row in np.nonzero(item.worthwhile)[0]:
                if last is not None and not (
                    abs(trajectory.cv[row] - trajectory.cv[last]) > self.config.cv_spacing
                    and abs(trajectory.energy[row] - trajectory.energy[last]) > self.config.energy_spacing
                ):
                    continue
                if len(chosen) == min(count, self.config.count):
                    return chosen
                chosen.append((k, int(row)))
                last = int(row)
        return chosen


def build(config: Config) -> PaperSelector:
    return PaperSelector(config)
