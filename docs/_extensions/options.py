"""Option tables from the configuration itself: every key with its type, default and meaning, as `pydantic` knows them.

In a page ``{options} sampler.steered`` is the table of that section and kind, with the class's own first sentence above
it; ``{options} run`` has the keys at the top of a run's YAML. ``{kinds} sampler`` lists the kinds of a section.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python
from sphinx.util.docutils import SphinxDirective

from rareal.config import KINDS, Config, TrainConfig
from rareal.labelconfig import LabelConfig
from rareal.units import Unit

TREES: dict[str, type[BaseModel]] = {"run": Config, "train": TrainConfig, "label": LabelConfig}
WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", Path: "path", type(None): "none"}
GIVEN = {"name": "the YAML's", "directory": "`runs/NAME`"}
"""Defaults that are made when a YAML is read."""
BOUNDS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def schema_of(place: str) -> type[BaseModel]:
    """The class behind ``sampler.steered``, ``labels`` or ``run``.

    Raises
    ------
    KeyError
        If there is no such section or kind.
    """
    if place in TREES:
        return TREES[place]
    section, _, kind = place.partition(".")
    choice = KINDS[section]
    kind = kind or choice.default
    if kind not in choice.modules:
        raise KeyError(place)
    return choice.schema(kind)


def options(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every field; those of nested sections follow the key that they belong to.

    What a kind has of its own comes before what it shares with others.
    """
    own = [name for name in vars(schema).get("__annotations__", {}) if name in schema.model_fields]
    for name in dict.fromkeys([*own, *schema.model_fields]):
        field = schema.model_fields[name]
        if name == "kind" or (not prefix and name in KINDS and schema in TREES.values()):
            continue
        default = GIVEN.get(name, "") if schema is Config else ""
        yield prefix + name, type_of(field), default or default_of(field), sentence(meaning(field))
        nested = list(models(field.annotation))
        for model in nested:
            kind = model.model_fields.get("kind")
            if kind is not None and len(nested) > 1:
                yield f"{prefix}{name}.kind", f"`{kind.default}`", "", sentence(first_sentence(model))
            yield from options(model, f"{prefix}{name}.")


def meaning(field: FieldInfo) -> str:
    """The field's own description; of a nested section without one, what the section says of itself."""
    if field.description:
        return field.description
    return " ".join(first_sentence(model) for model in models(field.annotation))


def sentence(text: str) -> str:
    """One look for all: a capital at the beginning, but of symbols such as k; no full stop at the end."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].upper() + text[1:] if re.match(r"[a-z]{2,}\b(?![_.'])|a ", text) else text


def first_sentence(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").strip().partition("\n\n")[0].split())


def type_of(field: FieldInfo) -> str:
    """The type in words, with the unit of a bare number and its bounds."""
    text = in_words(field.annotation)
    # a field that may be none carries its marks one level deeper
    marks = [*field.metadata, *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ()))]
    unit = next((f" in {m.symbol.replace('**', '^')}" for m in marks if isinstance(m, Unit)), "")
    text = text.replace("number", f"number{unit}", 1) if unit else text
    bounds = [f"{sign} {getattr(m, kind.__name__.lower()):g}" for m in marks for kind, sign in BOUNDS.items()
              if isinstance(m, kind)]  # fmt: skip
    return f"{text}, {' and '.join(bounds)}" if bounds else text


def in_words(annotation: Any) -> str:
    """What the YAML may have for a type."""
    if annotation in WORDS:
        return WORDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        models_in = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
        others = [a for a in arguments if a not in models_in]
        return " or ".join(dict.fromkeys([*(["keys below"] if models_in else []), *map(in_words, others)]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys below"
    if origin in (tuple, list, frozenset, set):
        inside = list(dict.fromkeys(in_words(a) for a in arguments if a is not Ellipsis))
        count = "" if Ellipsis in arguments or origin is not tuple else f"{len(arguments)} × "
        return f"list of {count}{' and '.join(inside)}"
    if origin is dict or annotation is dict:
        return "keys with values"
    return "any" if annotation is Any else getattr(annotation, "__name__", str(annotation))


def default_of(field: FieldInfo) -> str:
    """The default as the YAML has it; `required` where there is none."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return f"`{value.kind}`" if hasattr(value, "kind") else ""
    if isinstance(value, float):
        return f"`{float(f'{value:.6g}'):g}`"
    if value is None:
        return ""
    text = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, allow_unicode=True, width=10_000)
    return f"`{text.removesuffix(chr(10)).removesuffix('...').strip()}`"


def models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections in an annotation such as ``Rupture | None``; not the open ones that any kind may fill."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation.model_fields:
            yield annotation
        return
    for argument in get_args(annotation):
        yield from models(argument)


def table(place: str) -> str:
    """The table in Markdown."""
    rows = list(options(schema_of(place)))
    if not rows:
        return "This kind has no keys.\n"
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for row in rows:
        key, *others = (cell.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;") for cell in row)
        lines.append(f"| `{key}` | {' | '.join(others)} |")
    return "\n".join(lines) + "\n"


def kinds(section: str) -> str:
    """The kinds of a section, the default first, in Markdown."""
    lines = ["| kind | what it is |", "|---|---|"]
    for number, kind in enumerate(KINDS[section].modules):
        mark = " (default)" if number == 0 and len(KINDS[section].modules) > 1 else ""
        lines.append(f"| `{kind}`{mark} | {first_sentence(KINDS[section].schema(kind))} |")
    return "\n".join(lines) + "\n"


class Generated(SphinxDirective):
    """Markdown that the code gives, in the place of the directive."""

    required_arguments = 1

    def text(self, argument: str) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        try:
            text = self.text(self.arguments[0])
        except KeyError as missing:
            raise self.error(f"there is no {missing}") from missing
        holder = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), source=self.name), self.content_offset, holder)
        return list(holder.children)


class Options(Generated):
    """``{options} SECTION.KIND``."""

    def text(self, argument: str) -> str:
        return table(argument)


class KindsTable(Generated):
    """``{kinds} SECTION``."""

    def text(self, argument: str) -> str:
        return kinds(argument)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("options", Options)
    app.add_directive("kinds", KindsTable)
    return {"parallel_read_safe": True}
