"""ANI: Behler–Parrinello descriptors and one network per element (rare-events paper, section 2.3.1 and Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ase.data import atomic_numbers
from pydantic import Field, field_validator

from rareal.schema import Section

if TYPE_CHECKING:
    from rareal.models.ani_network import ANI


class Config(Section):
    """ANI networks on ANI-2x descriptors."""

    kind: Literal["ani"] = "ani"
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


def build(config: Config, elements: Sequence[str], seeds: Sequence[int]) -> ANI:
    """A committee with one member per seed, untrained."""
    from rareal.models.ani_network import ANI

    return ANI(elements, seeds, config.hidden)
