"""The initial dynamics on a potential whose statistics are known."""

from __future__ import annotations

import numpy as np
import pytest

from rareal.errors import LabelError
from rareal.records import Array, Frame
from rareal.sampling.initial import Config, MolecularDynamics, build
from rareal.units import KB


class Wells:
    """Every atom in a harmonic well of its own; fails after so many calls."""

    hash = "wells"

    def __init__(self, calls: int = 10**9) -> None:
        self.calls = calls

    def calculate(self, frame: Frame) -> tuple[float, Array]:
        self.calls -= 1
        if self.calls < 0:
            raise LabelError("enough")
        return float(np.sum(frame.positions**2)), -2.0 * frame.positions


START = Frame(np.array([6] * 20), np.random.default_rng(0).normal(0, 0.05, (20, 3)))


def dynamics(**settings: float) -> MolecularDynamics:
    return build(Config.model_validate({"frames": 6, "equilibration": 20, "interval": 5, **settings}))


def test_frames_labels_and_cost() -> None:
    seen: list[tuple[int, int]] = []
    data = dynamics().run(Wells(), START, 1, lambda done, total: seen.append((done, total)))
    assert [item.frame.step for item in data.frames] == [20, 25, 30, 35, 40, 45]
    assert data.engine_calls == 46
    assert seen[-1] == (6, 6)
    for item in data.frames:
        assert item.label.energy == pytest.approx(np.sum(item.frame.positions**2))
        assert item.label.forces == pytest.approx(-2.0 * item.frame.positions)
        assert (item.label.engine, item.frame.origin) == ("wells", "initial")


def test_same_seed_same_frames() -> None:
    runs = [dynamics().run(Wells(), START, seed).frames[-1].frame.positions for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


def test_temperature_is_that_of_the_thermostat() -> None:
    """Equipartition: half kT in each of 60 wells."""
    data = dynamics(frames=100, interval=20, equilibration=600, damping=20.0).run(Wells(), START, 3)
    mean = np.mean([item.label.energy for item in data.frames])
    assert mean == pytest.approx(30 * KB * 500.0, rel=0.1)


def test_an_engine_that_fails_ends_the_dynamics() -> None:
    with pytest.raises(LabelError, match="enough"):
        dynamics().run(Wells(30), START, 1)
