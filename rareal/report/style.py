"""What all plots share: colours, sizes, axes, and how a figure and its numbers get into files.

Colours tell apart for colour-blind eyes, and early rounds from late ones in grey print: rounds go from dark blue to
orange, the label engine is black.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from rareal.files import plain, write_atomically, write_text
from rareal.report.rundata import RoundData

Table = Mapping[str, Sequence[Any] | Any]
"""The numbers of a plot: columns of equal length by their names, which end in the unit."""

ENGINE = "black"
BLUE, VERMILLION, GREEN, SHADE = "#0072B2", "#D55E00", "#009E73", "#F0E4C8"
"""Three colours of Okabe and Ito, and the shade that marks the break."""

LIMITS = (0.5, 1.0)
"""kcal/mol: the error that counts as converged here, and chemical accuracy."""

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


def sheet(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def name_decades(axes: Axes) -> None:
    """Plain numbers on a logarithmic y axis, with 2 and 5 where there are few decades."""
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def some(rounds: Sequence[RoundData], most: int) -> list[RoundData]:
    """At most so many rounds, the first and the last among them."""
    if len(rounds) <= most:
        return list(rounds)
    return [rounds[k] for k in np.linspace(0, len(rounds) - 1, most).round().astype(int)]


def round_colours(figure: Figure, axes: Any, rounds: Sequence[RoundData]) -> dict[int, Any]:
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


def limits(arrays: Sequence[Any], margin: float) -> tuple[float, float]:
    low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
    return low - margin * (high - low), high + margin * (high - low)


def write_png(figure: Figure, path: Path) -> Path:
    """Write a figure large enough for print."""
    return write_atomically(path, lambda stream: stream.write(png(figure, DOTS_PER_INCH)))


def png(figure: Figure, dots_per_inch: float) -> bytes:
    """The figure as PNG."""
    return _saved(figure, FigureCanvasAgg, "png", dpi=dots_per_inch)


def svg(figure: Figure) -> bytes:
    """The figure as SVG, the same for the same figure."""
    with matplotlib.rc_context({"svg.hashsalt": "rareal", "svg.fonttype": "path"}):
        return _saved(figure, FigureCanvasSVG, "svg", metadata={"Date": None})


def _saved(figure: Figure, canvas: Any, kind: str, **options: Any) -> bytes:
    canvas(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, **options)
    return stream.getvalue()


def write_table(path: Path, table: Table) -> Path:
    """Write the numbers of a plot as CSV, every digit of them; what is not finite becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    columns = [plain(np.asarray(column) if isinstance(column, np.ndarray) else list(column))
               for column in table.values()]  # fmt: skip
    writer.writerows(zip(*columns, strict=True))
    return write_text(path, text.getvalue())
