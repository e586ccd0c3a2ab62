"""ANI: Behler–Parrinello descriptors and one network per element (rare-events paper, section 2.3.1 and Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ase.data import atomic_numbers
from pydantic import Field, ValidationInfo, field_validator

from rareal.schema import Section
from rareal.units import Length

if TYPE_CHECKING:
    from rareal.models.ani_network import ANI


class Radial(Section):
    """Terms of an atom and one neighbour: Gaussians of their distance."""

    cutoff: Length = Field(default=5.1, gt=0.8, description="Reach, Å; nothing farther is seen.")
    eta: float = Field(default=19.7, gt=0, description="Sharpness, Å⁻².")
    shifts: int = Field(default=16, ge=1, description="Gaussians, spread evenly from 0.8 Å to the cutoff.")


class Angular(Section):
    """Terms of an atom and two neighbours: their mean distance times the angle between them."""

    cutoff: Length = Field(default=3.5, gt=0.8, description="Reach, Å, at most that of the radial terms.")
    eta: float = Field(default=12.5, gt=0, description="Sharpness in the mean distance, Å⁻².")
    zeta: float = Field(default=14.1, ge=1, description="Sharpness in the angle; more sections need more.")
    shifts: int = Field(default=8, ge=1, description="Gaussians, spread evenly from 0.8 Å to the cutoff.")
    sections: int = Field(default=4, ge=1, description="Angles, spread evenly over 180°.")


class Config(Section):
    """ANI networks on Behler-Parrinello descriptors, ANI-2x's unless `radial` and `angular` say otherwise."""

    kind: Literal["ani"] = "ani"
    radial: Radial = Field(default=Radial(), description="Descriptors of distances.")
    angular: Angular = Field(default=Angular(), description="Descriptors of angles.")
    hidden: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="Hidden layer sizes per element, e.g. {C: [224, 192, 160]}; ANI-2x's where not given.",
    )

    @field_validator("hidden")
    @classmethod
    def _known_elements(cls, hidden: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for element, sizes in hidden.items():
            if element not in atomic_numbers or element == "X":
                raise ValueError(f"'{element}' is no chemical element")
            if not sizes or min(sizes) < 1:
                raise ValueError(f"layer sizes of {element} must be positive whole numbers")
        return hidden

    @field_validator("angular")
    @classmethod
    def _within_reach(cls, angular: Angular, info: ValidationInfo) -> Angular:
        radial = info.data.get("radial")
        if radial is not None and angular.cutoff > radial.cutoff:
            raise ValueError(
                f"a cutoff of {angular.cutoff:g} Å is beyond the {radial.cutoff:g} Å of the radial terms; "
                "shorten it or lengthen that of the radial ones"
            )
        return angular


def build(config: Config, elements: Sequence[str], seeds: Sequence[int]) -> ANI:
    """A committee with one member per seed, untrained."""
    from rareal.models.ani_network import ANI

    return ANI(elements, seeds, config)
