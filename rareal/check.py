"""Is the potential right where it matters? Committee against engine along the round's own path, and the barrier.

What a sampler calls its barrier may be ill-conditioned (the largest work of a pull hangs on the instant at which a bond
goes over a residual barrier of a few kT) or noisy (a free energy of a short run). So a round is also held against the
engine: at a few dozen frames of a path that the committee itself drove, energies of committee and engine are compared,
frame by frame where the drive is one path, by their means along the collective variable where it samples a
temperature. Where two atoms are pulled apart, the quasi-static pull of `rareal.rupture` is a well-conditioned barrier
beside the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.barrier import Config, bins, path_frames, thermal_frames
from rareal.event import find_event
from rareal.files import write_npz
from rareal.protocols import EnergyForces, Members
from rareal.records import Array, Evidence, Frame, LabeledFrame, Profile, Trajectory
from rareal.rupture import Rupture, compare, load, rupture, save
from rareal.sampling import neb
from rareal.units import KCAL_MOL

PATH, RUPTURE = "path.npz", "rupture.npz"
NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Findings:
    """What a round's check found.

    Attributes
    ----------
    steps, cv : [K] of the checked frames.
    engine : [K] eV, relative to the first frame.
    members : [M, K] eV, likewise.
    energy_std, force_std, force_error : [K] as in `rareal.records.Evidence`.
    in_break : [K] whether a frame lies within the break of a bond.
    bins : stretches of the collective variable whose mean energies are compared; 0 where frames are, one by one.
    rupture : the quasi-static pull, if there is one.
    minimum_energy_path : on the committee's surface, where it is asked for.
    """

    steps: NDArray[np.int64]
    cv: Array
    engine: Array
    members: Array
    energy_std: Array
    force_std: Array
    force_error: Array
    in_break: NDArray[np.bool_]
    bins: int = 0
    rupture: Rupture | None = None
    minimum_energy_path: neb.MinimumEnergyPath | None = None

    @property
    def committee(self) -> Array:
        """[K] mean of the members, eV, relative to the first frame."""
        mean: Array = self.members.mean(axis=0)
        return mean

    @property
    def path_error(self) -> float:
        """Largest error along the path, eV: of a frame, or of a stretch's mean energy."""
        return self.largest[0]

    @property
    def largest(self) -> tuple[float, float]:
        """The largest error along the path and its standard error, eV; the latter 0 where frames are compared."""
        if len(self.engine) < 2:
            return NAN, NAN
        error = self.committee - self.engine
        if not self.bins:
            return float(np.abs(error).max()), 0.0
        means, errors = self.by_bin(error)
        worst = int(np.nanargmax(np.abs(means)))
        return float(abs(means[worst])), float(errors[worst])

    def by_bin(self, values: Array) -> tuple[Array, Array]:
        """Means of ``values`` [K] in the stretches, relative to the first frame's stretch, and standard errors, [B].

        nan where a stretch has fewer than three frames.
        """
        place = bins(self.cv, self.bins)
        means, errors = np.full(self.bins, NAN), np.full(self.bins, NAN)
        for part in range(self.bins):
            inside = values[place == part]
            if len(inside) >= 3:
                means[part], errors[part] = inside.mean(), inside.std(ddof=1) / math.sqrt(len(inside))
        home = int(place[0]) if np.isfinite(means[place[0]]) else int(np.argmax(np.isfinite(means)))
        errors = np.where(np.arange(self.bins) == home, 0.0, np.hypot(errors, errors[home]))
        if np.isfinite(means).sum() < 2:
            # one mean is no difference, and zero relative to itself: the frames' own spread is all there is to say
            return np.array([np.abs(values - values.mean()).max()]), np.array([NAN])
        return means - means[home], errors

    @property
    def height(self) -> tuple[float, float]:
        """Highest energy of the committee along the path relative to its start, eV, and its std over the members."""
        if not self.members.size:
            return NAN, NAN
        heights = self.members.max(axis=1)
        return float(self.committee.max()), float(heights.std())

    @property
    def evidence(self) -> Evidence:
        """Scores and errors of the checked frames."""
        return Evidence(self.energy_std, self.force_std, np.abs(self.committee - self.engine), self.force_error)


