"""Steered molecular dynamics with the committee: the paper's way to drive a rare event (section 2.2.1).

Relaxation at low temperature (Berendsen), then a stiff spring of constant velocity between the two ends of the
collective variable. The work of the spring is the paper's measure of the activation energy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveInt

from rareal.cv import KINDS, Variable
from rareal.records import Frame, Profile, Trajectory, Walker
from rareal.sampling.base import Dynamics, LammpsSampler
from rareal.schema import Misfit
from rareal.units import SpringConstant, Temperature, Velocity


class Config(Dynamics):
    """The paper's protocol; its numbers are the defaults."""

    kind: Literal["steered"] = "steered"
    temperature: Temperature = Field(10.0, gt=0, description="temperature of relaxation and pull, K")
    relaxation_steps: int = Field(2000, ge=0, description="steps before the pull")
    spring: SpringConstant = Field(10.0, gt=0, description="spring constant K of the force K times extension, eV/Å²")
    velocity: Velocity = Field(0.001, description="velocity of the spring's end, Å/fs; negative pushes together")
    steps: int = Field(6500, ge=1, description="steps of the pull")
    walkers: PositiveInt | tuple[dict[str, Any], ...] = Field(
        5, description=Dynamics.model_fields["walkers"].description
    )
    frame_interval: int = Field(1, ge=1, description="keep the positions of every so many steps")

    def check_against(self, config: Any) -> None:
        """Refuse a spring that does not move, and a variable that has no two ends for it."""
        super().check_against(config)
        if getattr(config.cv[0], "kind", "") in KINDS.keys() - {"distance"}:
            raise Misfit("kind", "steered MD pulls at a distance; the first variable of `cv` is none")
        if self.velocity == 0:
            raise Misfit("velocity", "a spring that stands still drives nothing; give e.g. '1 angstrom/ps'")


class SteeredMD(LammpsSampler):
    """Pulls the molecule with a committee; a `Sampler`."""

    name = "steered"
    thermal = False

    def values(self, settings: Any, walker: Walker, folder: Path) -> Mapping[str, object]:
        """What fills the template; see `LammpsSampler.values`."""
        cv: Any = self.variables[0]
        return {
            "groups": cv.lammps_groups(),
            "variable": cv.lammps_variable(),
            "relaxation_steps": settings.relaxation_steps,
            "thermo": 100,
            "spring": f"{settings.spring:.10g}",
            "velocity": f"{settings.velocity * 1e3:.10g}",
            # fix smd counts what its first group gives, and turns the sign of a spring that moves inwards
            "sign": "-1" if settings.velocity > 0 else "1",
        }

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The work of the pulls along the collective variable, and its maximum: no free energy."""
        found = work(trajectories)
        whole = [t for t in trajectories if len(t) and not t.note]
        longest = max(whole or trajectories, key=len)
        return Profile("work", longest.cv, longest.work, np.full(len(longest), math.nan), found.mean, found.error)


@dataclass(frozen=True)
class Work:
    """Maximum of the spring's work over several pulls, eV.

    Attributes
    ----------
    maxima : one per trajectory.
    mean : their mean; nan for none.
    error : standard error of the mean; nan for fewer than two.
    """

    maxima: tuple[float, ...]
    mean: float
    error: float


def work(trajectories: Sequence[Trajectory]) -> Work:
    """W_max of complete pulls; those that were cut short (``note``) have no maximum and are left out."""
    maxima = [float(t.work.max()) for t in trajectories if len(t) and not t.note]
    count = len(maxima)
    mean = float(np.mean(maxima)) if count else math.nan
    error = float(np.std(maxima, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Work(tuple(maxima), mean, error)


def build(config: Config, variables: Sequence[Variable], start: Frame) -> SteeredMD:
    """The sampler that ``config`` describes."""
    return SteeredMD(config, variables, start)
