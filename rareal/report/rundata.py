"""What the plots need of a run folder, read lazily, from whatever is there already; see `rareal.report.reading`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from rareal import cv
from rareal.errors import RarealError, RunFolderError
from rareal.files import read_csv, read_json
from rareal.records import Array, Frame, Profile
from rareal.report.bought import Bought, bought
from rareal.report.reading import attempt, number

COLUMN_UNITS = {"Å": "A", "°": "deg", "degrees": "deg"}
"""Units as they are written in the heads of columns, where they have signs of their own."""

INITIAL, PROFILE, MARKER = "initial", "profile.npz", "stage.done"


@dataclass(frozen=True, eq=False)
class Pull:
    """One walker's drive: steps [T], cv [T], work [T] eV, energy std [T] eV, largest force std [T] eV/Å.

    ``walker`` is its number, ``seed`` that of its velocities, ``row`` its place in the file.
    """

    steps: NDArray[np.int64]
    cv: Array
    work: Array
    energy_std: Array
    force_std: Array
    walker: int = 0
    seed: int = 0
    row: int = 0

    @property
    def summit(self) -> int:
        """Row of the largest work."""
        return int(np.argmax(self.work))


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen of the judged trajectories.

    Attributes
    ----------
    thresholds : of the score, one per judged trajectory, or one for all.
    chosen : [K, 2] judged trajectory and row.
    walkers : whose the judged trajectories are; empty where they are those of the archive, in its order.
    """

    thresholds: Array
    chosen: NDArray[np.int64]
    walkers: tuple[int, ...] = ()

    def is_of(self, judged: int, pull: Pull) -> bool:
        """Whether a judged trajectory is that of a pull."""
        return self.walkers[judged] == pull.walker if judged < len(self.walkers) else judged == pull.row

    def threshold(self, pull: Pull) -> float:
        """What the scores of a pull were compared with; nan where it was not judged."""
        if self.thresholds.size == 1:
            return float(self.thresholds[0])
        return next((float(x) for k, x in enumerate(self.thresholds) if self.is_of(k, pull)), np.nan)

    def rows(self, pull: Pull) -> list[int]:
        """The chosen rows of a pull."""
        return [row for k, row in self.chosen.tolist() if self.is_of(k, pull) and row < pull.steps.size]


@dataclass(frozen=True, eq=False)
class PathCheck:
    """Engine and committee [K] eV along the checked frames of one walker, relative to the first of them."""

    steps: NDArray[np.int64]
    cv: Array
    engine: Array
    committee: Array
    in_break: NDArray[np.bool_]
    walker: int

    @property
    def break_steps(self) -> tuple[int, int] | None:
        """First and last step of the break, None where no frame is within it."""
        steps = self.steps[self.in_break]
        return (int(steps.min()), int(steps.max())) if steps.size else None


@dataclass(frozen=True, eq=False)
class Rupture:
    """Quasi-static rupture: distances [K] Å, energies [K] eV above the start, forces [K] eV/Å.

    ``broken`` is the distance of the rupture, nan where there was none.
    """

    distances: Array
    energies: Array
    forces: Array
    broken: float


