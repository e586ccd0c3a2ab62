"""The committee's disagreement along the event, one panel a round: threshold, break, and what was labelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rareal.records import Array
from rareal.report.curves import joined, walked
from rareal.report.rundata import Pull, RoundData, RunData
from rareal.report.style import BLUE, ENGINE, GREEN, SHADE, VERMILLION, Table, name_decades, sheet, some

MOST_PANELS = 9
SCORES = {
    "energy": ("Committee's energy std (meV)", "energy_std_eV"),
    "energy_per_atom": ("Committee's energy std / √N (meV)", "energy_std_per_atom_eV"),
    "force": ("Committee's largest force std (meV/Å)", "largest_force_std_eV_A"),
}
"""What is judged of a frame, on an axis and as the head of a column."""


def score(run: RunData, pull: Pull) -> Array:
    """What the threshold is compared with along a pull, [T], eV or eV/Å."""
    if run.score == "force":
        return pull.force_std
    scale = np.sqrt(run.atoms) if run.score == "energy_per_atom" and run.atoms else 1.0
    found: Array = pull.energy_std / scale
    return found


def draw_uncertainty(run: RunData) -> Figure | None:
    """The spread against the time step of the drive."""
    return _draw(run, "Step of the drive", lambda pull: pull.steps, lines=True)


def draw_uncertainty_cv(run: RunData) -> Figure | None:
    """The spread against the collective variable."""
    return _draw(run, run.cv_label, lambda pull: pull.cv, lines=False)


def _draw(run: RunData, name: str, along: Callable[[Pull], Any], lines: bool) -> Figure | None:
    doubtful = [item for item in run.rounds if any((score(run, pull) > 0).any() for pull in item.pulls)]
    rounds = some(doubtful, MOST_PANELS)
    if not rounds:
        return None
    columns = min(3, len(rounds))
    rows = -(-len(rounds) // columns)
    figure = sheet(max(5.0, 2.75 * columns), 1.1 + 1.8 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, item in zip(grid.flat, rounds, strict=False):
        _panel(axes, run, item, along, lines)
    for axes in grid.flat[len(rounds) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(rounds) - columns) : len(rounds)]:
        axes.tick_params(labelbottom=True)
    spreads = 1000 * np.concatenate([score(run, pull) for item in rounds for pull in item.pulls])
    low, high = np.quantile(spreads[spreads > 0], [0.002, 1.0])
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_ylim(low / 3, high * 2)
    name_decades(grid[0, 0])
    figure.supxlabel(name, fontsize=9.5)
    figure.supylabel(SCORES[run.score][0], fontsize=9.5)
    known = {name: handle for axes in grid.flat for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    place: dict[str, Any] = {"loc": "outside upper center", "columnspacing": 1.2}
    legend = figure.legend(known.values(), known.keys(), ncols=2 * columns if columns > 1 else 3, **place)
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D) and handle.get_marker() == ".":
            handle.set_markersize(6)
    return figure


def _panel(axes: Axes, run: RunData, item: RoundData, along: Callable[[Pull], Any], lines: bool) -> None:
    checked = item.path.walker if item.path else None
    main = next((k for k, pull in enumerate(item.pulls) if pull.walker == checked), 0)
    pull = item.pulls[main]
    if item.path and item.path.break_steps:
        first, last = item.path.break_steps
        # a few tens of fs in several ps: widened to what can be seen
        inside = along(pull)[(pull.steps >= first) & (pull.steps <= last)]
        room = 20 if lines else 0.0
        if inside.size:
            axes.axvspan(inside.min() - room, inside.max() + room, color=SHADE, lw=0, label="break", zorder=0)
    for k, other in enumerate(item.pulls):
        if k != main:
            _series(axes, along(other), 1000 * score(run, other), lines, "0.7", 0.5, "other walkers", 1)
    _series(axes, along(pull), 1000 * score(run, pull), lines, BLUE, 0.9, "checked walker", 2)
    if item.selection:
        # every walker may have its own: the one of the walker in the foreground
        limit = 1000 * item.selection.threshold(pull)
        axes.axhline(limit, color=ENGINE, lw=1, ls="--", zorder=3, label="threshold")
        points = [(along(p)[k], 1000 * score(run, p)[k]) for p in item.pulls for k in item.selection.rows(p)]
        if points:
            mark: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": VERMILLION, "mew": 0.8, "ms": 3.2}
            axes.plot(*zip(*points, strict=True), **mark, zorder=4, label="selected")
    if item.path:
        mark = {"ls": "", "marker": "|", "color": GREEN, "ms": 7, "mew": 0.9, "clip_on": False}
        places = item.path.steps if lines else item.path.cv
        axes.plot(places, np.full(len(places), 0.04), **mark, transform=axes.get_xaxis_transform(),
                  zorder=4, label="path-checked")  # fmt: skip
    axes.set_title(f"round {item.number}", loc="left")


def _series(axes: Axes, x: Any, y: Array, lines: bool, colour: str, width: float, label: str, order: int) -> None:
    """In time a line; along a variable that goes back and forth dots."""
    size = width * (1.2 if len(x) > 2000 else 3.0)
    style: dict[str, Any] = {"lw": width} if lines else {"ls": "", "marker": ".", "ms": size, "mew": 0}
    axes.plot(x, y, color=colour, zorder=order, label=label, **style)


def table_uncertainty(run: RunData) -> Table:
    """Every step of every walker, with the threshold that held and whether it was chosen."""
    found = [(item, pull) for item in run.rounds for pull in item.pulls]
    marks, thresholds = [], []
    for item, pull in found:
        mark = np.zeros(pull.steps.size, dtype=bool)
        mark[item.selection.rows(pull) if item.selection else []] = True
        marks.append(mark)
        limit = item.selection.threshold(pull) if item.selection else np.nan
        thresholds.append(np.full(pull.steps.size, limit))
    columns = {
        **walked(run, [(item.number, pull) for item, pull in found]),
        "energy_std_eV": joined([pull.energy_std for _, pull in found]),
        "largest_force_std_eV_A": joined([pull.force_std for _, pull in found]),
    }
    name = SCORES[run.score][1]
    columns[name] = joined([score(run, pull) for _, pull in found])
    return {**columns, f"threshold_of_{name}": joined(thresholds), "selected": joined(marks)}
