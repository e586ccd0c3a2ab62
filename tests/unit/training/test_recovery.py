"""Training that diverges, and training that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rareal.errors import TrainingError
from rareal.files import read_csv, read_json
from rareal.records import LabeledFrame
from rareal.testing.springs import PairCommittee, PairFeatures, Springs
from rareal.training.config import Config
from rareal.training.fit import Fit, fit, train_epoch
from rareal.training.groups import groups_of
from rareal.training.losses import make_loss
from rareal.training.state import State
from rareal.training.trainer import CommitteeTrainer

SHIFT = {8: -100.0, 1: -20.0}
MASK = np.random.default_rng(1).random((2, 24)) < 0.75


class Fragile(PairCommittee):
    """Its predictions are multiplied by ``factor`` in the given calls of training, counted from 1."""

    bad: tuple[int, ...] = ()
    factor = float("nan")
    calls = 0

    def forward(self, batch: PairFeatures) -> tuple[Tensor, Tensor]:
        energies, forces = super().forward(batch)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls in self.bad:
                return energies * self.factor, forces * self.factor
        return energies, forces


def fragile(bad: tuple[int, ...], factor: float = float("nan"), **settings: Any) -> tuple[Fit, Fragile]:
    """Eight epochs of three mini-batches each, validated after every second one."""
    model = Fragile(("O", "H"), [1, 2])
    model.bad, model.factor = bad, factor
    groups = groups_of(model, Springs().shaken(24), MASK, SHIFT)
    values = {"members": 2, "epochs": 8, "batch_size": 8, "validate_every": 2, "schedule": "constant", **settings}
    return fit(model, groups, Config.model_validate(values), np.random.default_rng(0)), model


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e3])
def test_divergence_rolls_back_to_the_best_epoch_lowers_the_rate_and_says_so(factor: float) -> None:
    outcome, model = fragile((14,), factor)  # in the fifth epoch
    curve = {row["epoch"]: row for row in outcome.history}
    assert list(curve) == [2, 4, 5, 6, 8]
    assert [row["event"] for row in outcome.history] == ["", "", "rolled back", "", ""]
    # what was rolled back to is the best so far, and training went on from there
    assert curve[5]["validation_loss"] == pytest.approx(min(curve[2]["validation_loss"], curve[4]["validation_loss"]))
    assert curve[8]["validation_loss"] < curve[5]["validation_loss"]
    assert curve[6]["learning_rate"] == pytest.approx(0.5 * curve[4]["learning_rate"])
    (note,) = outcome.notes
    assert "diverged in epoch 5" in note
    assert "epoch 4" in note
    assert all(p.isfinite().all() for p in model.parameters())


def test_divergence_in_the_last_epoch_leaves_the_best_weights() -> None:
    outcome, model = fragile((22,))
    assert outcome.history[-1]["event"] == "rolled back"
    best = [min(row[f"force_mae_eV_A_{m}"] for row in outcome.history) for m in range(2)]
    assert [e.force_mae for e in outcome.members] == pytest.approx(best, rel=0.2)
    assert all(p.isfinite().all() for p in model.parameters())


def test_divergence_before_any_validation_goes_back_to_the_start() -> None:
    outcome, _ = fragile((2,))
    assert "(epoch 0)" in outcome.notes[0]
    assert outcome.history[-1]["validation_loss"] < outcome.history[0]["validation_loss"]


def test_recovery_ends_after_so_many_attempts() -> None:
    with pytest.raises(TrainingError, match=r"training diverged in epoch 4 .* after 3 returns .* lower training"):
        fragile(tuple(range(2, 99)))
    outcome, _ = fragile(tuple(range(2, 8)), recovery={"attempts": 3})
    assert len(outcome.notes) == 3
    with pytest.raises(TrainingError, match=r"training diverged in epoch 1 \(loss nan\); lower"):
        fragile((1,), recovery={"attempts": 0})


def test_a_rate_that_is_too_high_is_an_error_in_the_end() -> None:
    model = PairCommittee(("O", "H"), [1, 2])
    groups = groups_of(model, Springs().shaken(24), MASK, SHIFT)
    with pytest.raises(TrainingError, match="training diverged"):
        fit(model, groups, Config(members=2, epochs=20, learning_rate=1e30), np.random.default_rng(0))


class Killed(Exception):
    """What the test kills the training with."""


def train(
    folder: Path, stop: int = 0, data: list[LabeledFrame] | None = None, **settings: Any
) -> tuple[dict[str, Tensor], list[int]]:
    """Train in ``folder``, killed after so many epochs if asked to; the weights, and the epochs that were done."""
    folder.mkdir(exist_ok=True)
    values = {
        "members": 2, "epochs": 9, "batch_size": 8, "validate_every": 2, "threads": 1, "checkpoint_every": 0,
        "reset_optimizer": 2, **settings,
    }  # fmt: skip
    done: list[int] = []

    def progress(epoch: int, total: int) -> None:
        done.append(epoch)
        if epoch == stop:
            raise Killed

    write = lambda *args, **kwargs: None  # noqa: E731
    trainer = CommitteeTrainer(Config.model_validate(values), ("O", "H"), PairCommittee, write, "float32")
    frames = Springs().shaken(24) if data is None else data
    if stop:
        with pytest.raises(Killed):
            trainer.train(frames, MASK, None, folder, [1, 2, 3], "hash", progress)
        return {}, done
    trainer.train(frames, MASK, None, folder, [1, 2, 3], "hash", progress)
    return torch.load(folder / "checkpoint.pt", weights_only=True)["weights"], done


@pytest.mark.parametrize("optimizer", ["muon", "amsgrad"])
@pytest.mark.parametrize(
    "settings",
    [
        {"averaging": 0.5},
        # rates at which some validations are worse than the one before
        {"averaging": 0.0, "learning_rate": 1.0, "validate_every": 1, "schedule": {"kind": "plateau", "patience": 0}},
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path, settings: dict[str, Any], optimizer: str
) -> None:
    settings = {**settings, "optimizer": optimizer}
    undisturbed, _ = train(tmp_path / "undisturbed", **settings)
    rates = {row["learning_rate"] for row in read_csv(tmp_path / "undisturbed" / "learning_curve.csv")}
    assert len(rates) > 2
    for stop in (3, 6):  # killed twice
        train(tmp_path / "killed", stop, **settings)
        assert (tmp_path / "killed" / "progress.pt").exists()
    resumed, done = train(tmp_path / "killed", **settings)
    assert done == [7, 8, 9]
    assert undisturbed.keys() == resumed.keys()
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    assert not (tmp_path / "killed" / "progress.pt").exists()
    for read, name in ((read_csv, "learning_curve.csv"), (read_json, "training.json")):
        first, second = (read(tmp_path / run / name) for run in ("undisturbed", "killed"))
        if name == "training.json":
            first.pop("seconds"), second.pop("seconds")
        assert first == second


def test_all_that_changes_in_a_training_is_kept() -> None:
    model = PairCommittee(("O", "H"), [1, 2])
    (group,) = groups_of(model, Springs().shaken(24), MASK, SHIFT)
    config = Config(members=2, batch_size=8)
    states = [State(model, config, 9, np.random.default_rng(0)) for _ in range(2)]
    train_epoch(model, [group], make_loss(config.loss), states[0])
    # what is a plain value: counters, flags and records
    plain = {name for name, value in vars(states[0]).items() if isinstance(value, int | float | list)} - {"parameters"}
    for number, name in enumerate(sorted(plain)):
        kind = type(getattr(states[0], name))
        setattr(states[0], name, [{"epoch": number}] if kind is list else kind(number + 1))
    states[1].load_state_dict(states[0].state_dict())
    assert len(plain) >= 10
    for name in plain:
        assert getattr(states[1], name) == getattr(states[0], name), name
    assert states[1].rng.random() == states[0].rng.random()


def test_the_state_of_another_training_is_ignored(tmp_path: Path) -> None:
    changed = Springs().shaken(24)
    changed[5] = LabeledFrame(changed[5].frame, changed[5].label, weight=0.5)
    for name, settings in (("rate", {"learning_rate": 1e-3}), ("data", {"data": changed})):
        train(tmp_path / name, stop=4)
        _, done = train(tmp_path / name, **settings)  # type: ignore[arg-type]
        assert done[0] == 1, name


def test_a_torn_file_is_ignored_and_the_litter_removed(tmp_path: Path) -> None:
    train(tmp_path, stop=4)
    kept = (tmp_path / "progress.pt").read_bytes()
    (tmp_path / "progress.pt").write_bytes(kept[: len(kept) // 2])
    (tmp_path / ".progress.pt.123.tmp").write_bytes(b"half")
    _, done = train(tmp_path)
    assert done[0] == 1
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_learning_curve_grows_while_training_goes_on(tmp_path: Path) -> None:
    train(tmp_path, stop=5)
    assert [row["epoch"] for row in read_csv(tmp_path / "learning_curve.csv")] == [2, 4]


def test_state_is_written_only_every_so_often(tmp_path: Path) -> None:
    train(tmp_path, stop=8, checkpoint_every="1 hour")
    assert not (tmp_path / "progress.pt").exists()


def test_a_divergence_reaches_the_summary_of_the_training(tmp_path: Path) -> None:
    def build(elements: Any, seeds: Any) -> Fragile:
        model = Fragile(elements, seeds)
        model.bad = (5,)
        return model

    config = Config(members=2, epochs=4, batch_size=8, validate_every=1, threads=1)
    trainer = CommitteeTrainer(config, ("O", "H"), build, lambda *args, **kwargs: None, "float32")
    trained = trainer.train(Springs().shaken(24), MASK, None, tmp_path, [1, 2, 3], "hash")
    assert "diverged in epoch 2" in trained.notes[0]
    assert trainer.load(tmp_path).notes == trained.notes
    assert [row["event"] for row in read_csv(tmp_path / "learning_curve.csv")] == [None, "rolled back", None, None]
