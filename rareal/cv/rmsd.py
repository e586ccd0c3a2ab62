"""The root-mean-square deviation from a reference structure, optimally translated and rotated.

Without masses, as Colvars takes it. It is taken through space: a molecule that a periodic box cuts must be made whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from pydantic import Field, field_validator

from rareal.cv.base import AtomId, Variable, VariableSection, block, disjoint, named
from rareal.records import Array, Frame
from rareal.schema import Misfit
from rareal.structure import read_structure

FEWEST = 3
Row = tuple[str, float, float, float]


class Config(VariableSection):
    """How far the structure, or some of its atoms, is from a reference, whatever its position and orientation."""

    kind: Literal["rmsd"] = "rmsd"
    atoms: Annotated[tuple[AtomId, ...], Field(min_length=FEWEST)] | None = Field(
        None, description="the atoms that are compared, numbered from 1; all if not given"
    )
    reference: Path | tuple[Row, ...] | None = Field(
        None,
        description="a structure file, relative to the YAML, with all atoms in the same order, or its rows "
        "[element, x, y, z] in Å; the starting structure if not given",
    )

    @field_validator("atoms")
    @classmethod
    def _once(cls, atoms: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if atoms is not None:
            disjoint([atoms], "name every atom once")
        return atoms

    @property
    def unit(self) -> str:
        """Å."""
        return RMSD.unit

    @property
    def label(self) -> str:
        """Of which atoms."""
        return f"RMSD of {named(self.atoms) if self.atoms else 'all atoms'}"

    def atom_keys(self) -> Iterator[tuple[str, Iterable[int]]]:
        """The atoms that are compared."""
        yield "atoms", self.atoms or ()

    def read_files(self, folder: Path) -> Self:
        """The rows of the file in its place, so that what is kept of a run is complete by itself."""
        if not isinstance(self.reference, Path):
            return self
        try:
            frame = read_structure(folder / self.reference)
        except Misfit as misfit:
            raise Misfit("reference", str(misfit)) from misfit
        rows = tuple(
            (chemical_symbols[number], *map(float, position))
            for number, position in zip(frame.numbers, frame.positions, strict=True)
        )
        return self.model_copy(update={"reference": rows})

    def check_against(self, config: Any) -> None:
        """Refuse atoms that the structure does not have, and a reference of other atoms."""
        super().check_against(config)
        numbers = config.frame.numbers
        if self.atoms is None and len(numbers) < FEWEST:
            raise Misfit("atoms", f"a rotation needs {FEWEST} atoms, the structure has {len(numbers)}")
        if not isinstance(self.reference, tuple):
            return
        if len(self.reference) != len(numbers):
            raise Misfit(
                "reference",
                f"it has {len(self.reference)} atoms, the structure {len(numbers)}; give all, in the same order",
            )
        for atom, ((symbol, *_), number) in enumerate(zip(self.reference, numbers, strict=True), start=1):
            if atomic_numbers.get(symbol) != number:
                raise Misfit(
                    "reference",
                    f"its atom {atom} is {symbol}, in the structure it is {chemical_symbols[number]}; "
                    "give the atoms in the same order",
                )


@dataclass(frozen=True, eq=False)
class RMSD(Variable):
    """Root-mean-square deviation from a reference, Å.

    Parameters
    ----------
    atoms : which ones are compared, counted from 0.
    reference : [K, 3] where these atoms are in the reference, Å.
    name : what Colvars calls it.
    """

    atoms: tuple[int, ...]
    reference: Array
    name: str = "cv"
    label: str = "RMSD"

    unit = "Å"

    def value(self, positions: Array) -> Array:
        """RMSD [...] in Å for unwrapped positions [..., N, 3] in Å.

        W. Kabsch, Acta Cryst. A 1976, 32, 922: the singular values of the covariance give the best rotation's overlap;
        the smallest is subtracted where the best orthogonal matrix would be a reflection.
        """
        own = positions[..., list(self.atoms), :]
        own = own - own.mean(axis=-2, keepdims=True)
        reference = self.reference - self.reference.mean(axis=0)
        left, singular, right = np.linalg.svd(np.swapaxes(own, -1, -2) @ reference)
        reflects = np.linalg.det(left) * np.linalg.det(right) < 0
        singular[..., -1] = np.where(reflects, -singular[..., -1], singular[..., -1])
        squares = (own**2).sum(axis=(-1, -2)) + (reference**2).sum() - 2 * singular.sum(axis=-1)
        # rounding may bring the difference of large numbers below nothing
        deviation: Array = np.sqrt(np.maximum(squares, 0.0) / len(self.atoms))
        return deviation

    def colvars(self) -> str:
        """The ``colvar`` block, with the reference's coordinates in it."""
        numbers = " ".join(str(atom + 1) for atom in self.atoms)
        where = " ".join(f"({x:.12g}, {y:.12g}, {z:.12g})" for x, y, z in self.reference)
        component = block("rmsd", block("atoms", f"atomNumbers {numbers}"), f"refPositions {where}")
        return block("colvar", f"name {self.name}", component)


def build(config: Config, start: Frame, name: str = "cv") -> RMSD:
    """The RMSD that ``config``, whose files have been read, describes."""
    positions = start.positions
    if isinstance(config.reference, tuple):
        positions = np.array([row[1:] for row in config.reference])
    atoms = tuple(atom - 1 for atom in config.atoms) if config.atoms else tuple(range(len(start.numbers)))
    return RMSD(atoms, positions[list(atoms)], name, config.label)
