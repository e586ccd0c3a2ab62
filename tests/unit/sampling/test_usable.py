"""What of a trajectory can be used, rule by rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.data import covalent_radii

from rareal.cv import Distance
from rareal.records import Array, Frame, Trajectory
from rareal.sampling.usable import APART, FUSED, usable

NUMBERS = np.array([6, 6, 1, 1])
START = Frame(NUMBERS, np.array([[0.0, 0, 0], [1.5, 0, 0], [-0.5, 1, 0], [2.0, 1, 0]]))
ENDS = Distance((0, 1))


def run(positions: Array, frame: Frame = START, energy: Any = None, interval: int = 1) -> Trajectory:
    count = len(positions)
    cv = ENDS.value(positions)
    zeros = np.zeros(count)
    energies = zeros if energy is None else np.asarray(energy, dtype=np.float64)
    return Trajectory(0, 1, np.arange(count) * interval, cv, zeros, energies, zeros, zeros, positions)


def still(count: int, frame: Frame = START) -> Array:
    return np.repeat(frame.positions[None], count, axis=0)


def test_a_good_trajectory_stays_as_it_is() -> None:
    good = replace(run(still(5)), note="hung")
    assert usable(good, START) is good


@pytest.mark.parametrize("note", ["", "lost atoms"])
def test_an_empty_trajectory_is_survived(note: str) -> None:
    empty = replace(run(still(0)), note=note)
    assert usable(empty, START) is empty
    assert usable(empty, START, (ENDS,)) is empty


@pytest.mark.parametrize("name", ["cv", "cvs", "work", "energy", "energy_std", "force_std", "positions", "bias"])
def test_nothing_that_is_not_finite_is_kept(name: str) -> None:
    whole = run(still(6), interval=10)
    for value in (np.nan, np.inf):
        broken = getattr(whole, name).copy()
        broken[4:] = value
        found = usable(replace(whole, **{name: broken}), START)
        assert len(found) == 4
        assert found.note == f"cut at step 40: not finite ({name.replace('_', ' ')})"


def test_the_reason_is_added_to_what_is_known_already() -> None:
    whole = replace(run(still(3)), note="crashed (signal 11)")
    found = usable(replace(whole, energy=np.array([0.0, 1.0, np.nan])), START)
    assert found.note == "crashed (signal 11); cut at step 2: not finite (energy)"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_energy_may_change_by_twelve_ev_and_one_per_atom(sign: int) -> None:
    # four atoms: 16 eV
    found = usable(run(still(4), energy=-1000 + sign * np.array([0.0, 15.9, 16.1, 0.0])), START)
    assert len(found) == 2
    assert found.note == f"cut at step 2: the energy exploded ({sign * 16.1:+.3g} eV)"
    assert not usable(run(still(2), energy=[5.0, 5.0 + sign * 16.0]), START).note


def test_the_limit_of_the_energy_grows_with_the_system() -> None:
    frame = Frame(np.full(100, 6), np.stack([np.arange(100) * 1.5, np.zeros(100), np.zeros(100)], axis=1))
    assert not usable(run(still(2, frame), frame, energy=[0.0, 111.0]), frame).note
    assert len(usable(run(still(2, frame), frame, energy=[0.0, 113.0]), frame)) == 1


def test_atoms_that_fuse_are_named() -> None:
    positions = still(3)
    limit = FUSED * 2 * covalent_radii[6]
    positions[1, 1, 0] = limit * 1.001
    positions[2, 1, 0] = limit * 0.999
    found = usable(run(positions), START)
    assert len(found) == 2
    assert found.note == "cut at step 2: C1 and C2 have fused (0.76 Å)"


def test_every_pair_is_looked_at() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.choice([1, 6, 8, 16], 12)
    frame = Frame(numbers, rng.uniform(0, 8, (12, 3)) + 4 * np.arange(12)[:, None])
    i, j = np.triu_indices(12, 1)
    for first, second in zip(i, j, strict=True):
        positions = still(2, frame)
        limit = FUSED * (covalent_radii[numbers[first]] + covalent_radii[numbers[second]])
        positions[1, second] = positions[1, first] + [0.0, 0.99 * limit, 0.0]
        assert len(usable(run(positions, frame), frame)) == 1
        positions[1, second] = positions[1, first] + [0.0, 1.01 * limit, 0.0]
        assert len(usable(run(positions, frame), frame)) == 2


@pytest.mark.parametrize("molecule", ["N2", "CO", "H2", "C2H2", "LiF", "CH4", "H2O", "HCN", "F2", "SO2"])
def test_real_molecules_have_not_fused_even_squeezed_by_a_fifth(molecule: str) -> None:
    from ase.build import molecule as build

    atoms = build(molecule)
    frame = Frame(atoms.numbers.astype(np.int64), atoms.positions)
    positions = np.stack([atoms.positions, 0.8 * atoms.positions])
    assert not usable(run(positions, frame), frame).note


def apart(*shifts: float, moved: tuple[int, ...] = (1, 3)) -> Array:
    positions = still(len(shifts))
    positions[:, moved, 0] += np.array(shifts)[:, None]
    return positions


def test_fragments_that_have_flown_apart_are_cut() -> None:
    # the gap at the start is 1.5 Å, between the carbons
    found = usable(run(apart(0.0, APART - 0.1, APART + 0.1, 500.0)), START)
    assert len(found) == 2
    assert found.note == "cut at step 2: fragments have flown apart (2 atoms, 11.6 Å from the others)"


def test_a_lost_atom_is_named() -> None:
    positions = still(2)
    positions[1, 3] = [100.0, 0, 0]
    assert usable(run(positions), START).note == "cut at step 1: lost atom H4 (98.5 Å from the others)"


def test_what_is_pulled_apart_on_purpose_is_kept() -> None:
    """As far as the collective variable says that it has been pulled, and no farther."""
    pulled = run(apart(*np.linspace(0, 40, 9)))
    assert len(usable(pulled, START, (ENDS,))) == 9
    assert len(usable(pulled, START)) == 3
    # of a drive that went on from where they were far apart already
    assert len(usable(pulled.rows(slice(5, None)), START, (ENDS,))) == 4
    # the same, while a variable that is no length has changed by as much
    angle: Any = type("Angle", (), {"unit": "°"})()
    assert len(usable(pulled, START, (angle,))) == 3


def test_hexane_pulled_to_thirteen_angstrom_is_kept() -> None:
    """Six carbons in a row; the terminal one goes at 8.5 Å, the rest falls back to 1.5 Å between neighbours."""
    frame = Frame(np.full(6, 6), np.stack([1.3 * np.arange(6), np.zeros(6), np.zeros(6)], axis=1))
    positions = still(2, frame)
    positions[1, 5, 0] = 13.0
    assert len(usable(run(positions, frame), frame)) == 2
    positions[1, 5, 0] = 18.0
    assert len(usable(run(positions, frame), frame)) == 1


def test_two_molecules_may_be_apart_from_the_start() -> None:
    positions = apart(*np.linspace(0, 9, 4))
    frame = replace(START, positions=apart(20.0)[0])
    positions[:, (1, 3), 0] += 20.0
    assert len(usable(run(positions, frame), frame)) == 4


def test_in_a_periodic_cell_the_nearest_images_count() -> None:
    cell = np.array([[6.0, 0, 0], [3.0, 5.0, 0], [0, 0, 0]])
    frame = replace(START, cell=cell, pbc=(True, True, False))
    far = still(3)
    # whole cells away is no distance at all: positions are unwrapped
    far[1, 2] += 4 * cell[0] - 7 * cell[1]
    far[2, 2] += [0, 0, 30.0]
    found = usable(run(far, frame), frame)
    assert len(found) == 2
    assert "lost atom H3" in found.note
    near = still(2)
    near[1, 3] = near[1, 0] + cell[0] + cell[1] + [0.0, 0.3, 0.0]
    assert usable(run(near, frame), frame).note == "cut at step 1: C1 and H4 have fused (0.30 Å)"


def test_the_first_of_several_reasons_is_the_one_that_is_told() -> None:
    positions = apart(0.0, 0.0, 20.0, 20.0)
    bad = run(positions, energy=[0.0, 0.0, 0.0, 100.0])
    assert "cut at step 2: fragments" in usable(bad, START).note
    assert "cut at step 1: the energy" in usable(replace(bad, energy=np.array([0.0, 90.0, 0, 0])), START).note
    work = np.array([0.0, np.nan, 0, 0])
    assert "cut at step 1: not finite (work)" in usable(replace(bad, work=work), START).note


def test_a_start_that_is_no_molecule_leaves_nothing() -> None:
    broken = still(2)
    broken[:, 3] = broken[:, 0]
    found = usable(run(broken), START)
    assert not len(found)
    assert "C1 and H4 have fused" in found.note


def test_one_atom_has_no_neighbours() -> None:
    frame = Frame(np.array([18]), np.zeros((1, 3)))
    zeros = np.zeros(2)
    alone = Trajectory(0, 1, np.arange(2), zeros, zeros, zeros, zeros, zeros, np.zeros((2, 1, 3)))
    assert usable(alone, frame) is alone


def test_long_trajectories_are_looked_at_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rareal.sampling.usable.BLOCK", 3 * 4 * 7)
    positions = still(30)
    assert not usable(run(positions), START).note
    for row in (6, 7, 29):
        bent = positions.copy()
        bent[row, 3] = [100.0, 0, 0]
        assert len(usable(run(bent), START)) == row
        assert len(usable(run(bent), START, (ENDS,))) == row
    pulled = run(apart(*np.linspace(0, 60, 30)))
    assert usable(pulled, START, (ENDS,)) is pulled
