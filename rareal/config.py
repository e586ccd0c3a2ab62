"""The YAML as a frozen tree: every section is the `Config` of the stage that it configures.

`KINDS` says which module a section's ``kind`` stands for; a kind with a dot in it is the dotted path of anyone's own
module. Modules are imported only when their section is read, and the ones here import nothing heavy to be read.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, StrictInt, ValidationError, field_validator

from rareal.complaints import ABSENT, Problem, closest, join, problems, value_at
from rareal.errors import ConfigError
from rareal.records import Frame
from rareal.schema import Misfit, Section
from rareal.structure import read_structure
from rareal.units import KCAL_MOL, Energy, parse_quantity
from rareal.yamlfile import KeyPath, YamlFile, read_yaml

FREE_KEYS = (
    "name", "rounds", "directory", "reference", "labels.budget", "labels.max_failed_fraction", "labels.timeout",
    "labels.scratch", "labels.cache", "executor",
)  # fmt: skip
"""Keys that may change between two runs in the same folder: they do not alter what has been computed."""


Seconds = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "s"))]


class Labels(Section):
    """How many labels, and how they are computed."""

    budget: int = Field(600, ge=1, description="most labels the whole run may buy, failed ones included")
    max_failed_fraction: float = Field(0.2, ge=0, le=1, description="largest share of a batch that may fail")
    timeout: Seconds = Field(3600.0, gt=0, description="longest time that one label may take, s")
    scratch: Path | None = Field(
        None,
        description="folder for the engine's files while it computes; each machine's temporary folder if not given",
    )
    cache: str = Field("user", description="folder of labels of all runs; user: ~/.cache/rareal/labels; none: no cache")


class Executors(Section):
    """Where labels are computed, walkers driven and committees trained: a kind of executor for each."""

    label: SerializeAsAny[Section]
    sample: SerializeAsAny[Section]
    train: SerializeAsAny[Section]


EXECUTOR = "executor"


class Convergence(Section):
    """When the run ends before its last round."""

    path_error: Energy = Field(0.5 * KCAL_MOL, gt=0, description="largest error along the checked path, eV")
    barrier: Energy = Field(
        0.5 * KCAL_MOL,
        gt=0,
        description="change of the barrier since the last round, eV; where two atoms are pulled apart, of the energy "
        "of their quasi-static rupture",
    )
    rounds: int = Field(2, ge=1, description="rounds in a row that must meet both")


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


KINDS: dict[str, Kinds] = {
    "cv": Kinds({"distance": "rareal.cv"}),
    "engine": Kinds(
        {
            "tblite": "rareal.labeling.tblite",
            "dftbplus": "rareal.labeling.dftbplus",
            "gpaw": "rareal.labeling.gpaw",
            "pyscf": "rareal.labeling.pyscf",
            "cp2k": "rareal.labeling.cp2k",
            "ase": "rareal.labeling.ase",
        }
    ),
    "labels": Kinds({"labels": "rareal.config:Labels"}, names_kind=False),
    "executor": Kinds(
        {
            "processes": "rareal.execution.processes",
            "serial": "rareal.execution.serial",
            "parsl": "rareal.execution.parsl",
        }
    ),
    "initial": Kinds({"md": "rareal.sampling.initial"}),
    "model": Kinds(
        {
            "ani": "rareal.models.ani",
            "painn": "rareal.models.painn",
            "schnet": "rareal.models.schnet",
            "script": "rareal.models.script",
        }
    ),
    "repulsion": Kinds({"none": "rareal.models.zbl:NoneConfig", "zbl": "rareal.models.zbl"}),
    "training": Kinds({"committee": "rareal.training.config"}),
    "split": Kinds(
        {
            "inherited": "rareal.data.split:InheritedConfig",
            "random": "rareal.data.split:RandomConfig",
            "kfold": "rareal.data.split:KFoldConfig",
            "alternating": "rareal.data.split:AlternatingConfig",
        }
    ),
    "sampler": Kinds({"steered": "rareal.sampling.steered", "metadynamics": "rareal.sampling.metadynamics"}),
    "uncertainty": Kinds({"threshold": "rareal.uncertainty.threshold"}),
    "selection": Kinds({"event": "rareal.selection.event", "paper": "rareal.selection.paper"}),
    "augment": Kinds({"noise": "rareal.data.augment"}),
    "check": Kinds({"path": "rareal.barrier"}),
    "convergence": Kinds({"convergence": "rareal.config:Convergence"}, names_kind=False),
}


class Tree(Section):
    """What a YAML holds: plain values, and sections that the registry's kinds fill.

    ``elsewhere`` names the keys that may stand in the same file for another command, and are not read.
    """

    elsewhere: ClassVar[tuple[str, ...]] = ()

    _kinds: dict[str, str] = PrivateAttr(default_factory=dict)
    _modules: dict[str, str] = PrivateAttr(default_factory=dict)
    _source: YamlFile = PrivateAttr()

    @property
    def source(self) -> Path:
        """The YAML."""
        return self._source.path

    def refusal(self, section: str, misfit: Misfit, where: str = "") -> ConfigError:
        """The error that says what is wrong with a section, or a plain value, at its line of the YAML."""
        value: Any = getattr(self, section)
        known = isinstance(value, Section)
        problem = (
            _misfit(section, value, misfit, self._source.data)
            if known
            else Problem((section,), str(value), str(misfit))
        )
        return ConfigError(_message(self._source, {}, [problem]) + where)

    def module(self, section: str) -> ModuleType:
        """The module that the kind of ``section`` stands for, e.g. ``model`` or ``executor.label``."""
        return importlib.import_module(self._modules[section])

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, in plain types; reading it back gives this configuration again."""
        tree: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json").items():
            if key == EXECUTOR:
                tree[key] = {stage: self._with_kind(f"{key}.{stage}", item) for stage, item in value.items()}
            else:
                tree[key] = self._with_kind(key, value)
        return tree

    def _with_kind(self, section: str, value: Any) -> Any:
        # a dotted path must stay, whatever kind the foreign section calls itself
        kind = {"kind": self._kinds[section]} if section in self._kinds else {}
        return {**kind, **value, **kind} if isinstance(value, dict) else value

    def resolved_yaml(self) -> str:
        """`resolved` as YAML text."""
        text: str = yaml.safe_dump(self.resolved(), sort_keys=False, allow_unicode=True, width=120)
        return text


