"""Bonds and their equivalence."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from rareal.bonds import bond_class, bonds, stretches


def test_bonds_of_propane() -> None:
    atoms = molecule("C3H8")
    assert len(bonds(atoms.numbers, atoms.positions)) == 10


@pytest.mark.parametrize("name", ["H2O", "C2H4", "CH3CH2OH", "C6H6", "N2", "SiH4", "HCl"])
def test_bonds_of_molecules_are_as_many_as_drawn(name: str) -> None:
    expected = {"H2O": 2, "C2H4": 5, "CH3CH2OH": 8, "C6H6": 12, "N2": 1, "SiH4": 4, "HCl": 1}
    atoms = molecule(name)
    assert len(bonds(atoms.numbers, atoms.positions)) == expected[name]


def test_equivalent_bonds_share_a_class() -> None:
    atoms = molecule("trans-butane")
    carbons = [k for k, number in enumerate(atoms.numbers) if number == 6]
    found = bonds(atoms.numbers, atoms.positions)
    chain = [(int(a), int(b)) for a, b in found if a in carbons and b in carbons]
    ends = [pair for pair in chain if any(sum(atom in p for p in chain) == 1 for atom in pair)]
    middle = [pair for pair in chain if pair not in ends]
    assert (len(ends), len(middle)) == (2, 1)
    names = [bond_class(atoms.numbers, found, pair) for pair in (*ends, *middle)]
    assert names[0] == names[1] != names[2]


def test_class_does_not_depend_on_the_order_of_atoms() -> None:
    atoms = molecule("CH3CH2OH")
    found = bonds(atoms.numbers, atoms.positions)
    a, b = (int(k) for k in found[0])
    order = np.random.default_rng(0).permutation(len(atoms))
    place = np.argsort(order)
    shuffled = bonds(atoms.numbers[order], atoms.positions[order])
    assert bond_class(atoms.numbers, found, (a, b)) == bond_class(atoms.numbers[order], shuffled, (place[b], place[a]))


def test_stretch_is_one_at_the_sum_of_radii() -> None:
    positions = np.array([[0.0, 0, 0], [0, 0, 1.52]])
    assert stretches(np.array([6, 6]), positions, np.array([[0, 1]])) == pytest.approx([1.0], abs=1e-9)
