"""Quasi-static rupture of Morse chains, for which everything is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from rareal import saddle
from rareal.check import telling_positions
from rareal.records import Array, Frame
from rareal.relaxation import RelaxationError
from rareal.rupture import Config, Rupture, compare, load, rupture, save
from rareal.saddle import nearer_end
from rareal.testing.engines import Bond, MorseChain

WEAK = {"depth": 4.0, "steepness": 1.9, "length": 1.5}
STRONG = {"depth": 4.5, "steepness": 1.9, "length": 1.5}
INNER = 6
CHAIN = (WEAK, *[STRONG] * INNER, WEAK)
WEAKEST = {"depth": 3.9, "steepness": 1.9, "length": 1.5}


def chain(*kinds: dict[str, float]) -> tuple[MorseChain, Frame]:
    """A straight chain of carbon atoms, slightly under tension so that it stays straight."""
    bonds = tuple(Bond(k, k + 1, **kind) for k, kind in enumerate(kinds))
    positions = np.zeros((len(kinds) + 1, 3))
    positions[:, 0] = 1.55 * np.arange(len(kinds) + 1)
    positions[:, 1] = 1e-4 * np.arange(len(kinds) + 1) ** 2
    return MorseChain(bonds), Frame(np.full(len(kinds) + 1, 6), positions)


def pull(*kinds: dict[str, float], **settings: float) -> Rupture:
    engine, start = chain(*kinds)
    return rupture(engine.calculate, start, (0, len(kinds)), Config.model_validate(settings))


def at_force(bond: Bond, force: float) -> float:
    """Length of an intact bond under a force."""
    inflection = bond.length + math.log(2) / bond.steepness
    return float(brentq(lambda r: bond.slope(np.float64(r)) - force, bond.length, inflection))


@pytest.fixture(scope="module")
def symmetric() -> Rupture:
    return pull(*CHAIN)


def test_equivalent_bonds_lose_stability_at_their_largest_force(symmetric: Rupture) -> None:
    """Two equal bonds in series: the balance between them tips exactly where either has its inflection."""
    weak, strong = Bond(0, 1, **WEAK), Bond(1, 2, **STRONG)
    force = weak.depth * weak.steepness / 2
    inner, outer = at_force(strong, force), weak.length + math.log(2) / weak.steepness
    assert symmetric.note == ""
    assert symmetric.force_max == pytest.approx(force, rel=1e-4)
    assert symmetric.stability_distance == pytest.approx(INNER * inner + 2 * outer, abs=0.002)
    energy = 2 * weak.energy(outer) + INNER * strong.energy(inner) - symmetric.start_energy
    assert symmetric.stability_energy == pytest.approx(energy, abs=force * 0.002)
    assert symmetric.broken_bond in {(1, 2), (8, 9)}


def test_energy_of_the_branch_is_the_closed_form(symmetric: Rupture) -> None:
    weak, strong = Bond(0, 1, **WEAK), Bond(1, 2, **STRONG)

    def length(force: float) -> float:
        return 2 * at_force(weak, force) + INNER * at_force(strong, force)

    for distance, energy, pulled in zip(symmetric.distances, symmetric.energies, symmetric.forces, strict=True):
        force = brentq(lambda f, d=distance: length(f) - d, 0.01, 3.7999999)
        here = 2 * weak.energy(at_force(weak, force)) + INNER * strong.energy(at_force(strong, force))
        assert here - energy == pytest.approx(symmetric.start_energy, abs=1e-5)
        assert pulled == pytest.approx(force, abs=3e-3)


def test_crossing_is_where_broken_and_intact_cost_the_same(symmetric: Rupture) -> None:
    """Closed form of both branches: all bonds under one force, in the broken chain one beyond its inflection."""
    weak, strong = Bond(0, 1, **WEAK), Bond(1, 2, **STRONG)

    def intact(force: float) -> tuple[float, float]:
        lengths = at_force(weak, force), at_force(strong, force)
        return 2 * lengths[0] + INNER * lengths[1], 2 * weak.energy(lengths[0]) + INNER * strong.energy(lengths[1])

    def gap(length: float) -> float:
        force = float(weak.slope(np.float64(length)))
        lengths = at_force(weak, force), at_force(strong, force)
        distance = length + lengths[0] + INNER * lengths[1]
        energy = weak.energy(np.float64(length)) + weak.energy(lengths[0]) + INNER * strong.energy(lengths[1])
        return float(energy - intact(brentq(lambda f: intact(f)[0] - distance, 0.01, 3.7999))[1])

    length = brentq(gap, 2.7, 3.3)
    force = float(weak.slope(np.float64(length)))
    distance = length + at_force(weak, force) + INNER * at_force(strong, force)
    assert symmetric.crossing_distance == pytest.approx(distance, abs=2e-3)
    assert symmetric.crossing_distance < symmetric.break_distance < symmetric.stability_distance
    assert symmetric.energy_at(symmetric.crossing_distance) == pytest.approx(symmetric.crossing_energy, abs=1e-6)


def test_barrier_left_is_that_of_the_closed_form(symmetric: Rupture) -> None:
    """The saddle too is a chain under one force: one weak bond beyond its inflection, all others before."""
    weak, strong = Bond(0, 1, **WEAK), Bond(1, 2, **STRONG)
    inflection = weak.length + math.log(2) / weak.steepness

    def chain_with(length: float) -> tuple[float, float]:
        force = float(weak.slope(np.float64(length)))
        lengths = at_force(weak, force), at_force(strong, force)
        distance = length + lengths[0] + INNER * lengths[1]
        return distance, weak.energy(np.float64(length)) + weak.energy(lengths[0]) + INNER * strong.energy(lengths[1])

    # from the inflection on the distance falls to the saddle's fold, and rises again along the broken branch
    fold = minimize_scalar(lambda r: chain_with(r)[0], bounds=(inflection, inflection + 1.0)).x
    for distance, height in zip(symmetric.barrier_distances, symmetric.barriers, strict=True):
        length = brentq(lambda r, d=distance: chain_with(r)[0] - d, inflection + 1e-6, fold)
        saddle = chain_with(length)[1] - symmetric.start_energy
        assert height == pytest.approx(saddle - symmetric.energy_at(distance), abs=2e-3)
    below, above = symmetric.barriers[symmetric.barrier_distances < symmetric.break_distance], symmetric.barriers
    assert below.min() > Config().residual_barrier >= above.min()


def test_no_residual_barrier_is_the_limit_of_stability() -> None:
    result = pull(*CHAIN, residual_barrier=0.0)
    assert result.break_distance == pytest.approx(result.stability_distance, abs=1e-9)
    assert result.energy_max == pytest.approx(result.stability_energy, abs=1e-9)


def test_a_single_weakest_bond_snaps_at_the_fold() -> None:
    """One bond weaker: the chain goes where the sum of the compliances passes through infinity."""
    weakest, weak, strong = Bond(0, 1, **WEAKEST), Bond(2, 3, **WEAK), Bond(1, 2, **STRONG)
    result = pull(WEAKEST, *[STRONG] * INNER, WEAK)

    def distance(length: float) -> float:
        force = float(weakest.slope(np.float64(length)))
        return length + at_force(weak, force) + INNER * at_force(strong, force)

    inflection = weakest.length + math.log(2) / weakest.steepness
    fold = minimize_scalar(lambda r: -distance(r), bounds=(inflection, inflection + 1.0), options={"xatol": 1e-8})
    assert result.note == ""
    assert result.broken_bond == (1, 2)
    assert result.stability_distance == pytest.approx(-fold.fun, abs=0.006)
    assert result.force_max == pytest.approx(weakest.depth * weakest.steepness / 2, rel=1e-3)


@pytest.mark.parametrize("settings", [{"step": 0.03}, {"step": 0.08}, {"fmax": 0.01}, {"resolution": 0.001}])
def test_result_does_not_depend_on_how_it_was_found(symmetric: Rupture, settings: dict[str, float]) -> None:
    other = pull(*CHAIN, **settings)
    assert other.stability_distance == pytest.approx(symmetric.stability_distance, abs=0.006)
    assert other.break_distance == pytest.approx(symmetric.break_distance, abs=0.002)
    assert other.energy_max == pytest.approx(symmetric.energy_max, abs=0.006)
    assert other.force_max == pytest.approx(symmetric.force_max, rel=1e-3)
    assert other.crossing_energy == pytest.approx(symmetric.crossing_energy, abs=2e-3)


def test_same_pull_twice_is_the_same(symmetric: Rupture) -> None:
    again = pull(*CHAIN)
    assert again.break_distance == symmetric.break_distance
    assert np.array_equal(again.positions, symmetric.positions)
    assert again.broken_bond == symmetric.broken_bond


def test_comparison_takes_energies_at_the_same_distance(symmetric: Rupture) -> None:
    later = replace(symmetric, break_distance=symmetric.break_distance + 0.01, energies=symmetric.energies + 0.02)
    error = compare(later, symmetric)
    assert error.energy == pytest.approx(0.02)
    assert error.distance == pytest.approx(0.01)
    assert error.force_percent == pytest.approx(0.0)
    assert error.same_bond
    other = pull(*[STRONG] * 4, WEAK, *[STRONG] * 3)
    assert not compare(other, symmetric).same_bond


def test_no_rupture_within_reach_is_recorded() -> None:
    result = pull(*CHAIN, max_stretch=0.3)
    assert result.note == "no bond broke within 0.3 Å"
    assert not result.broke
    assert math.isnan(result.break_distance)
    assert result.broken_bond == (0, 0)
    assert len(result.distances) == 7
    assert math.isnan(compare(result, result).energy)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_surface_without_numbers_is_recorded(bad: float) -> None:
    engine, start = chain(*CHAIN)

    def torn(frame: Frame) -> tuple[float, Array]:
        energy, forces = engine.calculate(frame)
        return (bad if frame.positions[-1, 0] > 13.5 else energy), forces

    result = rupture(torn, start, (0, INNER + 2), Config())
    assert result.note == "the potential is not finite"
    assert len(result.distances) > 3


def test_archive_gives_back_what_it_got(tmp_path: Path, symmetric: Rupture) -> None:
    read = load(save(tmp_path / "r.npz", symmetric))
    assert read.broken_bond == symmetric.broken_bond
    assert read.break_distance == symmetric.break_distance
    assert read.broken_class == symmetric.broken_class
    assert np.array_equal(read.broken_positions, symmetric.broken_positions)
    assert compare(read, symmetric).energy == 0.0


SHORT = (WEAK, *[STRONG] * 2, WEAKEST)


@pytest.fixture(scope="module")
def short() -> Rupture:
    return pull(*SHORT)


def gradually(share: float) -> tuple[float, float]:
    """Distance and energy of the short chain where the force has sunk to a share of its maximum, in closed form.

    The weakest bond is beyond its inflection then: F = 4 F_max x (1 - x) with x = exp(-a (r - r0)).
    """
    weakest, weak, strong = Bond(0, 1, **WEAKEST), Bond(1, 2, **WEAK), Bond(2, 3, **STRONG)
    force = share * weakest.depth * weakest.steepness / 2
    length = weakest.length - math.log((1 - math.sqrt(1 - share)) / 2) / weakest.steepness
    others = at_force(weak, force), at_force(strong, force), at_force(strong, force)
    energy = weakest.energy(np.float64(length)) + weak.energy(others[0]) + 2 * strong.energy(others[1])
    return length + sum(others), float(energy)


def test_a_stiff_chain_gives_way_gradually(short: Rupture) -> None:
    """Three stiff bonds let the weakest one down without a jump: no barrier, no limit of stability, one branch."""
    distance, energy = gradually(0.1)
    assert short.gradual
    assert short.broken_bond == (4, 5)
    assert short.force_max == pytest.approx(WEAKEST["depth"] * WEAKEST["steepness"] / 2, rel=1e-3)
    assert short.break_distance == pytest.approx(distance, abs=0.005)
    assert short.energy_max == pytest.approx(energy - short.start_energy, abs=0.002)
    assert math.isnan(short.stability_distance)
    assert math.isnan(short.stability_energy)
    assert len(short.barriers) == 0


@pytest.mark.parametrize("settings", [{"step": 0.1}, {"step": 0.03}, {"fmax": 0.01}, {"residual_barrier": 0.0}])
def test_gradual_rupture_does_not_depend_on_how_it_was_found(short: Rupture, settings: dict[str, float]) -> None:
    other = pull(*SHORT, **settings)
    assert other.gradual
    assert other.break_distance == pytest.approx(short.break_distance, abs=0.01)
    assert other.energy_max == pytest.approx(short.energy_max, abs=0.003)


def test_residual_force_says_when_a_bond_has_given_way(short: Rupture) -> None:
    later = pull(*SHORT, residual_force=0.05)
    distance, energy = gradually(0.05)
    assert later.break_distance == pytest.approx(distance, abs=0.005)
    assert later.energy_max == pytest.approx(energy - short.start_energy, abs=0.002)


def test_a_longer_chain_of_the_same_bonds_snaps(short: Rupture) -> None:
    assert not pull(WEAKEST, *[STRONG] * INNER, WEAK).gradual


def test_frames_that_tell_where_a_bond_gave_way_are_those_beyond_its_largest_force(short: Rupture) -> None:
    positions = telling_positions(short, 8)
    apart = np.linalg.norm(positions[:, 0] - positions[:, -1], axis=1)
    assert len(positions) == 8
    assert apart.min() > short.distances[np.argmax(short.forces)]
    assert apart.max() == pytest.approx(short.distances[-1])
    assert np.diff(apart).min() > 0
    assert np.diff(apart).max() < 0.3


def test_a_barrier_beyond_the_break_is_not_the_bond_s() -> None:
    """Energies of a band found with a committee for hexane at 8.18 Å: the broken molecule lay beyond a second hill."""
    energies = np.array([0.0, 0.067, -0.02, 0.056, 0.186, 0.231, 0.235])
    gone = [False, False, True, True, True, True, True]
    assert nearer_end(energies, gone) == 2
    assert nearer_end(energies, [False] * 7) is None  # another conformer of the intact molecule
    assert nearer_end(np.array([0.0, 0.07, -0.02, -0.1, -0.05, -0.2, -0.3]), gone) is None  # the first hill is highest
    assert nearer_end(np.array([0.0, 0.03, 0.06, 0.08, 0.05, -0.1, -0.2]), gone) is None
    assert nearer_end(np.array([0.0, 0.067, 0.06, 0.08, 0.186, 0.231, 0.235]), gone) is None  # a ripple, no valley


def test_a_distance_without_a_path_is_left_out(symmetric: Rupture, monkeypatch: pytest.MonkeyPatch) -> None:
    """One band that fails does not cost the rupture: its neighbours tell where the barrier has sunk."""
    whole, calls = saddle.barrier, []

    def second_fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise RelaxationError("no path")
        return whole(*arguments)

    monkeypatch.setattr(saddle, "barrier", second_fails)
    other = pull(*CHAIN)
    assert other.note == ""
    assert len(calls) > 2
    assert other.break_distance == pytest.approx(symmetric.break_distance, abs=0.003)

    def all_fail(*_: Any) -> Any:
        raise RelaxationError("no path")

    monkeypatch.setattr(saddle, "barrier", all_fail)
    assert pull(*CHAIN).note == "no path"


def test_a_molecule_that_is_lost_is_no_rupture() -> None:
    """Relaxed energies that rise by more than the pull's work: a hole in the surface, off the path, has been found."""
    engine, start = chain(*SHORT)

    def holed(frame: Frame) -> tuple[float, Array]:
        energy, forces = engine.calculate(frame)[:2]
        beyond = np.linalg.norm(frame.positions[-1] - frame.positions[0]) > 7.5
        return energy + 2.0 * beyond, forces

    result = rupture(holed, start, (0, len(SHORT)), Config())
    assert "lost at 7.5" in result.note
    assert math.isnan(result.energy_max)
    assert result.distances[-1] == pytest.approx(7.5, abs=0.05)


def test_a_surface_that_runs_downhill_from_the_start_is_recorded() -> None:
    """As an untrained committee's may: the largest force is the start's, and no bond has ever held."""
    engine, start = chain(*SHORT)

    def downhill(frame: Frame) -> tuple[float, Array]:
        """The bonds' own energy, and a push of 5 eV/Å between the ends, more than any of them bears."""
        energy, forces = engine.calculate(frame)[:2]
        line = frame.positions[-1] - frame.positions[0]
        push = 5.0 * line / np.linalg.norm(line)
        forces = forces.copy()
        forces[-1] += push
        forces[0] -= push
        return energy - 5.0 * float(np.linalg.norm(line)), forces

    result = rupture(downhill, start, (0, len(SHORT)), Config())
    assert not result.broke
    assert result.note
    assert math.isnan(result.energy_max)
