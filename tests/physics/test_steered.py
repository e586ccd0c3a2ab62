"""Pulls by Colvars on potentials with known answers: to and fro, at several speeds, by a force, along a direction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_masses

from rareal import cv
from rareal.cv.angles import Angle, Dihedral
from rareal.plugin import lmp_command
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling import lammps, steered
from rareal.sampling.reference import EngineSampler
from rareal.sampling.restraint import read_values
from rareal.testing.engines import Bond, MorseChain
from rareal.units import ACCELERATION, KB

STIFFNESS, LENGTH = 20.0, 1.5
NOTHING = """\
pair_style zero 12.0
pair_coeff * *
variable energy_std equal 0.0
variable force_std_max equal 0.0
variable force_std_mean equal 0.0
variable committee_bias equal 0.0"""
HARMONIC = f"""\
{NOTHING}
group bond_a id 1
group bond_b id 2
fix bond bond_a spring couple bond_b {STIFFNESS} 0.0 0.0 0.0 {LENGTH}
fix_modify bond energy yes"""
"""A harmonic bond between the first two atoms."""

PAIR = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0.0, 0.0, LENGTH]]))


class Plain:
    """A distance that only Colvars can pull: nothing in it is for ``fix smd``."""

    name, unit, label, period, ends = "stretch", "Å", "distance", None, (0, 1)

    def value(self, positions: Array) -> Array:
        return cv.Distance((0, 1)).value(positions)

    def colvars(self) -> str:
        # the width must not change what a spring constant means
        return cv.Distance((0, 1)).colvars().replace("name cv", "name stretch\n  width 0.1")


def sampler(variable: Any = None, start: Frame = PAIR, **settings: Any) -> steered.SteeredMD:
    values = {"steps": 1000, "relaxation_steps": 200, "temperature": 1.0, "walkers": 1, **settings}
    return steered.build(steered.Config.model_validate(values), [variable or cv.Distance((0, 1))], start)


def drive(
    folder: Path, made: steered.SteeredMD, potential: str = HARMONIC, seed: int = 5, number: int = 0
) -> Trajectory:
    """One pull by LAMMPS with a closed-form potential."""
    walker = Walker(number, seed, made.start)
    made.prepare(folder, walker, potential)
    run = made.run(folder, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0)
    found = made.collect(run, walker)
    assert found.note == "", (folder / lammps.SCREEN).read_text()[-2000:]
    return found


def test_slow_stretch_of_a_harmonic_bond_there_and_back(tmp_path: Path) -> None:
    """Two springs in series: W = k_eff L²/2, and all of it comes back."""
    made = sampler(reverse=True, velocity=0.0005, steps=1200, turn_steps=100, frame_interval=7, temperature=0.01)
    found = drive(tmp_path, made)
    way = 0.0005 * 0.5 * 1204  # the steps are rounded up to a multiple of the interval
    effective = STIFFNESS * 10.0 / (STIFFNESS + 10.0)
    ways = made.ways(found)
    there, back = ways.works
    assert there == pytest.approx(0.5 * effective * way**2, abs=2e-3)
    assert back == pytest.approx(-there, abs=2e-3)
    assert found.work[0] == 0.0
    assert found.steps[-1] == 2 * 1204 + 105
    standing = (found.steps >= 1204) & (found.steps <= 1309)
    assert found.work[standing] == pytest.approx(there, abs=1e-12)
    extension = (found.cv - LENGTH)[standing].mean()
    assert extension == pytest.approx(way * 10.0 / (STIFFNESS + 10.0), rel=0.02)


@pytest.mark.parametrize("velocity", [0.001, -0.0005], ids=["apart", "together"])
def test_work_is_the_energy_that_atoms_and_spring_gain(tmp_path: Path, velocity: float) -> None:
    made = sampler(Plain(), velocity=velocity, damping=1e9, temperature=30.0, frame_interval=10)
    found = drive(tmp_path, made)
    words = [line.split() for line in (tmp_path / lammps.LOG).read_text().splitlines()]
    head = max(k for k, line in enumerate(words) if line[:2] == ["Step", "Temp"])
    end = next(k for k in range(head, len(words)) if words[k][:1] == ["Loop"])
    rows = np.array([[float(x) for x in line[:4]] for line in words[head + 1 : end] if line[0].isdigit()])
    length = found.cv[np.searchsorted(found.steps, rows[:, 0])]
    centre = cv.Distance((0, 1)).value(PAIR.positions) + velocity * 0.5 * rows[:, 0]
    stored = 0.5 * 10.0 * (centre - length) ** 2
    # the energy of the spring is not in LAMMPS's total energy
    gained = rows[:, 3] + stored - rows[0, 3] - stored[0]
    work = found.work[np.searchsorted(found.steps, rows[:, 0])]
    assert np.max(np.abs(gained)) > 0.15
    assert work == pytest.approx(gained, abs=0.004)


def test_work_is_what_colvars_itself_adds_up(tmp_path: Path) -> None:
    made = sampler(Plain(), velocity=0.001, steps=400)
    found = drive(tmp_path, made)
    theirs = read_values(tmp_path / "there.colvars.traj", "W_spring")
    centres = read_values(tmp_path / "there.colvars.traj", "x0_stretch")
    assert found.cv == pytest.approx(read_values(tmp_path / "there.colvars.traj", "stretch"), abs=1e-8)
    assert centres == pytest.approx(LENGTH + 0.0005 * np.arange(401), abs=1e-9)
    # by rectangles, where ours has trapezia
    assert found.work == pytest.approx(theirs, abs=10 * 0.0005 * 0.2)
    assert found.work[-1] > 0.1


def test_colvars_pulls_as_fix_smd_does(tmp_path: Path) -> None:
    settings = {"velocity": 0.0005, "steps": 1200, "temperature": 0.01, "relaxation_steps": 0}
    smd = drive(tmp_path / "smd", sampler(**settings))
    other = drive(tmp_path / "colvars", sampler(Plain(), **settings))
    assert smd.work[-1] > 0.25
    assert other.work == pytest.approx(smd.work, abs=2e-3)
    assert other.cv == pytest.approx(smd.cv, abs=2e-3)


def test_friction_of_a_dragged_particle(tmp_path: Path) -> None:
    """What is lost each way is gamma v L: twice as much at twice the speed, and nothing is gained."""
    start = Frame(np.array([6, 6, 6]), np.array([[0.0, 0, 0], [0.0, 0.0, 9.0], [0.0, 5.0, 5.0]]))
    along = {"atoms": [1], "direction": [3.0, 4.0, 0.0]}
    made = sampler(
        start=start, along=along, hold=[2], reverse=True, velocities=[0.01, 0.005], steps=400, turn_steps=100,
        thermostat="langevin", damping=5.0, frame_interval=10, temperature=1e-4, spring=50.0,
    )  # fmt: skip
    assert made.config.count == 2
    lost = []
    for number, velocity in enumerate((0.01, 0.005)):
        found = drive(tmp_path / str(number), made, NOTHING, number=number)
        friction = atomic_masses[6] / 5.0 * velocity / ACCELERATION
        there, back = made.ways(found).works
        # the spring's end is ahead by the friction over its constant when it turns
        assert (there + back) / 2 == pytest.approx(friction * 2.0, rel=0.05)
        lost.append((there + back) / 2)
        assert found.positions[:, 1] == pytest.approx(np.broadcast_to([0.0, 0.0, 9.0], (len(found), 3)))
        moved = found.positions[made.ways(found).turn // 10, 0]
        assert moved == pytest.approx(np.array([1.2, 1.6, 0.0]), abs=0.06)
    assert lost[0] / lost[1] == pytest.approx(2.0, rel=0.05)


def test_constant_force_stretches_by_force_over_stiffness(tmp_path: Path) -> None:
    made = sampler(
        mode="force", force=1.0, thermostat="langevin", damping=20.0, steps=1500, frame_interval=5, temperature=20.0
    )
    found = drive(tmp_path, made)
    late = found.cv[len(found) // 3 :]
    error = np.sqrt(KB * 20.0 / STIFFNESS / 8)  # some 8 independent stretches
    assert late.mean() - LENGTH == pytest.approx(1.0 / STIFFNESS, abs=4 * error)
    assert found.work == pytest.approx(1.0 * (found.cv - found.cv[0]), abs=1e-6)


def test_a_dihedral_is_turned_past_its_seam(tmp_path: Path) -> None:
    """Nothing hinders it: turned by more than half a turn, through 180 degrees, it takes no work and makes no jump."""
    start = Frame(np.full(4, 6), np.array([[1.5, 0.9, 0], [0.0, 0, 0], [0.0, 0, 1.5], [1.5, -0.9, 2.0]]))
    bonds = "\n".join(
        f"group pair{a}{b} id {a} {b}\ngroup one{a}{b} id {a}\ngroup two{a}{b} id {b}\n"
        f"fix tie{a}{b} one{a}{b} spring couple two{a}{b} 50.0 0.0 0.0 0.0 {np.linalg.norm(gap):.12f}\n"
        f"fix_modify tie{a}{b} energy yes"
        for a, b, gap in (
            (a + 1, b + 1, start.positions[a] - start.positions[b]) for a, b in ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3))
        )
    )
    made = sampler(
        Dihedral((0, 1, 2, 3)), start, spring="0.005 eV/deg^2", velocity="0.5 deg/fs", steps=1000, frame_interval=20,
        thermostat="langevin", damping=20.0, temperature=0.1, reverse=True, turn_steps=400,
    )  # fmt: skip
    found = drive(tmp_path, made, f"{NOTHING}\n{bonds}")
    turned = np.degrees(np.unwrap(np.radians(found.cv)))
    assert turned[found.steps == 1000] - turned[0] == pytest.approx(250.0, abs=5.0)
    assert turned[-1] == pytest.approx(turned[0], abs=5.0)
    there, back = made.ways(found).works
    assert np.abs(np.diff(found.work)).max() < 0.1  # a wrong turn of 360 degrees would cost hundreds of eV
    assert there == pytest.approx(back, rel=0.2)  # friction alone
    assert 0 < there < 2.0


def test_an_angle_is_bent(tmp_path: Path) -> None:
    """A bond between the outer atoms of a chain whose arms are stiff; the engine's own forces do the rest."""
    start = Frame(np.array([6, 6, 6]), np.array([[1.5, 0, 0], [0.0, 0, 0], [0.0, 1.5, 0]]))
    arms = tuple(Bond(0 + k, 1 + k, depth=40.0, steepness=2.0, length=1.5) for k in range(2))
    across = Bond(0, 2, depth=3.0, steepness=1.0, length=1.5 * np.sqrt(2))
    made = sampler(
        Angle((0, 1, 2)),
        start,
        spring="0.05 eV/deg^2",
        velocity="0.04 deg/fs",
        steps=1000,
        frame_interval=50,
        temperature=0.01,
    )
    (found,) = EngineSampler(made, MorseChain((*arms, across))).sample(tmp_path, [Walker(0, 5, start)])
    assert found.cv[-1] == pytest.approx(90 + 20, abs=0.5)
    stored = 0.5 * 0.05 * (90 + 0.04 * 0.5 * found.steps - found.cv) ** 2
    gained = found.energy - found.energy[0] + stored
    assert gained[-1] > 0.2
    assert found.work == pytest.approx(gained, abs=0.01)


@pytest.mark.parametrize("thermostat", ["berendsen", "langevin", "csvr"])
def test_what_is_held_does_not_move_and_the_rest_has_its_temperature(tmp_path: Path, thermostat: str) -> None:
    atoms = 16
    start = Frame(np.full(atoms, 6), np.random.default_rng(1).random((atoms, 3)) * 20)
    tied = f"{NOTHING}\nfix wells all spring/self 5.0"
    made = sampler(
        start=start, hold=list(range(1, 5)), thermostat=thermostat, temperature=300.0, damping=10.0, velocity=1e-9,
        steps=1500, relaxation_steps=500, timestep=1.0, spring=1e-6,
    )  # fmt: skip
    made = steered.build(made.config, [cv.Distance((4, 5))], start)
    found = drive(tmp_path, made, tied)
    assert np.array_equal(found.positions[:, :4], np.broadcast_to(found.positions[0, :4], (len(found), 4, 3)))
    moved = np.diff(found.positions[::1, 4:], axis=0) / 1.0
    temperature = atomic_masses[6] * (moved**2).mean() / (ACCELERATION * KB)
    assert temperature == pytest.approx(300.0, rel=0.12)
