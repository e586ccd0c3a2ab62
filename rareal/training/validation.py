"""Errors of the members, on the frames that they did not learn from and on all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from rareal.protocols import Model
from rareal.training.groups import Group
from rareal.training.losses import Loss

CHUNK = 64
"""Frames that are evaluated at once."""


class Errors(NamedTuple):
    """Errors of one member, weighted by the frames' weights: MAE of energy [eV] and of force components [eV/Å].

    ``loss`` is what the choice of the best epoch goes by.
    """

    energy_mae: float
    force_mae: float
    loss: float


@torch.no_grad()
def validate(
    model: Model, groups: Sequence[Group], loss: Loss, best: Literal["loss", "energy"] = "loss"
) -> list[Errors]:
    """Errors of every member on the frames it did not learn from."""
    sums = torch.zeros(4, model.members, dtype=torch.float64, device=groups[0].train.device)
    for batch in (batch for group in groups for batch in group.batches(CHUNK)):
        energies, forces = model(batch.features)
        targets = batch.targets
        held_out = (1.0 - batch.train) * targets.weights
        off = energies - targets.energies
        sums[0] += (held_out * off.abs()).sum(1)
        sums[1] += (held_out * (forces - targets.forces).abs().mean((2, 3))).sum(1)
        sums[2] += (held_out * (loss(energies, forces, targets) if best == "loss" else off**2)).sum(1)
        sums[3] += held_out.sum(1)
    return [Errors(*row) for row in (sums[:3] / sums[3]).T.tolist()]


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
