"""Initial data that is drawn: normal modes against known oscillators, Gaussian displacements, cost and failures."""

from __future__ import annotations

import numpy as np
import pytest
from ase.data import atomic_masses

from rareal.errors import LabelError, SamplingError
from rareal.records import Array, Frame
from rareal.sampling import displacement, normal_modes
from rareal.sampling.draws import closeness
from rareal.sampling.normal_modes import Modes
from rareal.testing.engines import Bond, MorseChain
from rareal.testing.springs import WATER, Springs
from rareal.units import ACCELERATION, HBAR, KB

H2 = Bond(0, 1, depth=4.5, steepness=1.9, length=0.74)
STRETCHED = Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0.2, 0.1, 0.8]]))
REDUCED = atomic_masses[1] / 2
STIFFNESS = 2 * H2.depth * H2.steepness**2


def sampling(**settings: object) -> normal_modes.NormalModeSampling:
    return normal_modes.build(normal_modes.Config.model_validate({"frames": 4, "fmax": 1e-4, **settings}))


def modes(frame: Frame, engine: MorseChain | Springs) -> Modes:
    sampler = sampling()
    return normal_modes.normal_modes(frame, sampler.hessian(engine, frame, lambda done, total: None))


def test_a_diatomic_has_one_mode_of_known_frequency() -> None:
    rest = Frame(STRETCHED.numbers, np.array([[0.0, 0, 0], [0, 0, H2.length]]))
    found = modes(rest, MorseChain((H2,)))
    assert found.curvatures == pytest.approx([STIFFNESS / REDUCED], rel=1e-3)
    frequency = np.sqrt(STIFFNESS / REDUCED * ACCELERATION)  # 1/fs
    assert found.wavenumbers == pytest.approx([frequency / (2 * np.pi * 2.99792458e-5)], rel=1e-3)


def test_rigid_motions_are_no_modes() -> None:
    water = Frame(np.array([8, 1, 1]), WATER)
    found = modes(water, Springs())
    assert len(found.curvatures) == 3
    assert found.curvatures.min() > 0.1
    masses = atomic_masses[water.numbers]
    lever = WATER - np.average(WATER, axis=0, weights=masses)
    for vector in found.vectors:
        assert masses @ vector == pytest.approx(np.zeros(3), abs=1e-9)
        assert np.sum(masses[:, None] * np.cross(lever, vector), axis=0) == pytest.approx(np.zeros(3), abs=1e-9)
    gram = np.einsum("kax,lax,a->kl", found.vectors, found.vectors, masses)
    assert gram == pytest.approx(np.eye(3), abs=1e-9)


def test_a_cell_keeps_its_rotations() -> None:
    water = Frame(np.array([8, 1, 1]), WATER, np.eye(3) * 9.0, (True, True, True))
    assert len(modes(water, Springs()).curvatures) == 6


@pytest.mark.parametrize("statistics", ["classical", "quantum"])
def test_bond_length_has_the_oscillator_s_variance(statistics: str) -> None:
    temperature = 300.0
    data = sampling(temperature=temperature, statistics=statistics, frames=2000).run(MorseChain((H2,)), STRETCHED, 1)
    positions = np.stack([item.frame.positions for item in data.frames])
    length = np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1)
    quantum = HBAR * np.sqrt(STIFFNESS / REDUCED * ACCELERATION)
    expected = {
        "classical": KB * temperature / STIFFNESS,
        "quantum": 0.5 * quantum / STIFFNESS / np.tanh(0.5 * quantum / (KB * temperature)),
    }
    # a variance of 2000 draws is within 3.2 % of the true one; the two differ by a factor of ten
    assert length.var() == pytest.approx(expected[statistics], rel=0.13)
    assert length.mean() == pytest.approx(H2.length, abs=4 * np.sqrt(expected[statistics] / 2000))


def test_equipartition() -> None:
    """Half kT in each of three modes, at small amplitudes, where springs are harmonic."""
    engine, start = Springs(zero=0.0), Frame(np.array([8, 1, 1]), WATER)
    data = sampling(temperature=20.0, frames=1000).run(engine, start, 2)
    energies = np.array([item.label.energy for item in data.frames])
    assert energies.mean() == pytest.approx(1.5 * KB * 20.0, rel=4 * np.sqrt(2 / 3 / 1000))


