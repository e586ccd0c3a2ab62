"""What the stages promise each other: one or two methods each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rareal.records import (
    Array,
    Calculation,
    Evidence,
    FailedLabel,
    Frame,
    Halt,
    Judged,
    Label,
    LabeledFrame,
    Profile,
    Trained,
    Trajectory,
    Walker,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

EnergyForces = Callable[[Frame], tuple[float, Array] | Calculation]
"""A potential-energy surface: energy [eV] and forces [N, 3] [eV/Å] of a frame, the first two of what it returns."""

Members = Callable[[Frame], tuple[Array, Array]]
"""A committee: energies [M] eV and forces [M, N, 3] eV/Å of a frame."""

Progress = Callable[[int, int], None]
"""Called with (done, total) as a stage advances."""


class Engine(Protocol):
    """A level of theory: one method that computes, and a hash of everything that determines its result."""

    @property
    def hash(self) -> str: ...

    def calculate(self, frame: Frame) -> Calculation | tuple[float, Array]:
        """A `Calculation`, or energy [eV] and forces [N, 3] [eV/Å] alone; raises `LabelError` where it fails."""
        ...


class Labeler(Protocol):
    """Labels many frames, surviving single failures."""

    @property
    def hash(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the hash is of, where the engine says it."""
        ...

    def submit(self, frames: Sequence[Frame], folder: Path, first: int = 0, may_fail: float | None = None) -> Labels:
        """Begin to label ``frames``; what the engine leaves goes into ``folder``, numbered from ``first`` on.

        ``may_fail`` is the largest share of them that may fail, where it is not what usually may.
        """
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


class Labels(Protocol):
    """Labels that are under way."""

    future: Future[list[Label | FailedLabel]]
    """One result per frame, in order."""

    def progress(self) -> tuple[int, int]:
        """Frames that have a result, and all."""
        ...


class Sampler(Protocol):
    """Drives the event with a potential and returns what it saw. It may be sent to another process, by pickle.

    Attributes
    ----------
    thermal : whether frames are a sample at a temperature, so that energies are compared by their means along the
        collective variable, and not one by one along a path.
    """

    thermal: bool

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        """One walker's trajectory. Script and log stay in ``folder``, its own, and run by hand with ``lmp -in``."""
        ...

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The barrier that a round's walkers saw; ``folders`` are theirs, in the order of ``trajectories``."""
        ...


class Uncertainty(Protocol):
    """What is new to the committee, and what is beyond it."""

    def judge(self, trajectories: Sequence[Trajectory], evidence: Evidence | None = None) -> list[Judged]:
        """The trajectories, cut to their usable part, with scores and threshold; labelled frames may teach it."""
        ...


class RunningUncertainty(Uncertainty, Protocol):
    """An uncertainty with a threshold while the dynamics runs.

    Attributes
    ----------
    shared : whether all walkers have one threshold.
    """

    @property
    def shared(self) -> bool: ...

    def score(self, trajectory: Trajectory) -> Array:
        """The uncertainty along a trajectory, [T]."""
        ...

    def running(self, history: Array, evidence: Evidence | None = None) -> float:
        """The threshold after the scores [H] so far, in the order of time; infinite while there is none."""
        ...

    def limit(self, threshold: float) -> float:
        """The score above which a frame is beyond use."""
        ...

    def halt(self, threshold: float, patience: int) -> Halt | None:
        """What stops a drive in LAMMPS where the score is above a threshold; None where it is infinite."""
        ...


class Selector(Protocol):
    """Chooses frames worth a label from the round's trajectories."""

    def select(self, judged: Sequence[Judged], count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """At most ``count`` pairs (index of the trajectory, row in it)."""
        ...


@dataclass(frozen=True, eq=False)
class Targets:
    """What a model shall predict for F frames of one composition.

    Attributes
    ----------
    energies : [F] eV, without what is added outside the model (self-energies, repulsion).
    forces : [F, N, 3] eV/Å.
    weights : [F] of the frames in the loss; 1 is usual.
    """

    energies: Tensor
    forces: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.energies)


class Repulsion(Protocol):
    """A repulsive core that all members share; `rareal.models.zbl` has one."""

    def settings(self) -> dict[str, Any]:
        """What the metadata say of it."""
        ...

    def check_cutoff(self, elements: Sequence[str], cutoff: float) -> None:
        """Raise if it reaches beyond ``cutoff``, Å."""
        ...

    def energy_forces(self, frame: Frame) -> tuple[float, Array]:
        """Energy [eV] and forces [N, 3] [eV/Å]."""
        ...

    def script(self, elements: Sequence[str]) -> nn.Module:
        """``forward`` of the model file for one member, without the member axis; scriptable, double precision."""
        ...


class Features(Protocol):
    """What a model computes once of frames of one composition (the same atomic numbers in the same order)."""

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        ...

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Any:
        """A mini-batch: what the model is called with. ``index`` [B] int64 on the CPU."""
        ...

    def to(self, device: torch.device) -> Features:
        """The same on the device where the model is."""
        ...


class Model(Protocol):
    """A committee of one architecture, as training and export see it; `rareal.models` has the implementations.

    Attributes
    ----------
    architecture : its name.
    layers : message-passing layers; 0 where an atom's energy depends on its neighbours within the cutoff alone.
    members : of the committee, each with weights of its own.
    elements : chemical symbols, in the order of the species.
    cutoff : Å.
    """

    architecture: str
    layers: int
    members: int
    elements: tuple[str, ...]

    @property
    def cutoff(self) -> float: ...

    def prepare(self, frames: Sequence[Frame], memory: int | None = None) -> Features:
        """Features of frames of one composition. What does not fit ``memory`` [bytes] is computed when needed."""
        ...

    def standardise(self, features: Sequence[Any], targets: Sequence[Targets]) -> list[Any]:
        """Fit the scales of input and output to the data while the function stays the same; the features to train on.

        All on the CPU. Frames of weight below 1 must not set a scale: their labels may be wrong.
        """
        ...

    def features(self, frames: Sequence[Frame]) -> Any:
        """What the model is called with for frames of one composition, outside training."""
        ...

    def parameters(self) -> Iterator[Any]: ...

    def member_parameters(self, member: int) -> list[Tensor]:
        """Views of one member's weights, always in the same order; writing to them changes the member."""
        ...

    def __call__(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Energies [M, B] eV, without self-energies and repulsion, and forces [M, B, N, 3] eV/Å."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...

    def to(self, device: Any) -> Any: ...

    def export(self, dtype: torch.dtype) -> torch.jit.ScriptModule:
        """The TorchScript committee of the model-file contract."""
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
