"""Selection rules on a synthetic pull: a diatomic stretched slowly, then broken within a few steps."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rareal.event import find_event
from rareal.records import Judged, Trajectory
from rareal.selection import event, paper
from rareal.units import KCAL_MOL

NUMBERS = np.array([6, 6])
ANGLE: Any = SimpleNamespace(unit="°", period=360.0)
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


def judged(*trajectories: Trajectory, threshold: float = 0.5) -> list[Judged]:
    return [Judged(trajectory, trajectory.energy_std, threshold) for trajectory in trajectories]


def stream() -> np.random.Generator:
    return np.random.default_rng(0)


def test_paper_rule_keeps_cv_and_energy_apart_and_fills_in_time_order() -> None:
    trajectory = pull()
    chosen = paper.build(paper.Config(count=1000)).select(judged(trajectory), 1000, stream())
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
    by_paper = [row for _, row in paper.build(paper.Config(count=20)).select(judged(trajectory), 20, stream())]
    by_event = [
        row for _, row in event.EventSelector(event.Config(count=20), NUMBERS).select(judged(trajectory), 20, stream())
    ]
    assert sum(found.onset <= row <= found.end for row in by_paper) == 0
    assert sum(found.onset <= row <= found.end for row in by_event) >= 5


@pytest.mark.parametrize("rule", ["paper", "event"])
def test_nothing_below_the_threshold_is_chosen(rule: str) -> None:
    selector = paper.build(paper.Config()) if rule == "paper" else event.EventSelector(event.Config(), NUMBERS)
    assert selector.select(judged(pull(std=0.1)), 50, stream()) == []
    half = pull()
    std = half.energy_std.copy()
    std[::2] = 0.0
    rows = [row for _, row in selector.select(judged(replace(half, energy_std=std)), 50, stream())]
    assert rows
    assert all(row % 2 for row in rows)


@pytest.mark.parametrize("rule", ["paper", "event"])
def test_the_count_is_never_exceeded(rule: str) -> None:
    selector = paper.build(paper.Config()) if rule == "paper" else event.EventSelector(event.Config(), NUMBERS)
    assert len(selector.select(judged(pull(), pull(walker=1)), 7, stream())) <= 7
    assert selector.select(judged(pull()), 0, stream()) == []


def test_event_rule_shares_among_walkers_and_prefers_the_uncertain() -> None:
    sure = pull()
    std = np.ones(len(sure))
    std[BREAK + 20] = 9.0
    chosen = event.EventSelector(event.Config(count=20), NUMBERS).select(
        judged(replace(sure, energy_std=std), pull(walker=1)), 20, stream()
    )
    assert {k for k, _ in chosen} == {0, 1}
    assert (0, BREAK + 20) in chosen


def test_event_rule_without_an_event_covers_the_whole_path() -> None:
    whole = pull()
    early = Trajectory(*(getattr(whole, f) for f in ("walker", "seed")), *(
        getattr(whole, f)[:700] for f in ("steps", "cv", "work", "energy", "energy_std", "force_std", "positions")
    ))  # fmt: skip
    rows = [row for _, row in event.EventSelector(event.Config(count=20), NUMBERS).select(judged(early), 20, stream())]
    assert len(rows) == 20
    assert max(np.diff(rows)) < 100


def test_event_rule_ignores_what_comes_long_after() -> None:
    trajectory = pull()
    chosen = event.EventSelector(event.Config(count=40, tail=20), NUMBERS).select(judged(trajectory), 40, stream())
    found = find_event(NUMBERS, trajectory.positions)
    assert found is not None
    assert max(row for _, row in chosen) <= found.end + 20


def test_event_rule_goes_on_to_the_maximum_of_the_work() -> None:
    still = pull()
    length = still.cv + 0.005 * np.maximum(still.steps - 860, 0)
    positions = still.positions.copy()
    positions[:, 1, 0] = length
    work = np.linspace(0.0, 2.0, len(still))
    trajectory = replace(still, cv=length, cvs=length[:, None], positions=positions, work=work)
    chosen = event.EventSelector(event.Config(count=40, tail=20), NUMBERS).select(judged(trajectory), 40, stream())
    found = find_event(NUMBERS, trajectory.positions)
    assert found is not None
    late = [row for _, row in chosen if row > found.end + 20]
    assert len(late) >= 3
    assert max(late) > 950


def hopping(seed: int, steps: int = 6000, returns: bool = True) -> Trajectory:
    """A proton between two oxygens at 300 K: long stays, hops of 20 steps; the CV is the distances' difference."""
    rng = np.random.default_rng(seed)
    places = [0.0, 1.0, 0.0] if returns else [0.0, 1.0]
    stay = steps // len(places)
    share = np.concatenate(
        [
            np.r_[np.full(stay, place), np.linspace(place, after, 20)]
            for place, after in zip(places, [*places[1:], places[-1]], strict=True)
        ]
    )
    count = len(share)
    positions = np.zeros((count, 3, 3))
    positions[:, 1, 0] = 2.6
    positions[:, 2, 0] = 0.98 + (2.6 - 2 * 0.98) * share + rng.normal(0, 0.02, count)
    cv = 2 * positions[:, 2, 0] - 2.6
    zeros = np.zeros(count)
    energy = rng.normal(0.1, 0.1, count)
    return Trajectory(0, 1, np.arange(count), cv, zeros, energy, 1 + 0.01 * rng.random(count), zeros, positions)


