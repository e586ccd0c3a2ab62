"""LAMMPS, models and systems for the tests of the pair style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from toys import ManyBody, MessagePassing, save_committee

from rareal.testing.lammps import Lammps, random_atoms


@pytest.fixture
def lammps(tmp_path: Path) -> Lammps:
    return Lammps(tmp_path)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Model files by name, written once."""
    folder = tmp_path_factory.mktemp("models")
    write = {
        "float64": lambda path: save_committee(path, ManyBody(4, seed=1, spread=0.1)),
        "float32": lambda path: save_committee(path, ManyBody(4, seed=1, spread=0.1), dtype="float32"),
        "large": lambda path: save_committee(path, ManyBody(11, seed=2, spread=0.1)),
        "identical": lambda path: save_committee(path, ManyBody(3, seed=1, spread=0.0)),
        "messages": lambda path: save_committee(path, MessagePassing(3, seed=3, spread=0.2), layers=2),
    }

    def get(name: str) -> Path:
        path = folder / f"{name}.pt"
        if not path.exists():
            write[name](path)
        return path

    return get


@pytest.fixture
def cluster() -> Atoms:
    """A free cluster of ten atoms in a wide box."""
    atoms = random_atoms(10, [4, 4, 4], periodic=False)
    atoms.set_cell([14, 14, 14])
    atoms.positions += 5
    return atoms


@pytest.fixture
def crystal() -> Atoms:
    """A periodic box of 60 atoms, wider than two cutoffs."""
    return random_atoms(60, [9, 8, 7.5], periodic=True)


@pytest.fixture
def tilted() -> Atoms:
    """A triclinic periodic box."""
    return random_atoms(40, [[8, 0, 0], [2.5, 7.5, 0], [-1.5, 2, 7]], periodic=True)


@pytest.fixture
def tiny() -> Atoms:
    """A periodic box narrower than the cutoff: atoms see their own images."""
    return random_atoms(5, [2.6, 3.1, 4.2], periodic=True)
