"""The contract of a label engine, as tests that its own test file inherits.

A new engine, rareal's or anyone's, is tested by a file like ::

    import pytest
    from rareal.testing.engine_contract import EngineContract
    from mypackage import myengine

    class TestMyEngine(EngineContract):
        known_energy = (-31.7, 0.1)                    # of `frame`, from somewhere else: units
        hopeless = {"max_iterations": 1}               # settings that fail, and the reason
        reason = "not converged"
        changes = {"depth": 2.0, "max_iterations": 1}  # a valid other value for every key

        def build(self, **settings):
            return myengine.build(myengine.Config(**settings))

which runs with ``pytest``. Engines that may be missing are marked with `needs_package` or `needs_program`, which say in
the summary what was skipped and how to get it.
"""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from rareal.errors import LabelError
from rareal.labeling.selfcheck import self_check
from rareal.records import Array, Calculation, Frame

HYDROGEN = np.array([[0.1, -0.2, 0.3], [0.15, -0.1, 1.05]])
"""Å, two hydrogen atoms, a little off every axis."""


def needs_package(package: str, cure: str) -> Any:
    """A mark that skips tests where a Python package is missing."""
    return pytest.mark.skipif(find_spec(package) is None, reason=f"label engine not tested: no {package}; {cure}")


def needs_program(program: str, cure: str) -> Any:
    """A mark that skips tests where a program is not on PATH."""
    reason = f"label engine not tested: no `{program}` on PATH; {cure}"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


