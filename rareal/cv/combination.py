"""Difference and linear combination of distances: transfers, exchanges, concerted bonds.

The distances are those of `rareal.cv.distance` between two atoms each, through space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from rareal.cv.base import AtomId, Variable, VariableSection, block, disjoint
from rareal.cv.distance import Distance
from rareal.records import Array

Pair = tuple[AtomId, AtomId]


class PairsSection(VariableSection):
    """``pairs`` of atoms whose distances are added up."""

    pairs: tuple[Pair, ...] = Field(description="pairs of atoms, numbered from 1, e.g. [[1, 9], [5, 9]]")

    @field_validator("pairs")
    @classmethod
    def _different(cls, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        seen: set[frozenset[int]] = set()
        for pair in pairs:
            disjoint([pair], "a distance needs two different atoms")
            if frozenset(pair) in seen:
                raise ValueError(f"the pair {list(pair)} is named twice; name every distance once")
            seen.add(frozenset(pair))
        return pairs

    @property
    def unit(self) -> str:
        """Å."""
        return Combination.unit

    def factors(self) -> tuple[float, ...]:
        """The coefficient of each distance."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """The sum, as a formula."""
        return formula(self.pairs, self.factors())

    def atom_keys(self) -> Iterator[tuple[str, Iterable[int]]]:
        """All atoms of the pairs."""
        yield "pairs", (atom for pair in self.pairs for atom in pair)


class DifferenceConfig(PairsSection):
    """The first distance minus the second: donor-proton minus acceptor-proton of a proton transfer, for instance."""

    kind: Literal["difference"] = "difference"
    pairs: Annotated[tuple[Pair, ...], Field(min_length=2, max_length=2)] = Field(
        description="the two pairs of atoms, numbered from 1, e.g. [[1, 9], [5, 9]]"
    )

    def factors(self) -> tuple[float, ...]:
        """1 and -1."""
        return 1.0, -1.0


class CombinationConfig(PairsSection):
    """A sum of distances, each times its coefficient."""

    kind: Literal["combination"] = "combination"
    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)] = Field(
        description="pairs of atoms, numbered from 1, e.g. [[1, 9], [5, 9]]"
    )
    coefficients: tuple[float, ...] = Field(description="the factor of each pair's distance, e.g. [1, -1]")

    @field_validator("coefficients")
    @classmethod
    def _none_is_zero(cls, coefficients: tuple[float, ...]) -> tuple[float, ...]:
        if 0.0 in coefficients:
            raise ValueError("a distance times zero is none; leave the pair out")
        return coefficients

    @model_validator(mode="after")
    def _one_for_each(self) -> CombinationConfig:
        if len(self.coefficients) != len(self.pairs):
            raise ValueError(
                f"there are {len(self.pairs)} pairs and {len(self.coefficients)} coefficients; give one for each"
            )
        return self

    def factors(self) -> tuple[float, ...]:
        """As they are given."""
        return self.coefficients


@dataclass(frozen=True)
class Combination(Variable):
    """Sum over distances times coefficients, Å.

    Parameters
    ----------
    pairs : atoms of each distance, counted from 0.
    coefficients : one for each pair.
    name : what Colvars calls it.
    """

    pairs: tuple[tuple[int, int], ...]
    coefficients: tuple[float, ...]
    name: str = "cv"
    label: str = "combination of distances"

    unit = "Å"

    def value(self, positions: Array) -> Array:
        """Sums [...] in Å for unwrapped positions [..., N, 3] in Å."""
        lengths = [Distance(pair).value(positions) for pair in self.pairs]
        total: Array = np.tensordot(np.array(self.coefficients), np.array(lengths), axes=1)
        return total

    def colvars(self) -> str:
        """The ``colvar`` block: Colvars adds up the components of a variable."""
        parts = (Distance(pair).component(c) for pair, c in zip(self.pairs, self.coefficients, strict=True))
        return block("colvar", f"name {self.name}", *parts)


def formula(pairs: Sequence[tuple[int, int]], coefficients: Sequence[float]) -> str:
    """``d(1,9) - d(5,9)``, ``2 d(1,2) + 0.5 d(3,4)``."""
    text = ""
    for (first, second), factor in zip(pairs, coefficients, strict=True):
        size = "" if abs(factor) == 1 else f"{abs(factor):g} "
        sign = "-" if factor < 0 else "+"
        text += f" {sign} {size}d({first},{second})"
    return text.removeprefix(" + ").lstrip().replace("- ", "-", 1 if coefficients[0] < 0 else 0)


def build(config: DifferenceConfig | CombinationConfig, name: str = "cv") -> Combination:
    """The combination that ``config`` describes."""
    pairs = tuple((first - 1, second - 1) for first, second in config.pairs)
    return Combination(pairs, config.factors(), name, config.label)
