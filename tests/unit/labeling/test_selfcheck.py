"""The finite-difference check finds what it is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rareal.labeling.box import molecule_in_box
from rareal.labeling.selfcheck import self_check
from rareal.records import Calculation, Frame
from rareal.testing.engines import Bond, MorseChain

FRAME = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0.3, 0.4, 1.6]]))
ENGINE = MorseChain((Bond(0, 1, 4.0, 2.0, 1.5),))


class Wrong:
    """An engine with a fault."""

    hash = "wrong"

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.calls = 0

    def calculate(self, frame: Frame) -> Calculation:
        self.calls += 1
        energy, forces = ENGINE.calculate(frame)[:2]
        if self.fault == "unit":
            forces = forces / 0.529177
        if self.fault == "sign":
            forces = -forces
        if self.fault == "drift":
            energy += 1e-2 * self.calls
        stress: Any = None
        if self.fault == "stress":
            stress = np.full(6, 0.1)
        return Calculation(energy, forces, stress)


def test_right_forces_pass() -> None:
    found = self_check(ENGINE, FRAME, directions=4)
    assert found.passed()
    assert len(found.deviations) == 4
    assert found.max_deviation < 1e-3
    assert found.engine == "morse"
    assert found.repeat == 0.0
    assert found.stress_deviation is None
    assert found.largest_force > 0.1


@pytest.mark.parametrize("fault", ["unit", "sign", "drift"])
def test_wrong_engines_fail(fault: str) -> None:
    assert not self_check(Wrong(fault), FRAME).passed()


def test_wrong_stress_is_found() -> None:
    crystal = Frame(FRAME.numbers, FRAME.positions, np.diag([4.0, 5.0, 6.0]), (True,) * 3)
    found = self_check(Wrong("stress"), crystal)
    assert found.stress_deviation is not None
    assert abs(found.stress_deviation) > 0.05


def test_no_step_no_check() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        self_check(ENGINE, FRAME, step=0.0)


def test_box_grows_in_whole_steps_around_a_centre_on_the_grid() -> None:
    for shift in (0.0, 0.123, 5.0):
        frame = Frame(FRAME.numbers, FRAME.positions + shift)
        lengths, positions = molecule_in_box(frame, None, vacuum=4.0, spacing=0.2)
        assert lengths == pytest.approx([9.6, 9.6, 9.6])
        assert positions.mean(axis=0) == pytest.approx([4.8, 4.8, 4.8])
        assert positions[1] - positions[0] == pytest.approx(FRAME.positions[1] - FRAME.positions[0])
