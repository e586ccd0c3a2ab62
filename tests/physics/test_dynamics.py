"""Plain MD on potentials with known statistics: oscillator, double well, gas at constant pressure, ramps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rareal.plugin import lmp_command
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling import lammps, md
from rareal.sampling.histogram import barrier, density, profile
from rareal.sampling.trajectory import read_table
from rareal.schema import Misfit
from rareal.units import KB

NOTHING = """\
pair_style zero 12.0
pair_coeff * *
variable energy_std equal 0.0
variable force_std_max equal 0.0
variable force_std_mean equal 0.0
variable committee_bias equal 0.0"""
TIED = f"""\
{NOTHING}
fix wells all spring/self 10.0
fix_modify wells energy yes"""
"""Every atom in a harmonic well of 10 eV/Å²."""

ATOMS = Frame(np.full(30, 6), 20.0 * np.random.default_rng(1).random((30, 3)))


class Coordinate:
    """The x coordinate of the first atom."""

    name, unit, label, period, ends = "x", "Å", "x", None, None

    def value(self, positions: Array) -> Array:
        first: Array = positions[..., 0, 0]
        return first

    def colvars(self) -> str:
        return ""


def sampler(start: Frame = ATOMS, variable: Any = None, **settings: Any) -> md.MolecularDynamics:
    values = {"steps": 4000, "equilibration": 500, "temperature": 300.0, "walkers": 1, **settings}
    return md.build(md.Config.model_validate(values), [variable or Coordinate()], start)


def drive(folder: Path, made: md.MolecularDynamics, potential: str = TIED, number: int = 0) -> Trajectory:
    walker = Walker(number, 7 + number, made.start)
    made.prepare(folder, walker, potential)
    run = made.run(folder, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0)
    found = made.collect(run, walker)
    assert found.note == "", (folder / lammps.SCREEN).read_text()[-2000:]
    return found


@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
def test_oscillators_have_their_distribution(tmp_path: Path, thermostat: str) -> None:
    """90 classical oscillators: variance kT/k of positions, kurtosis 3, canonical spread of the total energy."""
    made = sampler(thermostat=thermostat, damping=20.0, timestep=1.0, frame_interval=20)
    found = drive(tmp_path, made)
    displaced = found.positions - ATOMS.positions
    independent = len(found) * 90 / 4
    assert displaced.var() == pytest.approx(KB * 300 / 10.0, rel=5 * math.sqrt(2 / independent))
    if thermostat == "langevin":  # csvr gives the energy to all of them together, and they do not exchange it
        kurtosis = np.mean(displaced**4) / displaced.var() ** 2
        assert kurtosis == pytest.approx(3.0, abs=5 * math.sqrt(24 / independent))
    table = read_table(tmp_path / lammps.TABLE)
    kinetic = 0.5 * 90 * KB * table["temperature"]  # LAMMPS leaves out three degrees of freedom: 87
    assert kinetic.mean() * 87 / 90 == pytest.approx(0.5 * 87 * KB * 300, rel=0.05)
    assert table["energy"].std() == pytest.approx(KB * 300 * math.sqrt(45), rel=0.3)


def test_pressure_of_a_thin_gas(tmp_path: Path) -> None:
    """Atoms that hardly meet: P V = N kT, so the barostat finds the volume; frames carry their own cells."""
    count, temperature, pressure = 64, 300.0, 400.0
    side = (count * KB * temperature / (pressure * 6.241509e-7)) ** (1 / 3)
    grid = (np.indices((4, 4, 4)).reshape(3, -1).T + 0.5) * 0.8 * side / 4
    start = Frame(np.full(count, 18), grid, 0.8 * side * np.eye(3), (True, True, True))
    made = sampler(
        start, temperature=temperature, pressure="400 bar", pressure_damping=200.0, damping=50.0, steps=6000,
        equilibration=3000, timestep=2.0, frame_interval=100,
    )  # fmt: skip
    found = drive(tmp_path, made, NOTHING)
    volumes = np.linalg.det(found.cells)
    ideal = (count + 1) * KB * temperature / (pressure * 6.241509e-7)
    # V is gamma-distributed with N + 1: its standard deviation is V/sqrt(N + 1); some 10 independent values
    assert volumes.mean() == pytest.approx(ideal, rel=4 / math.sqrt(65 * 10))
    assert volumes.std() > 0.02 * ideal
    assert found.cell(3, start.cell) == pytest.approx(found.cells[3])
    assert found.cells[:, 0, 1] == pytest.approx(np.zeros(len(found)))


def test_temperature_ramp(tmp_path: Path) -> None:
    made = sampler(temperature=100.0, final_temperature=500.0, damping=10.0, timestep=1.0, steps=3000)
    drive(tmp_path, made)
    table = read_table(tmp_path / lammps.TABLE)
    measured = [part.mean() for part in np.array_split(table["temperature"], 4)]
    assert measured == pytest.approx([150, 250, 350, 450], rel=0.15)
    found = made.barrier([tmp_path], [made.collect(_Run(tmp_path), Walker(0, 7, ATOMS))])
    assert "no equilibrium" in found.note
    assert math.isnan(found.barrier)
    assert np.isnan(found.energy).all()


class _Run(lammps.Run):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder, [], 0, {})


def test_constant_pressure_needs_a_cell() -> None:
    class Whole:
        frame = ATOMS

    with pytest.raises(Misfit, match="periodic in all three directions"):
        md.Config.model_validate({"pressure": 1.0}).check_against(Whole())
    with pytest.raises(Misfit, match="periodic in all three directions"):
        md.Config.model_validate({"walkers": [{}, {"pressure": 1.0}]}).check_against(Whole())
    md.Config().check_against(Whole())
    with pytest.raises(ValidationError, match="leave it out"):
        md.Config.model_validate({"temperature": 300, "final_temperature": "300 K"})


# --- the free energy of a histogram

THERMAL = 0.0258


def double_well(height: float, count: int, seed: int = 0) -> list[Array]:
    """Independent draws from exp(-U/kT), U = h (x² - 1)², in four series."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-2, 2, 20001)
    weights = np.exp(-height * (grid**2 - 1) ** 2 / THERMAL)
    drawn = rng.choice(grid, (4, count), p=weights / weights.sum())
    return list(drawn)