class Check:
    """The check stage.

    Parameters
    ----------
    config : what to check.
    start : the structure.
    ends : the two atoms (from 0) that the quasi-static pull moves; None where nothing is pulled apart.
    committee : reads a model file.
    thermal : whether trajectories sample a temperature, see `rareal.protocols.Sampler`.
    """

    def __init__(
        self,
        config: Config,
        start: Frame,
        ends: tuple[int, int] | None,
        committee: Callable[[Path], Members],
        thermal: bool = False,
    ) -> None:
        self.config = config
        self.start = start
        self.ends = ends
        self.committee = committee
        self.thermal = thermal

    def path_rows(self, trajectory: Trajectory, count: int) -> list[int]:
        """Rows of the path to be labelled, at most ``count``; see `rareal.barrier`."""
        config = self.config
        count = min(count, config.path_frames)
        if self.thermal:
            return [int(row) for row in thermal_frames(trajectory.cv, count)]
        in_break = count * config.break_frames // config.path_frames
        rows = path_frames(self.start.numbers, trajectory, count, in_break, config.beyond_steps)
        return [int(row) for row in rows]

    def scouts(self, rows: Sequence[int]) -> list[int]:
        """The rows to be labelled first: the first, the last, and some evenly between."""
        count = min(len(rows), self.config.scout_frames)
        return [rows[int(k)] for k in np.unique(np.linspace(0, len(rows) - 1, count).round())]

    def believed(self, model: Path, labelled: Sequence[LabeledFrame]) -> bool:
        """Whether the committee is near enough to the engine along its own path for more labels to be worth it."""
        committee = self.committee(model)
        energies = np.array([committee(f.frame)[0].mean() for f in labelled])
        error = energies - np.array([f.label.energy for f in labelled])
        return len(labelled) > 1 and bool(np.abs(error - error[0]).max() <= self.config.scout_above)

    def pull_apart(self, folder: Path, model: Path) -> list[Frame]:
        """Keep the committee's quasi-static rupture in ``folder``; return the structures that decide where it lies."""
        if self.ends is None:
            return []
        record = rupture(mean_surface(self.committee(model)), self.start, self.ends, self.config.rupture)
        save(folder / RUPTURE, record)
        return [
            replace(self.start, positions=positions, origin="rupture")
            for positions in telling_positions(record, self.config.rupture_frames)
        ]

    def compare(self, folder: Path, model: Path, labelled: Sequence[LabeledFrame], trajectory: Trajectory) -> None:
        """Write the comparison of committee and engine at the labelled frames of the path into ``folder``."""
        labelled = sorted(labelled, key=lambda f: f.frame.step)
        committee = self.committee(model)
        predicted = [committee(f.frame) for f in labelled]
        members = np.array([energies for energies, _ in predicted]).T if predicted else np.empty((1, 0))
        engine = np.array([f.label.energy for f in labelled])
        errors = [forces.mean(axis=0) - f.label.forces for (_, forces), f in zip(predicted, labelled, strict=True)]
        spread = [np.sqrt((forces.std(axis=0) ** 2).sum(axis=1)).max() for _, forces in predicted]
        steps = np.array([f.frame.step for f in labelled], dtype=np.int64)
        event = None if self.thermal else find_event(self.start.numbers, trajectory.positions)
        first, last = (trajectory.steps[[event.onset, event.end]]) if event else (1, 0)
        write_npz(
            folder / PATH,
            steps=steps,
            cv=np.array([f.frame.cv for f in labelled]),
            engine=engine - engine[:1],
            committee=members.mean(axis=0) - members.mean(axis=0)[:1],
            members=members - members[:, :1],
            energy_std=members.std(axis=0),
            force_std=np.array(spread),
            force_error=np.array([np.linalg.norm(error, axis=1).max() for error in errors]),
            in_break=(steps >= first) & (steps <= last),
            walker=trajectory.walker,
        )
        if self.config.minimum_energy_path is not None:
            relaxed = neb.minimum_energy_path(committee, self.start, trajectory, self.config.minimum_energy_path)
            neb.save(folder / neb.PATH, relaxed)

    def load(self, folder: Path) -> Findings:
        """What `compare` wrote."""
        names = ("steps", "cv", "engine", "members", "energy_std", "force_std", "force_error", "in_break")
        with np.load(folder / PATH) as archive:
            arrays = {name: archive[name] for name in names}
        pulled = load(folder / RUPTURE) if (folder / RUPTURE).is_file() else None
        relaxed = neb.read(folder / neb.PATH) if (folder / neb.PATH).is_file() else None
        bins = self.config.profile_bins if self.thermal else 0
        return Findings(**arrays, bins=bins, rupture=pulled, minimum_energy_path=relaxed)


def mean_surface(committee: Members) -> EnergyForces:
    """The committee mean as a potential-energy surface."""

    def mean(frame: Frame) -> tuple[float, Array]:
        energies, forces = committee(frame)
        return float(energies.mean()), forces.mean(axis=0)

    return mean


