"""Weights beside those being trained: their moving average, and those of each member's best validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rareal.protocols import Model
from rareal.training.validation import Errors


class Average:
    """Exponential moving average of the weights (Polyak averaging), corrected for its start."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.steps = list(parameters), decay, 0
        self.mean = [p.detach().clone() for p in parameters]

    def update(self) -> None:
        """Take in the present weights."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights for a while."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def restart(self) -> None:
        """Forget all weights but the present ones."""
        self.steps = 0
        for mean, parameter in zip(self.mean, self.parameters, strict=True):
            mean.copy_(parameter)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, mean in zip(self.parameters, self.mean, strict=True):
            current = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "steps": self.steps}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.steps = state["steps"]
        for mean, kept in zip(self.mean, state["mean"], strict=True):
            mean.copy_(kept)


class Best:
    """Keeps each member's weights of its own best validation."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.weights = [self._clone(m) for m in range(model.members)]
        self.errors: list[Errors] = []

    def update(self, errors: Sequence[Errors]) -> bool:
        """Keep the weights of the members that were never better; whether there is one."""
        self.errors = self.errors or [Errors(*[math.inf] * len(Errors._fields))] * len(errors)
        better = [m for m, e in enumerate(errors) if e.criterion < self.errors[m].criterion]
        for m in better:
            self.errors[m] = errors[m]
            self.weights[m] = self._clone(m)
        return bool(better)

    @torch.no_grad()
    def restore(self) -> None:
        """Give every member its best weights."""
        for m, weights in enumerate(self.weights):
            for parameter, kept in zip(self.model.member_parameters(m), weights, strict=True):
                parameter.copy_(kept)

    def _clone(self, member: int) -> list[Tensor]:
        return [view.detach().clone() for view in self.model.member_parameters(member)]

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "errors": [list(e) for e in self.errors]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.errors = [Errors(*row) for row in state["errors"]]
        for weights, kept in zip(self.weights, state["weights"], strict=True):
            for tensor, value in zip(weights, kept, strict=True):
                tensor.copy_(value)
