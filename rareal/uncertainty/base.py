"""What all thresholds share: the scores, the band between "known" and "beyond use", and the judging of trajectories.

The band has three levels. At or below the threshold the committee is at home and a label would teach it nothing;
above it a frame is worth a label; above the upper limit the committee is so lost that the frame is no longer one of the
event, and a label would be wasted. A trajectory that goes above the upper limit and comes back keeps all of its frames,
those above are not selected; one that never comes back is cut there.

There is no upper limit unless the YAML sets one: in the first rounds the event itself is what the committee knows
least, often by a factor of a hundred, and what is broken beyond doubt has been cut before (`rareal.sampling.usable`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from rareal.errors import SamplingError
from rareal.records import Array, Evidence, Halt, Judged, Trajectory
from rareal.schema import Section
from rareal.units import parse_quantity

UNITS = {"energy": "eV", "energy_per_atom": "eV", "force": "eV/angstrom"}
NO_EVIDENCE = Evidence(np.empty(0), np.empty(0), np.empty(0), np.empty(0))


def parse_score(value: Any, score: str) -> Any:
    """``value`` in the unit of ``score``; a bare number passes."""
    return parse_quantity(value, UNITS[score]) if score in UNITS else value


class Settings(Section):
    """The keys that every kind of threshold has."""

    score: Literal["energy", "energy_per_atom", "force"] = Field(
        "energy",
        description="what is judged: energy (std of the total energy, eV), energy_per_atom (that divided by √N, eV) or "
        "force (largest std of an atom's force, eV/Å)",
    )
    shared: bool = Field(True, description="one threshold for all walkers; false: each has its own")
    beyond: float | None = Field(
        None, gt=1, description="times the threshold above which a frame is beyond use; none if not given"
    )
    limit: float | None = Field(
        None,
        gt=0,
        description="score above which a frame is beyond use, in eV, or eV/Å for forces; none if not given; with "
        "`beyond` the lower of the two holds",
    )

    @field_validator("limit", mode="before")
    @classmethod
    def _limit_in_the_unit_of_the_score(cls, value: Any, info: ValidationInfo) -> Any:
        return parse_score(value, info.data.get("score", ""))


@dataclass(frozen=True, eq=False)
class Series:
    """One walker's scores in time: ``steps`` [T] and ``score`` [T], nan where it must not count."""

    walker: int
    steps: NDArray[np.int64]
    score: Array

    def start(self, window: int) -> Array:
        """What counts of the first ``window`` time steps."""
        found: Array = self.score[(self.steps < window) & np.isfinite(self.score)]
        return found


@dataclass(frozen=True, eq=False)
class Level:
    """A threshold; ``moving`` [T] and ``note`` as in `Judged`."""

    value: float
    moving: Array = field(default_factory=lambda: np.empty(0))
    note: str = ""


