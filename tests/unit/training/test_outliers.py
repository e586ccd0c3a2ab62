"""Labels that cannot be right have little say; honest ones of high energy keep theirs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rareal.files import read_csv, read_json
from rareal.models import ani
from rareal.records import Frame, Label, LabeledFrame
from rareal.testing.springs import PairCommittee, Springs
from rareal.training.config import Config, OutlierConfig, Soften, TrustAll
from rareal.training.fit import fit
from rareal.training.groups import groups_of
from rareal.training.outliers import describe, frame_weights, residuals, self_energies
from rareal.training.trainer import CommitteeTrainer

ENERGY = {"C": -1036.0, "H": -13.6, "O": -2041.0}
NUMBER = {"C": 6, "H": 1, "O": 8}


def labeled(formula: str, excess: float = 0.0, force: float = 1.0, weight: float = 1.0) -> LabeledFrame:
    """A frame of a composition, so much above its atoms' energies, with one force of that size."""
    numbers = np.array([NUMBER[s] for s in formula])
    forces = np.zeros((len(numbers), 3))
    forces[0, 0] = force
    energy = sum(ENERGY[s] for s in formula) + excess
    return LabeledFrame(Frame(numbers, np.zeros((len(numbers), 3))), Label(energy, forces, "x"), weight)


def thermal(formula: str, count: int) -> list[LabeledFrame]:
    return [labeled(formula, float(e), 3.0) for e in np.random.default_rng(1).normal(0, 0.5, count)]


def test_self_energies_reproduce_what_composition_explains() -> None:
    frames = [labeled("CHH"), labeled("CCH"), labeled("HH")]
    np.testing.assert_allclose(self_energies(frames, ("C", "H")), [ENERGY["C"], ENERGY["H"]])


def test_self_energies_are_least_squares() -> None:
    frames = [labeled("HH", e) for e in (0.0, 1.0, 5.0)]
    np.testing.assert_allclose(self_energies(frames, ("H",)), [ENERGY["H"] + 1.0])
    np.testing.assert_allclose(self_energies(frames, ("H",), np.array([1.0, 1.0, 0.0])), [ENERGY["H"] + 0.25])


@pytest.mark.parametrize(
    ("frame", "weight"),
    [
        (labeled("C" * 6 + "H" * 14, 10.0, 10.0), 1.0),  # a broken bond of hexane
        (labeled("C" * 6 + "H" * 14, 20.0, 25.0), 1.0),  # two, and in a hurry
        (labeled("C" * 6 + "H" * 14, 0.0, 300.0), 1e-4),  # fused: ten times the limit
        (labeled("C" * 6 + "H" * 14, -480.0, 5.0), 20.0**-4),  # nonsense from the SCF, below
        (labeled("C" * 6 + "H" * 14, 1e4, 5.0), 0.0),
    ],
)
def test_a_broken_bond_is_honest_and_nonsense_is_not(frame: LabeledFrame, weight: float) -> None:
    data = [*thermal("C" * 6 + "H" * 14, 40), frame]
    weights = frame_weights(Soften(), data, ("C", "H"))
    assert (weights[:-1] == 1.0).all()
    assert weights[-1] == pytest.approx(weight, rel=0.05, abs=1e-9)


def test_a_small_molecule_may_break_too() -> None:
    data = [*thermal("OHH", 30), labeled("OHH", 9.5, 12.0)]
    assert (frame_weights(Soften(), data, ("O", "H")) == 1.0).all()


def test_composition_is_fitted_past_a_quarter_of_nonsense() -> None:
    """Many compositions, and every fourth label is off by hundreds of eV, all to the same side."""
    rng = np.random.default_rng(2)
    data = []
    for k in range(80):
        formula = "".join(s * int(n) for s, n in zip("CHO", rng.integers(1, 8, 3), strict=True))
        data.append(labeled(formula, 700.0 + k if k % 4 == 0 else float(rng.normal(0, 0.3))))
    wrong = np.arange(80) % 4 == 0
    assert np.abs(residuals(data, ("C", "H", "O"))[~wrong]).max() < 5
    weights = frame_weights(Soften(), data, ("C", "H", "O"))
    assert (weights[~wrong] == 1.0).all()
    assert weights[wrong].max() < 1e-4
    found = self_energies(data, ("C", "H", "O"), weights)
    np.testing.assert_allclose(found, [ENERGY[s] for s in "CHO"], atol=0.3)
    assert np.abs(self_energies(data, ("C", "H", "O")) - [ENERGY[s] for s in "CHO"]).max() > 5


