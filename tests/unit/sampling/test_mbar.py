"""Profiles from windows that were drawn exactly, against closed forms."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from rareal.errors import InstallationError, SamplingError
from rareal.records import Array
from rareal.sampling.mbar import FreeEnergy, Windows, free_energy, summit
from rareal.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
BARRIER = 0.25


def double_well(x: Array) -> Array:
    """Minima at ±1, ``BARRIER`` between them."""
    result: Array = BARRIER * (1.0 - x**2) ** 2
    return result


def draws(energy: Any, center: float, constant: float, count: int, rng: np.random.Generator) -> Array:
    """Independent values of x with the probability exp(-(energy + restraint)/kT)."""
    grid = np.linspace(-3.0, 3.0, 60001)
    weight = np.exp(-(energy(grid) + 0.5 * constant * (grid - center) ** 2) / KT)
    cumulated = np.cumsum(weight)
    return np.interp(rng.random(count), cumulated / cumulated[-1], grid)


def sampled(energy: Any, centers: Array, constant: float, count: int, seed: int) -> Windows:
    rng = np.random.default_rng(seed)
    samples = [draws(energy, center, constant, count, rng) for center in centers]
    return Windows(centers, np.full(len(centers), constant), samples, TEMPERATURE)


def joined(windows: Windows, width: float = 0.1) -> FreeEnergy:
    return free_energy(windows, width, np.random.default_rng(1), resamples=10)


def test_harmonic_well_comes_back_within_its_error() -> None:
    centers = np.linspace(-0.6, 0.6, 7)
    found = joined(sampled(lambda x: 0.5 * x**2, centers, 4.0, 300, seed=3))
    exact = 0.5 * found.coordinate**2
    error = found.energy - exact - np.mean(found.energy - exact)
    assert found.note == "no basin behind the top: the barrier is the rise to the highest point of the profile"
    assert np.abs(error).max() < 0.012
    assert np.nanmax(found.error) < 0.012
    assert exact.max() > 0.14


@pytest.mark.parametrize("direction", [1, -1])
def test_barrier_of_the_double_well(direction: int) -> None:
    """The bootstrap's error is that of the barrier: over many draws the two are alike."""
    centers = direction * np.linspace(-1.2, 1.2, 13)
    found = [joined(sampled(double_well, centers, 4.0, 150, seed)) for seed in range(5)]
    barriers = np.array([one.barrier for one in found])
    errors = np.array([one.barrier_error for one in found])
    assert all(one.note == "" for one in found)
    assert np.mean(barriers) == pytest.approx(BARRIER, abs=0.01)
    # chi-squared of 5 barriers; 1e-3 of all sets lie outside
    assert 0.2 < np.sum(((barriers - BARRIER) / errors) ** 2) < 21
    assert np.mean(errors) < 0.016
    energies = np.mean([one.energy for one in found], axis=0)
    exact = double_well(found[0].coordinate)
    assert energies - energies.mean() == pytest.approx(exact - exact.mean(), abs=0.015)


def test_correlated_samples_count_less() -> None:
    """A series x' = a x + noise has the statistical inefficiency (1 + a)/(1 - a)."""
    rng = np.random.default_rng(5)
    centers, memory, count = np.array([-0.1, 0.1]), 0.9, 4000
    samples = []
    for center in centers:
        series = np.zeros(count)
        kicks = rng.normal(size=count) * np.sqrt(1 - memory**2)
        for t in range(1, count):
            series[t] = memory * series[t - 1] + kicks[t]
        samples.append(center + 0.1 * series)
    found = joined(Windows(centers, np.full(2, KT / 0.01), samples, TEMPERATURE), 0.05)
    assert found.inefficiency == pytest.approx((1 + memory) / (1 - memory), rel=0.3)


def test_periodic_variable_goes_round() -> None:
    """A threefold torsion across 180 degrees; the samples come wrapped into (-180, 180]."""
    rng = np.random.default_rng(2)
    centers = np.linspace(60.0, 300.0, 25)
    grid = np.arange(-180.0, 180.0, 0.05)
    samples, torsion = [], 0.05 * (1 + np.cos(np.deg2rad(3 * grid)))
    constant = 2 * KT / 10.0**2
    for center in centers:
        away = grid - center - 360.0 * np.round((grid - center) / 360.0)
        weight = np.exp(-(torsion + 0.5 * constant * away**2) / KT)
        samples.append(rng.choice(grid, 300, p=weight / weight.sum()))
    found = joined(Windows(centers, np.full(25, constant), samples, TEMPERATURE, 360.0), 10.0)
    exact = 0.05 * (1 + np.cos(np.deg2rad(3 * found.coordinate)))
    assert found.coordinate.min() > 60.0
    assert found.energy - found.energy.mean() == pytest.approx(exact - exact.mean(), abs=0.015)
    assert found.barrier == pytest.approx(0.1, abs=0.012)


