"""Labelled frames made ready for training: sorted by composition, features computed, targets in single precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rareal.protocols import Features, Model, Repulsion, Targets
from rareal.records import Array, LabeledFrame


@dataclass(frozen=True, eq=False)
class MiniBatch:
    """What one step of training sees: features, targets of the B frames, and ``train`` [M, B]."""

    features: Any
    targets: Targets
    train: Tensor


@dataclass(frozen=True, eq=False)
class Group:
    """Labelled frames of one composition, ready for training.

    features : what the model prepared; targets : of the F frames; train : [M, F] 1 where a member learns from a
    frame, 0 where it validates on it.
    """

    features: Features
    targets: Targets
    train: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: Tensor) -> MiniBatch:
        """The frames ``index`` [B], on the CPU."""
        there = index.to(self.train.device)
        targets = self.targets
        chosen = Targets(targets.energies[there], targets.forces[there], targets.weights[there])
        return MiniBatch(self.features.batch(index), chosen, self.train[:, there])

    def batches(self, size: int) -> Iterator[MiniBatch]:
        """All frames, in order."""
        for index in torch.arange(len(self)).split(size):
            yield self.batch(index)

    def to(self, device: torch.device) -> Group:
        """The same on another device."""
        energies, forces, weights = (
            t.to(device) for t in (self.targets.energies, self.targets.forces, self.targets.weights)
        )
        return Group(self.features.to(device), Targets(energies, forces, weights), self.train.to(device))


def without_repulsion(frames: Sequence[LabeledFrame], repulsion: Repulsion | None) -> list[LabeledFrame]:
    """The labels less the repulsion, in double precision: what is left for the committee."""
    if repulsion is None:
        return list(frames)
    rest = []
    for labeled in frames:
        energy, forces = repulsion.energy_forces(labeled.frame)
        label = replace(
            labeled.label, energy=labeled.label.energy - energy, forces=labeled.label.forces - np.asarray(forces)
        )
        rest.append(replace(labeled, label=label))
    return rest


def groups_of(
    model: Model,
    frames: Sequence[LabeledFrame],
    train: NDArray[np.bool_],
    self_energy: dict[int, float],
    weights: Array | None = None,
    memory: int | None = None,
) -> list[Group]:
    """Sort frames by composition, prepare and standardise their features.

    Parameters
    ----------
    train : [M, F] which member learns from which frame.
    self_energy : atomic number to eV; subtracted in double precision, so that total energies of −10⁴ eV keep their meV.
    weights : [F] of the frames; their own if None.
    memory : bytes that the features of all groups may hold; None for no limit.
    """
    by_composition: dict[bytes, list[int]] = {}
    for k, labeled in enumerate(frames):
        by_composition.setdefault(np.asarray(labeled.frame.numbers, np.int64).tobytes(), []).append(k)
    features: list[Features] = []
    targets: list[Targets] = []
    for indices in by_composition.values():
        left = None if memory is None else max(0, memory - sum(f.nbytes for f in features))
        features.append(model.prepare([frames[k].frame for k in indices], left))
        shift = sum(self_energy[int(z)] for z in frames[indices[0]].frame.numbers)
        energies = np.array([frames[k].label.energy - shift for k in indices])
        forces = np.stack([frames[k].label.forces for k in indices])
        weight = np.array([frames[k].weight for k in indices]) if weights is None else weights[indices]
        targets.append(Targets(*(torch.from_numpy(a).float() for a in (energies, forces, weight))))
    masks = [torch.from_numpy(np.ascontiguousarray(train[:, indices])).float() for indices in by_composition.values()]
    return [Group(*parts) for parts in zip(model.standardise(features, targets), targets, masks, strict=True)]
