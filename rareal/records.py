"""The frozen records that travel between the stages. Units: eV, Å, fs, K.

Arrays are NumPy, shapes in brackets: N atoms, T time steps, M committee members.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

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


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One walker's drive along the event. Row t of every array is the same instant.

    Attributes
    ----------
    walker, seed : which walker, and the seed of its velocities.
    steps : [T] time steps since the drive began (after relaxation).
    cv : [T] collective variable.
    work : [T] accumulated work of the drive, eV; zeros where the sampler does no work.
    energy : [T] committee-mean potential energy, eV.
    energy_std : [T] population std of the members' energies, eV.
    force_std : [T] largest per-atom force std (norm of the vector std), eV/Å.
    positions : [T, N, 3] unwrapped, Å.
    note : empty, or why the trajectory was cut short ("lost atoms", "not finite", ...).
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

    def __len__(self) -> int:
        return len(self.steps)
