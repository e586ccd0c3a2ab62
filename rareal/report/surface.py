"""The free-energy surface of the last round, and the barrier as a function of the time sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rareal.records import Array
from rareal.report.rundata import RoundData, RunData, column_unit
from rareal.report.style import BLUE, VERMILLION, Table, round_colours, sheet

Surface = Mapping[str, Array]
"""The fields of `rareal.freeenergy.analysis.FreeEnergy` by their names."""


def _found(run: RunData) -> list[tuple[RoundData, Surface]]:
    """The rounds that have a surface, of at most two variables."""
    held = [(item, item.free_energy) for item in run.rounds if item.free_energy is not None]
    return [(item, surface) for item, surface in held if surface["coordinates"].shape[1] <= 2]


def draw_free_energy(run: RunData) -> Figure | None:
    """The last round's surface."""
    found = _found(run)
    if not found:
        return None
    item, last = found[-1]
    figure = sheet(6.4, 4.2)
    axes = figure.subplots()
    if last["coordinates"].shape[1] == 2:
        _map(figure, axes, last)
        axes.set(**dict(zip(("xlabel", "ylabel"), run.cv_labels, strict=False)))
        axes.set_title(f"round {item.number}", loc="left")
    else:
        _curve(axes, last, f"round {item.number}")
        axes.set_xlabel(run.cv_label)
    return figure


def draw_barrier_time(run: RunData) -> Figure | None:
    """The barriers, there and back, from the frames up to each time."""
    found = _found(run)
    if not found:
        return None
    figure = sheet(6.4, 3.7)
    axes = figure.subplots()
    colours = round_colours(figure, axes, [held for held, _ in found])
    for item, surface in found:
        last = item is found[-1][0]
        style: dict[str, Any] = {"color": colours[item.number], "lw": 2.2 if last else 1.2}
        axes.plot(surface["times"], surface["so_far"], **style, label="there" if last else None)
        axes.plot(surface["times"], surface["so_far_reverse"], ls=":", **style, label="back" if last else None)
    axes.set_xlabel("Steps of each walker")
    axes.set_ylabel("Free-energy barrier (eV)")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=2)
    return figure


def table_barrier_time(run: RunData) -> Table:
    """The barriers so far, round by round."""
    found = _found(run)
    return {
        "round": [item.number for item, surface in found for _ in surface["times"]],
        "steps": np.concatenate([surface["times"] for _, surface in found]),
        "barrier_eV": np.concatenate([surface["so_far"] for _, surface in found]),
        "barrier_back_eV": np.concatenate([surface["so_far_reverse"] for _, surface in found]),
    }


def _curve(axes: Axes, surface: Surface, name: str) -> None:
    """Free energy along one variable, with its error and what the hills say."""
    place, energy, error = surface["coordinates"][:, 0], _finite(surface["energy"]), surface["error"]
    axes.plot(place, energy, color=BLUE, label=f"{name}, from all frames, ± s.e.")
    axes.fill_between(place, energy - error, energy + error, color=BLUE, alpha=0.2, lw=0)
    hills = np.where(np.isfinite(energy), surface["hills"], np.nan)
    axes.plot(place, hills, color=VERMILLION, ls=":", label="from the hills alone")
    axes.set_ylabel("Free energy (eV)")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), ncols=2)


def _map(figure: Figure, axes: Axes, surface: Surface) -> None:
    """Free energy over two variables, with minima, saddle and the way between them."""
    grid = tuple(int(count) for count in surface["shape"])
    first, second = (surface["coordinates"][:, k].reshape(grid) for k in range(2))
    energy = np.ma.masked_invalid(_finite(surface["energy"]).reshape(grid))
    shown = axes.contourf(first, second, energy, levels=24, cmap="viridis")
    bar = figure.colorbar(shown, ax=axes, pad=0.02)
    bar.set_label("Free energy (eV)")
    way = surface["coordinates"][surface["way"].astype(int)]
    # a way over the border of an angle goes out on one side and comes in on the other
    jump = np.abs(np.diff(way, axis=0)) > 0.5 * np.ptp(surface["coordinates"], axis=0)
    way = np.insert(way, np.nonzero(jump.any(axis=1))[0] + 1, np.nan, axis=0)
    axes.plot(way[:, 0], way[:, 1], color="white", lw=1.2)
    style: dict[str, Any] = {"ls": "", "mec": "black", "mfc": "white", "zorder": 4}
    for name, marker in (("first", "o"), ("second", "o"), ("saddle", "X")):
        axes.plot(*surface[name], marker=marker, ms=7, **style)


def _finite(values: Array) -> Array:
    """NaN where no frame was."""
    return np.where(np.isfinite(values), values, np.nan)


def table_free_energy(run: RunData) -> Table:
    """Every bin of every round's surface."""
    found = _found(run)
    count = max(surface["coordinates"].shape[1] for _, surface in found)
    labels = (run.cv_labels + [""] * count)[:count]
    names = [f"cv{k + 1 if count > 1 else ''}{column_unit(label)}" for k, label in enumerate(labels)]
    columns: dict[str, Any] = {"round": [item.number for item, surface in found for _ in surface["energy"]]}
    for k, name in enumerate(names):
        columns[name] = np.concatenate([surface["coordinates"][:, k] for _, surface in found])
    for name, field in (("free_energy_eV", "energy"), ("standard_error_eV", "error"), ("from_hills_eV", "hills")):
        columns[name] = np.concatenate([surface[field] for _, surface in found])
    return columns
