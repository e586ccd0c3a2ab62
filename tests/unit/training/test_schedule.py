"""Learning rates."""

from __future__ import annotations

import pytest

from rareal.training.config import Constant, Cosine, OneCycle, Plateau
from rareal.training.schedule import make_schedule


def test_cosine_rises_then_falls() -> None:
    schedule = make_schedule(Cosine(warmup=0.1, final=1e-4), 1e-2, 100)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[9] == pytest.approx(1e-2)
    assert rates[0] == pytest.approx(1e-3)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rates[-1] < 2e-4


def test_onecycle_starts_low_peaks_after_its_rise_and_ends_at_the_final_rate() -> None:
    schedule = make_schedule(OneCycle(rise=0.25, start=0.1, final=1e-5), 1e-2, 101)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[25] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-5)
    assert all(a < b for a, b in zip(rates[:25], rates[1:26], strict=True))
    assert all(a > b for a, b in zip(rates[25:], rates[26:], strict=False))


def test_constant() -> None:
    schedule = make_schedule(Constant(), 3e-3, 10)
    assert {schedule.rate(step) for step in range(10)} == {3e-3}


def test_plateau_waits_then_lowers_the_rate_and_ends_at_the_smallest() -> None:
    """By hand, for patience 2: the third validation without improvement lowers the rate."""
    schedule = make_schedule(Plateau(factor=0.5, patience=2, final=3e-3), 1e-2, 10)
    rates = []
    for loss in (5.0, 4.0, 4.0, 4.5, 4.1, 3.0, 3.1, 3.0, 2.99999, 9.0):
        schedule.judge(loss)
        rates.append(schedule.rate(0))
    assert rates == [1e-2, 1e-2, 1e-2, 1e-2, 5e-3, 5e-3, 5e-3, 5e-3, 3e-3, 3e-3]
    assert schedule.ended


def test_plateau_defaults_are_the_papers() -> None:
    config = Plateau()
    assert (config.factor, config.patience, config.final) == (0.8, 5, 1e-6)


def test_a_plateau_goes_on_where_it_was() -> None:
    first, second = (make_schedule(Plateau(patience=1, factor=0.5), 1e-2, 10) for _ in range(2))
    for loss in (1.0, 2.0):
        first.judge(loss)
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.judge(3.0)
    assert first.rate(0) == second.rate(0) == 5e-3
