"""Steered molecular dynamics with the committee: the paper's way to drive a rare event (section 2.2.1).

Relaxation at low temperature (Berendsen), then a stiff spring of constant velocity between the two ends of the
collective variable. The work of the spring is the paper's measure of the activation energy.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rareal import cv
from rareal.cv import Distance
from rareal.errors import ModelFileError, SamplingError
from rareal.files import write_text
from rareal.plugin import lmp_command, lmp_environment
from rareal.protocols import Progress
from rareal.records import Frame, Trajectory
from rareal.sampling import lammps
from rareal.sampling.trajectory import assemble, read_dump, read_table
from rareal.schema import Misfit, Section
from rareal.units import SpringConstant, Temperature, Time, Velocity

LARGEST_SEED = 2**31 - 2


class Config(Section):
    """The paper's protocol; its numbers are the defaults."""

    kind: Literal["steered"] = "steered"
    temperature: Temperature = Field(10.0, gt=0, description="temperature of relaxation and pull, K")
    damping: Time = Field(50.0, gt=0, description="time constant of the Berendsen thermostat, fs")
    timestep: Time = Field(0.5, gt=0, description="time step, fs")
    relaxation_steps: int = Field(2000, ge=0, description="steps before the pull")
    spring: SpringConstant = Field(10.0, gt=0, description="spring constant K of the force K times extension, eV/Å²")
    velocity: Velocity = Field(0.001, description="velocity of the spring's end, Å/fs; negative pushes together")
    steps: int = Field(6500, ge=1, description="steps of the pull")
    walkers: int = Field(5, ge=1, description="pulls per round; they differ in the seed of their velocities")
    frame_interval: int = Field(1, ge=1, description="keep the positions of every so many steps")
    driver: Literal["mean", "best"] = Field("mean", description="committee mean, or the best member's surface")
    patience: float = Field(600.0, gt=0, description="seconds without output after which a pull counts as hung")
    keep_dumps: bool = Field(False, description="keep LAMMPS's own trajectory files beside the round's archive")

    def check_against(self, config: Any) -> None:
        """Refuse a spring that does not move."""
        if getattr(config.cv[0], "kind", "") in cv.KINDS.keys() - {"distance"}:
            raise Misfit("kind", "steered MD pulls at a distance; the first variable of `cv` is none")
        if self.velocity == 0:
            raise Misfit("velocity", "a spring that stands still drives nothing; give e.g. '1 angstrom/ps'")


def script(config: Config, cv: Distance, frame: Frame, seed: int, potential: str) -> str:
    """The LAMMPS script of one pull; ``potential`` is its block of pair style and disagreement variables.

    Raises
    ------
    SamplingError
        If LAMMPS cannot take ``seed``.
    """
    if not 0 < seed <= LARGEST_SEED:
        raise SamplingError(f"velocity seeds of LAMMPS lie between 1 and {LARGEST_SEED}, {seed} does not")
    values = {
        "boundary": lammps.boundary(frame),
        "timestep": f"{config.timestep * 1e-3:.10g}",
        "potential": potential,
        "groups": cv.lammps_groups(),
        "variable": cv.lammps_variable(),
        "temperature": f"{config.temperature:.10g}",
        "damping": f"{config.damping * 1e-3:.10g}",
        "seed": seed,
        "relaxation_steps": config.relaxation_steps,
        "thermo": 100,
        "spring": f"{config.spring:.10g}",
        "velocity": f"{config.velocity * 1e3:.10g}",
        # fix smd counts what its first group gives, and turns the sign of a spring that moves inwards
        "sign": "-1" if config.velocity > 0 else "1",
        "frame_interval": config.frame_interval,
        "steps": config.steps,
    }
    return lammps.render(lammps.SCRIPT, values)


def committee(model: str, names: Sequence[str], drive: str) -> str:
    """The potential block of a committee in the file ``model``."""
    return "\n".join(
        [
            f"pair_style      mlensemble drive {drive}",
            f'pair_coeff      * * "{model}" {" ".join(names)}',
            "compute         committee all pair mlensemble",
            *(
                f"variable        {name} equal c_committee[{k}]"
                for k, name in enumerate(("energy_std", "force_std_max", "force_std_mean"), start=1)
            ),
        ]
    )


def prepare(folder: Path, frame: Frame, text: str) -> None:
    """Write script and data file of one pull."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / lammps.DATA, lammps.data_file(frame))
    write_text(folder / lammps.SCRIPT, text)


def collect(run: lammps.Run, walker: int, seed: int, atoms: int) -> Trajectory:
    """What a run left; it may be empty."""
    steps, positions = read_dump(run.folder / lammps.DUMP, atoms)
    return assemble(read_table(run.folder / lammps.TABLE), steps, positions, walker, seed, run.failure)


class SteeredMD:
    """Pulls the molecule with a committee; a `Sampler`.

    Parameters
    ----------
    config : the protocol.
    cv : what the spring pulls.
    start : the structure every pull starts from.
    """

    def __init__(self, config: Config, cv: Distance, start: Frame) -> None:
        self.config = config
        self.cv = cv
        self.start = start

    def sample(self, model: Path, folder: Path, walker: int, seed: int, progress: Progress | None = None) -> Trajectory:
        """One walker's trajectory, the pull alone, ``steps`` counted from its beginning.

        A pull that fails on the way is cut to its usable part, which may be none, and says why in ``note``.
        """
        drive = "mean" if self.config.driver == "mean" else str(best_member(model) + 1)
        # relative, so that a run folder can be moved
        block = committee(os.path.relpath(model, folder), lammps.elements(self.start), drive)
        prepare(folder, self.start, script(self.config, self.cv, self.start, seed, block))
        command = [*lmp_command(), "-in", lammps.SCRIPT, "-log", lammps.LOG]
        run = lammps.Run(folder, command, self.config.steps, lmp_environment())
        lammps.run_all([run], 1, self.config.patience, progress)
        trajectory = collect(run, walker, seed, len(self.start.numbers))
        if not len(trajectory):
            log = folder / lammps.LOG
            reason = f"{trajectory.note or 'no output'}. Read {log if log.exists() else folder / lammps.SCREEN}"
            return replace(trajectory, note=reason)
        if not self.config.keep_dumps:
            (folder / lammps.DUMP).unlink(missing_ok=True)
        return trajectory


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


def build(config: Config, cv: Distance, start: Frame) -> SteeredMD:
    """The sampler that ``config`` describes."""
    return SteeredMD(config, cv, start)
