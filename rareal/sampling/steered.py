"""Steered molecular dynamics with the committee: the paper's way to drive a rare event (section 2.2.1).

Relaxation at low temperature (Berendsen), then a stiff spring of constant velocity along the collective variable. The
work of the spring is the paper's measure of the activation energy; `rareal.sampling.work` says what may and what may
not be read off it.

A distance that is pulled at constant velocity, there and not back, is pulled by LAMMPS's own ``fix smd``, as in the
paper. All else is pulled by Colvars: angles, dihedrals, differences and so on; an atom or a group along a direction; a
constant force; and the way back. There the spring stands at the start during the relaxation, and at the end of the
way for ``turn_steps``, so that both ways begin in equilibrium.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from ase.data import atomic_masses
from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from rareal.cv import Variable
from rareal.errors import SamplingError
from rareal.files import write_text
from rareal.records import Array, Frame, Profile, Trajectory, Walker
from rareal.sampling import lammps, restraint
from rareal.sampling.base import Dynamics, LammpsSampler
from rareal.sampling.restraint import Leg
from rareal.sampling.resume import last_step, read_parts, seed
from rareal.sampling.trajectory import STEP, assemble, read_dump, read_table
from rareal.sampling.work import Ways, work_profile
from rareal.schema import Misfit, Section
from rareal.units import Temperature, parse_quantity


def _of_the_variable(unit: str) -> Any:
    """A number in ``unit``, in which X stands for the variable's: Å, or degrees where the text says so."""

    def parse(value: Any) -> Any:
        angle = isinstance(value, str) and re.search("deg|rad", value)
        return parse_quantity(value, unit.replace("X", "degree" if angle else "angstrom"))

    return BeforeValidator(parse)


Spring = Annotated[float, _of_the_variable("eV/X**2")]
Speed = Annotated[float, _of_the_variable("X/fs")]
Force = Annotated[float, _of_the_variable("eV/X")]


class Along(Section):
    """Atoms that are pulled along a direction in space instead of along the collective variable."""

    atoms: tuple[PositiveInt, ...] = Field(
        min_length=1, description="the atoms, numbered from 1; their centre of mass is pulled"
    )
    direction: tuple[float, float, float] = Field(description="the direction; its length does not matter")
    away_from: tuple[PositiveInt, ...] = Field(
        (), description="atoms whose centre of mass the way is measured from, and which are pulled the other way; a "
        "fixed point where none are given"
    )  # fmt: skip

    @model_validator(mode="after")
    def _has_a_direction(self) -> Along:
        if not np.linalg.norm(self.direction) > 0:
            raise ValueError("direction: (0, 0, 0) is none")
        if set(self.atoms) & set(self.away_from):
            raise ValueError("away_from: an atom cannot be pulled away from itself")
        return self


