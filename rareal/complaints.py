"""What is wrong with a configuration, in words: pydantic's errors as the key, the value and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rareal.yamlfile import KeyPath

ABSENT = object()
"""The value of a key that is not given."""

_CURES = {
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number, bare or with a unit that belongs to it",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "string_type": "give a word, in quotes if it looks like a number",
    "path_type": "give the name of a file or folder",
    "list_type": "give a list in brackets, e.g. [1, 6]",
    "tuple_type": "give a list in brackets, e.g. [1, 6]",
    "dict_type": "give keys with values, indented below it",
    "model_type": "give keys with values, indented below it",
    "model_attributes_type": "give keys with values, indented below it",
}


@dataclass(frozen=True)
class Problem:
    """One wrong value: where it is, what it is, what is wrong with it and what to do."""

    key_path: KeyPath
    value: Any
    text: str
    cure: str = ""

    def __str__(self) -> str:
        value = "" if self.value is ABSENT else f" {_show(self.value)}:"
        return f"{dotted(self.key_path)}:{value} {self.text}" + (f"; {self.cure}" if self.cure else "")


def dotted(key_path: KeyPath) -> str:
    """``training.members``; entries of lists as ``cv.atoms[2]``, counted from 1."""
    text = ""
    for part in key_path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def join(words: Iterable[str]) -> str:
    """``'a'``, ``'a' or 'b'``, ``'a', 'b' or 'c'``."""
    *rest, last = [f"'{word}'" for word in words]
    return f"{', '.join(rest)} or {last}" if rest else last


def closest(word: str, valid: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for the valid word next to ``word``; empty where none is near."""
    near = difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""


def problems(error: ValidationError, schema: type[BaseModel], raw: Mapping[str, Any], prefix: KeyPath) -> list[Problem]:
    """Every complaint of pydantic about ``raw``, which was read as ``schema`` and sits at ``prefix`` in the YAML."""
    found: dict[KeyPath, Problem] = {}
    for detail in error.errors(include_url=False):
        problem = _problem(detail, schema, raw, prefix)
        # the branches of a union complain one by one about the same value
        found.setdefault(problem.key_path, problem)
    return list(found.values())


def value_at(raw: Any, key_path: KeyPath) -> Any:
    """What the YAML has at ``key_path`` below ``raw``, before any conversion.

    Raises
    ------
    KeyError
        If there is nothing.
    """
    for part in key_path:
        inside = isinstance(raw, dict) and part in raw
        if not inside and not (isinstance(raw, list | tuple) and isinstance(part, int) and part < len(raw)):
            raise KeyError(part)
        raw = raw[part]
    return raw


def _problem(detail: ErrorDetails, schema: type[BaseModel], raw: Mapping[str, Any], prefix: KeyPath) -> Problem:
    code = detail["type"]
    location = _strip(detail["loc"], raw, keep_last=code == "missing")
    key_path = (*prefix, *location)
    parent, description = _describe(schema, location, raw)
    if code == "missing":
        return Problem(key_path, ABSENT, "this key is missing", f"add it ({description or 'it has no default'})")
    value = value_at(raw, location)
    if code in ("extra_forbidden", "invalid_key"):
        name = str(location[-1])
        owner = parent or (schema if len(location) == 1 else None)
        valid = list(dict.fromkeys([*owner.model_fields, *getattr(owner, "elsewhere", ())])) if owner else []
        # a number is no place in a list here
        key_path = (*key_path[:-1], name)
        return Problem(key_path, value, f"unknown key{closest(name, valid)}", f"valid here: {', '.join(valid)}")
    text, cure = _wording(detail)
    return Problem(key_path, value, f"{text} ({description})" if description else text, cure)


def _wording(detail: ErrorDetails) -> tuple[str, str]:
    """What is wrong with a value, and the cure."""
    code = detail["type"]
    context = detail.get("ctx", {})
    message = detail["msg"].removeprefix("Value error, ")
    if code == "value_error":
        return message, ""
    if code in ("literal_error", "enum"):
        return "no such choice", f"use {context.get('expected', '')}"
    if code in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        bound = next(iter(context.values()))
        words = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}
        return "out of range", f"give a number that is {words.get(code, 'at most')} {bound}"
    if code in ("too_long", "too_short") and "actual_length" in context:
        few = code == "too_short"
        wanted = f"at least {context['min_length']}" if few else f"at most {context['max_length']}"
        return f"too {'few' if few else 'many'} entries", f"give {wanted}, these are {context['actual_length']}"
    if code == "string_pattern_mismatch":
        return "not written as it must be", f"it must match {context['pattern']}"
    if cure := _CURES.get(code):
        return "wrong type of value", cure
    return message[:1].lower() + message[1:], "correct it"


def _strip(location: tuple[str | int, ...], raw: Any, keep_last: bool) -> KeyPath:
    """Pydantic's location without the names of union branches and validators, which are not in the YAML."""
    path: list[str | int] = []
    for index, part in enumerate(location):
        try:
            value_at(raw, (*path, part))
        except KeyError:
            if keep_last and index == len(location) - 1:
                path.append(part)
            continue
        path.append(part)
    return tuple(path)


def _describe(schema: type[BaseModel], location: KeyPath, raw: Any) -> tuple[type[BaseModel] | None, str]:
    """The class that the last key of ``location`` belongs to, and the key's own description."""
    parent: type[BaseModel] | None = schema
    description = ""
    for index, part in enumerate(location):
        field = parent.model_fields.get(str(part)) if parent else None
        if field is None:
            # keep the description of the list or mapping that the entry belongs to
            return parent if index == len(location) - 1 and not isinstance(part, int) else None, description
        description = (field.description or "").rstrip(".")
        if index < len(location) - 1:
            parent = _model_in(field.annotation, value_at(raw, location[: index + 1]))
    return parent, description


def _model_in(annotation: Any, value: Any) -> type[BaseModel] | None:
    """The pydantic class in an annotation such as ``Rupture | None``; of several, the one of the value's ``kind``."""
    models = list(_models_in(annotation))
    kind = value.get("kind") if isinstance(value, dict) else None
    same = (m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == kind)
    return next(same, models[0] if models else None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
