"""Commands around a committee as `rareal export --random` writes it, of full size, instead of a toy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

import rareal
from rareal.export.modelfile import Committee
from rareal.plugin import lmp_environment
from rareal.records import Frame
from rareal.testing.lammps import Lammps
from rareal.untrained import write_untrained

CORE = "pair_coeff 1 1 {0} 6 6\npair_coeff 1 2 {0} 6 1\npair_coeff 2 2 {0} 1 1\n"
OVERLAY = "hybrid/overlay mlensemble zbl 0.8 1.6"
WALL = "hybrid/overlay mlensemble zbl 0.8 1.6 lj/cut 6.0"
START = "neigh_modify every 1 delay 0 check no\nvelocity all create 600 4711 mom yes\ntimestep 0.0005\n"
MOVE = START + "fix integrate all nve\nrun 6\n"
BAROSTAT = START + "fix integrate all npt temp 600 600 0.05 aniso 0 0 0.1\nrun 6\n"
END = """
compute spread all pair mlensemble
thermo_style custom step pe c_spread[*]
run 3
print "end $(pe:%20.15g) $(c_spread[1]:%20.15g) $(c_spread[2]:%20.15g)"
print "box $(lx:%20.15g) $(ly:%20.15g) $(lz:%20.15g)"
write_dump all custom end.dump id type x y z fx fy fz modify sort id format float %20.15g
"""


@pytest.fixture(scope="module")
def committee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("random") / "ani.pt"
    write_untrained(path, "ani", ("C", "H"), members=3, dtype="float64", seed=2)
    return path


@pytest.fixture
def liquid() -> Atoms:
    """Four ethanes in a periodic box narrower than two cutoffs."""
    rng = np.random.default_rng(5)
    atoms = Atoms(cell=[8.6, 8.8, 7.0], pbc=True)
    for place in ([2, 2, 2], [6.4, 2, 5], [2, 6.4, 5], [6.4, 6.4, 2]):
        part = molecule("C2H6")
        part.rotate(rng.uniform(0, 180), rng.normal(size=3))
        part.positions += place
        atoms += part
    return atoms


def ends(lammps: Lammps, output: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `END` says: energy and deviations, the box, and the table of atoms."""
    found = [re.search(rf"^{word} (.+)$", output, re.MULTILINE) for word in ("end", "box")]
    assert all(found), output
    end, box = (np.array(line[1].split(), dtype=float) for line in found if line)
    return end, box, np.loadtxt(lammps.folder / "end.dump", skiprows=9)


