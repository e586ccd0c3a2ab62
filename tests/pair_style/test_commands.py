"""Other commands around the pair style: restart, clear, two instances, replicate, sort, fix npt, a ZBL core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from toys import evaluate

import rareal
from rareal.plugin import lmp_environment
from rareal.testing.lammps import Lammps, random_atoms

STATE = """
compute spread all pair mlensemble
thermo_style custom step pe c_spread[*]
run 0
print "state $(pe:%20.15g) $(c_spread[1]:%20.15g) $(c_spread[2]:%20.15g) $(c_spread[6]:%20.15g)"
"""


def numbers(output: str, word: str) -> np.ndarray:
    rows = [line.split()[1:] for line in output.splitlines() if line.startswith(f"{word} ")]
    return np.array(rows, dtype=float).squeeze()


@pytest.mark.parametrize(("name", "ranks"), [("float64", 1), ("float64", 2), ("messages", 2)])
def test_restart_file_continues_the_run(
    name: str, ranks: int, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    """The restart file carries no pair style; with the same commands the trajectory goes on as it would have."""
    start = "velocity all create 600 4711 mom yes\ntimestep 0.0005\nfix integrate all nve\n"
    script = lammps.script(crystal, models(name)) + start + "run 20\nwrite_restart half.restart\nrun 20\n" + STATE
    whole = numbers(lammps.run(script, ranks), "state")
    pair = f"pair_style mlensemble\npair_coeff * * {models(name)} C H\n"
    again = "atom_modify map array\nread_restart half.restart\n" + pair
    again += "timestep 0.0005\nfix integrate all nve\nrun 20\n" + STATE
    np.testing.assert_allclose(numbers(lammps.run(again, ranks), "state"), whole, rtol=0, atol=1e-7)


@pytest.mark.parametrize("ranks", [1, 2])
def test_clear_and_start_again(ranks: int, lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    style = "mlensemble out_freq 1 halt force 1e3 halt_file good.dump"
    parts = [lammps.script(tilted, models(name), style=style) + STATE for name in ("float64", "messages", "float64")]
    states = numbers(lammps.run("clear\n".join(parts), ranks), "state")
    np.testing.assert_array_equal(states[0], states[2])
    for state, name in zip(states, ("float64", "messages"), strict=False):
        assert state[0] == pytest.approx(evaluate(models(name), tilted).energies.mean(), abs=1e-9)


def test_two_instances_in_one_process(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    """Side by side, closed in the other order, and one more after them."""
    names = ("float64", "messages")
    for name in names:
        (lammps.folder / f"in.{name}").write_text(lammps.script(tilted, models(name)) + "run 2\n")
    program = """
