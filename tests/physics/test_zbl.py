"""The repulsive core: the universal potential, its switch, its limits, and the same in TorchScript."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.units import Bohr, Hartree

from rareal.errors import ConfigError
from rareal.export.modelfile import Committee, write
from rareal.models import ani, zbl
from rareal.neighbours import all_edges
from rareal.records import Frame
from rareal.testing.springs import Springs
from rareal.training.config import Config as Training
from rareal.training.trainer import CommitteeTrainer

SMALL = ani.Config(hidden={"C": (8, 8), "H": (8, 8)})


@pytest.fixture
def core() -> zbl.ZBL:
    core = zbl.build(zbl.Config(), ("C", "H"))
    assert core is not None
    return core


def cluster(periodic: bool = False) -> Frame:
    """Atoms far too close to each other; as a crystal, also to their own images."""
    positions = np.array([[0.0, 0, 0], [0.9, 0.3, 0.1], [0.2, 1.1, 0.2], [0.4, 0.5, 0.9], [1.2, 1.1, 0.9]])
    numbers = np.array([6, 6, 1, 1, 6])
    if periodic:
        return Frame(numbers, positions, np.array([[1.9, 0, 0], [0.3, 1.7, 0], [0.1, 0.4, 2.0]]), (True, True, True))
    return Frame(numbers, positions)


def test_values_by_hand() -> None:
    """Two carbons at 0.5 Å, with pencil and paper: a = 0.46850 / (2 · 6^0.23) = 0.155137 Å, x = 3.22296."""
    phi = 0.18175 * 3.3200e-5 + 0.50986 * 0.047977 + 0.28022 * 0.272957 + 0.02817 * 0.522159
    value, slope = zbl.screened(np.array([0.5]), np.array([6.0]), np.array([6.0]))
    assert value[0] == pytest.approx(36 * 14.39965 / 0.5 * phi, rel=1e-4)
    # 36 e² / 0.5 Å is 1036.775 eV; nearly nine tenths of it are screened
    assert value[0] == pytest.approx(119.9, abs=0.1)
    assert slope[0] < 0


@pytest.mark.parametrize(("z1", "z2"), [(1, 1), (1, 6), (6, 8), (26, 79)])
def test_bare_nuclei_where_they_meet(core: zbl.ZBL, z1: int, z2: int) -> None:
    r = np.array([1e-7])
    energy, slope = core.pair(r, z1, z2)
    assert energy[0] == pytest.approx(z1 * z2 * Hartree * Bohr / r[0], rel=1e-5)
    assert slope[0] == pytest.approx(-z1 * z2 * Hartree * Bohr / r[0] ** 2, rel=1e-5)


@pytest.mark.parametrize(("z1", "z2"), [(1, 1), (1, 6), (6, 6)])
def test_pair_curve(core: zbl.ZBL, z1: int, z2: int) -> None:
    """It repels at every distance, its slope is the derivative, and beyond the outer radius there is nothing."""
    outer = core.outer(z1, z2)
    r = np.linspace(0.05, outer - 1e-3, 300)
    energy, slope = core.pair(r, z1, z2)
    h = 1e-6
    difference = (core.pair(r + h, z1, z2)[0] - core.pair(r - h, z1, z2)[0]) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7)
    assert (energy > 0).all()
    assert (slope < 0).all()
    beyond = core.pair(np.array([outer, outer + 1e-9, outer + 1.0]), z1, z2)
    assert np.abs(beyond).max() == 0.0


def test_second_derivative_is_continuous_at_the_outer_radius(core: zbl.ZBL) -> None:
    outer = core.outer(6, 6)

    def curvature(distance: float) -> float:
        r = outer - np.array([distance + 1e-6, distance - 1e-6])
        slopes = core.pair(r, 6, 6)[1]
        return float((slopes[1] - slopes[0]) / 2e-6)

    # a polynomial with a third-order zero: the curvature goes to zero in proportion to the distance
    assert curvature(1e-3) > 0.01
    assert curvature(2e-3) / curvature(1e-3) == pytest.approx(2.0, rel=0.05)
    assert curvature(1e-5) < 0.011 * curvature(1e-3)


def test_it_keeps_thermal_atoms_apart(core: zbl.ZBL) -> None:
    """Fusion costs far more than any thermal motion has, and stretched or relaxed bonds feel nothing."""
    for z1, z2 in product((1, 6, 8), repeat=2):
        half = 0.5 * core.outer(z1, z2)
        assert core.pair(np.array([half]), z1, z2)[0][0] > 5.0
    assert core.pair(np.array([1.09]), 6, 1)[0][0] == 0.0
    assert core.pair(np.array([1.53]), 6, 6)[0][0] == 0.0


@pytest.mark.parametrize("periodic", [False, True])
def test_forces(core: zbl.ZBL, periodic: bool) -> None:
    frame = cluster(periodic)
    energy, forces = core.energy_forces(frame)
    assert energy > 1.0
    np.testing.assert_allclose(forces.sum(0), 0.0, atol=1e-10)

    def displaced(atom: int, axis: int, step: float) -> float:
        positions = frame.positions.copy()
        positions[atom, axis] += step
        return core.energy_forces(Frame(frame.numbers, positions, frame.cell, frame.pbc))[0]

    for atom, axis in product(range(5), range(3)):
        slope = (displaced(atom, axis, 1e-5) - displaced(atom, axis, -1e-5)) / 2e-5
        assert forces[atom, axis] == pytest.approx(-slope, abs=1e-5, rel=1e-7)


@pytest.mark.parametrize("periodic", [False, True])
def test_script_is_the_same(core: zbl.ZBL, periodic: bool) -> None:
    """Energy, forces, and a virial that is the strain derivative."""
    frame = cluster(periodic)
    elements = ("C", "H")
    script = torch.jit.script(core.script(elements))
    species = torch.tensor([elements.index({6: "C", 1: "H"}[int(z)]) for z in frame.numbers])
    # a wider neighbour list than the core needs, as a model has it
    index, vectors = all_edges(frame, 4.0)
    atomic, gradients = script(species, index, vectors, 5)
    energy, forces = core.energy_forces(frame)
    assert float(atomic.sum()) == pytest.approx(energy, rel=1e-12)
    found = np.zeros((5, 3))
    np.add.at(found, index[0].numpy(), gradients.numpy())
    np.subtract.at(found, index[1].numpy(), gradients.numpy())
    np.testing.assert_allclose(found, forces, rtol=1e-10, atol=1e-9)
    single, _ = script.float()(species, index, vectors.float(), 5)
    assert float(single.sum()) == pytest.approx(energy, rel=1e-5)

    virial = torch.einsum("pa,pb->ab", vectors, gradients).numpy()
    for a, b in product(range(3), repeat=2):
        strained = []
        for step in (1e-6, -1e-6):
            strain = np.eye(3)
            strain[a, b] += step
            strained.append(
                core.energy_forces(Frame(frame.numbers, frame.positions @ strain, frame.cell @ strain, frame.pbc))[0]
            )
        assert virial[a, b] == pytest.approx((strained[0] - strained[1]) / 2e-6, rel=1e-5, abs=1e-4)


def test_ghosts_have_no_energy(core: zbl.ZBL) -> None:
    """Edges around ghost atoms, which message passing needs, do not count twice."""
    script = torch.jit.script(core.script(("C",)))
    index = torch.tensor([[0, 1], [1, 0]])
    vectors = torch.tensor([[0.7, 0, 0], [-0.7, 0, 0]], dtype=torch.float64)
    both, _ = script(torch.zeros(2, dtype=torch.long), index, vectors, 2)
    local, gradients = script(torch.zeros(2, dtype=torch.long), index, vectors, 1)
    assert local.tolist() == both[:1].tolist()
    assert gradients[0, 0] < 0
    assert not gradients[1].any()


def test_every_member_of_a_model_file_has_it(core: zbl.ZBL, tmp_path: Path) -> None:
    model = ani.build(SMALL, ("C", "H"), [1, 2, 3])
    frame = cluster()
    plain, full = tmp_path / "plain.pt", tmp_path / "full.pt"
    write(model, plain, [-1.0, -2.0], dtype="float64", check=[frame])
    metadata = write(model, full, [-1.0, -2.0], dtype="float64", check=[frame], repulsion=core)
    assert metadata.repulsion == {"kind": "zbl", "factor": 1.0}
    reloaded = Committee.load(full)
    assert json.loads(json.dumps(reloaded.metadata.repulsion)) == metadata.repulsion
    assert Committee.load(plain).metadata.repulsion is None
    without, with_core = Committee.load(plain).energies_forces(frame), reloaded.energies_forces(frame)
    energy, forces = core.energy_forces(frame)
    np.testing.assert_allclose(with_core[0] - without[0], energy, atol=1e-9)
    np.testing.assert_allclose(with_core[1] - without[1], np.tile(forces, (3, 1, 1)), atol=1e-8)
    assert with_core[0].std() == pytest.approx(without[0].std(), abs=1e-10)
    write(model, full, [-1.0, -2.0], dtype="float32", check=[frame], repulsion=core)


def test_a_core_wider_than_the_cutoff_is_refused(core: zbl.ZBL, tmp_path: Path) -> None:
    model = ani.build(ani.Config(hidden={}), ("Cs", "H"), [1])
    wide = zbl.ZBL(2.0)
    with pytest.raises(ConfigError, match=r"repulsion\.factor: the core of Cs-Cs ends at 9\.76 Å.*factor to 1\.04"):
        write(model, tmp_path / "model.pt", [0.0, 0.0], dtype="float32", repulsion=wide)
    core.check_cutoff(("Cs", "H"), model.cutoff)


def test_training_learns_what_the_core_leaves(tmp_path: Path) -> None:
    """A core so wide that it is most of the energy, under labels that know none: model file and labels agree."""
    core = zbl.ZBL(1.6)
    data = Springs().shaken(80)
    share = [core.energy_forces(f.frame)[0] for f in data]
    assert np.std(share) > 0.2
    config = Training.model_validate({"members": 2, "epochs": 40, "batch_size": 8, "threads": 1})
    small = ani.Config(hidden={"O": (32, 16), "H": (32, 16)})
    trainer = CommitteeTrainer(config, ("O", "H"), lambda e, s: ani.build(small, e, s), write, "float32", core)
    mask = np.random.default_rng(1).random((2, 80)) < 0.8
    trainer.train(data, mask, None, tmp_path, [1, 2, 3], "hash")
    committee = Committee.load(tmp_path / "model.pt")
    assert committee.metadata.repulsion == core.settings()
    test = Springs().shaken(20, seed=9)
    errors = [committee.energies_forces(f.frame)[0].mean() - f.label.energy for f in test]
    assert np.abs(errors).mean() < 0.1 * np.std(share)


def test_configuration() -> None:
    assert zbl.build(zbl.NoneConfig(), ("C",)) is None
    built = zbl.build(zbl.Config(factor=0.8), ("C",))
    assert built is not None
    assert built.outer(6, 1) == pytest.approx(0.8 * (0.76 + 0.31))


def test_reading_the_configuration_loads_no_torch() -> None:
    code = "import sys, rareal.models.zbl; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
