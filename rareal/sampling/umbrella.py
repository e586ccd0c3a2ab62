"""Umbrella sampling with the committee: windows along the event's collective variable, joined by MBAR.

G. M. Torrie and J. P. Valleau, J. Comput. Phys. 1977, 23, 187. The free energy of equilibrium sampling, as the check on
the work of a pull and on the hills of metadynamics. The windows are shared out among the walkers in blocks; a walker
drags its start to its first window and then goes from window to window, each started from where the last one ended.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from rareal.cv import Variable
from rareal.errors import SamplingError
from rareal.files import write_text
from rareal.records import Array, Frame, Profile, Trajectory, Walker
from rareal.sampling import lammps
from rareal.sampling.base import Dynamics, LammpsSampler
from rareal.sampling.mbar import Windows, free_energy, wrapped
from rareal.schema import Misfit
from rareal.units import KB, parse_quantity

SOFTNESS = 2.0
"""The force constant is this many kT over the square of the spacing where none is given: on even ground neighbouring
windows are then 1.4 of their own widths apart. On a slope of the profile's second derivative -K they drift apart by
1/(1 - K/k), so the top of a sharp barrier wants more windows, and a k that grows with them."""

WINDOWS = 24
"""Where neither number nor spacing is given."""

OWN = {"start", "frame_interval", "patience", "keep_dumps"}
"""What may be different for a walker: all windows are joined into one profile."""


def _force_constant(value: Any) -> Any:
    """In eV/Å², eV/degree², or eV for a variable without a unit."""
    if not isinstance(value, str):
        return value
    try:
        return parse_quantity(value, "eV/angstrom**2")
    except ValueError:
        return parse_quantity(value, "eV/degree**2" if re.search("deg|rad", value) else "eV")


class Config(Dynamics):
    """Windows from ``first`` to ``last``."""

    kind: Literal["umbrella"] = "umbrella"
    first: float = Field(description="centre of the first window, in the variable's unit; where the event starts")
    last: float = Field(description="centre of the last window, in the variable's unit")
    windows: int | None = Field(None, ge=2, description=f"number of windows; {WINDOWS} if no spacing is given either")
    spacing: float | None = Field(None, gt=0, description="distance between windows, instead of their number")
    force_constant: Annotated[float | None, BeforeValidator(_force_constant)] = Field(
        None,
        gt=0,
        description="k of the restraint k/2 (x - centre)², eV per squared unit of the variable; "
        f"{SOFTNESS:g} kT over the squared spacing if not given",
    )
    equilibration: int = Field(1000, ge=0, description="steps in each window before samples count")
    steps: int = Field(10000, ge=1, description="steps in each window after that")
    bin_width: float | None = Field(
        None, gt=0, description="bins of the profile, in the variable's unit; half the spacing if not given"
    )

    @model_validator(mode="after")
    def _windows_are_one_set(self) -> Self:
        if self.windows is not None and self.spacing is not None:
            raise ValueError("windows: give the number of windows or their spacing, not both")
        if self.first == self.last:
            raise ValueError("last: the windows must lead somewhere; first and last are the same")
        if self.spacing is not None and self.spacing > abs(self.last - self.first):
            raise ValueError("spacing: larger than the way from first to last; there would be one window")
        if isinstance(self.walkers, tuple):
            for number, own in enumerate(self.walkers):
                for key in own.keys() - OWN:
                    raise ValueError(
                        f"walkers[{number}].{key}: all windows are joined into one profile, so this is the same for "
                        f"all walkers; {', '.join(sorted(OWN))} may be different"
                    )
        if self.count > len(self.centers):
            raise ValueError(f"walkers: {self.count} walkers cannot share {len(self.centers)} windows")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse fewer than two frames in a window, and a profile that could not be computed in the end."""
        if importlib.util.find_spec("pymbar") is None:
            raise Misfit("kind", "umbrella sampling needs pymbar: pip install 'pymbar>=4'")
        if self.steps < 2 * self.frame_interval:
            raise Misfit("steps", f"a window of {self.steps} steps has no two frames at frame_interval")

    @property
    def centers(self) -> Array:
        """[W] of the windows, from ``first`` to ``last``; a spacing is made to fit the way."""
        count = self.windows or WINDOWS
        if self.spacing is not None:
            count = math.ceil(abs(self.last - self.first) / self.spacing - 1e-9) + 1
        return np.linspace(self.first, self.last, count)

    @property
    def gap(self) -> float:
        """Between two windows."""
        return abs(self.last - self.first) / (len(self.centers) - 1)

    @property
    def constant(self) -> float:
        """Force constant, eV per squared unit."""
        return self.force_constant or SOFTNESS * KB * self.temperature / self.gap**2

    @property
    def each(self) -> int:
        """Steps in a window."""
        return self.equilibration + self.steps


