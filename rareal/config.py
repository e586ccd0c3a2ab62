"""The YAML as a frozen tree: every section is the `Config` of the stage that it configures.

`KINDS` says which module a section's ``kind`` stands for; a kind with a dot in it is the dotted path of anyone's own
module. Modules are imported only when their section is read, and the ones here import nothing heavy to be read.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import Field, PrivateAttr, SerializeAsAny, StrictInt, ValidationError, field_validator

from rareal import cv
from rareal.complaints import ABSENT, Problem, closest, dotted, join, problems
from rareal.errors import ConfigError
from rareal.records import Frame
from rareal.schema import Misfit, Section
from rareal.sections import Kinds, complaint, read_section
from rareal.structure import read_structure
from rareal.units import KCAL_MOL, Energy, Seconds
from rareal.yamlfile import KeyPath, YamlFile, read_yaml

FREE_KEYS = (
    "name", "rounds", "directory", "reference", "labels.budget", "labels.max_failed_fraction", "labels.timeout",
    "labels.scratch", "labels.cache", "executor",
)  # fmt: skip
"""Keys that may change between two runs in the same folder: they do not alter what has been computed."""


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
CV = "cv"


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


KINDS: dict[str, Kinds] = {
    CV: Kinds(cv.KINDS),
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
    "initial": Kinds(
        {
            "md": "rareal.sampling.initial",
            "normal_modes": "rareal.sampling.normal_modes",
            "displacement": "rareal.sampling.displacement",
        }
    ),
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
    "sampler": Kinds(
        {
            "steered": "rareal.sampling.steered",
            "metadynamics": "rareal.sampling.metadynamics",
            "umbrella": "rareal.sampling.umbrella",
            "udd": "rareal.sampling.udd",
            "md": "rareal.sampling.md",
            "neb": "rareal.sampling.neb",
        }
    ),
    "exploration": Kinds({"batch": "rareal.onthefly:BatchConfig", "on_the_fly": "rareal.onthefly"}),
    "uncertainty": Kinds(
        {
            "threshold": "rareal.uncertainty.threshold",
            "moving_average": "rareal.uncertainty.moving_average",
            "fixed": "rareal.uncertainty.fixed",
            "robust": "rareal.uncertainty.robust",
            "conformal": "rareal.uncertainty.conformal",
        }
    ),
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

    def section(self, name: str) -> Section:
        """A section by its name in the YAML, e.g. ``model``, ``executor.label`` or ``cv[2]``."""
        value: Any = self
        for word in name.split("."):
            key, _, number = word.rstrip("]").partition("[")
            value = getattr(value, key)
            value = value[int(number) - 1] if number else value
        found: Section = value
        return found

    def refusal(self, section: str, misfit: Misfit, where: str = "") -> ConfigError:
        """The error that says what is wrong with a section, or a plain value, at its line of the YAML."""
        value: Any = getattr(self, section)
        known = isinstance(value, Section)
        problem = (
            complaint((section,), value, misfit, self._source.data)
            if known
            else Problem((section,), str(value), str(misfit))
        )
        return ConfigError(_message(self._source, {}, [problem]) + where)

    def module(self, section: str) -> ModuleType:
        """The module that the kind of ``section`` stands for, e.g. ``model``, ``executor.label`` or ``cv[2]``."""
        return importlib.import_module(self._modules[section])

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, in plain types; reading it back gives this configuration again."""
        tree: dict[str, Any] = {}
        for key, value in self.model_dump(mode="json").items():
            if key == EXECUTOR:
                tree[key] = {stage: self._with_kind(f"{key}.{stage}", item) for stage, item in value.items()}
            elif key == CV:
                several = [self._with_kind(f"{key}[{number}]", item) for number, item in enumerate(value, start=1)]
                tree[key] = several if len(several) > 1 else several[0]
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
    cv: tuple[SerializeAsAny[Section], ...]
    engine: SerializeAsAny[Section]
    labels: SerializeAsAny[Labels]
    executor: Executors
    initial: SerializeAsAny[Section]
    model: SerializeAsAny[Section]
    repulsion: SerializeAsAny[Section]
    training: SerializeAsAny[Section]
    split: SerializeAsAny[Section]
    sampler: SerializeAsAny[Section]
    exploration: SerializeAsAny[Section]
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
    path: str | Path | YamlFile, overrides: Mapping[str, Any] | None = None, kinds: Mapping[str, Kinds] | None = None
) -> Config:
    """Read and check a YAML; nothing is written.

    Parameters
    ----------
    path : the YAML, or what would stand in it.
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
    config, places = _read(Config, source, given, overrides, kinds)
    config._frame = _structure(config, source, overrides or {})
    found = _misfits(config, places, given)
    if found:
        raise ConfigError(_message(source, overrides or {}, found))
    return config


def load_training(
    path: str | Path | YamlFile, overrides: Mapping[str, Any] | None = None, kinds: Mapping[str, Kinds] | None = None
) -> TrainConfig:
    """Read what a training needs of a YAML; see `load_part`."""
    return load_part(TrainConfig, path, overrides, kinds)


def load_part(
    schema: type[TreeType],
    path: str | Path | YamlFile,
    overrides: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Kinds] | None = None,
) -> TreeType:
    """Read what ``schema`` has of a YAML, as `load` does; the keys ``elsewhere`` are let be."""
    source, given = _given(path, overrides)
    return _read(schema, source, given, overrides, kinds)[0]


def _given(path: str | Path | YamlFile, overrides: Mapping[str, Any] | None) -> tuple[YamlFile, dict[str, Any]]:
    """The file, and its top level with the overrides in their places."""
    source = path if isinstance(path, YamlFile) else read_yaml(Path(path))
    return source, {**source.data, **{key: value for key, value in (overrides or {}).items() if value is not None}}


def _read(
    schema: type[TreeType],
    source: YamlFile,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any] | None,
    kinds: Mapping[str, Kinds] | None,
) -> tuple[TreeType, dict[KeyPath, Section]]:
    """The tree, and its sections by their places in the YAML, each valid by itself."""
    registry = {name: kind for name, kind in (kinds or KINDS).items() if name in schema.model_fields}
    folder = source.path.parent
    found: list[Problem] = []
    sections: dict[str, Section | tuple[Section, ...]] = {}
    places: dict[KeyPath, Section] = {}
    chosen: dict[str, str] = {}
    for name, choice in registry.items():
        if name == EXECUTOR:
            _read_executors(choice, given.get(name), folder, places, chosen, found)
        elif name == CV:
            sections[name] = _read_variables(choice, given.get(name), folder, places, chosen, found)
        elif (section := read_section((name,), choice, given.get(name), folder, found)) is not None:
            places[name,], kind = section
            if kind:
                chosen[name] = kind
    sections.update({str(place[0]): section for place, section in places.items() if place[0] != CV})
    unread = set(registry) | (set(schema.elsewhere) - set(schema.model_fields))
    plain = {key: value for key, value in given.items() if key not in unread}
    tree = _assemble(schema, plain, sections, registry, found)
    if tree is None or found:
        raise ConfigError(_message(source, overrides or {}, found))
    tree._source = source
    tree._kinds.update(chosen)
    tree._modules.update({name: registry[re.split(r"[.\[]", name)[0]].module(kind) for name, kind in chosen.items()})
    return tree, places


def _read_variables(
    choice: Kinds,
    raw: Any,
    folder: Path,
    places: dict[KeyPath, Section],
    chosen: dict[str, str],
    found: list[Problem],
) -> tuple[Section, ...]:
    """One collective variable, or a list of them."""
    listed = isinstance(raw, list)
    if listed and not raw:
        found.append(Problem((CV,), raw, "an event needs a collective variable", "give one, or a list of them"))
    read: list[Section] = []
    complaints = len(found)
    for index, item in enumerate(raw if listed else [raw]):
        place: KeyPath = (CV, index) if listed else (CV,)
        section = read_section(place, choice, item, folder, found)
        if section is not None:
            places[place], chosen[dotted((CV, index))] = section
            read.append(section[0])
    if len(found) == complaints:
        try:
            cv.names(read)
        except cv.NameTaken as taken:
            found.append(
                Problem((CV, taken.index, taken.field), getattr(read[taken.index], "name", None) or ABSENT, str(taken))
            )
    return tuple(read)


def _read_executors(
    choice: Kinds,
    raw: Any,
    folder: Path,
    places: dict[KeyPath, Section],
    chosen: dict[str, str],
    found: list[Problem],
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
    shared = read_section((EXECUTOR,), choice, common, folder, found)
    if shared is None:
        return
    stages: dict[str, Section] = {}
    for stage in Executors.model_fields:
        section: tuple[Section, str] | None = shared
        if stage in own:
            values = {"kind": own[stage]} if isinstance(own[stage], str) else own[stage]
            if isinstance(values, dict) and values.get("kind", shared[1]) == shared[1]:
                values = {**common, **values}
            section = read_section((EXECUTOR, stage), choice, values, folder, found)
        if section is not None:
            stages[stage], chosen[f"{EXECUTOR}.{stage}"] = section
    if len(stages) == len(Executors.model_fields):
        places[EXECUTOR,] = Executors(**stages)


def _assemble(
    schema: type[TreeType],
    plain: dict[str, Any],
    sections: Mapping[str, Section | tuple[Section, ...]],
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


def _misfits(config: Config, places: Mapping[KeyPath, Section], data: dict[str, Any]) -> list[Problem]:
    """What only the whole tree shows."""
    found: list[Problem] = []
    for place, section in places.items():
        try:
            section.check_against(config)
        except Misfit as misfit:
            found.append(complaint(place, section, misfit, data))
    frames = getattr(config.initial, "frames", 0)
    if config.labels.budget < frames:
        text = f"the initial data alone take {frames} labels (initial.frames)"
        found.append(Problem(("labels", "budget"), config.labels.budget, text, f"raise it above {frames}"))
    if config.reference is not None and not config.reference.is_dir():
        cure = "make it with `rareal reference CONFIG`, or leave the key out"
        found.append(Problem(("reference",), str(config.reference), "there is no such folder", cure))
    return found


def _message(source: YamlFile, overrides: Mapping[str, Any], found: list[Problem]) -> str:
    lines = []
    for problem in found:
        key = str(problem.key_path[0])
        flag = "--dir" if key == "directory" else f"--{key}"
        where = f"command line, {flag}" if overrides.get(key) is not None else source.where(problem.key_path)
        lines.append(f"{where}: {problem}")
    return "\n".join(lines)
