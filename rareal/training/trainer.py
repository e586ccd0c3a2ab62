"""A round's training from beginning to end: model, warm start, fit, choice of the best member, model file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from rareal.errors import TrainingError
from rareal.files import write_csv, write_json, write_npz
from rareal.protocols import Model, Progress, Repulsion
from rareal.records import Array, LabeledFrame, Trained
from rareal.training import blind
from rareal.training.checkpoint import Checkpoint
from rareal.training.config import Config
from rareal.training.fit import Fit, fit
from rareal.training.groups import groups_of, without_repulsion
from rareal.training.outcome import MODEL, SPLIT, SUMMARY, load
from rareal.training.outliers import describe, frame_weights, self_energies
from rareal.training.validation import whole_set_errors

CHECKPOINT, CURVE = "checkpoint.pt", "learning_curve.csv"
OPTIMIZER = "optimizer.pt"
UNFINISHED = "progress.pt"

BuildModel = Callable[[Sequence[str], Sequence[int]], Model]
"""(elements, one seed per member) -> an untrained committee."""

WriteModel = Callable[..., Any]
"""`rareal.export.modelfile.write`."""


class CommitteeTrainer:
    """Trains committees of one model kind; knows models only through what it is given.

    Parameters
    ----------
    repulsion : a fixed potential that the committee comes on top of, or None.
    """

    def __init__(
        self,
        config: Config,
        elements: Sequence[str],
        build: BuildModel,
        write: WriteModel,
        dtype: str,
        repulsion: Repulsion | None = None,
    ) -> None:
        self.config = config
        self.elements = tuple(elements)
        self.build = build
        self.write = write
        self.dtype = dtype
        self.repulsion = repulsion

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

        A training that was killed goes on where it was if everything that determines it is the same.

        Parameters
        ----------
        previous : folder of the last round's training to start from, or None.
        seeds : one per member for the initial weights, and one more for the order of the mini-batches.

        Raises
        ------
        TrainingError
            If a label is not finite, a member has nothing to learn from or to validate on, there is no such device,
            or training diverges.
        """
        config = self.config
        _check(data, mask)
        device = choose_device(config.device)
        for torn in folder.glob(".*.tmp"):  # of a training that was killed while it wrote
            torn.unlink()
        labels = without_repulsion(data, self.repulsion)
        weights = frame_weights(config.outliers, labels, self.elements)
        with threads(config.threads or os.cpu_count() or 1), reproducible(device), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds[-1])
            model = self.build(self.elements, seeds[:-1])
            if self.repulsion is not None:
                self.repulsion.check_cutoff(self.elements, model.cutoff)
            energies = self._start(model, labels, weights, previous)
            key = _key(config, data, weights, mask, seeds, energies, model, content_hash)
            shift = {atomic_numbers[e]: float(value) for e, value in zip(self.elements, energies, strict=True)}
            groups = groups_of(model, labels, mask, shift, weights, int(config.memory))
            model.to(device)
            groups = [group.to(device) for group in groups]
            checkpoint = Checkpoint(folder / UNFINISHED, key, config.checkpoint_every)
            outcome = fit(
                model,
                groups,
                config,
                np.random.default_rng(seeds[-1]),
                epochs=config.epochs if previous is None else config.round_epochs or config.epochs,
                optimizer=self._kept_optimizer(previous),
                checkpoint=checkpoint,
                watch=lambda history: write_csv(folder / CURVE, history),
                progress=progress,
            )
            energy_mae, force_mae = whole_set_errors(model, groups)
            trained = Trained(
                folder / MODEL,
                mask,
                int(np.argmin(force_mae)),
                tuple(energy_mae),
                tuple(force_mae),
                (*describe(data, weights), *outcome.notes, *blind.describe(*blind.learnt_errors(model, groups))),
            )
            model.to(torch.device("cpu"))
            torch.save(
                {"weights": model.state_dict(), "self_energies": torch.from_numpy(energies)}, folder / CHECKPOINT
            )
            if config.keep_optimizer:
                torch.save(outcome.optimizer, folder / OPTIMIZER)
            self._release(model, trained, data, energies, content_hash)
        softened = int(np.sum(weights < [f.weight for f in data]))
        _record(folder, trained, outcome, softened=softened, device=str(device))
        checkpoint.remove()
        return trained

    def load(self, folder: Path) -> Trained:
        """What a finished training left in ``folder``."""
        return load(folder)

    def _start(
        self, model: Model, data: Sequence[LabeledFrame], weights: Array, previous: Path | None
    ) -> NDArray[np.float64]:
        """Self-energies [eV]: fitted in the first round, then kept, so that the networks' target stays the same."""
        if previous is None:
            return self_energies(data, self.elements, weights)
        checkpoint = torch.load(previous / CHECKPOINT, weights_only=True)
        if self.config.warm_start:
            model.load_state_dict(checkpoint["weights"])
        kept: NDArray[np.float64] = checkpoint["self_energies"].numpy()
        return kept

    def _kept_optimizer(self, previous: Path | None) -> dict[str, Any] | None:
        """The optimizer's state at the end of the round before, None where it starts anew."""
        if previous is None or not self.config.keep_optimizer:
            return None
        state: dict[str, Any] = torch.load(previous / OPTIMIZER, weights_only=True, map_location="cpu")
        return state

    def _release(
        self, model: Model, trained: Trained, data: Sequence[LabeledFrame], energies: Array, content_hash: str
    ) -> None:
        """Write the model file, checked on some frames of the first one's composition."""
        first = data[0].frame
        spread = (f.frame for f in data[:: max(1, len(data) // 4)])
        below = {} if self.repulsion is None else {"repulsion": self.repulsion}
        self.write(
            model,
            trained.model,
            energies.tolist(),
            dtype=self.dtype,
            dataset_hash=content_hash,
            best_member=trained.best,
            check=[frame for frame in spread if np.array_equal(frame.numbers, first.numbers)],
            **below,
        )


def _check(data: Sequence[LabeledFrame], mask: NDArray[np.bool_]) -> None:
    for k, labeled in enumerate(data):
        if not (np.isfinite(labeled.label.energy) and np.isfinite(labeled.label.forces).all()):
            raise TrainingError(
                f"label {k} (round {labeled.frame.round}, {labeled.frame.origin}) is not finite; remove it"
            )
    counts = np.array([f.weight > 0 for f in data])
    for member, row in enumerate(mask):
        for frames, purpose in ((row, "learn from"), (~row, "validate on")):
            if not (frames & counts).any():
                raise TrainingError(f"member {member} has no frame to {purpose}; change the split, or add frames")


def _key(
    config: Config,
    data: Sequence[LabeledFrame],
    weights: Array,
    mask: NDArray[np.bool_],
    seeds: Sequence[int],
    energies: Array,
    model: Model,
    content_hash: str,
) -> str:
    """Hash of everything that determines a training's result."""
    digest = hashlib.sha256(f"{config.model_dump_json()} {list(seeds)} {content_hash} {torch.__version__}".encode())
    for labeled in data:
        frame, label = labeled.frame, labeled.label
        for array in (frame.numbers, frame.positions, frame.cell, np.array(frame.pbc), label.forces, label.energy):
            digest.update(np.ascontiguousarray(array).tobytes())
    for array in (weights, mask, energies):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, tensor in model.state_dict().items():  # with a warm start, of the round before
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def choose_device(name: str) -> torch.device:
    """The device that ``training.device`` names.

    Raises
    ------
    TrainingError
        If torch sees no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainingError(
            f"training.device: {name}: torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here; "
            "use auto or cpu, or install a torch with CUDA"
        )
    return device


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Let torch add up in the same order every time, so that a seed gives the same weights, for a while.

    Otherwise gradients of what is indexed (of some models; none of ours on a CPU) are added by several threads in the
    order in which they come. Where torch knows no such way, it warns.
    """
    if device.type == "cuda":  # read by cuBLAS when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def _record(folder: Path, trained: Trained, outcome: Fit, **more: Any) -> None:
    """The split and the summary, from which `CommitteeTrainer.load` knows the training again."""
    write_npz(folder / SPLIT, train=trained.mask)
    write_json(
        folder / SUMMARY,
        {
            "best": trained.best,
            "energy_mae_eV": trained.energy_mae,
            "force_mae_eV_A": trained.force_mae,
            "validation": [errors._asdict() for errors in outcome.members],
            "training_overlap": trained.training_overlap,
            "notes": trained.notes,
            "epochs": outcome.epochs,
            "seconds": outcome.seconds,
            **more,
        },
    )
