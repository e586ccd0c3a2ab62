"""Training round after round: epochs, warm start, optimizer, stagnation, early stopping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rareal.files import read_csv, read_json
from rareal.testing.springs import PairCommittee, Springs
from rareal.training.config import Config
from rareal.training.fit import Fit, fit
from rareal.training.groups import groups_of
from rareal.training.trainer import CommitteeTrainer

SHIFT = {8: -100.0, 1: -20.0}
MASK = np.random.default_rng(1).random((2, 24)) < 0.75


def trainer(**settings: Any) -> CommitteeTrainer:
    config = Config.model_validate({"members": 2, "epochs": 4, "batch_size": 8, "threads": 1, **settings})
    return CommitteeTrainer(config, ("O", "H"), PairCommittee, lambda *args, **kwargs: None, "float32")


def rounds(folder: Path, count: int, **settings: Any) -> list[Path]:
    """So many rounds of training on the same data, each from the one before."""
    folders: list[Path] = []
    for number in range(count):
        place = folder / f"round-{number}"
        place.mkdir(parents=True)
        previous = folders[-1] if folders else None
        trainer(**settings).train(Springs().shaken(24), MASK, previous, place, [1, 2, 3 + number], "hash")
        folders.append(place)
    return folders


def weights(folder: Path) -> torch.Tensor:
    kept = torch.load(folder / "checkpoint.pt", weights_only=True)["weights"]
    return torch.cat([w.flatten() for w in kept.values()])


def trained(**settings: Any) -> Fit:
    """A short training by itself."""
    model = PairCommittee(("O", "H"), [1, 2])
    groups = groups_of(model, Springs().shaken(24), MASK, SHIFT)
    values = {"members": 2, "epochs": 12, "batch_size": 8, "validate_every": 1, "averaging": 0.0, **settings}
    return fit(model, groups, Config.model_validate(values), np.random.default_rng(0))


def test_later_rounds_have_their_own_number_of_epochs(tmp_path: Path) -> None:
    first, second, third = rounds(tmp_path, 3, epochs=4, round_epochs=2)
    assert [read_json(f / "training.json")["epochs"] for f in (first, second, third)] == [4, 2, 2]
    assert [read_csv(f / "learning_curve.csv")[-1]["epoch"] for f in (first, second)] == [4, 2]


def test_from_scratch_every_round_begins_with_the_seeds_weights(tmp_path: Path) -> None:
    """With a rate of nothing the weights show where a round began."""
    still = {"epochs": 1, "learning_rate": 1e-20, "weight_decay": 0.0, "averaging": 0.0, "schedule": "constant"}
    (untouched,) = rounds(tmp_path / "untouched", 1, **still)
    moved = rounds(tmp_path / "moved", 1, epochs=3)[0]
    for warm, start in ((True, moved), (False, untouched)):
        place = tmp_path / f"warm-{warm}"
        place.mkdir()
        trainer(**still, warm_start=warm).train(Springs().shaken(24), MASK, moved, place, [1, 2, 9], "hash")
        assert torch.equal(weights(place), weights(start))
    assert not torch.equal(weights(moved), weights(untouched))


def steps_of(path: Path) -> float:
    """How many steps the first bias has seen."""
    states = torch.load(path, weights_only=True)["state"].values()
    return next(float(state[key]) for state in states for key in ("step", "steps") if key in state)


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "amsgrad"])
def test_the_optimizer_is_kept_between_rounds_if_asked_to(tmp_path: Path, optimizer: str) -> None:
    _, fresh = rounds(tmp_path / "fresh", 2, optimizer=optimizer)
    first, kept = rounds(tmp_path / "kept", 2, optimizer=optimizer, keep_optimizer=True)
    assert not (fresh / "optimizer.pt").exists()
    assert torch.equal(weights(first), weights(tmp_path / "fresh" / "round-0"))
    assert not torch.equal(weights(kept), weights(fresh))
    steps = [steps_of(folder / "optimizer.pt") for folder in (first, kept)]
    assert steps[1] == 2 * steps[0] > 0


def test_every_optimizer_learns() -> None:
    for optimizer in ("muon", "adamw", "amsgrad"):
        outcome = trained(optimizer=optimizer, learning_rate=2e-2, epochs=30)
        losses = [row["validation_loss"] for row in outcome.history]
        assert losses[-1] < 0.6 * losses[0], optimizer


def test_adamw_and_amsgrad_differ() -> None:
    """AMSGrad divides by the largest second moment so far, so that it steps less once gradients have fallen."""
    adamw, amsgrad = (trained(optimizer=o, learning_rate=1e-2).history[-1] for o in ("adamw", "amsgrad"))
    assert adamw["training_loss"] != amsgrad["training_loss"]


def test_training_stops_when_no_member_improves_any_more() -> None:
    stuck: dict[str, Any] = {"learning_rate": 1e-20, "schedule": "constant", "weight_decay": 0.0}
    outcome = trained(**stuck, patience=3)
    assert outcome.epochs == 4  # the first validation is the best
    assert [row["event"] for row in outcome.history] == ["", "", "", "stopped"]
    assert trained(**stuck).epochs == 12


def test_a_member_that_still_improves_keeps_the_training_going() -> None:
    assert trained(patience=1, epochs=8, learning_rate=1e-4, schedule="constant").epochs == 8


def test_plateau_ends_the_training_at_its_smallest_rate() -> None:
    plateau = {"kind": "plateau", "factor": 0.1, "patience": 1, "final": 1e-22}
    outcome = trained(learning_rate=1e-20, schedule=plateau, weight_decay=0.0)
    rates = [row["learning_rate"] for row in outcome.history]
    assert rates == pytest.approx([1e-20] * 3 + [1e-21] * 2, rel=1e-6)
    assert outcome.history[-1]["event"] == "stopped"


def forgetful(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Counts after how many validations the optimizer's state was empty."""
    from rareal.training.state import State

    empty: list[int] = []
    judge = State.judge

    def watched(self: State, *args: Any) -> None:
        judge(self, *args)
        if not self.optimizer.state:
            empty.append(self.epoch)

    monkeypatch.setattr(State, "judge", watched)
    return lambda: empty


def test_stagnation_resets_the_optimizer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared = forgetful(monkeypatch)
    outcome = trained(learning_rate=1e-20, schedule="constant", weight_decay=0.0, reset_optimizer=3)
    assert [row["epoch"] for row in outcome.history if row["event"] == "optimizer reset"] == [4]
    assert cleared() == [4]
    assert not any(row["event"] for row in trained(learning_rate=1e-20, schedule="constant").history)
