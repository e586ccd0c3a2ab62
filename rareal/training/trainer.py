"""A round's training from beginning to end: model, warm start, fit, choice of the best member, model file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from rareal.errors import TrainingError
from rareal.protocols import Progress
from rareal.records import LabeledFrame, Trained
from rareal.training.committee import Config, Fit, Group, fit, groups_of, self_energies

MODEL, CHECKPOINT, SUMMARY, CURVE, SPLIT = (
    "model.pt", "checkpoint.pt", "training.json", "learning_curve.csv", "split.npz",
)  # fmt: skip

BuildModel = Callable[[Sequence[str], Sequence[int]], Any]
"""(elements, one seed per member) -> an untrained `TrainableModel`."""

WriteModel = Callable[..., Any]
"""`rareal.export.modelfile.write`."""


class CommitteeTrainer:
    """Trains committees of one model kind; knows models only through what it is given."""

    def __init__(
        self, config: Config, elements: Sequence[str], build: BuildModel, write: WriteModel, dtype: str
    ) -> None:
        self.config = config
        self.elements = tuple(elements)
        self.build = build
        self.write = write
        self.dtype = dtype

    def train(
        self,
        data: Sequence[LabeledFrame],
        mask: NDArray[np.bool_],
        previous: Path | None,
        folder: Path,
        seeds: Sequence[int],
        content_hash: str,
        progress: Progress | None = None,
    ) -> Trained:
        """Train on ``data`` with the split ``mask`` [M, F] and leave model, checkpoint and curve in ``folder``.

        Parameters
        ----------
        previous : folder of the last round's training to start from, or None.
        seeds : one per member for the initial weights, and one more for the order of the mini-batches.

        Raises
        ------
        TrainingError
            If a label is not finite, or training diverges.
        """
        self._check(data)
        with threads(self.config.threads or os.cpu_count() or 1):
            model = self.build(self.elements, seeds[:-1])
            energies = self._start(model, data, previous)
            shift = {atomic_numbers[e]: float(value) for e, value in zip(self.elements, energies, strict=True)}
            groups = groups_of(model, data, mask, shift)
            outcome = fit(model, groups, self.config, np.random.default_rng(seeds[-1]), progress)
            torch.save(
                {"weights": model.state_dict(), "self_energies": torch.from_numpy(energies)}, folder / CHECKPOINT
            )
            first = data[0].frame
            spread = (f.frame for f in data[:: max(1, len(data) // 4)])
            check = [frame for frame in spread if np.array_equal(frame.numbers, first.numbers)]
            summary = self._summarise(model, groups, outcome, mask, folder)
            self.write(
                model,
                folder / MODEL,
                energies.tolist(),
                dtype=self.dtype,
                dataset_hash=content_hash,
                best_member=summary["best"],
                check=check,
            )
            return self.load(folder)

    def load(self, folder: Path) -> Trained:
        """What a finished training left in ``folder``."""
        summary = json.loads((folder / SUMMARY).read_text())
        with np.load(folder / SPLIT) as archive:
            mask = archive["train"]
        return Trained(
            folder / MODEL, mask, summary["best"], tuple(summary["energy_mae_eV"]), tuple(summary["force_mae_eV_A"])
        )

    def _check(self, data: Sequence[LabeledFrame]) -> None:
        for k, labeled in enumerate(data):
            if not (np.isfinite(labeled.label.energy) and np.isfinite(labeled.label.forces).all()):
                raise TrainingError(
                    f"label {k} (round {labeled.frame.round}, {labeled.frame.origin}) is not finite; remove it"
                )

    def _start(self, model: Any, data: Sequence[LabeledFrame], previous: Path | None) -> NDArray[np.float64]:
        """Self-energies [eV]: fitted in the first round, then kept, so that the networks' target stays the same."""
        if previous is None:
            return self_energies(data, self.elements)
        checkpoint = torch.load(previous / CHECKPOINT, weights_only=True)
        if self.config.warm_start:
            model.load_state_dict(checkpoint["weights"])
        kept: NDArray[np.float64] = checkpoint["self_energies"].numpy()
        return kept

    def _summarise(
        self, model: Any, groups: Sequence[Group], outcome: Fit, mask: NDArray[np.bool_], folder: Path
    ) -> dict[str, Any]:
        energy_mae, force_mae = whole_set_errors(model, groups)
        summary = {
            "best": int(np.argmin(force_mae)),
            "energy_mae_eV": energy_mae,
            "force_mae_eV_A": force_mae,
            "validation": [asdict(e) for e in outcome.members],
            "seconds": outcome.seconds,
        }
        (folder / SUMMARY).write_text(json.dumps(summary, indent=1))
        np.savez_compressed(folder / SPLIT, train=mask)
        with open(folder / CURVE, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(outcome.history[0]))
            writer.writeheader()
            writer.writerows(outcome.history)
        return summary


@torch.no_grad()
def whole_set_errors(model: Any, groups: Sequence[Group]) -> tuple[list[float], list[float]]:
    """MAE of every member over training and validation frames together: energy [eV], force components [eV/Å]."""
    energy_sum, force_sum, frames = torch.zeros(model.members), torch.zeros(model.members), 0
    for group in groups:
        for index in torch.arange(len(group.energies)).split(256):
            energy, forces = model(group.features.batch(index))
            energy_sum += (energy - group.energies[index]).abs().sum(1)
            force_sum += (forces - group.forces[index]).abs().mean((2, 3)).sum(1)
            frames += len(index)
    return (energy_sum / frames).tolist(), (force_sum / frames).tolist()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
