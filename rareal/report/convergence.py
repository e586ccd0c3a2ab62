"""Does the barrier converge, and does the training? As in Figures 3, 5 and 6 of the rare-events paper."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rareal.records import Array
from rareal.report.rundata import RunData, finite
from rareal.report.style import (
    BLUE,
    ENGINE,
    GREEN,
    LATEST_ROUNDS,
    LIMITS,
    VERMILLION,
    Table,
    name_decades,
    round_colours,
    sheet,
)  # fmt: skip
from rareal.units import KCAL_MOL

BARRIERS = {"work": "$W_{max}$", "free energy": "Free-energy barrier", "potential energy": "Potential-energy barrier"}
"""What a barrier is called, by the kind of `rareal.records.Profile` that it comes from."""


def draw_barrier(run: RunData) -> Figure | None:
    """Barrier per round beside the reference (Figure 6, left), and the errors per round (Figures 3b and 5)."""
    if not run.rows:
        return None
    figure = sheet(8.4, 3.7)
    grid = figure.subplots(1, 2)
    rounds, labels = finite(run.rows, "round"), finite(run.rows, "labels")
    _barriers(grid[0], run, rounds)
    _errors(grid[1], run, rounds)
    names = [f"{r:.0f}\n{n:.0f}" if np.isfinite(n) else f"{r:.0f}" for r, n in zip(rounds, labels, strict=True)]
    every = -(-len(rounds) // 10)
    for axes in grid:
        axes.set_xticks(rounds[::every], names[::every])
        axes.set_xlim(rounds.min() - 0.4, rounds.max() + 0.4)
        axes.set_xlabel("Round / labels bought so far")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=2, columnspacing=1.0)
    return figure


def _barriers(axes: Axes, run: RunData, rounds: Array) -> None:
    barrier, error = finite(run.rows, "barrier_eV"), np.nan_to_num(finite(run.rows, "barrier_se_eV"))
    _barrier_panel(axes, run.reference_barrier, rounds, barrier, error)
    axes.set_ylabel(f"{BARRIERS[run.barrier_kind]} (eV)")
    late = slice(-LATEST_ROUNDS, None)
    low, high = np.nanmin(barrier - error, initial=np.inf), np.nanmax(barrier[late] + error[late], initial=-np.inf)
    # the first rounds are eV away: the last ones need a scale of their own to be seen against the reference
    if len(rounds) > LATEST_ROUNDS and high - low > 40 * KCAL_MOL:
        inset = axes.inset_axes((0.42, 0.2, 0.55, 0.42))
        _barrier_panel(inset, run.reference_barrier, rounds[late], barrier[late], error[late])
        inset.set_xticks(rounds[late], [f"{r:.0f}" for r in rounds[late]])
        inset.margins(x=0.15, y=0.2)
        inset.tick_params(labelsize=8)
        inset.set_title(f"last {LATEST_ROUNDS} rounds", fontsize=8.5)


def _barrier_panel(
    axes: Axes, reference: tuple[float, float] | None, rounds: Array, barrier: Array, error: Array
) -> None:
    if reference:
        mean, spread = reference
        axes.axhspan(mean - KCAL_MOL, mean + KCAL_MOL, color="0.91", lw=0, label="± 1 kcal/mol")
        if np.isfinite(spread):
            axes.axhspan(mean - spread, mean + spread, color="0.68", lw=0, label="± its standard error")
        axes.axhline(mean, color=ENGINE, lw=1.2, label=f"reference, {mean:.2f} eV")
    style: dict[str, Any] = {"color": BLUE, "marker": "o", "capsize": 3, "zorder": 3}
    axes.errorbar(rounds, barrier, yerr=error, label="committee, ± s.e.", **style)


def _errors(axes: Axes, run: RunData, rounds: Array) -> None:
    series = (
        ("path_error_kcal_mol", "along its own path", VERMILLION, "o", "-"),
        ("rupture_energy_error_kcal_mol", "$E_{max}$, quasi-static", GREEN, "s", "-"),
        ("error_kcal_mol", BARRIERS[run.barrier_kind], BLUE, "^", ":"),
    )
    for name, label, colour, marker, line in series:
        values = np.abs(finite(run.rows, name))
        values[values == 0] = np.nan  # has no place on a logarithmic axis
        if np.isfinite(values).any():
            axes.plot(rounds, values, line, color=colour, marker=marker, label=label)
    name = ", ".join(f"{limit:g}" for limit in LIMITS) + " kcal/mol"
    for limit, shown in zip(LIMITS, (name, None), strict=True):
        axes.axhline(limit, color="0.45", lw=0.9, ls="--", zorder=0, label=shown)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.2), max(high, 3))
    name_decades(axes)
    axes.set_ylabel("Absolute error (kcal/mol)")


def table_barrier(run: RunData) -> Table:
    """The rows of ``rounds.csv``, whose columns have their units in their names."""
    names = dict.fromkeys(name for row in run.rows for name in row)
    return {name: [row.get(name) for row in run.rows] for name in names}


def draw_learning(run: RunData) -> Figure | None:
    """Loss, energy error and force error over the epochs of every round."""
    rounds = [item for item in run.rounds if "epoch" in item.learning]
    if not rounds:
        return None
    figure = sheet(8.4, 3.1)
    grid = figure.subplots(1, 3)
    colours = round_colours(figure, grid, rounds)
    panels = (
        ("Loss", {"training_loss": ":", "validation_loss": "-"}, 1),
        ("Energy MAE (meV)", {"energy_mae_eV": "-"}, 1000),
        ("Force MAE (meV/Å)", {"force_mae_eV_A": "-"}, 1000),
    )
    for axes, (title, columns, scale) in zip(grid, panels, strict=True):
        for item in rounds:
            for name, line in columns.items():
                values = scale * item.learning.get(name, np.array(np.nan))
                if np.isfinite(values).any():
                    axes.plot(item.learning["epoch"], values, line, color=colours[item.number], lw=1.2)
        axes.set_yscale("log")
        name_decades(axes)
        axes.set_xlabel("Epoch of the round")
        axes.set_ylabel(title)
    lines = [Line2D([], [], color="0.4", ls=line, lw=1.2) for line in (":", "-")]
    grid[0].legend(lines, ["training", "validation"], loc="upper right")
    return figure


def table_learning(run: RunData) -> Table:
    """All learning curves, one after the other."""
    rounds = [item for item in run.rounds if "epoch" in item.learning]
    names = dict.fromkeys(name for item in rounds for name in item.learning)
    columns: dict[str, Any] = {"round": [item.number for item in rounds for _ in item.learning["epoch"]]}
    for name in names:
        none = [np.full(len(item.learning["epoch"]), np.nan) for item in rounds]
        columns[name] = np.concatenate(
            [item.learning.get(name, empty) for item, empty in zip(rounds, none, strict=True)]
        )
    return columns
