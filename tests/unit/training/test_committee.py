"""Training of a committee: it learns, members stay apart, the best epoch is kept, the same seed gives the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rareal.errors import TrainingError
from rareal.export.modelfile import Committee, write
from rareal.models import ani
from rareal.records import Label, LabeledFrame
from rareal.testing.springs import PairCommittee, Springs
from rareal.training.config import Config
from rareal.training.fit import fit
from rareal.training.groups import groups_of
from rareal.training.losses import make_loss
from rareal.training.trainer import CommitteeTrainer
from rareal.training.validation import validate

shaken = Springs().shaken


def trainer(**settings: object) -> CommitteeTrainer:
    config = Config.model_validate({"members": 2, "epochs": 30, "batch_size": 8, "threads": 1, **settings})
    small = ani.Config(hidden={"O": (24, 16), "H": (24, 16)})
    return CommitteeTrainer(config, ("O", "H"), lambda e, s: ani.build(small, e, s), write, "float32")


def masks(count: int, members: int = 2) -> np.ndarray:
    return np.random.default_rng(1).random((members, count)) < 0.8


def test_a_training_of_seconds_reaches_two_millielectronvolts_and_twenty_per_angstrom(tmp_path: Path) -> None:
    """80 labels of a molecule whose energies vary by 130 meV and forces by 1.5 eV/Å; frames it has not seen."""
    trainer(epochs=60).train(shaken(80), masks(80), None, tmp_path, [1, 2, 3], "hash")
    committee = Committee.load(tmp_path / "model.pt")
    test = shaken(20, seed=9)
    energies, forces = zip(*(committee.energies_forces(f.frame) for f in test), strict=True)
    energy_error = np.array(energies).mean(1) - [f.label.energy for f in test]
    force_error = np.array(forces).mean(1) - [f.label.forces for f in test]
    assert np.abs(energy_error).mean() < 0.002
    assert np.abs(force_error).mean() < 0.020


def test_compositions_are_learnt_together_and_an_element_that_one_lacks_is_left_alone(tmp_path: Path) -> None:
    water, hydrogen = shaken(60), Springs((1, 1), Springs().rest[:2] * 0.8, -30.0).shaken(40)
    data = [frame for pair in zip(water, hydrogen, strict=False) for frame in pair] + water[40:]
    trained = trainer(epochs=40).train(data, masks(100), None, tmp_path, [1, 2, 3], "hash")
    assert max(trained.energy_mae) < 0.01
    assert max(trained.force_mae) < 0.1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    weights = []
    for name, seeds in (("a", [1, 2, 3]), ("b", [1, 2, 3]), ("c", [4, 5, 3])):
        (tmp_path / name).mkdir()
        trainer(epochs=3).train(shaken(20), masks(20), None, tmp_path / name, seeds, "hash")
        weights.append(torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["weights"])
    first, again, other = (w["networks.0.weights.0"] for w in weights)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


class Additions(TorchDispatchMode):
    """Notes operations that several threads would do in the order in which they come: `x[i] += y`, and d/dx of x[i]."""

    def __init__(self) -> None:
        super().__init__()
        self.unordered = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        accumulates = any(a is True for a in (*args, *(kwargs or {}).values()))
        if "index_put" in str(function) and accumulates and not torch.are_deterministic_algorithms_enabled():
            self.unordered += 1
        return function(*args, **(kwargs or {}))


class Indexing(PairCommittee):
    """A model whose gradients are added by index, as many people's models do."""

    def __init__(self, elements: Any, seeds: Any) -> None:
        super().__init__(elements, seeds)
        self.offset = torch.nn.Parameter(torch.zeros(len(seeds)))

    def forward(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        energies, forces = super().forward(batch)
        member = torch.arange(self.members).repeat_interleave(energies.shape[1])
        return energies + self.offset[member].view_as(energies), forces


def test_nothing_is_added_in_an_order_that_depends_on_threads(tmp_path: Path) -> None:
    """Neither in a training, of a model that indexes either, nor in ANI's features outside one."""
    table = torch.zeros(3, requires_grad=True)
    with Additions() as seen:
        table[torch.tensor([0, 1, 1])].sum().backward()
    assert seen.unordered, "the test no longer sees what it looks for"
    with Additions() as seen:
        trainer().build(("O", "H"), [1, 2]).features([shaken(1)[0].frame])
        config = Config.model_validate({"members": 2, "epochs": 1, "batch_size": 8, "threads": 2})
        indexing = CommitteeTrainer(config, ("O", "H"), Indexing, lambda *_, **__: None, "float32")
        indexing.train(shaken(20), masks(20), None, tmp_path, [1, 2, 3], "hash")
    assert not seen.unordered
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_member_never_learns_from_its_validation_frames(tmp_path: Path) -> None:
    """Spoilt labels outside a member's training set leave its weights as they were."""
    data = shaken(24)
    mask = masks(24)
    spoilt = [
        f if mask[0, k] else LabeledFrame(f.frame, Label(f.label.energy + 50.0, -f.label.forces, "springs"))
        for k, f in enumerate(data)
    ]
    found = []
    for frames in (data, spoilt):
        model = trainer().build(("O", "H"), [1, 2])
        groups = groups_of(model, frames, mask, {8: -100.0, 1: -20.0})
        config = Config(members=2, epochs=1, validate_every=1, batch_size=8)
        fit(model, groups, config, np.random.default_rng(0))
        found.append(model.networks[0].weights[0].detach().clone())
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][1], found[1][1])