def test_windows_that_barely_overlap_are_named() -> None:
    found = joined(sampled(double_well, np.linspace(-1.2, 1.2, 9), 5.0, 200, seed=1))
    assert "windows at -0.3 and 0 overlap by" in found.note
    assert "put the windows closer" in found.note
    assert np.isfinite(found.barrier)


def test_windows_that_do_not_join_have_no_barrier() -> None:
    found = joined(sampled(double_well, np.linspace(-1.2, 1.2, 9), 200.0, 200, seed=1))
    assert found.note.startswith("windows at -1.2 and -0.9 do not overlap; ")
    assert found.note.endswith("put the windows closer, or take a smaller force constant, or sample longer")
    assert np.isnan([found.barrier, found.barrier_error, *found.energy]).all()


def test_windows_without_samples_are_named() -> None:
    windows = sampled(double_well, np.linspace(-1.2, 1.2, 17), 4.0, 200, seed=1)
    samples = [*windows.samples[:-2], np.empty(0), np.empty(0)]
    found = joined(Windows(windows.centers, windows.constants, samples, TEMPERATURE))
    assert found.note.startswith("no samples in window 16, 17")
    assert np.isnan(found.overlap[-1]).all()
    with pytest.raises(SamplingError, match="no window of the umbrella sampling has samples"):
        joined(Windows(windows.centers, windows.constants, [np.empty(0)] * 17, TEMPERATURE))


def test_few_samples_are_said() -> None:
    found = joined(sampled(double_well, np.linspace(-1.2, 1.2, 9), 1.0, 5, seed=1))
    assert "fewer than 10 uncorrelated samples in window 1, 2" in found.note


def test_samples_that_drift_are_said() -> None:
    """Every window's second half comes from a potential with twice the barrier."""
    centers = np.linspace(-1.2, 1.2, 13)
    early = sampled(double_well, centers, 4.0, 300, seed=1)
    late = sampled(lambda x: 2 * double_well(x), centers, 4.0, 300, seed=2)
    samples = [np.concatenate(pair) for pair in zip(early.samples, late.samples, strict=True)]
    found = joined(Windows(centers, early.constants, samples, TEMPERATURE))
    assert "the second half of the samples gives a barrier +0." in found.note


def test_a_stretch_without_samples_is_said() -> None:
    """A restraint too soft for the well never reaches its own centre."""
    found = joined(sampled(lambda x: 2.0 * x**2, np.linspace(-0.5, 0.5, 6), 1.5, 200, seed=3))
    assert "nothing was sampled at -0.5 and elsewhere" in found.note


def test_a_variable_that_stands_still_is_one_sample() -> None:
    windows = sampled(double_well, np.linspace(-1.2, 1.2, 9), 1.0, 100, seed=1)
    samples = [np.full(100, -1.2), *windows.samples[1:]]
    found = joined(Windows(windows.centers, windows.constants, samples, TEMPERATURE))
    assert found.inefficiency[0] == 100
    assert "fewer than 10 uncorrelated samples in window 1:" in found.note


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ([3, 0, 2, 1, 9], (1, 2, True)),
        ([9, 0.5, 2, 0, 9], (1, 2, True)),
        ([0, 1, 2, 3], (0, 3, False)),
        ([2, 0, np.nan, 3, 1], (1, 3, True)),
        ([0, 1, 0, 4, 3.5, 5, 2, 8], (0, 5, True)),
        ([9, 5, 2, 2.3, 0, 5, 9], (4, 6, False)),
    ],
)
def test_the_top_lies_between_two_basins(profile: list[float], expected: tuple[int, int, bool]) -> None:
    assert summit(np.array(profile, dtype=float), 0.4) == expected


def test_pymbar_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pymbar"):
            raise ImportError("No module named 'pymbar'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InstallationError, match="pip install 'pymbar>=4'"):
        joined(sampled(double_well, np.linspace(-1, 1, 5), 4.0, 20, seed=1))
