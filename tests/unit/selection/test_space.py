"""Frames told apart by their collective variables: spacings, periods, cells."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from rareal.cv import Variable
from rareal.records import Array
from rareal.schema import Misfit
from rareal.selection import event, paper
from rareal.selection.space import Space, spread


@dataclass(frozen=True)
class Coordinate:
    """A variable that has a unit and a period, and nothing else that matters here."""

    unit: str = "Å"
    period: float | None = None
    name: str = "cv"
    label: str = "coordinate"
    ends: tuple[int, int] | None = None

    def value(self, positions: Array) -> Array:
        raise NotImplementedError

    def colvars(self) -> str:
        raise NotImplementedError


LENGTH: Variable = Coordinate()
ANGLE: Variable = Coordinate("°", 360.0)


def test_a_spacing_that_is_not_given_goes_by_the_unit() -> None:
    assert Space(None, (LENGTH, ANGLE, Coordinate(""))).spacings(3).tolist() == [0.01, 1.0, 0.01]
    assert Space(None).spacings(2).tolist() == [0.01, 0.01]
    assert Space(0.5, (LENGTH, ANGLE)).spacings(2).tolist() == [0.5, 0.5]
    assert Space((0.5, 3.0), (LENGTH, ANGLE)).spacings(2).tolist() == [0.5, 3.0]


def test_angles_differ_by_the_short_way_round() -> None:
    space = Space((0.1, 10.0), (LENGTH, ANGLE))
    apart = space.differences(
        np.array([[1.0, 175.0], [1.0, -180.0], [3.0, 0.0]]), np.array([[1.2, -175.0], [1.0, 180.0], [3.0, 350.0]])
    )
    assert apart == pytest.approx(np.array([[2.0, 1.0], [0.0, 0.0], [0.0, 1.0]]))
    assert Space(10.0, (LENGTH,)).differences(np.array([[175.0]]), np.array([[-175.0]])).item() == 35.0


def test_the_length_of_a_path_that_turns_round_and_round() -> None:
    angles = np.array([170.0, 179.0, -172.0, -170.0])[:, None]
    space = Space(1.0, (ANGLE,))
    assert space.steps(angles).tolist() == [0.0, 9.0, 9.0, 2.0]
    assert space.extent(angles) == 351.0
    assert space.extent(np.array([[0.0], [5000.0]])) == 360.0


def test_cells_of_an_angle_close_the_circle() -> None:
    angles = np.arange(-180.0, 181.0, 1.0)[:, None]
    cells = Space(1.0, (ANGLE,)).cells(angles, np.empty((len(angles), 0)), 100.0)
    # three cells of 120°
    assert len(set(cells)) == 3
    assert cells[0] == cells[-1]
    assert np.bincount(cells).min() == 120
    # -1e-17 modulo 360 is 360 in floating point
    hair = np.array([[-1e-17], [1.0]])
    assert Space(1.0, (ANGLE,)).cells(hair, np.empty((2, 0)), 100.0).tolist() == [0, 0]


def test_a_place_where_the_path_stays_long_gets_no_more_than_its_share() -> None:
    rng = np.random.default_rng(0)
    basins = np.r_[rng.normal(0.0, 0.02, 5000), np.linspace(0.0, 1.0, 100), rng.normal(1.0, 0.02, 5000)]
    rows = spread(Space(0.01), basins[:, None], np.empty((len(basins), 0)), rng.random(len(basins)), 20)
    places = np.sort(basins[rows])
    assert 17 <= len(rows) <= 20
    assert rows == sorted(rows)
    # one per cell: never two cells apart
    assert np.diff(places).max() < 2.2 * (np.ptp(basins) / len(rows))
    assert np.sum((places > 0.1) & (places < 0.9)) >= 11


def test_each_cell_gives_its_highest_score_the_first_of_equal_ones() -> None:
    cvs = np.array([0.0, 0.1, 0.2, 5.0, 5.1])[:, None]
    nothing = np.empty((5, 0))
    assert spread(Space(1.0), cvs, nothing, np.array([1.0, 3.0, 3.0, 2.0, 9.0]), 2) == [1, 4]
    # closer than a spacing is the same place, however many may be chosen
    assert spread(Space(1.0), cvs, nothing, np.ones(5), 50) == [0, 3]
    assert spread(Space(0.05), cvs, nothing, np.ones(5), 50) == [0, 1, 2, 3, 4]


def test_other_coordinates_tell_frames_of_one_value_apart() -> None:
    cvs, bonds = np.zeros((6, 1)), np.array([0.0, 0, 10, 10, 50, 50])[:, None]
    assert spread(Space(1.0), cvs, bonds, np.arange(6.0), 3) == [1, 3, 5]


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_two_variables_are_covered_within_the_count(count: int) -> None:
    rng = np.random.default_rng(1)
    cvs = np.stack([rng.uniform(-180, 180, 4000), rng.uniform(0, 2, 4000)], axis=1)
    rows = spread(Space((1.0, 0.01), (ANGLE, LENGTH)), cvs, np.empty((4000, 0)), rng.random(4000), count)
    assert count / 2 <= len(rows) <= count
    if count == 50:
        assert {(int(x > 0), int(y > 1)) for x, y in cvs[rows]} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_nothing_to_choose_from() -> None:
    assert spread(Space(1.0), np.empty((0, 1)), np.empty((0, 0)), np.empty(0), 5) == []
    assert spread(Space(1.0), np.zeros((3, 1)), np.empty((3, 0)), np.ones(3), 0) == []


@pytest.mark.parametrize("rule", [paper, event])
def test_a_list_has_a_spacing_for_every_variable(rule: type[paper] | type[event]) -> None:
    two = SimpleNamespace(cv=(object(), object()))
    for good in (None, 0.1, (0.1, 1.0)):
        rule.Config(cv_spacing=good).check_against(two)
    with pytest.raises(Misfit, match="one number for each of the 2 collective variables, or a single one"):
        rule.Config(cv_spacing=(0.1,)).check_against(two)
    with pytest.raises(Misfit, match="give one number for the collective variable"):
        rule.Config(cv_spacing=(0.1, 1.0)).check_against(SimpleNamespace(cv=object()))


def test_spacings_that_mean_nothing_are_refused() -> None:
    for rule in (paper, event):
        with pytest.raises(ValueError, match="cv_spacing"):
            rule.Config(cv_spacing=-1.0)
    for wrong in (0.0, (1.0, 0.0)):
        with pytest.raises(ValueError, match="a unit of length must be above 0"):
            event.Config(cv_spacing=wrong)
    assert paper.Config(cv_spacing=0).cv_spacing == 0
