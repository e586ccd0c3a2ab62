"""The initial data: molecular dynamics with the label engine itself (rare-events paper, section 2.2.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rareal.protocols import Engine, Progress
from rareal.records import Calculation, Frame, Label, LabeledFrame
from rareal.schema import Section
from rareal.units import Temperature, Time


class Config(Section):
    """Langevin dynamics at a temperature that shakes the molecule well, on the engine's own surface."""

    kind: Literal["md"] = "md"
    temperature: Temperature = Field(500.0, gt=0, description="temperature of the thermostat, K")
    timestep: Time = Field(0.5, gt=0, description="time step, fs")
    equilibration: int = Field(400, ge=0, description="steps before the first frame is kept")
    interval: int = Field(10, ge=1, description="keep every so many steps")
    frames: int = Field(200, ge=2, description="frames to keep; each is a label")
    damping: Time = Field(50.0, gt=0, description="time constant of the Langevin friction, fs")


@dataclass(frozen=True, eq=False)
class InitialData:
    """Labelled frames of the dynamics and what they cost.

    Attributes
    ----------
    frames : the kept frames with the labels that the dynamics itself computed.
    engine_calls : engine calls of the whole dynamics, those for the kept frames included.
    """

    frames: list[LabeledFrame]
    engine_calls: int


def build(config: Config) -> MolecularDynamics:
    """The generator of initial data that ``config`` describes."""
    return MolecularDynamics(config)


class MolecularDynamics:
    """Makes the initial data."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, engine: Engine, start: Frame, seed: int, progress: Progress | None = None) -> InitialData:
        """Run the dynamics from ``start``; the same seed gives the same frames.

        Raises
        ------
        LabelError
            If the engine fails on the way: without its forces there is no next step.
        """
        import ase
        from ase import units
        from ase.md.langevin import Langevin
        from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation

        config = self.config
        rng = np.random.default_rng(seed)
        atoms = ase.Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
        atoms.calc = calculator(engine, start)
        MaxwellBoltzmannDistribution(atoms, temperature_K=config.temperature, rng=rng)
        Stationary(atoms)
        if not any(start.pbc):
            ZeroRotation(atoms)
        dynamics = Langevin(
            atoms,
            config.timestep * units.fs,
            temperature_K=config.temperature,
            friction=1.0 / (config.damping * units.fs),
            fixcm=False,
            rng=rng,
        )
        kept: list[LabeledFrame] = []
        dynamics.run(config.equilibration)
        while True:
            kept.append(_labeled(atoms, start, dynamics.nsteps, engine.hash))
            if progress is not None:
                progress(len(kept), config.frames)
            if len(kept) == config.frames:
                return InitialData(kept, atoms.calc.calls)
            dynamics.run(config.interval)


def _labeled(atoms: Any, start: Frame, step: int, engine_hash: str) -> LabeledFrame:
    frame = replace(start, positions=atoms.positions.copy(), origin="initial", round=0, walker=-1, step=step)
    atoms.get_forces()  # that there is a calculation of these positions
    last: Calculation = atoms.calc.last
    label = Label(float(last.energy), np.array(last.forces), engine_hash, stress=last.stress, note=last.note)
    return LabeledFrame(frame, label)


def calculator(engine: Engine, start: Frame) -> Any:
    """The engine as an ASE calculator that counts its calls."""
    from ase.calculators.calculator import Calculator, all_changes

    class Counting(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's own form)
        calls = 0

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            frame = replace(start, positions=np.array(atoms.positions, dtype=np.float64))
            self.last = Calculation(*engine.calculate(frame))
            self.results = {"energy": self.last.energy, "forces": self.last.forces}
            self.calls += 1

    return Counting()  # type: ignore[no-untyped-call]
