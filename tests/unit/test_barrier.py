"""Work statistics and the choice of the frames to check."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rareal.barrier import Config, broken_bond, path_frames
from rareal.event import find_event
from rareal.records import Trajectory
from rareal.sampling.work import largest_work as work
from rareal.schema import Misfit

NUMBERS = np.array([6, 6, 6])


def trajectory(break_row: int | None = 1500, rows: int = 2000, note: str = "", peak: float = 5.0) -> Trajectory:
    """A row of three carbon atoms; the second bond stretches slowly and breaks within 80 rows."""
    t = np.arange(rows)
    first = 1.53 + 0.05 * np.sin(t / 20)
    second = 1.53 + 2e-4 * t + 0.02 * np.sin(t / 15)
    if break_row is not None:
        second = second + 2.0 / (1.0 + np.exp(-(t - break_row) / 15.0))
    positions = np.zeros((rows, 3, 3))
    positions[:, 1, 0], positions[:, 2, 0] = first, first + second
    work_done = np.minimum(t / rows * 2 * peak, peak)
    zeros = np.zeros(rows)
    return Trajectory(0, 1, t, first + second, work_done, zeros, zeros, zeros, positions, note)


def test_work_of_several_pulls() -> None:
    result = work([trajectory(peak=peak) for peak in (5.0, 6.0, 7.0)])
    assert result.values == pytest.approx((5.0, 6.0, 7.0))
    assert result.mean == pytest.approx(6.0)
    assert result.error == pytest.approx(1 / math.sqrt(3))


def test_work_of_few_pulls() -> None:
    assert math.isnan(work([trajectory()]).error)
    assert work([trajectory()]).mean == pytest.approx(5.0)
    assert math.isnan(work([]).mean)


def test_pulls_that_were_cut_short_have_no_maximum() -> None:
    assert work([trajectory(), trajectory(note="lost atoms", peak=9.0)]).values == pytest.approx((5.0,))


def test_path_frames_cover_before_break_and_after() -> None:
    pull = trajectory()
    event = find_event(NUMBERS, pull.positions)
    assert event is not None
    rows = path_frames(NUMBERS, pull, 48, 16, 100)
    assert len(rows) == 48
    assert np.all(np.diff(rows) > 0)
    assert rows[0] == 0
    assert np.sum((rows >= event.onset) & (rows <= event.end)) >= 16
    assert np.sum(rows > event.end) >= 10
    assert rows[-1] == event.end + 100
    assert np.max(np.diff(rows)) < 250


def test_path_frames_reach_to_the_maximum_of_the_work() -> None:
    """A bond that gives way resists long after: what is reported as the barrier lies there, and was never checked."""
    pull = trajectory()
    event = find_event(NUMBERS, pull.positions)
    assert event is not None
    rising = replace(pull, work=np.linspace(0.0, 3.0, len(pull)))
    rows = path_frames(NUMBERS, rising, 48, 16, 100)
    assert len(rows) == 48
    assert rows[-1] == len(pull) - 1
    assert np.sum((rows >= event.onset) & (rows <= event.end)) >= 16
    falling = replace(pull, work=np.where(np.arange(len(pull)) < event.end + 300, rising.work, 0.0))
    assert path_frames(NUMBERS, falling, 48, 16, 100)[-1] == event.end + 299


def test_path_frames_without_event_are_even() -> None:
    rows = path_frames(NUMBERS, trajectory(break_row=None), 48, 16, 100)
    assert (rows[0], rows[-1], len(rows)) == (0, 1999, 48)
    assert np.ptp(np.diff(rows)) <= 1


def test_path_frames_of_a_short_trajectory() -> None:
    assert path_frames(NUMBERS, trajectory(break_row=None, rows=7), 48, 16, 100).tolist() == list(range(7))


def test_path_frames_when_the_trajectory_ends_in_the_break() -> None:
    pull = trajectory(break_row=1500, rows=1545)
    rows = path_frames(NUMBERS, pull, 48, 16, 100)
    assert len(rows) == 48
    assert rows[-1] == 1544


def test_broken_bond_counts_from_one() -> None:
    assert broken_bond(NUMBERS, trajectory()) == (2, 3)
    assert broken_bond(NUMBERS, trajectory(break_row=None)) is None


def test_more_break_frames_than_frames_are_refused() -> None:
    with pytest.raises(Misfit, match="must leave 4 of the 10 path_frames"):
        Config(path_frames=10, break_frames=8).check_against(SimpleNamespace())
