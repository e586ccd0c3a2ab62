"""What the pair style keeps between steps: the same forces as without, whatever LAMMPS does to its atoms; no growth."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from rareal.export.modelfile import Committee, write
from rareal.models import ani
from rareal.records import Frame
from rareal.testing.lammps import Lammps, random_atoms

RUN = """
compute spread all pair mlensemble
compute stress all pressure NULL pair
velocity all create 600 4711 mom yes
timestep 0.0005
neighbor {skin} bin
neigh_modify every 1 delay 0 check yes {modify}
fix integrate all nve
thermo_style custom step pe c_spread[1] c_spread[2] c_stress[1]
thermo 10
run {steps}
write_dump all custom last.dump id xu yu zu fx fy fz modify sort id format float %20.15g
print "last $(pe:%20.15g) $(c_spread[1]:%20.15g) $(c_spread[2]:%20.15g) $(c_stress[1]:%20.15g)"
"""


@pytest.fixture(scope="module")
def committee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strong enough to move atoms about."""
    path = tmp_path_factory.mktemp("large") / "ani.pt"
    model = ani.build(ani.Config(hidden={"C": (40, 24), "H": (48, 16)}), ("C", "H"), [1, 2, 3, 4])
    for network in model.networks:
        network.weights[-1].data *= 10.0
    write(model, path, [-45.0, -13.0], dtype="float64")
    return path


@pytest.fixture(scope="module")
def liquid() -> Atoms:
    """Ethanes in a periodic box, a hundred and more atoms."""
    rng = np.random.default_rng(4)
    atoms = Atoms(cell=[14.0, 13.0, 12.5], pbc=True)
    for place in np.stack(np.meshgrid(*(np.arange(3),) * 3, indexing="ij"), -1).reshape(-1, 3)[:16]:
        part = molecule("C2H6")
        part.rotate(rng.uniform(0, 180), rng.normal(size=3))
        part.positions += (place + 0.5) * [14 / 3, 13 / 3, 12.5 / 3]
        atoms += part
    return atoms


def last(lammps: Lammps, output: str) -> tuple[np.ndarray, np.ndarray]:
    """What `RUN` says of the last step: energy, deviations, pressure; positions and forces by id."""
    found = re.search(r"^last (.+)$", output, re.MULTILINE)
    assert found
    return np.array(found[1].split(), dtype=float), np.loadtxt(lammps.folder / "last.dump", skiprows=9)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("newton", ["on", "off"])
def test_kept_candidates_are_a_list_rebuilt_at_every_step(
    lammps: Lammps, liquid: Atoms, committee: Path, ranks: int, newton: str
) -> None:
    """40 steps, in which the list is rebuilt now and then, against a list that is rebuilt always."""
    script = lammps.script(liquid, committee, newton=newton)
    kept = lammps.run(script + RUN.format(skin=0.6, modify="", steps=40), ranks)
    builds = re.search(r"Neighbor list builds = (\d+)", kept)
    assert builds
    assert 1 <= int(builds[1]) < 40
    values, atoms = last(lammps, kept)
    always = lammps.run(script + RUN.format(skin=0.6, modify="", steps=40).replace("check yes", "check no"), ranks)
    assert "Neighbor list builds = 40" in always
    expected, expected_atoms = last(lammps, always)
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(atoms, expected_atoms, rtol=0, atol=1e-9)
    assert np.ptp(atoms[:, 4:]) > 0.5


def test_sorted_atoms_are_the_atoms(lammps: Lammps, liquid: Atoms, committee: Path) -> None:
    """LAMMPS reorders its atoms at every rebuild; the forces at the end are those that Python finds there."""
    sort = "atom_modify sort 1 3.0"
    output = lammps.run(lammps.script(liquid, committee, before_data=sort) + RUN.format(skin=0.3, modify="", steps=40))
    values, atoms = last(lammps, output)
    frame = Frame(liquid.numbers.astype(np.int64), atoms[:, 1:4], np.array(liquid.cell), (True, True, True))
    energies, forces = Committee.load(committee).energies_forces(frame)
    assert values[0] == pytest.approx(energies.mean(), abs=1e-8)
    assert values[1] == pytest.approx(energies.std(), abs=1e-8)
    np.testing.assert_allclose(atoms[:, 4:], forces.mean(axis=0), rtol=0, atol=1e-8)


def test_atoms_that_go_between_two_runs(lammps: Lammps, liquid: Atoms, committee: Path) -> None:
    """No rebuild is due by distance; the second run must not go on with the first one's atoms."""
    delete = "group gone id 1:8\ndelete_atoms group gone compress no\n"
    second = "run 5\nwrite_dump all custom last.dump id xu yu zu fx fy fz modify sort id format float %20.15g\n"
    output = lammps.run(lammps.script(liquid, committee) + RUN.format(skin=2.0, modify="", steps=5) + delete + second)
    assert "Deleted 8 atoms" in output
    atoms = np.loadtxt(lammps.folder / "last.dump", skiprows=9)
    frame = Frame(liquid.numbers[8:].astype(np.int64), atoms[:, 1:4], np.array(liquid.cell), (True, True, True))
    forces = Committee.load(committee).energies_forces(frame)[1].mean(axis=0)
    np.testing.assert_allclose(atoms[:, 4:], forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["messages", "float64"])
def test_virial_is_the_sum_of_what_edges_give(
    lammps: Lammps, models: Callable[[str], Path], tilted: Atoms, name: str
) -> None:
    """Global virial from forces on owned atoms and ghosts, per-atom virial from edges: two ways to the same numbers."""
    result = lammps.single_point(tilted, models(name), ranks=2)
    np.testing.assert_allclose(result.virial, result.atomic_virial_sum, rtol=0, atol=1e-8)


def test_a_thousand_atoms_do_not_depend_on_blocks_and_threads(tmp_path: Path, committee: Path) -> None:
    """Atoms are evaluated in blocks, shared out among threads: nothing of a result depends on it."""
    import torch

    atoms = random_atoms(150, [11, 11, 11], periodic=True)
    large = atoms * (2, 2, 2)
    model = Committee.load(committee)

    def evaluate(frame_of: Atoms) -> tuple[np.ndarray, np.ndarray]:
        cell = np.array(frame_of.cell)
        return model.energies_forces(Frame(frame_of.numbers.astype(np.int64), frame_of.positions, cell, (True,) * 3))

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        energies, forces = evaluate(large)
        torch.set_num_threads(2)
        again, forces_again = evaluate(large)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(energies, again)
    np.testing.assert_array_equal(forces, forces_again)
    one, one_forces = evaluate(atoms)
    assert energies == pytest.approx(8 * one, abs=1e-6)
    np.testing.assert_allclose(forces, np.tile(one_forces, (1, 8, 1)), rtol=0, atol=1e-8)


def test_memory_does_not_grow(lammps: Lammps, liquid: Atoms, committee: Path) -> None:
    """The largest resident memory of 900 steps is that of the first 300, with rebuilds and deviations at every step."""
    output = lammps.run(
        lammps.script(liquid, committee)
        + RUN.format(skin=0.3, modify="", steps=100)
        + "run 200\ninfo memory\nrun 600\ninfo memory\n"
    )
    sizes = [float(x) for x in re.findall(r"Maximum resident set size: ([\d.]+)", output)]
    assert len(sizes) == 2, output
    assert sizes[1] - sizes[0] < 1.0
