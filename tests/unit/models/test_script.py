"""Bring your own model: a module by dotted path and from files keeps the contract; what cannot be a member is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from rareal.errors import ConfigError
from rareal.export.modelfile import Committee, write
from rareal.models import script
from rareal.records import Frame, Label, LabeledFrame
from rareal.testing import morse
from rareal.testing.models import Build, ModelContract
from rareal.testing.springs import WATER
from rareal.testing.systems import shaken
from rareal.training.config import Config as TrainingConfig
from rareal.training.trainer import CommitteeTrainer

PATH = "rareal.testing.morse:build"


class TestDottedPath(ModelContract):
    @pytest.fixture
    def build(self) -> Build:
        config = script.Config(module=PATH, cutoff=3.5, layers=2)
        return lambda elements, seeds: script.build(config, elements, seeds)


class TestFiles(ModelContract):
    @pytest.fixture
    def build(self, tmp_path: Path) -> Build:
        def build(elements: Sequence[str], seeds: Sequence[int]) -> Any:
            paths = []
            for seed in seeds:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    member = morse.build(elements, seed, 3.5)
                paths.append(tmp_path / f"member-{seed}.pt")
                torch.jit.save(torch.jit.script(member), paths[-1])
            config = script.Config(files=tuple(paths), cutoff=3.5, layers=2)
            return script.build(config, elements, seeds)

        return build


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))


class Total(Base):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return self.weight * (edge_vec * edge_vec).sum()


class AllAtoms(Base):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return torch.zeros(species.size(0)).index_add(0, edge_index[0], self.weight * edge_vec.sum(1))


class Blind(Base):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return self.weight * torch.ones(n_local)


class Double(Base):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return (self.weight * edge_vec.sum() * torch.ones(n_local)).double()


class Positions(Base):
    def forward(self, species: Tensor, positions: Tensor) -> Tensor:
        return self.weight * positions.sum(1)


class Numpy(Base):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return torch.from_numpy(edge_vec.detach().numpy())  # type: ignore[no-any-return]


class Index(Base):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return self.weight * edge_vec[10_000]


class Nothing(nn.Module):
    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        return edge_vec.sum(1)[:n_local]


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Total, r"returned the shape \[\] for 3 atoms with n_local = 2; it must return .* \[2\]"),
        (AllAtoms, r"returned the shape \[3\] for 3 atoms with n_local = 2"),
        (Blind, "do not depend on edge_vec"),
        (Double, r"returned torch\.float64 for edge vectors in torch\.float32; follow edge_vec\.dtype"),
        (Positions, r"has forward\(Tensor, Tensor\) -> Tensor; a member needs forward\(species: Tensor, edge_index"),
        (Numpy, "is not scriptable, TorchScript says:"),
        (Index, "fails on three atoms, one of them a ghost: .*index 10000"),
        (Nothing, "has no parameters"),
    ],
)
def test_what_cannot_be_a_member(monkeypatch: pytest.MonkeyPatch, member: type[nn.Module], message: str) -> None:
    monkeypatch.setattr(morse, "build", lambda elements, seed: member())
    with pytest.raises(ConfigError, match=message):
        script.build(script.Config(module=PATH), ("C", "H"), [1])


def test_functions_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for path, message in (
        ("rareal.testing.morse:nothing", r"model\.module: rareal\.testing\.morse:nothing cannot be imported"),
        ("rareal.testing.nowhere:build", r"cannot be imported: No module named 'rareal\.testing\.nowhere'"),
        ("rareal.testing.morse:Morse", r"cannot be called with \(elements, seed\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            script.build(script.Config(module=path), ("C", "H"), [1])
    with pytest.raises(ConfigError, match=r"model\.options: .* knows no depht; it knows cutoff"):
        script.build(script.Config(module=PATH, options={"depht": 1.0}), ("C", "H"), [1])
    monkeypatch.setattr(morse, "build", lambda elements, seed: "a module")
    with pytest.raises(ConfigError, match=r"returned str, not a torch\.nn\.Module"):
        script.build(script.Config(module=PATH), ("C", "H"), [1])


def test_options_reach_the_function() -> None:
    config = script.Config(module=PATH, cutoff=4.0, options={"cutoff": 2.5})
    (network,) = script.build(config, ("C", "H"), [1]).networks
    assert network.member.cutoff == 2.5


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    two = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path, elements in zip(two, (2, 3), strict=True):
        torch.jit.save(torch.jit.script(morse.Morse(elements, 3.5)), path)
    text = tmp_path / "text.pt"
    text.write_text("no archive")
    for files, count, message in (
        (two, 3, r"model\.files: 2 files cannot make a committee of 3 members"),
        ([tmp_path / "none.pt"], 1, r"model\.files: .*none\.pt: no such file"),
        ([text], 1, r"text\.pt is no TorchScript file .*; write it with torch\.jit\.save"),
        (two, 2, "member 2 has other parameters than member 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            script.build(script.Config(files=tuple(files)), ("C", "H"), range(count))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either `module`"),
        ({"module": PATH, "files": ["a.pt"]}, "give either `module`"),
        ({"files": ["a.pt"], "options": {"x": 1}}, "files take none"),
        ({"module": "no colon"}, "String should match pattern"),
    ],
)
def test_configuration(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        script.Config.model_validate(settings)


def test_it_is_trained_with_forces(tmp_path: Path) -> None:
    """It learns another of its kind, whose energies are shifted per atom; the training sees separate members."""
    own, elements = script.Config(module=PATH, cutoff=3.5, layers=2), ("O", "H")
    write(script.build(own, elements, [7]), tmp_path / "teacher.pt", [-70.0, -10.0], dtype="float64")
    teacher = Committee.load(tmp_path / "teacher.pt").surface()
    frames = shaken(Frame(np.array([8, 1, 1]), WATER), 80, amplitude=0.1)
    data = [LabeledFrame(frame, Label(*teacher(frame), "teacher")) for frame in frames]
    settings = {"members": 2, "epochs": 100, "batch_size": 8, "threads": 1, "optimizer": "adamw", "learning_rate": 0.05}
    config = TrainingConfig.model_validate(settings)
    trainer = CommitteeTrainer(config, elements, lambda e, s: script.build(own, e, s), write, "float32")
    mask = np.random.default_rng(1).random((2, 60)) < 0.8
    trained = trainer.train(data[:60], mask, None, tmp_path, [1, 2, 3], "hash")
    committee = Committee.load(trained.model)
    errors = [
        (abs(energies.mean() - labeled.label.energy), np.abs(forces.mean(0) - labeled.label.forces).mean())
        for labeled in data[60:]
        for energies, forces in [committee.energies_forces(labeled.frame)]
    ]
    energy_error, force_error = np.mean(errors, 0)
    # untrained: 1.1 eV and 0.75 eV/Å, against limits of 0.12 and 0.31
    assert energy_error < 0.2 * np.std([f.label.energy for f in data])
    assert force_error < 0.1 * np.mean([np.abs(f.label.forces).mean() for f in data])
