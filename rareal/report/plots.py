"""The kinds of plots of a run, in the manner of Figures 2, 3, 5 and 6 of the rare-events paper.

They are drawn from the run folder alone, never from the live loop, so that a run can be looked at while it goes on,
after it was killed, or on another machine. Each has its numbers as a table, and a caption that says how to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from matplotlib.figure import Figure

from rareal.errors import RunFolderError
from rareal.report import accounts, convergence, curves, evaluation, spread, surface
from rareal.report.evaluation import Parity, Reliability
from rareal.report.rundata import RunData
from rareal.report.style import STYLE, Table, write_png, write_table

T = TypeVar("T")
FOLDER = "plots"


@dataclass(frozen=True)
class Kind:
    """A plot of a run.

    Attributes
    ----------
    title : its heading.
    caption : how to read it.
    draw : the picture, None where there is nothing to show yet.
    table : its numbers.
    """

    title: str
    caption: str
    draw: Callable[[RunData], Figure | None]
    table: Callable[[RunData], Table]


KINDS: dict[str, Kind] = {
    "barrier_convergence": Kind(
        "Barrier, round by round",
        "Left: the barrier of each round with its standard error. Black line: the label engine's own barrier, made "
        "the same way; the light band is ± 1 kcal/mol, the dark one its standard error. A converged run stays on the "
        "line, or, without one, at rest. Right: errors on a logarithmic scale. “Along its own path” is the largest "
        "difference between committee and engine at frames of the path that the committee itself has driven; it needs "
        "no reference, and a run is not converged before it is below the dashed lines. The second line of the axis "
        "counts the labels bought so far.",
        convergence.draw_barrier,
        convergence.table_barrier,
    ),
    "work": Kind(
        "Work of the drive",
        "Work that the moving spring has done on the molecule, against the collective variable: thick the last round, "
        "black the label engine driven the same way. The dot is the largest work, W_max, which stands for the barrier; "
        "it is no free energy, and on average lies above one. After the break the work stays nearly level. Thin lines "
        "start from other velocities: their spread is what W_max is uncertain by.",
        curves.draw_work,
        curves.table_work,
    ),
    "profile": Kind(
        "Energy along the coordinate",
        "The profile that the sampler gives along the collective variable, round by round, with its standard error "
        "where it is known; black the label engine's own. The barrier is the highest point between the two states, "
        "measured from the first one. Curves that no longer change from round to round have converged.",
        curves.draw_profile,
        curves.table_profile,
    ),
    "free_energy": Kind(
        "Free energy of the last round",
        "What the frames of the last round give, weighted by the bias that acted on them. With one collective "
        "variable beside it what the hills alone say (dotted): the two should agree. With two a map: circles are the "
        "minima, the cross is the saddle between them, the white line the way over it; white areas have not been "
        "visited.",
        surface.draw_free_energy,
        surface.table_free_energy,
    ),
    "barrier_time": Kind(
        "Barrier and sampling time",
        "The barrier there and back as it would have been from the frames up to each time, round by round. A curve "
        "that still drifts at its end wants longer sampling.",
        surface.draw_barrier_time,
        surface.table_barrier_time,
    ),
    "path": Kind(
        "Committee and engine along the checked path",
        "The latest rounds. Above: energies of frames that the committee has visited by itself, from the label engine "
        "(circles) and from the committee (line), each relative to the first frame. Below: their difference; the grey "
        "band is ± 0.5 kcal/mol. Frames are evenly spaced here; those in the shaded part lie within the break, which "
        "takes a small part of the time and has a large part of the frames. The largest difference is the path error; "
        "where a temperature is sampled, means over stretches of the collective variable are compared instead of "
        "frames.",
        curves.draw_path,
        curves.table_path,
    ),
    "rupture": Kind(
        "Quasi-static rupture",
        "The two ends are held at growing distances and all else is relaxed: energy (left) and force on the ends "
        "(right), committee by round and label engine in black. The dot is where the molecule breaks. Nothing here "
        "depends on velocities or temperature, so that it tells a wrong potential from a noisy barrier.",
        curves.draw_rupture,
        curves.table_rupture,
    ),
    "uncertainty_cv": Kind(
        "Disagreement along the collective variable",
        "Population std over the members of the committee at every frame, one panel a round. Frames above the dashed "
        "threshold are new to the committee; circles were selected for labelling, green ticks were labelled to check "
        "the path, the shaded part is the break. From round to round the peak at the event should sink towards the "
        "threshold; a round without a frame above it has nothing left to learn along this path.",
        spread.draw_uncertainty_cv,
        spread.table_uncertainty,
    ),
    "uncertainty": Kind(
        "Disagreement in time",
        "The same against the time step of the drive: what lies close together along the collective variable, such as "
        "the break, is far apart here, and the start, which sets the threshold, can be seen.",
        spread.draw_uncertainty,
        spread.table_uncertainty,
    ),
    "learning": Kind(
        "Learning curves",
        "Loss and mean absolute errors on the validation frames over the epochs, every round from its own zero; a "
        "round starts from the last one's weights. Validation far above training, or rising at the end, means "
        "overfitting: more labels or fewer epochs.",
        convergence.draw_learning,
        convergence.table_learning,
    ),
    "labels": Kind(
        "Where the labels were spent",
        "Left: labels along the collective variable, by what they were bought for. A good run spends most of them "
        "where the event is. Right: the same by round.",
        accounts.draw_labels,
        accounts.table_labels,
    ),
    "cost": Kind(
        "Time by stage",
        "Wall time of each stage as its marker says. The check of a round begins while its walkers are driven, so that "
        "the sum is somewhat more than the time that passed; an interruption does not count.",
        accounts.draw_cost,
        accounts.table_cost,
    ),
}
"""What the run folder alone shows."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """The last committee on labelled frames: the panels of `rareal.report.evaluation`, and how many frames."""

    frames: int
    parity: Sequence[Parity]
    reliability: Sequence[Reliability]


SETS = {
    "": (
        "the frames it learnt from",
        "Most members have been fitted to each of these frames: errors here are those of the fit, a lower bound.",
    ),
    "_unseen": (
        "frames labelled afterwards",
        "The committee was trained on none of these frames: they were labelled to check its path, or chosen since "
        "because it was unsure of them. Errors here are those that matter, and the honest test of its std.",
    ),
}
"""Suffix of the kinds, and what the frames are, of the sets that the last committee is judged on."""


HOW_CALIBRATED = (
    "The committee's std against its true error, logarithmic. Dashed: error = std. Dots: frames (atoms) in bins of "
    "equal number by their std, root-mean-square error of each. Dots on the dashed line mean a std that can be "
    "taken at its word; above it the committee is too sure of itself. Rising dots mean at least that the std finds "
    "the bad frames. "
)


def judged_kinds(judgements: Mapping[str, Judgement]) -> dict[str, Kind]:
    """Parity and calibration, for the sets (keys of `SETS`) that there are."""
    kinds = {}
    explained = max(judgements, default="")  # on the page the frames that were not learnt from come first
    for suffix, (name, remark) in SETS.items():
        if (found := judgements.get(suffix)) is None:
            continue
        frames = f"{name} ({found.frames})"
        kinds[f"parity{suffix}"] = Kind(
            f"Parity, {frames}",
            f"Predictions of the last committee (its mean) against labels, and their difference below. {remark}",
            partial(_shown, evaluation.draw_parity, found.parity),
            partial(_shown, evaluation.table_parity, found.parity),
        )
        kinds[f"calibration{suffix}"] = Kind(
            f"Calibration, {frames}",
            f"{HOW_CALIBRATED if suffix == explained else ''}{remark}",
            partial(_shown, evaluation.draw_calibration, found.reliability),
            partial(_shown, evaluation.table_calibration, found.reliability),
        )
    return kinds


def _shown(show: Callable[[Any], T], panels: Any, _: RunData) -> T:
    """What needs nothing of the run but its panels."""
    return show(panels)


NAMES = (*KINDS, *(f"{name}{suffix}" for suffix in SETS for name in ("parity", "calibration")))
"""All kinds that a run may have."""


def write_plots(
    run: RunData,
    kinds: Mapping[str, Kind],
    only: Collection[str] = (),
    folder: Path | None = None,
    tables: bool = True,
) -> list[Path]:
    """Write ``KIND.png`` and ``KIND.csv`` of ``kinds``, as far as there is something to show; return the files.

    Parameters
    ----------
    only : names of those wanted; all if empty.
    folder : where to; ``RUN/plots`` if not given.
    tables : whether to write the CSVs; of long drives they are large.

    Raises
    ------
    RunFolderError
        If there is nothing to draw yet.
    """
    folder = folder or run.folder / FOLDER
    written = []
    with matplotlib.rc_context(STYLE):
        for name, kind in kinds.items():
            figure = kind.draw(run) if not only or name in only else None
            if figure is not None:
                folder.mkdir(parents=True, exist_ok=True)
                written.append(write_png(figure, folder / f"{name}.png"))
                if tables:
                    written.append(write_table(folder / f"{name}.csv", kind.table(run)))
    if not written:
        what = f"{', '.join(only)}: nothing of that" if only else "nothing to draw yet; the first plots come"
        rest = " in this run, or not yet" if only else " with the first trained committee"
        raise RunFolderError(f"{run.folder}: {what}{rest}")
    return written


def plot_run(folder: Path, reference: Path | None = None) -> list[Path]:
    """Draw ``RUN/plots/*.png`` from what the run folder has so far; return the files written.

    Parameters
    ----------
    folder : the run folder.
    reference : a folder of the engine's own drives; see `RunData`.

    Raises
    ------
    RunFolderError
        If there is no such folder, or nothing in it to draw yet.
    """
    return write_plots(RunData(folder, reference), KINDS, tables=False)
