"""From the configuration to the stages of the loop.

A module's ``build`` takes its own section first and then, by name, whatever else it needs of this:

``start`` the starting structure; ``cv`` the first collective variable, which is the event's, ``variables`` all of them;
``engine`` the level of theory; ``elements`` the chemical symbols of the structure, in the model's order; ``seeds`` one
per committee member (models only).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rareal import onthefly
from rareal.check import Check
from rareal.config import Config, TrainConfig, Tree
from rareal.cv import Variable
from rareal.cv import names as cv_names
from rareal.data.augment import noise_copies
from rareal.data.split import split
from rareal.errors import ConfigError, RunFolderError
from rareal.execution.processes import cores
from rareal.labeling.cache import open_cache
from rareal.labeling.guard import Worker
from rareal.labeling.runner import Labeler
from rareal.loop import Executors, Split, Stages
from rareal.onthefly import OnTheFly
from rareal.progress import Display
from rareal.protocols import Engine, Members, Progress
from rareal.records import Frame, LabeledFrame, Trained, Walker
from rareal.reference import SUMMARY, Reference, compute, velocity_seeds
from rareal.reference import load as load_reference
from rareal.sampling.base import LammpsSampler
from rareal.sampling.reference import EngineSampler
from rareal.schema import Misfit
from rareal.structure import read_structure
from rareal.training import outcome

if TYPE_CHECKING:
    from rareal.training.trainer import CommitteeTrainer

DTYPE = "float32"
"""Of the exported committee; labels and sums are double precision everywhere."""


def make(config: Tree, section: str, **parts: Any) -> Any:
    """What the module behind ``section`` builds.

    Raises
    ------
    ConfigError
        If its ``build`` asks for something there is not.
    """
    build = config.module(section).build
    wanted = list(inspect.signature(build).parameters.values())[1:]
    missing = [item.name for item in wanted if item.name not in parts and item.default is item.empty]
    if missing:
        raise ConfigError(
            f"{section}.kind: `build` of {config.module(section).__name__} asks for {', '.join(missing)}; "
            f"it can have {', '.join(parts)}"
        )
    return build(config.section(section), **{item.name: parts[item.name] for item in wanted if item.name in parts})


def build_stages(config: Config) -> Stages:
    """The stages of a run. They are light: what computes is made where it computes."""
    parts = build_parts(config)
    start, elements, variables, engine = (parts[name] for name in ("start", "elements", "variables", "engine"))
    settings: Any = config  # the sections' own types are their modules' business
    sampler = make(config, "sampler", **parts)
    uncertainty = make(config, "uncertainty", **parts)

    def augment(frames: Sequence[Frame], rng: np.random.Generator) -> list[Frame]:
        return noise_copies(frames, settings.augment, rng)

    executors = build_executors(config)
    return Stages(
        initial=Initial(make(config, "initial", **parts), engine, start, config.labels.timeout, config.labels.scratch),
        split=build_split(config),
        trainer=Training(config, elements, parts),
        sampler=sampler,
        check=Check(settings.check, start, pulled_ends(sampler, variables), committee_members, sampler.thermal),
        uncertainty=uncertainty,
        selector=make(config, "selection", **parts),
        augment=augment,
        labeler=build_labeler(config, engine, executors.label),
        reference=find_reference(config, engine),
        walkers=build_walkers(config),
        executors=executors,
        on_the_fly=build_on_the_fly(config, elements, parts, sampler, uncertainty),
    )


def build_on_the_fly(
    config: Config, elements: tuple[str, ...], parts: Mapping[str, Any], sampler: Any, uncertainty: Any
) -> OnTheFly | None:
    """How walkers halt and go on within a round; None where every round is one batch.

    Raises
    ------
    ConfigError
        If the sampler's drives cannot be interrupted, or the uncertainty has no threshold while they run.
    """
    settings = config.exploration
    if not isinstance(settings, onthefly.Config):
        return None
    if not getattr(sampler, "resumable", False):
        name = getattr(config.sampler, "kind", "this one")
        raise config.refusal(
            "exploration", Misfit("kind", f"drives of sampler {name} cannot stop and go on; use kind: batch")
        )
    if not hasattr(uncertainty, "running"):
        raise config.refusal(
            "exploration", Misfit("kind", "`uncertainty` has no threshold while walkers run; use kind: batch")
        )
    return OnTheFly(settings, uncertainty, Training(config, elements, parts, settings.epochs, settings.learning_rate))


def build_parts(config: Config) -> dict[str, Any]:
    """What a module's ``build`` may ask for, by name."""
    variables = build_variables(config)
    return {
        "start": config.frame,
        "cv": variables[0],
        "variables": variables,
        "engine": make(config, "engine", start=config.frame),
        "elements": elements_of(config.frame.numbers),
        "committee": committee_members,
    }


