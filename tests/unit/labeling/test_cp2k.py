"""CP2K: the contract with the real program where it is on PATH, inputs and parser on stored ones of real runs.

The outputs in tests/data/cp2k are of CP2K 2023.1 (Debian), less its tables of settings and timings.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rareal.errors import LabelError
from rareal.labeling import cp2k
from rareal.labeling.cp2k import Config, Engine, NotConverged, build, merged, read_output, text
from rareal.records import Frame
from rareal.schema import Misfit
from rareal.testing.engine_contract import HYDROGEN, EngineContract, needs_program

DATA = Path(__file__).parents[2] / "data" / "cp2k"
CRYSTAL = Frame(np.array([1, 1]), np.array([[0.0, 0, 0], [0.1, 0.2, 0.8]]), np.diag([4.0, 4.2, 4.4]), (True,) * 3)
WATER = Frame(np.array([8, 1, 1]), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))


@needs_program("cp2k.psmp", cp2k.CURE)
class TestCP2K(EngineContract):
    # GFN1-xTB of tblite's own ASE calculator; the codes differ by a few meV
    known_energy = (-28.209003, 0.005)
    changes = {
        "method": "DFT",
        "charge": 1,
        "multiplicity": 3,
        "functional": "BLYP",
        "basis_set": "DZVP-MOLOPT-GTH",
        "potential": "GTH-BLYP",
        "cutoff": 300.0,
        "relative_cutoff": 50.0,
        "electronic_temperature": 300.0,
        "spin_polarisation": True,
        "convergence": 1e-6,
        "max_iterations": 50,
        "cell": (9.0, 9.0, 9.0),
        "vacuum": 6.0,
        "input": {"FORCE_EVAL": {"DFT": {"QS": {"EPS_DEFAULT": 1e-11}}}},
    }
    hopeless = {"max_iterations": 1}
    reason = r"GFN1-xTB with CP2K failed: self-consistency was not reached \(1 iterations, convergence .*mixing 0.1"

    # CP2K 2023.1's own GFN1 forces of H2 are 0.5 % off the slope of its energy, whatever the step; methane's are not
    slope = 3e-3

    def build(self, **settings: Any) -> Engine:
        return build(Config(**settings))

    def periodic_frame(self) -> Frame:
        return CRYSTAL

    @pytest.mark.parametrize("step", range(1, len(cp2k.LADDER)))
    def test_every_step_of_the_ladder_leads_to_the_same_energy(
        self, monkeypatch: pytest.MonkeyPatch, step: int
    ) -> None:
        energy = self.build().calculate(self.frame()).energy
        never = ("never", {"MAX_SCF": 1})
        monkeypatch.setattr(cp2k, "LADDER", (never, cp2k.LADDER[step]))
        result = self.build().calculate(self.frame())
        assert result.note == cp2k.LADDER[1][0]
        assert result.energy == pytest.approx(energy, abs=1e-6)

    def test_what_cp2k_does_not_know_is_its_own_words(self) -> None:
        wrong = {"FORCE_EVAL": {"DFT": {"NONSENSE": 3}}}
        with pytest.raises(LabelError, match="exit status 1: found an unknown keyword NONSENSE in section DFT"):
            self.build(input=wrong).calculate(self.frame())

    def test_missing_basis_set(self) -> None:
        whole = SimpleNamespace(frame=WATER)
        Config(method="DFT").check_against(whole)
        with pytest.raises(Misfit, match=r"BASIS_MOLOPT has no DZVP for H, O"):
            Config(method="DFT", basis_set="DZVP").check_against(whole)

    @pytest.mark.slow
    def test_density_functional(self) -> None:
        result = self.build(method="DFT", cutoff=150.0, vacuum=3.0).calculate(self.frame())
        assert result.energy == pytest.approx(-31.6, abs=0.3)


@pytest.mark.parametrize(
    ("name", "frame"),
    [("hydrogen", Frame(np.array([1, 1]), HYDROGEN)), ("hydrogen-crystal", CRYSTAL)],
)
def test_input_is_the_stored_one(name: str, frame: Frame) -> None:
    assert build(Config()).input(frame) == (DATA / f"{name}.inp").read_text(encoding="utf-8")


def test_input_of_a_functional_is_the_stored_one() -> None:
    settings = Config(method="DFT", cutoff=200.0, multiplicity=3, electronic_temperature=1000.0)
    assert build(settings).input(WATER) == (DATA / "water-dft.inp").read_text(encoding="utf-8")


def test_output_of_a_molecule() -> None:
    result = read_output((DATA / "hydrogen.out").read_text(encoding="utf-8"), "", 0, 2, False)
    assert result.energy == pytest.approx(-28.204928299663067, abs=1e-9)
    assert result.forces[1] == pytest.approx([0.023516023, 0.047032046, 0.352740346], abs=1e-8)
    assert result.stress is None


def test_output_of_a_crystal_has_the_stress_in_ase_s_sign() -> None:
    """A molecule that is longer than it wants to be pulls its cell together along its axis: positive."""
    result = read_output((DATA / "hydrogen-crystal.out").read_text(encoding="utf-8"), "", 0, 2, True)
    expected = [0.009813155, 0.008294543, 0.029932238, 0.005072131, 0.002490232, 0.000628347]
    assert result.stress == pytest.approx(expected, abs=1e-8)


def test_silent_failure_is_found_out() -> None:
    """CP2K ended with status 0 and printed an energy and forces."""
    said = (DATA / "not-converged.out").read_text(encoding="utf-8")
    assert "ENERGY| Total" in said
    with pytest.raises(NotConverged, match=r"not reached \(3 iterations, convergence 2.9e-01\)"):
        read_output(said, "", 0, 2, False)


def test_no_word_of_convergence_is_a_failure() -> None:
    said = (DATA / "hydrogen.out").read_text(encoding="utf-8")
    with pytest.raises(LabelError, match="does not say that self-consistency was reached"):
        read_output(re.sub("SCF run converged", "", said), "", 0, 2, False)


def test_truncated_output_is_a_failure() -> None:
    said = (DATA / "hydrogen.out").read_text(encoding="utf-8")
    with pytest.raises(LabelError, match="no table of forces for 2 atoms"):
        read_output(said.split("ATOMIC FORCES")[0], "", 0, 2, False)
    with pytest.raises(LabelError, match="CP2K ended with signal 9"):
        read_output(said, "", -9, 2, False)


def test_abort_says_why() -> None:
    said = (DATA / "unknown-key.out").read_text(encoding="utf-8")
    with pytest.raises(LabelError, match=r"found an unknown keyword NONSENSE in section DFT input/input_parsing"):
        read_output(said, "", 1, 2, False)


def test_input_is_merged_by_first_words() -> None:
    tree = {"XC": {"XC_FUNCTIONAL PBE": {}}, "KIND H": {"A": 1}, "KIND O": {"A": 1}, "SCF": {"MAX_SCF": 3}}
    changes = {"xc": {"XC_FUNCTIONAL BLYP": {"X": True}}, "KIND O": {"A": None, "B": [1, 2]}, "SCF": {"OT": {}}}
    expected = """
        &KIND H
          A 1
        &END KIND
        &xc
          &XC_FUNCTIONAL BLYP
            X .TRUE.
          &END XC_FUNCTIONAL
        &END xc
        &KIND O
          B 1
          B 2
        &END KIND
        &SCF
          MAX_SCF 3
          &OT
          &END OT
        &END SCF"""
    assert text(merged(tree, changes)).split() == expected.split()


def test_missing_program() -> None:
    with pytest.raises(Misfit, match=r"no program `nowhere`; install it \(on Debian: `apt-get install cp2k`\)"):
        Config(command="nowhere").check_against(SimpleNamespace(frame=WATER))


def test_a_program_that_is_not_cp2k_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "cp2k"
    fake.write_text("#!/bin/sh\necho hello\n", encoding="utf-8")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(LabelError, match="does not look like CP2K; it said: hello"):
        _ = build(Config(command=str(fake))).hash


def test_sections_that_are_not_of_a_single_point_are_refused() -> None:
    with pytest.raises(ValueError, match="MOTION is not one of FORCE_EVAL and GLOBAL"):
        Config(input={"MOTION": {}})