TreeType = TypeVar("TreeType", bound=Tree)


class Config(Tree):
    """A whole run."""

    name: str = Field(pattern=r"^[\w][\w. -]*$", description="a short name; the YAML's own where none is given")
    seed: StrictInt = Field(1, ge=0, description="root of every random number of the run")
    rounds: StrictInt = Field(6, ge=1, description="rounds of active learning, the initial training included")
    directory: Path = Field(description="the run folder, relative to the current directory")
    structure: Path = Field(description="the starting structure, relative to the YAML; any format ASE reads")
    reference: Path | None = Field(None, description="a folder made by `rareal reference`, relative to the current one")
    cv: SerializeAsAny[Section]
    engine: SerializeAsAny[Section]
    labels: SerializeAsAny[Labels]
    executor: Executors
    initial: SerializeAsAny[Section]
    model: SerializeAsAny[Section]
    repulsion: SerializeAsAny[Section]
    training: SerializeAsAny[Section]
    split: SerializeAsAny[Section]
    sampler: SerializeAsAny[Section]
    uncertainty: SerializeAsAny[Section]
    selection: SerializeAsAny[Section]
    augment: SerializeAsAny[Section]
    check: SerializeAsAny[Section]
    convergence: SerializeAsAny[Convergence]

    _frame: Frame = PrivateAttr()

    @property
    def frame(self) -> Frame:
        """The starting structure."""
        return self._frame

    @property
    def reference_folder(self) -> Path:
        """Where the engine's own numbers are or would be: ``reference``, or a sibling of the run folder."""
        run = self.directory if self.directory.name.strip(".") else self.directory.resolve()
        return self.reference or Path(f"{run}-reference")


class TrainConfig(Tree):
    """A training by itself, `rareal train`; the YAML of a whole run holds one too."""

    elsewhere: ClassVar[tuple[str, ...]] = tuple(Config.model_fields)

    seed: StrictInt = Field(1, ge=0, description="root of every random number of the training")
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of the model file")
    elements: tuple[str, ...] | None = Field(
        None, description="chemical symbols that the model knows, e.g. [C, H]; those of the data where not given"
    )
    model: SerializeAsAny[Section]
    repulsion: SerializeAsAny[Section]
    training: SerializeAsAny[Section]
    split: SerializeAsAny[Section]

    @field_validator("elements")
    @classmethod
    def _chemical(cls, elements: tuple[str, ...] | None) -> tuple[str, ...] | None:
        from ase.data import atomic_numbers

        for symbol in elements or ():
            if atomic_numbers.get(symbol, 0) < 1:
                raise ValueError(f"'{symbol}' is no chemical element; give symbols such as [C, H]")
        if elements is not None and len(set(elements)) != max(1, len(elements)):
            raise ValueError("give every element once, and at least one")
        return elements


