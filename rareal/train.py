"""A training by itself: a committee from a labelled data set, without the loop.

The model file goes where the user says. Beside it the folder ``<model>.training`` keeps the configuration, the split,
the learning curve, the errors and the checkpoint: a training that was killed goes on from there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rareal import seeds
from rareal.build import build_split, build_trainer, elements_of
from rareal.config import TrainConfig
from rareal.data import dataset
from rareal.errors import DatasetError, RunFolderError
from rareal.files import read_json, write_atomically, write_json, write_text
from rareal.lock import Lock
from rareal.progress import Display
from rareal.records import LabeledFrame, Trained
from rareal.training.outcome import MODEL, SUMMARY
from rareal.units import KCAL_MOL

TASK, SETTINGS = "task.json", "config.yaml"
"""What the folder is for: the hash of the data and every setting; and the latter for people."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished training: the model file, the folder beside it, and what it says of itself (``training.json``)."""

    model: Path
    folder: Path
    trained: Trained
    summary: dict[str, Any]

    def describe(self) -> str:
        """Validation errors of every member and the time it took."""
        lines = [f"{'validation':<12}{'energy MAE':>14}{'force MAE':>16}"]
        for k, member in enumerate(self.summary["validation"]):
            energy, force = member["energy_mae"] / KCAL_MOL, member["force_mae"] / KCAL_MOL
            lines.append(f"member {k + 1:<5}{energy:>9.3f} kcal/mol {force:>6.3f} kcal/mol/Å")
        energy = np.mean([member["energy_mae"] for member in self.summary["validation"]]) / KCAL_MOL
        force = np.mean([member["force_mae"] for member in self.summary["validation"]]) / KCAL_MOL
        lines.append(f"{'mean':<12}{energy:>9.3f} kcal/mol {force:>6.3f} kcal/mol/Å")
        return "\n".join([*lines, *self.trained.notes])


def folder_of(model: Path) -> Path:
    """The folder beside a model file: ``hexane.training`` for ``hexane.pt``."""
    return model.with_suffix(".training")


def refuse_finished(model: Path, force: bool) -> None:
    """Refuse to overwrite a model file, before the data are read.

    Raises
    ------
    RunFolderError
        If there is one, or something that is no file, or no folder to write it into.
    """
    if model.is_dir():
        raise RunFolderError(f"{model} is a folder; give the name of a file, e.g. -o {model / 'model.pt'}")
    if not model.parent.is_dir():
        raise RunFolderError(f"{model.parent}: there is no such folder for {model.name}; make it first")
    if model.exists() and not force:
        raise RunFolderError(f"{model} exists already; train anew with --force, or give another name with -o")


def train(config: TrainConfig, data: Sequence[LabeledFrame], model: Path, force: bool, display: Display) -> Outcome:
    """Train on ``data`` and leave the model file at ``model``.

    Raises
    ------
    RunFolderError
        If the model file exists, or its folder is of another training, and ``force`` is not given; or if another
        process works in it.
    DatasetError
        If the data hold an element that the configuration does not name, or labels of several engines.
    """
    refuse_finished(model, force)
    dataset.refuse_mixture(data)
    elements = _elements(config, data)
    content = dataset.content_hash(data)
    folder = folder_of(model)
    task = {"dataset": content, "config": {**config.resolved(), "elements": list(elements)}}
    _claim(folder, task, force)
    lock = Lock(folder)
    lock.acquire()
    try:
        write_text(folder / SETTINGS, config.resolved_yaml())
        trainer = build_trainer(config, elements, config.dtype)
        settings: Any = config
        members = settings.training.members
        mask = build_split(config)(len(data), None, None, seeds.stream(config.seed, 0, "split"))
        member_seeds = [seeds.integer(config.seed, 0, "member", m) for m in range(members)]
        order = seeds.integer(config.seed, 0, "batches")
        if (folder / SUMMARY).is_file() and (folder / MODEL).is_file():
            trained = trainer.load(folder)  # all but the copy of the model had been done
        else:
            with display.stage("train") as progress:
                trained = trainer.train(data, mask, None, folder, [*member_seeds, order], content, progress)
        with trained.model.open("rb") as source:
            write_atomically(model, lambda stream: shutil.copyfileobj(source, stream))
    finally:
        lock.release()
    return Outcome(model, folder, trained, read_json(folder / SUMMARY))


def _elements(config: TrainConfig, data: Sequence[LabeledFrame]) -> tuple[str, ...]:
    found = elements_of(np.unique(np.concatenate([item.frame.numbers for item in data])))
    missing = [symbol for symbol in found if symbol not in (config.elements or found)]
    if missing:
        raise DatasetError(
            f"the data hold {', '.join(missing)}, which the YAML's `elements` do not name; add them there, or leave "
            "`elements` out"
        )
    return config.elements or found


def _claim(folder: Path, task: dict[str, Any], force: bool) -> None:
    """Make the folder, or go on in one that is of the same task."""
    known = (folder / TASK).is_file()
    if folder.exists() and not known and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} holds other files; move it away, or give another name with -o")
    if known and (force or read_json(folder / TASK) != task):
        if not force:
            raise RunFolderError(
                f"{folder} holds an unfinished training with other data or another configuration; start anew with "
                "--force, or give another name with -o"
            )
        for item in folder.iterdir():
            if item.is_file() and item.name != "lock":
                os.remove(item)
    folder.mkdir(exist_ok=True)
    write_json(folder / TASK, task)
