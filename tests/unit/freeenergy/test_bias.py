"""The bias of hills and what of it the next round begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rareal.errors import SamplingError
from rareal.freeenergy.bias import Hills, free_energy, mean, no_bias, no_hills, read_hills, tempered
from rareal.freeenergy.grid import axis, points
from rareal.units import KB

AXES = (axis(-2.0, 2.0, 0.05), axis(-180.0, 180.0, 5.0, period=360.0))
RNG = np.random.default_rng(3)
HILLS = Hills(
    np.arange(50, 1050, 50),
    np.stack([RNG.uniform(-1.5, 1.5, 20), RNG.uniform(-180, 180, 20)], axis=1),
    np.tile([0.2, 20.0], (20, 1)),
    RNG.uniform(0.005, 0.01, 20),
)


def direct(hills: Hills, where: np.ndarray) -> np.ndarray:
    """The sum of the hills at points [T, V], image by image."""
    energy = np.zeros(len(where))
    for k in range(len(hills)):
        x = (where[:, 0] - hills.centres[k, 0]) / hills.widths[k, 0]
        images = [(where[:, 1] - hills.centres[k, 1] + shift) / hills.widths[k, 1] for shift in (-360, 0, 360)]
        nearest = np.min(np.abs(images), axis=0)
        energy += hills.heights[k] * np.exp(-0.5 * (x**2 + nearest**2))
    return energy


def test_bias_is_the_sum_of_the_hills() -> None:
    bias = no_bias(AXES).plus(HILLS)
    where = points(AXES)
    assert bias.energy.ravel() == pytest.approx(direct(HILLS, where), abs=1e-12)
    assert bias.at(where) == pytest.approx(direct(HILLS, where), abs=1e-12)
    assert np.isnan(bias.at(np.array([[3.0, 0.0]])))


def test_gradient_is_that_of_the_energy() -> None:
    bias = no_bias(AXES).plus(HILLS)
    x, y = bias.gradient[..., 0], bias.gradient[..., 1]
    assert x[1:-1] == pytest.approx((bias.energy[2:] - bias.energy[:-2]) / (2 * AXES[0].width), abs=2e-3)
    wrapped = (np.roll(bias.energy, -1, axis=1) - np.roll(bias.energy, 1, axis=1)) / (2 * AXES[1].width)
    assert y == pytest.approx(wrapped, abs=2e-5)
    assert np.abs(y).max() > 2e-4


def test_levels_are_the_bias_as_it_grew() -> None:
    places = np.array([5, 700, 3000])
    start = no_bias(AXES).plus(HILLS.part(slice(0, 5)))
    rest = HILLS.part(slice(5, None))
    levels = start.levels(rest, [0, 0, 3, 15], places)
    where = points(AXES)[places]
    for row, hills in zip(levels, (5, 5, 8, 20), strict=True):
        assert row == pytest.approx(direct(HILLS.part(slice(0, hills)), where), abs=1e-12)


def test_bias_along_a_trajectory_grows_with_every_hill() -> None:
    where = np.random.default_rng(4).uniform([-1.9, -180], [1.9, 180], (30, 2))
    steps = np.sort(np.random.default_rng(5).integers(0, 1100, 30))
    steps[10], where[3, 0] = HILLS.steps[4], 2.1
    found = no_bias(AXES).along(HILLS, steps, where)
    for row, step in enumerate(steps):
        expected = no_bias(AXES).plus(HILLS.until(int(step))).at(where[row : row + 1])[0]
        assert found[row] == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.flatnonzero(np.isnan(found)).tolist() == [3]


def test_next_round_begins_with_what_was_common_and_the_walkers_hills_by_their_number() -> None:
    """Hills are divided by the number of walkers; the bias that they all inherited is not."""
    common = no_bias(AXES).plus(HILLS.part(slice(0, 8)))
    one, two = HILLS.part(slice(8, 12)), HILLS.part(slice(12, 20))
    begun = mean([common.plus(one), common.plus(two)])
    where = points(AXES)
    expected = direct(HILLS.part(slice(0, 8)), where) + 0.5 * (direct(one, where) + direct(two, where))
    assert begun.energy.ravel() == pytest.approx(expected, abs=1e-12)
    damped = mean([common.plus(one), common.plus(two)], share=0.25)
    assert damped.energy == pytest.approx(0.25 * begun.energy)
    assert damped.gradient == pytest.approx(0.25 * begun.gradient)


def test_biases_on_different_grids_have_no_mean() -> None:
    with pytest.raises(SamplingError, match="different grids"):
        mean([no_bias(AXES), no_bias(AXES[:1])])


def test_free_energy_is_the_bias_turned_over_and_stretched() -> None:
    bias = no_bias(AXES).plus(HILLS)
    surface = free_energy(bias, factor=5.0)
    assert surface.min() == 0.0
    assert np.ptp(surface) == pytest.approx(1.25 * np.ptp(bias.energy))
    assert np.argmin(surface) == np.argmax(bias.energy)


def test_tempered_hills_shrink_by_the_bias_temperature() -> None:
    assert tempered(0.01, 0.0, 10.0, 300.0) == 0.01
    assert tempered(0.01, KB * 2700.0, 10.0, 300.0) == pytest.approx(0.01 / np.e)


def test_hills_file_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "hills"
    path.write_text(" 50  0.5 -170.0  0.2 20.0  0.01\n 100 0.25 10.0 0.2 20.0 0.009\n 150 0.1 20.0 0.2 2")
    hills = read_hills(path, 2)
    assert hills.steps.tolist() == [50, 100]
    assert hills.centres.tolist() == [[0.5, -170.0], [0.25, 10.0]]
    assert hills.widths.tolist() == [[0.2, 20.0], [0.2, 20.0]]
    assert hills.heights.tolist() == [0.01, 0.009]
    assert len(hills.until(99)) == 1
    assert len(hills.until(100)) == 2
    with pytest.raises(SamplingError, match="no hills of 1 collective"):
        read_hills(path, 1)
    path.write_text("")
    assert len(read_hills(path, 2)) == len(no_hills(2)) == 0
