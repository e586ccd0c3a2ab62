"""Training of a committee: all members in one pass over shared mini-batches.

A frame is in the training set of some members and in the validation set of the others. Every mini-batch is evaluated
once for all members, and a mask keeps from each member's loss the frames it must not learn from: descriptors,
Jacobians and GEMMs are shared, the members stay independent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from rareal.errors import TrainingError
from rareal.protocols import Progress
from rareal.records import LabeledFrame
from rareal.schema import Section
from rareal.training.muon import Muon


class Config(Section):
    """How the committee is trained."""

    kind: Literal["committee"] = "committee"
    members: int = Field(4, ge=2, description="Members of the committee; a committee of one knows no disagreement.")
    epochs: int = Field(80, ge=1, description="Epochs per round.")
    batch_size: int = Field(16, ge=1, description="Frames per mini-batch.")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="Muon orthogonalises the updates of weight matrices; AdamW is what the paper used."
    )
    learning_rate: float = Field(4e-3, gt=0, description="Peak learning rate; for adamw take 0.001.")
    final_learning_rate: float = Field(1e-5, gt=0, description="Learning rate at the end of the cosine decay.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of the steps in which the rate rises to its peak.")
    weight_decay: float = Field(1e-6, ge=0, description="Decoupled weight decay.")
    energy_weight: float = Field(1.0, ge=0, description="Weight of the energy term of equation 3 (1 in the paper).")
    force_weight: float = Field(
        1.0,
        ge=0,
        description="Weight alpha of the force term of equation 3 (0.1 in the paper).",
    )
    averaging: float = Field(
        0.99, ge=0, lt=1, description="Decay of the moving average of the weights; 0 switches it off."
    )
    validate_every: int = Field(5, ge=1, description="Epochs between validations; the best one's weights are kept.")
    best: Literal["loss", "energy"] = Field("loss", description="What the best epoch minimises on the validation set.")
    warm_start: bool = Field(True, description="Start from the previous round's weights.")
    threads: int = Field(0, ge=0, description="Threads of the training; 0 takes the cores there are.")


class TrainableModel(Protocol):
    """What training asks of a model; `rareal.models` has the implementations."""

    members: int

    def prepare(self, frames: Sequence[Any]) -> Any: ...
    def standardise(self, features: Sequence[Any]) -> list[Any]: ...
    def parameters(self) -> Any: ...
    def __call__(self, batch: Any) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, eq=False)
class Group:
    """Labelled frames of one composition, ready for training.

    features : what the model prepared; energies [F] without self-energies, float32 eV; forces [F, N, 3] eV/Å;
    train : [M, F] 1 where a member learns from a frame, 0 where it validates on it.
    """

    features: Any
    energies: Tensor
    forces: Tensor
    train: Tensor

    @property
    def atoms(self) -> int:
        return int(self.forces.shape[1])


@dataclass(frozen=True)
class Errors:
    """Validation errors of one member: MAE of energy [eV] and of force components [eV/Å], and the loss."""

    energy_mae: float
    force_mae: float
    loss: float


@dataclass(frozen=True, eq=False)
class Fit:
    """Outcome: the learning curve (a row per validation), the best errors of each member, seconds."""

    history: list[dict[str, float]]
    members: list[Errors]
    seconds: float


def self_energies(frames: Sequence[LabeledFrame], elements: Sequence[str]) -> NDArray[np.float64]:
    """Energy per element [eV] that leaves the smallest residual (least squares; smallest norm if undetermined)."""
    from ase.data import atomic_numbers

    numbers = [atomic_numbers[e] for e in elements]
    composition = np.array([[np.sum(f.frame.numbers == z) for z in numbers] for f in frames], dtype=float)
    energies = np.array([f.label.energy for f in frames])
    solution: NDArray[np.float64] = np.linalg.lstsq(composition, energies, rcond=None)[0]
    return solution


def groups_of(
    model: TrainableModel,
    frames: Sequence[LabeledFrame],
    train: NDArray[np.bool_],
    self_energy: dict[int, float],
) -> list[Group]:
    """Sort frames by composition, prepare and standardise their features.

    ``train`` [M, F] says which member learns from which frame, ``self_energy`` maps atomic number to eV.
    """
    by_composition: dict[bytes, list[int]] = {}
    for k, labeled in enumerate(frames):
        by_composition.setdefault(np.asarray(labeled.frame.numbers, np.int64).tobytes(), []).append(k)
    features = model.standardise(
        [model.prepare([frames[k].frame for k in indices]) for indices in by_composition.values()]
    )
    groups = []
    for prepared, indices in zip(features, by_composition.values(), strict=True):
        shift = sum(self_energy[int(z)] for z in frames[indices[0]].frame.numbers)
        energies = np.array([frames[k].label.energy - shift for k in indices])
        forces = np.stack([frames[k].label.forces for k in indices])
        mask = torch.from_numpy(np.ascontiguousarray(train[:, indices]))
        groups.append(
            Group(prepared, torch.from_numpy(energies).float(), torch.from_numpy(forces).float(), mask.float())
        )
    return groups


def frame_losses(config: Config, group: Group, index: Tensor, energy: Tensor, forces: Tensor) -> Tensor:
    """Equation 3 of the rare-events paper, per member and frame, [M, B]."""
    energy_error = (energy - group.energies[index]) ** 2 / group.atoms**0.5
    force_error = ((forces - group.forces[index]) ** 2).sum((2, 3)) / group.atoms
    loss: Tensor = config.energy_weight * energy_error + config.force_weight * force_error
    return loss


class Average:
    """Exponential moving average of the weights (Polyak averaging), corrected for its start."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.mean = [p.detach().clone() for p in parameters]

    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1.0 - decay)

    def swap(self) -> None:
        """Exchange the weights with their average."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.mean, strict=True):
                current = parameter.clone()
                parameter.copy_(mean)
                mean.copy_(current)


@torch.no_grad()
def validate(model: TrainableModel, groups: Sequence[Group], config: Config) -> list[Errors]:
    """Errors of every member on the frames it did not learn from."""
    sums = torch.zeros(4, model.members, dtype=torch.float64)
    for group in groups:
        for index in torch.arange(len(group.energies)).split(256):
            energy, forces = model(group.features.batch(index))
            held_out = 1.0 - group.train[:, index]
            sums[0] += (held_out * (energy - group.energies[index]).abs()).sum(1)
            sums[1] += (held_out * (forces - group.forces[index]).abs().mean((2, 3))).sum(1)
            criterion = (
                frame_losses(config, group, index, energy, forces)
                if config.best == "loss"
                else (energy - group.energies[index]) ** 2
            )
            sums[2] += (held_out * criterion).sum(1)
            sums[3] += held_out.sum(1)
    mean = (sums[:3] / sums[3]).T.tolist()
    return [Errors(*row) for row in mean]


class Best:
    """Keeps each member's weights of its own best validation."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.weights = [p.detach().clone() for p in self.parameters]
        self.errors: list[Errors] = []

    def update(self, errors: Sequence[Errors]) -> None:
        if not self.errors:
            self.errors = list(errors)
            better = range(len(errors))
        else:
            better = [m for m, e in enumerate(errors) if e.loss < self.errors[m].loss]  # type: ignore[assignment]
        for m in better:
            self.errors[m] = errors[m]
            for kept, parameter in zip(self.weights, self.parameters, strict=True):
                kept[m] = parameter.detach()[m]

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, kept in zip(self.parameters, self.weights, strict=True):
            parameter.copy_(kept)


