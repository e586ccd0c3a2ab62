"""All that changes while a committee is trained, and what happens to it when training stalls or diverges."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from rareal.errors import TrainingError
from rareal.protocols import Model
from rareal.training.config import Config
from rareal.training.muon import Muon
from rareal.training.schedule import make_schedule
from rareal.training.validation import Errors
from rareal.training.weights import Average, Best


def make_optimizer(config: Config, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that ``config`` names; the learning rate follows the schedule afterwards."""
    if config.optimizer == "muon":
        return Muon(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        amsgrad=config.optimizer == "amsgrad",
        foreach=True,
    )


class State:
    """Weights, optimizer, averages, best weights, learning rate, random stream and history of a training.

    Attributes
    ----------
    epoch, step : how many epochs and mini-batches are done.
    history : the learning curve, a row per validation.
    notes : what the user should know.
    stopped : whether training ends before its last epoch.
    """

    PLAIN = (
        "epoch", "step", "best_epoch", "stale", "recoveries", "first_loss", "stopped", "history", "notes", "events",
        "seconds",
    )  # fmt: skip
    PARTS = ("optimizer", "average", "best", "schedule")

    def __init__(self, model: Model, config: Config, steps: int, rng: np.random.Generator) -> None:
        self.config = config
        self.parameters = list(model.parameters())
        self.optimizer = make_optimizer(config, self.parameters)
        self.average = Average(self.parameters, config.averaging)
        self.best = Best(model)
        self.schedule = make_schedule(config.schedule, config.learning_rate, steps)
        self.rng = rng
        self.epoch = self.step = self.best_epoch = 0
        self.stale = 0  # validations since any member was better
        self.recoveries = 0
        self.first_loss = 0.0
        self.stopped = False
        self.history: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.events: list[str] = []  # since the last row of the history
        self.seconds = 0.0

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.schedule.rate(self.step) * self.config.recovery.factor**self.recoveries

    def descend(self, loss: torch.Tensor) -> None:
        """One step against the gradient of ``loss``."""
        for settings in self.optimizer.param_groups:
            settings["lr"] = self.rate
        self.optimizer.zero_grad(set_to_none=True)
        # for the weights alone: forces leave behind leaves that would otherwise get gradients too
        torch.autograd.backward(loss, inputs=self.parameters)
        self.optimizer.step()
        self.average.update()
        self.step += 1

    def diverged(self, loss: float, nothing: float) -> bool:
        """Whether an epoch of this mean loss has ruined the weights; ``nothing`` is the loss of predicting zero."""
        if self.epoch == 1 and math.isfinite(loss):
            self.first_loss = loss
        return not loss <= self.config.recovery.divergence * max(self.first_loss, nothing)

    def recover(self, loss: float) -> None:
        """Back to every member's best weights, with a fresh optimizer and a lower learning rate.

        Raises
        ------
        TrainingError
            If that has been done often enough.
        """
        config = self.config
        if self.recoveries == config.recovery.attempts:
            after = f" after {self.recoveries} returns to the best epoch at a lower rate" if self.recoveries else ""
            raise TrainingError(
                f"training diverged in epoch {self.epoch} (loss {loss:g}){after}; lower training.learning_rate "
                f"(now {config.learning_rate:g}) or look for labels that are wrong"
            )
        self.recoveries += 1
        self.best.restore()
        self.average.restart()
        self.optimizer.state.clear()
        self.events.append("rolled back")
        self.notes.append(
            f"training diverged in epoch {self.epoch} (loss {loss:g}); back to the best weights so far (epoch "
            f"{self.best_epoch}), learning rate times {config.recovery.factor:g}"
        )

    def judge(self, loss: float, errors: Sequence[Errors], rate: float) -> None:
        """Take note of a validation of the averaged weights, which the model holds now."""
        improved = self.best.update(errors)
        self.best_epoch = self.epoch if improved else self.best_epoch
        self.stale = 0 if improved else self.stale + 1
        mean = {name: float(np.mean([getattr(e, name) for e in errors])) for name in Errors._fields}
        self.schedule.judge(mean["criterion"])
        # once per stagnation: the count goes on until a member is better again
        if self.config.reset_optimizer and self.stale == self.config.reset_optimizer:
            self.optimizer.state.clear()
            self.events.append("optimizer reset")
        self.stopped = self.schedule.ended or 0 < self.config.patience <= self.stale
        if self.stopped:
            self.events.append("stopped")
        row = {
            "epoch": self.epoch,
            "learning_rate": rate,
            "training_loss": loss,
            "validation_loss": mean["loss"],
            "energy_mae_eV": mean["energy_mae"],
            "force_mae_eV_A": mean["force_mae"],
            "event": ", ".join(self.events),
        }
        row |= {f"energy_mae_eV_{m}": e.energy_mae for m, e in enumerate(errors)}
        row |= {f"force_mae_eV_A_{m}": e.force_mae for m, e in enumerate(errors)}
        self.history.append(row)
        self.events = []

    def state_dict(self) -> dict[str, Any]:
        """Everything, in types that torch loads without running code."""
        return {
            "parameters": [p.detach() for p in self.parameters],
            # the stream's integers are wider than a word
            "rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            **{name: getattr(self, name) for name in self.PLAIN},
            **{name: getattr(self, name).state_dict() for name in self.PARTS},
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""
        for parameter, kept in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(kept)
        self.rng.bit_generator.state = json.loads(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        for name in self.PLAIN:
            setattr(self, name, state[name])
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
