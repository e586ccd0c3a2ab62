"""rareal from Python: what the commands do, a function each, and a run to look at.

A configuration is the name of a YAML, or a mapping of what would stand in one (files are then relative to the current
folder). See ``examples/hexane/python_api.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rareal import labelled, results
from rareal.config import Config, load, load_training
from rareal.errors import RunFolderError
from rareal.estimate import Estimate, estimate, measure
from rareal.files import read_csv
from rareal.labelconfig import load_labels
from rareal.progress import display
from rareal.records import Array, LabeledFrame, Profile, Trajectory
from rareal.rundir import ROUNDS, RunFolder
from rareal.status import status
from rareal.yamlfile import YamlFile

if TYPE_CHECKING:
    from rareal.ase import CommitteeCalculator
    from rareal.evaluate import Evaluation
    from rareal.label import Labels
    from rareal.reference import Reference
    from rareal.train import Outcome

Configuration = str | Path | Mapping[str, Any]
TRAJECTORIES, PROFILE = "trajectories.npz", "profile.npz"


@dataclass(frozen=True, eq=False)
class Round:
    """A round that has ended.

    Attributes
    ----------
    number : counted from 0.
    figures : its row of ``rounds.csv``.
    folder : with the folders of its stages.
    """

    number: int
    figures: Mapping[str, Any]
    folder: Path

    @property
    def model(self) -> Path:
        """The model file that it trained."""
        return self.folder / results.TRAIN / results.MODEL

    @cached_property
    def trajectories(self) -> list[Trajectory]:
        """What its walkers saw."""
        from rareal.sampling import trajectory

        return trajectory.load(self.folder / "sample" / TRAJECTORIES)

    @property
    def profile(self) -> Profile | None:
        """Energy along the collective variable, and the barrier; None where the round has left none."""
        from rareal.sampling import trajectory

        file = self.folder / "sample" / PROFILE
        return trajectory.load_profile(file) if file.is_file() else None


@dataclass(frozen=True, eq=False)
class Barriers:
    """The barrier after every round.

    Attributes
    ----------
    round : [R].
    labels : [R] bought until then.
    energy, error : [R] eV; the error is the standard error, nan where it is not known.
    reference : eV, of the engine itself; nan where it has not been computed.
    """

    round: Array
    labels: Array
    energy: Array
    error: Array
    reference: float

    def __len__(self) -> int:
        return len(self.round)


class Run:
    """A run folder to look at; nothing is kept, so that a run that goes on shows its newest state.

    Use `open` for one that there is, `start` to make one or go on with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        state = self.status
        return f"<Run {self.path}: {state['state']}, {state['rounds_done']} of {state['rounds']} rounds>"

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder.

        Raises
        ------
        RunFolderError
            If it is none that rareal has made.
        """
        status(Path(path))
        return cls(Path(path))

    @classmethod
    def start(
        cls,
        config: Configuration,
        directory: str | Path | None = None,
        seed: int | None = None,
        rounds: int | None = None,
        quiet: bool = False,
    ) -> Run:
        """Learn the potential, as `rareal run` does; in a run folder that exists, go on where it stopped.

        Raises
        ------
        RarealError
            As the command does.
        """
        from rareal.build import build_stages
        from rareal.loop import run_loop

        folder = Path(directory) if directory is not None else None
        read = load(source(config), {"directory": folder, "seed": seed, "rounds": rounds})
        stages = build_stages(read)
        with (
            RunFolder.open(read.directory, read) as opened,
            display(quiet, read.directory) as shown,
            closing(stages),
        ):
            run_loop(read, opened, stages, shown)
        return cls(read.directory)

    @property
    def status(self) -> dict[str, Any]:
        """How far it is; see `rareal.status.status`."""
        return status(self.path)

    @property
    def config(self) -> Config:
        """Its configuration, all values included."""
        return load(self.path / "config.yaml", {"directory": self.path})

    @property
    def rounds(self) -> list[Round]:
        """The rounds that have ended."""
        table = self.path / ROUNDS
        rows = read_csv(table) if table.is_file() else []
        return [Round(row["round"], row, self.path / f"round-{row['round']:03d}") for row in rows]

    @property
    def barriers(self) -> Barriers:
        """The barrier after every round."""

        def column(key: str) -> Array:
            known = [found.figures.get(key) for found in self.rounds]
            return np.array([np.nan if value is None else value for value in known], dtype=np.float64)

        reference = column("reference_eV")
        return Barriers(
            column("round"),
            column("labels"),
            column("barrier_eV"),
            column("barrier_se_eV"),
            float(reference[-1]) if len(reference) else float("nan"),
        )

    @property
    def dataset(self) -> list[LabeledFrame]:
        """All that it has labelled, in the order of the labels.

        Raises
        ------
        DatasetError
            If there are no labels yet.
        """
        return labelled.read(self.path)[0]

    @property
    def models(self) -> dict[int, Path]:
        """The model files by round."""
        return results.models(self.path)

    @property
    def best(self) -> Path:
        """The model file that has learnt from most labels: the last one.

        Raises
        ------
        RunFolderError
            If no training has ended yet.
        """
        return results.model_of(self.path)

    def calculator(self, member: int | None = None) -> CommitteeCalculator:
        """The last committee as an ASE calculator, or one of its members, from 1."""
        from rareal.ase import CommitteeCalculator

        return CommitteeCalculator(self.best, member)

    def export(self, output: str | Path, member: int | str | None = None) -> Path:
        """Write its model (``.pt``, ``.pt2``) or its data (``.extxyz``, ``.h5``, ``.db``) to ``output``."""
        path = Path(output)
        if path.suffix in (".pt", results.PACKAGE):
            results.write_model(self.path, path, None if member is None else str(member))
        elif member is not None:
            raise RunFolderError(f"{path}: a data set has no members; give a name that ends in .pt or .pt2")
        else:
            results.write_data(self.path, path)
        return path


def source(config: Configuration) -> str | Path | YamlFile:
    """What reads a configuration can take."""
    return YamlFile(Path("configuration"), dict(config)) if isinstance(config, Mapping) else config


def validate(config: Configuration, limit: float | None = None) -> Estimate:
    """Check a configuration, and estimate what the run costs; with ``limit`` seconds for a label, measured.

    Raises
    ------
    ConfigError
        If it cannot be used.
    """
    read = load(source(config))
    return estimate(read, None if limit is None else measure(read, limit))


def reference(config: Configuration, folder: str | Path | None = None, quiet: bool = False) -> Reference:
    """Drive the event with the label engine itself, as `rareal reference` does."""
    from rareal.build import build_reference

    read = load(source(config))
    with display(quiet) as shown:
        return build_reference(read, Path(folder) if folder else read.reference_folder, None, shown)


def train(
    config: Configuration, data: str | Path, output: str | Path, force: bool = False, quiet: bool = False
) -> Outcome:
    """Train a committee on a labelled data set, as `rareal train` does, and write its model file to ``output``."""
    from rareal.train import train as train_committee

    read = load_training(source(config))
    with display(quiet) as shown:
        return train_committee(read, labelled.read(Path(data))[0], Path(output), force, shown)


def label(
    config: Configuration, frames: str | Path, output: str | Path, force: bool = False, quiet: bool = False
) -> Labels:
    """Label the geometries in a file, as `rareal label` does, and write them to ``output``."""
    from rareal.label import label_file

    with display(quiet) as shown:
        return label_file(load_labels(source(config)), Path(frames), Path(output), force, shown)


def evaluate(model: str | Path, data: str | Path) -> Evaluation:
    """Compare a model file, or a run's last one, with a labelled data set."""
    from rareal.evaluate import evaluate_file

    return evaluate_file(results.model_of(Path(model)), labelled.read(Path(data))[0])
