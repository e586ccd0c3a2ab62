"""What the stages promise each other: one or two methods each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rareal.records import Array, FailedLabel, Frame, Label, LabeledFrame, Trajectory

EnergyForces = Callable[[Frame], tuple[float, Array]]
"""A potential-energy surface: energy [eV] and forces [N, 3] [eV/Å] of a frame."""

Progress = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""


class CollectiveVariable(Protocol):
    """One definition for LAMMPS, for the screening and for the plots."""

    def value(self, positions: Array) -> Array:
        """Value for positions [..., N, 3] (unwrapped, Å); shape [...]."""
        ...


class Engine(Protocol):
    """A level of theory: one method that computes, and a hash of everything that determines its result."""

    @property
    def hash(self) -> str: ...

    def calculate(self, frame: Frame) -> tuple[float, Array]:
        """Energy [eV] and forces [N, 3] [eV/Å]; raises `LabelError` where the engine fails."""
        ...


class Labeler(Protocol):
    """Labels many frames, surviving single failures."""

    @property
    def hash(self) -> str: ...

    def label(self, frames: Sequence[Frame], progress: Progress | None = None) -> list[Label | FailedLabel]:
        """One result per frame, in order."""
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


class Sampler(Protocol):
    """Drives the event with a potential and returns what it saw."""

    def sample(
        self, model: Path, folder: Path, seeds: Sequence[int], progress: Progress | None = None
    ) -> list[Trajectory]:
        """One trajectory per seed. Scripts and logs stay in ``folder`` and run by hand with ``lmp -in``."""
        ...


class Selector(Protocol):
    """Chooses frames worth a label from the round's trajectories."""

    def select(
        self, trajectories: Sequence[Trajectory], threshold: float, count: int, rng: np.random.Generator
    ) -> list[tuple[int, int]]:
        """At most ``count`` pairs (index of the trajectory, row in it)."""
        ...


class Trainer(Protocol):
    """Fits a committee to labelled frames and writes its model file."""

    def train(
        self, data: Sequence[LabeledFrame], previous: Path | None, folder: Path, seed: int, progress: Progress | None
    ) -> Path: ...
