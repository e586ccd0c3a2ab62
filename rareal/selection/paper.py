"""The paper's own selection (rare-events paper, 2.3.3): above the threshold, and apart in CV and energy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rareal.cv import Variable
from rareal.records import Judged
from rareal.schema import Section
from rareal.selection.space import Space, Spacing, check_spacing
from rareal.units import KCAL_MOL, Energy


class Config(Section):
    """Step by step along each trajectory, a frame must differ from the last chosen one in CV and in energy."""

    kind: Literal["paper"] = "paper"
    count: int = Field(50, ge=1, description="Most frames chosen per round, before noise copies; 50 in the paper.")
    cv_spacing: Spacing = Field(
        None,
        description="Smallest difference in the CV (its own unit), one number or a list with one per CV; where not "
        "given 0.01 Å as in the paper, 1 degree, 0.01 without a unit.",
    )
    energy_spacing: Energy = Field(
        KCAL_MOL, ge=0, description="Smallest difference in energy, eV; 1 kcal/mol in the paper."
    )

    def check_against(self, config: Any) -> None:
        """Refuse spacings that do not go with the collective variables."""
        check_spacing(self.cv_spacing, config.cv)


class PaperSelector:
    """`Selector` of section 2.3.3. With several collective variables, at least one of them must differ.

    Parameters
    ----------
    config : its section.
    variables : the collective variables.
    """

    def __init__(self, config: Config, variables: Sequence[Variable] = ()) -> None:
        self.config = config
        self.space = Space(config.cv_spacing, variables)

    def select(self, judged: Sequence[Judged], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Frames worth a label in time order, trajectory by trajectory, until ``count`` are found."""
        chosen: list[tuple[int, int]] = []
        for k, item in enumerate(judged):
            trajectory, last = item.trajectory, None
            for row in np.nonzero(item.worthwhile)[0]:
                if last is not None and not (
                    self.space.differences(trajectory.cvs[row], trajectory.cvs[last]).max() > 1
                    and abs(trajectory.energy[row] - trajectory.energy[last]) > self.config.energy_spacing
                ):
                    continue
                if len(chosen) == min(count, self.config.count):
                    return chosen
                chosen.append((k, int(row)))
                last = int(row)
        return chosen


def build(config: Config, variables: Sequence[Variable] = ()) -> PaperSelector:
    """The selection that ``config`` describes."""
    return PaperSelector(config, variables)
