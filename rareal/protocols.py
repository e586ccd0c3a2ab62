"""What the stages promise each other: one or two methods each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rareal.records import Array, FailedLabel, Frame, Label, LabeledFrame, Trained, Trajectory

EnergyForces = Callable[[Frame], tuple[float, Array]]
"""A potential-energy surface: energy [eV] and forces [N, 3] [eV/Å] of a frame."""

Progress = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""


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
        self,
        data: Sequence[LabeledFrame],
        mask: NDArray[np.bool_],
        previous: Path | None,
        folder: Path,
        seeds: Sequence[int],
        content_hash: str,
        progress: Progress | None = None,
    ) -> Trained:
        """Train on ``data`` with the split ``mask`` [M, F], starting from the training in the folder ``previous``.

        ``seeds`` has one per member and one more; ``content_hash`` names the data in the model file.
        """
        ...

    def load(self, folder: Path) -> Trained:
        """What a finished training left in ``folder``."""
        ...
