"""The learning rate: by step along a curve, or lowered where the validation no longer improves."""

from __future__ import annotations

import math
from typing import Any

from rareal.training.config import Cosine, OneCycle, Plateau, ScheduleConfig

THRESHOLD = 1e-4
"""Relative improvement of the validation loss that counts as one."""


class Schedule:
    """A constant learning rate, and what the others have in common."""

    def __init__(self, peak: float, steps: int) -> None:
        self.peak, self.steps = peak, steps

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.peak

    def judge(self, loss: float) -> None:
        """Take note of a validation loss."""

    @property
    def ended(self) -> bool:
        """Whether the schedule has come to its end."""
        return False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `state_dict`."""


class CosineSchedule(Schedule):
    """Linear warm-up, then cosine decay to the final rate."""

    def __init__(self, config: Cosine, peak: float, steps: int) -> None:
        super().__init__(peak, steps)
        self.config = config

    def rate(self, step: int) -> float:
        warmup = max(1, int(self.config.warmup * self.steps))
        if step < warmup:
            return self.peak * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, self.steps - warmup))
        return self.config.final + (self.peak - self.config.final) * _fall(progress)


class OneCycleSchedule(Schedule):
    """Half a cosine up, half a cosine down (L. N. Smith and N. Topin, arXiv:1708.07120)."""

    def __init__(self, config: OneCycle, peak: float, steps: int) -> None:
        super().__init__(peak, steps)
        self.config = config

    def rate(self, step: int) -> float:
        summit = max(1.0, self.config.rise * (self.steps - 1))
        if step < summit:
            start = self.config.start * self.peak
            return self.peak + (start - self.peak) * _fall(step / summit)
        progress = min(1.0, (step - summit) / max(1.0, self.steps - 1 - summit))
        return self.config.final + (self.peak - self.config.final) * _fall(progress)


class PlateauSchedule(Schedule):
    """Multiply the rate by ``factor`` after ``patience`` validations without improvement, down to ``final``."""

    def __init__(self, config: Plateau, peak: float, steps: int) -> None:
        super().__init__(peak, steps)
        self.config = config
        self.now, self.best, self.waited = peak, math.inf, 0

    def rate(self, step: int) -> float:
        return self.now

    def judge(self, loss: float) -> None:
        if loss < self.best * (1.0 - THRESHOLD):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.now, self.waited = max(self.config.final, self.config.factor * self.now), 0

    @property
    def ended(self) -> bool:
        return self.now <= self.config.final

    def state_dict(self) -> dict[str, Any]:
        return {"now": self.now, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.now, self.best, self.waited = state["now"], state["best"], state["waited"]


def _fall(progress: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def make_schedule(config: ScheduleConfig, peak: float, steps: int) -> Schedule:
    """The schedule that ``config`` names, for a training of so many ``steps``."""
    if isinstance(config, Cosine):
        return CosineSchedule(config, peak, steps)
    if isinstance(config, OneCycle):
        return OneCycleSchedule(config, peak, steps)
    if isinstance(config, Plateau):
        return PlateauSchedule(config, peak, steps)
    return Schedule(peak, steps)