class RoundData:
    """One round's folder, or that of the initial data (number -1); what it lacks is None or empty."""

    def __init__(self, folder: Path, variable: cv.Variable | None = None) -> None:
        self.folder = folder
        self._variable = variable
        self.number = int(folder.name.removeprefix("round-")) if folder.name != INITIAL else -1

    @property
    def trajectories(self) -> Path:
        """The archive of what its walkers saw."""
        return self.folder / "sample" / "trajectories.npz"

    @cached_property
    def pulls(self) -> list[Pull]:
        return attempt(self.trajectories, _pulls) or []

    @property
    def worked(self) -> list[Pull]:
        """The pulls that did work: none of a sampler that does none."""
        return [pull for pull in self.pulls if pull.work.any()]

    @cached_property
    def profile(self) -> Profile | None:
        """Work, free energy or potential energy along the coordinate, and the barrier in it."""
        return attempt(self.folder / "sample" / PROFILE, _profile)

    @cached_property
    def selection(self) -> Selection | None:
        return attempt(self.folder / "select" / "stage.done", _selection)

    @cached_property
    def path(self) -> PathCheck | None:
        return attempt(self.folder / "check" / "path.npz", _path)

    @cached_property
    def rupture(self) -> Rupture | None:
        return attempt(self.folder / "check" / "rupture.npz", _rupture)

    @cached_property
    def learning(self) -> dict[str, Array]:
        """Columns of the learning curve [epochs], NaN where a cell is empty."""
        return attempt(self.folder / "train" / "learning_curve.csv", _columns) or {}

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        """What the marker of every finished stage says, in the order in which they ended."""
        return _stages(self.folder)

    @cached_property
    def free_energy(self) -> dict[str, Array] | None:
        """The surface of a sampler that gives one (`rareal.freeenergy.analysis.FreeEnergy`), by its fields."""
        return attempt(self.folder / "sample" / "free_energy.npz", _arrays)

    @cached_property
    def notes(self) -> list[str]:
        """What the round's stages had to say, each thing once."""
        said = [marker.get("summary") for marker in self.stages.values()]
        said.append(attempt(self.folder / "train" / "training.json", read_json))
        found = [str(note) for item in said if isinstance(item, dict) for note in item.get("notes") or []]
        if self.profile is not None and self.profile.note:
            found.append(self.profile.note)
        return list(dict.fromkeys(found))

    @cached_property
    def labels(self) -> list[Bought]:
        """What was labelled in this round, stage by stage."""
        places = [self.folder / name for name in self.stages]
        stretches = sorted(place for place in self.folder.glob("fly/update-*") if (place / MARKER).is_file())
        return [label for place in (*stretches, *places) for label in bought(place, self.number, self._variable)]


