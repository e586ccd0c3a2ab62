"""A training says what its committee cannot learn, and only that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rareal.records import Frame, Label, LabeledFrame
from rareal.training import blind
from rareal.training.config import Config
from rareal.training.trainer import CommitteeTrainer
from rareal.units import KCAL_MOL


def far_apart(count: int, slope: float) -> list[LabeledFrame]:
    """Two oxygen atoms at their bond length and a third 6 to 9 Å away, to which the energy is linear."""
    rng = np.random.default_rng(1)
    frames = []
    for far in rng.uniform(6.0, 9.0, count):
        bond = rng.normal(1.2, 0.05)
        forces = np.array([[0.0, 0.0, 0.0], [-20.0 * (bond - 1.2), 0.0, 0.0], [-slope, 0.0, 0.0]])
        forces[0] = -forces.sum(0)
        positions = np.array([[0.0, 0.0, 0.0], [bond, 0.0, 0.0], [bond + far, 0.0, 0.0]])
        energy = -300.0 + 10.0 * (bond - 1.2) ** 2 + slope * (far - 7.5)
        frames.append(LabeledFrame(Frame(np.array([8, 8, 8]), positions), Label(energy, forces, "made")))
    return frames


@pytest.mark.parametrize(("slope", "cannot"), [(0.2, True), (0.0, False)])
def test_what_is_beyond_the_cutoff_is_said(slope: float, cannot: bool, tmp_path: Path) -> None:
    from rareal.export.modelfile import write
    from rareal.models import ani

    config = Config.model_validate({"members": 2, "epochs": 40, "batch_size": 8, "threads": 1})
    small = ani.Config(hidden={"O": (24, 16)})
    trainer = CommitteeTrainer(config, ("O",), lambda e, s: ani.build(small, e, s), write, "float32")
    data = far_apart(60, slope)
    mask = np.random.default_rng(1).random((2, len(data))) < 0.9
    said = [n for n in trainer.train(data, mask, None, tmp_path, [1, 2, 3], "hash").notes if "members agree" in n]
    assert len(said) == cannot


def test_an_error_that_the_deviation_knows_of_is_no_blind_spot() -> None:
    errors, deviations = np.array([3.0, 0.5, -3.0]) * KCAL_MOL, np.array([1.0, 0.01, 1.0]) * KCAL_MOL
    assert not blind.describe(errors, deviations)
    deviations[2] = 0.05 * KCAL_MOL
    (line,) = blind.describe(errors, deviations)
    assert "on 1 of 3 frames" in line
    assert "3.0 kcal/mol, deviation 0.05" in line
