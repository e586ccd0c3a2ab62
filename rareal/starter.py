"""`rareal init`: a YAML for a structure and an event, with a comment for every key.

The comments are the descriptions that the configuration's own fields have, the values their defaults: keys that are set
stand as they are, the others behind a `#` that only has to be taken away.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rareal.complaints import closest, join
from rareal.config import EXECUTOR, KINDS, Config, Executors, load
from rareal.cv import Variable
from rareal.errors import ConfigError
from rareal.files import write_text
from rareal.jsonschema import FILE, MODELINE
from rareal.jsonschema import write as write_schema
from rareal.sections import Kinds
from rareal.yamlfile import YamlFile

WIDTH = 120
COLUMN = 44
"""Where comments begin, unless the value is longer."""

TITLES = {
    "cv": "collective variable: what tells how far the event is; one, or a list",
    "engine": "level of theory that labels are computed with",
    "labels": "how many labels, and how they are computed",
    "executor": "where labels, walkers and trainings run; label, sample and train may each have one of their own",
    "initial": "the first data, made with the engine itself",
    "model": "architecture of the committee's members",
    "repulsion": "a repulsive core below the model",
    "training": "how the committee is trained",
    "split": "which member learns from which frame",
    "sampler": "how the event is driven with the committee",
    "exploration": "whether walkers are driven to their end, or halt where the committee does not know",
    "uncertainty": "when a frame is new to the committee",
    "selection": "which of the new frames are labelled",
    "augment": "copies of the selected frames with noise",
    "check": "how the committee is compared with the engine along the event",
    "convergence": "when the run ends before its last round",
}


@dataclass(frozen=True)
class Wish:
    """What the command line asks for.

    Attributes
    ----------
    structure : the file, relative to the current directory.
    given : values by section and key, as a YAML would have them.
    engine : kind of the engine; the first that can be used here if None.
    """

    structure: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    engine: str | None = None


@dataclass(frozen=True)
class Written:
    """What `write` has made: the YAML, the engine in it, what should be known of it."""

    path: Path
    engine: str
    notes: tuple[str, ...] = ()


def wish(
    structure: Path,
    pull: tuple[int, int] | None = None,
    push: tuple[int, int] | None = None,
    sampler: str | None = None,
    cvs: Sequence[str] = (),
    engine: str | None = None,
    charge: int | None = None,
    multiplicity: int | None = None,
    values: Sequence[str] = (),
) -> Wish:
    """What the command line asks for, as a tree; see `rareal init`.

    Raises
    ------
    ConfigError
        If it contradicts itself, or names no event.
    """
    if sum((pull is not None, push is not None, bool(cvs))) > 1:
        raise ConfigError("the event is --pull, --push or --cv; give one of them")
    tree = assigned(values)
    variables = [variable(text) for text in cvs]
    if atoms := pull or push:
        variables = [{"kind": "distance", "atoms": list(atoms)}]
    if variables:
        tree["cv"] = variables[0] if len(variables) == 1 else variables
    if "cv" not in tree:
        raise ConfigError("which event? give --pull 1 6, --push 1 6, or a collective variable: --cv 'distance 1 6'")
    if sampler is not None:
        _merge(tree, "sampler", {"kind": sampler})
    if push is not None and sampler in (None, STEERED):
        _merge(tree, "sampler", {"velocity": PUSH})
    electrons = {"charge": charge, "multiplicity": multiplicity}
    _merge(tree, "engine", {key: value for key, value in electrons.items() if value is not None})
    asked = engine or tree["engine"].get("kind")
    return Wish(structure, tree, asked)


STEERED, PUSH = "steered", "-1 angstrom/ps"


def _merge(tree: dict[str, Any], section: str, values: Mapping[str, Any]) -> None:
    """Add ``values`` below what ``--set`` has given, which wins."""
    there = tree.get(section, {})
    tree[section] = {**values, **({"kind": there} if isinstance(there, str) else there)}


def variable(text: str, kinds: Kinds | None = None) -> dict[str, Any]:
    """A collective variable from the command line: ``distance 1 6``, ``dihedral 1 2 3 4 name=phi``.

    The kind, then atoms from 1 or ``key=value``; a value is YAML.

    Raises
    ------
    ConfigError
        If there is no such kind, or a word is neither.
    """
    choice = kinds or KINDS["cv"]
    kind, *words = text.split()
    if kind not in choice.modules and "." not in kind:
        raise ConfigError(
            f"--cv '{text}': there is no kind '{kind}'{closest(kind, choice.modules)}; use {join(choice.modules)}"
        )
    found: dict[str, Any] = {"kind": kind}
    atoms: list[int] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            found[key] = yaml.safe_load(value)
        elif word.isdecimal():
            atoms.append(int(word))
        else:
            raise ConfigError(f"--cv '{text}': '{word}' is no atom and no key=value; write e.g. 'distance 1 6'")
    return {**found, "atoms": atoms} if atoms else found


def assigned(texts: Sequence[str]) -> dict[str, Any]:
    """``sampler.steps=2000`` and the like as a tree.

    Raises
    ------
    ConfigError
        If there is no ``=``, or the value is no YAML.
    """
    tree: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set '{text}': write key=value, e.g. --set sampler.temperature='300 K'")
        try:
            known = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set '{text}': '{value}' is no value of a YAML; put it in quotes") from error
        *parents, key = path.split(".")
        level = tree
        for name in parents:
            level = level.setdefault(name, {})
            if not isinstance(level, dict):
                raise ConfigError(f"--set '{text}': '{name}' has been given a value already")
        level[key] = known
    return tree


def write(wish: Wish, output: Path, force: bool = False, schema: bool = True) -> Written:
    """Write the YAML to ``output``, once it has proved valid; and the schema that editors want beside it.

    Raises
    ------
    ConfigError
        If the file exists and ``force`` is not given, or what is wished for is no valid configuration.
    """
    if output.exists() and not force:
        raise ConfigError(f"{output} exists already; overwrite it with --force, or name another file")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: there is no such folder; make it first")
    given = {**wish.given, "structure": os.path.relpath(wish.structure, output.parent)}
    section = given.get("sampler", {})
    kind = section.get("kind") if isinstance(section, Mapping) else section
    notes: tuple[str, ...] = ()
    if kind in SUGGESTIONS:
        # where the event leads is the user's to know; molecular dynamics takes any variable
        config = _engine(wish, {**given, "sampler": {"kind": "md"}}, output)[2]
        known = {} if isinstance(section, str) else dict(section)
        guessed = {key: value for key, value in SUGGESTIONS[kind](config).items() if key not in known}
        given["sampler"] = {"kind": kind, **guessed, **known}
        notes = tuple(
            f"sampler.{key} is a guess: {flow(value)}; set it to where the event leads"
            for key, value in guessed.items()
        )
    chosen, more, _ = _engine(wish, given, output)
    notes += more
    if schema:
        write_schema(output.parent / FILE)
    write_text(output, text_of({**given, "engine": chosen}, schema))
    return Written(output, chosen["kind"], notes)


def _engine(wish: Wish, given: Mapping[str, Any], output: Path) -> tuple[dict[str, Any], tuple[str, ...], Config]:
    """The section of the engine that is wished for, or of the first one that goes with the structure and is here.

    With it what should be known, and the whole configuration.
    """
    asked = dict(given.get("engine", {}))
    kinds = [wish.engine] if wish.engine else list(KINDS["engine"].modules)
    first: ConfigError | None = None
    for kind in kinds:
        # an odd number of electrons is no singlet
        for multiplicity in ({}, {} if "multiplicity" in asked else {"multiplicity": 2}):
            section = {"kind": kind, **multiplicity, **asked}
            try:
                config = _valid({**given, "engine": section}, output)
            except ConfigError as error:
                first = first or error
                if "cannot have multiplicity" not in str(error):
                    break
            else:
                note = "an odd number of electrons: multiplicity 2" if multiplicity else ""
                return section, (note,) if note else (), config
    assert first is not None
    raise first


def _metadynamics(config: Config) -> dict[str, Any]:
    """Hills and ranges for variables that start where the structure is."""
    return {"biased": [_hills(variable, value) for variable, value in _values(config)]}


def _hills(variable: Variable, value: float) -> dict[str, Any]:
    """Widths that suit bonds and angles, and a range that holds a bond's breaking or forming."""
    if variable.period is not None:
        return {"hill_width": variable.period / 36}
    width, below, above = SCALES.get(variable.unit, SCALES[""])
    low = value - below if value < 0 else max(0.0, value - below)
    return {"hill_width": width, "range": [round(low, 2), round(value + above, 2)]}