class RunData:
    """A run folder and, where there is one, the engine's own numbers.

    Parameters
    ----------
    folder : the run folder.
    reference : a folder made by ``rareal reference``; by default the one that the run's configuration names, or else
        the run folder's sibling ``<RUN>-reference``.

    Raises
    ------
    RunFolderError
        If ``folder`` is no run folder, or ``reference`` is given and does not exist.
    """

    def __init__(self, folder: Path, reference: Path | None = None) -> None:
        if not folder.is_dir():
            raise RunFolderError(f"{folder}: there is no such run folder; start one with `rareal run CONFIG`")
        if reference is not None and not reference.is_dir():
            raise RunFolderError(f"{reference}: there is no such reference; make it with `rareal reference CONFIG`")
        self.folder = folder
        self.config: dict[str, Any] = attempt(folder / "config.yaml", _config) or {}
        places = sorted(place for place in folder.glob("round-[0-9]*") if place.is_dir())
        self.rounds = [RoundData(place, self.variable) for place in places]
        self.initial = RoundData(folder / INITIAL, self.variable)
        self.reference = reference or self._usual_reference()

    def _usual_reference(self) -> Path | None:
        named = self.config.get("reference")
        whole = self.folder.resolve()
        usual = [Path(named)] if named else []
        usual.append(whole.with_name(f"{whole.name}-reference"))
        return next((place for place in usual if place.is_dir()), None)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``rounds.csv``."""
        return attempt(self.folder / "rounds.csv", read_csv) or []

    @cached_property
    def reference_pulls(self) -> list[Pull]:
        """The engine's pulls, one per velocity seed."""
        if self.reference is None:
            return []
        found = [attempt(file, _pulls) for file in sorted(self.reference.glob("**/trajectory.npz"))]
        return [pull for pulls in found if pulls for pull in pulls if pull.work.any()]

    @cached_property
    def reference_profile(self) -> Profile | None:
        """The engine's own work or energy along the coordinate."""
        return None if self.reference is None else attempt(self.reference / PROFILE, _profile)

    @cached_property
    def reference_rupture(self) -> Rupture | None:
        if self.reference is None:
            return None
        found = (attempt(file, _rupture) for file in sorted(self.reference.glob("**/rupture.npz")))
        return next((rupture for rupture in found if rupture is not None), None)

    @cached_property
    def reference_barrier(self) -> tuple[float, float] | None:
        """The engine's own barrier and its standard error [eV]; the error is NaN where it is not known."""
        if self.reference_profile is not None and np.isfinite(self.reference_profile.barrier):
            return self.reference_profile.barrier, self.reference_profile.barrier_error
        summits = np.array([pull.work.max() for pull in self.reference_pulls])
        if summits.size:
            error = summits.std(ddof=1) / np.sqrt(summits.size) if summits.size > 1 else np.nan
            return float(summits.mean()), float(error)
        told = [row["reference_eV"] for row in self.rows if isinstance(row.get("reference_eV"), int | float)]
        return (float(told[-1]), np.nan) if told else None

    @cached_property
    def labels(self) -> list[Bought]:
        """All labels, in the order in which they were bought."""
        return [label for item in (self.initial, *self.rounds) for label in item.labels]

    @property
    def barrier_kind(self) -> str:
        """What the barrier is of: ``work``, ``free energy`` or ``potential energy``."""
        told = [str(row["barrier_kind"]) for row in self.rows if row.get("barrier_kind")]
        return told[-1] if told else "work"

    @property
    def score(self) -> str:
        """What is judged of a frame: ``energy``, ``energy_per_atom`` or ``force``."""
        section = self.config.get("uncertainty")
        return str(section.get("score", "energy")) if isinstance(section, dict) else "energy"

    @cached_property
    def start(self) -> Frame | None:
        """The structure of the run."""
        return attempt(self.folder / "structure.extxyz", _structure)

    @property
    def atoms(self) -> int:
        """How many atoms the structure has; 0 where it is not known."""
        return 0 if self.start is None else len(self.start.numbers)

    @cached_property
    def variable(self) -> cv.Variable | None:
        """The event's collective variable; None where it cannot be computed here."""
        return _variable(self.config.get("cv"), self.start)

    @property
    def cv_column(self) -> str:
        """The collective variable as the head of a column."""
        return "cv" + column_unit(self.cv_label)

    @property
    def cv_unit(self) -> str:
        """The unit of the collective variable; empty where it has none."""
        return _unit(self.cv_label)

    @property
    def cv_name(self) -> str:
        """The collective variable without its unit, for the middle of a sentence."""
        name = self.cv_label.removesuffix(f"({self.cv_unit})").strip()
        return name[:1].lower() + name[1:] if name[1:2].islower() else name

    @property
    def cv_label(self) -> str:
        """Name and unit of the collective variable for an axis."""
        return cv.axis(self.config.get("cv"))

    @property
    def cv_labels(self) -> list[str]:
        """Names and units of all collective variables."""
        tree = self.config.get("cv")
        return [cv.axis(section) for section in tree] if isinstance(tree, list) else [cv.axis(tree)]


def _unit(label: str) -> str:
    found = re.search(r"\(([^()]*)\)$", label)
    return found[1] if found else ""


def column_unit(label: str) -> str:
    """What the head of a column ends in for a variable with this label: ``_A`` for Å; empty for a pure number."""
    unit = _unit(label)
    return f"_{COLUMN_UNITS.get(unit, unit.replace('/', '_').replace(' ', '_'))}" if unit else ""


def _structure(path: Path) -> Frame:
    from ase.io import read

    atoms: Any = read(path)
    return Frame(np.asarray(atoms.numbers, dtype=np.int64), np.asarray(atoms.positions))


