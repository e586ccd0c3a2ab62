"""Errors of the members, on the frames that they did not learn from and on all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rareal.protocols import Model
from rareal.training.config import Criterion
from rareal.training.groups import Group
from rareal.training.losses import Loss

CHUNK = 64
"""Frames that are evaluated at once."""


class Errors(NamedTuple):
    """Errors of one member, weighted by the frames' weights: MAE of energy [eV] and of force components [eV/Å].

    ``loss`` is the mean loss, ``criterion`` what the choice of the best epoch goes by (`Config.best`).
    """

    energy_mae: float
    force_mae: float
    loss: float
    criterion: float


@torch.no_grad()
def validate(model: Model, groups: Sequence[Group], loss: Loss, best: Criterion = "root_loss") -> list[Errors]:
    """Errors of every member on the frames it did not learn from.

    A member holds out a few dozen frames. The loss is a square, and one frame of a bond that breaks may outweigh all
    others in it; an early epoch that happened to hit that frame would be kept. In the mean of roots it counts for less.
    """
    sums = torch.zeros(5, model.members, dtype=torch.float64, device=groups[0].train.device)
    for batch in (batch for group in groups for batch in group.batches(CHUNK)):
        energies, forces = model(batch.features)
        targets = batch.targets
        held_out = (1.0 - batch.train) * targets.weights
        off = energies - targets.energies
        sums[0] += (held_out * off.abs()).sum(1)
        sums[1] += (held_out * (forces - targets.forces).abs().mean((2, 3))).sum(1)
        losses = loss(energies, forces, targets)
        sums[2] += (held_out * losses).sum(1)
        sums[3] += (held_out * {"root_loss": losses.sqrt(), "loss": losses, "energy": off**2}[best]).sum(1)
        sums[4] += held_out.sum(1)
    return [Errors(*row) for row in (sums[:4] / sums[4]).T.tolist()]


@torch.no_grad()
def whole_set_errors(model: Model, groups: Sequence[Group]) -> tuple[list[float], list[float]]:
    """MAE of every member over training and validation frames together: energy [eV], force components [eV/Å]."""
    sums = torch.zeros(3, model.members, dtype=torch.float64, device=groups[0].train.device)
    for batch in (batch for group in groups for batch in group.batches(CHUNK)):
        energies, forces = model(batch.features)
        targets = batch.targets
        sums[0] += (targets.weights * (energies - targets.energies).abs()).sum(1)
        sums[1] += (targets.weights * (forces - targets.forces).abs().mean((2, 3))).sum(1)
        sums[2] += targets.weights.sum()
    energy, force = (sums[:2] / sums[2]).tolist()
    return energy, force
