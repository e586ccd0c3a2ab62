"""The YAML: what is read, and what is said about what cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from rareal.config import KINDS, Config, Kinds, Labels, TrainConfig, load, load_training
from rareal.errors import ConfigError
from rareal.schema import Misfit, Section
from rareal.units import KCAL_MOL, Length, Time

WATER = "3\nwater\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


class Inner(Section):
    gap: Length = Field(1.0, gt=0, description="distance between steps, Å")


class Plain(Section):
    """A section with every sort of value."""

    kind: Literal["plain"] = "plain"
    members: int = Field(4, ge=2, description="members of the committee.")
    rate: float = Field(1e-3, gt=0)
    timestep: Time = Field(0.5, gt=0, description="time step, fs")
    mode: Literal["slow", "fast"] = "slow"
    flag: bool = False
    inner: Inner = Inner()
    atoms: tuple[int, int] = (1, 2)
    names: dict[str, int] = Field(default_factory=dict)

    def check_against(self, config: Any) -> None:
        atoms = len(config.frame.numbers)
        if max(self.atoms) > atoms:
            raise Misfit("atoms", f"the structure has {atoms} atoms; use 1 to {atoms}")


class Other(Section):
    kind: Literal["other"] = "other"
    width: float = 1.0


class Unkinded(Section):
    number: int = 3


def module(name: str, schema: type[Section]) -> str:
    made = ModuleType(name)
    made.Config = schema  # type: ignore[attr-defined]
    made.build = lambda config: config  # type: ignore[attr-defined]
    sys.modules[name] = made
    return name


@pytest.fixture
def kinds() -> dict[str, Kinds]:
    """Every section takes `Plain` or `Other`; labels and convergence are the real ones."""
    plain, other = module("fake_plain", Plain), module("fake_other", Other)
    made = {name: Kinds({"plain": plain, "other": other}) for name in KINDS}
    return made | {name: KINDS[name] for name in ("labels", "executor", "convergence")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "water.xyz").write_text(WATER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str = "") -> Path:
    file = folder / "case.yaml"
    file.write_text("structure: water.xyz\n" + text)
    return file


def refusal(folder: Path, kinds: dict[str, Kinds], text: str, **overrides: Any) -> str:
    file = write(folder, text)
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        load(file, overrides, kinds)
    assert sorted(folder.rglob("*")) == before, "a refused configuration must leave nothing behind"
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_and_name(folder: Path, kinds: dict[str, Kinds]) -> None:
    config = load(write(folder), kinds=kinds)
    assert (config.name, config.seed, config.directory) == ("case", 1, Path("runs/case"))
    assert config.labels == Labels()
    assert config.frame.numbers.tolist() == [8, 1, 1]
    assert config.reference_folder == Path("runs/case-reference")
    assert isinstance(config.model, Plain)


def test_frozen(folder: Path, kinds: dict[str, Kinds]) -> None:
    config = load(write(folder), kinds=kinds)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2
    with pytest.raises(ValueError, match="frozen"):
        config.labels.budget = 2


def test_units_and_exponents(folder: Path, kinds: dict[str, Kinds]) -> None:
    text = "model: {timestep: 1 ps, rate: 1e-4, inner: {gap: 0.1 nm}}\nconvergence: {path_error: 2 kcal/mol}\n"
    config = load(write(folder, text), kinds=kinds)
    assert isinstance(config.model, Plain)
    assert config.model.timestep == pytest.approx(1000)
    assert config.model.rate == 1e-4
    assert config.model.inner.gap == pytest.approx(1.0)
    assert config.convergence.path_error == pytest.approx(2 * KCAL_MOL)


def test_bare_word_is_the_kind(folder: Path, kinds: dict[str, Kinds]) -> None:
    config = load(write(folder, "selection: other\n"), kinds=kinds)
    assert isinstance(config.selection, Other)
    assert config.module("selection") is sys.modules["fake_other"]


def test_resolved_yaml_reads_back_the_same(folder: Path, kinds: dict[str, Kinds]) -> None:
    config = load(write(folder, "seed: 5\nmodel: {members: 7, inner: {gap: 2}}\nselection: other\n"), kinds=kinds)
    text = config.resolved_yaml()
    (folder / "again.yaml").write_text(text)
    again = load(folder / "again.yaml", kinds=kinds)
    assert again.resolved_yaml() == text
    assert yaml.safe_load(text)["selection"] == {"kind": "other", "width": 1.0}


def test_overrides_win_and_none_is_none(folder: Path, kinds: dict[str, Kinds]) -> None:
    overrides = {"seed": 9, "rounds": None, "directory": Path("x")}
    config = load(write(folder, "seed: 5\nrounds: 3\n"), overrides, kinds)
    assert (config.seed, config.rounds, config.directory) == (9, 3, Path("x"))


def test_third_party_module_by_dotted_path(
    folder: Path, kinds: dict[str, Kinds], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "theirs").mkdir()
    (folder / "theirs" / "__init__.py").write_text("")
    (folder / "theirs" / "rule.py").write_text(
        "from typing import Literal\n"
        "from rareal.schema import Section\n"
        "class Config(Section):\n"
        "    kind: Literal['rule'] = 'rule'\n"
        "    depth: int = 1\n"
        "def build(config): return config.depth\n"
    )
    monkeypatch.syspath_prepend(folder)
    config = load(write(folder, "selection: {kind: theirs.rule, depth: 4}\n"), kinds=kinds)
    assert config.module("selection").build(config.selection) == 4
    (folder / "again.yaml").write_text(config.resolved_yaml())
    assert load(folder / "again.yaml", kinds=kinds).resolved() == config.resolved()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("membrs: 3\n", ["case.yaml:2: membrs: 3: unknown key", "valid here: name, seed, rounds"]),
        ("seeed: 3\n", ["seeed: 3", "did you mean 'seed'?"]),
        ("model:\n  membres: 3\n", ["case.yaml:3: model.membres: 3", "did you mean 'members'?", "kind, members, rate"]),
        ("model: {inner: {gapp: 1}}\n", ["model.inner.gapp: 1", "did you mean 'gap'?"]),
        ("labels: {kind: labels}\n", ["labels.kind: 'labels': unknown key"]),
        ("model: {members: 1}\n", ["model.members: 1", "at least 2", "members of the committee"]),
        ("model: {members: four}\n", ["model.members: 'four'", "give a whole number"]),
        ("model: {members: 2.5}\n", ["model.members: 2.5", "give a whole number"]),
        ("model: {rate: 0}\n", ["model.rate: 0", "above 0"]),
        ("model: {rate: -1.0}\n", ["model.rate: -1.0", "above 0"]),
        ("model: {rate: .nan}\n", ["model.rate: nan", "give a finite number"]),
        ("model: {rate: .inf}\n", ["model.rate: inf", "give a finite number"]),
        ("model: {rate: fast}\n", ["model.rate: 'fast'", "give a number"]),
        ("model: {flag: perhaps}\n", ["model.flag: 'perhaps'", "give true or false"]),
        ("model: {timestep: 1 angstrom}\n", ["model.timestep: '1 angstrom'", "converts to fs"]),
        ("model: {timestep: 0.5 parsecs}\n", ["model.timestep: '0.5 parsecs'", "converts to fs"]),
        ("model: {timestep: -1 fs}\n", ["model.timestep: '-1 fs'", "above 0", "time step, fs"]),
        ("model: {mode: medium}\n", ["model.mode: 'medium'", "use 'slow' or 'fast'"]),
        ("model: {inner: 3}\n", ["model.inner: 3", "give keys with values"]),
        ("model: {atoms: [1, x]}\n", ["model.atoms[2]: 'x'", "give a whole number"]),
        ("model: {atoms: 3}\n", ["model.atoms: 3", "give a list in brackets"]),
        ("model: {atoms: [1, 4]}\n", ["model.atoms: [1, 4]", "the structure has 3 atoms; use 1 to 3"]),
        ("model: {names: {a: b}}\n", ["model.names.a: 'b'", "give a whole number"]),
        ("model: 3\n", ["model: 3", "indent its keys"]),
        ("labels: 3\n", ["labels: 3", "indent its keys"]),
        ("labels: plain\n", ["labels: 'plain'", "indent its keys"]),
        (
            "selection: plian\n",
            ["selection.kind: 'plian'", "did you mean 'plain'?", "use 'plain' or 'other'", "dotted path"],
        ),
        ("selection: {kind: 3}\n", ["selection.kind: 3", "no such kind"]),
        ("selection: no.such.module\n", ["selection.kind: 'no.such.module'", "No module named 'no'", "`Config`"]),
        ("selection: {kind: json.decoder}\n", ["selection.kind: 'json.decoder'", "'Config'", "correct the path"]),
        ("seed: one\n", ["seed: 'one'", "give a whole number"]),
        ("seed: -1\n", ["seed: -1", "at least 0"]),
        ("seed: true\n", ["seed: True", "give a whole number"]),
        ("rounds: 0\n", ["rounds: 0", "at least 1"]),
        ("labels: {budget: 0}\n", ["labels.budget: 0", "at least 1"]),
        ("labels: {max_failed_fraction: 1.5}\n", ["labels.max_failed_fraction: 1.5", "at most 1"]),
        ("convergence: {path_error: 0}\n", ["convergence.path_error: 0", "above 0"]),
        ("reference: nowhere\n", ["case.yaml:2: reference: 'nowhere'", "no such folder", "rareal reference"]),
        ("name: a/b\n", ["name: 'a/b'"]),
        ("seed: 1\nseed: 2\n", ["case.yaml:3: the key 'seed' is given twice (first in line 2)"]),
        ("model: {members: 2, members: 3}\n", ["case.yaml:2: the key 'members' is given twice"]),
        ("model: [1\n", ["case.yaml:3: this is not YAML"]),
        ("1: 2\n", ["case.yaml:2: the key 1 is no word"]),
    ],
)
def test_refusals(folder: Path, kinds: dict[str, Kinds], text: str, parts: list[str]) -> None:
    message = refusal(folder, kinds, text)
    for part in parts:
        assert part in message
    assert len(message.splitlines()) == 1


def test_every_problem_is_named_at_once(folder: Path, kinds: dict[str, Kinds]) -> None:
    message = refusal(folder, kinds, "model: {members: 1, rate: 0}\nseed: x\nselection: nothing\n")
    assert len(message.splitlines()) == 4
    for key in ("model.members", "model.rate", "seed", "selection.kind"):
        assert key in message


def test_missing_section_key_is_asked_for(folder: Path, kinds: dict[str, Kinds]) -> None:
    class Needy(Section):
        atoms: tuple[int, int] = Field(description="atoms whose distance is meant")

    kinds["cv"] = Kinds({"needy": module("fake_needy", Needy)})
    message = refusal(folder, kinds, "")
    assert "cv.atoms: this key is missing; add it (atoms whose distance is meant)" in message


def test_budget_below_the_initial_data(folder: Path, kinds: dict[str, Kinds]) -> None:
    class Initial(Section):
        frames: int = 150

    kinds["initial"] = Kinds({"md": module("fake_initial", Initial)})
    message = refusal(folder, kinds, "labels: {budget: 100}\n")
    assert "labels.budget: 100: the initial data alone take 150 labels (initial.frames); raise it above 150" in message


def test_wrong_value_on_the_command_line_is_not_blamed_on_the_file(folder: Path, kinds: dict[str, Kinds]) -> None:
    assert refusal(folder, kinds, "rounds: 3\n", rounds=0).startswith("command line, --rounds: rounds: 0")


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n"])
def test_no_mapping(folder: Path, kinds: dict[str, Kinds], text: str) -> None:
    (folder / "case.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"case\.yaml: the file holds .*, no keys such as"):
        load(folder / "case.yaml", kinds=kinds)


def test_no_yaml_file(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such file"):
        load(folder / "none.yaml")


def test_binary_file(folder: Path) -> None:
    (folder / "case.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"case\.yaml: cannot be read as a text file"):
        load(folder / "case.yaml")


def test_structure_key_missing(folder: Path, kinds: dict[str, Kinds]) -> None:
    (folder / "case.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match="structure: this key is missing; add it"):
        load(folder / "case.yaml", kinds=kinds)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["there is no file", "did you mean 'water.xyz'?", "relative to the YAML"]),
        ("3\n\nO 0 0 0\nH 0.96 0 0\nQq -0.24 0.93 0\n", ["Qq", "correct the symbol"]),
        ("3\n\nO 0 0 0\nH 0.96 0 0\nX -0.24 0.93 0\n", ["atom 3", "no known element"]),
        ("3\n\nO 0 0 0\nH 0.96 0 0\nH 0.96 0.001 0\n", ["atoms 2 and 3", "0.001 Å apart"]),
        ("3\n\nO 0 0 0\nH nan 0 0\nH 0.96 0.001 0\n", ["atom 2", "no finite number"]),
        ("1\n\nO 0 0 0\n", ["has 1 atoms", "at least two"]),
        ("9\n\nO 0 0 0\n", ["ASE cannot read", "complete file"]),
        ("", ["ASE cannot read", "complete file"]),
    ],
)
def test_bad_structures(folder: Path, kinds: dict[str, Kinds], content: str | None, parts: list[str]) -> None:
    if content is not None:
        (folder / "watr.xyz").write_text(content)
    (folder / "case.yaml").write_text("structure: watr.xyz\n")
    with pytest.raises(ConfigError) as caught:
        load(folder / "case.yaml", kinds=kinds)
    for part in ["case.yaml:1: structure: 'watr.xyz'", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize("schema", [Config, TrainConfig])
def test_every_section_is_registered(schema: type[Section]) -> None:
    """A section of the tree without a registry entry could never be read, and the other way round."""
    sections = {name for name, field in schema.model_fields.items() if name in KINDS or field.annotation is Section}
    assert sections <= set(KINDS)
    assert schema is TrainConfig or sections == set(KINDS)


def test_a_training_is_read_from_a_yaml_of_its_own_or_of_a_run(folder: Path, kinds: dict[str, Kinds]) -> None:
    (folder / "train.yaml").write_text("seed: 3\nelements: [C, H]\ndtype: float64\nmodel: {members: 7}\nsplit: other\n")
    config = load_training(folder / "train.yaml", {"seed": None}, kinds)
    assert (config.seed, config.elements, config.dtype) == (3, ("C", "H"), "float64")
    assert isinstance(config.model, Plain)
    assert config.model.members == 7
    assert config.module("split") is sys.modules["fake_other"]
    (folder / "again.yaml").write_text(config.resolved_yaml())
    assert load_training(folder / "again.yaml", kinds=kinds).resolved() == config.resolved()
    # the sections of a run are let be, even where they are wrong for one
    whole = write(folder, "seed: 5\nmodel: {members: 3}\nsampler: {kind: nothing}\ncv: 3\n")
    config = load_training(whole, {"seed": 6}, kinds)
    assert (config.seed, config.elements, config.model.model_dump()["members"]) == (6, None, 3)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("modle: {}\n", ["train.yaml:1: modle: {}: unknown key, did you mean 'model'?", "valid here: seed, dtype"]),
        ("smapler: {}\n", ["train.yaml:1: smapler: {}: unknown key, did you mean 'sampler'?"]),
        ("seed: 1\nmodel:\n  membres: 3\n", ["train.yaml:3: model.membres: 3", "did you mean 'members'?"]),
        ("dtype: float16\n", ["dtype: 'float16'", "use 'float32' or 'float64'"]),
        ("elements: [C, Qq]\n", ["elements: ['C', 'Qq']: 'Qq' is no chemical element", "such as [C, H]"]),
        ("elements: [C, X]\n", ["'X' is no chemical element"]),
        ("elements: [C, C]\n", ["give every element once"]),
        ("elements: []\n", ["at least one"]),
    ],
)
def test_refusals_of_a_training(folder: Path, kinds: dict[str, Kinds], text: str, parts: list[str]) -> None:
    (folder / "train.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_training(folder / "train.yaml", kinds=kinds)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_reading_a_yaml_imports_nothing_heavy() -> None:
    """`rareal validate` is instant: no section's `Config` needs torch or LAMMPS to be read."""
    examples = Path(__file__).parents[2] / "examples" / "hexane"
    code = (
        "import sys\n"
        "from rareal.config import KINDS, load, load_training\n"
        "from rareal.sections import schema_of\n"
        f"load({str(examples / 'hexane.yaml')!r}).resolved_yaml()\n"
        f"load_training({str(examples / 'hexane.yaml')!r}).resolved_yaml()\n"
        "[schema_of((name,), kinds, kind, []) for name, kinds in KINDS.items() for kind in kinds.modules]\n"
        "print([name for name in ('torch', 'lammps', 'tblite', 'torchani', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def executors(folder: Path, kinds: dict[str, Kinds], text: str) -> dict[str, Any]:
    resolved = load(write(folder, text), kinds=kinds).resolved()["executor"]
    assert isinstance(resolved, dict)
    return resolved


def test_one_executor_for_all_stages_or_one_for_each(folder: Path, kinds: dict[str, Kinds]) -> None:
    default = {"kind": "processes", "workers": None}
    assert executors(folder, kinds, "") == {"label": default, "sample": default, "train": default}
    assert executors(folder, kinds, "executor: serial")["train"] == {"kind": "serial"}
    mixed = executors(folder, kinds, "executor: {workers: 3, label: {workers: 7}, train: serial}")
    assert mixed == {
        "label": {"kind": "processes", "workers": 7},
        "sample": {"kind": "processes", "workers": 3},
        "train": {"kind": "serial"},
    }
    common = "executor: {kind: parsl, provider: slurm, account: chem, partition: cpu"
    slurm = f"{common}, train: {{partition: gpu}}, sample: processes}}"
    found = executors(folder, kinds, slurm)
    assert [found["label"][key] for key in ("partition", "account")] == ["cpu", "chem"]
    assert [found["train"][key] for key in ("partition", "account")] == ["gpu", "chem"]
    assert found["sample"] == default


def test_executors_survive_resolving(folder: Path, kinds: dict[str, Kinds]) -> None:
    first = executors(folder, kinds, "executor: {kind: serial, label: {kind: processes, workers: 2}}")
    assert executors(folder, kinds, f"executor: {first}") == first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("executor: {workers: 0}", "executor.workers: 0"),
        ("executor: {label: {worker: 2}}", "executor.label.worker: 2: unknown key, did you mean 'workers'?"),
        ("executor: {lable: {workers: 2}}", "there is no such stage, did you mean 'label'?; use 'label', 'sample' or"),
        ("executor: {train: parsel}", "executor.train.kind: 'parsel': there is no such kind"),
        ("executor: {kind: parsl, label: {partition: cpu}}", "partition is for 'provider: slurm'"),
        ("executor: 3", "executor: 3: this section needs keys below it"),
    ],
)
def test_executors_that_cannot_be_are_refused(folder: Path, kinds: dict[str, Kinds], text: str, message: str) -> None:
    assert message in refusal(folder, kinds, text)
