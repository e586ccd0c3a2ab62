"""The coordination number between two groups, with a rational switching function.

In a periodic structure pairs count through the nearest image, in the cell of the starting structure, as Colvars does it
in LAMMPS: a molecule on a slab must not lose its neighbours by crossing a face of the cell. All other variables are
taken through space. Where a barostat changes the cell, the value that LAMMPS has differs for pairs across a face.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, StrictInt, field_validator

from rareal.cv.base import AtomIds, Group, Variable, VariableSection, atom_groups, block, disjoint, named
from rareal.records import Array, Frame
from rareal.schema import Misfit
from rareal.units import Length

Exponent = Annotated[StrictInt, Field(ge=2)]


class Config(VariableSection):
    """Sum over pairs of (1 - x^n) / (1 - x^m) with x = r / r0: about 1 for a neighbour, 0 for what is far."""

    kind: Literal["coordination"] = "coordination"
    groups: tuple[AtomIds, AtomIds] = Field(
        description="two groups of atoms, numbered from 1; all pairs between them count, e.g. [[9], [1, 5]]"
    )
    r0: Length = Field(gt=0, description="distance at which a pair counts n/m, one half by default, Å")
    exponents: tuple[Exponent, Exponent] = Field((6, 12), description="n and m, even, m the larger one")

    @field_validator("groups")
    @classmethod
    def _no_self(cls, groups: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        disjoint(groups, "an atom is no neighbour of itself")
        return groups

    @field_validator("exponents")
    @classmethod
    def _even(cls, exponents: tuple[int, int]) -> tuple[int, int]:
        if any(n % 2 for n in exponents) or exponents[1] <= exponents[0]:
            raise ValueError("give two even numbers, the larger one second, e.g. [6, 12]")
        return exponents

    @property
    def unit(self) -> str:
        """None: it is a count."""
        return ""

    @property
    def label(self) -> str:
        """Which groups."""
        first, second = map(named, self.groups)
        return f"Coordination number between {first} and {second}"

    def atom_keys(self) -> Iterator[tuple[str, Iterable[int]]]:
        """The atoms of both groups."""
        yield "groups", (atom for atoms in self.groups for atom in atoms)

    def check_against(self, config: Any) -> None:
        """Refuse atoms that there are not, and a cell whose nearest images LAMMPS would find otherwise."""
        super().check_against(config)
        frame = config.frame
        if any(frame.pbc) and np.abs(np.triu(frame.cell, k=1)).max() > 1e-9:
            raise Misfit(
                "groups",
                "nearest images need a cell with its first vector along x and the second in the xy plane, as LAMMPS "
                "does; rotate the structure, e.g. with ase.Atoms.standard_form",
            )


@dataclass(frozen=True)
class Coordination(Variable):
    """Coordination number between two groups.

    Parameters
    ----------
    first, second : atoms of the groups, counted from 0.
    r0 : Å.
    exponents : n and m.
    cell : [3][3] lattice vectors in rows, Å; pbc : [3] the periodic directions.
    name : what Colvars calls it.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    r0: float
    exponents: tuple[int, int] = (6, 12)
    cell: tuple[tuple[float, ...], ...] = ((0.0, 0.0, 0.0),) * 3
    pbc: tuple[bool, bool, bool] = (False, False, False)
    name: str = "cv"
    label: str = "coordination number"

    unit = ""

    def value(self, positions: Array) -> Array:
        """Coordination numbers [...] for positions [..., N, 3] in Å."""
        total: Array = np.zeros(positions.shape[:-2])
        for atom in self.first:  # one at a time: the pairs of a trajectory with a slab fill the memory
            separation = positions[..., list(self.second), :] - positions[..., [atom], :]
            square = (self._nearest(separation) ** 2).sum(axis=-1) / self.r0**2
            total = total + switching(square, *self.exponents).sum(axis=-1)
        return total

    def _nearest(self, separation: Array) -> Array:
        """Separations [..., 3] to the nearest image, in the order in which LAMMPS folds a tilted cell."""
        for axis in (2, 1, 0):
            if self.pbc[axis]:
                vector = np.array(self.cell[axis])
                separation = separation - np.rint(separation[..., [axis]] / vector[axis]) * vector
        return separation

    def colvars(self) -> str:
        """The ``colvar`` block."""
        component = block(
            "coordNum",
            f"cutoff {self.r0:.15g}",
            f"expNumer {self.exponents[0]}",
            f"expDenom {self.exponents[1]}",
            atom_groups([Group(atoms, ()) for atoms in (self.first, self.second)]),
        )
        return block("colvar", f"name {self.name}", component)


def switching(square: Array, n: int, m: int) -> Array:
    """(1 - x^n) / (1 - x^m) of x² = ``square``, divided by 1 - x² so that x = 1 needs no care."""
    near = np.minimum(square, 1.0)
    # of the inverse where x > 1: high powers of far pairs would overflow
    inverse = 1.0 / np.maximum(square, 1.0)
    inside = _powers(near, n // 2) / _powers(near, m // 2)
    outside = inverse ** ((m - n) // 2) * _powers(inverse, n // 2) / _powers(inverse, m // 2)
    ratio: Array = np.where(square <= 1.0, inside, outside)
    return ratio


def _powers(x: Array, count: int) -> Array:
    """1 + x + ... + x^(count - 1)."""
    total = np.ones_like(x)
    for _ in range(count - 1):
        total = total * x + 1.0
    return total


def build(config: Config, start: Frame | None = None, name: str = "cv") -> Coordination:
    """The coordination number that ``config`` describes."""
    first, second = (tuple(atom - 1 for atom in atoms) for atoms in config.groups)
    variable = Coordination(first, second, config.r0, config.exponents, name=name, label=config.label)
    if start is None or not any(start.pbc):
        return variable
    cell = tuple(tuple(map(float, row)) for row in start.cell)
    return Coordination(first, second, config.r0, config.exponents, cell, start.pbc, name, config.label)
