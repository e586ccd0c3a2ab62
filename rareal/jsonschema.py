"""The YAML's JSON schema, from the configuration's own classes: editors complete and check with it.

It says what each key may be by itself, in every section and for every kind; a number that takes units may be a text
such as ``1 kcal/mol``. What depends on the structure or on several keys only `rareal validate` can tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ValidationError

from rareal.config import EXECUTOR, KINDS, Config, Executors, TrainConfig, Tree
from rareal.files import write_text
from rareal.labelconfig import LabelConfig
from rareal.sections import Kinds
from rareal.units import QUANTITY, Unit

DIALECT = "http://json-schema.org/draft-07/schema#"
"""What editors understand best."""

COMMANDS: dict[str, type[Tree]] = {"run": Config, "train": TrainConfig, "label": LabelConfig}
"""What a YAML may be for."""

GIVEN = ("name", "directory")
"""Keys of a run that have no default of their own, and get one when the YAML is read."""

FILE = "rareal.schema.json"
MODELINE = f"# yaml-language-server: $schema={FILE}"


def json_schema(command: str = "run", kinds: Mapping[str, Kinds] | None = None) -> dict[str, Any]:
    """The JSON schema of a YAML for ``rareal run``, ``train`` or ``label``."""
    tree = COMMANDS[command]
    registry = kinds or KINDS
    plain = tree.model_json_schema()["properties"]
    definitions: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, field in tree.model_fields.items():
        if name not in registry:
            properties[name] = plain[name]
            if field.is_required() and name not in GIVEN:
                required.append(name)
            continue
        found = section(name, registry[name], definitions)
        if name == EXECUTOR:
            found = executors(found, registry[name])
        elif get_origin(field.annotation) is tuple:
            found = {"anyOf": [found, {"type": "array", "items": found, "minItems": 1}]}
        properties[name] = found
        if name != EXECUTOR and needs_keys(registry[name].schema(registry[name].default)):
            required.append(name)
    for name in tree.elsewhere:
        properties.setdefault(name, {"description": "for another command; not read by this one"})
    return {
        "$schema": DIALECT,
        "title": f"rareal {command}",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "definitions": definitions,
    }


def write(path: Path, command: str = "run") -> Path:
    """Write the schema to ``path``."""
    return write_text(path, json.dumps(json_schema(command), indent=1, ensure_ascii=False) + "\n")


def needs_keys(schema: type[BaseModel]) -> bool:
    """Whether a section cannot be without any key."""
    try:
        schema.model_validate({})
    except ValidationError:
        return True
    return False


def section(name: str, choice: Kinds, definitions: dict[str, Any]) -> dict[str, Any]:
    """A section of any of its kinds: the name of one, or keys; what the kinds are goes into ``definitions``."""
    references = {
        kind: _define(f"{name}.{kind}", choice.schema(kind), choice, kind, definitions) for kind in choice.modules
    }
    if not choice.names_kind:
        return {"anyOf": [references[choice.default], {"type": "null"}]}
    by_name = [kind for kind in choice.modules if not needs_keys(choice.schema(kind))]
    ways = [_mapping(references, choice.default, foreign=True), {"type": "string", "pattern": r"\."}]
    if by_name:
        ways.append({"enum": by_name})
    if choice.default in by_name:
        ways.append({"type": "null"})
    return {"anyOf": ways}


def executors(common: dict[str, Any], choice: Kinds) -> dict[str, Any]:
    """The section ``executor``, whose stages may each have one of their own.

    A stage's keys come on top of the common ones: which of them are valid depends on both, so here all kinds' are.
    """
    keys = {key for kind in choice.modules for key in choice.schema(kind).model_fields}
    own = {"kind": common["anyOf"][0]["properties"]["kind"], **{key: {} for key in sorted(keys - {"kind"})}}
    stage = {"anyOf": [{"type": "object", "properties": own, "additionalProperties": False}, *common["anyOf"][1:]]}
    mapping = {
        "type": "object",
        "properties": {**own, **dict.fromkeys(Executors.model_fields, stage)},
        "additionalProperties": False,
        "anyOf": [{"required": [name]} for name in Executors.model_fields],
    }
    return {"anyOf": [*common["anyOf"], mapping]}


def _mapping(references: Mapping[str, Any], default: str, foreign: bool) -> dict[str, Any]:
    """Keys whose ``kind`` says what the others may be; ``default`` is taken where there is none."""
    kinds: dict[str, Any] = {"enum": list(references)}
    known: dict[str, Any] = {"anyOf": [kinds, {"type": "string", "pattern": r"\."}]} if foreign else kinds
    branches = [
        {
            "if": {"properties": {"kind": {"const": kind}}, **({} if kind == default else {"required": ["kind"]})},
            "then": reference,
        }
        for kind, reference in references.items()
    ]
    return {"type": "object", "properties": {"kind": known}, "allOf": branches}


def _define(key: str, schema: type[BaseModel], choice: Kinds, kind: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to ``schema``, which is described in ``definitions``."""
    found = schema.model_json_schema(ref_template=f"#/definitions/{key}.{{model}}")
    nested = found.pop("$defs", {})
    for model in _models(schema):
        _loosen(model, found if model is schema else nested.get(model.__name__, {}))
    for name, part in nested.items():
        definitions[f"{key}.{name}"] = _unions(part)
    if choice.names_kind:
        found.setdefault("properties", {}).setdefault("kind", {"const": kind})
    definitions[key] = _unions(found)
    return {"$ref": f"#/definitions/{key}"}