class Umbrella(LammpsSampler):
    """Samples the windows with a committee; a `Sampler`."""

    name = "umbrella"
    config: Config

    def block(self, number: int) -> Array:
        """Centres of the windows of a walker."""
        centers: Array = np.array_split(self.config.centers, self.config.count)[number % self.config.count]
        return centers

    def values(self, settings: Any, walker: Walker, folder: Path) -> Mapping[str, object]:
        """What fills the template; see `LammpsSampler.values`."""
        centers, variable = self.block(walker.number), self.variables[0]
        here = float(variable.value(walker.start.positions))
        away = float(wrapped(np.array(here - centers[0]), variable.period))
        # no faster than from window to window
        approach = max(1, math.ceil(abs(away) / self.config.gap)) * max(1, self.config.equilibration)
        drag = [f"targetCenters {centers[0]:.12g}", f"targetNumSteps {approach}"]
        write_text(folder / "approach.colvars", self._colvars(centers[0] + away, drag))
        stages = [
            f"targetCenters {centers[-1]:.12g}",
            f"targetNumSteps {self.config.each}",
            f"targetNumStages {len(centers) - 1}",
        ]
        write_text(folder / "windows.colvars", self._colvars(centers[0], stages if len(centers) > 1 else []))
        return {
            "windows": len(centers),
            "each": self.config.each,
            "approach": approach,
            "steps": self.config.each * len(centers),
        }

    def _colvars(self, center: float, moves: Sequence[str]) -> str:
        """A Colvars configuration with the event's variable under a restraint."""
        block = self.variables[0].colvars()
        # Colvars takes lengths in units of the variable's width
        width = re.search(r"^\s*width\s+(\S+)", block, re.MULTILINE | re.IGNORECASE)
        scaled = self.config.constant * (float(width[1]) ** 2 if width else 1.0)
        lines = [
            "colvarsTrajFrequency 0",
            "colvarsRestartFrequency 0",
            block,
            "harmonic {",
            f"  colvars {self.variables[0].name}",
            f"  forceConstant {scaled:.12g}",
            f"  centers {center:.12g}",
            *(f"  {move}" for move in moves),
            "}",
        ]
        return "\n".join(lines) + "\n"

    def run(self, folder: Path, walker: Walker, command: Sequence[str], stdin: bytes = b"") -> lammps.Run:
        """The process that runs the script with ``command``."""
        run = super().run(folder, walker, command, stdin)
        run.steps = self.config.each * len(self.block(walker.number))
        return run

    def windows(self, trajectories: Sequence[Trajectory]) -> Windows:
        """The samples of all walkers, window by window, equilibration left out.

        Raises
        ------
        SamplingError
            If the bias that LAMMPS applied is not the restraint.
        """
        config = self.config
        centers, period = config.centers, self.variables[0].period
        samples = [np.empty(0) for _ in centers]
        for trajectory in trajectories:
            block = self.block(trajectory.walker)
            first = int(np.argmin(np.abs(centers - block[0])))
            # a frame at the very step of a jump belongs to the window before, and is left out with the equilibration
            window, since = np.divmod(trajectory.steps, config.each)
            counts = since > config.equilibration
            for k in range(len(block)):
                rows = counts & (window == k)
                if rows.any():
                    self._check_bias(trajectory.rows(rows), float(block[k]))
                samples[first + k] = np.concatenate([samples[first + k], trajectory.cv[rows]])
        return Windows(centers, np.full(len(centers), config.constant), samples, config.temperature, period)

    def _check_bias(self, part: Trajectory, center: float) -> None:
        away = wrapped(part.cv - center, self.variables[0].period)
        restraint = 0.5 * self.config.constant * away**2
        worst = float(np.abs(part.bias - restraint).max())
        if worst > 1e-5 * (1.0 + float(restraint.max())):
            raise SamplingError(
                f"umbrella sampling: the bias in LAMMPS differs from the restraint at {center:g} by up to {worst:.2g} "
                "eV; MBAR knows the restraint alone. Leave out other biases, and check the collective variable"
            )

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The free energy along the variable, by MBAR, and its barrier on the way from ``first`` to ``last``."""
        width = self.config.bin_width or 0.5 * self.config.gap
        windows = self.windows(trajectories)
        cut = [f"walker {t.walker}: {t.note}" for t in trajectories if t.note]
        if not any(len(values) > 1 for values in windows.samples):
            # an early committee may not get through its first window; later ones will
            none = np.empty(0)
            note = "; ".join([*cut, "no window has samples"])
            return Profile("free energy", none, none, none, math.nan, math.nan, note)
        found = free_energy(windows, width, np.random.default_rng(0))
        note = "; ".join(text for text in (*cut, found.note) if text)
        return Profile(
            "free energy", found.coordinate, found.energy, found.error, found.barrier, found.barrier_error, note
        )


def build(config: Config, variables: Sequence[Variable], start: Frame) -> Umbrella:
    """The sampler that ``config`` describes."""
    return Umbrella(config, variables, start)
