"""`rareal init`: what it writes is valid, explains itself, and is what was asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase.build import molecule
from ase.io import write as write_atoms
from commandline import Command

from rareal import starter
from rareal.config import KINDS, load
from rareal.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_atoms(tmp_path / "propane.xyz", molecule("C3H8"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uncommented(text: str) -> str:
    """The YAML with every key that stands behind a # taken out, as a user would."""
    return re.sub(r"^( *)# ( *[a-z_]+:)", r"\1\2", text, flags=re.MULTILINE)


def test_what_it_writes_is_valid_and_says_what_every_key_means(folder: Path, command: Command) -> None:
    code, out, _ = command("init", "--structure", "propane.xyz", "--pull", 1, 3)
    assert code == 0
    assert "rareal run propane.yaml" in out
    text = (folder / "propane.yaml").read_text()
    assert text.splitlines()[0] == "# yaml-language-server: $schema=rareal.schema.json"
    assert (folder / "rareal.schema.json").is_file()
    assert max(map(len, text.splitlines())) <= 120
    config = load("propane.yaml")
    assert command("validate", "propane.yaml", "--no-measure")[0] == 0
    resolved = config.resolved()
    assert (resolved["cv"]["atoms"], resolved["sampler"]["kind"], resolved["engine"]["kind"]) == (
        [1, 3],
        "steered",
        "tblite",
    )
    flat = " ".join(" ".join(re.sub(r"^ *# ", "", line) for line in text.splitlines()).split())
    for section in (config.engine, config.sampler, config.training, config.check, config.labels):
        for key, field in type(section).model_fields.items():
            if key != "kind":
                assert f"{key}:" in text
                words = field.description or getattr(section, key).__doc__
                assert " ".join(words.split()) in flat.replace(" # ", " "), f"{key} is not explained"


def test_every_section_has_a_title() -> None:
    assert set(KINDS) == set(starter.TITLES)


def test_the_commented_values_are_the_defaults(folder: Path, command: Command) -> None:
    """Taking all # away changes nothing."""
    command("init", "--structure", "propane.xyz", "--pull", 1, 3)
    text = (folder / "propane.yaml").read_text()
    full = uncommented(text)
    assert full.count(":") > 100
    (folder / "full.yaml").write_text(full + "\nname: propane\n")
    assert load("full.yaml").resolved() == load("propane.yaml").resolved()


@pytest.mark.parametrize("kind", KINDS["sampler"].modules)
@pytest.mark.parametrize("cvs", [["distance 1 3"], ["dihedral 2 1 3 4"], ["angle 1 2 3", "distance 1 3 name=d"]])
def test_every_sampler_can_be_asked_for(kind: str, cvs: list[str], folder: Path) -> None:
    """What has no default is guessed from the structure, and said; what cannot be guessed is asked for."""
    wish = starter.wish(folder / "propane.xyz", sampler=kind, cvs=cvs)
    if kind == "neb":
        with pytest.raises(ConfigError, match=r"sampler\.product: this key is missing; add it"):
            starter.write(wish, folder / "case.yaml")
        return
    written = starter.write(wish, folder / "case.yaml")
    config = load(folder / "case.yaml")
    assert config.resolved()["sampler"]["kind"] == kind
    assert len(config.cv) == len(cvs)
    assert any("is a guess" in note for note in written.notes) == (kind in starter.SUGGESTIONS)


def test_a_guess_gives_way_to_what_is_said(folder: Path, command: Command) -> None:
    code, out, error = command(
        "init", "--structure", "propane.xyz", "--sampler", "umbrella", "--pull", 1, 3, "--set", "sampler.last=5"
    )
    assert code == 0, error
    assert "sampler.first is a guess: 1.5" in out
    assert "sampler.last" not in out
    config: Any = load("propane.yaml")
    assert (config.sampler.first, config.sampler.last) == (pytest.approx(1.5, abs=0.1), 5)


