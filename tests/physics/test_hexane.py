"""GFN2-xTB pulls hexane apart: the quasi-static rupture, and a short pull from beginning to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rareal import barrier, cv, reference
from rareal.bonds import bond_class, bonds
from rareal.event import find_event
from rareal.labeling import tblite
from rareal.labeling.guard import Worker
from rareal.records import Frame, Walker
from rareal.rupture import Config, Rupture, compare, rupture
from rareal.sampling import steered
from rareal.sampling.reference import EngineSampler
from rareal.structure import read_structure

START = read_structure(Path(__file__).parents[2] / "examples" / "hexane" / "hexane.xyz")
ENDS = (0, 5)


@pytest.fixture(scope="module")
def engine() -> Iterator[Worker]:
    with Worker(tblite.build(tblite.Config())) as worker:
        yield worker


@pytest.fixture(scope="module")
def pulled(engine: Worker) -> Rupture:
    return rupture(engine.calculate, START, ENDS, Config())


def test_rupture_of_hexane(pulled: Rupture) -> None:
    assert pulled.note == ""
    assert pulled.force_max == pytest.approx(4.564, abs=0.005)
    assert pulled.stability_distance == pytest.approx(8.344, abs=0.004)
    assert pulled.stability_energy == pytest.approx(5.772, abs=0.02)
    assert pulled.break_distance == pytest.approx(8.217, abs=0.003)
    assert pulled.energy_max == pytest.approx(5.194, abs=0.01)
    assert pulled.crossing_energy == pytest.approx(4.975, abs=0.005)
    assert pulled.calls < 2500


def test_a_terminal_bond_goes(pulled: Rupture) -> None:
    bonded = bonds(START.numbers, START.positions)
    assert pulled.broken_bond in {(1, 2), (5, 6)}
    assert pulled.broken_class == bond_class(START.numbers, bonded, (0, 1)) == bond_class(START.numbers, bonded, (4, 5))
    assert pulled.broken_class != bond_class(START.numbers, bonded, (1, 2))


def test_force_is_the_slope_of_the_energy(pulled: Rupture) -> None:
    grid = slice(0, len(pulled.distances) - 3)
    slope = np.gradient(pulled.energies[grid], pulled.distances[grid], edge_order=2)
    assert pulled.forces[grid][2:-2] == pytest.approx(slope[2:-2], abs=0.01)


def test_start_may_be_turned_shifted_and_shaken(engine: Worker, pulled: Rupture) -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    positions = (START.positions + rng.normal(0, 0.01, START.positions.shape)) @ turn + 5.0
    length = cv.Distance(ENDS)
    # from the same distance, for energies are relative to the start
    line = positions[ENDS[1]] - positions[ENDS[0]]
    positions[ENDS[1]] += line * (length.value(START.positions) / length.value(positions) - 1)
    error = compare(rupture(engine.calculate, replace(START, positions=positions), ENDS, Config()), pulled)
    assert error.same_bond
    assert error.distance == pytest.approx(0.0, abs=0.003)
    assert error.energy == pytest.approx(0.0, abs=0.002)
    assert error.force_percent == pytest.approx(0.0, abs=0.1)


def test_short_pull_with_the_engine(engine: Worker, tmp_path: Path) -> None:
    """Ten times the paper's speed, so that it takes seconds; everything after the pull is as in a run."""
    settings = steered.Config(velocity=0.01, steps=800, relaxation_steps=50)
    level = engine.engine
    sampler = EngineSampler(steered.build(settings, [cv.Distance(ENDS)], START), level)
    walkers = [Walker(0, 3, START)]
    coarse = Config(step=0.1, resolution=0.05, fmax=0.02)
    result = reference.compute(sampler, START, ENDS, coarse, tmp_path, walkers)
    (trajectory,) = sampler.sample(tmp_path, walkers)
    event = find_event(START.numbers, trajectory.positions)
    assert event is not None
    assert barrier.broken_bond(START.numbers, trajectory) == result.broken_bonds[0]
    assert result.profile.barrier == pytest.approx(trajectory.work.max())
    assert 6.0 < result.profile.barrier < 12.0
    rows = barrier.path_frames(START.numbers, trajectory, 48, 16, 100)
    assert len(rows) >= 40
    assert np.sum((rows >= event.onset) & (rows <= event.end)) >= 10
    row = int(rows[len(rows) // 2])
    frame = Frame(START.numbers, trajectory.positions[row])
    assert engine.calculate(frame)[0] == pytest.approx(trajectory.energy[row], abs=1e-5)
    read = reference.load(tmp_path)
    assert read.profile.barrier == result.profile.barrier
    assert read.profile.kind == "work"
    assert read.broken_bonds == result.broken_bonds
    assert read.rupture is not None and result.rupture is not None  # noqa: PT018
    assert read.rupture.break_distance == result.rupture.break_distance
