"""PySCF: the contract of engines, broken symmetry, density fitting."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule

from rareal.labeling import pyscf
from rareal.labeling.pyscf import Config, Engine, build
from rareal.labeling.selfcheck import self_check
from rareal.records import Frame
from rareal.schema import Misfit
from rareal.testing.engine_contract import HYDROGEN, EngineContract, needs_package

needs_pyscf = needs_package("pyscf", pyscf.CURE)
HYDROGEN_FRAME = Frame(np.array([1, 1]), HYDROGEN)
QUICK = {"basis": "6-31g", "grid_level": 1}


def hydrogen(length: float) -> Frame:
    return Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, length]]))


@needs_pyscf
class TestPySCF(EngineContract):
    # PBE near the basis-set limit, -1.1658 Hartree at the minimum; 6-31G lacks some of it
    known_energy = (-1.1658 * 27.211386, 0.3)
    changes = {
        "method": "RHF",
        "charge": 1,
        "multiplicity": {"": 3, "method": "UKS"},
        "functional": "B3LYP",
        "basis": "sto-3g",
        "density_fitting": False,
        "broken_symmetry": {"": True, "method": "UKS"},
        "electronic_temperature": 1000.0,
        "convergence": 1e-8,
        "max_iterations": 40,
        "grid_level": 0,
    }
    hopeless = {"max_iterations": 1, "convergence": 1e-12}
    reason = r"RKS is not converged in 1 iterations, whatever was tried \(damping 0.5 and level shift"
    repeats = 1e-7

    def build(self, **settings: Any) -> Engine:
        return build(Config(**{**QUICK, **settings}))

    @pytest.mark.parametrize("method", ["RHF", "UHF", "RKS", "UKS"])
    def test_methods_agree_where_they_must(self, method: str) -> None:
        """A closed shell near its minimum is the same restricted and unrestricted, fitted and not."""
        restricted = self.build(method=method.replace("U", "R"), density_fitting=False).calculate(self.frame())
        fitted = self.build(method=method).calculate(self.frame())
        assert fitted.energy == pytest.approx(restricted.energy, abs=5e-3)

    @pytest.mark.parametrize("step", range(1, len(pyscf.LADDER)))
    def test_every_step_of_the_ladder_leads_to_the_same_energy(
        self, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        frame = hydrogen(1.4)
        engine = self.build(method="RHF")
        energy = engine.calculate(frame).energy
        converge = type(engine)._field

        def never(this: Engine, whole: Any) -> Any:
            field = converge(this, whole)
            calls.append(field)
            # the ladder's first fields, one for each step, cannot converge
            if len(calls) <= step:
                field.max_cycle = 1
            return field

        calls: list[Any] = []
        monkeypatch.setattr(type(engine), "_field", never)
        result = engine.calculate(frame)
        assert result.note in pyscf.LADDER[1:]
        assert result.energy == pytest.approx(energy, abs=1e-5)

    def test_broken_symmetry_separates_the_spins(self) -> None:
        """Two hydrogen atoms: twice one atom where the symmetry is broken, far above where it is kept."""
        atom = Frame(np.array([1]), np.zeros((1, 3)))
        single = self.build(method="UHF", multiplicity=2).calculate(atom).energy
        closed, broken = (
            self.build(method="UHF", broken_symmetry=free).calculate(hydrogen(4.0)).energy for free in (False, True)
        )
        assert broken == pytest.approx(2 * single, abs=0.01)
        assert closed > broken + 3.0
        near = [self.build(method="UHF", broken_symmetry=free).calculate(hydrogen(0.9)) for free in (False, True)]
        assert near[1].energy == pytest.approx(near[0].energy, abs=1e-6), "within the Coulson-Fischer point"

    def test_forces_of_a_broken_symmetry(self) -> None:
        engine = self.build(method="UKS", broken_symmetry=True)
        assert self_check(engine, hydrogen(2.0), directions=1).max_deviation < 1e-3

    def test_hot_electrons_label_with_the_free_energy(self) -> None:
        found = self_check(self.build(electronic_temperature=20000.0), hydrogen(1.5), directions=1)
        assert found.max_deviation < 1e-3
        assert found.energy < self.build().calculate(hydrogen(1.5)).energy - 0.1

    def test_methane(self) -> None:
        atoms = molecule("CH4")
        atoms.positions += np.random.default_rng(1).normal(0, 0.03, atoms.positions.shape)
        frame = Frame(atoms.numbers.astype(np.int64), atoms.positions)
        assert self_check(self.build(), frame, directions=1).max_deviation < 1e-3


@needs_pyscf
def test_what_is_missing_is_named() -> None:
    whole = SimpleNamespace(frame=HYDROGEN_FRAME)
    Config().check_against(whole)
    with pytest.raises(Misfit, match="no such basis set for H"):
        Config(basis="nonsense").check_against(whole)
    with pytest.raises(Misfit, match="knows no such functional"):
        Config(functional="NONSENSE").check_against(whole)
    with pytest.raises(Misfit, match="2 electrons cannot have multiplicity 2"):
        Config(method="UKS", multiplicity=2).check_against(whole)
    with pytest.raises(Misfit, match="computes molecules, and the structure is periodic"):
        Config().check_against(SimpleNamespace(frame=replace(HYDROGEN_FRAME, cell=np.eye(3) * 9, pbc=(True,) * 3)))


def test_pyscf_itself_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Misfit, match=r"PySCF is not installed for .*; install it with `pip install pyscf`"):
        Config().check_against(SimpleNamespace(frame=HYDROGEN_FRAME))


def test_settings_that_do_not_go_together(tmp_path: Path) -> None:
    for settings, match in (
        ({"multiplicity": 3}, "multiplicity 3 needs an unrestricted method"),
        ({"broken_symmetry": True}, "needs an unrestricted method and multiplicity 1"),
        ({"method": "UKS", "broken_symmetry": True, "electronic_temperature": 300.0}, "electronic_temperature: 0"),
    ):
        with pytest.raises(ValueError, match=match):
            Config(**settings)
