"""The frozen records that travel between the stages. Units: eV, Å, fs, K.

Arrays are NumPy, shapes in brackets: N atoms, T time steps, M committee members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """A geometry and where it came from.

    Attributes
    ----------
    numbers : [N] atomic numbers.
    positions : [N, 3] Å.
    cell : [3, 3] lattice vectors in rows, Å; zeros where there is no cell.
    pbc : [3] periodic directions.
    origin : what made it: ``initial``, ``pull``, ``path``, ``noise``, ...
    round : the round of active learning that made it.
    walker, step : the trajectory and its time step, -1 where that means nothing.
    cv : value of the collective variable, in the variable's unit.
    """

    numbers: NDArray[np.int64]
    positions: Array
    cell: Array = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: tuple[bool, bool, bool] = (False, False, False)
    origin: str = ""
    round: int = -1
    walker: int = -1
    step: int = -1
    cv: float = float("nan")


class Calculation(NamedTuple):
    """What an engine returns for a frame.

    Attributes
    ----------
    energy : eV; where occupations are smeared, the free energy that the forces are the gradient of.
    forces : [N, 3] eV/Å.
    stress : [6] eV/Å³ in Voigt order (xx, yy, zz, yz, xz, xy), positive where the cell is pulled (ASE's sign); None
        where the engine gives none.
    note : empty, or what it took to get there.
    """

    energy: float
    forces: Array
    stress: Array | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Label:
    """A `Calculation` with its provenance.

    Attributes
    ----------
    energy, forces, stress, note : as in `Calculation`.
    engine : the hash of the engine's settings.
    seconds : what the calculation took.
    cached : whether it was not computed for this frame, but is the label of an equal one.
    """

    energy: float
    forces: Array
    engine: str
    seconds: float = 0.0
    stress: Array | None = None
    note: str = ""
    cached: bool = False


@dataclass(frozen=True)
class FailedLabel:
    """A frame that got no label, and why."""

    reason: str


@dataclass(frozen=True, eq=False)
class LabeledFrame:
    """A frame with its label: one row of a data set.

    Attributes
    ----------
    weight : its weight in the loss.
    replaces : the hash of the engine whose label this one has replaced; empty where it is the first one.
    """

    frame: Frame
    label: Label
    weight: float = 1.0
    replaces: str = ""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained committee on disk.

    Attributes
    ----------
    model : its model file, in the folder of its training.
    mask : [M, F] True where a member learnt from a frame.
    best : member with the lowest MAE of force components over the whole data set (rare-events paper, 2.3).
    energy_mae, force_mae : of each member over the whole data set, eV and eV/Å, by the frames' weights.
    notes : what the user should know of the training: labels that were softened, divergence.
    """

    model: Path
    mask: NDArray[np.bool_]
    best: int
    energy_mae: tuple[float, ...]
    force_mae: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def training_overlap(self) -> float:
        """Mean over pairs of members of |A ∩ B| / |A ∪ B| of their training sets: 1 means no diversity is left."""
        members = len(self.mask)
        pairs = [(self.mask[a], self.mask[b]) for a in range(members) for b in range(a + 1, members)]
        return float(np.mean([np.sum(a & b) / max(1, np.sum(a | b)) for a, b in pairs]))


class Part(NamedTuple):
    """A part of a drive that was interrupted: its folder, and the last of its steps that counts."""

    folder: Path
    last: int


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where a walker stands: what a drive goes on from.

    Attributes
    ----------
    positions : [N, 3] unwrapped, Å.
    velocities : [N, 3] Å/ps, LAMMPS's unit.
    step : time steps since the drive began.
    cell : [3, 3] lattice vectors in rows, Å; None where they are the start's.
    interval : steps between the frames that the whole drive keeps; a part that may halt keeps more.
    parts : the drive so far, in order; what else a sampler needs to go on (a spring, hills) lies in these folders.
    """

    positions: Array
    velocities: Array
    step: int
    cell: Array | None = None
    interval: int = 1
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Halt:
    """When a drive stops by itself: a disagreement above ``above`` at ``patience`` steps in a row.

    ``score`` is what is looked at: ``energy``, the std of the total energy, eV; ``force``, the largest std of the force
    on an atom, eV/Å.
    """

    score: Literal["energy", "force"]
    above: float
    patience: int


@dataclass(frozen=True, eq=False)
class Walker:
    """One drive along the event.

    Attributes
    ----------
    number : counted from 0; what is different for each walker in the sampler's settings goes by it.
    seed : of its velocities.
    start : the structure it starts from.
    previous : the folders of the last round's walkers, for samplers that go on from them (inherited bias).
    resume : where an interrupted drive goes on, None from the beginning.
    halt : when it stops by itself, None where it does not.
    until : the step at which it pauses, None where it goes on to its end.
    """

    number: int
    seed: int
    start: Frame
    previous: tuple[Path, ...] = ()
    resume: Snapshot | None = None
    halt: Halt | None = None
    until: int | None = None


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One walker's drive along the event. Row t of every array is the same instant.

    Attributes
    ----------
    walker, seed : which walker, and the seed of its velocities.
    steps : [T] time steps since the drive began (after relaxation).
    cv : [T] the event's collective variable, the first of all.
    work : [T] accumulated work of the drive, eV; zeros where the sampler does no work.
    energy : [T] committee-mean potential energy, eV.
    energy_std : [T] population std of the members' energies, eV.
    force_std : [T] largest per-atom force std (norm of the vector std), eV/Å.
    positions : [T, N, 3] unwrapped, Å.
    note : empty, or why the trajectory was cut short ("lost atoms", "not finite", ...).
    cvs : [T, V] all collective variables; ``cv`` alone where nothing else is given.
    bias : [T] energy of what the sampler adds to the potential, eV; zeros where it adds none.
    cells : [T, 3, 3] lattice vectors in rows, Å, of a drive that changes them; [T, 0, 3] where the start's stay.
    """

    walker: int
    seed: int
    steps: NDArray[np.int64]
    cv: Array
    work: Array
    energy: Array
    energy_std: Array
    force_std: Array
    positions: Array
    note: str = ""
    cvs: Array = None  # type: ignore[assignment]  # filled below
    bias: Array = None  # type: ignore[assignment]
    cells: Array = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.cvs is None:
            object.__setattr__(self, "cvs", self.cv[:, None])
        if self.bias is None:
            object.__setattr__(self, "bias", np.zeros(len(self.cv)))
        if self.cells is None:
            object.__setattr__(self, "cells", np.empty((len(self.cv), 0, 3)))

    def __len__(self) -> int:
        return len(self.steps)

    def cell(self, row: int, start: Array) -> Array:
        """Lattice vectors [3, 3] at a row; ``start`` are those of the start."""
        changed: Array = self.cells[row]
        return changed if len(changed) else start

    def rows(self, index: slice | NDArray[np.bool_] | NDArray[np.int64], note: str | None = None) -> Trajectory:
        """The rows ``index`` alone; ``note`` says why, where it replaces what is there."""
        arrays = {name: getattr(self, name)[index] for name in TIME_SERIES}
        return replace(self, **arrays, note=self.note if note is None else note)


TIME_SERIES = ("steps", "cv", "work", "energy", "energy_std", "force_std", "positions", "cvs", "bias", "cells")
"""The fields of a trajectory that have a row per instant."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Labelled frames: what the committee thought of its error, and the error.

    Attributes
    ----------
    energy_std, force_std : [K] as in `Trajectory`, eV and eV/Å.
    energy_error : [K] |committee - engine| of energies relative to the first frame, eV.
    force_error : [K] largest norm of the error of the force on an atom, eV/Å.
    frames : labelled frames that the committee has been trained on; these K are none of them.
    thresholds : the threshold of every walker in the last round, by its number.
    """

    energy_std: Array
    force_std: Array
    energy_error: Array
    force_error: Array
    frames: int = 0
    thresholds: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Judged:
    """A trajectory cut to what can be used of it, with the committee's doubts.

    Attributes
    ----------
    trajectory : the usable part.
    score : [T] uncertainty of every frame.
    threshold : a frame above is worth a label; where the threshold moves along the trajectory, its value at the end.
    limit : a frame above is beyond use, for labels as for anything else.
    moving : [T] the threshold at every frame, where it moves along the trajectory; else empty.
    note : empty, or what the user should know of the threshold.
    """

    trajectory: Trajectory
    score: Array
    threshold: float
    limit: float = float("inf")
    moving: Array = field(default_factory=lambda: np.empty(0))
    note: str = ""

    @property
    def thresholds(self) -> Array:
        """[T] the threshold at every frame."""
        return self.moving if len(self.moving) else np.full(len(self.score), self.threshold)

    @property
    def worthwhile(self) -> NDArray[np.bool_]:
        """[T] whether a frame is worth a label."""
        found: NDArray[np.bool_] = (self.score > self.thresholds) & (self.score <= self.limit)
        # a committee that gives no finite number is beyond use, not interesting
        return found & np.isfinite(self.score)


@dataclass(frozen=True, eq=False)
class Profile:
    """A round's energy along the event's coordinate, and the barrier in it.

    Attributes
    ----------
    kind : what kind of energy; ``work`` is that done by a drive, which is no free energy.
    coordinate : [K] collective variable.
    energy : [K] eV, relative to the lowest or the first point.
    error : [K] standard error, eV; nan where it is not known.
    barrier : eV; nan where the event did not happen.
    barrier_error : standard error, eV; nan where it is not known.
    note : empty, or what the user should know of it.
    """

    kind: Literal["work", "free energy", "potential energy"]
    coordinate: Array
    energy: Array
    error: Array
    barrier: float
    barrier_error: float
    note: str = ""
