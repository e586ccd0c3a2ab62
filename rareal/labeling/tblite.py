"""GFN1- and GFN2-xTB through tblite, in process (3-4 ms for a molecule of 20 atoms).

C. Bannwarth et al., J. Chem. Theory Comput. 2019, 15, 1652 (GFN2); S. Grimme et al., ibid. 2017, 13, 1989 (GFN1).
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rareal.errors import LabelError
from rareal.labeling.geometry import check_geometry
from rareal.records import Calculation, Frame
from rareal.schema import Misfit, Section
from rareal.units import Temperature

HARTREE = 27.211386245988
"""Hartree in eV (CODATA 2018)."""

BOHR = 0.529177210903
"""Bohr radius in Å (CODATA 2018)."""

KELVIN = 3.166811563455546e-06
"""Boltzmann's constant in Hartree/K (CODATA 2018)."""

MIXING = (0.4, 0.2, 0.1)
"""Mixer dampings, tried in turn: tblite's own, then smaller ones for bonds half broken, where charges slosh.
They lead to the same energy within 1e-8 eV."""

HEAVIEST = 86
"""Radon, the last element that the GFN methods have parameters for."""


class Config(Section):
    """Extended tight binding with tblite."""

    kind: Literal["tblite"] = "tblite"
    method: Literal["GFN2-xTB", "GFN1-xTB"] = Field("GFN2-xTB", description="the Hamiltonian")
    charge: int = Field(0, description="total charge, elementary charges")
    multiplicity: int = Field(1, ge=1, description="spin multiplicity 2S+1; 1 is closed-shell")
    electronic_temperature: Temperature = Field(300.0, ge=0, description="Fermi smearing of the occupations, K")
    accuracy: float = Field(0.1, gt=0, le=10, description="tblite's accuracy factor: smaller is tighter")
    max_iterations: int = Field(100, ge=1, description="most iterations to self-consistency, for each mixing tried")
    min_distance_ratio: float = Field(
        0.5, ge=0, lt=1, description="refuse pairs of atoms closer than this share of the sum of their covalent radii"
    )

    def check_against(self, config: Any) -> None:
        """Refuse elements without parameters and spins that the electrons cannot have."""
        numbers = config.frame.numbers
        if numbers.max() > HEAVIEST:
            raise Misfit("method", f"{self.method} has no element {numbers.max()}; use elements up to {HEAVIEST}")
        electrons = int(numbers.sum()) - self.charge
        if (electrons - self.multiplicity + 1) % 2:
            raise Misfit("multiplicity", f"{electrons} electrons cannot have multiplicity {self.multiplicity}")


class Engine:
    """A level of theory, computed by tblite in this process.

    The occupations are smeared, so the energy is the Mermin free energy that the forces are the gradient of.
    One tblite calculator is kept per list of elements; every point starts from the same guess, so that a result
    does not depend on what was computed before it.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._calculators: dict[tuple[bytes, tuple[bool, bool, bool]], Any] = {}

    @property
    def hash(self) -> str:
        """SHA-256 of all settings that bear on the result, and of tblite's version."""
        settings = self.config.model_dump(mode="json", exclude={"min_distance_ratio"})
        text = json.dumps({"version": version("tblite"), **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def calculate(self, frame: Frame) -> Calculation:
        """Energy [eV] and forces [N, 3] [eV/Å].

        Raises
        ------
        LabelError
            If two atoms nearly coincide, self-consistency is not reached, or the result is not finite.
        """
        check_geometry(frame, self.config.min_distance_ratio)
        result = self._converge(frame)
        energy = float(result.get("energy")) * HARTREE
        forces = np.asarray(result.get("gradient"), dtype=np.float64) * (-HARTREE / BOHR)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise LabelError(f"{self.config.method} returned an energy or a force that is not finite")
        return Calculation(energy, forces)

    def _converge(self, frame: Frame) -> Any:
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError

        reason = ""
        try:
            calculator = self._calculator(frame)
            calculator.update(frame.positions / BOHR, frame.cell / BOHR if any(frame.pbc) else None)
            for damping in MIXING:
                calculator.set("mixer-damping", damping)
                try:
                    return calculator.singlepoint()
                except TBLiteRuntimeError as error:
                    reason = " ".join(str(error).split())
        except (TBLiteRuntimeError, TBLiteValueError) as error:
            reason = " ".join(str(error).split())
        raise LabelError(f"{self.config.method} failed: {reason}")

    def _calculator(self, frame: Frame) -> Any:
        from tblite.interface import Calculator

        key = (np.asarray(frame.numbers, dtype=np.int64).tobytes(), frame.pbc)
        if key not in self._calculators:
            config, periodic = self.config, any(frame.pbc)
            calculator = Calculator(
                config.method,
                np.asarray(frame.numbers),
                frame.positions / BOHR,
                charge=config.charge,
                uhf=config.multiplicity - 1,
                lattice=frame.cell / BOHR if periodic else None,
                periodic=np.asarray(frame.pbc) if periodic else None,
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", config.accuracy)
            calculator.set("max-iter", config.max_iterations)
            # tblite takes kT in Hartree here
            calculator.set("temperature", config.electronic_temperature * KELVIN)
            self._calculators[key] = calculator
        return self._calculators[key]

    def __getstate__(self) -> dict[str, Any]:
        # tblite's handles belong to this process
        return {"config": self.config, "_calculators": {}}


def build(config: Config) -> Engine:
    """The engine that ``config`` describes."""
    return Engine(config)