class Rule(ABC):
    """A kind of threshold.

    Parameters
    ----------
    config : its section.
    atoms : N of the system.
    """

    def __init__(self, config: Settings, atoms: int) -> None:
        self.config = config
        self.atoms = atoms

    @abstractmethod
    def level(self, pool: Sequence[Series], evidence: Evidence) -> float:
        """The threshold of the walkers in ``pool``.

        Raises
        ------
        SamplingError
            If they have no score to go by.
        """

    @abstractmethod
    def running(self, history: Array, evidence: Evidence | None = None) -> float:
        """The threshold while the dynamics runs (on-the-fly mode); infinite as long as there is none yet.

        Parameters
        ----------
        history : [H] scores in the order of time, one per time step, since the rule was last to begin anew.
        evidence : as in `judge`.
        """

    def score(self, trajectory: Trajectory) -> Array:
        """The uncertainty along a trajectory, [T]; eV, eV/Å for forces.

        ``energy_per_atom`` is the std of the total energy divided by √N: if the members disagree about every atom
        independently, it does not depend on the size of the system.
        """
        return trajectory.force_std if self.config.score == "force" else self._scaled(trajectory.energy_std)

    def known(self, evidence: Evidence) -> tuple[Array, Array]:
        """Score and true error of the labelled frames, [K] each, both in the unit of the score; only finite ones."""
        if self.config.score == "force":
            score, error = evidence.force_std, evidence.force_error
        else:
            score, error = self._scaled(evidence.energy_std), self._scaled(evidence.energy_error)
        finite = np.isfinite(score) & np.isfinite(error)
        return score[finite], error[finite]

    def _scaled(self, energies: Array) -> Array:
        scaled: Array = energies / np.sqrt(self.atoms) if self.config.score == "energy_per_atom" else energies
        return scaled

    def limit(self, threshold: float) -> float:
        """The score above which a frame is beyond use; infinite where there is no such limit."""
        ceiling = np.inf if self.config.limit is None else self.config.limit
        return float(ceiling if self.config.beyond is None else min(ceiling, self.config.beyond * threshold))

    @property
    def shared(self) -> bool:
        """Whether all walkers have one threshold."""
        return self.config.shared

    def halt(self, threshold: float, patience: int) -> Halt | None:
        """What stops a drive in LAMMPS where the score is above ``threshold``; None where that is infinite."""
        if not np.isfinite(threshold):
            return None
        if self.config.score == "force":
            return Halt("force", threshold, patience)
        factor = float(np.sqrt(self.atoms)) if self.config.score == "energy_per_atom" else 1.0
        return Halt("energy", factor * threshold, patience)

    def judge(self, trajectories: Sequence[Trajectory], evidence: Evidence | None = None) -> list[Judged]:
        """Every trajectory with its scores and its band, cut where it leaves the band for good.

        Parameters
        ----------
        trajectories : of one round, all driven with the same committee; they may be empty.
        evidence : what the labels so far say; kinds that learn nothing from it do without.

        Raises
        ------
        SamplingError
            If there are trajectories, but not one score to go by.
        """
        series = [Series(t.walker, t.steps, self._counted(self.score(t))) for t in trajectories]
        levels = self._all_levels(series, evidence or NO_EVIDENCE) if series else []
        return [self._judged(trajectory, level) for trajectory, level in zip(trajectories, levels, strict=True)]

    def levels(self, pool: Sequence[Series], evidence: Evidence) -> list[Level]:
        """The threshold of walkers that share one, for each of them."""
        return [Level(self.level(pool, evidence))] * len(pool)

    def _all_levels(self, series: Sequence[Series], evidence: Evidence) -> list[Level]:
        if self.config.shared:
            return self.levels(series, evidence)
        found: list[Level] = []
        for k, one in enumerate(series):
            try:
                found += self.levels([one], evidence)
            except SamplingError:
                # a walker that failed at once does not spoil the others
                found.append(self.levels(series, evidence)[k])
        return found

    def _counted(self, score: Array) -> Array:
        """Scores without those that say nothing: not finite, or beyond use whatever the threshold."""
        ceiling = np.inf if self.config.limit is None else self.config.limit
        counted: Array = np.where(np.isfinite(score) & (score <= ceiling), score, np.nan)
        return counted

    def _judged(self, trajectory: Trajectory, level: Level) -> Judged:
        score, limit, moving = self.score(trajectory), self.limit(level.value), level.moving
        inside = np.nonzero(np.isfinite(score) & (score <= limit))[0]
        end = int(inside[-1]) + 1 if len(inside) else 0
        if end < len(trajectory):
            first = int(trajectory.steps[end])
            unit = UNITS[self.config.score].replace("angstrom", "Å")
            where = f"above {limit:.3g} {unit}" if np.isfinite(limit) else "not finite"
            why = f"cut at step {first}: the uncertainty stays beyond use ({where})"
            trajectory = trajectory.rows(slice(0, end), "; ".join(filter(None, (trajectory.note, why))))
        return Judged(trajectory, score[:end], level.value, limit, moving[:end], level.note)


class WindowSettings(Settings):
    """Settings of a threshold that is set by the start of the drive."""

    window: int = Field(1000, ge=1, description="time steps at the start of the drive that set the threshold")


class WindowRule(Rule):
    """A threshold that is set by the scores in a window at the start of the drive."""

    config: WindowSettings

    @abstractmethod
    def of(self, values: Array) -> float:
        """The threshold for the finite scores in the window; there is at least one."""

    def level(self, pool: Sequence[Series], evidence: Evidence) -> float:
        """See `Rule.level`."""
        values = np.concatenate([np.empty(0), *(one.start(self.config.window) for one in pool)])
        if len(values) == 0:
            name = {"force": "force std"}.get(self.config.score, "energy std")
            raise SamplingError(
                f"no finite {name} within the first {self.config.window} steps of the drive: the committee failed at "
                "the start structure; see the round's sample folder"
            )
        return self.of(values)

    def running(self, history: Array, evidence: Evidence | None = None) -> float:
        """See `Rule.running`; infinite while the window is not full."""
        if len(history) < self.config.window:
            return np.inf
        series = Series(0, np.arange(len(history)), self._counted(np.asarray(history, dtype=np.float64)))
        return self.level([series], evidence or NO_EVIDENCE)