from rareal.plugin import load_mpi
load_mpi()
import lammps
quiet = ["-log", "none", "-screen", "none"]
first, second = lammps.lammps(cmdargs=quiet), lammps.lammps(cmdargs=quiet)
first.file("in.float64")
second.file("in.messages")
first.command("run 0")
print("energy", repr(first.get_thermo("pe")), repr(second.get_thermo("pe")))
first.close()
second.command("run 0")
second.close()
third = lammps.lammps(cmdargs=quiet)
third.file("in.float64")
print("energy", repr(third.get_thermo("pe")), 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=lammps.folder,
        env=lmp_environment() | {"PYTHONPATH": str(Path(rareal.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    energies = numbers(done.stdout, "energy")
    expected = [evaluate(models(name), tilted).energies.mean() for name in names]
    np.testing.assert_allclose(energies, [expected, [expected[0], 0]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("name", ["float64", "messages"])
def test_replicated_cell(name: str, ranks: int, lammps: Lammps, models: Callable[[str], Path], tiny: Atoms) -> None:
    """Eight cells: eight times the energy and its deviation, the same deviation of forces."""
    expected = evaluate(models(name), tiny)
    script = lammps.script(tiny, models(name)) + "replicate 2 2 2\n"
    energy, std, force, virial = numbers(lammps.run(script + STATE, ranks), "state")
    assert energy == pytest.approx(8 * expected.energies.mean(), abs=1e-8)
    assert std == pytest.approx(8 * expected.energy_std, abs=1e-8)
    assert force == pytest.approx(expected.force_std.max(), abs=1e-8)
    assert virial == pytest.approx(8 * np.sqrt((expected.virial_std**2).mean()), abs=1e-7)


@pytest.mark.parametrize(("name", "ranks", "sort"), [
    ("float64", 2, "0 0.0"), ("float64", 2, "1 1.5"), ("messages", 1, "1 1.5"), ("messages", 4, "1 1.5"),
])  # fmt: skip
def test_sorted_atoms_in_dynamics(
    name: str, ranks: int, sort: str, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    """Atoms change their places in memory at every rebuild of the list; what belongs to them goes along."""
    script = lammps.script(crystal, models(name), before_data=f"atom_modify sort {sort}")
    dynamics = """
neigh_modify every 1 delay 0 check no
velocity all create 900 4711 mom yes
timestep 0.0005
fix integrate all nve
fix deviation all pair 1 mlensemble fstd 1
run 10
write_dump all custom end.dump id xu yu zu fx fy fz f_deviation modify sort id format float %20.15g
"""
    lammps.run(script + dynamics, ranks)
    table = np.loadtxt(lammps.folder / "end.dump", skiprows=9)
    crystal.positions = table[:, 1:4]
    expected = evaluate(models(name), crystal)
    np.testing.assert_allclose(table[:, 4:7], expected.forces.mean(axis=0), rtol=0, atol=1e-8)
    np.testing.assert_allclose(table[:, 7], expected.force_std, rtol=0, atol=1e-8)


NPT = """
velocity all create 300 4711 mom yes
timestep {timestep}
fix integrate all npt temp 300 300 0.02 aniso 0 0 0.2
thermo_style custom step vol econserve
variable volume equal vol
variable conserved equal econserve
fix log all print 1 "npt $(v_volume:%20.15g) $(v_conserved:%20.15g)" screen yes
run {steps}
"""


@pytest.mark.parametrize("name", ["float64", "messages"])
def test_constant_pressure_conserves_its_energy(name: str, lammps: Lammps, models: Callable[[str], Path]) -> None:
    """Halving the time step quarters the fluctuation of the extended energy, while the box moves.

    The box is orthogonal: LAMMPS scales tilt factors along without counting the work of the shear stress.
    """
    atoms = random_atoms(40, [7, 7, 7], periodic=True)
    fluctuation = []
    for timestep, steps in ((0.0002, 60), (0.0001, 120)):
        script = lammps.script(atoms, models(name)) + NPT.format(timestep=timestep, steps=steps)
        volume, conserved = numbers(lammps.run(script), "npt").T
        assert np.ptp(volume) > 10
        fluctuation.append(np.ptp(conserved))
    assert fluctuation[0] < 0.01
    assert fluctuation[1] < fluctuation[0] / 3


@pytest.mark.parametrize("ranks", [1, 2])
def test_zbl_core_in_an_overlay(ranks: int, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    core = "\n".join(
        f"pair_coeff {i} {j} {{}} {zi} {zj}" for i, j, zi, zj in ((1, 1, 6, 6), (1, 2, 6, 1), (2, 2, 1, 1))
    )
    both = f"pair_coeff * * mlensemble {models('float64')} C H\n" + core.format("zbl", "zbl", "zbl")
    dump = "run 0\nwrite_dump all custom forces.dump id fx fy fz modify sort id format float %20.15g\n"
    forces = []
    for style, coeff in (("hybrid/overlay mlensemble zbl 1.0 1.5", both), ("zbl 1.0 1.5", core.format("", "", ""))):
        lammps.run(lammps.script(crystal, models("float64"), style=style, coeff=coeff) + dump, ranks)
        forces.append(np.loadtxt(lammps.folder / "forces.dump", skiprows=9)[:, 1:])
    assert np.abs(forces[1]).max() > 1.0
    expected = evaluate(models("float64"), crystal).forces.mean(axis=0)
    np.testing.assert_allclose(forces[0] - forces[1], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["float64", "messages"])
@pytest.mark.parametrize("ranks", [1, 4])
def test_deleted_atoms(name: str, ranks: int, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    """Half a box is emptied between two runs: nothing remembers the atoms that were there, on any process."""
    script = lammps.script(crystal, models(name), newton="off" if ranks == 4 else "on")
    script += "neigh_modify every 1 delay 0 check no\nvelocity all create 300 1 mom yes\ntimestep 0.0005\n"
    script += "fix integrate all nve\nrun 3\ngroup gone id 1:17:2 20 41:60\ndelete_atoms group gone compress no\n"
    script += 'run 0\nprint "energy $(pe:%20.15g)"\n'
    script += "write_dump all custom left.dump id xu yu zu fx fy fz modify sort id format float %20.15g\n"
    output = lammps.run(script, ranks)
    table = np.loadtxt(lammps.folder / "left.dump", skiprows=9)
    gone = {*range(1, 18, 2), 20, *range(41, 61)}
    left = [k for k in range(len(crystal)) if k + 1 not in gone]
    assert table[:, 0].tolist() == [k + 1 for k in left]
    fewer = crystal[left]
    fewer.positions = table[:, 1:4]
    expected = evaluate(models(name), fewer)
    assert numbers(output, "energy") == pytest.approx(expected.energies.mean(), abs=1e-8)
    np.testing.assert_allclose(table[:, 4:7], expected.forces.mean(axis=0), rtol=0, atol=1e-8)
