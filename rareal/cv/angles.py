"""Angle and dihedral, in degrees, of three or four points, each an atom or the centre of mass of a group.

Both are taken through space and not through periodic images. An angle's gradient is singular where it is straight
(0 or 180 degrees), a dihedral's where three of its points are on a line: do not drive a variable through there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from rareal.cv.base import Point, Variable, atom_groups, block, group
from rareal.cv.points import PointsSection
from rareal.records import Array, Frame

DEGREES = "°"


class AngleConfig(PointsSection):
    """The angle at the second of three atoms or centres of mass, 0 to 180 degrees."""

    points: ClassVar[int] = 3
    what: ClassVar[str] = "an angle"
    shown: ClassVar[str] = "Angle of"

    kind: Literal["angle"] = "angle"

    @property
    def unit(self) -> str:
        """Degrees."""
        return DEGREES


class DihedralConfig(PointsSection):
    """The dihedral angle of four atoms or centres of mass, -180 to 180 degrees; 0 is cis."""

    points: ClassVar[int] = 4
    what: ClassVar[str] = "a dihedral angle"
    shown: ClassVar[str] = "Dihedral angle of"

    kind: Literal["dihedral"] = "dihedral"

    @property
    def unit(self) -> str:
        """Degrees."""
        return DEGREES


@dataclass(frozen=True)
class Angle(Variable):
    """Angle at the second of three points, degrees.

    Parameters
    ----------
    points : three atoms, counted from 0, or groups.
    name : what Colvars calls it.
    """

    points: tuple[Point, ...]
    name: str = "cv"
    label: str = "angle"

    unit = DEGREES

    def value(self, positions: Array) -> Array:
        """Angles [...] in degrees, 0 to 180, for unwrapped positions [..., N, 3] in Å."""
        first, middle, last = (group(point).centre(positions) for point in self.points)
        one, other = first - middle, last - middle
        # the arc cosine alone loses digits near 0 and 180 degrees
        sine = np.linalg.norm(np.cross(one, other), axis=-1)
        angle: Array = np.degrees(np.arctan2(sine, (one * other).sum(axis=-1)))
        return angle

    def colvars(self) -> str:
        """The ``colvar`` block."""
        component = block("angle", "forceNoPBC yes", atom_groups([group(point) for point in self.points]))
        return block("colvar", f"name {self.name}", component)


@dataclass(frozen=True)
class Dihedral(Variable):
    """Dihedral angle of four points, degrees, with the sign of IUPAC: positive is clockwise along the middle bond.

    Parameters
    ----------
    points : four atoms, counted from 0, or groups.
    name : what Colvars calls it.
    """

    points: tuple[Point, ...]
    name: str = "cv"
    label: str = "dihedral angle"

    unit = DEGREES
    period = 360.0

    def value(self, positions: Array) -> Array:
        """Dihedral angles [...] in degrees, -180 to 180, for unwrapped positions [..., N, 3] in Å."""
        first, second, third, fourth = (group(point).centre(positions) for point in self.points)
        before, axis, after = second - first, third - second, fourth - third
        near, far = np.cross(before, axis), np.cross(axis, after)
        sine = np.linalg.norm(axis, axis=-1) * (before * far).sum(axis=-1)
        angle: Array = np.degrees(np.arctan2(sine, (near * far).sum(axis=-1)))
        return angle

    def colvars(self) -> str:
        """The ``colvar`` block; Colvars itself knows the period."""
        component = block("dihedral", "forceNoPBC yes", atom_groups([group(point) for point in self.points]))
        return block("colvar", f"name {self.name}", component)


def build(config: AngleConfig | DihedralConfig, start: Frame | None = None, name: str = "cv") -> Variable:
    """The angle that ``config`` describes."""
    kind = Angle if isinstance(config, AngleConfig) else Dihedral
    return kind(config.build_groups(start), name, config.label)
