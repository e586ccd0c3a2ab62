"""The tblite engine: the contract of engines, and what is its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from tblite.ase import TBLite

from rareal.errors import LabelError
from rareal.labeling import tblite
from rareal.labeling.selfcheck import self_check
from rareal.labeling.tblite import Config, Engine, build
from rareal.records import Frame
from rareal.schema import Misfit
from rareal.testing.engine_contract import EngineContract


def ethane(stretch: float = 0.0) -> Frame:
    atoms = molecule("C2H6")
    upper = atoms.positions[:, 2] > 0
    atoms.positions[upper, 2] += stretch
    atoms.positions += np.random.default_rng(1).normal(0, 0.03, atoms.positions.shape)
    return Frame(atoms.numbers.astype(np.int64), atoms.positions)


class TestTblite(EngineContract):
    # tblite's own ASE calculator
    known_energy = (-26.735643, 1e-4)
    changes = {
        "method": "GFN1-xTB",
        "charge": 1,
        "multiplicity": 3,
        "spin_polarisation": True,
        "electronic_temperature": 1000.0,
        "accuracy": 1.0,
        "max_iterations": 50,
    }
    hopeless = {"max_iterations": 1}
    reason = "GFN2-xTB failed: .*not converged in 1 cycles"

    def build(self, **settings: Any) -> Engine:
        return build(Config(**settings))

    def periodic_frame(self) -> Frame:
        return Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0.1, 0.2, 0.8]]), np.diag([2.2, 2.4, 2.6]), (True,) * 3)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return build(Config())


@pytest.mark.parametrize("stretch", [0.0, 1.5], ids=["whole", "breaking"])
def test_forces_are_the_gradient_of_the_energy(engine: Engine, stretch: float) -> None:
    """Breaking, the occupations are fractional: only the free energy has these forces."""
    assert self_check(engine, ethane(stretch), step=1e-3).max_deviation < 1e-4


def test_units_are_those_of_tblite_s_own_ase_calculator(engine: Engine) -> None:
    frame = ethane()
    atoms = Atoms(frame.numbers, frame.positions)
    atoms.calc = TBLite(method="GFN2-xTB", accuracy=0.1, verbosity=0)
    energy, forces = engine.calculate(frame)[:2]
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert forces == pytest.approx(atoms.get_forces(), abs=1e-5)


@pytest.mark.parametrize("step", range(1, len(tblite.LADDER)))
def test_every_step_of_the_ladder_leads_to_the_same_energy(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    frame = ethane(1.5)
    first = build(Config()).calculate(frame)
    assert first.note == ""
    # the steps before it do nothing: a damping of zero never converges
    ladder = ((0.0, 1.0), tblite.LADDER[step])
    monkeypatch.setattr(tblite, "LADDER", ladder)
    result = build(Config()).calculate(frame)
    assert "mixer damping" in result.note
    assert result.energy == pytest.approx(first.energy, abs=1e-6)


def test_a_spin_polarised_triplet_is_lower_than_one_whose_spins_only_fill_orbitals() -> None:
    oxygen = Frame(np.array([8, 8]), np.array([[0.0, 0, 0], [0, 0, 1.2]]))
    plain, polarised = (
        build(Config(multiplicity=3, spin_polarisation=spins)).calculate(oxygen).energy for spins in (False, True)
    )
    assert polarised < plain - 0.1


def test_settings_reach_the_calculation() -> None:
    frame = ethane()
    results = [
        build(Config.model_validate(change)).calculate(frame)[0]
        for change in ({}, {"method": "GFN1-xTB"}, {"charge": 1, "multiplicity": 2}, {"electronic_temperature": 2e4})
    ]
    assert len({round(energy, 3) for energy in results}) == len(results)


def test_impossible_spin_is_refused() -> None:
    whole = SimpleNamespace(frame=ethane())
    Config(charge=1, multiplicity=2).check_against(whole)
    with pytest.raises(Misfit, match="18 electrons cannot have multiplicity 2"):
        Config(multiplicity=2).check_against(whole)


def test_a_failure_says_why() -> None:
    with pytest.raises(LabelError, match="not converged in 2 cycles"):
        build(Config(max_iterations=2)).calculate(ethane())
