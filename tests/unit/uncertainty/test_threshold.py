"""Scores, thresholds, the band, and what a trajectory is cut to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rareal.config import KINDS as KINDS_OF_CONFIG
from rareal.config import load
from rareal.errors import ConfigError, SamplingError
from rareal.records import Array, Evidence, Frame, Halt, Trajectory
from rareal.uncertainty import conformal, fixed, moving_average, robust, threshold

START = Frame(np.array([6, 6, 1, 1]), np.zeros((4, 3)))
KINDS: dict[str, Any] = {
    "threshold": threshold,
    "robust": robust,
    "moving_average": moving_average,
    "fixed": fixed,
    "conformal": conformal,
}
NEEDED = {"fixed": {"threshold": 1.0}, "conformal": {"tolerance": 0.1}}


def rule(kind: str, **settings: Any) -> Any:
    module = KINDS[kind]
    return module.build(module.Config(**{**NEEDED.get(kind, {}), **settings}), START)


def test_what_stops_a_drive_is_in_the_pair_style_s_units() -> None:
    assert rule("fixed").halt(0.3, 4) == Halt("energy", 0.3, 4)
    assert rule("fixed", score="force").halt(0.3, 4) == Halt("force", 0.3, 4)
    # four atoms; the pair style knows the std of the total energy
    assert rule("fixed", score="energy_per_atom").halt(0.3, 4) == Halt("energy", 0.6, 4)
    assert rule("fixed").halt(np.inf, 4) is None
    assert [rule("fixed", shared=shared).shared for shared in (True, False)] == [True, False]


def trajectory(energy_std: Any, interval: int = 1, walker: int = 0, force_std: Any = None) -> Trajectory:
    std = np.asarray(energy_std, dtype=np.float64)
    zeros = np.zeros(len(std))
    force = zeros if force_std is None else np.asarray(force_std)
    steps = np.arange(len(std)) * interval
    return Trajectory(walker, 1, steps, zeros, zeros, zeros, std, force, np.zeros((len(std), 4, 3)))


def evidence(frames: int = 0, thresholds: Mapping[int, float] | None = None) -> Evidence:
    none = np.empty(0)
    return Evidence(none, none, none, none, frames, thresholds or {})


def level(kind: str, values: Array, **settings: Any) -> float:
    return float(rule(kind, **settings).judge([trajectory(values)])[0].threshold)


def test_the_paper_s_rule_is_the_mean_plus_three_sigma_of_the_first_thousand_steps() -> None:
    values = np.random.default_rng(0).uniform(1, 2, 3000)
    values[1000:] = 100.0
    assert level("threshold", values) == pytest.approx(values[:1000].mean() + 3 * values[:1000].std(), rel=1e-14)
    assert level("threshold", np.array([1.0, 3.0, 9.0]), window=2, sigmas=2) == 4.0


def test_median_and_mad_by_hand() -> None:
    # median 3, distances 2 1 0 1 97: their median is 1
    assert level("robust", np.array([1.0, 2, 3, 4, 100]), mads=5) == 8.0


def test_median_and_mad_are_three_sigma_of_a_normal_distribution_and_survive_wild_frames() -> None:
    values = np.random.default_rng(1).normal(5.0, 0.5, 100_000)
    assert level("robust", values, window=100_000) == pytest.approx(6.5, abs=0.02)
    values[:1000] = 1000.0
    assert level("robust", values, window=100_000) == pytest.approx(6.5, abs=0.05)
    assert level("threshold", values, window=100_000) > 100


@pytest.mark.parametrize("kind", ["threshold", "robust"])
def test_the_window_counts_steps_not_rows(kind: str) -> None:
    values = np.r_[np.full(100, 1.0), np.full(100, 9.0)]
    run = trajectory(values, interval=10)
    assert rule(kind, window=1000).judge([run])[0].threshold == 1.0
    assert rule(kind, window=1001).judge([run])[0].threshold == (
        1.0 if kind == "robust" else pytest.approx(3.4554, abs=1e-4)
    )


def test_walkers_share_the_threshold_unless_each_has_its_own() -> None:
    one, two = trajectory(np.full(10, 1.0)), trajectory(np.r_[np.full(5, 3.0), np.full(5, np.nan)], walker=1)
    both = np.r_[np.full(10, 1.0), np.full(5, 3.0)]
    shared = rule("threshold", sigmas=2).judge([one, two])
    assert [item.threshold for item in shared] == pytest.approx([both.mean() + 2 * both.std()] * 2)
    assert [item.threshold for item in rule("threshold", shared=False).judge([one, two])] == [1.0, 3.0]


@pytest.mark.parametrize("kind", ["threshold", "robust", "moving_average"])
def test_a_walker_without_a_score_has_the_common_threshold_if_each_has_its_own(kind: str) -> None:
    dead = trajectory(np.full(3, np.nan), walker=1)
    found = rule(kind, shared=False).judge([trajectory(np.full(5, 2.0)), dead, trajectory([])])
    assert [item.threshold for item in found] == [2.0] * 3
    assert [len(item.trajectory) for item in found] == [5, 0, 0]


@pytest.mark.parametrize("kind", ["threshold", "robust", "moving_average", "conformal"])
def test_nothing_finite_is_an_error(kind: str) -> None:
    with pytest.raises(SamplingError, match="the committee failed at the start structure"):
        rule(kind).judge([trajectory(np.full(3, np.inf))])
    assert rule(kind).judge([]) == []


def test_the_error_names_the_score() -> None:
    with pytest.raises(SamplingError, match="no finite force std within the first 7 steps"):
        rule("threshold", score="force", window=7).judge([trajectory([1.0], force_std=[np.nan])])


@pytest.mark.parametrize("kind", list(KINDS))
def test_scores(kind: str) -> None:
    run = trajectory([2.0, 4.0], force_std=[0.3, 0.1])
    assert rule(kind).judge([run])[0].score.tolist() == [2.0, 4.0]
    # four atoms
    assert rule(kind, score="energy_per_atom").judge([run])[0].score.tolist() == [1.0, 2.0]
    assert rule(kind, score="force").judge([run])[0].score.tolist() == [0.3, 0.1]


@pytest.mark.parametrize(("score", "error"), [("energy", [8.0]), ("energy_per_atom", [4.0]), ("force", [0.5])])
def test_the_error_is_in_the_unit_of_the_score(score: str, error: list[float]) -> None:
    labelled = Evidence(*(np.array([value, np.nan]) for value in (1.0, 1.0, 8.0, 0.5)))
    assert rule("threshold", score=score).known(labelled)[1].tolist() == error


def test_the_std_per_root_of_n_does_not_grow_with_the_system_if_atoms_err_independently() -> None:
    rng = np.random.default_rng(2)
    found = []
    for atoms in (10, 1000):
        members = rng.normal(size=(400, 8, atoms)).sum(axis=2)
        zeros = np.zeros(400)
        run = Trajectory(
            0, 1, np.arange(400), zeros, zeros, zeros, members.std(axis=1), zeros, np.zeros((400, atoms, 3))
        )
        start = Frame(np.ones(atoms, dtype=np.int64), np.zeros((atoms, 3)))
        found.append(threshold.build(threshold.Config(score="energy_per_atom"), start).score(run).mean())
    assert found[0] == pytest.approx(found[1], rel=0.1)


def test_the_fixed_threshold_takes_units_of_the_score() -> None:
    assert rule("fixed", threshold="1 kcal/mol").judge([trajectory([1.0])])[0].threshold == pytest.approx(0.0433641)
    assert fixed.Config(score="force", threshold="0.2 eV/angstrom").threshold == 0.2
    with pytest.raises(ValidationError, match="converts to eV/angstrom"):
        fixed.Config(score="force", threshold="1 kcal/mol")
    with pytest.raises(ValidationError, match="nothing lies between this threshold and the upper limit"):
        fixed.Config(limit=1.0, threshold=1.0)


def test_the_fixed_threshold_needs_no_score() -> None:
    assert rule("fixed").judge([trajectory([np.nan])])[0].threshold == 1.0


def test_the_band_has_three_levels() -> None:
    found = rule("fixed", threshold=1.0, limit=5.0).judge([trajectory([0.5, 1.0, 1.1, 5.0, 5.1, np.nan, 2.0])])[0]
    assert found.worthwhile.tolist() == [False, False, True, True, False, False, True]
    assert found.limit == 5.0
    assert not found.trajectory.note


def test_without_a_limit_nothing_finite_is_beyond_use() -> None:
    found = rule("fixed").judge([trajectory([0.5, np.inf, np.nan, 1e9])])[0]
    assert found.limit == np.inf
    assert found.worthwhile.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "limit"), [({"beyond": 3}, 6.0), ({"beyond": 3, "limit": 5}, 5.0), ({"beyond": 2, "limit": 5}, 4.0)]
)
def test_the_lower_of_the_two_limits_holds(settings: dict[str, float], limit: float) -> None:
    assert rule("fixed", threshold=2.0, **settings).judge([trajectory([1.0])])[0].limit == limit


def test_a_trajectory_is_cut_where_it_leaves_the_band_for_good() -> None:
    run = replace(trajectory([1.0, 9.0, 2.0, 5.0, 5.1, np.nan, 7.0], interval=10), note="hung")
    found = rule("fixed", limit=5.0).judge([run])[0]
    assert found.score.tolist() == [1.0, 9.0, 2.0, 5.0]
    assert len(found.trajectory) == 4
    assert found.trajectory.note == "hung; cut at step 40: the uncertainty stays beyond use (above 5 eV)"
    assert found.worthwhile.tolist() == [False, False, True, True]


def test_a_trajectory_that_is_beyond_use_from_the_start_is_cut_to_nothing() -> None:
    found = rule("fixed", limit=5.0).judge([trajectory([9.0, 8.0])])[0]
    assert (len(found.trajectory), len(found.score), len(found.worthwhile)) == (0, 0, 0)
    assert "cut at step 0" in found.trajectory.note


def test_scores_that_are_not_finite_to_the_end_are_cut_without_a_limit_as_well() -> None:
    found = rule("fixed").judge([trajectory([1.0, 2.0, np.nan, np.inf])])[0]
    assert found.score.tolist() == [1.0, 2.0]
    assert found.trajectory.note.endswith("(not finite)")


def test_what_is_beyond_an_absolute_limit_does_not_set_the_threshold() -> None:
    values = np.r_[np.full(10, 2.0), 1e6, np.full(10, 2.0)]
    assert level("threshold", values, limit=10) == 2.0
    assert level("moving_average", values, limit=10) == 2.0


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("wrong", [{"beyond": 1.0}, {"limit": 0}, {"score": "entropy"}, {"limit": "1 ps"}])
def test_settings_that_mean_nothing_are_refused(kind: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule(kind, **wrong)


def test_the_moving_average_compares_with_the_past_alone() -> None:
    found = rule("moving_average", window=2).judge([trajectory([5.0, 2.0, 6.0, 3.0])])[0]
    assert found.moving.tolist() == [np.inf, 5.0, 3.5, 4.0]
    assert found.worthwhile.tolist() == [False, False, True, False]
    assert found.threshold == 4.5


def test_the_moving_average_is_scaled_by_one_plus_c_x() -> None:
    found = rule("moving_average", c_x=0.1).judge([trajectory([2.0, 2.2])])[0]
    assert found.moving[1] == pytest.approx(2.2)
    assert found.threshold == pytest.approx(1.1 * 2.1)
    with pytest.raises(ValidationError):
        rule("moving_average", c_x=-1.0)


def test_walkers_that_share_a_moving_average_see_each_other_s_past_and_not_their_present() -> None:
    pair = [trajectory([2.0, 4.0]), trajectory([6.0, 100.0], walker=1)]
    assert [item.moving.tolist() for item in rule("moving_average").judge(pair)] == [[np.inf, 4.0]] * 2
    apart = rule("moving_average", shared=False).judge(pair)
    assert [item.moving.tolist() for item in apart] == [[np.inf, 2.0], [np.inf, 6.0]]


def test_about_half_of_a_stationary_series_is_above_its_moving_average() -> None:
    values = np.random.default_rng(3).normal(1.0, 0.1, 20_000)
    found = rule("moving_average").judge([trajectory(values)])[0]
    assert found.worthwhile.mean() == pytest.approx(0.5, abs=0.02)


def test_the_moving_average_of_a_cut_trajectory_is_cut_with_it() -> None:
    found = rule("moving_average", limit=5.0).judge([trajectory([1.0, 2.0, 9.0])])[0]
    assert found.moving.tolist() == [np.inf, 1.0]
    assert found.worthwhile.tolist() == [False, True]


def test_the_moving_average_can_be_frozen() -> None:
    runs = [trajectory([1.0, 2.0]), trajectory([1.0, 9.0], walker=3)]
    freezing = rule("moving_average", freeze_at=100)
    last = {0: 0.5, 1: 0.7, 2: 0.9}
    assert [item.threshold for item in freezing.judge(runs, evidence(99, last))] == [3.25, 3.25]
    found = freezing.judge(runs, evidence(100, last))
    # a walker that was not there has the middle of the others
    assert [item.threshold for item in found] == [0.5, 0.7]
    assert found[0].worthwhile.tolist() == [True, True]
    assert "frozen" in found[0].note
    assert freezing.judge(runs, evidence(100))[0].threshold == 3.25
    assert rule("moving_average").judge(runs, evidence(100, last))[0].threshold == 3.25


def test_the_running_threshold_of_a_moving_average_follows_the_last_scores() -> None:
    following = rule("moving_average", window=2, c_x=0.5, freeze_at=10)
    assert following.running(np.empty(0)) == np.inf
    assert following.running(np.array([1.0])) == 1.5
    assert following.running(np.array([100.0, 1.0, np.nan, 3.0])) == 3.0
    assert following.running(np.array([1.0]), evidence(10, {0: 7.0})) == 7.0


@pytest.mark.parametrize("kind", ["threshold", "robust", "conformal"])
def test_the_running_threshold_of_a_window_is_there_once_it_is_full(kind: str) -> None:
    waiting = rule(kind, window=3)
    assert waiting.running(np.ones(2)) == np.inf
    assert waiting.running(np.array([1.0, 1.0, 1.0, 50.0])) == 1.0


def test_the_running_fixed_threshold_is_fixed() -> None:
    assert rule("fixed").running(np.empty(0)) == 1.0


def write(folder: Path, uncertainty: str) -> Path:
    (folder / "pair.xyz").write_text("2\n\nC 0 0 0\nC 0 0 1.5\n")
    path = folder / "pair.yaml"
    path.write_text(f"structure: pair.xyz\ncv: {{atoms: [1, 2]}}\nuncertainty: {uncertainty}\n")
    return path


def test_every_kind_is_read_from_a_yaml_and_the_paper_s_is_the_default(tmp_path: Path) -> None:
    assert list(KINDS_OF_CONFIG["uncertainty"].modules) == [
        "threshold",
        "moving_average",
        "fixed",
        "robust",
        "conformal",
    ]
    assert load(write(tmp_path, "{}")).uncertainty == threshold.Config(window=1000, sigmas=3.0, score="energy")
    for kind, text in (
        ("threshold", "{score: force, limit: 2 eV/angstrom}"),
        ("robust", "{mads: 5, beyond: 30}"),
        ("moving_average", "{c_x: -0.1, freeze_at: 500}"),
        ("fixed", "{threshold: 1 kcal/mol, shared: false}"),
        ("conformal", "{tolerance: 1 kcal/mol, miss_rate: 0.05}"),
    ):
        config = load(write(tmp_path, text.replace("{", f"{{kind: {kind}, ")))
        assert isinstance(config.uncertainty, KINDS[kind].Config)
        # what is written to the run folder reads back the same
        assert load(write(tmp_path, json.dumps(config.resolved()["uncertainty"]))).uncertainty == config.uncertainty


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fixed", ["uncertainty.threshold: this key is missing", "worth a label, eV"]),
        ("{kind: conformal, tolerance: 5 ps}", ["uncertainty.tolerance: '5 ps'", "converts to eV"]),
        ("{kind: robust, sigmas: 3}", ["uncertainty.sigmas: 3: unknown key", "mads"]),
        ("{kind: threshold, score: forces}", ["uncertainty.score: 'forces'", "'force'"]),
        ("{kind: moving}", ["uncertainty.kind: 'moving'", "did you mean 'moving_average'?"]),
        ("{kind: fixed, limit: 1, threshold: 2}", ["uncertainty.threshold: 2", "raise `limit`"]),
        ("{beyond: 0.5}", ["uncertainty.beyond: 0.5", "above 1"]),
    ],
)
def test_wrong_settings_are_one_clear_message(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for word in (*words, "pair.yaml:3"):
        assert word in message
