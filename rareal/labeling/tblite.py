"""GFN1- and GFN2-xTB through tblite, in process (3-4 ms for a molecule of 20 atoms).

C. Bannwarth et al., J. Chem. Theory Comput. 2019, 15, 1652 (GFN2); S. Grimme et al., ibid. 2017, 13, 1989 (GFN1).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rareal.errors import LabelError
from rareal.labeling.base import BaseEngine, ElectronsConfig, one_line
from rareal.records import Calculation, Frame
from rareal.schema import Misfit
from rareal.units import BOHR, HARTREE, KB, Temperature

LADDER: tuple[tuple[float, float], ...] = ((0.4, 1.0), (0.2, 1.0), (0.1, 1.0), (0.1, 10.0))
"""Mixer dampings, and the factor on the electronic temperature of the guess, tried in turn: tblite's own mixing, then
smaller ones for bonds half broken, where charges slosh, then one that starts from the density at a higher temperature.
They lead to the same energy within 1e-8 eV."""

HEAVIEST = 86
"""Radon, the last element that the GFN methods have parameters for."""


class Config(ElectronsConfig):
    """Extended tight binding with tblite."""

    kind: Literal["tblite"] = "tblite"
    method: Literal["GFN2-xTB", "GFN1-xTB"] = Field("GFN2-xTB", description="the Hamiltonian")
    spin_polarisation: bool = Field(False, description="spin-dependent energy; without, spins only fill the orbitals")
    electronic_temperature: Temperature = Field(300.0, ge=0, description="Fermi smearing of the occupations, K")
    accuracy: float = Field(0.1, gt=0, le=10, description="tblite's accuracy factor: smaller is tighter")
    max_iterations: int = Field(100, ge=1, description="most iterations to self-consistency, for each mixing tried")

    def check_against(self, config: Any) -> None:
        """Refuse elements without parameters and spins that the electrons cannot have."""
        numbers = config.frame.numbers
        if numbers.max() > HEAVIEST:
            raise Misfit("method", f"{self.method} has no element {numbers.max()}; use elements up to {HEAVIEST}")
        super().check_against(config)


class Engine(BaseEngine[Config]):
    """A level of theory, computed by tblite in this process.

    The occupations are smeared, so the energy is the Mermin free energy that the forces are the gradient of.
    One tblite calculator is kept per list of elements; every point starts from the same guess, so that a result
    does not depend on what was computed before it.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._calculators: dict[tuple[bytes, tuple[bool, bool, bool]], Any] = {}

    def version(self) -> str:
        """tblite's."""
        return version("tblite")

    def compute(self, frame: Frame) -> Calculation:
        """Energy, forces and, where the frame is periodic, stress."""
        result, note = self._converge(frame)
        energy = float(result.get("energy")) * HARTREE
        forces = np.asarray(result.get("gradient"), dtype=np.float64) * (-HARTREE / BOHR)
        stress = None
        if any(frame.pbc):
            volume = abs(float(np.linalg.det(frame.cell)))
            virial = np.asarray(result.get("virial"), dtype=np.float64) * (HARTREE / volume)
            stress = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return Calculation(energy, forces, stress, note)

    def _converge(self, frame: Frame) -> tuple[Any, str]:
        """The result, and what it took."""
        from tblite.exceptions import TBLiteRuntimeError, TBLiteValueError

        reason = ""
        try:
            calculator = self._calculator(frame)
            calculator.update(frame.positions / BOHR, frame.cell / BOHR if any(frame.pbc) else None)
            for damping, heat in LADDER:
                calculator.set("mixer-damping", damping)
                try:
                    result = self._singlepoint(calculator, heat)
                except TBLiteRuntimeError as error:
                    reason = one_line(error)
                    continue
                steps = [f"mixer damping {damping:g}"] + [f"guess at {heat:g} times the temperature"] * (heat > 1)
                return result, ", ".join(steps) if (damping, heat) != LADDER[0] else ""
        except (TBLiteRuntimeError, TBLiteValueError) as error:
            reason = one_line(error)
        raise LabelError(f"{self.config.method} failed: {reason}")

    def _singlepoint(self, calculator: Any, heat: float) -> Any:
        # tblite takes kT in Hartree here
        temperature = self.config.electronic_temperature * KB / HARTREE
        guess = None
        if heat > 1:
            calculator.set("temperature", max(temperature * heat, 3000.0 * KB / HARTREE))
            guess = calculator.singlepoint()
        calculator.set("temperature", temperature)
        return calculator.singlepoint(guess)

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
            if config.spin_polarisation:
                calculator.add("spin-polarization", 1.0)
            self._calculators[key] = calculator
        return self._calculators[key]

    def close(self) -> None:
        """Free tblite's calculators."""
        self._calculators.clear()

    def __getstate__(self) -> dict[str, Any]:
        # tblite's handles belong to this process
        return {**super().__getstate__(), "_calculators": {}}


def build(config: Config) -> Engine:
    """The engine that ``config`` describes."""
    return Engine(config)
