"""Plots of an evaluation: predictions against labels, and the committee's std against its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from rareal.records import Array
from rareal.report.style import BLUE, STYLE, VERMILLION, Table, sheet, write_png

PARITY, CALIBRATION = "parity.png", "calibration.png"
MOST_DOTS = 3000
"""More points than that are counted in hexagons."""

DECADES = 3.5
"""Smaller errors than so many decades below the largest are left out of the calibration plot."""


@dataclass(frozen=True, eq=False)
class Parity:
    """Labels and predictions [n] in ``unit``; times ``to_kcal`` their difference is in kcal/mol (per Å)."""

    name: str
    unit: str
    label: Array
    predicted: Array
    to_kcal: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """Std and absolute error [n], both by bins, and the numbers that sum them up; in ``unit``."""

    name: str
    unit: str
    std: Array
    error: Array
    bin_std: Array
    bin_error: Array
    slope: float
    pearson: float
    spearman: float
    factor: float


def plot_parity(panels: Sequence[Parity], folder: Path) -> Path:
    """`draw_parity` into a file in ``folder``."""
    with matplotlib.rc_context(STYLE):
        return _saved(draw_parity(panels), folder / PARITY)


def draw_parity(panels: Sequence[Parity]) -> Figure:
    """Predictions against labels above, their difference below; a column for each quantity."""
    figure = sheet(4.1 * len(panels), 5.0)
    grid = figure.subplots(2, len(panels), sharex="col", squeeze=False, height_ratios=[5, 2])
    for (above, below), panel in zip(grid.T, panels, strict=True):
        _parity(above, below, panel)
    figure.align_ylabels(grid[:, 0])
    return figure


def table_parity(panels: Sequence[Parity]) -> Table:
    """Labels and predictions of all quantities, one after the other."""
    return {
        "quantity": [panel.name for panel in panels for _ in panel.label],
        "unit": [panel.unit for panel in panels for _ in panel.label],
        "label": np.concatenate([panel.label for panel in panels]),
        "committee": np.concatenate([panel.predicted for panel in panels]),
    }


def _parity(above: Axes, below: Axes, panel: Parity) -> None:
    error = (panel.predicted - panel.label) * panel.to_kcal
    both = np.concatenate([panel.label, panel.predicted])
    margin = 0.03 * (np.ptp(both) or 1.0)
    limits = (both.min() - margin, both.max() + margin)
    _cloud(above, panel.label, panel.predicted, (*limits, *limits))
    above.plot(limits, limits, color="black", lw=0.7, ls="--", zorder=3)
    above.set(xlim=limits, ylim=limits)
    above.set_ylabel(f"Committee mean ({panel.unit})")
    kcal = "kcal/mol" if panel.unit == "eV" else "kcal/mol/Å"
    above.set_title(f"{panel.name.capitalize()} ({len(error)} values)", loc="left")
    numbers = ((np.abs(error).mean(), "MAE"), (np.sqrt((error**2).mean()), "RMSE"), (np.abs(error).max(), "largest"))
    text = "\n".join(f"{name} {value:.3g} {kcal}" for value, name in numbers)
    above.text(0.04, 0.96, text, transform=above.transAxes, va="top", fontsize=8.5)
    _difference(below, panel.label, error)
    below.set_xlim(limits)
    above.tick_params(labelbottom=False)
    below.set_xlabel(f"Label ({panel.unit}{', above the lowest' if panel.unit == 'eV' else ''})")
    below.set_ylabel(f"Error\n({kcal})")


def _difference(axes: Axes, label: Array, error: Array) -> None:
    """Errors against labels; logarithmic beyond the usual where a few are far from the others."""
    size = np.abs(error)
    largest, usual = 1.15 * (size.max() or 1.0), float(np.quantile(size, 0.9))
    axes.plot(label, error, "o", color="0.35", ms=2.2, mew=0, alpha=float(np.clip(300 / len(error), 0.04, 0.5)))
    axes.axhline(0, color="black", lw=0.7, ls="--", zorder=3)
    if largest > 8 * usual > 0:
        threshold = 10.0 ** np.ceil(np.log10(usual))
        axes.set_yscale("symlog", linthresh=threshold, linscale=1.0)
        decades = range(int(np.ceil(np.log10(largest / threshold))) + 1)
        axes.set_yticks([0, *(sign * threshold * 10**k for k in decades for sign in (-1, 1))])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    axes.set_ylim(-largest, largest)


def plot_calibration(panels: Sequence[Reliability], folder: Path) -> Path:
    """`draw_calibration` into a file in ``folder``."""
    with matplotlib.rc_context(STYLE):
        return _saved(draw_calibration(panels), folder / CALIBRATION)


def draw_calibration(panels: Sequence[Reliability]) -> Figure:
    """Committee std against error, point by point and in bins, with y = x and the fitted line."""
    figure = sheet(4.3 * len(panels), 4.1)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(grid, panels, strict=True):
        _calibration(axes, panel)
    return figure


def table_calibration(panels: Sequence[Reliability]) -> Table:
    """Std and absolute error of all quantities, one after the other."""
    return {
        "quantity": [panel.name for panel in panels for _ in panel.std],
        "unit": [panel.unit for panel in panels for _ in panel.std],
        "std": np.concatenate([panel.std for panel in panels]),
        "absolute_error": np.concatenate([panel.error for panel in panels]),
    }


def _calibration(axes: Axes, panel: Reliability) -> None:
    axes.set_title(panel.name.capitalize(), loc="left")
    axes.set_xlabel(f"Committee std ({panel.unit})")
    axes.set_ylabel(f"|Error of the mean| ({panel.unit})")
    shown = (panel.std > 0) & (panel.error > panel.error.max() * 10**-DECADES)
    if not shown.any():
        axes.text(0.5, 0.5, "std or error is zero", transform=axes.transAxes, ha="center", color="0.4")
        return
    axes.set_xscale("log")
    axes.set_yscale("log")
    x, y = panel.std[shown], panel.error[shown]
    decades = max(1.0, float(np.log10(y.max() / y.min())))
    # room for the legend above and the numbers below
    box = (x.min() / 1.3, x.max() * 1.3, y.min() / 10 ** (0.17 * decades), y.max() * 10 ** (0.32 * decades))
    _cloud(axes, x, y, box)
    ends = np.array(box[:2])
    axes.plot(ends, ends, color="black", lw=0.9, ls="--", zorder=3, label="error = std")
    axes.plot(ends, panel.slope * ends, color=BLUE, lw=1.3, zorder=4, label=f"fit to the bins, slope {panel.slope:.2f}")
    style: dict[str, Any] = {"color": VERMILLION, "mec": "white", "mew": 0.7, "ms": 6}
    axes.plot(panel.bin_std, panel.bin_error, "o", **style, zorder=5, label="RMS error of a bin")
    axes.set(xlim=box[:2], ylim=box[2:])
    for axis, (low, high) in ((axes.xaxis, box[:2]), (axes.yaxis, box[2:])):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    text = f"Pearson {panel.pearson:.2f}, Spearman {panel.spearman:.2f}\nmiscalibration factor {panel.factor:.2f}"
    axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=8.5)
    axes.legend(loc="upper left")


def _cloud(axes: Axes, x: Array, y: Array, box: tuple[float, float, float, float]) -> None:
    """Few points as dots, many as hexagons that are the darker the more points they hold."""
    if len(x) <= MOST_DOTS:
        axes.plot(x, y, "o", color="0.45", ms=2.6, mew=0, alpha=0.45, zorder=1)
        return
    scale: Literal["log", "linear"] = "log" if axes.get_xscale() == "log" else "linear"
    extent = tuple(np.log10(box)) if scale == "log" else box
    shape = axes.get_window_extent()
    columns = 70
    rows = max(8, int(columns * shape.height / shape.width / np.sqrt(3)))
    axes.hexbin(
        x, y, gridsize=(columns, rows), extent=extent, bins="log", cmap="Greys", mincnt=1, lw=0.1, vmin=0.3, zorder=1,
        xscale=scale, yscale=scale,
    )  # fmt: skip


def _saved(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_png(figure, path)
