"""Training of a committee: it learns, members stay apart, the best epoch is kept, the same seed gives the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rareal.errors import TrainingError
from rareal.export.modelfile import Committee, write
from rareal.models import ani
from rareal.records import Frame, Label, LabeledFrame
from rareal.training.config import Config, Cosine
from rareal.training.fit import fit
from rareal.training.groups import groups_of
from rareal.training.muon import Muon, orthogonalise
from rareal.training.outliers import self_energies
from rareal.training.schedule import make_schedule
from rareal.training.trainer import CommitteeTrainer

NUMBERS = np.array([8, 1, 1])
REST = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def harmonic(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """A molecule held together by springs between all pairs; total energies far from zero, as an engine's are."""
    energy, forces = -140.0, np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        rest = np.linalg.norm(REST[i] - REST[j])
        bond = positions[j] - positions[i]
        length = np.linalg.norm(bond)
        energy += 10.0 * (length - rest) ** 2
        force = 20.0 * (length - rest) * bond / length
        forces[i] += force
        forces[j] -= force
    return energy, forces


def shaken(count: int, seed: int = 0) -> list[LabeledFrame]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        positions = REST + rng.uniform(-0.1, 0.1, (3, 3))
        energy, forces = harmonic(positions)
        frames.append(LabeledFrame(Frame(NUMBERS, positions), Label(energy, forces, "springs")))
    return frames


def trainer(**settings: object) -> CommitteeTrainer:
    config = Config.model_validate({"members": 2, "epochs": 30, "batch_size": 8, "threads": 1, **settings})
    small = ani.Config(hidden={"O": (24, 16), "H": (24, 16)})
    return CommitteeTrainer(config, ("O", "H"), lambda e, s: ani.build(small, e, s), write, "float32")


def masks(count: int, members: int = 2) -> np.ndarray:
    return np.random.default_rng(1).random((members, count)) < 0.8


def test_it_learns_energies_and_forces_of_unseen_frames(tmp_path: Path) -> None:
    data = shaken(80)
    trainer(epochs=60).train(data, masks(80), None, tmp_path, [1, 2, 3], "hash")
    committee = Committee.load(tmp_path / "model.pt")
    test = shaken(20, seed=9)
    energies, forces = zip(*(committee.energies_forces(f.frame) for f in test), strict=True)
    energy_error = np.array(energies).mean(1) - [f.label.energy for f in test]
    force_error = np.array(forces).mean(1) - [f.label.forces for f in test]
    spread = np.std([f.label.energy for f in test])
    assert np.abs(energy_error).mean() < 0.1 * spread
    assert np.abs(force_error).mean() < 0.1 * np.std([f.label.forces for f in test])


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


def test_labels_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data = shaken(10)
    data[3] = LabeledFrame(data[3].frame, Label(float("nan"), data[3].label.forces, "springs"))
    with pytest.raises(TrainingError, match="label 3 .* is not finite"):
        trainer().train(data, masks(10), None, tmp_path, [1, 2, 3], "hash")
    assert not list(tmp_path.iterdir())


def test_divergence_is_said() -> None:
    data = shaken(20)
    model = trainer().build(("O", "H"), [1, 2])
    groups = groups_of(model, data, masks(20), {8: -100.0, 1: -20.0})
    with pytest.raises(TrainingError, match="training diverged"):
        fit(model, groups, Config(members=2, epochs=20, learning_rate=1e30), np.random.default_rng(0))


def test_self_energies_reproduce_what_composition_explains() -> None:
    def frame(numbers: list[int], energy: float) -> LabeledFrame:
        return LabeledFrame(Frame(np.array(numbers), np.zeros((len(numbers), 3))), Label(energy, np.zeros(3), "x"))

    energies = self_energies([frame([6, 1, 1], -42.0), frame([6, 6, 1], -81.0), frame([1, 1], -2.0)], ("C", "H"))
    np.testing.assert_allclose(energies, [-40.0, -1.0])


def test_learning_rate_rises_then_falls() -> None:
    schedule = make_schedule(Cosine(warmup=0.1, final=1e-4), 1e-2, 100)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[9] == pytest.approx(1e-2)
    assert rates[0] == pytest.approx(1e-3)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rates[-1] < 2e-4


def test_orthogonalisation_brings_singular_values_to_one_member_by_member() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 20, 12), (3, 12, 20)):
        matrices = torch.randn(shape, generator=generator) * torch.tensor([1e-6, 1.0, 1e6]).view(3, 1, 1)
        values = torch.linalg.svdvals(orthogonalise(matrices))
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_muon_minimises_a_quadratic_of_matrices() -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn((2, 6, 4), generator=generator)
    weights = torch.nn.Parameter(torch.zeros(2, 6, 4))
    bias = torch.nn.Parameter(torch.full((2, 1, 4), 3.0))
    optimizer = Muon([weights, bias], lr=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        ((weights - target).square().sum() + bias.square().sum()).backward()
        optimizer.step()
    assert (weights - target).abs().max() < 0.05
    assert bias.abs().max() < 0.05