def build_variables(config: Config) -> tuple[Variable, ...]:
    """The collective variables; the first one is the event's.

    Raises
    ------
    ConfigError
        If two of them have the same name, which modules of the user's own may give.
    """
    names = cv_names(config.cv)
    made: list[Variable] = []
    for number, name in enumerate(names, start=1):
        variable: Variable = make(config, f"cv[{number}]", start=config.frame, name=name)
        if variable.name in [other.name for other in made]:
            raise ConfigError(f"cv[{number}]: its `build` made a second variable '{variable.name}'; it is given `name`")
        made.append(variable)
    return tuple(made)


def build_walkers(config: Config, count: int | None = None) -> list[Walker]:
    """The drives of a round; ``count`` of them, or as many as the sampler wants."""
    sampler: Any = config.sampler
    wanted = count or int(getattr(sampler, "count", 1))
    return [
        Walker(k, seed, walker_start(config, sampler.of(k) if hasattr(sampler, "of") else None))
        for k, seed in enumerate(velocity_seeds(wanted))
    ]


def walker_start(config: Config, settings: Any) -> Frame:
    """The structure that a walker starts from.

    Raises
    ------
    ConfigError
        If its own structure is not of the same atoms as the run's.
    """
    path = getattr(settings, "start", None)
    if path is None:
        return config.frame
    try:
        found = read_structure(config.source.parent / path)
    except Misfit as misfit:
        raise ConfigError(f"sampler.walkers: {path}: {misfit}") from misfit
    if found.numbers.tolist() != config.frame.numbers.tolist():
        raise ConfigError(f"sampler.walkers: {path} holds other atoms than {config.structure}, or in another order")
    return found


def pulled_ends(sampler: Any, variables: Sequence[Variable]) -> tuple[int, int] | None:
    """The two atoms that are pulled apart, where that is the event."""
    return None if sampler.thermal else variables[0].ends


def build_executors(config: Config) -> Executors:
    """Where labels, walkers and trainings run; nothing is started yet."""
    folder = config.directory / "executors"
    return Executors(*(build_executor(config, stage, folder) for stage in ("label", "sample", "train")))


def build_executor(config: Any, stage: str, folder: Path) -> Executor:
    """Where the tasks of a stage run; ``folder`` is for what the executor itself writes."""
    parts = {"stage": stage, "folder": folder}
    build = config.module(f"executor.{stage}").build
    wanted = list(inspect.signature(build).parameters)[1:]
    executor: Executor = build(
        getattr(config.executor, stage), **{name: parts[name] for name in wanted if name in parts}
    )
    return executor


def build_labeler(config: Any, engine: Engine, executor: Executor) -> Labeler:
    """What labels frames, with the section ``labels`` of ``config``."""
    labels = config.labels
    cache = open_cache(labels.cache)
    if cache is not None:
        cache.describe(engine.hash, getattr(engine, "settings", {}))
    return Labeler(engine, executor, labels.max_failed_fraction, labels.timeout, labels.scratch, cache)


@dataclass(frozen=True)
class Initial:
    """The initial data, made by the engine in a process of its own: a task of the label executor."""

    dynamics: Any
    engine: Engine
    start: Frame
    timeout: float
    scratch: Path | None

    def __call__(self, seed: int, progress: Progress) -> tuple[list[LabeledFrame], int]:
        with Worker(self.engine, self.timeout, self.scratch) as worker:
            data = self.dynamics.run(worker, self.start, seed, progress)
        return data.frames, data.engine_calls


