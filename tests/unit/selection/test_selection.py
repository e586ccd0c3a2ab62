"""Selection rules on a synthetic pull: a diatomic stretched slowly, then broken within a few steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rareal.event import find_event
from rareal.records import Trajectory
from rareal.selection import event, paper
from rareal.units import KCAL_MOL

NUMBERS = np.array([6, 6])
BREAK = 800


def pull(std: float = 1.0, walker: int = 0) -> Trajectory:
    """1.5 → 1.9 Å in 800 steps, then to 3.5 Å in 60, then still; energy rises, then falls."""
    length = np.concatenate([np.linspace(1.5, 1.9, BREAK), np.linspace(1.9, 3.5, 60), np.full(140, 3.5)])
    count = len(length)
    positions = np.zeros((count, 2, 3))
    positions[:, 1, 0] = length
    zeros = np.zeros(count)
    energy = 8.0 * (np.minimum(length, 2.2) - 1.5)
    return Trajectory(walker, 1, np.arange(count), length, zeros, energy, np.full(count, std), zeros, positions)


def stream() -> np.random.Generator:
    return np.random.default_rng(0)


def test_paper_rule_keeps_cv_and_energy_apart_and_fills_in_time_order() -> None:
    trajectory = pull()
    chosen = paper.build(paper.Config(count=1000)).select([trajectory], 0.5, 1000, stream())
    rows = [row for _, row in chosen]
    assert rows == sorted(rows)
    assert rows[0] == 0
    assert np.diff(trajectory.cv[rows]).min() > 0.01
    assert np.abs(np.diff(trajectory.energy[rows])).min() > KCAL_MOL


def test_paper_rule_is_blind_to_the_event() -> None:
    """What `selection: event` is for: with the paper's cap the labels are spent before the bond goes."""
    trajectory = pull()
    found = find_event(NUMBERS, trajectory.positions)
    assert found is not None
    by_paper = [row for _, row in paper.build(paper.Config(count=20)).select([trajectory], 0.5, 20, stream())]
    by_event = [
        row for _, row in event.EventSelector(event.Config(count=20), NUMBERS).select([trajectory], 0.5, 20, stream())
    ]
    assert sum(found.onset <= row <= found.end for row in by_paper) == 0
    assert sum(found.onset <= row <= found.end for row in by_event) >= 5


@pytest.mark.parametrize("rule", ["paper", "event"])
def test_nothing_below_the_threshold_is_chosen(rule: str) -> None:
    selector = paper.build(paper.Config()) if rule == "paper" else event.EventSelector(event.Config(), NUMBERS)
    assert selector.select([pull(std=0.1)], 0.5, 50, stream()) == []
    half = pull()
    std = half.energy_std.copy()
    std[::2] = 0.0
    rows = [row for _, row in selector.select([replace(half, energy_std=std)], 0.5, 50, stream())]
    assert rows
    assert all(row % 2 for row in rows)


@pytest.mark.parametrize("rule", ["paper", "event"])
def test_the_count_is_never_exceeded(rule: str) -> None:
    selector = paper.build(paper.Config()) if rule == "paper" else event.EventSelector(event.Config(), NUMBERS)
    assert len(selector.select([pull(), pull(walker=1)], 0.5, 7, stream())) <= 7
    assert selector.select([pull()], 0.5, 0, stream()) == []


def test_event_rule_shares_among_walkers_and_prefers_the_uncertain() -> None:
    sure = pull()
    std = np.ones(len(sure))
    std[BREAK + 20] = 9.0
    chosen = event.EventSelector(event.Config(count=20), NUMBERS).select(
        [replace(sure, energy_std=std), pull(walker=1)], 0.5, 20, stream()
    )
    assert {k for k, _ in chosen} == {0, 1}
    assert (0, BREAK + 20) in chosen


def test_event_rule_without_an_event_covers_the_whole_path() -> None:
    whole = pull()
    early = Trajectory(*(getattr(whole, f) for f in ("walker", "seed")), *(
        getattr(whole, f)[:700] for f in ("steps", "cv", "work", "energy", "energy_std", "force_std", "positions")
    ))  # fmt: skip
    rows = [row for _, row in event.EventSelector(event.Config(count=20), NUMBERS).select([early], 0.5, 20, stream())]
    assert len(rows) == 20
    assert max(np.diff(rows)) < 100


def test_event_rule_ignores_what_comes_long_after() -> None:
    trajectory = pull()
    chosen = event.EventSelector(event.Config(count=40, tail=20), NUMBERS).select([trajectory], 0.5, 40, stream())
    found = find_event(NUMBERS, trajectory.positions)
    assert found is not None
    assert max(row for _, row in chosen) <= found.end + 20