def test_warm_start_continues_and_keeps_the_self_energies(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    data = shaken(40)
    trained = trainer(epochs=30).train(data, masks(40), None, first, [1, 2, 3], "hash")
    more = data + shaken(20, seed=5)
    again = trainer(epochs=1).train(more, masks(60), first, second, [1, 2, 4], "hash")
    assert max(again.force_mae) < 2 * max(trained.force_mae)
    assert (
        Committee.load(first / "model.pt").metadata.self_energies
        == Committee.load(second / "model.pt").metadata.self_energies
    )


def test_the_best_member_has_the_lowest_force_error(tmp_path: Path) -> None:
    trained = trainer(epochs=3, members=3).train(shaken(30), masks(30, 3), None, tmp_path, [1, 2, 3, 4], "hash")
    assert trained.best == int(np.argmin(trained.force_mae))
    assert Committee.load(tmp_path / "model.pt").metadata.best_member == trained.best
    assert (tmp_path / "learning_curve.csv").read_text().startswith("epoch,")


def test_the_best_epoch_is_kept() -> None:
    """With a rate that destroys the model at the end, the weights of the best validation come back."""
    data = shaken(40)
    model = trainer().build(("O", "H"), [1, 2])
    groups = groups_of(model, data, masks(40), {8: -100.0, 1: -20.0})
    config = Config(members=2, epochs=20, batch_size=8, validate_every=1, averaging=0.0, learning_rate=0.03)
    outcome = fit(model, groups, config, np.random.default_rng(0))
    best = min(row["validation_loss"] for row in outcome.history)
    assert np.mean([e.loss for e in outcome.members]) <= best * (1 + 1e-6)


def test_one_frame_does_not_choose_the_epoch() -> None:
    """Of a broken bond, whose label no member can learn: the epoch is chosen by the other frames."""
    data, mask = shaken(60), masks(60, 3)
    mask[:, 7] = False
    broken = data[7]
    data[7] = LabeledFrame(broken.frame, Label(broken.label.energy, 40.0 * broken.label.forces, "springs"))
    chosen = {}
    for best in ("root_loss", "loss"):
        model = trainer(members=3).build(("O", "H"), [1, 2, 3])
        groups = groups_of(model, data, mask, {8: -100.0, 1: -20.0})
        config = Config(members=3, epochs=40, batch_size=8, validate_every=1, best=best)
        outcome = fit(model, groups, config, np.random.default_rng(0))
        chosen[best] = [e.energy_mae for e in outcome.members]
        last = [outcome.history[-1][f"energy_mae_eV_{m}"] for m in range(3)]
    assert max(np.array(chosen["root_loss"]) / last) < 1.3
    assert max(np.array(chosen["loss"]) / last) > 2, "the test no longer sees what it looks for"


def test_members_of_separate_modules_keep_their_own_best_epoch() -> None:
    """Not batched over members: the best weights of each come back by `member_parameters` alone."""
    data, mask = shaken(24), masks(24)
    model = PairCommittee(("O", "H"), [1, 2])
    groups = groups_of(model, data, mask, {8: -100.0, 1: -20.0})
    config = Config(members=2, epochs=25, batch_size=8, validate_every=1, averaging=0.0, learning_rate=0.05)
    outcome = fit(model, groups, config, np.random.default_rng(0))
    for m, kept in enumerate(outcome.members):
        assert kept.force_mae in [row[f"force_mae_eV_A_{m}"] for row in outcome.history]
    found = validate(model, groups, make_loss(config.loss))
    assert found == outcome.members
    assert outcome.history[-1]["validation_loss"] > 1.01 * np.mean([e.loss for e in found])


def test_labels_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = shaken(10)
    data[3] = LabeledFrame(data[3].frame, Label(float("nan"), data[3].label.forces, "springs"))
    with pytest.raises(TrainingError, match="label 3 .* is not finite"):
        trainer().train(data, masks(10), None, tmp_path, [1, 2, 3], "hash")
    assert not list(tmp_path.iterdir())