def _umbrella(config: Config) -> dict[str, Any]:
    """Windows from where the structure is to beyond a bond's breaking, or half around a circle."""
    variable, value = next(_values(config))
    way = variable.period / 2 if variable.period is not None else SCALES.get(variable.unit, SCALES[""])[2]
    return {"first": round(value, 2), "last": round(value + way, 2)}


def _values(config: Config) -> Iterator[tuple[Variable, float]]:
    """The collective variables and their values in the structure."""
    from rareal.build import build_variables

    for variable in build_variables(config):
        yield variable, float(variable.value(config.frame.positions))


SUGGESTIONS: dict[str, Callable[[Config], dict[str, Any]]] = {"metadynamics": _metadynamics, "umbrella": _umbrella}
"""Samplers whose keys without a default are guessed from the structure."""

SCALES = {"Å": (0.1, 1.0, 2.0), "°": (5.0, 60.0, 60.0), "degrees": (5.0, 60.0, 60.0), "": (0.05, 1.0, 1.0)}
"""By unit: width of a hill, and how far below and above its start a variable is explored."""


def _valid(tree: Mapping[str, Any], output: Path) -> Config:
    """The configuration of these values, as if they were in a YAML at ``output``."""
    return load(YamlFile(output, dict(tree)))


def text_of(given: Mapping[str, Any], schema: bool = True) -> str:
    """The YAML with the values ``given``, all others as comments."""
    lines = [MODELINE] if schema else []
    lines += [
        "# Keys behind a # have the value that they show; to change one, take the # away. `rareal validate` checks",
        "# the file and estimates the cost of the run. Bare numbers are in eV, Å, fs, K; or give a unit: 1 kcal/mol.",
        "",
    ]
    for name, known in Config.model_fields.items():
        if name not in KINDS:
            lines += _plain(Config, name, known, given)
    for name, choice in KINDS.items():
        lines += ["", *_section(name, choice, given.get(name))]
    return "\n".join(lines) + "\n"