def _variable(tree: Any, start: Frame | None) -> cv.Variable | None:
    """The first variable of a configuration; None for kinds that are not ours, or need LAMMPS for their values."""
    first = tree[0] if isinstance(tree, list) and tree else tree
    if start is None or not isinstance(first, Mapping) or first.get("kind") not in cv.KINDS:
        return None
    place, _, schema = cv.KINDS[first["kind"]].partition(":")
    module = importlib.import_module(place)
    if first["kind"] == "colvars":
        return None
    try:
        parts = {"start": start} if "start" in inspect.signature(module.build).parameters else {}
        made: cv.Variable = module.build(getattr(module, schema or "Config").model_validate(first), **parts)
        return made
    except (RarealError, ValueError, IndexError):
        return None


def _config(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(tree, dict):
        raise ValueError("no configuration")
    return tree


def _pulls(path: Path) -> list[Pull]:
    # np.load reads an array of an archive only when it is asked for: the positions stay on the disk
    with np.load(path) as archive:
        pulls = [
            Pull(
                **{name: archive[f"{k}/{name}"] for name in ("steps", "cv", "work", "energy_std", "force_std")},
                walker=int(archive[f"{k}/walker"]),
                seed=int(archive[f"{k}/seed"]),
                row=k,
            )
            for k in range(int(archive["count"]))
        ]
    return [pull for pull in pulls if pull.steps.size]


def _profile(path: Path) -> Profile:
    with np.load(path) as archive:
        found = {item.name: archive[item.name] for item in fields(Profile)}
    return Profile(**{name: value.item() if value.ndim == 0 else value for name, value in found.items()})


def _arrays(path: Path) -> dict[str, Array]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def _stages(folder: Path) -> dict[str, dict[str, Any]]:
    """The markers of a round's finished stages."""
    files = [file for file in folder.glob(f"*/{MARKER}") if file.is_file()]
    read = [(file.parent.name, attempt(file, read_json)) for file in files]
    found = [(name, marker) for name, marker in read if isinstance(marker, dict)]
    return dict(sorted(found, key=lambda item: str(item[1].get("finished", ""))))


def _selection(path: Path) -> Selection:
    summary = read_json(path)["summary"]
    told = summary.get("threshold")
    thresholds = [number(value) for value in (told if isinstance(told, list) else [told])]
    chosen = np.array(summary["chosen"], dtype=np.int64).reshape(-1, 2)
    return Selection(np.array(thresholds), chosen, tuple(summary.get("walkers") or ()))


def _path(path: Path) -> PathCheck:
    with np.load(path) as archive:
        order = np.argsort(archive["steps"], kind="stable")
        order = order[np.isfinite(archive["engine"] - archive["committee"])[order]]
        found = {name: archive[name][order] for name in ("steps", "cv", "engine", "committee", "in_break")}
        walker = int(np.ravel(archive["walker"])[0]) if archive["walker"].size else 0
    if not order.size:
        raise ValueError("no frame with finite energies")
    return PathCheck(**{**found, "in_break": found["in_break"].astype(bool)}, walker=walker)


def _rupture(path: Path) -> Rupture:
    with np.load(path) as archive:
        table = np.array([archive[name] for name in ("distances", "energies", "forces")], dtype=float)
        broken = float(archive["break_distance"])
    table = table[:, np.isfinite(table).all(axis=0)]
    if not table.size:
        raise ValueError("no point with finite energy and force")
    distances, energies, forces = table
    return Rupture(distances, energies, forces, broken)


def _columns(path: Path) -> dict[str, Array]:
    rows = read_csv(path)
    names = rows[0] if rows else {}
    return {name: np.array([number(row[name]) for row in rows]) for name in names}


def finite(rows: list[dict[str, Any]], name: str) -> Array:
    """A column of ``rounds.csv`` [rounds], NaN where a cell is empty or the column is not there."""
    return np.array([number(row.get(name)) for row in rows])
