"""Evaluation: the numbers of a committee that is small enough to be reckoned by hand, its calibration, its plots."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from rareal.errors import ModelFileError
from rareal.evaluate import calibration, describe, evaluate, plot
from rareal.export.modelfile import Metadata
from rareal.records import Frame, Label, LabeledFrame
from rareal.units import KCAL_MOL

H2, H3 = np.array([1, 1]), np.array([1, 1, 1])


class Stub:
    """Two members whose energy is the x of the first atom, off by ``offsets``, and whose forces are off likewise."""

    metadata = Metadata("stub", ("H",), (0.0,), 5.0, 1, 2, "float64", "", 0, {}, "")
    self_energy = {1: 0.0}

    def __init__(self, offsets: tuple[float, ...]) -> None:
        self.offsets = np.array(offsets)

    def energies_forces(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        forces = np.zeros((len(self.offsets), *frame.positions.shape))
        forces[:, 0, 0] = self.offsets
        return frame.positions[0, 0] + self.offsets, forces


def frames(energies: list[float], numbers: np.ndarray = H2, scale: float = 1.0) -> list[LabeledFrame]:
    """Frames at x = 0, 1, 2, ... with these labels; forces are zero."""
    made = []
    for k, energy in enumerate(energies):
        positions = np.zeros((len(numbers), 3))
        positions[0, 0] = scale * k
        made.append(LabeledFrame(Frame(numbers, positions), Label(energy, np.zeros((len(numbers), 3)), "x")))
    return made


def test_numbers_by_hand() -> None:
    # the members say x + 0.1 and x + 0.5: the mean is x + 0.3, the std 0.2; labels are x, x and x + 0.9
    found = evaluate(Stub((0.1, 0.5)), frames([0.0, 1.0, 2.9]))  # type: ignore[arg-type]
    n = {name: value for name, value in found.numbers.items() if name != "members"}
    in_ev = {name: value * KCAL_MOL for name, value in n.items() if "_kcal_mol" in name}
    # errors 0.3, 0.3, -0.6; their mean is zero, so that the offset is none
    for name in ("energy", "relative_energy"):
        assert in_ev[f"{name}_mae_kcal_mol"] == pytest.approx(0.4)
        assert in_ev[f"{name}_rmse_kcal_mol"] == pytest.approx(np.sqrt(0.54 / 3))
        assert in_ev[f"{name}_max_kcal_mol"] == pytest.approx(0.6)
    assert in_ev["energy_per_atom_mae_kcal_mol"] == pytest.approx(0.2)
    assert in_ev["energy_per_atom_max_kcal_mol"] == pytest.approx(0.3)
    # one component of six is off by 0.3
    assert in_ev["forces_mae_kcal_mol_A"] == pytest.approx(0.05)
    assert in_ev["forces_rmse_kcal_mol_A"] == pytest.approx(0.3 / np.sqrt(6))
    assert in_ev["forces_max_kcal_mol_A"] == pytest.approx(0.3)
    assert in_ev["energy_std_mean_kcal_mol"] == pytest.approx(0.2)
    assert n["energy_miscalibration_factor"] == pytest.approx(np.sqrt(0.54 / 3) / 0.2)
    # a std that does not vary is correlated with nothing
    assert np.isnan(n["energy_std_pearson"])
    # of two atoms one has the error 0.3 and the std 0.2, the other neither: all is on a line
    assert n["forces_std_pearson"] == pytest.approx(1.0)
    assert n["forces_std_spearman"] == pytest.approx(1.0)
    assert n["forces_calibration_slope"] == pytest.approx(1.5)
    assert (n["frames"], n["atoms"]) == (3, 6)
    members = found.numbers["members"]
    assert [m["energy_mae_kcal_mol"] * KCAL_MOL for m in members] == pytest.approx([1.0 / 3, 1.4 / 3])
    assert [m["forces_max_kcal_mol_A"] * KCAL_MOL for m in members] == pytest.approx([0.1, 0.5])
    assert f"{0.4 / KCAL_MOL:.4g}" in describe(found.numbers)


def test_offsets_per_element_are_taken_out_of_relative_energies() -> None:
    # another level of theory: every hydrogen is 5 eV lower; one frame of H3 is off by 0.2 besides
    data = frames([-10.0, -9.0, -8.0]) + frames([-15.0, -14.0, -12.8], H3)
    numbers = evaluate(Stub((-0.01, 0.01)), data).numbers  # type: ignore[arg-type]
    assert numbers["energy_mae_kcal_mol"] * KCAL_MOL == pytest.approx((3 * 10 + 15 + 15 + 14.8) / 6)
    # least squares on errors 10, 10, 10, 15, 15, 14.8 by the number of atoms
    slope = (3 * 20 + 2 * 45 + 44.4) / (3 * 4 + 3 * 9)
    rest = np.array([10.0] * 3 + [15, 15, 14.8]) - slope * np.array([2.0] * 3 + [3] * 3)
    assert numbers["relative_energy_mae_kcal_mol"] * KCAL_MOL == pytest.approx(np.abs(rest).mean())
    assert numbers["relative_energy_max_kcal_mol"] * KCAL_MOL == pytest.approx(np.abs(rest).max())


def test_one_frame_has_no_relative_energy() -> None:
    numbers = evaluate(Stub((0.0, 0.2)), frames([0.0])).numbers  # type: ignore[arg-type]
    assert np.isnan(numbers["relative_energy_mae_kcal_mol"])
    assert numbers["energy_mae_kcal_mol"] == pytest.approx(0.1 / KCAL_MOL)


def test_a_calibrated_committee_has_slope_one() -> None:
    rng = np.random.default_rng(0)
    std = 10 ** rng.uniform(-2, 0, 20000)
    right = calibration(std, rng.normal(size=20000) * std)
    assert right.slope == pytest.approx(1.0, abs=0.03)
    assert right.factor == pytest.approx(1.0, abs=0.03)
    assert right.spearman > 0.6
    assert len(right.bin_std) == 15
    assert (np.diff(right.bin_std) > 0).all()
    overconfident = calibration(std / 3, rng.normal(size=20000) * std)
    assert overconfident.slope == pytest.approx(3.0, abs=0.1)
    assert overconfident.factor == pytest.approx(3.0, abs=0.1)
    unrelated = calibration(std, rng.normal(size=20000))
    assert abs(unrelated.pearson) < 0.05
    assert abs(unrelated.spearman) < 0.05


def test_unknown_elements_and_nonsense() -> None:
    with pytest.raises(ModelFileError, match="the data hold C, the model knows H only"):
        evaluate(Stub((0.0, 0.1)), frames([0.0], np.array([6, 1])))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="frame 0 are not finite"):
        evaluate(Stub((0.0, float("nan"))), frames([0.0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 40, 3500])
def test_plots_of_few_and_many_frames(tmp_path: Path, count: int) -> None:
    labels = [0.1 * k + 0.02 * np.sin(k) for k in range(count)]
    found = evaluate(Stub((-0.01, 0.02)), frames(labels, scale=0.1))  # type: ignore[arg-type]
    for path in plot(found, tmp_path / "figures"):
        picture = matplotlib.image.imread(path)
        assert picture.shape[1] > 1000
        assert (picture[..., :3] < 0.9).any()
