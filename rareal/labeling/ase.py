"""Any ASE calculator, by the dotted path of its class and its arguments."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from rareal.errors import LabelError
from rareal.labeling.base import BaseEngine, EngineConfig, one_line
from rareal.labeling.settings import code_version
from rareal.records import Calculation, Frame
from rareal.schema import Misfit


class Config(EngineConfig):
    """An ASE calculator."""

    harmless: ClassVar[tuple[str, ...]] = (*EngineConfig.harmless, "keep")

    kind: Literal["ase"] = "ase"
    calculator: str = Field(description="dotted path of the class or of a function, e.g. ase.calculators.emt.EMT")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="what it is called with; file names must be absolute, folders change"
    )
    version: str = Field(
        "", description="of the program behind the calculator, where that is not the Python package: part of the hash"
    )
    info: dict[str, Any] = Field(
        default_factory=dict, description="entries of `atoms.info`, e.g. {charge: 1, spin: 2}, for calculators that ask"
    )
    cell: tuple[float, float, float] | None = Field(
        None, description="box around a molecule, Å, for calculators that need one; the molecule is put in its middle"
    )
    free_energy: bool = Field(
        True, description="take the free energy where the calculator has one: forces are its gradient"
    )
    stress: bool = Field(True, description="take the stress of periodic frames where the calculator has one")
    keep: tuple[str, ...] = Field((), description="patterns of files to keep with a label, e.g. ['*.log']")

    @field_validator("calculator")
    @classmethod
    def _dotted(cls, path: str) -> str:
        if "." not in path:
            raise ValueError(f"'{path}' is no dotted path; give one such as ase.calculators.emt.EMT")
        return path

    def check_against(self, config: Any) -> None:
        """Refuse a calculator that cannot be made."""
        try:
            find(self.calculator)(**self.arguments)
        except Misfit:
            raise
        except TypeError as error:
            raise Misfit("arguments", f"{self.calculator} cannot be called with them: {one_line(error)}") from error
        except Exception as error:  # calculators raise what they like
            text = f"{self.calculator} cannot be made: {type(error).__name__}: {one_line(error)}"
            raise Misfit("calculator", text) from error


class Engine(BaseEngine[Config]):
    """A level of theory, computed by an ASE calculator.

    One calculator is kept; what it remembers is reset before every frame.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.keep = config.keep
        self._calculator: Any = None

    def version(self) -> str:
        """That of the package that the calculator comes with, and the one that the user states."""
        maker = find(self.config.calculator)
        return code_version(sys.modules[maker.__module__])

    def inputs(self) -> dict[str, Any]:
        """What the user says of the program's version."""
        return {"program_version": self.config.version, "version": self.version()}

    def compute(self, frame: Frame) -> Calculation:
        """Energy, forces and, where there is one, stress."""
        from ase import Atoms
        from ase.calculators.calculator import PropertyNotImplementedError

        if self._calculator is None:
            self._calculator = find(self.config.calculator)(**self.config.arguments)
        calculator = self._calculator
        if hasattr(calculator, "reset"):
            calculator.reset()
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, info=dict(self.config.info))
        if self.config.cell is not None and not any(frame.pbc):
            atoms.set_cell(self.config.cell)
            atoms.center()
        atoms.calc = calculator
        try:
            energy = self._energy(atoms)
            forces = np.array(atoms.get_forces(), dtype=np.float64)
        except PropertyNotImplementedError as error:
            raise LabelError(f"{self.config.calculator} does not compute {one_line(error)}") from error
        stress = None
        if self.config.stress and all(frame.pbc) and "stress" in getattr(calculator, "implemented_properties", ()):
            stress = np.array(atoms.get_stress(), dtype=np.float64)
        return Calculation(energy, forces, stress)

    def _energy(self, atoms: Any) -> float:
        from ase.calculators.calculator import PropertyNotImplementedError

        if self.config.free_energy:
            try:
                return float(atoms.get_potential_energy(force_consistent=True))
            except (PropertyNotImplementedError, NotImplementedError, KeyError):
                pass  # it has one energy only
        return float(atoms.get_potential_energy())

    def close(self) -> None:
        """Let go of the calculator."""
        self._calculator = None

    def __getstate__(self) -> dict[str, Any]:
        # calculators hold processes and files of theirs
        return {**super().__getstate__(), "_calculator": None}


def find(path: str) -> Any:
    """The class or function at a dotted path.

    Raises
    ------
    Misfit
        If there is none, for the key ``calculator``.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise Misfit("calculator", f"{module} cannot be imported ({error}); install it, or correct the path") from error
    except AttributeError as error:
        near = get_close_matches(name, dir(sys.modules[module]), n=1)
        guess = f", did you mean '{near[0]}'?" if near else ""
        raise Misfit("calculator", f"{module} has no {name}{guess}") from error


def build(config: Config) -> Engine:
    """The engine that ``config`` describes."""
    return Engine(config)
