"""Energies along the event: the drive's work, the sampler's profile, the checked path, the quasi-static rupture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rareal.records import Profile
from rareal.report.rundata import PathCheck, Pull, RunData, Rupture
from rareal.report.style import (
    ENGINE,
    LATEST_ROUNDS,
    LIMITS,
    SHADE,
    VERMILLION,
    Table,
    limits,
    round_colours,
    sheet,
)  # fmt: skip
from rareal.units import KCAL_MOL


def draw_work(run: RunData) -> Figure | None:
    """The work of the drive against the collective variable, round by round (Figures 2b and 3a)."""
    rounds = [item for item in run.rounds if item.worked]
    if not rounds:
        return None
    figure = sheet(6.4, 4.0)
    axes = figure.subplots()
    colours = round_colours(figure, axes, rounds)
    for item in rounds:
        last = item is rounds[-1]
        for k, pull in reversed(list(enumerate(item.worked))):
            _work(axes, pull, colours[item.number], 2.8 if last else 1.5, main=k == 0)
    for k, pull in reversed(list(enumerate(run.reference_pulls))):
        _work(axes, pull, ENGINE, 1.1, main=k == 0)
    axes.set_xlabel(run.cv_label)
    axes.set_ylabel("Work (eV)")
    axes.set_xlim(*limits([p.cv for p in run.reference_pulls or rounds[-1].worked], 0.02))
    peaks = [p.work.max() for p in run.reference_pulls] + [np.median([p.work.max() for p in r.worked]) for r in rounds]
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


def table_work(run: RunData) -> Table:
    """Every step of every walker that did work; the engine's own with round "reference"."""
    found: list[tuple[Any, Pull]] = [("reference", pull) for pull in run.reference_pulls]
    found += [(item.number, pull) for item in run.rounds for pull in item.worked]
    return {**walked(run, found), "work_eV": joined([pull.work for _, pull in found])}


def walked(run: RunData, pulls: Sequence[tuple[Any, Pull]]) -> dict[str, Any]:
    """The columns that say where and when: round, walker, velocity seed, step, collective variable."""
    return {
        "round": [number for number, pull in pulls for _ in pull.steps],
        "walker": [pull.walker for _, pull in pulls for _ in pull.steps],
        "velocity_seed": [pull.seed for _, pull in pulls for _ in pull.steps],
        "step": joined([pull.steps for _, pull in pulls]),
        run.cv_column: joined([pull.cv for _, pull in pulls]),
    }


def joined(arrays: Sequence[Any]) -> Any:
    """One array after the other; an empty one for none."""
    return np.concatenate(arrays) if arrays else np.empty(0)


def draw_profile(run: RunData) -> Figure | None:
    """The sampler's own profile, round by round, with its standard error, and the barrier that it gives."""
    rounds = [(item, item.profile) for item in run.rounds if item.profile is not None and item.profile.energy.size]
    # where the drive's work is all there is, `draw_work` shows it, of all walkers
    if not rounds or all(profile.kind == "work" for _, profile in rounds):
        return None
    figure = sheet(6.4, 4.0)
    axes = figure.subplots()
    colours = round_colours(figure, axes, [item for item, _ in rounds])
    for item, profile in rounds:
        last = item is rounds[-1][0]
        _profile(axes, profile, colours[item.number], 2.6 if last else 1.3, band=last)
    handles = [Line2D([], [], color=colours[rounds[-1][0].number], lw=2.6)]
    names = [f"committee, round {rounds[-1][0].number}, ± standard error"]
    if run.reference_profile is not None:
        _profile(axes, run.reference_profile, ENGINE, 1.1, band=True)
        handles, names = [Line2D([], [], color=ENGINE, lw=1.1), *handles], ["label engine", *names]
    axes.set_xlabel(run.cv_label)
    axes.set_ylabel(f"{rounds[-1][1].kind.capitalize()} (eV)")
    # an early committee may believe in anything
    best = run.reference_profile or rounds[-1][1]
    low, high = np.nanmin(best.energy), np.nanmax(best.energy)
    axes.set_ylim(max(axes.get_ylim()[0], low - 0.5 * (high - low)), min(axes.get_ylim()[1], low + 2 * (high - low)))
    axes.legend(handles, names, loc="lower left", bbox_to_anchor=(-0.02, 1.01))
    return figure


def _profile(axes: Axes, profile: Profile, colour: Any, width: float, band: bool) -> None:
    axes.plot(profile.coordinate, profile.energy, color=colour, lw=width)
    if band and np.isfinite(profile.error).any():
        low, high = profile.energy - profile.error, profile.energy + profile.error
        axes.fill_between(profile.coordinate, low, high, color=colour, alpha=0.2, lw=0)


def table_profile(run: RunData) -> Table:
    """The points of every round's profile; the engine's own with round "reference"."""
    found: list[tuple[Any, Profile]] = []
    if run.reference_profile is not None:
        found.append(("reference", run.reference_profile))
    found += [(item.number, item.profile) for item in run.rounds if item.profile is not None]
    return {
        "round": [number for number, profile in found for _ in profile.coordinate],
        "kind": [profile.kind for _, profile in found for _ in profile.coordinate],
        run.cv_column: joined([profile.coordinate for _, profile in found]),
        "energy_eV": joined([profile.energy for _, profile in found]),
        "standard_error_eV": joined([profile.error for _, profile in found]),
    }


def draw_path(run: RunData) -> Figure | None:
    """Engine and committee along the round's own pull, and their difference, of the latest rounds."""
    checked = [(item.number, item.path) for item in run.rounds if item.path is not None][-LATEST_ROUNDS:]
    if not checked:
        return None
    figure = sheet(max(4.6, 2.75 * len(checked)), 4.2)
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


def table_path(run: RunData) -> Table:
    """The checked frames of every round, each relative to its first."""
    found = [(item.number, item.path) for item in run.rounds if item.path is not None]
    return {
        "round": [number for number, path in found for _ in path.steps],
        "walker": [path.walker for _, path in found for _ in path.steps],
        "step": joined([path.steps for _, path in found]),
        run.cv_column: joined([path.cv for _, path in found]),
        "engine_eV": joined([path.engine for _, path in found]),
        "committee_eV": joined([path.committee for _, path in found]),
        "error_kcal_mol": joined([_residual(path) for _, path in found]),
        "in_break": joined([path.in_break for _, path in found]),
    }


def draw_rupture(run: RunData) -> Figure | None:
    """The quasi-static rupture: energy and force against the distance held, committee by round and engine."""
    rounds = [item for item in run.rounds if item.rupture is not None]
    if not rounds:
        return None
    figure = sheet(8.4, 3.4)
    grid = figure.subplots(1, 2)
    colours = round_colours(figure, grid, rounds)
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


def table_rupture(run: RunData) -> Table:
    """The points of every round's quasi-static pull; the engine's own with round "reference"."""
    found: list[tuple[Any, Rupture]] = []
    if run.reference_rupture is not None:
        found.append(("reference", run.reference_rupture))
    found += [(item.number, item.rupture) for item in run.rounds if item.rupture is not None]
    return {
        "round": [number for number, curve in found for _ in curve.distances],
        "distance_A": joined([curve.distances for _, curve in found]),
        "energy_eV": joined([curve.energies for _, curve in found]),
        "force_eV_A": joined([curve.forces for _, curve in found]),
        "rupture_distance_A": [curve.broken for _, curve in found for _ in curve.distances],
    }
