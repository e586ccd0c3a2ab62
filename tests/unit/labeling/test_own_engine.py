"""An engine of a user's own: one class with one method, in a module that the YAML names."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rareal import config
from rareal.build import make
from rareal.errors import LabelError
from rareal.labeling.guard import Worker
from rareal.records import Frame
from rareal.testing.engine_contract import EngineContract

SOURCE = """
import numpy as np
from rareal.labeling.base import BaseEngine, EngineConfig

class Config(EngineConfig):
    stiffness: float = 1.0
    length: float = 0.7

class Engine(BaseEngine[Config]):
    def compute(self, frame):
        line = frame.positions[1] - frame.positions[0]
        distance = np.linalg.norm(line)
        if distance > 10:
            raise RuntimeError("it is broken")
        stretch = distance - self.config.length
        force = self.config.stiffness * stretch * line / distance
        return 0.5 * self.config.stiffness * stretch**2, np.array([force, -force])

build = Engine
"""

YAML = """
structure: pair.xyz
cv: {kind: distance, atoms: [1, 2]}
engine: {kind: mypackage.myengine, stiffness: 3}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "code" / "mypackage"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "myengine.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield folder
    for name in ("mypackage", "mypackage.myengine"):
        sys.modules.pop(name, None)


@pytest.fixture
def engine(package: Path, tmp_path: Path) -> Any:
    (tmp_path / "pair.xyz").write_text("2\n\nC 0 0 0\nC 0 0 1.5\n", encoding="utf-8")
    (tmp_path / "own.yaml").write_text(YAML, encoding="utf-8")
    whole = config.load(tmp_path / "own.yaml")
    return make(whole, "engine", start=whole.frame)


def test_it_is_built_from_the_yaml_and_runs_in_a_worker(engine: Any) -> None:
    frame = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0, 0, 1.5]]))
    with Worker(engine) as worker:
        result = worker.calculate(frame)
        assert result.energy == pytest.approx(0.5 * 3 * 0.8**2)
        assert result.forces[0] == pytest.approx([0, 0, 3 * 0.8])
        with pytest.raises(LabelError, match="mypackage.myengine: RuntimeError: it is broken"):
            worker.calculate(Frame(frame.numbers, frame.positions * 10))


def test_its_hash_is_of_its_settings_and_its_source(engine: Any, package: Path) -> None:
    assert engine.settings["kind"] == "mypackage.myengine"
    assert engine.settings["stiffness"] == 3.0
    assert engine.settings["version"].startswith("source ")
    before = engine.hash
    (package / "myengine.py").write_text(SOURCE.replace("0.5 *", "0.55 *"), encoding="utf-8")
    changed = importlib.reload(sys.modules["mypackage.myengine"])
    assert changed.build(changed.Config(stiffness=3.0)).hash != before


@pytest.mark.usefixtures("package")
class TestContract(EngineContract):
    known_energy = (0.5 * 0.0582**2, 1e-4)
    changes = {"stiffness": 2.0, "length": 0.8}
    hopeless = {}
    reason = "it is broken"

    def build(self, **settings: Any) -> Any:
        from mypackage import myengine

        return myengine.build(myengine.Config(**settings))

    def test_a_failure_is_a_label_error_with_the_reason(self) -> None:
        far = self.frame()
        far.positions[1] += 20
        with pytest.raises(LabelError, match=self.reason):
            self.build().calculate(far)
