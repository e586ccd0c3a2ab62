"""Loss functions. Each gives the loss of every member and frame, [M, B]; a training minimises their mean.

N is the number of atoms, Δ the difference between prediction and label.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from rareal.protocols import Targets
from rareal.training.config import Batch, Huber, LossConfig, RareEvents, SchNet

Loss = Callable[[Tensor, Tensor, Targets], Tensor]
"""(energies [M, B] eV, forces [M, B, N, 3] eV/Å, targets of the B frames) -> [M, B]; weights are not in it."""


def rare_events(config: RareEvents, energies: Tensor, forces: Tensor, targets: Targets) -> Tensor:
    """Equation 3 of the rare-events paper: w_E (ΔE)² / √N + α Σ (ΔF)² / N."""
    atoms = forces.shape[2]
    energy_error = (energies - targets.energies) ** 2 / atoms**0.5
    force_error = ((forces - targets.forces) ** 2).sum((2, 3)) / atoms
    loss: Tensor = config.energy_weight * energy_error + config.force_weight * force_error
    return loss


def schnet(config: SchNet, energies: Tensor, forces: Tensor, targets: Targets) -> Tensor:
    """Equation 4 of the rare-events paper: ρ (ΔE)² + (1 − ρ) mean (ΔF)² over the 3N components."""
    energy_error = (energies - targets.energies) ** 2
    force_error = ((forces - targets.forces) ** 2).mean((2, 3))
    return config.rho * energy_error + (1.0 - config.rho) * force_error


def batch(config: Batch, energies: Tensor, forces: Tensor, targets: Targets) -> Tensor:
    """Equation 5 of the batch-active-learning paper: λ_E (ΔE)² + λ_F / 3N Σ (ΔF)², with λ_F = 12 N Å² in the paper."""
    force_weight = config.force_weight * forces.shape[2]
    energy_error = (energies - targets.energies) ** 2
    force_error = ((forces - targets.forces) ** 2).mean((2, 3))
    return config.energy_weight * energy_error + force_weight * force_error


def huber(config: Huber, energies: Tensor, forces: Tensor, targets: Targets) -> Tensor:
    """Huber's loss of energy per atom and force components: w_E H(ΔE / N; δ_E) + w_F mean H(ΔF; δ_F).

    H(x; δ) is x²/2 up to |x| = δ and δ (|x| − δ/2) beyond (P. J. Huber, Ann. Math. Stat. 35, 73 (1964)).
    """
    energy_error = (energies - targets.energies) / forces.shape[2]
    force_error = forces - targets.forces
    energy_loss = _huber(energy_error, config.energy_delta)
    force_loss = _huber(force_error, config.force_delta).mean((2, 3))
    return config.energy_weight * energy_loss + config.force_weight * force_loss


def _huber(error: Tensor, delta: float) -> Tensor:
    return huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def make_loss(config: LossConfig) -> Loss:
    """The loss function that ``config`` names."""
    functions = {RareEvents: rare_events, SchNet: schnet, Batch: batch, Huber: huber}
    function: Callable[..., Tensor] = functions[type(config)]  # type: ignore[assignment]
    return lambda energies, forces, targets: function(config, energies, forces, targets)