def test_free_energy_of_a_double_well() -> None:
    values = double_well(0.08, 5000)
    found = density(values, [np.zeros(5000)] * 4, THERMAL, 40, 5, None)
    inside = np.abs(found.centres) < 1.2
    potential = 0.08 * (found.centres**2 - 1) ** 2
    off = (found.energy - potential)[inside]
    assert off - off.mean() == pytest.approx(np.zeros(inside.sum()), abs=0.009)
    # errors are those that repetitions show
    repeats = np.array([
        density(double_well(0.08, 5000, seed), [np.zeros(5000)] * 4, THERMAL, 40, 5, None).energy[18:22]
        for seed in range(1, 9)
    ])  # fmt: skip
    assert found.error[18:22].mean() == pytest.approx(repeats.std(axis=0).mean(), rel=0.6)
    result = profile(found, -1.0, THERMAL, periodic=False)
    assert result.kind == "free energy"
    assert result.barrier == pytest.approx(0.08, abs=4 * result.barrier_error + 0.004)
    assert 0 < result.barrier_error < 0.01
    assert result.note == ""


def test_a_bias_is_taken_off() -> None:
    """Draws of a flatter well, with the difference as the bias, give the steep one's free energy."""
    flat = double_well(0.04, 20000, seed=3)
    biases = [-0.06 * (v**2 - 1) ** 2 for v in flat]
    found = density(flat, biases, THERMAL, 40, 5, None)
    assert profile(found, -1.0, THERMAL, periodic=False).barrier == pytest.approx(0.10, abs=0.012)


def test_no_event_no_barrier() -> None:
    rng = np.random.default_rng(0)
    found = density([rng.normal(1.0, 0.1, 4000)], [np.zeros(4000)], THERMAL, 40, 5, None)
    height, error, note = barrier(found, 1.0, THERMAL, periodic=False)
    assert math.isnan(height)
    assert math.isnan(error)
    assert "did not happen" in note


def test_a_dihedral_wraps() -> None:
    """Three equal wells of cos 3x; a barrier is found although the start lies at the seam."""
    rng = np.random.default_rng(2)
    grid = np.linspace(-180, 180, 36001)
    weights = np.exp(-0.03 * (1 + np.cos(3 * np.radians(grid))) / THERMAL)
    values = rng.choice(grid, 40000, p=weights / weights.sum())
    found = density([values + 360.0], [np.zeros(40000)], THERMAL, 72, 5, 360.0)
    result = profile(found, 179.0, THERMAL, periodic=True)
    assert result.barrier == pytest.approx(0.06, abs=0.008)


def test_only_walkers_of_the_first_one_s_temperature_count() -> None:
    made = sampler(walkers=[{}, {"temperature": 600.0}])

    def walker(number: int, temperature: float) -> Trajectory:
        values = np.random.default_rng(number).normal(0, math.sqrt(KB * temperature / 10.0), 20000)
        steps = np.arange(20000)
        none = np.zeros(20000)
        return Trajectory(number, 1, steps, values, none, none, none, none, np.zeros((20000, 1, 3)))

    found = made.barrier([], [walker(0, 300.0), walker(1, 600.0)])
    assert "Of the 1 walkers at 300 K" in found.note
    near = np.abs(found.coordinate) < 0.08
    assert found.energy[near] == pytest.approx(5.0 * found.coordinate[near] ** 2, abs=0.004)
