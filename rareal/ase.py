"""A committee as an ASE calculator: the same model file, and the same numbers, as in LAMMPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from rareal.errors import ModelFileError
from rareal.export.modelfile import Committee
from rareal.records import Frame
from rareal.results import model_of


class CommitteeCalculator(Calculator):
    """Energy, forces and stress of the committee's mean, and how much its members disagree.

    Results, beside ASE's own (eV, Å; stress in Voigt order, positive where the cell is pulled, for frames that are
    periodic in three directions)::

        energy_std   population std of the members' energies, eV; what `compute pair` gives as c_ID[1]
        forces_std   [N] norm of the std of the force on each atom, eV/Å; what `fix pair` gives
        energies_members  [M] eV
        forces_members    [M, N, 3] eV/Å

    Parameters
    ----------
    model : a model file (``.pt`` or ``.pt2``), or a run folder, whose last committee is taken.
    member : a member, from 1, on whose surface the atoms are to move; the mean if None. The stds are those of the
        whole committee in any case.

    Raises
    ------
    ModelFileError
        If the file cannot be used, or has no such member; on calculation, if there is an element it does not know.
    """

    implemented_properties = [  # noqa: RUF012  (ASE's own form)
        "energy", "free_energy", "forces", "stress", "energy_std", "forces_std", "energies_members", "forces_members",
    ]  # fmt: skip

    def __init__(self, model: str | Path, member: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # type: ignore[no-untyped-call]
        self.model = model_of(Path(model))
        self.committee = Committee.load(self.model)
        members = self.committee.metadata.members
        if member is not None and not 1 <= member <= members:
            raise ModelFileError(f"{self.model} has the members 1 to {members}, there is no member {member}")
        self.member = member

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: list[str] = all_changes) -> None:
        """See `ase.calculators.calculator.Calculator.calculate`; everything is computed at once."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        now: Any = self.atoms
        frame = Frame(
            np.asarray(now.numbers, dtype=np.int64),
            np.asarray(now.positions, dtype=np.float64),
            np.asarray(now.cell[:], dtype=np.float64),
            (bool(now.pbc[0]), bool(now.pbc[1]), bool(now.pbc[2])),
        )
        energies, forces, strain = self.committee.evaluate(frame)
        energy, force = energies.mean(), forces.mean(0)
        slope = strain.mean(0)
        if self.member is not None:
            energy, force, slope = energies[self.member - 1], forces[self.member - 1], strain[self.member - 1]
        self.results = {
            "energy": float(energy),
            "free_energy": float(energy),
            "forces": force,
            "energy_std": float(energies.std()),
            "forces_std": np.linalg.norm(forces.std(0), axis=1),
            "energies_members": energies,
            "forces_members": forces,
        }
        if all(frame.pbc):
            stress = slope / abs(np.linalg.det(frame.cell))
            self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
