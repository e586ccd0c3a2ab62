"""What all samplers share: the settings of a drive, and LAMMPS driven by a script that runs again by hand.

A sampler is one file: its `Config`, a template ``rareal/inputs/in.NAME``, and how it reads its barrier off what LAMMPS
left. The template's ``@potential`` block is the committee here, and the label engine in `rareal.sampling.reference`;
any other potential may stand there, which is how a sampler is tested against closed forms.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PositiveInt, ValidationError, model_validator

from rareal.cv import Variable
from rareal.errors import ModelFileError, SamplingError
from rareal.files import write_text
from rareal.plugin import lmp_command, lmp_environment
from rareal.protocols import Progress
from rareal.records import Frame, Profile, Trajectory, Walker
from rareal.sampling import bias, lammps, resume
from rareal.sampling.trajectory import assemble, read_dump, read_table
from rareal.sampling.usable import usable
from rareal.schema import Section
from rareal.units import Temperature, Time

LARGEST_SEED = 2**31 - 2
TRUSTED = "trusted.dump"
"""The last frame before a drive stopped by itself."""


class Dynamics(Section):
    """Settings that every sampler has."""

    temperature: Temperature = Field(300.0, gt=0, description="temperature, K")
    damping: Time = Field(50.0, gt=0, description="time constant of the thermostat, fs")
    timestep: Time = Field(0.5, gt=0, description="time step, fs")
    steps: int = Field(20000, ge=1, description="steps of the drive, per walker and round")
    frame_interval: int = Field(10, ge=1, description="keep the positions of every so many steps")
    walkers: PositiveInt | tuple[dict[str, Any], ...] = Field(
        2,
        description="drives per round, which differ in the seed of their velocities; or a list with what else is "
        "different for each, e.g. [{temperature: 300 K}, {temperature: 400 K}]",
    )
    start: Path | None = Field(
        None, description="structure that a walker starts from, relative to the YAML, where it is not the run's own"
    )
    driver: Literal["mean", "best"] = Field("mean", description="committee mean, or the best member's surface")
    uncertainty_bias: bias.UncertaintyBias | None = Field(
        None, description="a bias towards what the committee disagrees on; {} for the rule with its defaults"
    )
    patience: float = Field(600.0, gt=0, description="seconds without output after which a drive counts as hung")
    keep_dumps: bool = Field(False, description="keep LAMMPS's own trajectory files beside the round's archive")

    @model_validator(mode="after")
    def _walkers_are_valid(self) -> Self:
        if isinstance(self.walkers, tuple):
            if not self.walkers:
                raise ValueError("walkers: give a number, or a list with an entry {} per walker")
            for number in range(len(self.walkers)):
                self.of(number)
        return self

    @property
    def count(self) -> int:
        """Number of walkers."""
        return len(self.walkers) if isinstance(self.walkers, tuple) else self.walkers

    def of(self, number: int) -> Self:
        """The settings of one walker.

        Raises
        ------
        ValueError
            If what is different for it is not valid; the message names the key.
        """
        own = self.walkers[number % len(self.walkers)] if isinstance(self.walkers, tuple) else {}
        common = self.model_dump(exclude={"walkers"})
        for key in ("walkers", "kind"):
            if key in own:
                raise ValueError(f"walkers[{number}].{key}: this is the same for all walkers; leave it out here")
        try:
            return type(self).model_validate({**common, **own, "walkers": 1})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"walkers[{number}].{place}: {first['msg']}") from error


class LammpsSampler(ABC):
    """A `Sampler` that writes a LAMMPS script, runs it and reads what it leaves.

    Parameters
    ----------
    config : the settings, of all walkers.
    variables : the collective variables, the event's first.
    start : the run's structure.

    Attributes
    ----------
    name : of the script, ``in.NAME``.
    thermal : see `rareal.protocols.Sampler`.
    resumable : whether a drive may be interrupted and go on (`Walker.resume`): the template has the placeholders of
        `rareal.sampling.resume.script_values`, and what the sampler adds to the potential goes on where it was.
    """

    name: ClassVar[str]
    thermal: ClassVar[bool] = True
    resumable: ClassVar[bool] = False

    def __init__(self, config: Any, variables: Sequence[Variable], start: Frame) -> None:
        self.config = config
        self.variables = tuple(variables)
        self.start = start

    @abstractmethod
    def values(self, settings: Any, walker: Walker, folder: Path) -> Mapping[str, object]:
        """What fills the template beyond `common`; ``settings`` are those of this walker.

        Other files that the script reads are written into ``folder`` here.
        """

    @abstractmethod
    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The barrier of a round; see `rareal.protocols.Sampler`."""

    @property
    def script_name(self) -> str:
        """Of the script in a walker's folder."""
        return f"in.{self.name}"

    def template(self) -> str:
        """The script with ``@name`` where a value goes; rareal's own is in ``rareal/inputs``."""
        return lammps.template(self.script_name)

    def steps(self, settings: Any) -> int:
        """Steps of a walker's drive."""
        return int(settings.steps)

    def common(self, settings: Any, walker: Walker) -> dict[str, object]:
        """The values that all templates have in common.

        Raises
        ------
        SamplingError
            If LAMMPS cannot take the walker's seed.
        """
        if not 0 < walker.seed <= LARGEST_SEED:
            raise SamplingError(f"velocity seeds of LAMMPS lie between 1 and {LARGEST_SEED}, {walker.seed} does not")
        return {
            "boundary": lammps.boundary(walker.start),
            "timestep": f"{settings.timestep * 1e-3:.10g}",
            "temperature": f"{settings.temperature:.10g}",
            "damping": f"{settings.damping * 1e-3:.10g}",
            **resume.script_values(walker, self.steps(settings), settings.frame_interval),
        }

    def prepare(self, folder: Path, walker: Walker, potential: str) -> None:
        """Write the script and all that it reads; ``potential`` is its block of pair style and variables."""
        settings = self.config.of(walker.number)
        folder.mkdir(parents=True, exist_ok=True)
        text = {**self.common(settings, walker), "potential": potential, **self.values(settings, walker, folder)}
        velocities = None if walker.resume is None else walker.resume.velocities
        write_text(folder / lammps.DATA, lammps.data_file(resume.placed(walker), velocities))
        write_text(folder / self.script_name, lammps.fill(self.template(), text))

    def run(self, folder: Path, walker: Walker, command: Sequence[str], stdin: bytes = b"") -> lammps.Run:
        """The process that runs the script with ``command``."""
        settings = self.config.of(walker.number)
        steps = resume.last_step(walker, self.steps(settings), settings.frame_interval)
        return lammps.Run(folder, [*command, self.script_name], steps, lmp_environment(), stdin)

    def collect(self, run: lammps.Run, walker: Walker) -> Trajectory:
        """What a run left; it may be empty."""
        steps, positions = read_dump(run.folder / lammps.DUMP, len(walker.start.numbers))
        table = read_table(run.folder / lammps.TABLE)
        return assemble(table, steps, positions, self.variables, walker.number, walker.seed, run.failure)

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        """One walker's trajectory, ``steps`` counted from the beginning of the drive; what it sees from `resume` on.

        A drive that fails on the way is cut to its usable part, which may be none, and says why in ``note``.
        """
        settings = self.config.of(walker.number)
        try:
            self.write(model, folder, walker)
        except SamplingError as error:
            return self.nothing(walker, str(error))
        run = self.run(folder, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
        lammps.run_all([run], 1, settings.patience, progress)
        trajectory = usable(self.collect(run, walker), walker.start, self.variables)
        if resume.stops(walker):
            resume.keep_segment(folder, walker, trajectory, self.steps(settings), settings.frame_interval)
        if not len(trajectory):
            log = folder / lammps.LOG
            reason = f"{trajectory.note or 'no output'}. Read {log if log.exists() else folder / lammps.SCREEN}"
            return replace(trajectory, note=reason)
        if not settings.keep_dumps:
            (folder / lammps.DUMP).unlink(missing_ok=True)
        return trajectory

    def write(self, model: Path, folder: Path, walker: Walker, dry: bool = False) -> None:
        """Write all that LAMMPS reads for a drive with the committee in the file ``model``.

        With ``dry`` nothing runs for that: a bias whose strength would be measured first has a placeholder of it.

        Raises
        ------
        SamplingError
            See `bias`.
        """
        driver = "mean" if self.config.of(walker.number).driver == "mean" else str(best_member(model) + 1)
        options = f"drive {driver} {self.bias(model, folder, walker, driver, dry)}".rstrip()
        # relative, so that a run folder can be moved
        self.prepare(folder, walker, self.committee(os.path.relpath(model, folder), walker, options))

    def nothing(self, walker: Walker, why: str) -> Trajectory:
        """A trajectory without frames, of a drive that did not begin."""
        nowhere = np.empty((0, len(walker.start.numbers), 3))
        return assemble({}, np.empty(0, dtype=np.int64), nowhere, self.variables, walker.number, walker.seed, why)

    def bias(self, model: Path, folder: Path, walker: Walker, driver: str, dry: bool = False) -> str:
        """The pair style's keyword of the bias towards disagreement; empty where none is asked for.

        Raises
        ------
        SamplingError
            See `rareal.sampling.bias.measure`.
        """
        settings = self.config.of(walker.number)
        wanted: bias.UncertaintyBias | None = settings.uncertainty_bias
        if wanted is None:
            return ""
        scale = math.nan
        if not wanted.given:
            path = os.path.relpath(model, folder / bias.FOLDER)
            block = committee(path, lammps.elements(walker.start), f"drive {driver}")
            place = bias.prepare(folder, walker, settings, block)
            scale = bias.PLACEHOLDER if dry else bias.measure(place, settings)
        return wanted.keyword(settings.temperature, scale)

    def committee(self, model: str, walker: Walker, options: str) -> str:
        """The potential block of the committee in the file ``model``; ``options`` are keywords of the pair style."""
        if walker.halt is not None:
            halt = walker.halt
            options += f" halt {halt.score} {halt.above:.10g} patience {halt.patience} halt_file {TRUSTED}"
        return committee(model, lammps.elements(walker.start), options)


def committee(model: str, names: Sequence[str], options: str) -> str:
    """The potential block of a committee; ``options`` are keywords of the pair style."""
    outputs = {"energy_std": 1, "force_std_max": 2, "force_std_mean": 3, "committee_bias": 7}
    return "\n".join(
        [
            f"pair_style      mlensemble {options}",
            f'pair_coeff      * * "{model}" {" ".join(names)}',
            "compute         committee all pair mlensemble",
            *(f"variable        {name} equal c_committee[{k}]" for name, k in outputs.items()),
        ]
    )


def best_member(model: Path) -> int:
    """The member (counted from 0) that the model file calls its best.

    Raises
    ------
    ModelFileError
        If the file is no committee, or does not say.
    """
    try:
        with zipfile.ZipFile(model) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/extra/rareal.json"))
            metadata = json.loads(archive.read(name))
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError) as error:
        raise ModelFileError(f"{model} is no committee of rareal's; export it again") from error
    if not isinstance(metadata.get("best_member"), int):
        raise ModelFileError(f"{model} does not say which member is best ('best_member'); use sampler.driver: mean")
    return int(metadata["best_member"])
