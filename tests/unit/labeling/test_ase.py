"""Any ASE calculator: the contract of engines, and what calculators may do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator

from rareal.errors import LabelError
from rareal.labeling.ase import Config, Engine, build
from rareal.records import Frame
from rareal.schema import Misfit
from rareal.testing.engine_contract import HYDROGEN, EngineContract

HYDROGEN_FRAME = Frame(np.array([1, 1]), HYDROGEN)


class Free(Calculator):  # type: ignore[misc]
    """A calculator with two energies, and states that it must forget."""

    implemented_properties = ("energy", "free_energy", "forces")

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        super().calculate(atoms, properties, system_changes)
        if atoms.info.get("fail"):
            raise RuntimeError("no licence\nleft")
        energy = 0.5 * self.scale * float(np.sum(atoms.positions**2))
        self.results = {"energy": energy + 7.0, "free_energy": energy, "forces": -self.scale * atoms.positions}


class Forceless(Calculator):  # type: ignore[misc]
    implemented_properties = ("energy",)

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = None) -> None:
        self.results = {"energy": 1.0}


HERE = f"{__name__}."


class TestEMT(EngineContract):
    # ASE without rareal
    known_energy = (1.0910147347938324, 1e-8)
    changes = {
        "calculator": "ase.calculators.lj.LennardJones",
        "arguments": {"asap_cutoff": True},
        "version": "7",
        "info": {"charge": 1},
        "cell": (9.0, 9.0, 9.0),
        "free_energy": False,
        "stress": False,
    }
    hopeless = {"calculator": "ase.calculators.lj.LennardJones", "arguments": {"rc": "far"}}
    reason = "ase: TypeError: "

    def build(self, **settings: Any) -> Engine:
        return build(Config(**{"calculator": "ase.calculators.emt.EMT", **settings}))

    def periodic_frame(self) -> Frame:
        atoms = bulk("Cu", cubic=True)
        atoms.positions += np.random.default_rng(1).normal(0, 0.1, atoms.positions.shape)
        cell = atoms.cell.array * np.array([[0.97], [0.98], [0.99]])
        return Frame(atoms.numbers.astype(np.int64), atoms.positions, cell, (True,) * 3)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or SimpleNamespace(**globals()))


def test_the_free_energy_is_taken_where_there_is_one(ours: None) -> None:
    energies = [
        build(Config(calculator=f"{HERE}Free", arguments={"scale": 2.0}, free_energy=free)).calculate(HYDROGEN_FRAME)[0]
        for free in (True, False)
    ]
    assert energies[0] == pytest.approx(np.sum(HYDROGEN**2))
    assert energies[1] == pytest.approx(energies[0] + 7.0)


def test_reasons_of_failures(ours: None) -> None:
    with pytest.raises(LabelError, match="ase: RuntimeError: no licence left"):
        build(Config(calculator=f"{HERE}Free", info={"fail": 1})).calculate(HYDROGEN_FRAME)
    with pytest.raises(LabelError, match="Forceless does not compute .*forces"):
        build(Config(calculator=f"{HERE}Forceless")).calculate(HYDROGEN_FRAME)


def test_what_cannot_be_made_is_refused_before_the_run(ours: None) -> None:
    whole = SimpleNamespace(frame=HYDROGEN_FRAME)
    for settings, match in (
        ({"calculator": "nowhere.Calculator"}, "nowhere cannot be imported .*install it, or correct the path"),
        ({"calculator": "ase.calculators.emt.EMTT"}, "ase.calculators.emt has no EMTT, did you mean 'EMT'?"),
        ({"calculator": f"{HERE}Free", "arguments": {"a": 1}}, "Free cannot be called with them: .*argument 'a'"),
    ):
        with pytest.raises(Misfit, match=match.replace("?", r"\?")):
            Config(**settings).check_against(whole)
    with pytest.raises(ValueError, match="no dotted path"):
        Config(calculator="EMT")


def test_a_box_is_put_around_a_molecule(ours: None) -> None:
    engine = build(Config(calculator=f"{HERE}Free", cell=(10.0, 10.0, 10.0)))
    expected = HYDROGEN - 0.5 * (HYDROGEN.min(axis=0) + HYDROGEN.max(axis=0)) + 5.0
    assert engine.calculate(HYDROGEN_FRAME).forces == pytest.approx(-expected)


def test_a_calculator_with_files_works_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASE's file calculators write beside the current directory, which changes from frame to frame."""
    program = tmp_path / "program.sh"
    program.write_text("#!/bin/sh\necho 1 > seen\n", encoding="utf-8")
    arguments = {"command": f"sh {program}", "Hamiltonian_MaxAngularMomentum_H": "s"}
    engine = build(Config(calculator="ase.calculators.dftb.Dftb", arguments=arguments))
    for name in "ab":
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        with pytest.raises(LabelError, match="ase: "):
            engine.calculate(replace(HYDROGEN_FRAME, step=1))
        assert Path("geo_end.gen").exists()
