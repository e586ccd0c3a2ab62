"""What a run costs: counted from the YAML, a label timed on the structure, slow engines not waited for."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from commandline import Command

from rareal.config import load
from rareal.estimate import LabelTime, estimate, measure, readable, size

EXAMPLES = Path(__file__).parents[2] / "examples" / "hexane"


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("hexane.yaml", "hexane.xyz"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_counts(case: Path) -> None:
    config: Any = load("hexane.yaml")
    found = estimate(config)
    sampler, initial = config.sampler, config.initial
    assert (found.formula, found.atoms, found.budget) == ("C6H14", 20, config.labels.budget)
    assert found.steps == 5 * (sampler.steps + sampler.relaxation_steps)
    assert found.initial_calls == 1 + initial.equilibration + (initial.frames - 1) * initial.interval
    assert (found.walkers, found.members, found.rounds) == (5, 4, config.rounds)
    # positions alone: 5 walkers, 6501 frames, 20 atoms, 3 doubles
    assert found.trajectories is not None
    assert found.trajectories > 5 * 6501 * 20 * 3 * 8
    assert found.label_seconds is None
    assert "255000 in all" not in found.describe()
    assert f"{8 * 5 * 8500} in all" in found.describe()


@pytest.mark.parametrize(
    ("sampler", "walkers", "steps", "frames"),
    [
        ({"kind": "umbrella", "first": 6.5, "last": 8.5, "windows": 5, "walkers": 2, "steps": 900,
          "equilibration": 100, "frame_interval": 10}, 2, 5000, 502),
        ({"kind": "md", "walkers": 3, "steps": 1000, "equilibration": 200, "frame_interval": 10}, 3, 3600, 303),
        ({"kind": "steered", "walkers": [{}, {"steps": 3000}], "relaxation_steps": 0}, 2, 9500, 9502),
        ({"kind": "neb", "product": "hexane.xyz"}, 1, None, None),
    ],
)  # fmt: skip
def test_steps_and_frames_of_each_sampler(
    case: Path, sampler: dict[str, Any], walkers: int, steps: int | None, frames: int | None
) -> None:
    data = yaml.safe_load((case / "hexane.yaml").read_text())
    (case / "other.yaml").write_text(yaml.safe_dump({**data, "sampler": sampler}))
    found = estimate(load("other.yaml"))
    assert (found.walkers, found.steps, found.frames) == (walkers, steps, frames)
    assert ("LAMMPS" in found.describe()) == (steps is not None)


def test_the_time_of_all_labels(case: Path) -> None:
    config = load("hexane.yaml", {"rounds": 2})
    known = estimate(config, LabelTime(2.0))
    assert known.initial_calls is not None
    assert known.label_seconds == pytest.approx(2.0 * (known.initial_calls + known.budget / known.workers))
    slow = estimate(config, LabelTime(1.0, finished=False)).describe()
    assert "one label: more than 1.0 s" in slow
    assert "engine in all: more than" in slow
    broken = estimate(config, LabelTime(0.0, failure="no convergence")).describe()
    assert "the engine fails on the structure: no convergence" in broken
    assert "engine in all" not in broken


def with_engine(case: Path, name: str, body: str) -> Path:
    """The YAML with an engine, in a package ``name``, whose calculation is ``body``."""
    (case / name).mkdir()
    (case / name / "__init__.py").write_text("")
    (case / name / "engine.py").write_text(
        "import time\n"
        "import numpy as np\n"
        "from rareal.errors import LabelError\n"
        "from rareal.labeling.base import BaseEngine, EngineConfig\n"
        "class Config(EngineConfig):\n"
        "    pass\n"
        "class Engine(BaseEngine[Config]):\n"
        "    def compute(self, frame):\n"
        f"        {body}\n"
        "        return -1.0, np.zeros((len(frame.numbers), 3))\n"
        "build = Engine\n"
    )
    data = yaml.safe_load((case / "hexane.yaml").read_text())
    (case / f"{name}.yaml").write_text(yaml.safe_dump({**data, "engine": f"{name}.engine"}))
    return case / f"{name}.yaml"


def test_a_slow_engine_is_not_waited_for(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(case)
    config = load(with_engine(case, "sluggish", "time.sleep(300)"))
    began = time.monotonic()
    assert measure(config, limit=0.2) == LabelTime(0.2, finished=False)
    assert time.monotonic() - began < 60


def test_a_label_is_timed_and_a_failure_told(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(case)
    config = load(with_engine(case, "steady", "time.sleep(0.3)"))
    found = measure(config, limit=60.0)
    assert found.finished
    assert found.seconds >= 0.3
    config = load(with_engine(case, "failing", "raise LabelError('no convergence')"))
    assert measure(config, limit=60.0).failure == "no convergence"


def test_validate_prints_a_yaml_with_the_cost_below(case: Path, command: Command) -> None:
    code, out, _ = command("validate", "hexane.yaml", "--limit", 60)
    assert code == 0
    assert "#   C6H14: 20 atoms" in out
    assert "#   one label:" in out
    assert "(measured here)" in out
    assert "more than" not in out
    (case / "printed.yaml").write_text(out.partition("\n\n")[2])
    assert load(case / "printed.yaml").resolved() == load("hexane.yaml").resolved()
    code, out, _ = command("validate", "hexane.yaml", "--no-measure")
    assert (code, "one label" in out) == (0, False)


def test_sizes_and_times_are_readable() -> None:
    assert [size(x) for x in (12, 3456, 2.5e6, 4e9)] == ["12 bytes", "3.46 kB", "2.5 MB", "4 GB"]
    assert [readable(x) for x in (0.0041, 2.5, 187)] == ["4.1 ms", "2.5 s", "3:07"]
