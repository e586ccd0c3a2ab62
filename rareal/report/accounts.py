"""What the run has cost: labels and where along the event they went, and time by stage."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rareal.report.rundata import RoundData, RunData
from rareal.report.style import Table, sheet

ORIGINS = {
    "initial": ("initial data", "#8C8C8C"),
    "selected": ("selected", "#D55E00"),
    "noise": ("copies with noise", "#E69F00"),
    "halted": ("halted on the fly", "#009E73"),
    "path": ("path check", "#0072B2"),
    "rupture": ("rupture check", "#56B4E9"),
}
"""What the origins of labels are called and drawn in; others take the colours below, in turn."""

OTHERS = ("#009E73", "#CC79A7", "#5D3A9B", "#A6761D")
FAILED = ("refused by the engine", "black")
STAGES = {
    "data": ("initial data", "#8C8C8C"),
    "train": ("train", "#0072B2"),
    "fly": ("on the fly", "#CC79A7"),
    "sample": ("sample", "#009E73"),
    "check": ("check", "#56B4E9"),
    "select": ("select and label", "#D55E00"),
}


def looks(names: Any, known: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """What to call and how to colour each of ``names``, known ones first."""
    found = dict.fromkeys(names)
    strange = [name for name in found if name not in known]
    shown = {name: look for name, look in known.items() if name in found}
    return shown | {name: (name, OTHERS[k % len(OTHERS)]) for k, name in enumerate(strange)}


def draw_labels(run: RunData) -> Figure | None:
    """Where along the event the labels were spent, and in which round on what."""
    if not run.labels:
        return None
    figure = sheet(8.4, 3.5)
    left, right = figure.subplots(1, 2)
    shown = looks((label.origin for label in run.labels if not label.failed), ORIGINS)
    placed = [label for label in run.labels if np.isfinite(label.cv)]
    bought = {o: [x.cv for x in placed if x.origin == o and not x.failed] for o in shown}
    failed = [label.cv for label in placed if label.failed]
    series = [(look, bought[o]) for o, look in shown.items()] + ([(FAILED, failed)] if failed else [])
    if placed:
        names, colours = zip(*(look for look, _ in series), strict=True)
        bins = np.histogram_bin_edges([label.cv for label in placed], bins=30)
        left.hist([x for _, x in series], bins=bins, stacked=True, color=colours, label=names)
    left.set_xlabel(run.cv_label)
    left.set_ylabel("Labels")
    numbers = sorted({label.round for label in run.labels})
    base = np.zeros(len(numbers))
    for origin, (name, colour) in shown.items():
        count = Counter(label.round for label in run.labels if label.origin == origin and not label.failed)
        base = _bars(right, numbers, base, [count[n] for n in numbers], name, colour)
    count = Counter(label.round for label in run.labels if label.failed)
    if count:
        _bars(right, numbers, base, [count[n] for n in numbers], *FAILED)
    _name_rounds(right, numbers)
    right.set_ylabel("Labels")
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=6, columnspacing=1.2)
    return figure


def _bars(axes: Axes, x: Any, base: Any, heights: Any, name: str, colour: str) -> Any:
    axes.bar(x, heights, bottom=base, width=0.75, color=colour, label=name)
    return base + np.asarray(heights)


def _name_rounds(axes: Axes, numbers: list[int]) -> None:
    every = -(-len(numbers) // 12)
    axes.set_xticks(numbers[::every], ["initial" if n < 0 else str(n) for n in numbers[::every]])
    axes.set_xlabel("Round")


def table_labels(run: RunData) -> Table:
    """Every label: where its frame came from, what it took, why there is none."""
    return {
        "round": [label.round for label in run.labels],
        "stage": [label.stage for label in run.labels],
        "origin": [label.origin for label in run.labels],
        "walker": [label.walker for label in run.labels],
        "step": [label.step for label in run.labels],
        run.cv_column: [label.cv for label in run.labels],
        "energy_eV": [label.energy for label in run.labels],
        "seconds": [label.seconds for label in run.labels],
        "cached": [label.cached for label in run.labels],
        "failed": [label.failed for label in run.labels],
    }


def timed(run: RunData) -> list[RoundData]:
    """The initial data and the rounds that have a finished stage whose marker tells its time."""
    return [item for item in (run.initial, *run.rounds) if any(seconds(item, stage) for stage in item.stages)]


def seconds(item: RoundData, stage: str) -> float:
    """What a stage of a round took; 0 where it has not finished."""
    return float(item.stages.get(stage, {}).get("seconds") or 0.0)


def engine_seconds(item: RoundData) -> float:
    """What the engine took for a round's labels, all cores together; cached ones cost nothing."""
    return float(np.nansum([label.seconds for label in item.labels if not label.cached]))


def draw_cost(run: RunData) -> Figure | None:
    """Time of every stage, round by round and in all."""
    rounds = timed(run)
    if not rounds:
        return None
    figure = sheet(8.4, 3.3)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    stages = looks((name for item in rounds for name in item.stages), STAGES)
    scale, unit = _unit(sum(seconds(item, stage) for item in rounds for stage in stages))
    numbers = [item.number for item in rounds]
    base = np.zeros(len(rounds))
    totals = []
    for stage, (name, colour) in stages.items():
        times = [seconds(item, stage) / scale for item in rounds]
        base = _bars(left, numbers, base, times, name, colour)
        totals.append((name, sum(times), colour))
    _name_rounds(left, numbers)
    left.set_ylabel(f"Time ({unit})")
    names, sums, colours = zip(*reversed(totals), strict=True)
    right.barh(names, sums, color=colours)
    for place, value in enumerate(sums):
        right.annotate(f" {value:.3g}", (value, place), va="center", fontsize=8.5)
    right.set_xlim(0, 1.18 * max(sums) or 1.0)
    right.set_xlabel(f"Time, all rounds ({unit})")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=6, columnspacing=1.2)
    return figure


def _unit(total: float) -> tuple[float, str]:
    """Seconds in a unit that suits so many, and its name."""
    return (1.0, "s") if total < 120 else (60.0, "min") if total < 3 * 3600 else (3600.0, "h")


def table_cost(run: RunData) -> Table:
    """A row per round (-1 the initial data): time of its stages, what the engine took, and labels."""
    rounds = timed(run)
    stages = looks((name for item in rounds for name in item.stages), STAGES)
    return {
        "round": [item.number for item in rounds],
        **{f"{stage}_s": [seconds(item, stage) for item in rounds] for stage in stages},
        "engine_s": [engine_seconds(item) for item in rounds],
        "labels": [sum(not label.failed for label in item.labels) for item in rounds],
        "refused": [sum(bool(label.failed) for label in item.labels) for item in rounds],
    }
