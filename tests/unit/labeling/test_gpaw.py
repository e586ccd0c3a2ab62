"""GPAW: the contract of engines, modes, logs, and how it fails."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rareal.errors import LabelError
from rareal.labeling import gpaw
from rareal.labeling.gpaw import Config, Engine, build
from rareal.labeling.selfcheck import self_check
from rareal.records import Frame
from rareal.schema import Misfit
from rareal.testing.engine_contract import HYDROGEN, EngineContract, needs_package

needs_gpaw = needs_package("gpaw", gpaw.CURE)
HYDROGEN_FRAME = Frame(np.array([1, 1]), HYDROGEN)
CRYSTAL = Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0.1, 0.2, 0.8]]), np.diag([2.6, 2.8, 3.0]), (True,) * 3)
QUICK = {"spacing": 0.25, "vacuum": 2.5, "basis": "dzp"}


@needs_gpaw
class TestGPAW(EngineContract):
    # PBE: -1.166 Hartree, counted from two spherical spin-paired atoms of -0.459 Hartree; dzp lacks some of it
    known_energy = ((-1.166 + 2 * 0.459) * 27.2114, 0.5)
    changes = {
        "mode": "fd",
        "charge": 1,
        "multiplicity": 3,
        "functional": "LDA",
        "basis": "szp(dzp)",
        "spacing": 0.2,
        "cutoff": 300.0,
        "kpoints": (2, 1, 1),
        "cell": (6.0, 6.0, 6.0),
        "vacuum": 3.0,
        "electronic_temperature": 1000.0,
        "spin_polarisation": True,
        "initial_spins": {"": {1: 1.0}, "spin_polarisation": True},
        "density_convergence": 1e-4,
        "max_iterations": 100,
        "extra": {"nbands": -2},
    }
    hopeless = {"max_iterations": 1, "density_convergence": 1e-12}
    reason = r"did not reach self-consistency in 1 iterations \(tried also: mixing 0.02, .*\); see gpaw.txt"
    slope = 0.005
    repeats = 1e-7

    def build(self, **settings: Any) -> Engine:
        return build(Config(**{**QUICK, **settings}))

    def test_logs_of_all_attempts_are_kept(self, folder: Path) -> None:
        with pytest.raises(LabelError):
            self.build(**self.hopeless).calculate(self.frame())
        assert {path.name for path in folder.glob("*.txt")} == {"gpaw.txt", "gpaw-1.txt", "gpaw-2.txt"}

    @pytest.mark.parametrize("step", [1, 2])
    def test_every_step_of_the_ladder_leads_to_the_same_energy(
        self, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        energy = self.build().calculate(self.frame()).energy
        monkeypatch.setattr(gpaw, "LADDER", (gpaw.LADDER[step],))
        result = self.build().calculate(self.frame())
        assert result.note.startswith("mixing")
        assert result.energy == pytest.approx(energy, abs=1e-4)

    def test_a_molecule_that_drifts_keeps_its_energy(self) -> None:
        frame = self.frame()
        energies = [
            self.build().calculate(replace(frame, positions=frame.positions + shift)).energy
            for shift in (0.0, 3.1, 7.7)
        ]
        assert np.ptp(energies) < 5e-3

    def test_a_launcher_runs_it_in_processes_of_its_own(self) -> None:
        """With a GPAW that was built with MPI the same energy; with another one, its own words."""
        engine = self.build(launcher="env")
        import _gpaw

        if hasattr(_gpaw, "Communicator"):
            assert engine.calculate(self.frame()).energy == pytest.approx(
                self.build().calculate(self.frame()).energy, abs=1e-6
            )
        else:
            with pytest.raises(LabelError, match=r"`env` with GPAW ended with exit status 1: .*not compiled with MPI"):
                engine.calculate(self.frame())
        assert engine.hash == self.build().hash

    def test_a_molecule_that_outgrows_its_box_is_refused(self) -> None:
        long = replace(self.frame(), positions=np.array([[0.0, 0, 0], [0.0, 0, 4.0]]))
        with pytest.raises(
            LabelError,
            match=r"reaches 2.0 Å from its centre in z and does not fit the box of 6 Å .*enlarge engine.cell",
        ):
            self.build(cell=(6.0, 6.0, 6.0)).calculate(long)


@needs_gpaw
def test_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = build(Config(mode="fd", spacing=0.25, vacuum=2.5))
    result = engine.calculate(HYDROGEN_FRAME)
    assert result.energy == pytest.approx(-6.7, abs=0.2)
    assert result.forces[1] == pytest.approx(-result.forces[0], abs=1e-9)


@needs_gpaw
def test_plane_waves_have_a_stress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = self_check(build(Config(mode="pw", cutoff=500.0)), CRYSTAL, step=0.01, directions=1)
    assert found.max_deviation < 0.01
    assert found.stress_deviation is not None
    # the number of plane waves does not follow the cell
    assert abs(found.stress_deviation) < 0.01


@needs_gpaw
def test_what_is_missing_is_named() -> None:
    whole = SimpleNamespace(frame=HYDROGEN_FRAME)
    Config().check_against(whole)
    with pytest.raises(Misfit, match=r"no H.qzp.basis; install them with `pip install gpaw-data`"):
        Config(basis="qzp").check_against(whole)
    with pytest.raises(Misfit, match="plane waves depend on the box"):
        Config(mode="pw").check_against(whole)
    with pytest.raises(Misfit, match="no program `nowhere`"):
        Config(launcher="nowhere -n 4").check_against(whole)
    with pytest.raises(Misfit, match="no atom 3; atoms are counted from 1"):
        Config(spin_polarisation=True, initial_spins={3: 1.0}).check_against(whole)


def test_gpaw_itself_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        Misfit, match=r"GPAW is not installed for .*; `GPAW_BUILD_JOBS=1 pip install gpaw gpaw-data` builds it"
    ):
        Config().check_against(SimpleNamespace(frame=HYDROGEN_FRAME))


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="initial_spins need spin_polarisation"):
        Config(initial_spins={1: 1.0})
    with pytest.raises(ValueError, match="'xc' of GPAW is set by a key of this section"):
        Config(extra={"xc": "LDA"})