def load(
    path: str | Path, overrides: Mapping[str, Any] | None = None, kinds: Mapping[str, Kinds] | None = None
) -> Config:
    """Read and check a YAML; nothing is written.

    Parameters
    ----------
    path : the YAML.
    overrides : values of top-level keys that replace the file's (from the command line); None is no override.
    kinds : the registry, `KINDS` if None.

    Raises
    ------
    ConfigError
        With one message that names, for everything that is wrong, the file, the key, the value and the cure.
    """
    source, given = _given(path, overrides)
    given.setdefault("name", source.path.stem)
    given.setdefault("directory", f"runs/{given['name']}")
    config, sections = _read(Config, source, given, overrides, kinds)
    config._frame = _structure(config, source, overrides or {})
    found = _misfits(config, sections, given)
    if found:
        raise ConfigError(_message(source, overrides or {}, found))
    return config


def load_training(
    path: str | Path, overrides: Mapping[str, Any] | None = None, kinds: Mapping[str, Kinds] | None = None
) -> TrainConfig:
    """Read what a training needs of a YAML; see `load_part`."""
    return load_part(TrainConfig, path, overrides, kinds)


def load_part(
    schema: type[TreeType],
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Kinds] | None = None,
) -> TreeType:
    """Read what ``schema`` has of a YAML, as `load` does; the keys ``elsewhere`` are let be."""
    source, given = _given(path, overrides)
    return _read(schema, source, given, overrides, kinds)[0]


def _given(path: str | Path, overrides: Mapping[str, Any] | None) -> tuple[YamlFile, dict[str, Any]]:
    """The file, and its top level with the overrides in their places."""
    source = read_yaml(Path(path))
    return source, {**source.data, **{key: value for key, value in (overrides or {}).items() if value is not None}}


def _read(
    schema: type[TreeType],
    source: YamlFile,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    kinds: Mapping[str, Kinds] | None,
) -> tuple[TreeType, dict[str, Section]]:
    """The tree and its sections, each valid by itself."""
    registry = {name: kind for name, kind in (kinds or KINDS).items() if name in schema.model_fields}
    found: list[Problem] = []
    sections: dict[str, Section] = {}
    chosen: dict[str, str] = {}
    for name, choice in registry.items():
        if name == EXECUTOR:
            _read_executors(choice, given.get(name), sections, chosen, found)
            continue
        section = _read_section(name, choice, given.get(name), found)
        if section is not None:
            sections[name], kind = section
            if kind:
                chosen[name] = kind
    unread = set(registry) | (set(schema.elsewhere) - set(schema.model_fields))
    plain = {key: value for key, value in given.items() if key not in unread}
    tree = _assemble(schema, plain, sections, registry, found)
    if tree is None or found:
        raise ConfigError(_message(source, overrides or {}, found))
    tree._source = source
    tree._kinds.update(chosen)
    tree._modules.update({name: registry[name.partition(".")[0]].module(kind) for name, kind in chosen.items()})
    return tree, sections


def _read_executors(
    choice: Kinds, raw: Any, sections: dict[str, Section], chosen: dict[str, str], found: list[Problem]
) -> None:
    """One executor for all stages, and what the keys `label`, `sample` and `train` change for one of them.

    A stage's keys come on top of the common ones, unless it names another kind.
    """
    common = {"kind": raw} if isinstance(raw, str) else dict(raw) if isinstance(raw, dict) else raw or {}
    own = {stage: common.pop(stage) for stage in Executors.model_fields if isinstance(common, dict) and stage in common}
    if isinstance(common, dict) and common.get("kind", choice.default) in choice.modules:
        # executors have no sections of their own: this is a stage, misspelt
        for key in [key for key, value in common.items() if isinstance(value, dict)]:
            text = f"there is no such stage{closest(str(key), Executors.model_fields)}"
            found.append(Problem((EXECUTOR, key), common.pop(key), text, f"use {join(Executors.model_fields)}"))
    shared = _read_section(EXECUTOR, choice, common, found)
    if shared is None:
        return
    stages: dict[str, Section] = {}
    for stage in Executors.model_fields:
        section: tuple[Section, str] | None = shared
        if stage in own:
            values = {"kind": own[stage]} if isinstance(own[stage], str) else own[stage]
            if isinstance(values, dict) and values.get("kind", shared[1]) == shared[1]:
                values = {**common, **values}
            section = _read_section(f"{EXECUTOR}.{stage}", choice, values, found)
        if section is not None:
            stages[stage], chosen[f"{EXECUTOR}.{stage}"] = section
    if len(stages) == len(Executors.model_fields):
        sections[EXECUTOR] = Executors(**stages)


