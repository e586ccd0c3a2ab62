"""Grids over one and two variables, with and without ends."""

from __future__ import annotations

import numpy as np
import pytest

from rareal.freeenergy.grid import axis, flat_index, neighbours, points, smooth

LINE = axis(-1.0, 1.0, 0.25)
ANGLE = axis(-180.0, 180.0, 10.0, period=360.0)


def test_bins_fill_the_range_and_are_no_wider_than_asked() -> None:
    found = axis(0.0, 1.0, 0.3)
    assert (found.bins, found.width) == (4, 0.25)
    assert found.centres == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert axis(-2.0, 2.0, 0.0125).bins == 320


def test_a_value_is_in_the_bin_around_whose_centre_it_lies() -> None:
    assert LINE.index(LINE.centres).tolist() == list(range(8))
    assert LINE.index(np.array([-1.0, -1.001, 0.999, 1.0, np.nan])).tolist() == [0, -1, 7, -1, -1]


def test_an_angle_wraps() -> None:
    assert ANGLE.index(np.array([-180.0, 180.0, 179.9, 185.0, -540.0, np.nextafter(-180.0, -181)])).tolist() == [
        0, 0, 35, 0, 0, 35,
    ]  # fmt: skip
    assert ANGLE.difference(np.array([175.0]), -175.0) == pytest.approx([-10.0])
    assert LINE.difference(np.array([0.9]), -0.9) == pytest.approx([1.8])


def test_places_in_the_flattened_grid_are_the_points() -> None:
    axes = (LINE, ANGLE)
    assert flat_index(axes, points(axes)).tolist() == list(range(8 * 36))
    assert flat_index(axes, np.array([[2.0, 0.0]])).tolist() == [-1]


@pytest.mark.parametrize("axes", [(LINE,), (ANGLE,), (LINE, ANGLE), (ANGLE, LINE)], ids=["1", "1p", "2", "2p"])
def test_neighbours_are_one_bin_away_along_one_axis(axes: tuple[object, ...]) -> None:
    where = points(axes)
    for place in range(len(where)):
        apart = sum(np.abs(np.round(each.difference(where[:, k], where[place, k]) / each.width))
                    for k, each in enumerate(axes))  # fmt: skip
        assert sorted(neighbours(axes)[place]) == np.flatnonzero(apart == 1).tolist()


def test_smoothing_spreads_a_spike_into_a_gaussian() -> None:
    axes = (axis(-5.0, 5.0, 0.1), axis(-180.0, 180.0, 5.0, period=360.0))
    spike = np.zeros((100, 72))
    spike[50, 71] = 1.0
    blurred = smooth(axes, spike, (0.5, 15.0))
    x, y = axes[0].centres, axes[1].difference(axes[1].centres, axes[1].centres[71])
    expected = np.exp(-((x - x[50])[:, None] ** 2) / 0.5 - y[None, :] ** 2 / 450)
    assert blurred == pytest.approx(expected / expected.sum(), abs=1e-7)


def test_smoothing_leaves_a_constant_alone_up_to_the_ends() -> None:
    assert smooth((LINE,), np.full(8, 3.0), (0.5,)) == pytest.approx(np.full(8, 3.0))
