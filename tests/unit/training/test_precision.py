"""Devices, precision, memory, repulsion: what is done to the labels and the model before the first epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rareal.errors import TrainingError
from rareal.files import read_json
from rareal.records import Array, Frame, LabeledFrame
from rareal.testing.springs import PairCommittee, Springs
from rareal.training.config import Config
from rareal.training.groups import groups_of
from rareal.training.outliers import self_energies
from rareal.training.trainer import CommitteeTrainer, choose_device

MASK = np.random.default_rng(1).random((2, 24)) < 0.75


def trainer(write: Any = lambda *args, **kwargs: None, repulsion: Any = None, **settings: Any) -> CommitteeTrainer:
    config = Config.model_validate({"members": 2, "epochs": 2, "batch_size": 8, "threads": 1, **settings})
    return CommitteeTrainer(config, ("O", "H"), PairCommittee, write, "float32", repulsion)


def test_energies_of_minus_ten_thousand_electronvolts_keep_their_millielectronvolts() -> None:
    """Single precision at −10⁴ eV is good to 1 meV; what reaches the training is good to a nanoelectronvolt."""
    data = Springs(zero=-1.0e4).shaken(20, amplitude=0.003)
    exact = np.array([f.label.energy for f in data])
    assert 1e-5 < np.ptp(exact) < 5e-3
    energies = self_energies(data, ("O", "H"))
    shift = dict(zip((8, 1), energies, strict=True))
    (group,) = groups_of(PairCommittee(("O", "H"), [1, 2]), data, MASK[:, :20], shift)
    assert group.targets.energies.dtype == torch.float32
    found = group.targets.energies.double().numpy()
    np.testing.assert_allclose(found - found[0], exact - exact[0], atol=1e-8)
    assert np.abs(exact.astype(np.float32).astype(float) - exact).max() > 1e-4


def test_where_the_energies_have_their_zero_does_not_matter(tmp_path: Path) -> None:
    found = []
    for zero in (0.0, -1.0e4):
        folder = tmp_path / str(zero)
        folder.mkdir()
        data = Springs(zero=zero).shaken(24)
        found.append(trainer(epochs=4).train(data, MASK, None, folder, [1, 2, 3], "hash"))
    np.testing.assert_allclose(found[0].energy_mae, found[1].energy_mae, rtol=1e-4)


def test_automatic_device_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda available=available: int(available))
        assert choose_device("auto").type == name
    assert choose_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda").type == "cuda"
    with pytest.raises(TrainingError, match=r"training\.device: cuda:1: torch .* sees 1 GPUs here; use auto or cpu"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(TrainingError, match=r"training\.device: cuda: torch .* sees 0 GPUs"):
        trainer(device="cuda").train(Springs().shaken(24), MASK, None, tmp_path, [1, 2, 3], "hash")


class Travelling(PairCommittee):
    """Remembers where it and its features were sent."""

    def __init__(self, elements: Sequence[str], seeds: Sequence[int]) -> None:
        super().__init__(elements, seeds)
        self.sent: list[str] = []

    def to(self, *args: Any, **kwargs: Any) -> Any:
        self.sent.append(str(args[0]))
        return super().to(*args, **kwargs)


def test_the_model_travels_and_comes_back(tmp_path: Path) -> None:
    models = []

    def build(elements: Sequence[str], seeds: Sequence[int]) -> Travelling:
        models.append(Travelling(elements, seeds))
        return models[-1]

    made = trainer(device="cpu")
    made.build = build
    made.train(Springs().shaken(24), MASK, None, tmp_path, [1, 2, 3], "hash")
    assert models[0].sent == ["cpu", "cpu"]
    assert read_json(tmp_path / "training.json")["device"] == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_training_gives_what_it_gives_on_the_cpu(tmp_path: Path) -> None:
    found = []
    for device in ("cpu", "cuda"):
        (tmp_path / device).mkdir()
        found.append(
            trainer(device=device).train(Springs().shaken(24), MASK, None, tmp_path / device, [1, 2, 3], "hash")
        )
    np.testing.assert_allclose(found[0].force_mae, found[1].force_mae, rtol=1e-3)


def test_groups_share_the_memory() -> None:
    water, hydroxyl = Springs().shaken(6), Springs((8, 1), Springs().rest[:2]).shaken(4)
    model = PairCommittee(("O", "H"), [1, 2])
    groups = groups_of(model, [*water, *hydroxyl], np.ones((2, 10), bool), {8: 0.0, 1: 0.0}, memory=5000)
    assert model.asked_for == [5000, 5000 - groups[0].features.nbytes]
    groups_of(model, [*water, *hydroxyl], np.ones((2, 10), bool), {8: 0.0, 1: 0.0}, memory=10)
    assert model.asked_for[-1] == 0


class Push:
    """A repulsion of 1 eV Å / r between the first two atoms."""

    def check_cutoff(self, elements: Sequence[str], cutoff: float) -> None:
        assert cutoff > 0.0

    def energy_forces(self, frame: Frame) -> tuple[float, Array]:
        line = frame.positions[1] - frame.positions[0]
        distance = float(np.linalg.norm(line))
        push = line / distance**3
        return 1.0 / distance, np.array([-push, push, np.zeros(3)])


def test_a_repulsion_is_taken_from_the_labels_and_given_to_the_model_file(tmp_path: Path) -> None:
    """Labels with a repulsion under them and without it are the same training."""
    plain = Springs().shaken(24)
    pushed = []
    for f in plain:
        energy, forces = Push().energy_forces(f.frame)
        label = replace(f.label, energy=f.label.energy + energy, forces=f.label.forces + forces)
        pushed.append(LabeledFrame(f.frame, label))
    written: list[dict[str, Any]] = []
    trained = []
    for name, data, repulsion in (("plain", plain, None), ("pushed", pushed, Push())):
        (tmp_path / name).mkdir()
        made = trainer(lambda *args, **kwargs: written.append(kwargs), repulsion)
        trained.append(made.train(data, MASK, None, tmp_path / name, [1, 2, 3], "hash"))
    np.testing.assert_allclose(trained[0].force_mae, trained[1].force_mae, rtol=1e-4)
    np.testing.assert_allclose(trained[0].energy_mae, trained[1].energy_mae, rtol=1e-4)
    assert "repulsion" not in written[0]
    assert isinstance(written[1]["repulsion"], Push)


def test_a_member_without_validation_frames_is_refused(tmp_path: Path) -> None:
    mask = MASK.copy()
    mask[1] = True
    with pytest.raises(TrainingError, match="member 1 has no frame to validate on"):
        trainer().train(Springs().shaken(24), mask, None, tmp_path, [1, 2, 3], "hash")
    with pytest.raises(TrainingError, match="member 1 has no frame to learn from"):
        trainer().train(Springs().shaken(24), ~mask, None, tmp_path, [1, 2, 3], "hash")
