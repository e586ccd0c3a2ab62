"""One section of the YAML: which module its ``kind`` stands for, and reading it as that module's `Config`.

A kind with a dot in it is the dotted path of anyone's own module. Modules are imported only when their section is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rareal.complaints import ABSENT, Problem, closest, join, problems, value_at
from rareal.schema import Misfit, Section
from rareal.yamlfile import KeyPath


@dataclass(frozen=True)
class Kinds:
    """The modules that may fill a section, by kind; the first is taken where the YAML names none."""

    modules: dict[str, str]
    names_kind: bool = True

    @property
    def default(self) -> str:
        return next(iter(self.modules))

    def module(self, kind: str) -> str:
        """The module behind a kind; a dotted path stands for itself."""
        return self.modules.get(kind, kind).partition(":")[0]

    def schema(self, kind: str) -> type[Section]:
        """The class of a kind's section.

        Raises
        ------
        ImportError, AttributeError
            If there is no such module, or no such class in it.
        """
        module, _, attribute = self.modules.get(kind, kind).partition(":")
        found: type[Section] = getattr(importlib.import_module(module), attribute or "Config")
        return found


def read_section(
    place: KeyPath, choice: Kinds, raw: Any, folder: Path, found: list[Problem]
) -> tuple[Section, str] | None:
    """The section and its kind; None, with the reasons appended to ``found``, where it cannot be read.

    Parameters
    ----------
    place : where it is in the YAML.
    choice : what may be there.
    raw : what is there.
    folder : of the YAML, for the files that the section names.
    found : the complaints so far.
    """
    if isinstance(raw, str) and choice.names_kind:
        raw = {"kind": raw}
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        inside = "put its keys in braces" if isinstance(place[-1], int) else f"write '{place[-1]}:' and indent its keys"
        found.append(Problem(place, raw, "this section needs keys below it", inside))
        return None
    values = dict(raw)
    kind = values.get("kind", choice.default) if choice.names_kind else choice.default
    schema = schema_of(place, choice, kind, found)
    if schema is None:
        return None
    if "kind" not in schema.model_fields:
        if choice.names_kind:
            values.pop("kind", None)
    elif kind in choice.modules:
        values["kind"] = kind
    elif schema.model_fields["kind"].is_required() is False:
        values.pop("kind", None)
    try:
        section = schema.model_validate(values)
    except ValidationError as error:
        found.extend(problems(error, schema, values, place))
        return None
    try:
        return section.read_files(folder), kind if choice.names_kind else ""
    except Misfit as misfit:
        key = tuple(misfit.field.split("."))
        found.append(Problem((*place, *key), _value(section, key, values), str(misfit)))
        return None


def schema_of(place: KeyPath, choice: Kinds, kind: Any, found: list[Problem]) -> type[Section] | None:
    """The pydantic class behind ``kind``."""
    own = isinstance(kind, str) and "." in kind
    if not own and (not isinstance(kind, str) or kind not in choice.modules):
        cure = f"use {join(choice.modules)}, or the dotted path of a module of your own"
        guess = closest(str(kind), choice.modules)
        found.append(Problem((*place, "kind"), kind, f"there is no such kind{guess}", cure))
        return None
    try:
        return choice.schema(kind)
    except (ImportError, AttributeError) as error:
        if not own:
            raise
        cure = "install the package, or correct the path; the module needs a class `Config` and a function `build`"
        found.append(Problem((*place, "kind"), kind, f"the module cannot be used ({error})", cure))
        return None


def complaint(place: KeyPath, section: Section, misfit: Misfit, data: Mapping[str, Any]) -> Problem:
    """A misfit of the section at ``place`` in the YAML, whose top level is ``data``."""
    key = tuple(misfit.field.split("."))
    try:
        given = value_at(data, place)
    except KeyError:  # the whole section is the default
        given = {}
    return Problem((*place, *key), _value(section, key, given), str(misfit))


def _value(section: Section, key: KeyPath, given: Any) -> Any:
    """What the YAML has at ``key`` of a section, else the default."""
    try:
        return value_at(given, key)
    except KeyError:
        value: Any = section
    for part in key:
        value = getattr(value, str(part), None)
    return ABSENT if value is None else value
