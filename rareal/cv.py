"""The collective variable, defined once: its NumPy value and the same thing as LAMMPS and Colvars text.

Samplers put the text into their scripts, screening and plots take the value; the tests hold them against each other.
Atoms are numbered from 1 in the YAML and in LAMMPS, from 0 in Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field, StrictInt, model_validator

from rareal.records import Array
from rareal.schema import Misfit, Section

AtomId = Annotated[StrictInt, Field(ge=1)]


class Config(Section):
    """A distance between two atoms, taken through space and not through periodic images."""

    kind: Literal["distance"] = "distance"
    atoms: tuple[AtomId, AtomId] = Field(description="the two atoms, numbered from 1 as in the structure file")

    @model_validator(mode="after")
    def _two_atoms(self) -> Config:
        if self.atoms[0] == self.atoms[1]:
            raise ValueError(f"atoms: a distance needs two different atoms, not {self.atoms[0]} twice")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse atoms that the structure does not have."""
        count = len(config.frame.numbers)
        for atom in self.atoms:
            if atom > count:
                raise Misfit("atoms", f"there is no atom {atom} in the structure; number the atoms 1 to {count}")


class Variable(Protocol):
    """A collective variable: what samplers, screening and plots need of it."""

    name: str
    unit: str
    label: str
    period: float | None

    @property
    def ends(self) -> tuple[int, int] | None:
        """The two atoms, from 0, of a plain distance between two atoms; else None."""
        ...

    def value(self, positions: Array) -> Array:
        """Values [...] for unwrapped positions [..., N, 3] in Å."""
        ...

    def colvars(self) -> str:
        """The ``colvar`` block of a Colvars configuration."""
        ...


@dataclass(frozen=True)
class Distance:
    """Distance between two atoms, Å.

    Parameters
    ----------
    atoms : the two atoms, counted from 0.
    """

    atoms: tuple[int, int]

    name = "cv"
    unit = "Å"
    label = "distance"
    period = None
    groups = ("cv_first", "cv_second")

    @property
    def ends(self) -> tuple[int, int]:
        """The two atoms, counted from 0."""
        return self.atoms

    def value(self, positions: Array) -> Array:
        """Distances [...] in Å for unwrapped positions [..., N, 3] in Å."""
        separation = positions[..., self.atoms[1], :] - positions[..., self.atoms[0], :]
        length: Array = np.linalg.norm(separation, axis=-1)
        return length

    def lammps_groups(self) -> str:
        """LAMMPS groups of the two ends, named as in ``groups``."""
        return "\n".join(f"group {name} id {atom + 1}" for name, atom in zip(self.groups, self.atoms, strict=True))

    def lammps_variable(self) -> str:
        """LAMMPS equal-style variable ``cv``; group centres are unwrapped, so box edges do not matter."""
        first, second = self.groups
        squares = "+".join(f"(xcm({second},{axis})-xcm({first},{axis}))^2" for axis in "xyz")
        return f'variable {self.name} equal "sqrt({squares})"'

    def colvars(self) -> str:
        """The ``colvar`` block of a Colvars configuration."""
        first, second = (atom + 1 for atom in self.atoms)
        return "\n".join(
            [
                "colvar {",
                f"  name {self.name}",
                "  distance {",
                "    forceNoPBC yes",
                "    group1 {",
                f"      atomNumbers {first}",
                "    }",
                "    group2 {",
                f"      atomNumbers {second}",
                "    }",
                "  }",
                "}",
            ]
        )


def build(config: Config) -> Distance:
    """The collective variable that ``config`` describes."""
    return Distance(atoms=(config.atoms[0] - 1, config.atoms[1] - 1))
