"""Well-tempered metadynamics with the committee: hills of bias drive the molecule out of its basins and over barriers.

Colvars lays the hills. The walkers of a round do not talk to each other: each fills the surface by itself, so that
a round gives the same results however fast its walkers run, and their spread is an honest error. They are joined
afterwards: the free energy comes from all frames of the round (`rareal.freeenergy.reweighting`), and the next round
starts with the mean of their biases (`rareal.freeenergy.bias`). That bias was grown on an earlier committee's surface;
no result depends on its being right, since the frames are weighted by the bias that acted on them, but where it is far
too high a basin stays empty for long. ``inherit`` below 1 lets old hills fade.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, field_validator, model_validator

from rareal.cv import Variable
from rareal.files import write_npz, write_text
from rareal.freeenergy.analysis import FreeEnergy, Settings, analyse
from rareal.freeenergy.analysis import save as save_free_energy
from rareal.freeenergy.bias import Bias, Hills, bias_temperature, joined, mean, no_bias, no_hills, read_hills, state
from rareal.freeenergy.grid import Axis, axis
from rareal.freeenergy.reweighting import History
from rareal.protocols import Progress
from rareal.records import Frame, Profile, Trajectory, Walker
from rareal.sampling import lammps
from rareal.sampling.base import Dynamics, LammpsSampler
from rareal.sampling.resume import seed
from rareal.schema import Misfit, Section
from rareal.units import KB, KCAL_MOL, Energy

COLVARS, START, OUTPUT, NAME = "bias.colvars", "inherited.colvars.state", "bias", "metadynamics"
HILLS = f"{OUTPUT}.colvars.{NAME}.hills.traj"
ARCHIVE, SURFACE = "bias.npz", "free_energy.npz"
"""A walker's bias, in its folder; the free energy from all walkers, beside their folders."""

BINS_PER_WIDTH = 5
"""Colvars takes the bias of the bin that a value is in: its grid must be fine on the scale of the hills."""

LARGEST_NOISE_SEED = 900_000_000


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping) else value


def _points(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple((point,) if isinstance(point, int | float) else point for point in value)
    return value


class Biased(Section):
    """How one collective variable is biased. Numbers are in its unit: Å for distances, degrees for angles."""

    hill_width: float = Field(gt=0, description="standard deviation of the hills, in the variable's unit")
    range: tuple[float, float] | None = Field(
        None,
        description="part of the variable that is explored, with harmonic walls at its ends, in the variable's unit; "
        "may be left out for angles that wrap",
    )
    wall: float | None = Field(
        None,
        gt=0,
        description="force constant of the walls, eV per squared unit of the variable; where not given, such that they "
        "have risen to 10 kT three hill widths beyond the range",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Biased:
        if self.range is not None and self.range[1] - self.range[0] < 4 * self.hill_width:
            raise ValueError("range: give the lower end first, and at least four hill widths between the ends")
        return self


class Config(Dynamics):
    """Well-tempered metadynamics on one or two collective variables."""

    kind: Literal["metadynamics"] = "metadynamics"
    relaxation_steps: int = Field(2000, ge=0, description="steps without bias before the drive")
    biased: Annotated[tuple[Biased, ...], BeforeValidator(_several)] = Field(
        description="one entry per collective variable, one or two, in the order of `cv`"
    )
    hill_height: Energy = Field(0.3 * KCAL_MOL, gt=0, description="height of a hill where there is no bias yet, eV")
    hill_interval: int = Field(50, ge=1, description="steps between two hills")
    bias_factor: float = Field(
        10.0,
        gt=1,
        description="γ of the well-tempered bias, which flattens basins and barriers to 1/γ of their height; a barrier "
        "of γ kT and more is crossed with ease",
    )
    inherit: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the last round's bias (the mean of its walkers') that a round starts with; 0 starts "
        "every round without bias",
    )
    discard: float = Field(0.1, ge=0, lt=1, description="share of every walker's steps left out of the free energy")
    basins: Annotated[tuple[tuple[float, ...], tuple[float, ...]] | None, BeforeValidator(_points)] = Field(
        None,
        description="a point in each of the two basins between which the barrier is taken, e.g. [-0.4, 0.4], or "
        "[[-60, 60], [180, 60]] for two variables; where not given, the basin of the structure and the lowest other",
    )
    basin_depth: Energy = Field(
        0.5 * KCAL_MOL, gt=0, description="depth below the way out that makes a minimum a basin, eV"
    )

    @field_validator("biased")
    @classmethod
    def _one_or_two(cls, biased: tuple[Biased, ...]) -> tuple[Biased, ...]:
        if len(biased) not in (1, 2):
            raise ValueError("one entry per collective variable, of which metadynamics takes one or two")
        return biased

    @model_validator(mode="after")
    def _walkers_share_the_ensemble(self) -> Config:
        if isinstance(self.walkers, tuple):
            for number, own in enumerate(self.walkers):
                for key in {"temperature", "biased", "bias_factor", "inherit"} & set(own):
                    raise ValueError(
                        f"walkers[{number}].{key}: walkers are joined to one free energy, so {key} is the same for all"
                    )
        return self

    def check_against(self, config: Any) -> None:
        """Refuse what does not go with the collective variables or the structure."""
        if len(self.biased) != len(config.cv):
            raise Misfit("biased", f"has {len(self.biased)} entries for {len(config.cv)} collective variables in `cv`")
        for point in self.basins or ():
            if len(point) != len(config.cv):
                raise Misfit("basins", f"a point has {len(config.cv)} numbers, one per collective variable")
        for number, own in enumerate(self.biased, start=1):
            variable = _variable(config, number)
            if set(_words(variable.colvars())) & GRID:
                raise Misfit("biased", f"leave {', '.join(sorted(GRID))} out of cv[{number}]: the sampler sets them")
            if own.range is None:
                if variable.period is None:
                    raise Misfit("biased", f"entry {number} needs a `range`: '{variable.label}' does not wrap")
                continue
            value = float(variable.value(config.frame.positions))
            if not own.range[0] <= value <= own.range[1]:
                raise Misfit(
                    "biased",
                    f"entry {number}: the structure is at {value:.4g} {variable.unit}, outside of the range "
                    f"{own.range[0]:g} to {own.range[1]:g}",
                )


