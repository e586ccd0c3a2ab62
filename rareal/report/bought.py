"""The labels of a run, one by one, as the stages that bought them have left them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rareal.cv import Variable
from rareal.files import read_csv
from rareal.report.reading import attempt, number


@dataclass(frozen=True)
class Bought:
    """A label that was paid for: where the frame came from, and what became of it.

    ``round`` is -1 for the initial data; ``energy`` is in eV, ``seconds`` what the engine took, ``failed`` why there is
    no label, empty where there is one; ``cached`` where the label of an equal frame was there already.
    """

    round: int
    stage: str
    origin: str
    walker: int
    step: int
    cv: float
    energy: float
    seconds: float
    cached: bool = False
    failed: str = ""


def bought(stage: Path, round_number: int, variable: Variable | None) -> list[Bought]:
    """The labels of one stage: those that were had, then those that were not.

    Parameters
    ----------
    variable : gives the collective variable of frames that were kept without it; None where it is not to be had.
    """
    told = attempt(stage / "labels.csv", read_csv) or []
    had = attempt(stage / "data.h5", lambda path: _labelled(path, round_number, stage.name, variable)) or []
    lost = [row for row in told if row.get("failed")]
    kept = [row for row in told if not row.get("failed")]
    if len(kept) == len(had):  # tables of earlier versions say less
        had = [replace(label, cached=row.get("cached") is True) for label, row in zip(had, kept, strict=True)]
    return [*had, *(_refused(row, stage.name, round_number) for row in lost)]


def _refused(row: dict[str, Any], stage: str, round_number: int) -> Bought:
    walker, step = (int(row[name]) if isinstance(row.get(name), int) else -1 for name in ("walker", "step"))
    origin, reason = str(row.get("origin") or "unknown"), str(row["failed"])
    return Bought(round_number, stage, origin, walker, step, number(row.get("cv")), np.nan, np.nan, False, reason)


def _labelled(path: Path, round_number: int, stage: str, variable: Variable | None) -> list[Bought]:
    """The frames of a data file (`rareal.data.dataset`), in their order."""
    rows: list[tuple[int, Bought]] = []
    with h5py.File(path, "r") as file:
        for group in file.values():
            cv = group["cv"][:]
            if variable is not None and np.isnan(cv).any():
                cv = np.where(np.isnan(cv), variable.value(group["coordinates"][:]), cv)
            told = [group[name][:].tolist() for name in ("order", "walker", "step", "energies", "seconds")]
            columns = zip(*told, cv.tolist(), group["origin"].asstr()[:], strict=True)
            for order, walker, step, energy, seconds, value, origin in columns:
                rows.append((order, Bought(round_number, stage, str(origin), walker, step, value, energy, seconds)))
    return [label for _, label in sorted(rows, key=lambda row: row[0])]