def figures(
    findings: Findings, profile: Profile, theirs: Profile | None = None, reference: Rupture | None = None
) -> dict[str, Any]:
    """The columns of rounds.csv that say how good the round's potential is; nan where a figure is not known.

    Parameters
    ----------
    findings : of the check.
    profile : the round's barrier, by its sampler.
    theirs, reference : the engine's own barrier and rupture, where they are known.
    """
    height, height_std = findings.height
    worst, worst_se = findings.largest
    row: dict[str, Any] = {
        "barrier_eV": profile.barrier,
        "barrier_se_eV": profile.barrier_error,
        "barrier_kind": profile.kind,
        "reference_eV": NAN,
        "error_kcal_mol": NAN,
        "path_error_kcal_mol": worst / KCAL_MOL,
        "path_error_se_kcal_mol": worst_se / KCAL_MOL,
        "path_height_eV": height,
        "path_height_std_eV": height_std,
        "rupture_energy_error_kcal_mol": NAN,
        "rupture_force_error_percent": NAN,
        "rupture_distance_error_A": NAN,
        "reference_se_eV": NAN,
        **_rupture(findings.rupture),
        **(neb.figures(findings.minimum_energy_path) if findings.minimum_energy_path else {}),
        "path_frames": len(findings.steps),
        "path_frames_in_break": int(findings.in_break.sum()),
        "path_energy_span_eV": float(np.ptp(findings.engine)) if len(findings.engine) else NAN,
    }
    if theirs is not None:
        row |= {"reference_eV": theirs.barrier, "reference_se_eV": theirs.barrier_error}
        row["error_kcal_mol"] = (profile.barrier - theirs.barrier) / KCAL_MOL
    ours = findings.rupture
    if reference is not None and ours is not None:
        error = compare(ours, reference)
        row |= {
            "rupture_energy_error_kcal_mol": error.energy_max / KCAL_MOL,
            "rupture_force_error_percent": error.force_percent,
            "stability_energy_error_kcal_mol": (ours.stability_energy - reference.stability_energy) / KCAL_MOL,
            "stability_distance_error_A": ours.stability_distance - reference.stability_distance,
            "rupture_distance_error_A": error.distance,
            "same_bond": error.same_bond,
        }
    return row


def _rupture(ours: Rupture | None) -> dict[str, Any]:
    """The columns of the committee's quasi-static pull; none where nothing is pulled apart."""
    if ours is None:
        return {}
    return {
        "rupture_energy_eV": ours.energy_max,
        "rupture_force_eV_A": ours.force_max,
        "rupture_distance_A": ours.break_distance,
        "stability_energy_eV": ours.stability_energy,
        "stability_distance_A": ours.stability_distance,
        "stability_energy_error_kcal_mol": NAN,
        "stability_distance_error_A": NAN,
        "rupture_bond": "-".join(map(str, ours.broken_bond)) if ours.broke else "none",
        "same_bond": "",
    }


def telling_positions(record: Rupture, count: int) -> Array:
    """At most ``count`` structures [K, N, 3] that decide where a rupture lies; none where nothing broke.

    A quarter are intact ones up to the limit of stability, half lie along the paths over the last barriers, the others
    along the fall of the molecule that has lost its stability, evenly in displacement. Of a bond that gives way
    gradually all are from its largest force on.
    """
    if not record.broke or count < 1:
        return record.positions[:0]
    if record.gradual:
        return _evenly(record.positions[int(np.argmax(record.forces)) :], count)
    intact = record.positions[::-1][: 2 * (count // 4) : 2]
    # of every path the images between its ends; those of the highest distance last
    paths = record.saddle_positions.reshape(-1, 7, *intact.shape[1:])[:, 1:-1].reshape(-1, *intact.shape[1:])
    over = paths[::-1][: count // 2]
    return np.concatenate([intact, over, _evenly(record.fall_positions, count - len(intact) - len(over))])


def _evenly(path: Array, count: int) -> Array:
    """``count`` structures of a path [K, N, 3], evenly in displacement; its first is left out."""
    if len(path) < 2 or count < 1:
        return path[:0]
    length = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=(1, 2)))]
    wanted = np.linspace(0.0, length[-1], count + 1)[1:]
    return path[np.unique(np.clip(np.searchsorted(length, wanted), 0, len(path) - 1))]


def change(row: Mapping[str, Any], previous: Mapping[str, Any] | None) -> float:
    """Change of the event's barrier since the round before, eV: of the rupture energy where there is one."""
    name = "rupture_energy_eV" if "rupture_energy_eV" in row else "barrier_eV"
    if previous is None or previous.get(name) is None:
        return NAN
    return float(row[name]) - float(previous[name])


def meets(row: Mapping[str, Any], previous: Mapping[str, Any] | None, limits: Any) -> bool:
    """Whether a round is within the limits of ``convergence``: barrier at rest, and right along its own path."""
    return bool(
        row["path_error_kcal_mol"] <= limits.path_error / KCAL_MOL and abs(change(row, previous)) <= limits.barrier
    )