GRID = frozenset(("width", "lowerboundary", "upperboundary"))
"""Keywords of a variable's block that lay out the grid of the bias."""


def _variable(config: Any, number: int) -> Variable:
    build = config.module(f"cv[{number}]").build
    parts = {"start": config.frame, "name": f"cv{number}"}
    known = inspect.signature(build).parameters
    made: Variable = build(config.cv[number - 1], **{key: part for key, part in parts.items() if key in known})
    return made


def _words(text: str) -> list[str]:
    return [line.split()[0].lower() for line in text.splitlines() if line.split()]


class Metadynamics(LammpsSampler):
    """Metadynamics with a committee; a `Sampler`."""

    name = "metadynamics"
    resumable = True

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The grid of the bias: the range and what the walls leave within reach."""
        kt = KB * self.config.temperature
        found = []
        for own, variable in zip(self.config.biased, self.variables, strict=True):
            width = own.hill_width / BINS_PER_WIDTH
            if variable.period is not None:
                found.append(axis(-0.5 * variable.period, 0.5 * variable.period, width, variable.period))
                continue
            # hills are still laid where the walls have risen to 15 kT, and reach five widths further
            margin = math.sqrt(30 * kt / wall(own, kt)) + 5 * own.hill_width
            found.append(axis(own.range[0] - margin, own.range[1] + margin, width))
        return tuple(found)

    def values(self, settings: Any, walker: Walker, folder: Path) -> Mapping[str, object]:
        """What fills the template; see `LammpsSampler.values`."""
        for old in folder.glob(f"{OUTPUT}.*"):
            old.unlink()
        write_text(folder / COLVARS, self.colvars(settings))
        start, hills = self.begun(walker)
        step = 0 if walker.resume is None else walker.resume.step
        from_state = bool(step or np.any(start.energy))
        if from_state:
            write_text(folder / START, state(start.plus(hills), NAME, step))
        return {
            "relaxation_steps": settings.relaxation_steps,
            "noise": 1 + (seed(walker) - 1) % LARGEST_NOISE_SEED,
            "inherited": f" input {START}" if from_state else "",
        }

    def colvars(self, settings: Any) -> str:
        """The input of Colvars."""
        kt = KB * settings.temperature
        names = " ".join(variable.name for variable in self.variables)
        widths = " ".join(f"{own.hill_width:.10g}" for own in settings.biased)
        lines = [
            "# Written by rareal. Energies in eV.",
            f"colvarsTrajFrequency {settings.frame_interval}",
            "colvarsRestartFrequency 0",
        ]
        for variable, along in zip(self.variables, self.axes, strict=True):
            grid = {"width": along.width, "lowerBoundary": along.low, "upperBoundary": along.high}
            head, _, rest = variable.colvars().partition("{")
            lines.append(head + "{\n" + "\n".join(f"  {key} {value:.16g}" for key, value in grid.items()) + rest)
        for variable, along, own in zip(self.variables, self.axes, settings.biased, strict=True):
            if own.range is not None:
                lines += [
                    "harmonicWalls {",
                    f"  name walls_{variable.name}",
                    f"  colvars {variable.name}",
                    f"  lowerWalls {own.range[0]:.10g}",
                    f"  upperWalls {own.range[1]:.10g}",
                    "  # Colvars counts distances from a wall in bins",
                    f"  forceConstant {wall(own, kt) * along.width**2:.10g}",
                    "}",
                ]
        lines += [
            "metadynamics {",
            f"  name {NAME}",
            f"  colvars {names}",
            f"  hillWeight {settings.hill_height:.10g}",
            f"  newHillFrequency {settings.hill_interval}",
            f"  gaussianSigmas {widths}",
            "  wellTempered on",
            f"  biasTemperature {bias_temperature(settings.bias_factor, settings.temperature):.10g}",
            "  writeHillsTrajectory on",
            "  writeFreeEnergyFile on",
            "  outputEnergy on",
            "}",
            "",
        ]
        return "\n".join(lines)

    def begun(self, walker: Walker) -> tuple[Bias, Hills]:
        """The bias that a walker started with, and the hills it has laid since then if its drive goes on."""
        if walker.resume is None or not walker.resume.parts:
            return self.inherited(walker), no_hills(len(self.variables))
        last = walker.resume.parts[-1]
        start, hills = load_bias(last.folder / ARCHIVE)
        return start, hills.until(last.last)

    def inherited(self, walker: Walker) -> Bias:
        """The bias that a walker gets from the last round."""
        left = [folder / ARCHIVE for folder in walker.previous if (folder / ARCHIVE).exists()]
        if not left or self.config.inherit == 0:
            return no_bias(self.axes)
        return mean([start.plus(hills) for start, hills in map(load_bias, left)], self.config.inherit)

    def collect(self, run: lammps.Run, walker: Walker) -> Trajectory:
        """What a run left, its bias kept for the next round."""
        trajectory = super().collect(run, walker)
        path = run.folder / HILLS
        start, before = self.begun(walker)
        hills = read_hills(path, len(self.variables)) if path.exists() else no_hills(len(self.variables))
        save_bias(run.folder / ARCHIVE, start, joined(before, hills))
        if not self.config.keep_dumps:
            (run.folder / f"{OUTPUT}.colvars.traj").unlink(missing_ok=True)
        return trajectory

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        """See `LammpsSampler.sample`; hills from beyond the usable part are no one's inheritance."""
        trajectory = super().sample(model, folder, walker, progress)
        if (folder / ARCHIVE).exists():
            start, hills = load_bias(folder / ARCHIVE)
            first = -1 if walker.resume is None else walker.resume.step
            save_bias(folder / ARCHIVE, start, hills.until(int(trajectory.steps[-1]) if len(trajectory) else first))
        return trajectory

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The free energy along the first variable, and the barrier of the whole surface.

        The surface itself, its errors and its convergence in time are written beside the walkers' folders.
        """
        result = self.free_energy(folders, trajectories)
        save_free_energy(folders[0].parent / SURFACE, result)
        known = np.isfinite(result.along)
        return Profile(
            "free energy",
            self.axes[0].centres[known],
            result.along[known],
            result.along_error[known],
            result.barrier,
            result.barrier_error,
            result.note,
        )

    def free_energy(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> FreeEnergy:
        """The surface from all walkers of a round."""
        histories = [self.history(folder, each) for folder, each in zip(folders, trajectories, strict=True)]
        config = self.config
        settings = Settings(
            temperature=config.temperature,
            factor=config.bias_factor,
            widths=tuple(0.5 * own.hill_width for own in config.biased),
            limits=tuple(own.range for own in config.biased),
            discard=config.discard,
            depth=config.basin_depth,
            start=tuple(float(variable.value(self.start.positions)) for variable in self.variables),
            ends=config.basins,
        )
        return analyse(histories, settings)

    def history(self, folder: Path, trajectory: Trajectory) -> History:
        """What a walker saw, and under which bias."""
        start, hills = load_bias(folder / ARCHIVE)
        other = None
        if self.config.of(trajectory.walker).uncertainty_bias is not None:
            # what is left of the bias, within the walls, is the committee's
            other = trajectory.bias - start.along(hills, trajectory.steps, trajectory.cvs)
        return History(trajectory.steps, trajectory.cvs, start, hills, other)


def wall(own: Biased, kt: float) -> float:
    """Force constant of a variable's walls, eV per squared unit."""
    return own.wall if own.wall is not None else 20 * kt / (3 * own.hill_width) ** 2


def save_bias(path: Path, start: Bias, hills: Hills) -> Path:
    """Keep what a walker started with, and its hills."""
    axes = np.array([[each.low, each.high, each.bins, each.period or 0.0] for each in start.axes])
    arrays = {item.name: getattr(hills, item.name) for item in fields(Hills)}
    return write_npz(path, axes=axes, energy=start.energy, gradient=start.gradient, **arrays)


def load_bias(path: Path) -> tuple[Bias, Hills]:
    """Read what `save_bias` wrote."""
    with np.load(path) as archive:
        axes = tuple(Axis(low, high, int(bins), period or None) for low, high, bins, period in archive["axes"].tolist())
        hills = Hills(**{item.name: archive[item.name] for item in fields(Hills)})
        return Bias(axes, archive["energy"], archive["gradient"]), hills


def build(config: Config, variables: Sequence[Variable], start: Frame) -> Metadynamics:
    """The sampler that ``config`` describes."""
    return Metadynamics(config, variables, start)
