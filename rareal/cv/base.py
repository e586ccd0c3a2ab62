"""What every collective variable has: a name, a unit, a NumPy value and a Colvars block; and what their sections share.

A variable of your own is a module with a `Config` and a ``build(config, start, name)`` that returns a `Variable`.
Atoms are numbered from 1 in the YAML, in LAMMPS and in Colvars, from 0 in Python.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from ase.data import atomic_masses
from pydantic import Field, SerializerFunctionWrapHandler, StrictInt, field_validator, model_serializer

from rareal.records import Array, Frame
from rareal.schema import Misfit, Section

AtomId = Annotated[StrictInt, Field(ge=1)]
AtomIds = Annotated[tuple[AtomId, ...], Field(min_length=1)]

RESERVED = frozenset(
    ("step", "time", "temp", "work", "energy", "energy_std", "force_std", "force_std_max", "force_std_mean", "bias")
)
"""Columns of tables and variables of LAMMPS scripts that a collective variable must not hide."""

NAME = r"^[A-Za-z][A-Za-z0-9_]{0,31}$"
"""What LAMMPS, Colvars and the tables all take for a name."""


class Variable(ABC):
    """A collective variable.

    Attributes
    ----------
    name : what Colvars, LAMMPS and the tables call it.
    unit : of its value; empty for a pure number.
    label : what it is, in words, without the unit.
    period : None; 360.0 for an angle that wraps.
    """

    name: str
    unit: str = ""
    label: str = ""
    period: float | None = None

    @property
    def ends(self) -> tuple[int, int] | None:
        """The two atoms, from 0, of a plain distance between two atoms; None for everything else."""
        return None

    @property
    def axis(self) -> str:
        """Label and unit, for the axis of a plot."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @abstractmethod
    def value(self, positions: Array) -> Array:
        """Values [...] in ``unit`` for unwrapped positions [..., N, 3] in Å."""

    @abstractmethod
    def colvars(self) -> str:
        """The ``colvar`` block of a Colvars configuration; every brace ends or begins a line, as Colvars wants it."""


class VariableSection(Section):
    """The section of a collective variable: an optional name, and atoms that must exist."""

    name: Annotated[str, Field(pattern=NAME)] | None = Field(
        None, description="its name in Colvars, LAMMPS and tables; cv, or cv1, cv2, ... if not given"
    )

    @field_validator("name")
    @classmethod
    def _free(cls, name: str | None) -> str | None:
        if name in RESERVED:
            raise ValueError(f"'{name}' is the name of another column of the tables; give another one")
        return name

    @property
    def label(self) -> str:
        """What the variable is, in words."""
        raise NotImplementedError

    @property
    def unit(self) -> str:
        """The unit of its value."""
        raise NotImplementedError

    def atom_keys(self) -> Iterator[tuple[str, Iterable[int]]]:
        """Keys of this section that hold atoms, with all their atoms."""
        raise NotImplementedError

    def check_against(self, config: Any) -> None:
        """Refuse atoms that the structure does not have."""
        count = len(config.frame.numbers)
        for key, atoms in self.atom_keys():
            for atom in atoms:
                if atom > count:
                    raise Misfit(key, f"there is no atom {atom} in the structure; number the atoms 1 to {count}")

    @model_serializer(mode="wrap")
    def _without_empty_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # what is not given is no value: `groups: null` beside `atoms: [1, 6]` would only puzzle
        return {key: value for key, value in handler(self).items() if value is not None}


@dataclass(frozen=True)
class Group:
    """Some atoms, taken as the centre of their masses.

    Attributes
    ----------
    atoms : from 0.
    masses : of these atoms, amu; only their ratios matter.
    """

    atoms: tuple[int, ...]
    masses: tuple[float, ...]

    def centre(self, positions: Array) -> Array:
        """Centres of mass [..., 3] for positions [..., N, 3]."""
        if len(self.atoms) == 1:  # no rounding where there is nothing to average
            single: Array = positions[..., self.atoms[0], :]
            return single
        weights = np.array(self.masses) / np.sum(self.masses)
        centre: Array = np.einsum("k,...kd->...d", weights, positions[..., list(self.atoms), :])
        return centre

    def numbers(self) -> str:
        """The atoms as LAMMPS and Colvars count them."""
        return " ".join(str(atom + 1) for atom in self.atoms)


Point = int | Group
"""An atom, from 0, or a group."""


def group(point: Point) -> Group:
    """A group of one atom where an atom is given."""
    return point if isinstance(point, Group) else Group((point,), (1.0,))


def groups_of(points: Sequence[Sequence[int]], start: Frame | None) -> tuple[Group, ...]:
    """Groups of atoms counted from 1, with the masses that LAMMPS will have.

    Raises
    ------
    ValueError
        If a group has several atoms and there is no structure to take their masses from.
    """
    made = []
    for atoms in points:
        own = tuple(atom - 1 for atom in atoms)
        if start is None and len(own) > 1:
            raise ValueError("a centre of mass needs the masses of the structure: build(config, start)")
        masses = (1.0,) if start is None else tuple(float(atomic_masses[start.numbers[atom]]) for atom in own)
        made.append(Group(own, masses))
    return tuple(made)


def disjoint(groups: Sequence[Sequence[int]], what: str) -> None:
    """Refuse an atom that is named twice.

    Raises
    ------
    ValueError
        With the atom, and ``what`` needs different ones.
    """
    seen: set[int] = set()
    for atoms in groups:
        for atom in atoms:
            if atom in seen:
                raise ValueError(f"atom {atom} is named twice; {what}")
            seen.add(atom)


def named(atoms: Sequence[int]) -> str:
    """Atoms, counted from 1, in words: ``atom 3``, ``atoms 1-3, 7``; of many only how many."""
    if len(atoms) == 1:
        return f"atom {atoms[0]}"
    runs: list[list[int]] = []
    for atom in sorted(atoms):
        if runs and atom == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], atom]
        else:
            runs.append([atom])
    text = ", ".join("-".join(map(str, run)) for run in runs)
    return f"atoms {text}" if len(runs) <= 4 else f"{len(atoms)} atoms"


def block(keyword: str, *lines: str) -> str:
    """``keyword { … }`` with the lines, which may be blocks themselves, indented."""
    inside = "\n".join(f"  {line}" for text in lines for line in text.splitlines())
    return f"{keyword} {{\n{inside}\n}}"


def atom_groups(groups: Sequence[Group], keywords: Sequence[str] = ("group1", "group2", "group3", "group4")) -> str:
    """The atom groups of a Colvars component."""
    return "\n".join(
        block(keyword, f"atomNumbers {item.numbers()}") for keyword, item in zip(keywords, groups, strict=False)
    )