class EngineContract:
    """All tests that every engine passes; subclasses give `build` and the attributes.

    Attributes
    ----------
    known_energy : energy of `frame` [eV] and how well it is known, from a source that is not this engine.
    changes : for every key of the configuration that determines a result another valid value; with several values, the
        key's own under ``""`` and what it needs beside it.
    hopeless, reason : settings under which the calculation of `frame` fails, and a pattern of the reason.
    slope : eV/Å, how well forces and differences of the energy agree.
    repeats : eV and eV/Å, how well the same calculation agrees with itself after others.
    step : Å, of the differences.
    """

    known_energy: ClassVar[tuple[float, float]]
    changes: ClassVar[dict[str, Any]]
    hopeless: ClassVar[dict[str, Any]]
    reason: ClassVar[str]
    slope: ClassVar[float] = 1e-3
    repeats: ClassVar[float] = 1e-8
    step: ClassVar[float] = 0.002

    def build(self, **settings: Any) -> Any:
        """The engine with these settings and defaults that are quick."""
        raise NotImplementedError

    def frame(self) -> Frame:
        """A small molecule away from its minimum; H2 unless the engine wants another."""
        return Frame(np.array([1, 1]), HYDROGEN.copy())

    def periodic_frame(self) -> Frame | None:
        """A crystal for the stress; None where the engine computes molecules only, or gives no stress."""
        return None

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The empty current directory of a calculation."""
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def result(self, engine: Any, frame: Frame) -> Calculation:
        """What the engine returns, as the worker reads it."""
        return Calculation(*engine.calculate(frame))

    def test_the_energy_is_in_electronvolts(self) -> None:
        energy, tolerance = self.known_energy
        assert self.result(self.build(), self.frame()).energy == pytest.approx(energy, abs=tolerance)

    def test_forces_are_the_gradient_of_the_energy(self) -> None:
        found = self_check(self.build(), self.frame(), step=self.step, directions=2)
        assert found.max_deviation < self.slope, found
        assert found.largest_force > 10 * self.slope, "at a minimum any unit would do"
        assert abs(found.repeat) <= max(self.repeats, 1e-12)

    def test_the_stress_is_the_derivative_of_the_energy(self) -> None:
        frame = self.periodic_frame()
        if frame is None:
            molecular = self.result(self.build(), self.frame())
            assert molecular.stress is None
            return
        engine = self.build()
        stress = self.result(engine, frame).stress
        assert stress is not None
        assert stress.shape == (6,)
        found = self_check(engine, frame, step=self.step, directions=1)
        assert found.stress_deviation is not None
        largest = float(np.abs(stress[:3]).max())
        assert abs(found.stress_deviation) < 0.02 * largest, found

    def test_forces_belong_to_their_atoms(self) -> None:
        frame = self.frame()
        order = np.roll(np.arange(len(frame.numbers)), 1)
        turned = replace(frame, numbers=frame.numbers[order], positions=frame.positions[order])
        forces: Array = self.result(self.build(), frame).forces
        assert self.result(self.build(), turned).forces == pytest.approx(forces[order], abs=self.slope)

    def test_a_result_does_not_depend_on_what_was_computed_before(self) -> None:
        engine, frame = self.build(), self.frame()
        first = self.result(engine, frame)
        stretched = frame.positions.mean(axis=0) + 1.5 * (frame.positions - frame.positions.mean(axis=0))
        self.result(engine, replace(frame, positions=stretched))
        again = self.result(engine, frame)
        assert again.energy == pytest.approx(first.energy, abs=self.repeats)
        assert again.forces == pytest.approx(first.forces, abs=self.repeats)

    def test_it_travels_to_other_processes(self) -> None:
        engine, frame = self.build(), self.frame()
        energy = self.result(engine, frame).energy
        copy = pickle.loads(pickle.dumps(engine))
        engine.close()
        assert copy.hash == engine.hash
        assert self.result(copy, frame).energy == pytest.approx(energy, abs=self.repeats)

    def test_settings_are_recorded_in_plain_values(self) -> None:
        settings = self.build().settings
        assert json.loads(json.dumps(settings)) == settings
        assert settings["kind"]
        assert settings["version"]

    def test_the_hash_changes_with_every_setting_and_nothing_else(self) -> None:
        base = self.build()
        fields = set(type(base.config).model_fields) - {"kind", *base.config.harmless}
        assert set(self.changes) == fields, "give another value for every key"
        hashes = {base.hash}
        for key, value in self.changes.items():
            settings = {key: value[""], **{k: v for k, v in value.items() if k}} if _several(value) else {key: value}
            hashes.add(self.build(**settings).hash)
        assert len(hashes) == len(self.changes) + 1
        assert self.build().hash == base.hash
        assert self.build(min_distance_ratio=0.41).hash == base.hash

    def test_nuclei_on_top_of_each_other_are_refused(self) -> None:
        frame = self.frame()
        frame.positions[1] = frame.positions[0] + [0.001, 0.0, 0.0]
        with pytest.raises(LabelError, match=r"1 and \w+2 are 0\.001 Å apart"):
            self.build().calculate(frame)

    def test_positions_that_are_not_finite_are_refused(self) -> None:
        frame = self.frame()
        frame.positions[1, 1] = np.nan
        with pytest.raises(LabelError, match="position of atom 2 is not finite"):
            self.build().calculate(frame)

    def test_a_failure_is_a_label_error_with_the_reason(self) -> None:
        with pytest.raises(LabelError, match=self.reason):
            self.build(**self.hopeless).calculate(self.frame())

    def test_it_goes_on_after_a_failure(self) -> None:
        engine, frame = self.build(), self.frame()
        wrong = replace(frame, positions=np.zeros_like(frame.positions))
        with pytest.raises(LabelError):
            engine.calculate(wrong)
        assert np.isfinite(self.result(engine, frame).energy)

    def test_it_writes_into_the_current_directory_only_and_keeps_what_it_says(self, folder: Path) -> None:
        engine = self.build()
        work = folder / "work"
        work.mkdir()
        before = set(folder.rglob("*"))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(work)
            self.result(engine, self.frame())
        assert all(work in path.parents for path in set(folder.rglob("*")) - before)
        for pattern in engine.keep:
            assert list(work.glob(pattern)), f"there is no {pattern} to keep"


def _several(value: Any) -> bool:
    return isinstance(value, dict) and "" in value
