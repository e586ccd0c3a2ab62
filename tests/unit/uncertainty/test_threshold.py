"""The threshold μ + kσ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rareal.errors import SamplingError
from rareal.records import Trajectory
from rareal.uncertainty.threshold import Config, threshold


def trajectory(energy_std: np.ndarray, interval: int = 1) -> Trajectory:
    count = len(energy_std)
    zeros = np.zeros(count)
    return Trajectory(
        0, 1, np.arange(count) * interval, zeros, zeros, zeros, energy_std, zeros, np.zeros((count, 2, 3))
    )


def test_mean_plus_three_sigma_of_the_first_thousand_steps() -> None:
    values = np.random.default_rng(0).uniform(1, 2, 3000)
    values[1000:] = 100.0
    expected = values[:1000].mean() + 3 * values[:1000].std()
    assert threshold([trajectory(values)], Config()) == pytest.approx(expected)


def test_the_window_counts_steps_not_rows() -> None:
    values = np.r_[np.full(100, 1.0), np.full(100, 9.0)]
    assert threshold([trajectory(values, interval=10)], Config(window=1000)) == pytest.approx(1.0)


def test_walkers_share_the_threshold_and_bad_values_are_ignored() -> None:
    one, two = trajectory(np.full(10, 1.0)), trajectory(np.r_[np.full(5, 3.0), np.full(5, np.nan)])
    both = np.r_[np.full(10, 1.0), np.full(5, 3.0)]
    assert threshold([one, two], Config(sigmas=2)) == pytest.approx(both.mean() + 2 * both.std())


def test_nothing_finite_is_an_error() -> None:
    with pytest.raises(SamplingError, match="no finite energy std"):
        threshold([replace(trajectory(np.full(3, np.inf)))], Config())