def _plain(schema: type[BaseModel], name: str, known: Any, given: Mapping[str, Any], indent: str = "") -> list[str]:
    value = given[name] if name in given else known.get_default(call_default_factory=True)
    if name not in given and known.is_required():
        return []  # it gets its value from the name of the file
    return _lines(f"{name}: {flow(value)}", known.description or "", indent, name in given)


def _section(name: str, choice: Kinds, values: Any) -> list[str]:
    """A section; of a list of them each."""
    title = TITLES.get(name, "")
    if isinstance(values, list):
        lines = _lines(f"{name}:", title, "", True)
        for item in values:
            first, *rest = _keys(name, choice, item, "    ")
            lines += [f"  - {first.lstrip()}", *rest]
        return lines
    if isinstance(values, str):
        values = {"kind": values}
    lines = _lines(f"{name}:", title, "", True)
    lines += _keys(name, choice, values or {}, "  ")
    if name == EXECUTOR:
        for stage in Executors.model_fields:
            lines += _lines(f"{stage}: {{}}", f"for this stage alone ({stage})", "  ", False)
    return lines


def _keys(name: str, choice: Kinds, values: Mapping[str, Any], indent: str) -> list[str]:
    kind = values.get("kind", choice.default)
    schema = choice.schema(kind)
    lines: list[str] = []
    if choice.names_kind:
        others = [other for other in choice.modules if other != kind]
        about = _doc(schema) + (f" Others: {', '.join(others)}." if others else "")
        lines += _lines(f"kind: {kind}", about.strip(), indent, True)
    return [*lines, *_fields(schema, values, indent, True)]


def _fields(schema: type[BaseModel], values: Mapping[str, Any], indent: str, live: bool) -> Iterator[str]:
    """The lines of the keys of ``schema``; ``values`` are set, the others shown."""
    unknown = [key for key in values if key not in schema.model_fields and key != "kind"]
    for key in unknown:  # so that reading it says what is wrong
        yield from _lines(f"{key}: {flow(values[key])}", "", indent, live)
    for key, known in schema.model_fields.items():
        if key == "kind":
            continue
        given = key in values
        value = values[key] if given else known.get_default(call_default_factory=True)
        if not given and known.is_required():
            continue
        text = known.description or ""
        if isinstance(value, BaseModel):
            yield from _nested(key, value, known, indent)
        elif isinstance(value, Mapping) and (inner := _model(known.annotation, value)):
            yield from _lines(f"{key}:", text, indent, live)
            if "kind" in value:
                yield from _lines(f"kind: {value['kind']}", "", indent + "  ", live)
            yield from _fields(inner, value, indent + "  ", live)
        else:
            yield from _lines(f"{key}: {flow(value)}", text, indent, live and given)


def _nested(key: str, value: BaseModel, known: Any, indent: str) -> Iterator[str]:
    """A section within a section, all behind #."""
    yield from _lines(f"{key}:", known.description or _doc(type(value)), indent, False)
    for name, field_ in type(value).model_fields.items():
        shown = getattr(value, name)
        yield from _lines(f"  {name}: {flow(shown)}", "" if name == "kind" else field_.description or "", indent, False)


def _model(annotation: Any, value: Mapping[str, Any]) -> type[BaseModel] | None:
    """The class, in an annotation, that a mapping is read as."""
    found: list[type[BaseModel]] = []
    waiting = [annotation]
    while waiting:
        item = waiting.pop(0)
        if isinstance(item, type) and issubclass(item, BaseModel):
            found.append(item)
        waiting += get_args(item)
    kind = value.get("kind")
    same = [model for model in found if "kind" in model.model_fields and model.model_fields["kind"].default == kind]
    return next(iter(same or found), None)


def _doc(schema: type[BaseModel]) -> str:
    """What a section says of itself."""
    return " ".join((schema.__doc__ or "").strip().partition("\n\n")[0].split())


def flow(value: Any) -> str:
    """A value in one line of YAML."""
    text = yaml.safe_dump(
        to_jsonable_python(value), default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip()


def _lines(text: str, comment: str, indent: str, live: bool) -> list[str]:
    """``text`` with its comment beside it, wrapped; behind a # where it is not live."""
    head = f"{indent}{'' if live else '# '}{text}"
    if not comment:
        return [head]
    column = max(COLUMN, len(head) + 2)
    if column > WIDTH - 40:  # a long value: the comment goes above it
        return [*(f"{indent}# {line}" for line in textwrap.wrap(comment, WIDTH - len(indent) - 2)), head]
    wrapped = textwrap.wrap(comment, WIDTH - column - 2)
    return [f"{head:<{column}}# {wrapped[0]}", *(f"{'':<{column}}# {line}" for line in wrapped[1:])]
