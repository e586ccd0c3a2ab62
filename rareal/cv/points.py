"""Sections of variables that two, three or four points define, each an atom or the centre of mass of a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from rareal.cv.base import AtomId, AtomIds, Group, VariableSection, disjoint, groups_of, named
from rareal.records import Frame


class PointsSection(VariableSection):
    """``atoms: [1, 6]``, or ``groups: [[1, 2], [6]]`` for centres of mass."""

    points: ClassVar[int]
    what: ClassVar[str]
    shown: ClassVar[str]

    atoms: Annotated[tuple[AtomId, ...], Field()] | None = Field(
        None, description="its atoms, numbered from 1 as in the structure file"
    )
    groups: tuple[AtomIds, ...] | None = Field(
        None, description="instead of atoms: groups of atoms, of which the centres of mass are taken"
    )

    @field_validator("atoms")
    @classmethod
    def _as_many_atoms(cls, atoms: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if atoms is not None:
            cls._count(atoms, "atoms")
            disjoint([atoms], f"{cls.what} needs {cls.points} different atoms")
        return atoms

    @field_validator("groups")
    @classmethod
    def _as_many_groups(cls, groups: tuple[tuple[int, ...], ...] | None) -> tuple[tuple[int, ...], ...] | None:
        if groups is not None:
            cls._count(groups, "groups")
            disjoint(groups, f"{cls.what} needs groups that share no atom")
        return groups

    @classmethod
    def _count(cls, given: tuple[object, ...], word: str) -> None:
        if len(given) != cls.points:
            raise ValueError(f"{cls.what} needs {cls.points} {word}, not {len(given)}")

    @model_validator(mode="after")
    def _one_of_both(self) -> PointsSection:
        if (self.atoms is None) == (self.groups is None):
            which = "neither is given" if self.atoms is None else "both are given"
            example = ", ".join(str(k) for k in range(1, self.points + 1))
            raise ValueError(f"{self.what} needs either `atoms`, e.g. atoms: [{example}], or `groups`; {which}")
        return self

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The atoms, counted from 1, of each point."""
        return self.groups or tuple((atom,) for atom in self.atoms or ())

    @property
    def label(self) -> str:
        """What the variable is, in words."""
        if all(len(atoms) == 1 for atoms in self.members):
            *first, last = (str(atoms[0]) for atoms in self.members)
            return f"{self.shown} atoms {', '.join(first)} and {last}"
        *first, last = (named(atoms) for atoms in self.members)
        return f"{self.shown} {', '.join(first)} and {last}"

    def atom_keys(self) -> Iterator[tuple[str, Iterable[int]]]:
        """The key that is given, with its atoms."""
        yield "groups" if self.groups else "atoms", (atom for atoms in self.members for atom in atoms)

    def build_groups(self, start: Frame | None) -> tuple[Group, ...]:
        """The points, with the masses of the structure."""
        return groups_of(self.members, start)