def test_a_frames_own_weight_is_kept_and_softening_multiplies_it() -> None:
    data = [*thermal("OHH", 30), labeled("OHH", weight=0.25), labeled("OHH", force=60.0, weight=2.0)]
    weights = frame_weights(Soften(), data, ("O", "H"))
    assert weights[-2] == 0.25
    assert weights[-1] == pytest.approx(2.0 / 16)
    assert frame_weights(TrustAll(), data, ("O", "H")).tolist() == [f.weight for f in data]


def test_what_was_softened_is_said() -> None:
    data = [*thermal("OHH", 30), labeled("OHH", 5e3, 60.0)]
    assert describe(data, frame_weights(TrustAll(), data, ("O", "H"))) == []
    (line,) = describe(data, frame_weights(Soften(), data, ("O", "H")))
    assert line.startswith("1 of 31 labels cannot be right")
    assert "frame 30" in line
    assert "60 eV/Å" in line


def spoilt(count: int) -> list[LabeledFrame]:
    """Two of a hundred labels are nonsense from the SCF, another is honest for two atoms fused."""
    data = Springs().shaken(count)
    for k in range(0, count, 50):
        data[k] = replace(data[k], label=replace(data[k].label, energy=1e4, forces=-40 * data[k].label.forces))
    fused = data[7].frame.positions.copy()
    fused[1] = fused[0] + [0.0, 0.0, 0.05]
    forces = np.array([[0.0, 0.0, -4e3], [0.0, 0.0, 4e3], [0.0, 0.0, 0.0]])
    data[7] = LabeledFrame(replace(data[7].frame, positions=fused), Label(-140.0 + 300.0, forces, "springs"))
    return data


def error_of_training(data: list[LabeledFrame], outliers: OutlierConfig) -> tuple[float, float]:
    """MAE of energies [eV] and forces [eV/Å] on frames that the training has not seen."""
    elements = ("O", "H")
    model = ani.build(ani.Config(hidden={"O": (24, 16), "H": (24, 16)}), elements, [1, 2])
    weights = frame_weights(outliers, data, elements)
    energies = self_energies(data, elements, weights)
    shift = dict(zip((8, 1), energies, strict=True))
    mask = np.random.default_rng(1).random((2, len(data))) < 0.8
    config = Config(members=2, epochs=30, batch_size=16)
    fit(model, groups_of(model, data, mask, shift, weights), config, np.random.default_rng(0))
    test = Springs().shaken(50, seed=9)
    with torch.no_grad():
        predicted, forces = model(model.features([f.frame for f in test]))
    zero = energies @ [1, 2]
    errors = (
        predicted - torch.tensor([f.label.energy - zero for f in test]),
        forces - torch.tensor(np.stack([f.label.forces for f in test])),
    )
    return float(errors[0].abs().mean()), float(errors[1].abs().mean())


def test_nonsense_among_the_labels_hardly_costs_accuracy_and_much_without_the_policy() -> None:
    data = spoilt(100)
    good = [f for k, f in enumerate(data) if k % 50 and k != 7]
    clean, softened, trusted = (
        error_of_training(good, Soften()), error_of_training(data, Soften()), error_of_training(data, TrustAll()),
    )  # fmt: skip
    for without, policy, off in zip(clean, softened, trusted, strict=True):
        assert policy < 1.5 * without
        assert off > 5 * without


def test_softened_labels_are_counted_and_spoil_no_record_of_the_training(tmp_path: Path) -> None:
    config = Config(members=2, epochs=4, batch_size=16, threads=1)
    trainer = CommitteeTrainer(config, ("O", "H"), PairCommittee, lambda *args, **kwargs: None, "float32")
    mask = np.random.default_rng(1).random((2, 100)) < 0.8
    trained = trainer.train(spoilt(100), mask, None, tmp_path, [1, 2, 3], "hash")
    summary = read_json(tmp_path / "training.json")
    assert summary["softened"] == 3
    assert trained.notes == tuple(summary["notes"])
    assert "3 of 100 labels cannot be right" in trained.notes[0]
    # with the three counted in full these would be hundreds of eV and tens of eV/Å
    assert max(trained.energy_mae) < 1.0
    assert max(trained.force_mae) < 2.0
    assert max(row["validation_loss"] for row in read_csv(tmp_path / "learning_curve.csv")) < 100
