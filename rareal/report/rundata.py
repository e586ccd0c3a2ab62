"""What the plots need of a run folder, read lazily, from whatever is there already.

A run that is still going on lacks files, and one that is being resumed clears the folder of an unfinished stage while
it is read. So a file that is missing counts as not there yet; one that is damaged is named in a warning and left out.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from numpy.typing import NDArray

from rareal import cv
from rareal.errors import RunFolderError
from rareal.files import read_csv, read_json
from rareal.records import Array

T = TypeVar("T")

DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, yaml.YAMLError)


@dataclass(frozen=True, eq=False)
class Pull:
    """One walker's drive: steps [T], cv [T], work [T] eV, energy std [T] eV."""

    steps: NDArray[np.int64]
    cv: Array
    work: Array
    energy_std: Array

    @property
    def summit(self) -> int:
        """Row of the largest work."""
        return int(np.argmax(self.work))


@dataclass(frozen=True, eq=False)
class Selection:
    """The threshold of the energy std [eV] and the chosen (trajectory, row) pairs [K, 2]."""

    threshold: float
    chosen: NDArray[np.int64]


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
    """One round's folder; what it lacks is None or empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = int(folder.name.removeprefix("round-"))

    @cached_property
    def pulls(self) -> list[Pull]:
        return _attempt(self.folder / "sample" / "trajectories.npz", _pulls) or []

    @cached_property
    def selection(self) -> Selection | None:
        return _attempt(self.folder / "select" / "stage.done", _selection)

    @cached_property
    def path(self) -> PathCheck | None:
        return _attempt(self.folder / "check" / "path.npz", _path)

    @cached_property
    def rupture(self) -> Rupture | None:
        return _attempt(self.folder / "check" / "rupture.npz", _rupture)

    @cached_property
    def learning(self) -> dict[str, Array]:
        """Columns of the learning curve [epochs], NaN where a cell is empty."""
        return _attempt(self.folder / "train" / "learning_curve.csv", _columns) or {}


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
        self.config: dict[str, Any] = _attempt(folder / "config.yaml", _config) or {}
        self.rounds = [RoundData(place) for place in sorted(folder.glob("round-[0-9]*")) if place.is_dir()]
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
        return _attempt(self.folder / "rounds.csv", read_csv) or []

    @cached_property
    def reference_pulls(self) -> list[Pull]:
        """The engine's pulls, one per velocity seed."""
        if self.reference is None:
            return []
        found = [_attempt(file, _pulls) for file in sorted(self.reference.glob("**/trajectory.npz"))]
        return [pull for pulls in found if pulls for pull in pulls]

    @cached_property
    def reference_rupture(self) -> Rupture | None:
        if self.reference is None:
            return None
        found = (_attempt(file, _rupture) for file in sorted(self.reference.glob("**/rupture.npz")))
        return next((rupture for rupture in found if rupture is not None), None)

    @cached_property
    def reference_barrier(self) -> tuple[float, float] | None:
        """Mean and standard error [eV] of the engine's largest work; the error is NaN where it is not known."""
        summits = np.array([pull.work.max() for pull in self.reference_pulls])
        if summits.size:
            error = summits.std(ddof=1) / np.sqrt(summits.size) if summits.size > 1 else np.nan
            return float(summits.mean()), float(error)
        told = [row["reference_eV"] for row in self.rows if isinstance(row.get("reference_eV"), int | float)]
        return (float(told[-1]), np.nan) if told else None

    @property
    def cv_label(self) -> str:
        """Name and unit of the collective variable for an axis."""
        return cv.axis(self.config.get("cv"))


def _attempt(path: Path, read: Callable[[Path], T]) -> T | None:
    """What ``read`` makes of the file, None where there is no usable one."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        warnings.warn(f"{path} cannot be read ({error}) and is left out of the plots", stacklevel=2)
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
            Pull(*(archive[f"{k}/{name}"] for name in ("steps", "cv", "work", "energy_std")))
            for k in range(int(archive["count"]))
        ]
    return [pull for pull in pulls if pull.steps.size]


def _selection(path: Path) -> Selection:
    summary = read_json(path)["summary"]
    threshold = summary.get("threshold")
    chosen = np.array(summary["chosen"], dtype=np.int64).reshape(-1, 2)
    # one per walker; where they differ the highest, above which all agree
    return Selection(np.nan if threshold is None else float(np.max(threshold)), chosen)


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
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def finite(rows: list[dict[str, Any]], name: str) -> Array:
    """A column of ``rounds.csv`` [rounds], NaN where a cell is empty or the column is not there."""
    return np.array([_number(row.get(name)) for row in rows])
