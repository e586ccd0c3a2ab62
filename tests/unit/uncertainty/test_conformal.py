"""The conformal threshold keeps its promise, measured over many draws."""

from __future__ import annotations

import numpy as np
import pytest

from rareal.records import Array, Evidence, Frame, Trajectory
from rareal.uncertainty.conformal import Config, ConformalRule, build, conformal

START = Frame(np.array([6, 6, 1, 1]), np.zeros((4, 3)))


def rule(**settings: float | str | bool) -> ConformalRule:
    return build(Config.model_validate({"tolerance": 0.1, **settings}), START)


def evidence(score: Array, error: Array) -> Evidence:
    nothing = np.full(len(score), np.nan)
    return Evidence(score, nothing, error, nothing)


def run(values: list[float]) -> Trajectory:
    zeros = np.zeros(len(values))
    return Trajectory(
        0, 1, np.arange(len(values)), zeros, zeros, zeros, np.array(values), zeros, np.zeros((len(values), 4, 3))
    )


@pytest.mark.parametrize(
    ("rate", "n", "rank"), [(0.1, 9, 1), (0.1, 18, 1), (0.1, 19, 2), (0.29, 99, 29), (0.5, 1, 1), (0.9, 9, 9)]
)
def test_the_threshold_is_just_below_the_score_of_the_right_rank(rate: float, n: int, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    found = conformal(scores, rate)
    assert found is not None
    assert rank - 1e-9 < found < rank


@pytest.mark.parametrize(("rate", "n"), [(0.1, 8), (0.1, 0), (0.05, 18), (0.5, 0)])
def test_too_few_frames_give_none(rate: float, n: int) -> None:
    assert conformal(np.ones(n), rate) is None
    assert Config(tolerance=1, miss_rate=0.1).needed == 9
    assert Config(tolerance=1, miss_rate=0.05).needed == 19
    assert Config(tolerance=1, miss_rate=0.3).needed == 3


@pytest.mark.parametrize(("rate", "frames"), [(0.1, 60), (0.2, 45), (0.05, 200)])
@pytest.mark.parametrize("good", [True, False], ids=["a score that knows", "a score that does not"])
def test_no_more_than_the_stated_share_of_wrong_frames_is_missed(rate: float, frames: int, good: bool) -> None:
    """Over draws of labelled frames and of new ones; the rate is k / (n + 1) on average, and so never much less."""
    rng = np.random.default_rng(4)
    chosen, missed, expected, total = rule(miss_rate=rate), 0.0, 0.0, 0
    for _ in range(3000):
        error = np.abs(rng.normal(0, 0.15, frames + 20))
        score = (error if good else 0.1) * rng.lognormal(0, 0.7, len(error))
        wrong = chosen.wrong(evidence(score[:frames], error[:frames]))
        limit = conformal(wrong, rate)
        new = score[frames:][error[frames:] > 0.1]
        if limit is None or not len(new):
            continue
        # one new frame per draw: the promise is about draw and frame together
        missed += float(new[0] <= limit)
        expected += np.floor(rate * (len(wrong) + 1) + 1e-9) / (len(wrong) + 1)
        total += 1
    assert total > 2000
    spread = 4 * np.sqrt(rate * (1 - rate) / total)
    assert missed / total <= rate + spread
    assert missed / total == pytest.approx(expected / total, abs=spread)


def test_without_the_correction_the_promise_would_be_broken() -> None:
    """⌊α n⌋ + 1 in the place of ⌊α (n + 1)⌋, with few frames: what the finite sample costs."""
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(20_000, 10))
    right = np.mean([draw[-1] <= conformal(draw[:-1], 0.1) for draw in draws])  # type: ignore[operator]
    wrong = np.mean(draws[:, -1] < np.sort(draws[:, :-1], axis=1)[:, 1])
    assert right == pytest.approx(0.1, abs=0.01)
    assert wrong > 0.17


def test_ties_are_not_missed() -> None:
    found = conformal(np.full(50, 0.3), 0.2)
    assert found is not None
    assert found < 0.3


def test_frames_within_the_tolerance_do_not_count() -> None:
    score = np.r_[np.full(9, 2.0), np.full(50, 0.001)]
    error = np.r_[np.full(9, 0.11), np.full(50, 0.1)]
    found = rule().judge([run([1.0, 1.0, 3.0])], evidence(score, error))[0]
    assert found.threshold == pytest.approx(2.0)
    assert found.worthwhile.tolist() == [False, False, True]
    assert not found.note


def test_too_little_evidence_falls_back_to_the_paper_s_rule_and_says_so() -> None:
    eight = evidence(np.full(8, 2.0), np.ones(8))
    found = rule(sigmas=2, window=2).judge([run([1.0, 3.0, 9.0])], eight)[0]
    assert found.threshold == 4.0
    assert found.note == (
        "8 labelled frames have an error above 0.1 eV, a conformal threshold needs 9: the threshold is μ + 2σ"
    )
    assert rule(sigmas=2, window=2).judge([run([1.0, 3.0])])[0].threshold == 4.0


def test_frames_whose_error_is_not_known_do_not_count() -> None:
    score, error = np.full(10, 2.0), np.ones(10)
    score[0], error[1] = np.nan, np.inf
    assert len(rule().wrong(evidence(score, error))) == 8


def test_forces_are_judged_by_forces_and_energies_per_atom_by_energies_per_atom() -> None:
    nine = Evidence(np.full(9, 2.0), np.full(9, 0.7), np.full(9, 0.18), np.full(9, 0.15))
    runs = [run([1.0, 3.0])]
    assert rule().judge(runs, nine)[0].threshold == pytest.approx(2.0)
    assert rule(score="force").judge(runs, nine)[0].threshold == pytest.approx(0.7)
    # four atoms: 0.18 eV are 0.09 eV per √N
    assert "0 labelled frames" in rule(score="energy_per_atom").judge(runs, nine)[0].note
    assert rule(score="energy_per_atom", tolerance=0.08).judge(runs, nine)[0].threshold == pytest.approx(1.0)


def test_the_running_threshold_is_conformal_once_there_is_evidence() -> None:
    assert rule(window=2).running(np.array([1.0, 3.0]), evidence(np.full(9, 7.0), np.ones(9))) == pytest.approx(7.0)
    assert rule(window=2, sigmas=1).running(np.array([1.0, 3.0])) == 3.0


def test_the_tolerance_takes_units() -> None:
    assert Config(tolerance="1 kcal/mol").tolerance == pytest.approx(0.0433641)
    with pytest.raises(ValueError, match="tolerance"):
        Config(tolerance=0)
    with pytest.raises(ValueError, match="miss_rate"):
        Config(tolerance=1, miss_rate=1)
