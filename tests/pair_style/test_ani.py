"""The real model in LAMMPS: ANI committees as training exports them, against Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from rareal.export.modelfile import Committee, write
from rareal.models import ani
from rareal.records import Frame
from rareal.testing.lammps import Lammps

MEMBERS = 4
TOLERANCE = {"float32": 1e-5, "float64": 1e-8}

NVE = """
velocity all create 300 4711 mom yes
timestep 0.00025
fix integrate all nve
compute spread all pair mlensemble
variable total equal etotal
variable kinetic equal ke
variable std equal c_spread[1]
fix log all print 10 "total $(v_total:%20.15g) $(v_kinetic:%20.15g) $(v_std:%20.15g)" screen yes
thermo_style custom step etotal ke c_spread[1]
run 400
"""


@pytest.fixture(scope="module")
def hydrocarbon() -> Atoms:
    """Isobutane, shaken, in a wide box; not a symmetric thing about it."""
    atoms = molecule("isobutane")
    atoms.positions += np.random.default_rng(0).uniform(-0.05, 0.05, (len(atoms), 3))
    atoms.set_cell([16, 16, 16])
    atoms.center()
    return atoms


def committee(folder: Path, dtype: str, seeds: list[int], strength: float = 1.0) -> Path:
    """An untrained committee; ``strength`` scales its energies, which are small as they come."""
    path = folder / f"{dtype}-{len(set(seeds))}.pt"
    model = ani.build(ani.Config(), ("C", "H"), seeds)
    for network in model.networks:
        network.weights[-1].data *= strength
    write(model, path, [-45.0, -13.0], dtype=dtype)
    return path


def frame(atoms: Atoms) -> Frame:
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), tuple(atoms.pbc))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_molecule_in_lammps_is_the_molecule_in_python(
    lammps: Lammps, hydrocarbon: Atoms, tmp_path: Path, dtype: str, ranks: int
) -> None:
    path = committee(tmp_path, dtype, [1, 2, 3, 4])
    energies, forces = Committee.load(path).energies_forces(frame(hydrocarbon))
    result = lammps.single_point(hydrocarbon, path, ranks=ranks)
    assert result.energy == pytest.approx(energies.mean(), abs=TOLERANCE[dtype])
    np.testing.assert_allclose(result.forces, forces.mean(axis=0), rtol=0, atol=TOLERANCE[dtype])
    per_atom = np.sqrt(forces.var(axis=0).sum(axis=1))
    expected = [energies.std(), per_atom.max(), per_atom.mean()]
    np.testing.assert_allclose(result.spread, expected, rtol=0, atol=TOLERANCE[dtype])
    assert result.spread[0] > 1e-3


def test_crystal_smaller_than_the_cutoff(lammps: Lammps, tmp_path: Path) -> None:
    """Atoms see their own images; the virial is the strain derivative that Python's energies give."""
    atoms = Atoms(
        "CHCH", [[0.1, 0, 0], [1.3, 0.4, 0.2], [2.2, 2.0, 1.9], [0.3, 1.9, 2.6]], cell=[3.9, 4.1, 4.4], pbc=True
    )
    path = committee(tmp_path, "float64", [1, 2, 3, 4])
    model = Committee.load(path)
    energies, forces = model.energies_forces(frame(atoms))
    result = lammps.single_point(atoms, path)
    assert result.energy == pytest.approx(energies.mean(), abs=1e-8)
    np.testing.assert_allclose(result.forces, forces.mean(axis=0), rtol=0, atol=1e-8)
    for component, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]):
        strained = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * 1e-5
            image = atoms.copy()
            image.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.append(model.energies_forces(frame(image))[0].mean())
        assert result.virial[component] == pytest.approx(-(strained[0] - strained[1]) / 2e-5, abs=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dynamics_conserves_the_total_energy(lammps: Lammps, hydrocarbon: Atoms, tmp_path: Path, dtype: str) -> None:
    path = committee(tmp_path, dtype, [1, 2, 3, 4], strength=10.0)
    output = lammps.run(lammps.script(hydrocarbon, path) + NVE)
    rows = np.array([line.split()[1:] for line in output.splitlines() if line.startswith("total ")], dtype=float)
    total, kinetic, std = rows.T
    assert np.ptp(kinetic) > 0.05
    assert np.ptp(total) < 2e-3 * np.ptp(kinetic)
    assert (std > 1e-3).all()


def test_identical_members_do_not_disagree_at_all(lammps: Lammps, hydrocarbon: Atoms, tmp_path: Path) -> None:
    for dtype in ("float32", "float64"):
        result = lammps.single_point(hydrocarbon, committee(tmp_path, dtype, [5, 5, 5]))
        assert (result.spread == 0.0).all()
