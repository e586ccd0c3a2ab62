"""What a committee cannot learn: frames that it has learnt from, errs on all the same, and is sure of.

Members share their descriptors. Two structures that these do not tell apart get one energy from every member, and no
deviation shows it: a selection by uncertainty does not find such frames, and more of them do not help. A bond that is
pulled apart ends there, since in the end something is beyond a cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rareal.protocols import Model
from rareal.records import Array
from rareal.training.groups import Group
from rareal.training.validation import CHUNK
from rareal.units import KCAL_MOL

ERROR, DEVIATIONS = KCAL_MOL, 5.0
"""A frame is a blind spot if the committee's mean is off by more than both, the second in standard deviations."""


@torch.no_grad()
def learnt_errors(model: Model, groups: Sequence[Group]) -> tuple[Array, Array]:
    """Error of the mean energy and the members' standard deviation, eV, of the frames that most members learn from."""
    errors, deviations = [], []
    for batch in (batch for group in groups for batch in group.batches(CHUNK)):
        energies, _ = model(batch.features)
        learnt = (batch.train.mean(0) > 0.5) & (batch.targets.weights >= 1.0)
        errors.append((energies.mean(0) - batch.targets.energies)[learnt].double().cpu())
        deviations.append(energies.std(0, unbiased=False)[learnt].double().cpu())
    return torch.cat(errors).numpy(), torch.cat(deviations).numpy()


def describe(errors: Array, deviations: Array) -> list[str]:
    """What the user should know of blind spots, from `learnt_errors`: nothing, or one line."""
    blind = np.abs(errors) > np.maximum(ERROR, DEVIATIONS * deviations)
    if not blind.any():
        return []
    worst = int(np.argmax(np.where(blind, np.abs(errors), 0.0)))
    return [
        f"on {blind.sum()} of {len(errors)} frames that it has learnt from the committee is still off by more than "
        f"1 kcal/mol, and its members agree (worst: {abs(errors[worst]) / KCAL_MOL:.1f} kcal/mol, deviation "
        f"{deviations[worst] / KCAL_MOL:.2g}): maybe the model cannot tell them from others, which neither "
        "more labels nor a choice by deviation would change; try longer cutoffs (ANI: for angles, too), or more epochs"
    ]
