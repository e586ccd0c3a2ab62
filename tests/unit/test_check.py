"""The check stage: what is labelled, what is compared, when a round is good enough."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rareal.barrier import Config
from rareal.check import RUPTURE, Check, Findings, change, figures, meets, telling_positions
from rareal.protocols import Members
from rareal.records import Array, Frame, Label, LabeledFrame, Profile, Trajectory
from rareal.reference import Reference
from rareal.rupture import Rupture, load, rupture
from rareal.sampling.steered import Config as Steered
from rareal.sampling.steered import SteeredMD
from rareal.testing.engines import Bond, MorseChain
from rareal.units import KCAL_MOL

NUMBERS = np.array([6, 6, 6])
START = Frame(NUMBERS, np.array([[0.0, 0.0, 0.0], [1.5, 0.05, 0.0], [3.0, 0.0, 0.0]]))
ENDS = (0, 2)
PROFILE = Profile("work", np.empty(0), np.empty(0), np.empty(0), 1.0, 0.1)
CHAIN = MorseChain((Bond(0, 1, 4.0, 1.9, 1.5), Bond(1, 2, 3.5, 1.9, 1.5)))


def pull(seed: int = 1, rows: int = 1200) -> Trajectory:
    """The second bond stretches, breaks at row 800 and is gone."""
    t = np.arange(rows)
    second = 1.5 + 3e-4 * t + 2.5 / (1 + np.exp(-(t - 800) / 12))
    positions = np.zeros((rows, 3, 3))
    positions[:, 1, 0], positions[:, 2, 0] = 1.5, 1.5 + second
    zeros = np.zeros(rows)
    return Trajectory(0, seed, t, 1.5 + second, t / rows * 6, zeros, zeros, zeros, positions)


def check(error: float = 0.0, ends: tuple[int, int] | None = ENDS, thermal: bool = False, **settings: object) -> Check:
    """A check whose committee is the engine plus ``error`` eV per Å of the second bond."""

    def committee(_: Path) -> Members:
        def energies_forces(frame: Frame) -> tuple[Array, Array]:
            energy, forces = CHAIN.calculate(frame)
            stretch = float(np.linalg.norm(frame.positions[2] - frame.positions[1]))
            spread = np.array([-0.02, 0.02]) * stretch
            return energy + error * stretch + spread, np.stack([forces, forces])

        return energies_forces

    return Check(Config.model_validate(settings), START, ends, committee, thermal)


def labelled(trajectory: Trajectory, rows: list[int]) -> list[LabeledFrame]:
    frames = [
        replace(START, positions=trajectory.positions[r], step=int(trajectory.steps[r]), cv=float(trajectory.cv[r]))
        for r in rows
    ]
    return [LabeledFrame(f, Label(*CHAIN.calculate(f), "morse")) for f in frames]


def test_rows_keep_to_the_budget_and_the_share_of_the_break() -> None:
    stage = check(path_frames=44, break_frames=16)
    full = stage.path_rows(pull(), 1000)
    half = stage.path_rows(pull(), 22)
    assert len(full) == 44
    assert len(half) == 22
    assert stage.path_rows(pull(), 1) == [0]


def test_scouts_are_some_of_the_rows_with_both_ends() -> None:
    stage = check(scout_frames=10)
    rows = stage.path_rows(pull(), 44)
    scouts = stage.scouts(rows)
    assert len(scouts) == 10
    assert set(scouts) <= set(rows)
    assert (scouts[0], scouts[-1]) == (rows[0], rows[-1])
    assert stage.scouts([3]) == [3]


@pytest.mark.parametrize(("error", "believed"), [(0.0, True), (5 * KCAL_MOL / 3, True), (5.0, False)])
def test_a_path_is_believed_where_committee_and_engine_agree(error: float, believed: bool) -> None:
    stage = check(error)
    rows = stage.scouts(stage.path_rows(pull(), 44))
    assert stage.believed(Path(), labelled(pull(), rows)) is believed


def test_one_label_is_no_comparison() -> None:
    assert not check().believed(Path(), labelled(pull(), [0]))


def test_comparison_is_relative_to_the_start_and_knows_the_break(tmp_path: Path) -> None:
    stage = check(0.1, rupture={"max_calls": 1})
    rows = stage.path_rows(pull(), 44)
    stage.pull_apart(tmp_path, Path())
    # frames come back from the labels in any order
    stage.compare(tmp_path, Path(), labelled(pull(), rows)[::-1], pull())
    found = stage.load(tmp_path)
    assert list(found.steps) == rows
    assert found.engine[0] == found.committee[0] == 0.0
    stretch = np.linalg.norm(pull().positions[rows, 2] - pull().positions[rows, 1], axis=1)
    np.testing.assert_allclose(found.committee - found.engine, 0.1 * (stretch - stretch[0]), atol=1e-9)
    assert found.path_error == pytest.approx(0.1 * (stretch.max() - stretch[0]))
    assert found.in_break.sum() >= 44 * 16 // 48
    assert not found.in_break[0]


def test_a_rough_surface_ends_the_rupture_with_a_note(tmp_path: Path) -> None:
    frames = check(rupture={"max_calls": 5}).pull_apart(tmp_path, Path())
    assert frames == []
    assert "after 5 evaluations" in load(tmp_path / RUPTURE).note


@pytest.fixture(scope="module")
def broken() -> Rupture:
    return rupture(CHAIN.calculate, START, ENDS, Config().rupture)


def test_telling_structures_lie_at_the_rupture(broken: Rupture) -> None:
    assert broken.broke
    positions = telling_positions(broken, 8)
    assert 2 <= len(positions) <= 8
    weak = np.linalg.norm(positions[:, 2] - positions[:, 1], axis=1)
    assert weak.min() > 1.3 * 1.5
    assert len(telling_positions(broken, 0)) == 0
    assert len(telling_positions(replace(broken, note="no bond broke"), 8)) == 0


def test_figures_against_a_reference(tmp_path: Path, broken: Rupture) -> None:
    stage = check(rupture={"max_calls": 4000})
    stage.pull_apart(tmp_path, Path())
    stage.compare(tmp_path, Path(), labelled(pull(), stage.path_rows(pull(), 44)), pull())
    sampler = SteeredMD(Steered(), (), START)
    ours = sampler.barrier([], [pull(1), pull(2)])
    theirs = [replace(p, work=p.work + shift) for p, shift in ((pull(1), 0.1), (pull(2), 0.1), (pull(3), 9.0))]
    known = Reference("morse", (tmp_path,) * 3, tuple(theirs), (None,) * 3, sampler.barrier([], theirs), broken)
    # only the seeds of both sides are compared
    row = figures(stage.load(tmp_path), ours, known.barrier(sampler, [1, 2]), known.rupture)
    assert row["barrier_eV"] == pytest.approx(pull().work.max())
    assert row["error_kcal_mol"] == pytest.approx(-0.1 / KCAL_MOL)
    assert row["path_error_kcal_mol"] == pytest.approx(0.0, abs=1e-9)
    assert row["rupture_energy_error_kcal_mol"] == pytest.approx(0.0, abs=1e-6)
    assert row["same_bond"] is True
    # the members differ by their slope along the second bond, and the energy is highest where it is longest
    assert row["path_height_std_eV"] == pytest.approx(0.02 * np.ptp(stretches()), rel=0.05)
    alone = figures(stage.load(tmp_path), ours)
    assert math.isnan(alone["reference_eV"])
    assert alone["barrier_se_eV"] == pytest.approx(0.0)


def stretches() -> Array:
    """Lengths of the second bond up to where the energy is highest: all of the pull."""
    lengths: Array = np.linalg.norm(pull().positions[:, 2] - pull().positions[:, 1], axis=1)
    return lengths


def test_nothing_is_pulled_apart_where_no_two_atoms_are(tmp_path: Path) -> None:
    stage = check(ends=None, thermal=True)
    assert stage.pull_apart(tmp_path, Path()) == []
    stage.compare(tmp_path, Path(), labelled(pull(), stage.path_rows(pull(), 44)), pull())
    assert stage.load(tmp_path).rupture is None
    row = figures(stage.load(tmp_path), SteeredMD(Steered(), (), START).barrier([], [pull()]))
    assert "rupture_energy_eV" not in row
    assert change(row, {"barrier_eV": row["barrier_eV"] - 0.2}) == pytest.approx(0.2)


def test_the_minimum_energy_path_is_one_of_the_figures_where_it_is_asked_for(tmp_path: Path) -> None:
    stage = check(ends=None, minimum_energy_path={"images": 3, "max_steps": 2})
    rows = stage.path_rows(pull(), 44)
    stage.compare(tmp_path, Path(), labelled(pull(), rows), pull())
    row = figures(stage.load(tmp_path), PROFILE)
    # two steps relax nothing, and it says so
    assert math.isnan(row["mep_barrier_eV"])
    assert row["mep_note"]
    assert "mep_barrier_eV" not in figures(replace(stage.load(tmp_path), minimum_energy_path=None), PROFILE)


def test_frames_of_a_thermal_run_are_spread_over_the_collective_variable() -> None:
    # nearly all the time at 1, seldom at 2, never between 1.2 and 1.8
    cv = np.concatenate([np.random.default_rng(0).normal(1.0, 0.05, 2000).clip(0.9, 1.1), np.linspace(1.9, 2.1, 20)])
    rows = check(thermal=True).path_rows(replace(pull(2020), cv=cv, positions=np.zeros((2020, 3, 3))), 24)
    assert len(rows) == len(set(rows)) == 24
    assert sum(cv[row] > 1.8 for row in rows) >= 3


def findings(error: Array, cv: Array, bins: int) -> Findings:
    zeros = np.zeros(len(cv))
    members = np.stack([error - 0.01, error + 0.01])
    return Findings(np.arange(len(cv)), cv, zeros, members, zeros, zeros, zeros, zeros > 1, bins)


def test_thermal_energies_are_compared_by_their_means() -> None:
    rng = np.random.default_rng(1)
    cv = np.repeat([1.0, 1.5, 2.0], 400)
    noise = rng.normal(0.0, 0.05, 1200)
    found = findings(np.where(cv == 1.5, 0.03, 0.0) + noise, cv, 3)
    worst, error = found.largest
    assert error == pytest.approx(0.05 * math.sqrt(2 / 400), rel=0.1)
    assert worst == pytest.approx(0.03, abs=4 * error)
    # one by one, the noise of single frames would be all that is seen
    assert findings(np.where(cv == 1.5, 0.03, 0.0) + noise, cv, 0).path_error > 0.1


def test_a_single_mean_is_no_path_without_error() -> None:
    # three frames in one stretch, two in the other: one mean alone is zero relative to itself
    cv = np.array([1.0, 1.0, 1.0, 2.0, 2.0])
    found = findings(np.array([0.0, 0.0, 0.0, 0.5, 0.5]), cv, 2)
    assert found.path_error == pytest.approx(0.3)


def test_stretches_with_few_frames_have_no_say() -> None:
    cv = np.array([1.0] * 10 + [2.0] * 10 + [3.0, 3.0])
    error = np.array([0.0] * 10 + [0.1] * 10 + [9.0, 9.0])
    assert findings(error, cv, 3).path_error == pytest.approx(0.1)


def row(path: float, rupture_energy: float = 5.0) -> dict[str, float]:
    return {"path_error_kcal_mol": path, "rupture_energy_eV": rupture_energy}


def test_a_round_is_good_where_path_and_barrier_are() -> None:
    limits = SimpleNamespace(path_error=0.5 * KCAL_MOL, barrier=0.5 * KCAL_MOL)
    assert meets(row(0.4), row(3.0, 5.0 + 0.4 * KCAL_MOL), limits)
    assert not meets(row(0.6), row(0.1), limits)
    assert not meets(row(0.1), row(0.1, 5.0 + 0.7 * KCAL_MOL), limits)
    # the first round has nothing to be compared with
    assert not meets(row(0.1), None, limits)
    assert not meets(row(math.nan), row(0.1), limits)
    assert not meets(row(0.1, math.nan), row(0.1), limits)
