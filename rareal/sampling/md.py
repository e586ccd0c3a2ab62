"""Plain molecular dynamics with the committee: canonical (NVT), at constant pressure (NPT), heated or cooled.

For events that happen by themselves within a trajectory, and to see what the potential does around them. Its barrier
is the free energy -kT ln p along the collective variable; where the event did not happen it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from rareal.cv import Variable
from rareal.records import Frame, Profile, Trajectory, Walker
from rareal.sampling.base import Dynamics, LammpsSampler
from rareal.sampling.histogram import density, profile
from rareal.sampling.resume import last_step
from rareal.sampling.trajectory import CELL
from rareal.schema import Misfit
from rareal.units import KB, Temperature, Time, parse_quantity

Pressure = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "bar"))]


class Config(Dynamics):
    """Molecular dynamics at a temperature."""

    kind: Literal["md"] = "md"
    thermostat: Literal["langevin", "csvr"] = Field(
        "langevin",
        description="both canonical; csvr (stochastic velocity rescaling) disturbs the dynamics less, and "
        "relies on the potential to share out energy between motions",
    )
    final_temperature: Temperature | None = Field(
        None, gt=0, description="temperature at the end of the drive, K, for heating or cooling at an even rate"
    )
    pressure: Pressure | None = Field(None, description="constant pressure, bar; the volume is constant if not given")
    pressure_damping: Time = Field(500.0, gt=0, description="time constant of the barostat, fs")
    coupling: Literal["iso", "aniso", "tri"] = Field(
        "iso", description="what the barostat changes: the size of the cell, its edges, or its angles too"
    )
    equilibration: int = Field(2000, ge=0, description="steps before the drive")
    bins: int = Field(60, ge=5, description="of the free energy along the collective variable")
    blocks: int = Field(5, ge=2, description="that a trajectory is cut into for the errors of the free energy")

    @model_validator(mode="after")
    def _ramp_is_one(self) -> Self:
        if self.final_temperature == self.temperature:
            raise ValueError("final_temperature: it is the temperature itself; leave it out")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse a pressure without a cell to put it on."""
        pressures = [self.of(number).pressure for number in range(self.count)]
        if any(pressure is not None for pressure in pressures) and not all(config.frame.pbc):
            raise Misfit(
                "pressure", "constant pressure needs a cell that is periodic in all three directions; the structure "
                "has none. Leave `pressure` out, or give a structure with a cell"
            )  # fmt: skip


class MolecularDynamics(LammpsSampler):
    """Lets the committee's dynamics run; a `Sampler`."""

    name = "md"
    resumable = True

    def values(self, settings: Any, walker: Walker, folder: Path) -> Mapping[str, object]:
        """What fills the template; see `LammpsSampler.values`."""
        periodic = any(walker.start.pbc)
        motion, box, what = "fix             motion all nve", "", "constant volume"
        columns, titles = "", ""
        if settings.pressure is not None:
            pressure = f"{settings.coupling} {settings.pressure:.10g} {settings.pressure:.10g}"
            # with fix nph a thermostat that acts on velocities alone gives the constant-pressure ensemble
            motion = f"fix             motion all nph {pressure} {settings.pressure_damping * 1e-3:.10g}"
            box = "\n".join(f"variable        {name} equal {name}" for name in CELL)
            columns, titles = " ".join(f"v_{name}" for name in CELL), " ".join(CELL)
            what = "constant pressure"
        final = settings.final_temperature or settings.temperature
        if final != settings.temperature:
            what += f", from {settings.temperature:g} K to {final:g} K"
        return {
            "what": f"{what}.",
            "rotation": "no" if periodic else "yes",
            "motion": motion,
            "bath": {"langevin": "langevin", "csvr": "temp/csvr"}[settings.thermostat],
            "equilibration": settings.equilibration,
            **self.ramp(settings, walker, final),
            "box": box,
            "box_columns": columns,
            "box_titles": titles,
        }

    def ramp(self, settings: Any, walker: Walker, final: float) -> dict[str, str]:
        """Temperatures between which a part of a drive is heated or cooled."""
        steps = self.steps(settings)
        first = 0 if walker.resume is None else walker.resume.step
        last = last_step(walker, steps, settings.frame_interval)
        slope = (final - settings.temperature) / steps
        at = {"first_temperature": first, "last_temperature": last}
        return {name: f"{settings.temperature + slope * step:.10g}" for name, step in at.items()}

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """Free energy along the collective variable at the first walker's temperature."""
        settings = self.config.of(trajectories[0].walker)
        ours = [t for t in trajectories if _same(self.config.of(t.walker), settings)]
        variable = self.variables[0]
        notes = []
        if len(ours) < len(trajectories):
            notes.append(f"Of the {len(ours)} walkers at {settings.temperature:g} K.")
        if settings.final_temperature is not None:
            notes.append("While the temperature changes there is no equilibrium, and this is no free energy.")
        thermal = KB * settings.temperature
        found = density(
            [t.cv for t in ours], [t.bias for t in ours], thermal, settings.bins, settings.blocks, variable.period
        )
        start = float(np.mean([t.cv[0] for t in ours]))
        result = profile(found, start, thermal, variable.period is not None, " ".join(notes))
        return result if settings.final_temperature is None else _not_thermal(result)


def _same(one: Any, other: Any) -> bool:
    """Whether two walkers sample the same distribution."""
    keys = ("temperature", "final_temperature", "pressure")
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _not_thermal(found: Profile) -> Profile:
    """Where the temperature changes only the range that was seen can be told."""
    nowhere = np.full(len(found.energy), np.nan)
    return Profile("free energy", found.coordinate, nowhere, nowhere, float("nan"), float("nan"), found.note)


def build(config: Config, variables: Sequence[Variable], start: Frame) -> MolecularDynamics:
    """The sampler that ``config`` describes."""
    return MolecularDynamics(config, variables, start)
