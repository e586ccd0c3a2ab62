"""Training of a committee: all members in one pass over shared mini-batches.

A frame is in the training set of some members and in the validation set of the others. Every mini-batch is evaluated
once for all members, and a mask keeps from each member's loss the frames it must not learn from: descriptors,
Jacobians and GEMMs are shared, the members stay independent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rareal.protocols import Model, Progress
from rareal.training.checkpoint import Checkpoint
from rareal.training.config import Config
from rareal.training.groups import Group, MiniBatch
from rareal.training.losses import Loss, make_loss
from rareal.training.state import State
from rareal.training.validation import Errors, validate

History = Callable[[Sequence[dict[str, Any]]], object]
"""Called with the learning curve so far whenever it has grown."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Outcome of a training.

    Attributes
    ----------
    history : the learning curve, a row per validation.
    members : the best errors of each member.
    notes : what the user should know.
    optimizer : its state at the end.
    """

    history: list[dict[str, Any]]
    members: list[Errors]
    notes: list[str]
    epochs: int
    seconds: float
    optimizer: dict[str, Any]


def fit(
    model: Model,
    groups: Sequence[Group],
    config: Config,
    rng: np.random.Generator,
    *,
    epochs: int | None = None,
    optimizer: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    watch: History | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Train in place; on return the model holds each member's best weights.

    Parameters
    ----------
    epochs : ``config.epochs`` if None.
    optimizer : state of an earlier training's optimizer to start with.
    checkpoint : where an unfinished training is kept, and taken up.

    Raises
    ------
    TrainingError
        If training diverges more often than ``config.recovery`` allows.
    """
    epochs = epochs or config.epochs
    loss = make_loss(config.loss)
    nothing = loss_of_zero(groups, loss)
    batches = sum(-(-len(g) // config.batch_size) for g in groups)
    state = State(model, config, epochs * batches, rng)
    if optimizer is not None:
        state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": optimizer["state"]})
    if checkpoint:
        checkpoint.restore(state)
    while state.epoch < epochs and not state.stopped:
        started = time.perf_counter()
        mean, rate = train_epoch(model, groups, loss, state)
        state.epoch += 1
        diverged = state.diverged(mean, nothing)
        if diverged:
            state.recover(mean)
        if diverged or state.epoch == epochs or state.epoch % config.validate_every == 0:
            with state.average.applied():
                state.judge(mean, validate(model, groups, loss, config.best), rate)
            if watch:
                watch(state.history)
        state.seconds += time.perf_counter() - started
        if checkpoint:
            checkpoint.keep(state)
        if progress:
            progress(state.epoch, epochs)
    state.best.restore()
    return Fit(state.history, state.best.errors, state.notes, state.epoch, state.seconds, state.optimizer.state_dict())


def train_epoch(model: Model, groups: Sequence[Group], loss: Loss, state: State) -> tuple[float, float]:
    """One pass over the frames; the mean loss of a member, and the last learning rate."""
    total = torch.zeros((), dtype=torch.float64, device=groups[0].train.device)
    steps, rate = 0, 0.0
    for batch in mini_batches(groups, state.config.batch_size, state.rng):
        losses = loss(*model(batch.features), batch.targets) * batch.targets.weights
        of_members = (losses * batch.train).sum(1) / batch.train.sum(1).clamp(min=1.0)
        rate = state.rate
        state.descend(of_members.sum())
        total += of_members.detach().sum()
        steps += 1
    return float(total) / (model.members * steps), rate


def mini_batches(groups: Sequence[Group], size: int, rng: np.random.Generator) -> Iterator[MiniBatch]:
    """All frames once, in random order; every mini-batch is of one composition."""
    batches = [
        (group, index) for group in groups for index in torch.from_numpy(rng.permutation(len(group))).split(size)
    ]
    order = rng.permutation(len(batches)) if len(groups) > 1 else range(len(batches))
    for k in order:
        group, index = batches[k]
        yield group.batch(index)


@torch.no_grad()
def loss_of_zero(groups: Sequence[Group], loss: Loss) -> float:
    """Mean loss of predicting no energy and no forces: what a training that works stays below."""
    total = 0.0
    for targets in (group.targets for group in groups):
        zeros = torch.zeros_like(targets.energies)[None], torch.zeros_like(targets.forces)[None]
        total += float((loss(*zeros, targets) * targets.weights).sum())
    return total / sum(len(group) for group in groups)