PROTON = np.array([8, 8, 1])


def test_paper_rule_needs_only_one_of_several_variables_to_differ() -> None:
    trajectory = pull()
    count = len(trajectory)
    alone = replace(trajectory, energy=np.arange(count) * 1.0, cvs=np.zeros((count, 2)))
    chooser = paper.build(paper.Config(cv_spacing=(0.1, 5.0)))
    assert [row for _, row in chooser.select(judged(alone), 50, stream())] == [0]
    turning = np.stack([np.zeros(count), np.arange(count) * 1.0], axis=1)
    rows = [row for _, row in chooser.select(judged(replace(alone, cvs=turning)), 5, stream())]
    assert rows == [0, 6, 12, 18, 24]


def test_paper_rule_takes_angles_the_short_way_round() -> None:
    trajectory = pull()
    flip = np.where(np.arange(len(trajectory)) % 2, 179.9, -179.9)[:, None]
    swinging = replace(trajectory, energy=np.arange(len(trajectory)) * 1.0, cvs=flip)
    assert len(paper.build(paper.Config(), (ANGLE,)).select(judged(swinging), 50, stream())) == 1
    assert len(paper.build(paper.Config()).select(judged(swinging), 50, stream())) == 50


@pytest.mark.parametrize("rule", ["paper", "event"])
def test_nothing_beyond_use_is_chosen(rule: str) -> None:
    selector = paper.build(paper.Config()) if rule == "paper" else event.EventSelector(event.Config(), NUMBERS)
    run = replace(pull(), energy_std=np.linspace(0.0, 10.0, len(pull())))
    rows = [row for _, row in selector.select([Judged(run, run.energy_std, 2.0, 6.0)], 50, stream())]
    assert rows
    assert run.energy_std[rows].min() > 2.0
    assert run.energy_std[rows].max() <= 6.0


def test_the_score_decides_and_not_the_energy_std() -> None:
    run = pull()
    score = np.zeros(len(run))
    score[10::50] = 5.0
    found = event.EventSelector(event.Config(), NUMBERS).select([Judged(run, score, 1.0)], 20, stream())
    assert found
    assert {row % 50 for _, row in found} == {10}


@pytest.mark.parametrize("length", [0, 1, 2])
@pytest.mark.parametrize("rule", ["paper", "event"])
def test_trajectories_cut_to_almost_nothing_are_survived(rule: str, length: int) -> None:
    selector = paper.build(paper.Config()) if rule == "paper" else event.EventSelector(event.Config(), NUMBERS)
    stump = pull().rows(slice(0, length))
    chosen = selector.select(judged(stump, pull(walker=1)), 10, stream())
    assert sum(k == 0 for k, _ in chosen) <= length
    assert sum(k == 1 for k, _ in chosen) >= 3


def test_event_rule_labels_the_barrier_of_a_bond_that_goes_and_comes_back() -> None:
    """By path length, which is time here, one frame in a hundred and fifty would be of the hops."""
    trajectory = hopping(1)
    assert find_event(PROTON, trajectory.positions) is None
    selector = event.EventSelector(event.Config(count=20), PROTON)
    assert selector.path(judged(trajectory)[0]).thermal
    chosen = trajectory.cv[[row for _, row in selector.select(judged(trajectory), 20, stream())]]
    assert 15 <= len(chosen) <= 20
    assert np.sum(np.abs(chosen) < 0.3) >= 5
    assert np.sum(chosen < -0.3) >= 3
    assert np.sum(chosen > 0.3) >= 3


def test_walkers_that_roam_share_the_cells() -> None:
    walkers = [hopping(seed) for seed in range(3)]
    chosen = event.EventSelector(event.Config(count=20), PROTON).select(judged(*walkers), 20, stream())
    places = np.sort([walkers[k].cv[row] for k, row in chosen])
    assert 15 <= len(chosen) <= 20
    assert len({k for k, _ in chosen}) == 3
    # three walkers one by one would have chosen every place three times
    assert np.median(np.diff(places)) > 0.02
    assert chosen == sorted(chosen)


