"""Loss functions against their equations, atom by atom in plain numpy; weights of frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rareal.protocols import Targets
from rareal.testing.springs import PairCommittee, Springs
from rareal.training.config import Batch, Config, Huber, LossConfig, RareEvents, SchNet
from rareal.training.fit import loss_of_zero, train_epoch
from rareal.training.groups import groups_of
from rareal.training.losses import make_loss
from rareal.training.state import State

MEMBERS, FRAMES, ATOMS = 3, 5, 4


def numbers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(MEMBERS, FRAMES)), rng.normal(size=(MEMBERS, FRAMES, ATOMS, 3))


def rare_events(de: float, df: np.ndarray) -> float:
    return 2.0 * de**2 / np.sqrt(ATOMS) + 0.1 * sum(float(row @ row) for row in df) / ATOMS


def schnet(de: float, df: np.ndarray) -> float:
    return 0.1 * de**2 + 0.9 * sum(float(x) ** 2 for x in df.ravel()) / (3 * ATOMS)


def batch(de: float, df: np.ndarray) -> float:
    return de**2 + 12 * ATOMS / (3 * ATOMS) * sum(float(row @ row) for row in df)


def huber(de: float, df: np.ndarray) -> float:
    def h(x: float, delta: float) -> float:
        return 0.5 * x**2 if abs(x) <= delta else delta * (abs(x) - 0.5 * delta)

    return 7.0 * h(de / ATOMS, 0.2) + 3.0 * np.mean([h(x, 0.8) for x in df.ravel()])


@pytest.mark.parametrize(
    ("config", "formula"),
    [
        (RareEvents(energy_weight=2.0, force_weight=0.1), rare_events),
        (SchNet(), schnet),
        (Batch(), batch),
        (Huber(energy_weight=7.0, force_weight=3.0, energy_delta=0.2, force_delta=0.8), huber),
    ],
)
def test_losses_are_their_equations(config: LossConfig, formula: object) -> None:
    energies, forces = numbers(0)
    wanted = numbers(1)[0][0], numbers(1)[1][0]
    targets = Targets(torch.from_numpy(wanted[0]), torch.from_numpy(wanted[1]), torch.ones(FRAMES))
    found = make_loss(config)(torch.from_numpy(energies), torch.from_numpy(forces), targets)
    expected = [
        [formula(energies[m, k] - wanted[0][k], forces[m, k] - wanted[1][k]) for k in range(FRAMES)]  # type: ignore[operator]
        for m in range(MEMBERS)
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_the_weight_of_a_frame_multiplies_its_loss_and_masks_stay_masks() -> None:
    data = [replace(f, weight=w) for f, w in zip(Springs().shaken(4), (1.0, 3.0, 0.0, 1.0), strict=True)]
    mask = np.array([[True, True, True, False], [False, True, False, True]])
    model = PairCommittee(("O", "H"), [1, 2])
    (group,) = groups_of(model, data, mask, {8: -100.0, 1: -20.0})
    config = Config(members=2, batch_size=4)
    loss = make_loss(config.loss)
    with torch.no_grad():
        alone = loss(*model(group.features), group.targets).numpy()
    expected = [(alone[0, 0] + 3 * alone[0, 1]) / 3, (3 * alone[1, 1] + alone[1, 3]) / 2]
    found, _ = train_epoch(model, [group], loss, State(model, config, 1, np.random.default_rng(0)))
    assert found == pytest.approx(np.mean(expected), rel=1e-6)


def test_loss_of_predicting_nothing() -> None:
    data = Springs().shaken(6)
    groups = groups_of(PairCommittee(("O", "H"), [1, 2]), data, np.ones((2, 6), bool), {8: -100.0, 1: -20.0})
    expected = np.mean([(f.label.energy + 140) ** 2 / 3**0.5 + np.sum(f.label.forces**2) / 3 for f in data])
    assert loss_of_zero(groups, make_loss(RareEvents())) == pytest.approx(expected, rel=1e-5)