@dataclass(frozen=True)
class Training:
    """The training of committees, a task of the train executor; torch is imported there. A `Trainer`.

    ``epochs`` and ``learning_rate`` are those of trainings that go on from another, where they are not `training`'s.
    """

    config: Config
    elements: tuple[str, ...]
    parts: Mapping[str, Any]
    epochs: int | None = None
    learning_rate: float | None = None

    def train(self, *args: Any) -> Trained:
        """See `Trainer.train`."""
        own = {"round_epochs": self.epochs, "learning_rate": self.learning_rate}
        given = {key: value for key, value in own.items() if value is not None}
        training = self.config.training.model_copy(update=given)
        config = self.config.model_copy(update={"training": training})
        return build_trainer(config, self.elements, DTYPE, self.parts).train(*args)

    def load(self, folder: Path) -> Trained:
        """See `Trainer.load`."""
        return outcome.load(folder)


def committee_members(path: Path) -> Members:
    """The committee in a model file."""
    import torch

    from rareal.export import modelfile

    # single frames of a molecule are fastest, and reproducible, on one thread; training asks for more by itself
    torch.set_num_threads(1)
    return modelfile.Committee.load(path).energies_forces


def build_split(config: Config | TrainConfig) -> Split:
    """Which member learns from which frame."""
    settings: Any = config

    def divide(
        count: int, mask: NDArray[np.bool_] | None, best: int | None, rng: np.random.Generator
    ) -> NDArray[np.bool_]:
        return split(settings.split, count, settings.training.members, mask, best, rng)

    return divide


def build_trainer(
    config: Config | TrainConfig, elements: tuple[str, ...], dtype: str, parts: Mapping[str, Any] | None = None
) -> CommitteeTrainer:
    """The training of a committee; ``parts`` is what else a model's ``build`` may ask for."""
    from rareal.export import modelfile
    from rareal.training.trainer import CommitteeTrainer

    settings: Any = config

    def model(symbols: Sequence[str], member_seeds: Sequence[int]) -> Any:
        return make(config, "model", **{**(parts or {}), "elements": symbols, "seeds": member_seeds})

    repulsion = make(config, "repulsion", elements=elements)
    return CommitteeTrainer(settings.training, elements, model, modelfile.write, dtype, repulsion)


def find_reference(config: Config, engine: Engine) -> Reference | None:
    """The engine's own numbers, None where they have not been computed.

    Raises
    ------
    RunFolderError
        If they are another engine's, or the YAML names a folder without any.
    """
    folder = config.reference_folder
    if config.reference is None and not (folder / SUMMARY).is_file():
        return None
    found = load_reference(folder)
    if found.engine != engine.hash:
        raise RunFolderError(
            f"{folder} holds the reference of another engine or of other settings of it; make it anew with "
            "`rareal reference CONFIG --dir FOLDER`, and name that folder in the YAML under `reference`"
        )
    return found


def build_reference(config: Config, folder: Path, drives: int | None, display: Display) -> Reference:
    """Drive the event with the engine itself, ``drives`` times (None: once per walker)."""
    variables = build_variables(config)
    engine: Engine = make(config, "engine", start=config.frame)
    settings: Any = config
    at_once = getattr(config.executor.sample, "workers", None) or cores()
    sampler = make(config, "sampler", start=config.frame, variables=variables, committee=committee_members)
    if not isinstance(sampler, LammpsSampler):
        raise ConfigError(
            f"sampler.kind: {settings.sampler.kind} runs no LAMMPS script that the engine could drive; there is no "
            "reference of it"
        )
    ends = pulled_ends(sampler, variables)
    # in a process of its own: a compiled engine may end it, write files, or fight with LAMMPS over libraries
    worker = Worker(engine, config.labels.timeout, config.labels.scratch)
    with worker, display.stage("reference") as progress:
        return compute(
            EngineSampler(sampler, worker, at_once), config.frame, ends, settings.check.rupture, folder,
            build_walkers(config, drives), progress,
        )  # fmt: skip


def elements_of(numbers: NDArray[np.int64]) -> tuple[str, ...]:
    """The chemical symbols in a structure, by atomic number with hydrogen last."""
    from ase.data import chemical_symbols

    return tuple(chemical_symbols[z] for z in sorted({int(z) for z in numbers}, key=lambda z: (z == 1, z)))
