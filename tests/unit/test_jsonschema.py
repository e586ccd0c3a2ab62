"""The JSON schema takes what the program takes, and refuses what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commandline import Command

from rareal.config import KINDS, Config
from rareal.jsonschema import COMMANDS, json_schema
from rareal.labelconfig import load_labels
from rareal.yamlfile import read_yaml

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))
SCHEMAS = {command: json_schema(command) for command in COMMANDS}


def errors(data: Any, command: str = "run") -> list[str]:
    found = jsonschema.Draft7Validator(SCHEMAS[command]).iter_errors(data)
    return [f"{error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_schemas_are_schemas(command: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[command])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(example: Path) -> None:
    data = read_yaml(example).data
    assert errors(data, "run" if "structure" in data else "train") == []
    if "engine" in data:
        load_labels(example)
        assert errors(data, "label") == []


def test_every_kind_with_all_its_defaults_is_valid() -> None:
    """What `resolved` would print of each kind."""
    for name, choice in KINDS.items():
        for kind in choice.modules:
            schema = choice.schema(kind)
            if any(field.is_required() for field in schema.model_fields.values()):
                continue
            try:
                section = schema.model_validate({})
            except ValueError:
                continue  # one of several keys must be given
            values = {**section.model_dump(mode="json"), **({"kind": kind} if choice.names_kind else {})}
            data = {"structure": "x.xyz", "cv": {"atoms": [1, 2]}, name: values}
            assert errors(data) == [], f"{name}: {kind}"


BASE: dict[str, Any] = {"structure": "x.xyz", "cv": {"kind": "distance", "atoms": [1, 6]}}


@pytest.mark.parametrize(
    "change",
    [
        {"sampler": {"temperature": "300 K", "timestep": "0.5 fs", "velocity": "-1 angstrom/ps"}},
        {"labels": {"timeout": "2 hours"}},
        {"sampler": {"kind": "steered", "spring": "10 eV/angstrom^2", "velocities": ["1 angstrom/ps", 0.002]}},
        {"sampler": {"kind": "metadynamics", "biased": {"hill_width": 0.1, "range": [1, 2]}, "basins": [1, 2]}},
        {"sampler": {"kind": "metadynamics", "biased": [{"hill_width": 0.1}, {"hill_width": 10}], "walkers": [{}, {}]}},
        {"sampler": {"kind": "umbrella", "first": 1, "last": 2, "force_constant": "2 eV/angstrom^2"}},
        {"uncertainty": {"kind": "fixed", "threshold": "1 kcal/mol"}},
        {"cv": [{"atoms": [1, 6]}, {"kind": "dihedral", "atoms": [1, 2, 3, 4], "name": "phi"}]},
        {"training": {"loss": "huber", "outliers": False, "memory": "8 GB"}},
        {"training": {"loss": {"energy_weight": 2.0}, "schedule": {"kind": "onecycle"}}},
        {"model": "painn"},
        {"model": {"kind": "my.own.module", "anything": 3}},
        {"check": None},
        {"executor": {"kind": "parsl", "provider": "slurm", "account": "chem", "train": {"partition": "gpu"}}},
        {"executor": {"workers": 3, "label": {"workers": 7}, "train": "serial"}},
    ],
)
def test_what_the_program_takes(change: dict[str, Any]) -> None:
    assert errors({**BASE, **change}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"smapler": {}},
        {"sampler": {"kind": "steered", "stps": 3}},
        {"sampler": {"kind": "sterred"}},
        {"sampler": "sterred"},
        {"sampler": {"temperature": -3}},
        {"sampler": {"temperature": "hot"}},
        {"sampler": {"steps": 2.5}},
        {"sampler": {"kind": "umbrella", "first": 1}},
        {"sampler": "umbrella"},
        {"sampler": {"kind": "metadynamics", "biased": [{"hill_width": 0}], "hill_hight": 1}},
        {"sampler": 3},
        {"labels": {"budget": 0}},
        {"labels": "labels"},
        {"training": {"members": 1}},
        {"training": {"loss": "hubber"}},
        {"training": {"loss": {"kind": "huber", "weight": 1}}},
        {"training": {"optimizer": "sgd"}},
        {"cv": {"kind": "distance", "atoms": [0]}},
        {"cv": {"kind": "coordination"}},
        {"cv": []},
        {"cv": "distance"},
        {"cv": None},
        {"seed": "one"},
        {"rounds": 0},
        {"executor": {"workers": 0}},
        {"executor": {"lable": {"workers": 2}}},
        {"executor": {"label": {"worker": 2}}},
    ],
    ids=str,
)
def test_what_the_program_refuses(change: dict[str, Any]) -> None:
    assert errors({**BASE, **change}) != []


@pytest.mark.parametrize("key", ["structure", "cv"])
def test_what_must_be_there(key: str) -> None:
    assert errors({name: value for name, value in BASE.items() if name != key}) != []


def test_every_key_is_explained() -> None:
    """Editors show the descriptions."""
    properties = SCHEMAS["run"]["definitions"]["sampler.steered"]["properties"]
    assert properties["spring"]["description"].startswith("spring constant")
    assert set(SCHEMAS["run"]["properties"]) == set(Config.model_fields)


def test_the_command(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("schema")
    assert code == 0
    assert json.loads(out) == SCHEMAS["run"]
    code, out, _ = command("schema", "train", "-o", tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text()) == SCHEMAS["train"]
    assert "# yaml-language-server: $schema=train.json" in out
    code, _, error = command("schema", "trian")
    assert (code, "did you mean 'train'?" in error) == (2, True)