def _models(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """``schema`` and all classes that its fields are of."""
    waiting: list[Any] = [schema]
    seen: set[type[BaseModel]] = set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, type) and issubclass(item, BaseModel) and item not in seen:
            seen.add(item)
            yield item
            waiting += [field.annotation for field in item.model_fields.values()]
        waiting += get_args(item)


def _loosen(model: type[BaseModel], found: dict[str, Any]) -> None:
    """Let values that the class converts before it looks at them be what they may.

    These are units that depend on other keys, and single entries in the place of a list.
    """
    converted = {
        name
        for validator in model.__pydantic_decorators__.field_validators.values()
        if validator.info.mode == "before"
        for name in validator.info.fields
    }
    for name, field in model.model_fields.items():
        shown = found.get("properties", {}).get(name)
        if shown is None or "discriminator" in shown:
            continue
        if name in converted or _converts(field.metadata) or _hidden(field.annotation):
            text = {key: shown.pop(key) for key in ("description", "default", "title") if key in shown}
            listed = [{"type": ["array", "object"]}] if "array" in json.dumps(shown) else []
            number = {"type": "string", "pattern": QUANTITY}
            found["properties"][name] = {**text, "anyOf": [shown, number, *listed]}


def _converts(metadata: Iterable[Any]) -> bool:
    """Whether a validator comes first that the schema does not know of."""
    return any(isinstance(item, BeforeValidator) for item in metadata) and not any(
        isinstance(item, Unit) for item in metadata
    )


def _hidden(annotation: Any) -> bool:
    """The same of what is within a type, such as the entries of a tuple."""
    return _converts(getattr(annotation, "__metadata__", ())) or any(map(_hidden, get_args(annotation)))


def _unions(schema: Any) -> Any:
    """``schema`` with choices between nested kinds as the YAML has them: a bare name, or keys with or without kind."""
    if isinstance(schema, list):
        return [_unions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _unions(value) for key, value in schema.items()}
    if "discriminator" not in schema:
        return schema
    references = {kind: {"$ref": target} for kind, target in schema.pop("discriminator")["mapping"].items()}
    schema.pop("oneOf")
    default = schema.get("default", {})
    first = default.get("kind") if isinstance(default, dict) else None
    # YAML reads a bare `off` as false
    names: list[Any] = [*references, *([False] if "off" in references else [])]
    return {**schema, "anyOf": [{"enum": names}, _mapping(references, first or "", foreign=False)]}