def test_event_rule_keeps_its_window_for_a_bond_that_goes_for_good_at_room_temperature() -> None:
    trajectory = hopping(2, returns=False)
    found = find_event(PROTON, trajectory.positions)
    assert found is not None
    selector = event.EventSelector(event.Config(count=20, lead=100, tail=20), PROTON)
    path = selector.path(judged(trajectory)[0])
    assert path.thermal
    assert path.window == (found.onset - 100, found.end + 21)
    rows = [row for _, row in selector.select(judged(trajectory), 20, stream())]
    assert max(rows) <= found.end + 20
    assert sum(row >= found.onset - 100 for row in rows) >= 9
    assert sum(row < found.onset - 100 for row in rows) >= 4


def test_a_bond_that_has_gone_and_come_before_the_event_leaves_no_window() -> None:
    there_and_back, once = hopping(3), hopping(4, returns=False)
    both = Trajectory(0, 1, np.arange(len(there_and_back) + len(once)), *(
        np.concatenate([getattr(there_and_back, name), getattr(once, name)])
        for name in ("cv", "work", "energy", "energy_std", "force_std", "positions")
    ))  # fmt: skip
    selector = event.EventSelector(event.Config(count=20), PROTON)
    assert find_event(PROTON, both.positions) is not None
    assert selector.path(judged(both)[0]).window is None


@pytest.mark.parametrize(
    ("order", "back"),
    [
        ([1.0, 1.0, 0.9, 0.5, 0.1, 0.0, 0.0], False),
        ([1.0, 0.2, 0.9, 0.5, 0.1, 0.0, 0.0], True),
        ([1.0, 0.4, 0.9, 0.5, 0.1, 0.0, 0.0], False),
        ([1.0, 1.0, 0.9, 0.5, 0.1, 0.8, 0.0], True),
        ([1.0, 1.0, 0.9, 0.5, 0.1, 0.6, 0.0], False),
        ([0.0, 0.8, 0.1, 0.5, 0.9, 1.0, 1.0], True),
    ],
)
def test_when_a_bond_went_back(order: list[float], back: bool) -> None:
    assert event.went_back(np.array(order), 2, 4) is back


def test_an_isomerisation_is_labelled_over_both_of_its_angles() -> None:
    """No bond changes; long stays in two basins, one crossing of 60 steps through the edge of the circle."""
    rng = np.random.default_rng(5)
    phi = np.r_[np.full(3000, 120.0), np.linspace(120, 240, 60), np.full(3000, 240.0)] + rng.normal(0, 5, 6060)
    psi = rng.normal(0, 5, 6060)
    cvs = np.stack([(phi + 180) % 360 - 180, psi], axis=1)
    still = np.zeros((6060, 2, 3))
    still[:, 1, 0] = 1.5
    zeros = np.zeros(6060)
    run = Trajectory(
        0, 1, np.arange(6060), cvs[:, 0], zeros, rng.normal(0, 0.1, 6060), np.ones(6060), zeros, still, cvs=cvs
    )
    selector = event.EventSelector(event.Config(count=24), NUMBERS, (ANGLE, ANGLE))
    rows = [row for _, row in selector.select(judged(run), 24, stream())]
    crossing = [row for row in rows if 145 < phi[row] < 215]
    assert 16 <= len(rows) <= 24
    assert len(crossing) >= 3


def test_a_pull_is_driven_as_long_as_it_goes_forward() -> None:
    """The spring's end trembles: at 10 K the path of a pull is about twice as long as its range."""
    trembling = pull()
    cv = trembling.cv + 0.004 * np.sin(np.arange(len(trembling)) * 0.7)
    selector = event.EventSelector(event.Config(), NUMBERS)
    assert np.abs(np.diff(cv[:BREAK])).sum() > 1.5 * np.ptp(cv[:BREAK])
    assert not selector.path(judged(replace(trembling, cv=cv, cvs=cv[:, None]))[0]).thermal
    assert selector.path(judged(hopping(1))[0]).thermal


def test_driven_and_roaming_walkers_share_the_count() -> None:
    same = NUMBERS.repeat(2)[:3]
    still = np.pad(pull().positions, ((0, 0), (0, 1), (0, 0)), constant_values=9.0)
    driven = replace(pull(walker=1), positions=still)
    selector = event.EventSelector(event.Config(count=20), same)
    chosen = selector.select(judged(driven, hopping(1)), 20, stream())
    assert 8 <= sum(k == 0 for k, _ in chosen) <= 10
    assert 8 <= sum(k == 1 for k, _ in chosen) <= 12
