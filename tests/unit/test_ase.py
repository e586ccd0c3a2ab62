"""The ASE calculator: forces and stress are the slopes of its energy, and all of it is what LAMMPS says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.test import calculate_numerical_forces

from rareal.ase import CommitteeCalculator
from rareal.errors import ModelFileError
from rareal.records import Frame
from rareal.testing.lammps import Lammps
from rareal.testing.systems import cluster, crystal
from rareal.untrained import write_untrained

MODELS = ("ani", "painn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for name in MODELS:
        write_untrained(place / f"{name}.pt", name, ("C", "H"), 3, "float64", 1)
    return place


def atoms_of(frame: Frame) -> Atoms:
    return Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)


@pytest.fixture
def molecule() -> Atoms:
    return atoms_of(cluster(("C", "H")))


@pytest.fixture
def solid() -> Atoms:
    return atoms_of(crystal(("C", "H")))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("member", [None, 2])
def test_forces_are_the_slope_of_the_energy(folder: Path, molecule: Atoms, name: str, member: int | None) -> None:
    molecule.calc = CommitteeCalculator(folder / f"{name}.pt", member)
    assert np.abs(molecule.get_forces()).max() > 1e-3
    np.testing.assert_allclose(calculate_numerical_forces(molecule, eps=1e-5), molecule.get_forces(), atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_stress_is_the_slope_with_strain(folder: Path, solid: Atoms, name: str) -> None:
    """dE/dε / V in ASE's sign and Voigt order, for each of the six strains."""
    solid.calc = CommitteeCalculator(folder / f"{name}.pt")
    stress = solid.get_stress()
    step = 1e-5
    for k, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += 0.5 * sign * step
            strain[j, i] += 0.5 * sign * step
            strained = solid.copy()
            strained.set_cell(solid.cell @ strain, scale_atoms=True)
            strained.calc = solid.calc
            energies.append(strained.get_potential_energy())
        expected = (energies[0] - energies[1]) / (2 * step) / solid.get_volume()
        assert stress[k] == pytest.approx(expected, abs=1e-8)
    assert np.abs(stress).min() > 1e-6


def test_it_says_what_lammps_says(folder: Path, solid: Atoms, tmp_path: Path) -> None:
    solid.calc = CommitteeCalculator(folder / "ani.pt")
    ours = solid.calc
    energy, forces, stress = solid.get_potential_energy(), solid.get_forces(), solid.get_stress()
    theirs = Lammps(tmp_path).single_point(solid, folder / "ani.pt")
    assert energy == pytest.approx(theirs.energy, abs=1e-9)
    np.testing.assert_allclose(forces, theirs.forces, atol=1e-9)
    # LAMMPS: xx yy zz xy xz yz, positive where the cell pushes
    virial = -stress[[0, 1, 2, 5, 4, 3]] * solid.get_volume()
    np.testing.assert_allclose(virial, theirs.virial, atol=1e-6)
    std = ours.results["forces_std"]
    spread = [ours.results["energy_std"], std.max(), std.mean()]
    np.testing.assert_allclose(spread, theirs.spread, rtol=1e-7)
    assert min(spread) > 1e-5


def test_members_and_their_spread(folder: Path, molecule: Atoms) -> None:
    whole = CommitteeCalculator(folder / "ani.pt")
    molecule.calc = whole
    molecule.get_potential_energy()
    energies, forces = whole.results["energies_members"], whole.results["forces_members"]
    assert energies.shape == (3,)
    assert forces.shape == (3, len(molecule), 3)
    assert whole.results["energy"] == pytest.approx(energies.mean())
    assert whole.results["free_energy"] == whole.results["energy"]
    assert whole.results["energy_std"] == pytest.approx(energies.std())
    variance = ((forces - forces.mean(0)) ** 2).mean(0).sum(-1)
    np.testing.assert_allclose(whole.results["forces_std"], np.sqrt(variance))
    assert "stress" not in whole.results
    molecule.calc = CommitteeCalculator(folder / "ani.pt", member=3)
    assert molecule.get_potential_energy() == pytest.approx(energies[2])
    np.testing.assert_allclose(molecule.get_forces(), forces[2])
    assert molecule.calc.results["energy_std"] == pytest.approx(energies.std())


def test_refusals(folder: Path, molecule: Atoms, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="the members 1 to 3, there is no member 4"):
        CommitteeCalculator(folder / "ani.pt", member=4)
    with pytest.raises(ModelFileError, match="no such model file"):
        CommitteeCalculator(tmp_path / "none.pt")
    molecule.numbers[0] = 8
    molecule.calc = CommitteeCalculator(folder / "ani.pt")
    with pytest.raises(ModelFileError, match="knows C, H, not atomic number 8"):
        molecule.get_potential_energy()
