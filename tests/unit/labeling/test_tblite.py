"""The tblite engine: forces, refusals, and what its hash depends on."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from tblite.ase import TBLite

from rareal.errors import LabelError
from rareal.labeling.tblite import Config, Engine, build
from rareal.records import Frame
from rareal.schema import Misfit


def ethane(stretch: float = 0.0) -> Frame:
    atoms = molecule("C2H6")
    upper = atoms.positions[:, 2] > 0
    atoms.positions[upper, 2] += stretch
    atoms.positions += np.random.default_rng(1).normal(0, 0.03, atoms.positions.shape)
    return Frame(atoms.numbers.astype(np.int64), atoms.positions)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return build(Config())


@pytest.mark.parametrize("stretch", [0.0, 1.5], ids=["whole", "breaking"])
def test_forces_are_the_gradient_of_the_energy(engine: Engine, stretch: float) -> None:
    """Breaking, the occupations are fractional: only the free energy has these forces."""
    frame = ethane(stretch)
    direction = np.random.default_rng(2).normal(size=frame.positions.shape)
    direction /= np.linalg.norm(direction)
    energies = [engine.calculate(replace(frame, positions=frame.positions + h * direction))[0] for h in (1e-3, -1e-3)]
    slope = (energies[0] - energies[1]) / 2e-3
    assert -np.sum(engine.calculate(frame)[1] * direction) == pytest.approx(slope, abs=1e-4)


def test_result_does_not_depend_on_history(engine: Engine) -> None:
    frame = ethane()
    first = engine.calculate(frame)
    engine.calculate(ethane(1.5))
    again = engine.calculate(frame)
    assert again[0] == pytest.approx(first[0], abs=1e-10)
    # several threads add in any order
    assert again[1] == pytest.approx(first[1], abs=1e-10)


def test_units_are_those_of_tblite_s_own_ase_calculator(engine: Engine) -> None:
    frame = ethane()
    atoms = Atoms(frame.numbers, frame.positions)
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)
    energy, forces = engine.calculate(frame)[:2]
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert forces == pytest.approx(atoms.get_forces(), abs=1e-5)


def test_nuclei_on_top_of_each_other_are_refused(engine: Engine) -> None:
    frame = ethane()
    frame.positions[7] = frame.positions[0] + [0.001, 0, 0]
    with pytest.raises(LabelError, match=r"C1 and H8 are 0\.001 Å apart"):
        engine.calculate(frame)


def test_positions_that_are_not_finite_are_refused(engine: Engine) -> None:
    frame = ethane()
    frame.positions[2, 1] = np.nan
    with pytest.raises(LabelError, match="position of atom 3 is not finite"):
        engine.calculate(frame)


def test_unconverged_is_a_failure() -> None:
    with pytest.raises(LabelError, match="not converged in 2 cycles"):
        build(Config(max_iterations=2)).calculate(ethane())


def test_hash_covers_what_changes_the_result() -> None:
    base = build(Config()).hash
    changes = [
        {"method": "GFN1-xTB"},
        {"charge": 1},
        {"multiplicity": 3},
        {"electronic_temperature": 1000.0},
        {"accuracy": 1.0},
        {"max_iterations": 50},
    ]
    hashes = {build(Config.model_validate(change)).hash for change in changes}
    assert len(hashes) == len(changes)
    assert base not in hashes
    assert build(Config(min_distance_ratio=0.4)).hash == base


def test_settings_reach_the_calculation() -> None:
    frame = ethane()
    results = [
        build(Config.model_validate(change)).calculate(frame)[0]
        for change in ({}, {"method": "GFN1-xTB"}, {"charge": 1, "multiplicity": 2}, {"electronic_temperature": 2e4})
    ]
    assert len({round(energy, 3) for energy in results}) == len(results)


def test_travels_to_other_processes(engine: Engine) -> None:
    engine.calculate(ethane())
    copy = pickle.loads(pickle.dumps(engine))
    assert copy.hash == engine.hash
    assert copy.calculate(ethane())[0] == pytest.approx(engine.calculate(ethane())[0], abs=1e-10)


def test_impossible_spin_is_refused() -> None:
    whole = SimpleNamespace(frame=ethane())
    Config(charge=1, multiplicity=2).check_against(whole)
    with pytest.raises(Misfit, match="18 electrons cannot have multiplicity 2"):
        Config(multiplicity=2).check_against(whole)
