"""Plots of a run, in the manner of Figures 2, 3 and 6 of the rare-events paper.

They are drawn from the run folder alone, never from the live loop, so that a run can be looked at while it goes on,
after it was killed, or on another machine. Colours tell apart for colour-blind eyes, and early rounds from late ones
in grey print: rounds go from dark blue to orange, the label engine is black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from rareal.errors import RunFolderError
from rareal.files import write_atomically
from rareal.records import Array
from rareal.report.rundata import PathCheck, Pull, RoundData, RunData, Rupture, finite
from rareal.units import KCAL_MOL

FOLDER = "plots"
ENGINE = "black"
BLUE, VERMILLION, GREEN, SHADE = "#0072B2", "#D55E00", "#009E73", "#F0E4C8"
"""Three colours of Okabe and Ito, and the shade that marks the break."""

LIMITS = (0.5, 1.0)
"""kcal/mol: the error that counts as converged here, and chemical accuracy."""

MOST_PANELS = 9
LATEST_ROUNDS = 3
DOTS_PER_INCH = 200
STYLE: Any = {
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "mathtext.default": "regular",
}


def plot_run(folder: Path, reference: Path | None = None) -> list[Path]:
    """Draw ``RUN/plots/*.png`` from what the run folder has so far; return the files written.

    Parameters
    ----------
    folder : the run folder.
    reference : a folder of the engine's own pulls; see `RunData`.

    Raises
    ------
    RunFolderError
        If there is no such folder, or nothing in it to draw yet.
    """
    run = RunData(folder, reference)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, draw in PLOTS.items():
            figure = draw(run)
            if figure is not None:
                (folder / FOLDER).mkdir(exist_ok=True)
                written.append(_write(figure, folder / FOLDER / name))
    if not written:
        raise RunFolderError(f"{folder}: nothing to draw yet; the first plots come with the first trained committee")
    return written


def _write(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    return write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DOTS_PER_INCH))


def draw_barrier(run: RunData) -> Figure | None:
    """W_max per round beside the reference (Figure 6, left), and the errors per round (Figures 3b and 5)."""
    if not run.rows:
        return None
    figure = _figure(8.4, 3.7)
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
    axes.set_ylabel("$W_{max}$ (eV)")
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
        ("error_kcal_mol", "$W_{max}$", BLUE, "^", ":"),
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
    _name_decades(axes)
    axes.set_ylabel("Absolute error (kcal/mol)")


def draw_work(run: RunData) -> Figure | None:
    """The work of the drive against the collective variable, round by round (Figures 2b and 3a)."""
    rounds = [item for item in run.rounds if item.pulls]
    if not rounds:
        return None
    figure = _figure(6.4, 4.0)
    axes = figure.subplots()
    colours = _round_colours(figure, axes, rounds)
    for item in rounds:
        last = item is rounds[-1]
        for k, pull in reversed(list(enumerate(item.pulls))):
            _work(axes, pull, colours[item.number], 2.8 if last else 1.5, main=k == 0)
    for k, pull in reversed(list(enumerate(run.reference_pulls))):
        _work(axes, pull, ENGINE, 1.1, main=k == 0)
    axes.set_xlabel(run.cv_label)
    axes.set_ylabel("Work (eV)")
    axes.set_xlim(*_limits([p.cv for p in run.reference_pulls or rounds[-1].pulls], 0.02))
    peaks = [p.work.max() for p in run.reference_pulls] + [np.median([p.work.max() for p in r.pulls]) for r in rounds]
    axes.set_ylim(-0.03 * max(peaks), min(1.12 * max(peaks), 2.0 * float(np.median(peaks[-3:]))))
    handles = [Line2D([], [], color="0.4", lw=2), Line2D([], [], color="0.4", lw=0.7, alpha=0.6)]
    names = ["first velocity seed (dot: $W_{max}$)", "other seeds"]
    if run.reference_pulls:
        handles, names = [Line2D([], [], color=ENGINE, lw=1.1), *handles], ["label engine", *names]
    axes.legend(handles, names, loc="upper left")
    return figure


def _work(axes: Axes, pull: Pull, colour: Any, width: float, main: bool) -> None:
    if not main:
        axes.plot(pull.cv, pull.work, color=colour, lw=0.6, alpha=0.45, zorder=2)
        return
    axes.plot(pull.cv, pull.work, color=colour, lw=width, zorder=3)
    style: dict[str, Any] = {"color": colour, "mec": "white", "mew": 0.8, "ms": 4 + 1.3 * width}
    axes.plot(pull.cv[pull.summit], pull.work[pull.summit], "o", **style, zorder=4)


def draw_uncertainty(run: RunData) -> Figure | None:
    """The spread of the committee along the pull, one panel a round: threshold, break, and what was labelled."""
    rounds = _some([item for item in run.rounds if any((p.energy_std > 0).any() for p in item.pulls)], MOST_PANELS)
    if not rounds:
        return None
    columns = min(3, len(rounds))
    lines = -(-len(rounds) // columns)
    figure = _figure(max(5.0, 2.75 * columns), 1.1 + 1.8 * lines)
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes, item in zip(grid.flat, rounds, strict=False):
        _spread(axes, item)
    for axes in grid.flat[len(rounds) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(rounds) - columns) : len(rounds)]:
        axes.tick_params(labelbottom=True)
    spreads = 1000 * np.concatenate([p.energy_std for item in rounds for p in item.pulls])
    low, high = np.quantile(spreads[spreads > 0], [0.002, 1.0])
    grid[0, 0].set_yscale("log")
    grid[0, 0].set_ylim(low / 3, high * 2)
    _name_decades(grid[0, 0])
    figure.supxlabel("Step of the pull", fontsize=9.5)
    figure.supylabel("Committee's energy std (meV)", fontsize=9.5)
    known = {name: handle for axes in grid.flat for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        known.values(),
        known.keys(),
        loc="outside upper center",
        ncols=2 * columns if columns > 1 else 3,
        columnspacing=1.2,
    )
    return figure


def _spread(axes: Axes, item: RoundData) -> None:
    walker = item.path.walker if item.path and item.path.walker < len(item.pulls) else 0
    if item.path and item.path.break_steps:
        # a few tens of fs in several ps: widened to what can be seen
        first, last = item.path.break_steps
        axes.axvspan(first - 20, last + 20, color=SHADE, lw=0, label="break", zorder=0)
    for k, pull in enumerate(item.pulls):
        if k != walker:
            axes.plot(pull.steps, 1000 * pull.energy_std, color="0.7", lw=0.5, zorder=1, label="other walkers")
    pull = item.pulls[walker]
    axes.plot(pull.steps, 1000 * pull.energy_std, color=BLUE, lw=0.9, zorder=2, label="checked walker")
    if item.selection:
        axes.axhline(1000 * item.selection.threshold, color=ENGINE, lw=1, ls="--", zorder=3, label="threshold")
        chosen = [(item.pulls[k], row) for k, row in item.selection.chosen if k < len(item.pulls)]
        points = [(p.steps[row], 1000 * p.energy_std[row]) for p, row in chosen if row < p.steps.size]
        if points:
            mark: dict[str, Any] = {"ls": "", "marker": "o", "mfc": "none", "mec": VERMILLION, "mew": 0.8, "ms": 3.2}
            axes.plot(*zip(*points, strict=True), **mark, zorder=4, label="selected")
    if item.path:
        mark = {"ls": "", "marker": "|", "color": GREEN, "ms": 7, "mew": 0.9, "clip_on": False}
        axes.plot(item.path.steps, np.full(len(item.path.steps), 0.04), **mark, transform=axes.get_xaxis_transform(),
                  zorder=4, label="path-checked")  # fmt: skip
    axes.set_title(f"round {item.number}", loc="left")


def draw_path(run: RunData) -> Figure | None:
    """Engine and committee along the round's own pull, and their difference, of the latest rounds."""
    checked = [(item.number, item.path) for item in run.rounds if item.path is not None][-LATEST_ROUNDS:]
    if not checked:
        return None
    figure = _figure(max(4.6, 2.75 * len(checked)), 4.2)
    grid = figure.subplots(2, len(checked), sharey="row", sharex="col", squeeze=False, height_ratios=[3, 2])
    for (number, path), (energy, residual) in zip(checked, grid.T, strict=True):
        _path_columns(energy, residual, path)
        energy.set_title(f"round {number}: worst {np.abs(_residual(path)).max():.2g} kcal/mol", loc="left")
    grid[0, 0].set_ylabel("Energy above\nfirst frame (eV)")
    grid[1, 0].set_ylabel("Committee − engine\n(kcal/mol)")
    worst = max(float(np.abs(_residual(path)).max()) for _, path in checked)
    # logarithmic only where a linear axis would hide the limit
    if worst > 10 * LIMITS[0]:
        grid[1, 0].set_yscale("symlog", linthresh=1.0)
        grid[1, 0].set_yticks([s * 10**k for k in range(int(np.log10(worst)) + 1) for s in (-1, 1)] + [0])
        grid[1, 0].yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    figure.align_ylabels(grid[:, 0])
    figure.supxlabel("Step of the checked frame (frames evenly spaced)", fontsize=9.5)
    known = dict(zip(*reversed(grid[0, 0].get_legend_handles_labels()), strict=True))
    known.update(zip(*reversed(grid[1, 0].get_legend_handles_labels()), strict=True))
    figure.legend(known.values(), known.keys(), loc="outside upper center", ncols=len(known))
    return figure


def _path_columns(energy: Axes, residual: Axes, path: PathCheck) -> None:
    # the break takes a hundredth of the pull and has a third of the frames: by number, not by time
    order = np.arange(len(path.steps))
    for axes in (energy, residual):
        within = order[path.in_break]
        if within.size:
            axes.axvspan(within.min() - 0.5, within.max() + 0.5, color=SHADE, lw=0, zorder=0, label="break")
    energy.plot(order, path.engine, "o", color=ENGINE, ms=3.6, mfc="none", mew=0.9, label="engine", zorder=3)
    energy.plot(order, path.committee, color=VERMILLION, label="committee", zorder=2)
    residual.axhspan(-LIMITS[0], LIMITS[0], color="0.87", lw=0, zorder=1, label=f"±{LIMITS[0]:g} kcal/mol")
    residual.axhline(0, color="0.5", lw=0.7, zorder=1)
    residual.plot(order, _residual(path), color=VERMILLION, marker=".", ms=4, lw=1)
    ends = (
        [0, *order[path.in_break][[0, -1]], len(order) - 1]
        if path.in_break.any()
        else np.linspace(0, len(order) - 1, 4)
    )
    # a tick too near to the one before it would be written over it
    ticks = [k for n, k in enumerate(map(int, ends)) if n == 0 or k - ends[n - 1] > 0.2 * len(order)]
    residual.set_xticks(ticks, [str(path.steps[k]) for k in ticks])


def _residual(path: PathCheck) -> Any:
    """Committee minus engine [K], kcal/mol."""
    return (path.committee - path.engine) / KCAL_MOL


def draw_rupture(run: RunData) -> Figure | None:
    """The quasi-static rupture: energy and force against the distance held, committee by round and engine."""
    rounds = [item for item in run.rounds if item.rupture is not None]
    if not rounds:
        return None
    figure = _figure(8.4, 3.4)
    grid = figure.subplots(1, 2)
    colours = _round_colours(figure, grid, rounds)
    for item in rounds:
        _rupture(grid, item.rupture, colours[item.number], 2.8 if item is rounds[-1] else 1.4)
    _rupture(grid, run.reference_rupture, ENGINE, 1.1)
    best = run.reference_rupture or rounds[-1].rupture
    for axes, what, name in zip(grid, ("Energy above start (eV)", "Force (eV/Å)"), ("energies", "forces"), strict=True):
        axes.set_xlabel(run.cv_label)
        axes.set_ylabel(what)
        # an early committee may hold a molecule that does not exist by any force
        top = getattr(best, name).max()
        axes.set_ylim(max(axes.get_ylim()[0], -0.5 * top), min(axes.get_ylim()[1], 1.6 * top))
    handles = [Line2D([], [], color=colours[rounds[-1].number], lw=2.8)]
    names = [f"committee, round {rounds[-1].number}"]
    if run.reference_rupture is not None:
        handles, names = [Line2D([], [], color=ENGINE, lw=1.1), *handles], ["label engine", *names]
    grid[0].legend([*handles, Line2D([], [], color="0.4", marker="o", ls="", mec="white", ms=6)], [*names, "rupture"])
    return figure


def _rupture(grid: Sequence[Axes], curve: Rupture | None, colour: Any, width: float) -> None:
    if curve is None:
        return
    for axes, values in zip(grid, (curve.energies, curve.forces), strict=True):
        axes.plot(curve.distances, values, color=colour, lw=width)
        style: dict[str, Any] = {"color": colour, "mec": "white", "mew": 0.8, "ms": 4 + 1.3 * width}
        axes.plot(curve.broken, np.interp(curve.broken, curve.distances, values), "o", **style, zorder=3)


def draw_learning(run: RunData) -> Figure | None:
    """Loss, energy error and force error over the epochs of every round."""
    rounds = [item for item in run.rounds if "epoch" in item.learning]
    if not rounds:
        return None
    figure = _figure(8.4, 3.1)
    grid = figure.subplots(1, 3)
    colours = _round_colours(figure, grid, rounds)
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
        _name_decades(axes)
        axes.set_xlabel("Epoch of the round")
        axes.set_ylabel(title)
    lines = [Line2D([], [], color="0.4", ls=line, lw=1.2) for line in (":", "-")]
    grid[0].legend(lines, ["training", "validation"], loc="upper right")
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _name_decades(axes: Axes) -> None:
    """Plain numbers on a logarithmic y axis, with 2 and 5 where there are few decades."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _some(rounds: Sequence[RoundData], most: int) -> list[RoundData]:
    """At most so many rounds, the first and the last among them."""
    if len(rounds) <= most:
        return list(rounds)
    return [rounds[k] for k in np.linspace(0, len(rounds) - 1, most).round().astype(int)]


def _round_colours(figure: Figure, axes: Any, rounds: Sequence[RoundData]) -> dict[int, Any]:
    """A colour for every round, and the bar that explains them.

    The map stops short of its yellow end, which is lost on white paper.
    """
    numbers = [item.number for item in rounds]
    colours = matplotlib.colormaps["plasma"](np.linspace(0.05, 0.78, len(numbers)))
    if len(numbers) > 1:
        edges = np.arange(len(numbers) + 1) - 0.5
        norm = BoundaryNorm(edges, len(numbers))
        mappable = ScalarMappable(norm, ListedColormap(colours))
        bar = figure.colorbar(mappable, ax=axes, pad=0.02, fraction=0.04, aspect=30)
        every = -(-len(numbers) // 10)
        bar.set_ticks(range(0, len(numbers), every), labels=[str(n) for n in numbers[::every]])
        bar.ax.tick_params(length=0)
        bar.set_label("Round")
        bar.outline.set_visible(False)
    return dict(zip(numbers, colours, strict=True))


def _limits(arrays: Sequence[Any], margin: float) -> tuple[float, float]:
    low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
    return low - margin * (high - low), high + margin * (high - low)


PLOTS: dict[str, Callable[[RunData], Figure | None]] = {
    "barrier_convergence.png": draw_barrier,
    "work.png": draw_work,
    "uncertainty.png": draw_uncertainty,
    "path.png": draw_path,
    "rupture.png": draw_rupture,
    "learning.png": draw_learning,
}
