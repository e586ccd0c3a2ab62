"""The pull's script on potentials with known answers: work, collective variable, engine against LAMMPS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rareal import cv
from rareal.errors import RunFolderError, SamplingError
from rareal.plugin import lmp_command
from rareal.protocols import Engine
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling import lammps, steered
from rareal.sampling.reference import EngineSampler, archive
from rareal.testing.engines import Bond, Faulty, MorseChain

BOND = Bond(0, 1, depth=4.0, steepness=1.9, length=1.5)
START = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0.3, 0.2, 1.48]]))
CV = cv.Distance((0, 1))
MORSE = f"""\
pair_style morse 8.0
pair_coeff * * {BOND.depth} {BOND.steepness} {BOND.length}
variable energy_std equal 0.0
variable force_std_max equal 0.0
variable force_std_mean equal 0.0
variable committee_bias equal 0.0"""


def config(**settings: float) -> steered.Config:
    return steered.Config.model_validate({"steps": 2000, "relaxation_steps": 200, **settings})


def pull(folder: Path, settings: steered.Config, seed: int = 5, start: Frame = START) -> Trajectory:
    """One pull by LAMMPS's own Morse potential."""
    sampler, walker = steered.build(settings, [CV], start), Walker(0, seed, start)
    sampler.prepare(folder, walker, MORSE)
    run = sampler.run(folder, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0)
    return sampler.collect(run, walker)


def engine_pulls(
    folder: Path, settings: steered.Config, engine: Engine, seeds: Sequence[int] = (5,), start: Frame = START
) -> list[Trajectory]:
    """The same pulls by an engine."""
    walkers = [Walker(k, seed, start) for k, seed in enumerate(seeds)]
    return EngineSampler(steered.build(settings, [CV], start), engine).sample(folder, walkers)


def thermo(folder: Path) -> dict[str, Array]:
    """Thermodynamic output of the pull proper."""
    lines = (folder / lammps.LOG).read_text().splitlines()
    head = max(k for k, line in enumerate(lines) if line.split()[:2] == ["Step", "Temp"])
    rows = []
    for line in lines[head + 1 :]:
        if line.startswith("Loop"):
            break
        rows.append([float(word) for word in line.split()])
    return dict(zip(lines[head].split(), np.array(rows).T, strict=True))


@pytest.mark.parametrize("velocity", [0.001, -0.0005], ids=["apart", "together"])
def test_work_is_the_energy_that_the_atoms_and_the_spring_gain(tmp_path: Path, velocity: float) -> None:
    settings = config(velocity=velocity, damping=1e9)
    trajectory = pull(tmp_path, settings)
    table = thermo(tmp_path)
    end_of_spring = table["v_cv"][0] + velocity * settings.timestep * table["Step"]
    stored = 0.5 * settings.spring * (end_of_spring - table["v_cv"]) ** 2
    gained = table["TotEng"] - table["TotEng"][0] + stored
    assert trajectory.note == ""
    assert np.max(gained) > 0.5
    assert table["v_work"] == pytest.approx(gained, abs=0.01)
    assert trajectory.work[table["Step"].astype(int)] == pytest.approx(table["v_work"], abs=1e-6)


def test_slow_work_is_the_potential(tmp_path: Path) -> None:
    """Up to the break a slow pull costs the bond's and the spring's energy, nothing else."""
    settings = config(velocity=0.0002, steps=6000, temperature=0.1)
    trajectory = pull(tmp_path, settings)
    stored = 0.5 * BOND.slope(trajectory.cv) ** 2 / settings.spring
    rows = slice(0, None, 100)
    assert trajectory.cv[-1] > BOND.length + 0.2
    assert trajectory.work[rows] == pytest.approx((BOND.energy(trajectory.cv) + stored)[rows], abs=0.01)


def test_trajectory_is_of_one_piece(tmp_path: Path) -> None:
    trajectory = pull(tmp_path, config(steps=50))
    assert trajectory.steps.tolist() == list(range(51))
    assert trajectory.cv == pytest.approx(CV.value(trajectory.positions), abs=1e-8)
    assert trajectory.energy == pytest.approx(BOND.energy(trajectory.cv) - BOND.depth, abs=1e-7)
    assert trajectory.work[0] == 0.0


def test_engine_in_lammps_follows_lammps_s_own_potential(tmp_path: Path) -> None:
    """Same script, same seed; `fix external` with the engine instead of the pair style.

    A Berendsen thermostat that works would spin a molecule of two atoms up out of rounding errors.
    """
    settings = config(damping=1e9)
    own = pull(tmp_path / "own", settings)
    (other,) = engine_pulls(tmp_path / "reference", settings, MorseChain((BOND,)))
    assert other.note == ""
    assert other.positions == pytest.approx(own.positions, abs=1e-5)
    assert other.work == pytest.approx(own.work, abs=1e-5)
    assert other.energy - BOND.depth == pytest.approx(own.energy, abs=1e-5)
    assert CV.value(other.positions)[-1] > 2.0


def test_seeds_differ_in_their_velocities_only(tmp_path: Path) -> None:
    start = Frame(np.array([6, 6, 6]), np.array([[0.0, 0, 0], [0, 0, 1.5], [1.3, 0, 0.75]]))
    pulls = [pull(tmp_path / str(k), config(steps=20), seed, start) for k, seed in enumerate((5, 5, 6))]
    first, same, second = pulls
    assert np.array_equal(first.positions, same.positions)
    assert not np.allclose(first.positions, second.positions, atol=1e-4)


def test_reference_continues_seed_by_seed(tmp_path: Path) -> None:
    settings = config(steps=20, relaxation_steps=20)
    (first,) = engine_pulls(tmp_path, settings, MorseChain((BOND,)))
    kept = archive(tmp_path, 5).stat().st_mtime_ns
    again, second = engine_pulls(tmp_path, settings, MorseChain((BOND,)), (5, 6))
    assert archive(tmp_path, 5).stat().st_mtime_ns == kept
    assert np.array_equal(first.positions, again.positions)
    assert (again.walker, second.walker, second.seed) == (0, 1, 6)


def test_reference_of_another_engine_is_refused(tmp_path: Path) -> None:
    settings = config(steps=20, relaxation_steps=20)
    engine_pulls(tmp_path, settings, MorseChain((BOND,)))
    with pytest.raises(RunFolderError, match="another engine, protocol or structure"):
        engine_pulls(tmp_path, settings, MorseChain((BOND,), hash="other"))
    with pytest.raises(RunFolderError, match="another engine, protocol or structure"):
        engine_pulls(tmp_path, config(steps=21), MorseChain((BOND,)))


@pytest.mark.parametrize("fault", ["refuse", "crash"])
def test_engine_that_fails_ends_the_reference(tmp_path: Path, fault: str) -> None:
    start = Frame(START.numbers, START.positions, origin=fault)
    with pytest.raises(SamplingError, match="the engine failed at step 0: (will not|somebody's bug)"):
        engine_pulls(tmp_path, config(), Faulty(), start=start)
    assert not archive(tmp_path, 5).exists()
