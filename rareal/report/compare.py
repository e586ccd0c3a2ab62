"""Several runs side by side: barrier and errors against the labels they bought and the time they took."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rareal.errors import RunFolderError
from rareal.records import Array
from rareal.report.accounts import seconds
from rareal.report.convergence import BARRIERS
from rareal.report.rundata import RunData, finite
from rareal.report.style import LIMITS, STYLE, Table, name_decades, sheet, write_png, write_table
from rareal.units import KCAL_MOL

NAME = "comparison"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D3A9B", "#666666")
MARKERS = "osD^vP*X"


def write_comparison(folders: Sequence[Path], output: Path) -> list[Path]:
    """Write ``comparison.png`` and ``comparison.csv`` of several runs into ``output``; return them.

    Raises
    ------
    RunFolderError
        If a run does not exist or has no finished round, one is named twice, or their barriers are of different kinds.
    """
    places = [folder.resolve() for folder in folders]
    twice = next((f for k, f in enumerate(folders) if places[k] in places[:k]), None)
    if twice is not None:
        raise RunFolderError(f"{twice}: this run is named twice")
    runs = dict(zip(names(places), (RunData(folder) for folder in folders), strict=True))
    for run in runs.values():
        if not run.rows:
            raise RunFolderError(f"{run.folder}: no round of this run has finished yet; there is nothing to compare")
    kinds = {run.barrier_kind: run.folder for run in runs.values()}
    if len(kinds) > 1:
        told = ", ".join(f"{kind} ({folder})" for kind, folder in kinds.items())
        raise RunFolderError(f"barriers of different kinds cannot be compared: {told}")
    output.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        picture = write_png(draw_comparison(runs), output / f"{NAME}.png")
    return [picture, write_table(output / f"{NAME}.csv", table_comparison(runs))]


def names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    depth = 1
    while depth < max(len(folder.parts) for folder in folders):
        found = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(found)) == len(found):
            return found
        depth += 1
    return [str(folder) for folder in folders]


def minutes(run: RunData) -> Array:
    """Time of all stages up to the end of each round, [rounds], minutes; without interruptions."""
    columns = [np.nan_to_num(finite(run.rows, name)) for name in ("train_s", "sample_s", "label_s")]
    found: Array = (seconds(run.initial, "data") + np.cumsum(sum(columns, np.zeros(len(run.rows))))) / 60
    return found


def draw_comparison(runs: dict[str, RunData]) -> Figure:
    """Barrier above, error below; against labels on the left, against time on the right."""
    figure = sheet(8.8, 6.4)
    grid = figure.subplots(2, 2, sharex="col", sharey="row", height_ratios=[1, 1])
    column, error = _error_column(list(runs.values()))
    looks = dict(zip(runs, ((COLOURS[k % 8], MARKERS[k % 8]) for k in range(len(runs))), strict=True))
    for name, run in runs.items():
        colour, marker = looks[name]
        barrier, spread = finite(run.rows, "barrier_eV"), np.nan_to_num(finite(run.rows, "barrier_se_eV"))
        wrong = np.abs(finite(run.rows, column))
        wrong[wrong == 0] = np.nan  # has no place on a logarithmic axis
        for place, x in enumerate((finite(run.rows, "labels"), minutes(run))):
            style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 4.5}
            grid[0, place].errorbar(x, barrier, yerr=spread, capsize=2, label=name, **style)
            grid[1, place].plot(x, wrong, **style)
    _references(grid[0], runs, looks)
    for axes in grid[1]:
        axes.set_yscale("log")
        for limit in LIMITS:
            axes.axhline(limit, color="0.45", lw=0.9, ls="--", zorder=0)
        axes.annotate(", ".join(f"{limit:g}" for limit in LIMITS) + " kcal/mol", (0.99, max(LIMITS)), va="bottom",
                      xycoords=axes.get_yaxis_transform(), ha="right", color="0.35", fontsize=8.5)  # fmt: skip
    name_decades(grid[1, 0])
    _late(grid[0, 0], runs)
    grid[0, 0].set_ylabel(f"{BARRIERS[next(iter(runs.values())).barrier_kind]} (eV)")
    grid[1, 0].set_ylabel(f"{error}\n(kcal/mol)")
    grid[1, 0].set_xlabel("Labels bought")
    grid[1, 1].set_xlabel("Time of all stages (min)")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _error_column(runs: Sequence[RunData]) -> tuple[str, str]:
    """The column of ``rounds.csv`` that all runs have, best first, and what it is called."""
    usual = {
        "path_error_kcal_mol": "Error along its own path",
        "error_kcal_mol": "Error of the barrier",
        "rupture_energy_error_kcal_mol": "Error of the rupture energy",
    }
    held = (name for name in usual if all(np.isfinite(finite(run.rows, name)).any() for run in runs))
    column = next(held, "path_error_kcal_mol")
    return column, usual[column]


def _references(axes: Any, runs: dict[str, RunData], looks: dict[str, tuple[str, str]]) -> None:
    """A line per reference: one in black that all runs share, else each in its run's colour."""
    known = {name: run.reference_barrier for name, run in runs.items() if run.reference_barrier}
    shared = len({round(reference[0], 6) for reference in known.values()}) == 1
    for k, (name, (mean, _)) in enumerate(known.items()):
        if shared and k:
            break
        for panel in axes:
            colour, label = ("black", f"reference, {mean:.3f} eV") if shared else (looks[name][0], None)
            panel.axhline(mean, color=colour, lw=1.2, ls="-" if shared else ":", label=label, zorder=1)
            if shared:
                panel.axhspan(mean - KCAL_MOL, mean + KCAL_MOL, color="0.91", lw=0, zorder=0, label="± 1 kcal/mol")


