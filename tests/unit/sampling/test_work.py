"""What is read off works: loss, extrapolation, estimates of free energies from works of a known distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from rareal.records import Array, Frame, Trajectory
from rareal.sampling import steered
from rareal.sampling.work import Ways, Work, bennett, extrapolate, jarzynski, statistics, work_profile
from rareal.schema import Misfit

THERMAL = 0.025


def trajectory(work: Array, note: str = "") -> Trajectory:
    count = len(work)
    nothing = np.zeros(count)
    return Trajectory(
        0, 1, np.arange(count), 1 + nothing.cumsum(), work, nothing, nothing, nothing, np.zeros((count, 1, 3)), note
    )  # fmt: skip


def gaussian_works(rng: np.random.Generator, count: int, difference: float, lost: float) -> tuple[Array, Array]:
    """Works of both ways that fulfil Crooks's theorem: normal, mean ±dF + lost, variance 2 kT lost."""
    width = math.sqrt(2 * THERMAL * lost)
    return rng.normal(difference + lost, width, count), rng.normal(-difference + lost, width, count)


def test_bennett_and_jarzynski_find_the_difference() -> None:
    rng = np.random.default_rng(1)
    found = [bennett(*gaussian_works(rng, 40, 0.3, 0.03), THERMAL) for _ in range(60)]
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(0.3, abs=4 * values.std() / math.sqrt(60))
    # the jackknife's error is the scatter of repetitions
    assert errors.mean() == pytest.approx(values.std(), rel=0.35)
    there, _ = gaussian_works(rng, 20000, 0.3, 0.03)
    assert jarzynski(there, THERMAL) == pytest.approx(0.3, abs=0.003)
    assert there.mean() == pytest.approx(0.33, abs=0.003)


def test_reversible_works_need_no_statistics() -> None:
    works = np.full(4, 0.2)
    assert bennett(works, -works, THERMAL) == pytest.approx((0.2, 0.0), abs=1e-9)


def test_line_through_exact_works() -> None:
    speeds = [0.001, 0.002, 0.004]
    value, error, text = extrapolate(speeds, [Work((), 5.0 + 100 * v, 0.01) for v in speeds])
    assert value == pytest.approx(5.0)
    # weighted least squares by hand: var = sum(x²) s²/(n sum(x²) - sum(x)²)
    x = np.array(speeds)
    assert error == pytest.approx(0.01 * math.sqrt(np.sum(x**2) / (3 * np.sum(x**2) - np.sum(x) ** 2)))
    assert "5.100 eV at 0.001/fs" in text
    assert "does not fit" not in text


def test_line_that_does_not_fit_says_so() -> None:
    speeds = [0.0001, 0.001, 0.01]
    works = [Work((), 5.0 + 0.2 * math.log(v), 0.01) for v in speeds]
    _, error, text = extrapolate(speeds, works)
    assert "The line does not fit" in text
    assert error > 0.05


def test_two_single_pulls_have_a_line_and_no_error() -> None:
    value, error, _ = extrapolate([1.0, 2.0], [Work((), 3.0, math.nan), Work((), 4.0, math.nan)])
    assert value == pytest.approx(2.0)
    assert math.isnan(error)


def pull(there: float, back: float, velocity: float = 0.001, canonical: bool = True, note: str = "") -> Ways:
    """Ten steps there, none standing, ten back."""
    work = np.concatenate([np.linspace(0, there, 11), there + np.linspace(0, back, 11)[1:]])
    return Ways(trajectory(work, note), velocity, 10, 10, 300.0, canonical)


def test_profile_is_work_of_the_way_there() -> None:
    found = work_profile([pull(1.0, -0.8), pull(1.2, -0.6)])
    assert found.kind == "work"
    assert found.barrier == pytest.approx(1.1)
    assert found.barrier_error == pytest.approx(0.1)
    assert found.energy == pytest.approx(np.linspace(0, 1.1, 11))
    assert found.error[-1] == pytest.approx(0.1)
    assert len(found.coordinate) == 11
    assert "0.200 ± 0.100 eV (4.6 kcal/mol, 7.7 kT) of it lost each way" in found.note
    assert "too much is lost for 2 pulls to be believed" in found.note


