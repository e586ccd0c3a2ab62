"""The repulsive core in LAMMPS: against LAMMPS's own ZBL, against Python, and what it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from rareal.export.modelfile import Committee, write
from rareal.models import ani, zbl
from rareal.records import Frame
from rareal.testing.lammps import Lammps

CORE = zbl.ZBL()


def committee(folder: Path, dtype: str, core: zbl.ZBL | None) -> Path:
    path = folder / f"{dtype}-{core is not None}.pt"
    small = ani.Config(hidden={"C": (16, 8), "H": (16, 8)})
    write(ani.build(small, ("C", "H"), [1, 2, 3]), path, [-38.0, -13.0], dtype=dtype, repulsion=core)
    return path


@pytest.fixture
def squeezed() -> Atoms:
    """Eight atoms, several pairs of them far within each other's core."""
    places = np.array([[x, y, z] for x in (0, 0.8) for y in (0, 0.9) for z in (0, 1.0)])
    places += np.random.default_rng(2).uniform(-0.1, 0.1, places.shape)
    atoms = Atoms("CHCHHCHC", places + 5.0, cell=[12, 12, 12], pbc=True)
    assert CORE.energy_forces(frame(atoms))[0] > 1.0
    return atoms


def frame(atoms: Atoms) -> Frame:
    return Frame(atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), tuple(atoms.pbc))


@pytest.mark.parametrize("symbols", ["CC", "CH", "HH"])
def test_force_of_the_universal_potential_is_that_of_lammps(lammps: Lammps, symbols: str) -> None:
    """Inside LAMMPS's inner cutoff its force has no switch in it."""
    for distance in (0.2, 0.5, 1.0):
        atoms = Atoms(symbols, [[5, 5, 5], [5 + distance, 5, 5]], cell=[20, 20, 20], pbc=False)
        coeff = "pair_coeff 1 1 6 6\npair_coeff 2 2 1 1\npair_coeff 1 2 6 1"
        script = lammps.script(atoms, Path("none"), style="zbl 2.0 2.5", coeff=coeff)
        lammps.run(script + "run 0\nwrite_dump all custom forces.dump id fx modify sort id format float %20.15g\n")
        force = np.loadtxt(lammps.folder / "forces.dump", skiprows=9)[0, 1]
        z1, z2 = atoms.numbers.astype(float)
        slope = zbl.screened(np.array([distance]), z1, z2)[1][0]
        # the rest is LAMMPS's own e², given to six digits
        assert slope == pytest.approx(force, rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_squeezed_atoms_in_lammps_and_python(
    lammps: Lammps, squeezed: Atoms, tmp_path: Path, dtype: str, ranks: int
) -> None:
    with_core, without = (committee(tmp_path, dtype, core) for core in (CORE, None))
    energies, forces = Committee.load(with_core).energies_forces(frame(squeezed))
    result = lammps.single_point(squeezed, with_core, ranks=ranks)
    tolerance = {"float32": 1e-6, "float64": 1e-11}[dtype] * np.abs(forces).max()
    assert result.energy == pytest.approx(energies.mean(), abs=tolerance)
    np.testing.assert_allclose(result.forces, forces.mean(axis=0), rtol=0, atol=tolerance)
    bare = lammps.single_point(squeezed, without, ranks=ranks)
    assert bare.spread[0] > 1e-3
    np.testing.assert_allclose(result.spread, bare.spread, rtol=0, atol=tolerance)
    core_energy, core_forces = CORE.energy_forces(frame(squeezed))
    assert result.energy - bare.energy == pytest.approx(core_energy, abs=tolerance)
    np.testing.assert_allclose(result.forces - bare.forces, core_forces, rtol=0, atol=2 * tolerance)


COLLISION = """
velocity all set 0 0 0
group right id 2
velocity right set {speed} 0 0
timestep 0.00002
fix integrate all nve
compute bond all pair/local dist
compute nearest all reduce min c_bond inputs local
variable energy equal etotal
fix log all print 1 "near $(c_nearest:%.10g) $(v_energy:%.10g)" screen yes
thermo_style custom step c_nearest etotal
run 1500
"""


def test_an_untrained_committee_cannot_fuse_two_atoms(lammps: Lammps, tmp_path: Path) -> None:
    """A hydrogen of 5 eV hits a carbon head-on: untrained networks let it through, the core turns it back."""
    atoms = Atoms("CH", [[10, 10, 10], [11.5, 10, 10]], cell=[40, 20, 20], pbc=False)
    speed = -np.sqrt(2 * 5.0 / (1.008 * 1.0364269e-4))  # Å/ps
    nearest = {}
    for core in (None, CORE):
        script = lammps.script(atoms, committee(tmp_path, "float64", core))
        output = lammps.run(script + COLLISION.format(speed=speed))
        rows = np.array([line.split()[1:] for line in output.splitlines() if line.startswith("near ")], dtype=float)
        nearest[core] = rows[:, 0].min()
        if core is not None:
            # the collision is elastic, and over: the atoms part again
            assert rows[-1, 0] > nearest[core] + 0.2
            assert np.ptp(rows[:, 1]) < 0.01
    assert nearest[None] < 0.2
    assert nearest[CORE] > 0.4
