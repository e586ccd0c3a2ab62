"""Basins and barriers of surfaces known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from rareal.freeenergy.grid import axis, points
from rareal.freeenergy.surface import barrier, basins, minimax_path, nearest

LINE = (axis(-2.0, 2.0, 0.01),)
X = LINE[0].centres
TILTED = 0.2 * (X**2 - 1) ** 2 + 0.05 * X


def test_double_well_has_two_basins_and_two_barriers() -> None:
    found = basins(LINE, TILTED, depth=0.02)
    assert X[list(found.minima)] == pytest.approx([-1.03, 0.966], abs=0.01)
    way = barrier(LINE, TILTED, found, 0, 1)
    top = TILTED[np.abs(X) < 0.5].max()
    assert way.forward == pytest.approx(top - TILTED.min())
    assert way.reverse == pytest.approx(top - TILTED[X > 0].min())
    assert way.reaction == pytest.approx(TILTED[X > 0].min() - TILTED.min())
    assert way.path == tuple(range(found.minima[0], found.minima[1] + 1))
    back = barrier(LINE, TILTED, found, 1, 0)
    assert (back.forward, back.reverse) == (way.reverse, way.forward)


def test_ripples_are_no_basins() -> None:
    rippled = TILTED + 0.004 * np.cos(60 * X)
    assert len(basins(LINE, rippled, depth=0.02).minima) == 2
    assert len(basins(LINE, rippled, depth=0.001).minima) >= 8
    assert len(basins(LINE, rippled, depth=0.5).minima) == 1


def test_what_is_not_known_belongs_to_no_basin_and_is_no_way() -> None:
    torn = np.where(np.abs(X) < 0.1, np.inf, TILTED)
    found = basins(LINE, torn, depth=0.02)
    assert len(found.minima) == 2
    assert np.array_equal(found.label == -1, ~np.isfinite(torn))
    way = barrier(LINE, torn, found, 0, 1)
    assert (way.forward, way.path) == (np.inf, ())
    assert nearest(LINE, torn, [0.02]) == np.flatnonzero(X > 0.1)[0]


def test_an_angle_is_crossed_the_lower_way_round() -> None:
    angle = (axis(-180.0, 180.0, 2.0, period=360.0),)
    phi = np.deg2rad(angle[0].centres)
    # minima at +-90 degrees; 0.3 eV between them at 0, 0.1 eV at 180
    energy = 0.2 * np.cos(phi) ** 2 + 0.1 * np.cos(phi) * np.cos(phi) ** 2
    found = basins(angle, energy, depth=0.02)
    way = barrier(angle, energy, found, 0, 1)
    assert way.forward == pytest.approx(0.1, abs=1e-3)
    assert abs(angle[0].centres[way.saddle]) > 178


def test_two_dimensions_take_the_lower_of_two_saddles() -> None:
    """Two wells on a ring: one way round costs 0.15 eV, the other 0.25 eV, straight through the middle 1 eV."""
    axes = (axis(-2.0, 2.0, 0.04), axis(-1.6, 1.6, 0.04))
    x, y = points(axes).T
    angle = np.arctan2(y, x)
    energy = (np.hypot(x, y) ** 2 - 1) ** 2 + (0.2 + 0.05 * np.sin(angle)) * np.sin(angle) ** 2
    surface = energy.reshape(100, 80)
    found = basins(axes, surface, depth=0.03)
    assert len(found.minima) == 2
    way = barrier(axes, surface, found, 0, 1)
    assert way.forward == pytest.approx(0.15, abs=0.004)
    assert points(axes)[way.saddle] == pytest.approx([0.0, -1.0], abs=0.06)
    assert np.max(energy[list(way.path)]) == energy[way.saddle]


def test_minimax_path_is_continuous_and_lowest_on_a_rough_surface() -> None:
    axes = (axis(0.0, 1.0, 0.04), axis(0.0, 1.0, 0.04))
    energy = np.random.default_rng(8).random(625)
    path = minimax_path(axes, energy, 0, 624)
    steps = np.abs(np.diff(np.unravel_index(path, (25, 25)))).sum(axis=0)
    assert (path[0], path[-1], set(steps.tolist())) == (0, 624, {1})
    top = energy[list(path)].max()
    assert top > max(energy[0], energy[624])
    # with the highest bins taken away there is no way left
    assert minimax_path(axes, np.where(energy >= top, np.inf, energy), 0, 624) == ()