def test_estimates_are_given_only_where_they_hold() -> None:
    good = [pull(1.00, -0.99), pull(1.01, -0.98), pull(0.99, -0.99)]
    assert "by Bennett's ratio" in work_profile(good).note
    assert "too much" not in work_profile(good).note
    cold = [Ways(p.trajectory, p.velocity, 10, 10, 300.0, canonical=False) for p in good]
    assert "not canonical" in work_profile(cold).note
    assert "Bennett" not in work_profile(cold).note
    one_way = [Ways(trajectory(np.linspace(0, 1, 11)), 0.001, 10, None, 300.0, canonical=True)]
    assert work_profile(one_way).note == ""
    assert "free energy" not in work_profile(one_way).note.lower()


def test_several_velocities_are_extrapolated() -> None:
    pulls = [pull(1.0 + 100 * v + d, -1.0, v) for v in (0.001, 0.002, 0.004) for d in (-0.01, 0.01)]
    found = work_profile(pulls)
    assert found.barrier == pytest.approx(1.0)
    assert found.barrier_error == pytest.approx(0.01 * math.sqrt(21 / 14))
    assert found.energy[-1] == pytest.approx(1.1)  # the slowest


def test_pulls_that_were_cut_short_have_no_maximum() -> None:
    found = work_profile([pull(1.0, -0.8), pull(9.0, -0.8, note="lost atoms")])
    assert found.barrier == pytest.approx(1.0)
    nothing = work_profile([pull(9.0, -0.8, note="lost atoms")])
    assert math.isnan(nothing.barrier)
    assert nothing.energy[-1] == pytest.approx(9.0)


def test_statistics_of_one() -> None:
    assert math.isnan(statistics([1.0]).error)
    assert math.isnan(statistics([]).mean)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "force"}, "needs one"),
        ({"mode": "force", "force": 1.0, "reverse": True}, "no way back"),
        ({"force": 1.0}, "this is for mode 'force'"),
        ({"velocities": [0.001, -0.001]}, "the same way"),
        ({"along": {"atoms": [1], "direction": [0, 0, 0]}}, "is none"),
        ({"along": {"atoms": [1], "away_from": [1], "direction": [0, 0, 1]}}, "away from itself"),
    ],
)
def test_what_cannot_be_pulled_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        steered.Config.model_validate(settings)


class Whole:
    frame = Frame(np.array([1, 1, 1]), np.eye(3))


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"velocity": 0.0}, "velocity", "stands still"),
        ({"hold": [4]}, "hold", "no atom 4"),
        ({"hold": [1, 2, 3]}, "hold", "nothing could move"),
        ({"along": {"atoms": [1], "direction": [0, 0, 1]}}, "along", "dragged along"),
        ({"along": {"atoms": [7], "away_from": [1], "direction": [0, 0, 1]}}, "along.atoms", "no atom 7"),
        ({"along": {"atoms": [1], "direction": [0, 0, 1]}, "hold": [1]}, "hold", "cannot be held"),
    ],
)
def test_what_does_not_go_with_the_structure_is_refused(settings: dict[str, object], field: str, message: str) -> None:
    with pytest.raises(Misfit, match=message) as caught:
        steered.Config.model_validate(settings).check_against(Whole())
    assert caught.value.field == field


def test_walkers_of_several_velocities_go_the_same_way() -> None:
    config = steered.Config.model_validate({"velocities": ["2 angstrom/ps", 0.001], "walkers": 3, "steps": 100})
    assert config.count == 6
    settings = [config.of(k) for k in range(6)]
    assert [s.velocity for s in settings] == pytest.approx([0.002, 0.001] * 3)
    assert [s.steps for s in settings] == [100, 200] * 3


def test_units_are_those_of_the_variable() -> None:
    config = steered.Config.model_validate({"spring": "1 eV/rad^2", "velocity": "10 deg/ps"})
    assert config.spring == pytest.approx((math.pi / 180) ** 2)
    assert config.velocity == pytest.approx(0.01)
    plain = steered.Config.model_validate({"spring": "10 eV/angstrom^2", "velocity": "1 angstrom/ps"})
    assert (plain.spring, plain.velocity) == pytest.approx((10.0, 0.001))