@pytest.mark.parametrize(("action", "overlay"), [
    (MOVE, False), (MOVE, True), (BAROSTAT, True), ("replicate 2 1 1\n" + MOVE, False),
    (MOVE + "group gone id 3:9 20\ndelete_atoms group gone compress no\n", True),
    (MOVE + "set atom 5 type 1\n", False), ("minimize 0 0 3 9\n", True),
], ids=["sorted", "core", "npt", "replicate", "delete", "set", "minimize"])  # fmt: skip
@pytest.mark.parametrize(("ranks", "newton"), [(1, "on"), (2, "off")])
def test_what_lammps_does_between(
    action: str, overlay: bool, ranks: int, newton: str, lammps: Lammps, committee: Path, liquid: Atoms
) -> None:
    """After every action energies and forces are those that Python finds for the atoms that are there then."""
    options = {"newton": newton, "before_data": "atom_modify sort 1 3.0"}
    if overlay:
        coeff = f"pair_coeff * * mlensemble {committee} C H\n" + CORE.format("zbl")
        script = lammps.script(liquid, committee, style=OVERLAY, coeff=coeff, **options)  # type: ignore[arg-type]
    else:
        script = lammps.script(liquid, committee, **options)  # type: ignore[arg-type]
    end, box, table = ends(lammps, lammps.run(script + action + END, ranks))
    forces = table[:, 5:]
    if overlay:
        # the core alone, at the places where the run ended
        atoms = Atoms([("C", "H")[int(t) - 1] for t in table[:, 1]], table[:, 2:5], cell=box, pbc=True)
        core = lammps.script(atoms, committee, style="zbl 0.8 1.6", coeff=CORE.format(""), newton=newton)
        core += 'run 0\nprint "core $(pe:%20.15g)"\n'
        output = lammps.run(core + "write_dump all custom core.dump id fx fy fz modify sort id format float %20.15g\n")
        found = re.search(r"^core (.+)$", output, re.MULTILINE)
        assert found
        assert float(found[1]) > 0.1
        end[0] -= float(found[1])
        forces -= np.loadtxt(lammps.folder / "core.dump", skiprows=9)[:, 1:]
    numbers = np.array([6, 1])[table[:, 1].astype(int) - 1]
    frame = Frame(numbers.astype(np.int64), table[:, 2:5], np.diag(box), (True, True, True))
    energies, expected = Committee.load(committee).energies_forces(frame)
    std = np.sqrt(expected.var(axis=0).sum(axis=1))
    np.testing.assert_allclose(end, [energies.mean(), energies.std(), std.max()], rtol=0, atol=1e-8)
    np.testing.assert_allclose(forces, expected.mean(axis=0), rtol=0, atol=1e-8)
    assert np.abs(expected.mean(axis=0)).max() > 0.001  # a random committee is weak
    if "npt" in action:
        assert np.abs(box - liquid.cell.lengths()).max() > 1e-4


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_of_another_style(ranks: int, lammps: Lammps, committee: Path, liquid: Atoms) -> None:
    """Argon, NULL to the committee, moves through the box: the committee sees the molecules as if it were not there."""
    argon = Atoms("Ar2", [[4.3, 4.4, 3.5], [0.2, 0.1, 6.8]])
    lammps.elements = ["C", "H", "Ar"]
    coeff = f"pair_coeff * * mlensemble {committee} C H NULL\n" + CORE.format("zbl")
    coeff += "pair_coeff 1*3 3 lj/cut 1e-4 2.5\n"
    script = lammps.script(liquid + argon, committee, style=WALL, coeff=coeff, before_data="atom_modify sort 1 3.0")
    script += MOVE + "compute ml all pair mlensemble epair\n" + END.replace("$(pe:", "$(c_ml:")
    end, box, table = ends(lammps, lammps.run(script, ranks))
    molecules = table[:, 1] < 3
    assert np.count_nonzero(molecules) == len(liquid)
    numbers = np.array([6, 1])[table[molecules, 1].astype(int) - 1]
    frame = Frame(numbers.astype(np.int64), table[molecules, 2:5], np.diag(box), (True, True, True))
    energies, forces = Committee.load(committee).energies_forces(frame)
    std = np.sqrt(forces.var(axis=0).sum(axis=1))
    np.testing.assert_allclose(end, [energies.mean(), energies.std(), std.max()], rtol=0, atol=1e-8)


def test_types_that_a_program_changes(lammps: Lammps, committee: Path, liquid: Atoms) -> None:
    """Types changed in LAMMPS's memory, without a new list of neighbours, count at once."""
    (lammps.folder / "in.start").write_text(lammps.script(liquid, committee) + "run 0\n")
    program = """
from rareal.plugin import load_mpi
load_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.file("in.start")
ids, types = lmp.extract_atom("id"), lmp.extract_atom("type")
for k in range(lmp.extract_global("nlocal") + lmp.extract_global("nghost")):
    if ids[k] == 3:
        types[k] = 1
lmp.command("run 1 pre no post no")
print("energy", repr(lmp.get_thermo("pe")))
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
    numbers = liquid.numbers.astype(np.int64)
    assert numbers[2] == 1
    numbers[2] = 6
    frame = Frame(numbers, liquid.positions, np.array(liquid.cell), (True, True, True))
    energies = Committee.load(committee).energies_forces(frame)[0]
    assert float(done.stdout.split("energy ")[1]) == pytest.approx(energies.mean(), abs=1e-8)