def _read_section(name: str, choice: Kinds, raw: Any, found: list[Problem]) -> tuple[Section, str] | None:
    """The section and its kind; None, with the reasons appended to ``found``, where it cannot be read.

    A dot in ``name`` is a level of the YAML.
    """
    place = tuple(name.split("."))
    if isinstance(raw, str) and choice.names_kind:
        raw = {"kind": raw}
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        found.append(
            Problem(place, raw, "this section needs keys below it", f"write '{place[-1]}:' and indent its keys")
        )
        return None
    values = dict(raw)
    kind = values.get("kind", choice.default) if choice.names_kind else choice.default
    schema = _schema(place, choice, kind, found)
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
        return schema.model_validate(values), kind if choice.names_kind else ""
    except ValidationError as error:
        found.extend(problems(error, schema, values, place))
        return None


def _schema(place: KeyPath, choice: Kinds, kind: Any, found: list[Problem]) -> type[Section] | None:
    """The pydantic class behind ``kind``."""
    own = isinstance(kind, str) and "." in kind
    if not own and (not isinstance(kind, str) or kind not in choice.modules):
        cure = f"use {join(choice.modules)}, or the dotted path of a module of your own"
        guess = closest(str(kind), choice.modules)
        found.append(Problem((*place, "kind"), kind, f"there is no such kind{guess}", cure))
        return None
    module, _, attribute = choice.modules.get(kind, kind).partition(":")
    try:
        schema = getattr(importlib.import_module(module), attribute or "Config")
    except (ImportError, AttributeError) as error:
        if not own:
            raise
        cure = "install the package, or correct the path; the module needs a class `Config` and a function `build`"
        found.append(Problem((*place, "kind"), kind, f"the module cannot be used ({error})", cure))
        return None
    return schema  # type: ignore[no-any-return]


def _assemble(
    schema: type[TreeType],
    plain: dict[str, Any],
    sections: Mapping[str, Section],
    registry: Mapping[str, Kinds],
    found: list[Problem],
) -> TreeType | None:
    """The tree; None, with the reasons appended, where a top-level value is wrong or a section is missing."""
    try:
        return schema.model_validate({**plain, **sections})
    except ValidationError as error:
        wrong = problems(error, schema, plain, ())
        # sections that could not be read have been complained about already
        found.extend(item for item in wrong if item.key_path[0] in plain or item.key_path[0] not in registry)
        return None


def _structure(config: Config, source: YamlFile, overrides: Mapping[str, Any]) -> Frame:
    try:
        return read_structure(source.path.parent / config.structure)
    except Misfit as misfit:
        problem = Problem(("structure",), str(config.structure), str(misfit))
        raise ConfigError(_message(source, overrides, [problem])) from misfit


def _misfits(config: Config, sections: Mapping[str, Section], data: dict[str, Any]) -> list[Problem]:
    """What only the whole tree shows."""
    found: list[Problem] = []
    for name, section in sections.items():
        try:
            section.check_against(config)
        except Misfit as misfit:
            found.append(_misfit(name, section, misfit, data))
    frames = getattr(config.initial, "frames", 0)
    if config.labels.budget < frames:
        text = f"the initial data alone take {frames} labels (initial.frames)"
        found.append(Problem(("labels", "budget"), config.labels.budget, text, f"raise it above {frames}"))
    if config.reference is not None and not config.reference.is_dir():
        cure = "make it with `rareal reference CONFIG`, or leave the key out"
        found.append(Problem(("reference",), str(config.reference), "there is no such folder", cure))
    return found


def _misfit(name: str, section: Section, misfit: Misfit, data: dict[str, Any]) -> Problem:
    key_path: KeyPath = (name, *misfit.field.split("."))
    try:
        value = value_at(data, key_path)
    except KeyError:  # it is a default
        value = section
        for part in key_path[1:]:
            value = getattr(value, str(part), None)
    return Problem(key_path, ABSENT if value is None else value, str(misfit))


def _message(source: YamlFile, overrides: Mapping[str, Any], found: list[Problem]) -> str:
    lines = []
    for problem in found:
        key = str(problem.key_path[0])
        flag = "--dir" if key == "directory" else f"--{key}"
        where = f"command line, {flag}" if overrides.get(key) is not None else source.where(problem.key_path)
        lines.append(f"{where}: {problem}")
    return "\n".join(lines)
