"""Moving restraints of any collective variable, by Colvars: their text, and the work that they do.

Colvars adds up the work itself; it is computed here from the variable's own values, with the centre that is known, so
that an angle may be driven round past its period.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rareal.records import Array


@dataclass(frozen=True)
class Leg:
    """A stretch of the drive: the centre of a spring goes evenly from ``start`` to ``end`` in ``steps`` steps.

    Attributes
    ----------
    label : name of its Colvars files.
    start, end : the centre, in the variable's unit; equal for a spring that stands.
    steps : of the stretch.
    first : step of the drive at which it begins.
    """

    label: str
    start: float
    end: float
    steps: int
    first: int

    def centres(self, count: int) -> Array:
        """Of the first ``count`` steps, the one before the first move included."""
        centres: Array = self.start + (self.end - self.start) * np.arange(count) / max(1, self.steps)
        return centres

    def after(self, step: int) -> Leg:
        """What is left of it after a step of the drive."""
        gone = max(0, step - self.first)
        start = float(self.centres(gone + 1)[-1])
        return replace(self, start=start, steps=self.steps - gone, first=self.first + gone)


def width(block: str) -> float:
    """What Colvars divides a variable by before its force constants apply: 1 where the block does not say."""
    found = re.search(r"^\s*width\s+(\S+)", block, re.MULTILINE | re.IGNORECASE)
    return float(found[1]) if found else 1.0


def spring(block: str, name: str, leg: Leg, constant: float) -> str:
    """The Colvars file of a leg.

    Parameters
    ----------
    block : ``colvar { }`` of the variable.
    name : its name.
    constant : of the spring, eV per squared unit of the variable.
    """
    moving = leg.end != leg.start
    lines = ["colvarsTrajFrequency 1", "colvarsRestartFrequency 0", block, "harmonic {", "  name spring"]
    lines += [f"  colvars {name}", f"  centers {leg.start:.15g}"]
    if moving:
        lines += [f"  targetCenters {leg.end:.15g}", f"  targetNumSteps {leg.steps}", "  outputAccumulatedWork yes"]
    lines += [f"  forceConstant {constant * width(block) ** 2:.15g}", "  outputEnergy yes", "  outputCenters yes", "}"]
    return "\n".join(lines) + "\n"


def constant_force(block: str, name: str, force: float) -> str:
    """The Colvars file of a force [eV per unit] on a variable, positive towards larger values."""
    lines = ["colvarsTrajFrequency 1", "colvarsRestartFrequency 0", block, "linear {", "  name pull"]
    # the energy of `linear` is its constant times the variable
    lines += [f"  colvars {name}", "  centers 0.0", f"  forceConstant {-force * width(block):.15g}", "}"]
    return "\n".join(lines) + "\n"


def read_values(path: Path, name: str) -> Array:
    """Values [T] of a variable in a ``.colvars.traj``, one per step; a last line that is incomplete is left out."""
    if not path.exists():
        return np.empty(0)
    text = path.read_text(encoding="utf-8")
    column, values = -1, []
    for line in text[: text.rfind("\n") + 1].splitlines():
        words = line.split()
        if words and words[0] == "#":
            column = words.index(name) - 1
        elif len(words) > column >= 0:
            values.append(float(words[column]))
    return np.array(values)


def spring_work(
    leg: Leg,
    values: Array,
    constant: float,
    period: float | None,
    as_smd: bool = False,
) -> Array:
    """Work [T] of a leg's spring, eV, from the variable's values [T] at its steps; zero at the first.

    The sum over K (c - x) dc, c being the centre, by the trapezoidal rule; ``as_smd`` with the force at the end of
    every step, as ``fix smd`` counts.
    """
    extension = leg.centres(len(values)) - values
    if period is not None:
        extension -= period * np.round(extension / period)
    force = constant * extension
    step = (leg.end - leg.start) / max(1, leg.steps)
    during = force[1:] if as_smd else 0.5 * (force[1:] + force[:-1])
    return np.concatenate([np.zeros(min(1, len(values))), np.cumsum(during * step)])