def test_labels_and_cost() -> None:
    engine = MorseChain((H2,))
    seen: list[tuple[int, int]] = []
    sampler = sampling(frames=5)
    data = sampler.run(engine, STRETCHED, 1, lambda done, total: seen.append((done, total)))
    _, relaxation = sampler.relaxed(engine, STRETCHED)
    assert data.engine_calls == relaxation + 12 + 5
    assert [item.frame.step for item in data.frames] == list(range(5))
    assert [done for done, _ in seen] == list(range(1, 18))
    assert {total for _, total in seen} == {17}
    for item in data.frames:
        energy, forces = engine.calculate(item.frame)
        assert item.label.energy == pytest.approx(energy)
        assert item.label.forces == pytest.approx(forces)
        assert (item.label.engine, item.frame.origin, item.frame.round) == ("morse", "initial", 0)


def test_same_seed_same_frames() -> None:
    for make in (sampling(), displacement.build(displacement.Config(frames=4))):
        runs = [make.run(MorseChain((H2,)), STRETCHED, seed).frames[-1].frame.positions for seed in (1, 1, 2)]
        assert np.array_equal(runs[0], runs[1])
        assert not np.allclose(runs[0], runs[2])


def test_soft_and_imaginary_modes_are_drawn_as_stiff_as_asked() -> None:
    stiff = (2 * np.pi * 2.99792458e-5 * 100.0) ** 2 / ACCELERATION
    several = Modes(np.array([-stiff, 1e-9, 0.25 * stiff, 4 * stiff]), np.zeros((4, 1, 3)))
    assert several.wavenumbers == pytest.approx([-100, 0, 50, 200], abs=0.1)
    found = several.variances(300.0, "classical", 100.0)
    assert found == pytest.approx(KB * 300.0 / stiff * np.array([1, 1, 1, 0.25]))


def test_a_relaxation_that_does_not_converge_says_so() -> None:
    with pytest.raises(SamplingError, match="not relaxed after 1 steps.*relaxation_steps"):
        sampling(relaxation_steps=1).run(MorseChain((H2,)), STRETCHED, 1)


def test_displacements_are_gaussian() -> None:
    start = Frame(np.array([6] * 8), 3.0 * np.indices((2, 2, 2)).reshape(3, 8).T.astype(float))
    engine = MorseChain((Bond(0, 1, 1.0, 1.0, 3.0),))
    config = displacement.Config(frames=150, amplitude=0.1)
    data = displacement.build(config).run(engine, start, 4)
    moved = np.stack([item.frame.positions for item in data.frames]) - start.positions
    assert moved.std() == pytest.approx(0.1, rel=4 / np.sqrt(2 * moved.size))
    assert moved.mean() == pytest.approx(0.0, abs=0.4 / np.sqrt(moved.size))
    assert np.mean((moved / 0.1) ** 4) == pytest.approx(3.0, abs=4 * np.sqrt(96 / moved.size))
    assert data.engine_calls == 150


def test_tight_structures_are_drawn_again() -> None:
    config = displacement.Config(frames=100, amplitude=0.15, min_distance=0.8)
    data = displacement.build(config).run(MorseChain((H2,)), STRETCHED, 1)
    assert min(closeness(item.frame) for item in data.frames) >= 0.8
    assert data.engine_calls == 100
    with pytest.raises(SamplingError, match="keep all atoms 0.99 times"):
        displacement.build(displacement.Config(frames=3, amplitude=1e-6, min_distance=0.99)).run(
            MorseChain((H2,)), Frame(STRETCHED.numbers, np.array([[0.0, 0, 0], [0, 0, 0.5]])), 1
        )


def test_closeness_sees_periodic_images() -> None:
    pair = Frame(np.array([1, 1]), np.array([[0.0, 0, 0.1], [0, 0, 9.7]]), np.eye(3) * 10, (True, True, True))
    assert closeness(pair) == pytest.approx(0.4 / 0.62, rel=1e-6)


class Moody:
    """Fails at every ``period``-th call."""

    hash = "moody"

    def __init__(self, period: int) -> None:
        self.calls, self.period = 0, period

    def calculate(self, frame: Frame) -> tuple[float, Array]:
        self.calls += 1
        if self.calls % self.period == 0:
            raise LabelError("in a mood")
        return 0.0, np.zeros_like(frame.positions)


def test_an_engine_that_fails_now_and_then_costs_calls_and_no_frames() -> None:
    data = displacement.build(displacement.Config(frames=20)).run(Moody(10), STRETCHED, 1)
    assert (len(data.frames), data.engine_calls) == (20, 22)
    with pytest.raises(LabelError, match="in a mood"):
        displacement.build(displacement.Config(frames=20)).run(Moody(2), STRETCHED, 1)
