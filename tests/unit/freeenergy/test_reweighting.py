"""Weights for frames under a bias that changes: exact samples of known distributions, no dynamics."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rareal.freeenergy.analysis import FreeEnergy, Settings, analyse, load, save
from rareal.freeenergy.bias import Bias, Hills, no_bias, no_hills
from rareal.freeenergy.grid import axis
from rareal.freeenergy.reweighting import History, Reweighting
from rareal.records import Array
from rareal.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
AXES = (axis(-2.0, 2.0, 0.05),)
X = AXES[0].centres
EXACT = 4 * KT * (X**2 - 1) ** 2 + 0.5 * KT * X
HILLS = Hills(
    np.arange(100, 4100, 100),
    np.tile([-1.0, 1.0], 20)[:, None],
    np.full((40, 1), 0.3),
    np.full(40, 0.2 * KT),
)


def sampled(seed: int, start: Bias, hills: Hills, frames: int) -> History:
    """Independent frames, ``frames`` in each stretch of 100 steps between hills, from what the bias leaves."""
    rng = np.random.default_rng(seed)
    values, steps = [], []
    for stretch in range(len(HILLS) + 1):
        bias = start.plus(hills.until(100 * stretch)).energy
        weights = np.exp(-(EXACT + bias) / KT)
        bins = rng.choice(len(X), size=frames, p=weights / weights.sum())
        values.append(X[bins] + AXES[0].width * (rng.random(frames) - 0.5))
        steps.append(100 * stretch + np.sort(rng.integers(0, 100, frames)))
    return History(np.concatenate(steps), np.concatenate(values)[:, None], start, hills)


def settings(**changes: object) -> Settings:
    given = {
        "temperature": TEMPERATURE, "factor": 10.0, "widths": (0.05,), "limits": (None,), "discard": 0.1,
        "depth": 0.5 * KT, "start": (-1.0,), **changes,
    }  # fmt: skip
    return Settings(**given)  # type: ignore[arg-type]


def apart(energy: Array, below: float = 5 * KT) -> Array:
    """Difference from the exact free energy where that is low, kT."""
    exact = EXACT - EXACT.min()
    there = exact < below
    difference = energy[there] - exact[there]
    return (difference - np.average(difference, weights=np.exp(-exact[there] / KT))) / KT


def test_frames_under_a_growing_bias_give_the_unbiased_free_energy() -> None:
    history = sampled(1, no_bias(AXES), HILLS, 400)
    found = Reweighting([history], TEMPERATURE, (0.02,), (None,)).free_energy()
    assert np.abs(apart(found)).max() < 0.3
    # without the weights it would be off by more than the hills are high
    plain = Reweighting(
        [History(history.steps, history.values, no_bias(AXES), no_hills(1))], TEMPERATURE, (0.02,), (None,)
    )
    assert np.abs(apart(plain.free_energy())).max() > 1.5


def test_walkers_under_different_biases_are_joined() -> None:
    """One walker knows the left well alone, the other the right one; where both are, they settle the difference."""
    pile = no_bias(AXES).plus(Hills(np.zeros(1, int), np.array([[1.0]]), np.array([[0.4]]), np.array([6 * KT])))
    other = no_bias(AXES).plus(Hills(np.zeros(1, int), np.array([[-1.0]]), np.array([[0.4]]), np.array([6 * KT])))
    walkers = [sampled(2, pile, HILLS, 300), sampled(3, other, HILLS, 300)]
    found = Reweighting(walkers, TEMPERATURE, (0.02,), (None,)).free_energy()
    assert np.abs(apart(found)).max() < 0.3
    assert (
        np.abs(apart(Reweighting(walkers[::-1], TEMPERATURE, (0.02,), (None,)).free_energy()) - apart(found)).max()
        < 1e-3
    )


def test_hills_taken_in_groups_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    histories = [sampled(4, no_bias(AXES), HILLS, 300)]
    whole = Reweighting(histories, TEMPERATURE, (0.05,), (None,))
    monkeypatch.setattr("rareal.freeenergy.reweighting.LARGEST_TABLE", 1000)
    grouped = Reweighting(histories, TEMPERATURE, (0.05,), (None,))
    assert len(whole.levels) == 41
    assert len(grouped.levels) < 20
    assert np.abs(apart(grouped.free_energy()) - apart(whole.free_energy())).max() < 0.2


def test_frames_outside_the_limits_do_not_count() -> None:
    history = sampled(5, no_bias(AXES), HILLS, 100)
    frames = Reweighting([history], TEMPERATURE, (0.05,), ((-1.2, 1.3),))
    inside = (history.values[:, 0] >= -1.2) & (history.values[:, 0] <= 1.3)
    assert frames.frames == inside.sum() < len(inside)


def test_a_bias_of_a_volt_at_low_temperature_is_no_overflow() -> None:
    """-70 kT and less in the exponent of every frame but the last ones."""
    deep = Bias(AXES, 100 * KT * np.exp(-(X**2) / 2)[:], np.zeros((len(X), 1)))
    surface = -deep.energy
    rng = np.random.default_rng(6)
    history = History(np.arange(20000), rng.uniform(-1.5, 1.5, (20000, 1)), deep, no_hills(1))
    found = Reweighting([history], TEMPERATURE, (0.05,), (None,)).free_energy()
    there = np.abs(X) < 1.4
    assert np.ptp((found - surface)[there]) < 0.4 * KT


def test_error_is_the_spread_of_repetitions() -> None:
    """Block errors of independent repetitions against the scatter of their barriers."""
    results = [analyse([sampled(100 + k, no_bias(AXES), HILLS, 40)], settings()) for k in range(12)]
    barriers = np.array([each.barrier for each in results])
    errors = np.array([each.barrier_error for each in results])
    assert 0.5 < errors.mean() / barriers.std(ddof=1) < 2.0
    exact = EXACT[np.abs(X) < 0.5].max() - EXACT.min()
    assert barriers.mean() == pytest.approx(exact, abs=4 * barriers.std() / np.sqrt(12) + 0.1 * KT)
    assert all(np.array_equal(each.block_errors.max(), each.barrier_error) for each in results)


def test_more_frames_are_less_error() -> None:
    few, many = (analyse([sampled(7, no_bias(AXES), HILLS, count)], settings()) for count in (20, 320))
    assert 2.5 < few.barrier_error / many.barrier_error < 6.5


def test_ends_name_the_basins() -> None:
    histories = [sampled(8, no_bias(AXES), HILLS, 100)]
    there = analyse(histories, settings())
    back = analyse(histories, settings(ends=((0.9,), (-1.1,))))
    assert (back.barrier, back.reverse) == (there.reverse, there.barrier)
    assert there.barrier - there.reverse == pytest.approx(KT, abs=0.4 * KT)
    both = analyse(histories, settings(ends=((0.9,), (1.1,))))
    assert np.isnan(both.barrier)
    assert both.note == "both ends of the event lie in one basin of what has been seen so far"


@pytest.mark.parametrize(
    ("limits", "note"),
    [((-1.9, -0.5), "no second basin has been seen yet"), ((1.95, 1.99), "no frame lies within the limits")],
)
def test_without_two_basins_there_is_no_barrier(limits: tuple[float, float], note: str) -> None:
    result = analyse([sampled(9, no_bias(AXES), HILLS, 50)], settings(limits=(limits,)))
    assert result.note.startswith(note)
    assert np.isnan([result.barrier, result.barrier_error, result.reverse, *result.saddle]).all()


def test_a_single_crossing_has_no_error() -> None:
    """All frames of the right well come from one block: without it there is no barrier."""
    whole = sampled(10, no_bias(AXES), HILLS, 400)
    keep = (whole.steps > 4000) | (whole.values[:, 0] < -0.2)
    result = analyse([History(whole.steps[keep], whole.values[keep], whole.start, whole.hills)], settings())
    assert np.isfinite(result.barrier)
    assert np.isnan(result.barrier_error)
    assert "single stretch" in result.note


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    result = analyse([sampled(11, no_bias(AXES), HILLS, 50)], settings())
    again = load(save(tmp_path / "surface.npz", result))
    for item in fields(FreeEnergy):
        assert np.array_equal(getattr(result, item.name), getattr(again, item.name), equal_nan=item.name != "note")


def test_a_second_bias_is_taken_off() -> None:
    """A property of frames, which costs nothing on the left and 2 kT on the right, is favoured by 1.5 kT."""
    rng = np.random.default_rng(12)
    history = sampled(12, no_bias(AXES), HILLS, 800)
    right = history.values[:, 0] > 0
    # with the bias on, frames that have the property were kept, of the others exp(-1.5)
    has = rng.random(len(right)) < np.where(right, np.exp(-2) / (1 + np.exp(-2)), 0.5)
    kept = has | (rng.random(len(right)) < np.exp(-1.5))
    other = np.where(has, -1.5 * KT, 0.0)[kept]
    biased = History(history.steps[kept], history.values[kept], history.start, history.hills)
    off = History(history.steps[kept], history.values[kept], history.start, history.hills, other)
    surfaces = [Reweighting([each], TEMPERATURE, (0.05,), (None,)).free_energy() for each in (history, biased, off)]
    truth, wrong, found = (apart(each) for each in surfaces)
    assert np.abs(wrong - truth).max() > 0.3
    assert np.abs(found - truth).mean() < 0.06
