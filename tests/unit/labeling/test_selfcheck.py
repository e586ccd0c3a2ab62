"""Forces against finite differences: right ones pass, wrong ones are found and measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from rareal.labeling.selfcheck import self_check, shaken
from rareal.records import Calculation, Frame
from rareal.testing.engines import Bond, MorseChain

CHAIN = MorseChain((Bond(0, 1, 3.8, 1.9, 1.54), Bond(1, 2, 3.8, 1.9, 1.54)))
FRAME = Frame(np.array([6, 6, 6]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.54], [0.0, 1.54, 1.54]]))


@dataclass
class Wrong:
    """Forces times a factor, energies with noise."""

    factor: float = 1.0
    noise: float = 0.0
    hash: str = "wrong"
    calls: int = 0

    def calculate(self, frame: Frame) -> Calculation:
        """Morse bonds, spoilt."""
        self.calls += 1
        energy, forces = CHAIN.calculate(frame)[:2]
        return Calculation(energy + self.noise * (-1) ** self.calls, self.factor * forces)


def test_right_forces_pass() -> None:
    engine = Wrong()
    found = self_check(engine, shaken(FRAME), step=0.01, directions=4)
    # of the order of h**4 times the fifth derivative, some 30 times the depth times the steepness to the fifth
    assert found.error < 1e-4
    assert np.abs(found.analytic).max() > 0.5
    assert len(found.numeric) == 4
    assert found.calls == engine.calls == 17
    assert found.net_force < 1e-12


def test_the_error_falls_with_the_fourth_power_of_the_step() -> None:
    errors = [self_check(CHAIN, shaken(FRAME), step).error for step in (0.02, 0.04)]
    assert errors[1] / errors[0] == pytest.approx(16, rel=0.3)


@pytest.mark.parametrize(("factor", "share"), [(1.05, 0.05), (-1.0, 2.0), (0.0, 1.0), (27.2 / 51.4, 0.471)])
def test_wrong_forces_are_measured(factor: float, share: float) -> None:
    frame = shaken(FRAME)
    steepest = float(np.linalg.norm(CHAIN.calculate(frame)[1]))
    found = self_check(Wrong(factor), frame)
    if factor != 0.0:  # the first direction is that of the forces
        assert found.error == pytest.approx(share * steepest, rel=0.01)
    else:
        assert found.error > 0.1


def test_a_noisy_energy_is_found() -> None:
    assert self_check(Wrong(noise=1e-3), shaken(FRAME)).error > 0.05


def test_shaking_leaves_the_minimum() -> None:
    assert np.abs(CHAIN.calculate(FRAME)[1]).max() < 1e-12
    assert np.abs(CHAIN.calculate(shaken(FRAME))[1]).max() > 0.3
    np.testing.assert_array_equal(shaken(FRAME).positions, shaken(FRAME).positions)
