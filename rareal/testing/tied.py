"""A label engine for tests as a YAML can name it, ``engine: {kind: rareal.testing.tied, ...}``: atoms tied to a point.

Every atom is tied to the origin by a spring; elements have energies of their own. Neon is an atom that it fails on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field

from rareal.errors import LabelError
from rareal.records import Calculation, Frame
from rareal.schema import Misfit, Section

HELIUM, NEON = 2, 10


class Config(Section):
    """The springs, and a file that tells of every calculation."""

    calls: Path = Field(description="file that gets a line per calculation")
    stiffness: float = Field(1.0, description="of the springs, eV/Å²")
    atoms: dict[str, float] = Field({}, description="energy of an atom, eV, by chemical symbol")
    forces: float = Field(1.0, description="factor of the forces: they are wrong where it is not 1")
    seconds: float = Field(0.0, description="what a calculation takes")

    def check_against(self, config: Any) -> None:
        """Refuse helium."""
        if (config.frame.numbers == HELIUM).any():
            raise Misfit("stiffness", "helium cannot be tied")


class Engine:
    """The engine."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = {"kind": "tied", "stiffness": config.stiffness, "atoms": config.atoms, "forces": config.forces}
        self.hash = f"tied {config.stiffness} {sorted(config.atoms.items())} {config.forces}"

    def calculate(self, frame: Frame) -> Calculation:
        """Energy, forces and stress."""
        with self.config.calls.open("a") as stream:
            stream.write(f"{frame.step}\n")
        time.sleep(self.config.seconds)
        if (frame.numbers == NEON).any():
            raise LabelError("neon will not be tied")
        energy = sum(self.config.atoms.get(chemical_symbols[z], 0.0) for z in frame.numbers)
        energy += 0.5 * self.config.stiffness * float(np.sum(frame.positions**2))
        forces = -self.config.forces * self.config.stiffness * frame.positions
        return Calculation(energy, forces, np.arange(6.0) if any(frame.pbc) else None, "tied")


build = Engine
