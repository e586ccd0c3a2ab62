"""The distance between two points, each an atom or the centre of mass of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from rareal.cv.base import Group, Point, Variable, atom_groups, block, group
from rareal.cv.points import PointsSection
from rareal.records import Array, Frame


class Config(PointsSection):
    """A distance between two atoms or centres of mass, taken through space and not through periodic images."""

    points: ClassVar[int] = 2
    what: ClassVar[str] = "a distance"
    shown: ClassVar[str] = "Distance between"

    kind: Literal["distance"] = "distance"

    @property
    def unit(self) -> str:
        """Å."""
        return Distance.unit


@dataclass(frozen=True)
class Distance(Variable):
    """Distance between two points, Å.

    Parameters
    ----------
    points : two atoms, counted from 0, or groups.
    name : what Colvars calls it.
    """

    points: tuple[Point, Point]
    name: str = "cv"
    label: str = "distance"

    unit = "Å"
    lammps_names = ("cv_first", "cv_second")

    @property
    def groups(self) -> tuple[Group, Group]:
        """Both points as groups."""
        return group(self.points[0]), group(self.points[1])

    @property
    def ends(self) -> tuple[int, int] | None:
        """The two atoms, from 0; None where a point is the centre of several."""
        first, second = (item.atoms for item in self.groups)
        return (first[0], second[0]) if len(first) == len(second) == 1 else None

    def value(self, positions: Array) -> Array:
        """Distances [...] in Å for unwrapped positions [..., N, 3] in Å."""
        first, second = self.groups
        length: Array = np.linalg.norm(second.centre(positions) - first.centre(positions), axis=-1)
        return length

    def lammps_groups(self) -> str:
        """LAMMPS groups of the two ends, named as in ``lammps_names``."""
        return "\n".join(
            f"group {name} id {item.numbers()}" for name, item in zip(self.lammps_names, self.groups, strict=True)
        )

    def lammps_variable(self, name: str = "cv") -> str:
        """LAMMPS equal-style variable ``name``; group centres are unwrapped, so box edges do not matter."""
        first, second = self.lammps_names
        squares = "+".join(f"(xcm({second},{axis})-xcm({first},{axis}))^2" for axis in "xyz")
        return f'variable {name} equal "sqrt({squares})"'

    def component(self, coefficient: float = 1.0) -> str:
        """The Colvars component."""
        scale = [] if coefficient == 1.0 else [f"componentCoeff {coefficient:.15g}"]
        return block("distance", *scale, "forceNoPBC yes", atom_groups(self.groups))

    def colvars(self) -> str:
        """The ``colvar`` block."""
        return block("colvar", f"name {self.name}", self.component())


def build(config: Config, start: Frame | None = None, name: str = "cv") -> Distance:
    """The distance that ``config`` describes."""
    first, second = config.build_groups(start)
    return Distance((first, second), name, config.label)