def _late(axes: Axes, runs: dict[str, RunData]) -> None:
    """An inset with the last rounds, where the first ones leave no room to see them."""
    late = slice(-3, None)
    ends = np.concatenate([finite(run.rows, "barrier_eV")[late] for run in runs.values()])
    low, high = axes.get_ylim()
    if not np.isfinite(ends).any() or high - low < 8 * (np.nanmax(ends) - np.nanmin(ends) + KCAL_MOL):
        return
    inset = axes.inset_axes((0.45, 0.14, 0.52, 0.48))
    for line in axes.get_lines():
        if line.get_linestyle() == "-" and len(line.get_xdata()) > 2:  # type: ignore[arg-type]
            style: dict[str, Any] = {"color": line.get_color(), "marker": line.get_marker(), "ms": 4}
            inset.plot(line.get_xdata(), line.get_ydata(), **style)
    for run in runs.values():
        if run.reference_barrier:
            inset.axhline(run.reference_barrier[0], color="black", lw=0.9, zorder=0)
    starts = [finite(run.rows, "labels")[late] for run in runs.values()]
    x = np.concatenate(starts)
    margin = 0.08 * (np.nanmax(x) - np.nanmin(x) + 1)
    inset.set_xlim(np.nanmin(x) - margin, np.nanmax(x) + margin)
    room = 0.15 * (np.nanmax(ends) - np.nanmin(ends)) + 0.5 * KCAL_MOL
    inset.set_ylim(np.nanmin(ends) - room, np.nanmax(ends) + room)
    inset.tick_params(labelsize=8)
    inset.set_title("last 3 rounds", fontsize=8.5)


def table_comparison(runs: dict[str, RunData]) -> Table:
    """A row per run and round."""
    first = ("round", "labels", "barrier_eV", "barrier_se_eV", "reference_eV", "error_kcal_mol", "path_error_kcal_mol")
    rows = [
        {"run": name, **{column: row.get(column) for column in first}, "time_min": spent}
        for name, run in runs.items()
        for row, spent in zip(run.rows, minutes(run).tolist(), strict=True)
    ]
    return {column: [row[column] for row in rows] for column in rows[0]}
