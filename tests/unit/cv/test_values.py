"""Values in closed form, and what does not change them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rareal.cv import Distance, Group, Variable
from rareal.cv.angles import Angle, Dihedral
from rareal.cv.combination import Combination, formula
from rareal.cv.coordination import Coordination, switching
from rareal.cv.rmsd import RMSD

RNG = np.random.default_rng(5)
FRAMES = RNG.normal(size=(4, 5, 8, 3))
HEAVY = Group((3, 4, 7), (12.011, 1.008, 15.999))
VARIABLES: dict[str, Variable] = {
    "distance": Distance((0, 5)),
    "centres": Distance((Group((1, 2), (12.011, 1.008)), HEAVY)),
    "angle": Angle((0, HEAVY, 2)),
    "dihedral": Dihedral((0, 1, HEAVY, 6)),
    "combination": Combination(((0, 1), (2, 5)), (1.0, -1.0)),
    "coordination": Coordination((0, 1), (2, 3, 4), 1.2),
    "rmsd": RMSD((0, 2, 4, 6), RNG.normal(size=(4, 3))),
}


def at(*points: tuple[float, float, float]) -> Any:
    return np.array(points, dtype=float)


@pytest.mark.parametrize("name", VARIABLES)
def test_shape_translation_and_rotation(name: str) -> None:
    variable = VARIABLES[name]
    value = variable.value(FRAMES)
    assert value.shape == (4, 5)
    assert variable.value(FRAMES[2, 3]) == pytest.approx(value[2, 3], abs=1e-12)
    assert np.ptp(value) > 0.1
    turned = FRAMES @ Rotation.random(random_state=3).as_matrix().T + [5.0, -70.0, 1.0]
    assert variable.value(turned) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", VARIABLES)
def test_only_the_dihedral_knows_left_from_right(name: str) -> None:
    """And the RMSD, which must not take a mirror image for the molecule."""
    value, mirrored = (VARIABLES[name].value(frames) for frames in (FRAMES, FRAMES * [1, 1, -1]))
    if name == "dihedral":
        assert mirrored == pytest.approx(-value, abs=1e-9)
    elif name == "rmsd":
        assert np.abs(mirrored - value).max() > 0.05
    else:
        assert mirrored == pytest.approx(value, abs=1e-12)


def test_distance() -> None:
    frames = np.zeros((2, 3, 3))
    frames[:, 2] = [[3, 4, 0], [0, 0, 2]]
    distance = Distance((0, 2))
    assert distance.value(frames) == pytest.approx([5.0, 2.0])
    assert (distance.ends, distance.unit, distance.period) == ((0, 2), "Å", None)


def test_centres_of_mass() -> None:
    molecule = at((0, 0, 0), (4, 0, 0), (0, 7, 0))
    distance = Distance((Group((0, 1), (3.0, 1.0)), 2))
    assert distance.value(molecule) == pytest.approx(np.hypot(1, 7))
    assert distance.ends is None


@pytest.mark.parametrize("angle", [0.0, 1e-6, 60.0, 90.0, 137.0, 179.999999, 180.0])
def test_angle(angle: float) -> None:
    turn = np.radians(angle)
    molecule = at((2, 0, 0), (0, 0, 0), (3 * np.cos(turn), 3 * np.sin(turn), 0))
    assert Angle((0, 1, 2)).value(molecule) == pytest.approx(angle, abs=1e-9)


@pytest.mark.parametrize("angle", [-179.9, -120.0, -60.0, 0.0, 1e-6, 90.0, 179.9])
def test_dihedral(angle: float) -> None:
    """Positive is clockwise for who looks along the middle bond."""
    turn = np.radians(angle)
    # looking along +z with x up, clockwise is towards +y
    molecule = at((1, 0, -1), (0, 0, 0), (0, 0, 1.5), (np.cos(turn), np.sin(turn), 3))
    dihedral = Dihedral((0, 1, 2, 3))
    assert dihedral.value(molecule) == pytest.approx(angle, abs=1e-9)
    assert (dihedral.period, dihedral.unit, dihedral.ends) == (360.0, "°", None)


def test_combination() -> None:
    molecule = at((0, 0, 0), (1, 0, 0), (1, 2, 0))
    assert Combination(((0, 1), (1, 2)), (1.0, -1.0)).value(molecule) == pytest.approx(-1.0)
    assert Combination(((0, 1), (1, 2)), (2.0, 0.5)).value(molecule) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("coefficients", "text"),
    [
        ((1.0, -1.0), "d(1,9) - d(5,9)"),
        ((-1.0, 1.0), "-d(1,9) + d(5,9)"),
        ((0.5, -2.25), "0.5 d(1,9) - 2.25 d(5,9)"),
        ((-3.0, -1.0), "-3 d(1,9) - d(5,9)"),
    ],
)
def test_formula(coefficients: tuple[float, float], text: str) -> None:
    assert formula([(1, 9), (5, 9)], coefficients) == text


@pytest.mark.parametrize(("n", "m"), [(6, 12), (2, 4), (10, 12), (12, 100)])
def test_switching(n: int, m: int) -> None:
    x = np.array([1e-3, 0.3, 0.9, 1.1, 1.7, 4.0])
    assert switching(x**2, n, m) == pytest.approx((1 - x**n) / (1 - x**m), rel=1e-9)
    assert switching(np.array([0.0, 1.0]), n, m) == pytest.approx([1.0, n / m])
    with np.errstate(over="raise", invalid="raise"):
        far = switching(np.array([1e12]), n, m)
    assert far == pytest.approx(1e6 ** float(n - m), rel=1e-6)


def test_coordination_counts_neighbours_through_faces_of_the_cell() -> None:
    molecule = at((0.2, 3, 3), (5.9, 3, 3), (0.2, 3.3, 3))
    free = Coordination((0,), (1, 2), 1.5)
    periodic = Coordination((0,), (1, 2), 1.5, cell=((6.0, 0, 0), (0, 6.0, 0), (0, 0, 6.0)), pbc=(True, False, False))
    near = 1 / (1 + (0.3 / 1.5) ** 6)
    assert free.value(molecule) == pytest.approx(near + 1 / (1 + (5.7 / 1.5) ** 6), abs=1e-12)
    assert periodic.value(molecule) == pytest.approx(2 * near, abs=1e-12)
    assert periodic.unit == ""


def test_rmsd_against_scipy() -> None:
    reference = RNG.normal(size=(6, 3))
    frames = RNG.normal(size=(20, 8, 3))
    atoms = (7, 0, 3, 2, 5, 1)
    expected = []
    for frame in frames:
        own = frame[list(atoms)] - frame[list(atoms)].mean(axis=0)
        distance = Rotation.align_vectors(own, reference - reference.mean(axis=0))[1]
        expected.append(distance / np.sqrt(6))
    assert RMSD(atoms, reference).value(frames) == pytest.approx(np.array(expected), abs=1e-9)


def test_rmsd_of_the_reference_and_of_a_breathing_square() -> None:
    square = at((1, 1, 0), (-1, 1, 0), (-1, -1, 0), (1, -1, 0))
    turned = square @ Rotation.from_euler("xyz", [0.3, 1.0, -2.0]).as_matrix().T + 3.0
    rmsd = RMSD((0, 1, 2, 3), square)
    assert rmsd.value(turned) == pytest.approx(0.0, abs=1e-7)
    assert rmsd.value(turned * 1.0 + (turned - turned.mean(axis=0)) * 0.5) == pytest.approx(0.5 * np.sqrt(2))
