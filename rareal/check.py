"""Is the potential right where it matters? Committee against engine along the round's own pull, and its rupture.

Three numbers, because one alone misleads. *W_max*, the paper's activation energy, is the largest work of the spring; it
hangs on the instant at which a bond goes over a residual barrier of a few kT, and moves by far more than the surface
errs. The *path error* is the largest difference between committee and engine, both relative to the first frame, at a
few dozen frames of the pull that the committee itself drove; it needs no reference. The *rupture* is the quasi-static
pull of `rareal.rupture`. The latter two are well conditioned and decide convergence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.barrier import Config, path_frames, work
from rareal.event import find_event
from rareal.files import write_npz
from rareal.protocols import EnergyForces
from rareal.records import Array, Frame, LabeledFrame, Trajectory
from rareal.reference import Reference
from rareal.rupture import Rupture, compare, load, rupture, save, telling_positions
from rareal.units import KCAL_MOL

PATH, RUPTURE = "path.npz", "rupture.npz"
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Findings:
    """What a round's check found. Energies in eV, relative to the first checked frame; arrays [K] over the frames."""

    steps: NDArray[np.int64]
    cv: Array
    engine: Array
    committee: Array
    in_break: NDArray[np.bool_]
    rupture: Rupture

    @property
    def path_error(self) -> float:
        """Largest |committee − engine| along the path, eV."""
        return float(np.abs(self.committee - self.engine).max()) if len(self.engine) > 1 else NAN


class Check:
    """The check stage.

    Parameters
    ----------
    config : what to check.
    start : the structure; ends : the two atoms (from 0) that the quasi-static pull moves.
    surface : reads a model file as a potential-energy surface, the committee's mean.
    """

    def __init__(
        self, config: Config, start: Frame, ends: tuple[int, int], surface: Callable[[Path], EnergyForces]
    ) -> None:
        self.config = config
        self.start = start
        self.ends = ends
        self.surface = surface

    def path_rows(self, trajectory: Trajectory, count: int) -> list[int]:
        """Rows of the path to be labelled, at most ``count``; see `rareal.barrier.path_frames`."""
        config = self.config
        count = min(count, config.path_frames)
        in_break = count * config.break_frames // config.path_frames
        rows = path_frames(self.start.numbers, trajectory, count, in_break, config.beyond_steps)
        return [int(row) for row in rows]

    def scouts(self, rows: Sequence[int]) -> list[int]:
        """The rows to be labelled first: the first, the last, and some evenly between."""
        count = min(len(rows), self.config.scout_frames)
        return [rows[int(k)] for k in np.unique(np.linspace(0, len(rows) - 1, count).round())]

    def believed(self, model: Path, labelled: Sequence[LabeledFrame]) -> bool:
        """Whether the committee is near enough to the engine along its own path for more labels to be worth it."""
        engine, committee = self._energies(model, labelled)
        return len(labelled) > 1 and bool(np.abs(committee - engine).max() <= self.config.scout_above)

    def _energies(self, model: Path, labelled: Sequence[LabeledFrame]) -> tuple[Array, Array]:
        """Of engine and committee, relative to the first frame, eV."""
        surface = self.surface(model)
        engine = np.array([f.label.energy for f in labelled])
        committee = np.array([surface(f.frame)[0] for f in labelled])
        return engine - engine[:1], committee - committee[:1]

    def pull_apart(self, folder: Path, model: Path) -> list[Frame]:
        """Keep the committee's quasi-static rupture in ``folder``; return the structures that decide where it lies."""
        record = rupture(self.surface(model), self.start, self.ends, self.config.rupture)
        save(folder / RUPTURE, record)
        return [
            replace(self.start, positions=positions, origin="rupture")
            for positions in telling_positions(record, self.config.rupture_frames)
        ]

    def compare(self, folder: Path, model: Path, labelled: Sequence[LabeledFrame], trajectory: Trajectory) -> None:
        """Write the comparison of committee and engine at the labelled frames of the path into ``folder``."""
        labelled = sorted(labelled, key=lambda f: f.frame.step)
        engine, committee = self._energies(model, labelled)
        steps = np.array([f.frame.step for f in labelled], dtype=np.int64)
        event = find_event(self.start.numbers, trajectory.positions)
        first, last = (trajectory.steps[[event.onset, event.end]]) if event else (1, 0)
        write_npz(
            folder / PATH,
            steps=steps,
            cv=np.array([f.frame.cv for f in labelled]),
            engine=engine,
            committee=committee,
            in_break=(steps >= first) & (steps <= last),
            walker=trajectory.walker,
        )

    def load(self, folder: Path) -> Findings:
        """What `compare` wrote."""
        with np.load(folder / PATH) as archive:
            arrays = {name: archive[name] for name in ("steps", "cv", "engine", "committee", "in_break")}
        return Findings(**arrays, rupture=load(folder / RUPTURE))