def make_optimizer(config: Config, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that ``config`` names; the learning rate follows the schedule afterwards."""
    if config.optimizer == "muon":
        return Muon(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True)


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Linear warm-up, then cosine decay to the final rate."""
    warmup = max(1, int(config.warmup * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    cosine = 0.5 * (1.0 + np.cos(np.pi * min(1.0, progress)))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * float(cosine)


def fit(
    model: TrainableModel,
    groups: Sequence[Group],
    config: Config,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Fit:
    """Train in place; on return the model holds each member's best weights.

    Raises
    ------
    TrainingError
        If the loss stops being finite and stays so at a tenth of the learning rate.
    """
    start = time.perf_counter()
    parameters = list(model.parameters())
    optimizer = make_optimizer(config, parameters)
    average, best = Average(parameters, config.averaging), Best(parameters)
    batches = sum(-(-len(g.energies) // config.batch_size) for g in groups)
    history: list[dict[str, float]] = []
    for epoch in range(config.epochs):
        total = 0.0
        for number, (group, index) in enumerate(_batches(groups, config.batch_size, rng)):
            rate = learning_rate(config, epoch * batches + number, config.epochs * batches)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            energy, forces = model(group.features.batch(index))
            mask = group.train[:, index]
            losses = frame_losses(config, group, index, energy, forces)
            loss = ((losses * mask).sum(1) / mask.sum(1).clamp(min=1.0)).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            average.update()
            total += float(loss.detach()) / model.members
        if not np.isfinite(total):
            raise TrainingError(
                f"training diverged in epoch {epoch + 1} (loss {total}); lower training.learning_rate "
                f"(now {config.learning_rate:g}) or look for labels that are wrong"
            )
        last = epoch + 1 == config.epochs
        if last or (epoch + 1) % config.validate_every == 0:
            average.swap()
            errors = validate(model, groups, config)
            best.update(errors)
            average.swap()
            history.append(_row(epoch + 1, total / batches, errors, rate))
        if progress:
            progress(epoch + 1, config.epochs)
    best.restore()
    return Fit(history, best.errors, time.perf_counter() - start)


def _batches(groups: Sequence[Group], size: int, rng: np.random.Generator) -> list[tuple[Group, Tensor]]:
    batches = [
        (group, index)
        for group in groups
        for index in torch.from_numpy(rng.permutation(len(group.energies))).split(size)
    ]
    if len(groups) == 1:
        return batches
    return [batches[k] for k in rng.permutation(len(batches))]


def _row(epoch: int, loss: float, errors: Sequence[Errors], rate: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "learning_rate": rate,
        "training_loss": loss,
        "validation_loss": float(np.mean([e.loss for e in errors])),
        "energy_mae_eV": float(np.mean([e.energy_mae for e in errors])),
        "force_mae_eV_A": float(np.mean([e.force_mae for e in errors])),
    }