def test_push_charge_and_any_key(folder: Path, command: Command) -> None:
    code, _, error = command(
        "init", "sub.yaml", "--structure", "propane.xyz", "--push", 1, 3, "--charge", 1, "--engine", "tblite",
        "--set", "model=painn", "--set", "sampler.temperature=300 K", "--set", "labels.budget=200",
        "--set", "check.rupture.step=0.1 angstrom", "--set", "training.loss.kind=huber", "--no-schema",
    )  # fmt: skip
    assert code == 0, error
    config: Any = load("sub.yaml")
    assert config.sampler.velocity == pytest.approx(-0.001)
    assert config.sampler.temperature == 300
    assert (config.engine.charge, config.engine.multiplicity) == (1, 2)  # 25 electrons
    assert (config.labels.budget, config.check.rupture.step) == (200, 0.1)
    assert (config.resolved()["model"]["kind"], config.training.loss.kind) == ("painn", "huber")
    text = (folder / "sub.yaml").read_text()
    assert "language-server" not in text
    assert not (folder / "rareal.schema.json").exists()
    # what was given stays as it was given, unit included
    assert "temperature: 300 K" in text


def test_odd_electrons_are_told(folder: Path, command: Command) -> None:
    write_atoms(folder / "methyl.xyz", molecule("CH3"))
    code, out, _ = command("init", "--structure", "methyl.xyz", "--pull", 1, 2)
    assert code == 0
    assert "odd number of electrons: multiplicity 2" in out


def test_an_engine_that_cannot_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first engine, in the order of the registry, that goes with the structure and is installed."""
    real = starter._valid

    def valid(tree: Any, output: Path) -> Any:
        if tree["engine"]["kind"] == "tblite":
            raise ConfigError("engine.kind: 'tblite': not installed")
        return real({**tree, "engine": "tblite"}, output)

    monkeypatch.setattr(starter, "_valid", valid)
    wish = starter.wish(folder / "propane.xyz", pull=(1, 3))
    assert starter.write(wish, folder / "f.yaml").engine == list(KINDS["engine"].modules)[1]
    with pytest.raises(ConfigError, match="not installed"):
        starter.write(starter.wish(folder / "propane.xyz", pull=(1, 3), engine="tblite"), folder / "g.yaml")


def test_several_variables_are_a_list(folder: Path) -> None:
    text = starter.text_of({"cv": [{"kind": "distance", "atoms": [1, 2]}, {"kind": "distance", "atoms": [2, 3]}]})
    assert [item["atoms"] for item in yaml.safe_load(text)["cv"]] == [[1, 2], [2, 3]]
    assert starter.variable("distance 1 6 period=2.5") == {"kind": "distance", "atoms": [1, 6], "period": 2.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pull", "1", "3", "--push", "1", "3"], "give one of them"),
        ([], "which event?"),
        (["--pull", "1", "40"], "cv.atoms: [1, 40]: there is no atom 40"),
        (["--cv", "distanc 1 3"], "did you mean 'distance'?"),
        (["--cv", "distance a 3"], "'a' is no atom and no key=value"),
        (["--pull", "1", "3", "--sampler", "steerd"], "sampler.kind: 'steerd': there is no such kind"),
        (["--pull", "1", "3", "--set", "sampler.stps=3"], "sampler.stps: 3: unknown key, did you mean 'steps'?"),
        (["--pull", "1", "3", "--set", "sampler"], "write key=value"),
        (["--pull", "1", "3", "--set", "sampler=[1"], "is no value of a YAML"),
        (["--pull", "1", "3", "--set", "seed=1", "--set", "seed.x=2"], "'seed' has been given a value already"),
        (["--pull", "1", "3", "--charge", "1", "--multiplicity", "1"], "25 electrons cannot have multiplicity 1"),
        (["sub/x.yaml", "--pull", "1", "3"], "there is no such folder"),
        (["--pull", "1", "3", "--engine", "tblte"], "did you mean 'tblite'?"),
    ],
)
def test_refusals_write_nothing(folder: Path, command: Command, arguments: list[str], message: str) -> None:
    code, _, error = command("init", "--structure", "propane.xyz", *arguments)
    assert code == 2
    assert message in error
    assert [item.name for item in folder.iterdir()] == ["propane.xyz"]


def test_it_overwrites_only_when_told(folder: Path, command: Command) -> None:
    (folder / "propane.yaml").write_text("mine")
    code, _, error = command("init", "--structure", "propane.xyz", "--pull", 1, 3)
    assert code == 2
    assert "exists already; overwrite it with --force" in error
    assert (folder / "propane.yaml").read_text() == "mine"
    assert command("init", "--structure", "propane.xyz", "--pull", 1, 3, "--force")[0] == 0
    assert load("propane.yaml").frame is not None