def figures(findings: Findings, trajectories: Sequence[Trajectory], reference: Reference | None) -> dict[str, Any]:
    """The columns of rounds.csv that say how good the round's potential is; nan where a figure is not known."""
    pulls = work(trajectories)
    ours = findings.rupture
    row = {
        "barrier_eV": pulls.mean,
        "barrier_se_eV": pulls.error,
        "reference_eV": NAN,
        "error_kcal_mol": NAN,
        "path_error_kcal_mol": findings.path_error / KCAL_MOL,
        "rupture_energy_error_kcal_mol": NAN,
        "rupture_force_error_percent": NAN,
        "rupture_distance_error_A": NAN,
        "reference_se_eV": NAN,
        "rupture_energy_eV": ours.energy_max,
        "rupture_force_eV_A": ours.force_max,
        "rupture_distance_A": ours.break_distance,
        "stability_energy_eV": ours.stability_energy,
        "stability_distance_A": ours.stability_distance,
        "stability_energy_error_kcal_mol": NAN,
        "stability_distance_error_A": NAN,
        "rupture_bond": "-".join(map(str, ours.broken_bond)) if ours.broke else "none",
        "same_bond": "",
        "path_frames": len(findings.steps),
        "path_frames_in_break": int(findings.in_break.sum()),
        "path_energy_span_eV": float(np.ptp(findings.engine)) if len(findings.engine) else NAN,
    }
    if reference is not None:
        same = {t.seed for t in trajectories if not t.note}
        theirs = work([t for t in reference.pulls if t.seed in same])
        row |= {"reference_eV": theirs.mean, "reference_se_eV": theirs.error}
        row["error_kcal_mol"] = (pulls.mean - theirs.mean) / KCAL_MOL
        error = compare(ours, reference.rupture)
        row |= {
            "rupture_energy_error_kcal_mol": error.energy_max / KCAL_MOL,
            "rupture_force_error_percent": error.force_percent,
            "stability_energy_error_kcal_mol": (ours.stability_energy - reference.rupture.stability_energy) / KCAL_MOL,
            "stability_distance_error_A": ours.stability_distance - reference.rupture.stability_distance,
            "rupture_distance_error_A": error.distance,
            "same_bond": error.same_bond,
        }
    return row


def meets(row: Mapping[str, Any], previous: Mapping[str, Any] | None, limits: Any) -> bool:
    """Whether a round is within the limits of ``convergence``.

    The rupture energy is held against the engine's where that is known, else against the round before.
    """
    change = row["rupture_energy_error_kcal_mol"]
    if not np.isfinite(change):
        change = (row["rupture_energy_eV"] - previous["rupture_energy_eV"]) / KCAL_MOL if previous else NAN
    return bool(
        row["path_error_kcal_mol"] <= limits.path_error / KCAL_MOL and abs(change) <= limits.rupture_energy / KCAL_MOL
    )
