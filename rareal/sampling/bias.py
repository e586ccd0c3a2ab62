"""Uncertainty-driven dynamics: a bias towards what the committee does not agree on, and the rule for its strength.

Equations 18 and 19 of Kulichenko et al., Chem. Rev. 2024 (10.1021/acs.chemrev.4c00572), with the std s of the
committee's energy, E = -A s² and E = A exp(-s²/B²); the pair style's keyword ``bias`` adds them to the dynamics.

**The rule.** Under a bias E(s) a canonical simulation meets structures of std s exp((E(0) - E(s))/kT) times as often
as it would without, relative to those that all members agree on. ``gain`` is that factor: kT ln(gain) is the energy
by which doubt is favoured. The scale of s is the committee's own: s_new = mean + 3 std of s along a short run without
bias from the walker's start at the same temperature, the paper's threshold for a frame that is new. Then

- gaussian: A = kT ln(gain), B = s_new. The whole gain is for structures well beyond s_new, half the way (1 - 1/e) is
  done at s_new, the push is largest at 0.7 s_new and over at 2 s_new: what is new already is not driven further.
- linear: A = kT ln(gain)/s_new². The gain is for s_new, gain⁴ for twice that, without bound: with a large gain a
  molecule is torn apart.

Given values of ``strength`` and ``width`` replace the rule.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rareal.errors import SamplingError
from rareal.files import write_text
from rareal.plugin import lmp_command, lmp_environment
from rareal.records import Array, Walker
from rareal.sampling import lammps
from rareal.sampling.trajectory import read_table
from rareal.schema import Section
from rareal.units import KB, Energy, Temperature

SCRIPT, FOLDER = "in.familiar", "familiar"
"""The unbiased run that the scale is measured in, in a folder of its own below the walker's."""

SIGMAS = 3.0
PLACEHOLDER = 0.05
"""eV. Stands for the scale in scripts that are written and not run."""


class UncertaintyBias(Section):
    """A bias of the dynamics towards disagreement of the committee."""

    form: Literal["gaussian", "linear"] = Field(
        "gaussian", description="A exp(-s^2/B^2), or -A s^2, of the std s of the committee's energy"
    )
    gain: float = Field(
        100.0,
        gt=1,
        description="how much more often than without bias a structure that is new to the committee is met, relative "
        "to what it agrees on; sets A and B where they are not given",
    )
    temperature: Temperature | None = Field(
        None, gt=0, description="temperature of that rule, K; the drive's where not given (a cold pull may want 300 K)"
    )
    steps: int = Field(400, ge=20, description="steps of the unbiased run from which the committee's std is measured")
    strength: float | None = Field(None, gt=0, description="A itself: eV if gaussian, 1/eV if linear")
    width: Energy | None = Field(None, gt=0, description="B itself, eV; gaussian only")

    @model_validator(mode="after")
    def _goes_together(self) -> UncertaintyBias:
        if self.form == "linear" and self.width is not None:
            raise ValueError("width: the linear form has none; leave it out, or use form: gaussian")
        return self

    @property
    def given(self) -> bool:
        """Whether nothing is left to the rule."""
        return self.strength is not None and (self.form == "linear" or self.width is not None)

    def keyword(self, temperature: float, scale: float) -> str:
        """The pair style's keyword with its values.

        Parameters
        ----------
        temperature : of the drive, K.
        scale : std that counts as new, eV; not looked at where all is given.

        Raises
        ------
        SamplingError
            If the rule needs a scale and the committee does not disagree at all.
        """
        if not self.given and not scale > 0:
            raise SamplingError(
                "the members of the committee agree everywhere along the unbiased run: there is no disagreement to "
                "drive towards; leave sampler.uncertainty_bias out, or give strength and width"
            )
        favour = KB * (self.temperature or temperature) * math.log(self.gain)
        if self.form == "linear":
            return f"bias linear {self.strength or favour / scale**2:.10g}"
        return f"bias gaussian {self.strength or favour:.10g} {self.width or scale:.10g}"


def new_above(energy_std: Array) -> float:
    """The std [eV] above which a frame is new: mean + 3 std of a run without bias [T], its first quarter left out."""
    settled = energy_std[len(energy_std) // 4 :]
    return float(settled.mean() + SIGMAS * settled.std())


def prepare(folder: Path, walker: Walker, settings: Any, potential: str) -> Path:
    """Write the input of `measure`; its folder.

    Parameters
    ----------
    folder : the walker's.
    settings : of the walker's drive.
    potential : block of the committee without bias, its path seen from a folder below ``folder``.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    values = {
        "boundary": lammps.boundary(walker.start),
        "timestep": f"{settings.timestep * 1e-3:.10g}",
        "temperature": f"{settings.temperature:.10g}",
        "damping": f"{settings.damping * 1e-3:.10g}",
        "seed": walker.seed,
        "steps": settings.uncertainty_bias.steps,
        "potential": potential,
    }
    write_text(place / lammps.DATA, lammps.data_file(walker.start))
    write_text(place / SCRIPT, lammps.render(SCRIPT, values))
    return place


def measure(place: Path, settings: Any) -> float:
    """Run the committee without bias for a moment; the std [eV] above which a frame is new to it.

    Parameters
    ----------
    place : the folder that `prepare` has written.
    settings : of the walker's drive.

    Raises
    ------
    SamplingError
        If the run fails.
    """
    command = [*lmp_command(), "-log", lammps.LOG, "-in", SCRIPT]
    run = lammps.Run(place, command, settings.uncertainty_bias.steps, lmp_environment())
    lammps.run_all([run], 1, settings.patience)
    stds = read_table(place / lammps.TABLE).get("energy_std", np.empty(0))
    stds = stds[np.isfinite(stds)]
    if run.failure or len(stds) < settings.uncertainty_bias.steps // 2:
        raise SamplingError(
            f"the committee's own run without bias failed: {run.failure or 'no output'}. Read {place / lammps.LOG}; "
            "sampler.uncertainty_bias.strength (and width) can be given instead"
        )
    return new_above(stds)