class Config(Dynamics):
    """The paper's protocol; its numbers are the defaults."""

    kind: Literal["steered"] = "steered"
    mode: Literal["velocity", "force"] = Field(
        "velocity", description="a spring whose end moves at constant velocity, or a constant force"
    )
    temperature: Temperature = Field(10.0, gt=0, description="temperature of relaxation and pull, K")
    thermostat: Literal["berendsen", "langevin", "csvr"] = Field(
        "berendsen",
        description="berendsen as in the paper; the others give a canonical ensemble, which free energies need",
    )
    relaxation_steps: int = Field(2000, ge=0, description="steps before the pull")
    spring: Spring = Field(
        10.0, gt=0, description="spring constant K of the force K times extension, eV/Å²; eV/degree² of an angle"
    )
    velocity: Speed = Field(
        0.001, description="velocity of the spring's end, Å/fs, degree/fs of an angle; negative pushes together"
    )
    velocities: tuple[Speed, ...] = Field(
        (), description="several velocities instead, each with as many walkers as `walkers` says; the work is "
        "extrapolated to velocity 0"
    )  # fmt: skip
    force: Force | None = Field(
        None, description="mode force: eV/Å, eV/degree of an angle; negative pushes towards smaller values"
    )
    steps: int = Field(
        6500, ge=1, description="steps of the pull, one way; of the fastest of several velocities, the others go the "
        "same way in more steps"
    )  # fmt: skip
    reverse: bool = Field(False, description="whether the spring goes back again, which shows how much work is lost")
    turn_steps: int | None = Field(
        None, ge=0, description="steps for which the spring stands before it goes back; relaxation_steps if not given"
    )
    along: Along | None = Field(None, description="pull atoms along a direction, not along the collective variable")
    hold: tuple[PositiveInt, ...] = Field((), description="atoms that do not move, e.g. the lower layers of a slab")
    walkers: PositiveInt | tuple[dict[str, Any], ...] = Field(
        5, description=Dynamics.model_fields["walkers"].description
    )
    frame_interval: int = Field(1, ge=1, description="keep the positions of every so many steps")

    @model_validator(mode="after")
    def _drives_somewhere(self) -> Self:
        if self.mode == "force":
            if not self.force:
                raise ValueError("force: mode 'force' needs one, and not 0, e.g. '2 eV/angstrom'")
            if self.reverse or self.velocities:
                raise ValueError("mode: a constant force has no velocities and no way back; use mode: velocity")
        elif self.force is not None:
            raise ValueError("force: this is for mode 'force'; a spring is described by `spring` and `velocity`")
        if self.velocities and (0 in self.velocities or min(self.velocities) * max(self.velocities) < 0):
            raise ValueError("velocities: none may be 0, and all must go the same way")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse a spring that does not move, and atoms that the structure does not have."""
        super().check_against(config)
        if self.velocity == 0:
            raise Misfit("velocity", "a spring that stands still drives nothing; give e.g. '1 angstrom/ps'")
        count = len(config.frame.numbers)
        named = {"hold": self.hold}
        if self.along is not None:
            named |= {"along.atoms": self.along.atoms, "along.away_from": self.along.away_from}
            if not self.hold and not self.along.away_from:
                raise Misfit(
                    "along", "nothing holds the structure back: it would only be dragged along. Name atoms under "
                    "`hold`, or under `along.away_from`"
                )  # fmt: skip
        for key, atoms in named.items():
            for atom in atoms:
                if atom > count:
                    raise Misfit(key, f"there is no atom {atom} in the structure; number the atoms 1 to {count}")
        if len(set(self.hold)) == count:
            raise Misfit("hold", "all atoms are held; nothing could move")
        if self.along is not None and set(self.hold) & set(self.along.atoms):
            raise Misfit("hold", "an atom that is pulled cannot be held")

    @property
    def count(self) -> int:
        """Number of walkers."""
        return super().count * max(1, len(self.velocities))

    def of(self, number: int) -> Self:
        """The settings of one walker; see `Dynamics.of`."""
        if not self.velocities:
            return super().of(number)
        settings = super().of(number // len(self.velocities))
        velocity = self.velocities[number % len(self.velocities)]
        steps = round(settings.steps * max(map(abs, self.velocities)) / abs(velocity))
        return settings.model_copy(update={"velocity": velocity, "velocities": (), "steps": steps})


class SteeredMD(LammpsSampler):
    """Pulls the molecule with a committee; a `Sampler`."""

    name = "steered"
    thermal = False
    resumable = True

    PULL: ClassVar[str] = "pull"
    """Name of the variable of `Along`."""

    def plain(self, settings: Any) -> bool:
        """Whether the paper's own pull is asked for, by ``fix smd``.

        Where it was interrupted Colvars goes on with it: ``fix smd`` can only begin at rest.
        """
        return (
            settings.mode == "velocity"
            and not settings.reverse
            and settings.along is None
            and hasattr(self.variables[0], "lammps_groups")
        )

    def lengths(self, settings: Any) -> tuple[int, int]:
        """Steps one way, and steps for which the spring stands before it goes back.

        Multiples of ``frame_interval`` where there is a way back, so that frames lie on the ends.
        """
        if not settings.reverse:
            return settings.steps, 0
        every = settings.frame_interval
        stand = settings.relaxation_steps if settings.turn_steps is None else settings.turn_steps
        return -(-settings.steps // every) * every, -(-stand // every) * every

    def legs(self, settings: Any, walker: Walker) -> list[Leg]:
        """Stretches of the spring's way: there or, with ``reverse``, there, a stand, and back; what is left of them."""
        resume = walker.resume
        if resume is None:
            return self.way(settings, float(self.pulled(settings, walker.start)(walker.start.positions)))
        begun = read_parts(resume.parts)[0]
        # fix smd begins where the relaxation has led to
        here = float(
            begun.cv[0] if self.plain(settings) else self.pulled(settings, walker.start)(walker.start.positions)
        )
        whole = self.way(settings, here)
        left = [leg.after(resume.step) for leg in whole if leg.first + leg.steps > resume.step]
        return left or [Leg(whole[-1].label, whole[-1].end, whole[-1].end, 0, resume.step)]

    def way(self, settings: Any, here: float) -> list[Leg]:
        """The whole way of a spring that begins at ``here``."""
        steps, stand = self.lengths(settings)
        end = here + settings.velocity * settings.timestep * steps
        there = Leg("there", here, end, steps, 0)
        if not settings.reverse:
            return [there]
        turn = [Leg("turn", end, end, stand, steps)] if stand else []
        return [there, *turn, Leg("back", end, here, steps, steps + stand)]

    def steps(self, settings: Any) -> int:
        """Steps of a walker's drive, to and fro."""
        steps, stand = self.lengths(settings)
        return 2 * steps + stand if settings.reverse else steps

    def pulled(self, settings: Any, start: Frame) -> Any:
        """Positions [..., N, 3] -> what the spring pulls at."""
        if settings.along is None:
            return self.variables[0].value
        unit = np.array(settings.along.direction) / np.linalg.norm(settings.along.direction)

        def centre(atoms: Sequence[int], positions: Array) -> Array:
            index = np.array(atoms) - 1
            found: Array = np.average(positions[..., index, :], axis=-2, weights=atomic_masses[start.numbers[index]])
            return found

        def projection(positions: Array) -> Array:
            other = settings.along.away_from
            origin = centre(other, positions) if other else centre(settings.along.atoms, start.positions)
            along: Array = (centre(settings.along.atoms, positions) - origin) @ unit
            return along

        return projection

    def block(self, settings: Any, start: Frame) -> tuple[str, str]:
        """The ``colvar`` block of what is pulled, and its name."""
        if settings.along is None:
            return self.variables[0].colvars(), self.variables[0].name
        along = settings.along
        index = np.array(along.atoms) - 1
        point = np.average(start.positions[index], axis=0, weights=atomic_masses[start.numbers[index]])
        fixed = f"dummyAtom ({', '.join(f'{x:.12f}' for x in point)})"
        reference = f"atomNumbers {' '.join(map(str, along.away_from))}" if along.away_from else fixed
        lines = ["colvar {", f"  name {self.PULL}", "  distanceZ {", "    forceNoPBC yes"]
        lines += ["    main {", f"      atomNumbers {' '.join(map(str, along.atoms))}", "    }"]
        lines += ["    ref {", f"      {reference}", "    }"]
        lines += [f"    axis ({', '.join(f'{x:.12f}' for x in along.direction)})", "  }", "}"]
        return "\n".join(lines), self.PULL

    def values(self, settings: Any, walker: Walker, folder: Path) -> Mapping[str, object]:
        """What fills the template; see `LammpsSampler.values`."""
        moving = "moving" if settings.hold else "all"
        thermal = f"{settings.temperature:.10g} {settings.temperature:.10g} {settings.damping * 1e-3:.10g}"
        bath = {"berendsen": "temp/berendsen", "langevin": "langevin", "csvr": "temp/csvr"}[settings.thermostat]
        random = "" if settings.thermostat == "berendsen" else f" {seed(walker)}"
        # the total momentum is no constant where atoms are held: no degrees of freedom are lost to it
        degrees = (
            "\ncompute_modify  bath_temp extra/dof 0" if settings.hold and settings.thermostat != "langevin" else ""
        )
        held = f"group held id {' '.join(map(str, settings.hold))}\ngroup moving subtract all held\n"
        values = {
            "moving": moving,
            # what is held takes up momentum
            "momentum": "no" if settings.hold else "yes",
            "rotation": "no" if settings.hold or any(walker.start.pbc) else "yes",
            "bath": f"fix             bath {moving} {bath} {thermal}{random}{degrees}",
        }
        own = self.smd(settings, walker) if self.by_smd(settings, walker) else self.colvars(settings, walker, folder)
        own["coordinate"] = (held if settings.hold else "") + str(own["coordinate"])
        return {**values, **own}

    def by_smd(self, settings: Any, walker: Walker) -> bool:
        """Whether ``fix smd`` pulls in this part of a drive."""
        return self.plain(settings) and walker.resume is None

    def end(self, settings: Any, walker: Walker) -> int:
        """The last step of this part of a drive, if nothing stops it."""
        return last_step(walker, self.steps(settings), settings.frame_interval)

    def smd(self, settings: Any, walker: Walker) -> dict[str, object]:
        """The paper's pull."""
        cv: Any = self.variables[0]
        # fix smd counts what its first group gives, and turns the sign of a spring that moves inwards
        sign = "-1" if settings.velocity > 0 else "1"
        return {
            "what": "a spring pulls two groups of atoms apart at constant velocity.",
            "differences": ".",
            "coordinate": f"{cv.lammps_groups()}\n{cv.lammps_variable()}",
            "columns": "v_cv",
            "work": "v_work",
            "titles": "cv work",
            "relaxation": f"run             {settings.relaxation_steps}",
            "spring": "# The pull. fix smd adds up force times displacement of the spring's end; its sign follows\n"
            "# the spring's force on the first group, so the work done on the atoms is\n"
            f"# {sign} times the last entry of its vector.\n"
            f"fix             spring cv_first smd cvel {settings.spring:.10g} {settings.velocity * 1e3:.10g} couple "
            "cv_second auto auto auto 0.0\n"
            f"variable        work equal {sign}*f_spring[7]",
            "legs": f"run             {self.end(settings, walker)}",
        }

    def colvars(self, settings: Any, walker: Walker, folder: Path) -> dict[str, object]:
        """Any other pull; the Colvars files are written into ``folder``."""
        block, name = self.block(settings, walker.start)
        legs = self.legs(settings, walker)
        here = Leg("here", legs[0].start, legs[0].start, max(1, settings.relaxation_steps), 0)
        files = {leg.label: restraint.spring(block, name, leg, settings.spring) for leg in [here, *legs]}
        what = "a spring moves along a collective variable and back." if settings.reverse else (
            "a spring moves along a collective variable."
        )  # fmt: skip
        if settings.mode == "force":
            what = "a constant force along a collective variable."
            files = {"there": restraint.constant_force(block, name, settings.force)}
        for label, text in files.items():
            write_text(folder / f"{label}.colvars", text)
        relaxation = f"run             {settings.relaxation_steps}"
        if "here" in files:
            relaxation = f"{_fix('here')}\n{relaxation}\nunfix           spring"
        if walker.resume is not None:
            relaxation = f"# The drive goes on at step {walker.resume.step}."
        end = self.end(settings, walker)
        drive = [f"run             {min(legs[0].steps, end - legs[0].first)}"]
        for leg in (leg for leg in legs[1:] if leg.first < end):
            drive += ["unfix           spring", _fix(leg.label), f"run             {min(leg.steps, end - leg.first)}"]
        return {
            "what": what,
            "differences": ",\n# whose spring is Colvars's here; its work is computed from *.colvars.traj afterwards.",
            "coordinate": "# in *.colvars",
            "columns": "",
            "work": "",
            "titles": "",
            "relaxation": relaxation,
            "spring": _fix(legs[0].label),
            "legs": "\n".join(drive),
        }

    def collect(self, run: lammps.Run, walker: Walker) -> Trajectory:
        """What a run left; it may be empty. The work of a Colvars spring is added up here."""
        settings = self.config.of(walker.number)
        if self.by_smd(settings, walker):
            return super().collect(run, walker)
        table = read_table(run.folder / lammps.TABLE)
        if table:
            work = self.work(settings, walker, run.folder)
            known = len(table[STEP])
            # Colvars' file and ours may end at different steps where a run was cut short
            known = min(known, len(work))
            table = {**{column: rows[:known] for column, rows in table.items()}, "work": work[:known]}
        steps, positions = read_dump(run.folder / lammps.DUMP, len(walker.start.numbers))
        return assemble(table, steps, positions, self.variables, walker.number, walker.seed, run.failure)

    def work(self, settings: Any, walker: Walker, folder: Path) -> Array:
        """Work [T] of spring or force since the beginning of the drive, eV, at every step of this part."""
        _, name = self.block(settings, walker.start)
        before = 0.0 if walker.resume is None else float(read_parts(walker.resume.parts)[-1].work[-1])
        period = self.variables[0].period if settings.along is None else None
        if settings.mode == "force":
            values = restraint.read_values(folder / "there.colvars.traj", name)
            moved: Array = np.diff(values, prepend=values[:1])
            if period is not None:
                moved -= period * np.round(moved / period)
            done: Array = before + settings.force * np.cumsum(moved)
            return done
        total = np.array([before])
        for leg in self.legs(settings, walker):
            values = restraint.read_values(folder / f"{leg.label}.colvars.traj", name)[: leg.steps + 1]
            done = restraint.spring_work(leg, values, settings.spring, period, as_smd=self.plain(settings))
            total = np.concatenate([total, total[-1] + done[1:]])
            if len(values) <= leg.steps:
                break
        return total

    def ways(self, trajectory: Trajectory) -> Ways:
        """A trajectory's work, one way and back."""
        settings = self.config.of(trajectory.walker)
        steps, stand = self.lengths(settings)
        velocity = 0.0 if settings.mode == "force" else abs(settings.velocity)
        back = steps + stand if settings.reverse else None
        return Ways(trajectory, velocity, steps, back, settings.temperature, settings.thermostat != "berendsen")

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The work of the pulls along the collective variable, and its maximum: no free energy."""
        return work_profile([self.ways(trajectory) for trajectory in trajectories])


def _fix(label: str) -> str:
    return f"fix             spring all colvars {label}.colvars output {label}"


def build(config: Config, variables: Sequence[Variable], start: Frame) -> SteeredMD:
    """The sampler that ``config`` describes.

    Raises
    ------
    SamplingError
        If there is no collective variable.
    """
    if not variables:
        raise SamplingError("a pull needs a collective variable")
    return SteeredMD(config, variables, start)
