"""How good is a model file on a labelled data set, and does its committee know where it is wrong?

Errors are those of the committee's mean and of every member. Energies of another level of theory are offset by a
constant per element, so that `energy_*` are absolute and `relative_energy_*` are what is left when the per-element
offsets that fit best (least squares; for one composition the mean error) are taken out.

Calibration compares the committee's std (population std over the members, for a force the norm of the vector std of an
atom) with the error (for a force the norm of an atom's error vector):

- Pearson's and Spearman's correlation of std and \\|error\\|; they say whether ranking by the std finds the bad frames.
- The slope: frames (atoms) are sorted by std into bins of equal count; in each, the root-mean-square error is compared
  with the root of the mean variance, and a line through the origin is fitted to the bins by least squares (the
  reliability diagram of D. Levi et al., Sensors 2022, 22, 5540). A slope of 1 is a std that can be taken at its word.
- The miscalibration factor √(⟨error²⟩ / ⟨variance⟩): what the std has to be multiplied by to be right on the average
  (F. Musil et al., J. Chem. Theory Comput. 2019, 15, 906, rescale a committee like this).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rareal.errors import DatasetError, ModelFileError
from rareal.export.modelfile import Committee
from rareal.protocols import Progress
from rareal.records import Array, LabeledFrame
from rareal.report import evaluation as report
from rareal.units import KCAL_MOL

MOST_BINS = 15
LEAST_IN_BIN = 20
OFFSET = 0.25
"""Plots take an offset out if the squared error without it is less than this share of all."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels and what the members say: F frames, A atoms of all frames together, M members. eV and eV/Å.

    Attributes
    ----------
    composition : [F, elements] how many atoms of each element a frame has.
    energies, forces : labels, [F] and [A, 3].
    member_energies, member_forces : [M, F] and [M, A, 3].
    """

    composition: Array
    energies: Array
    forces: Array
    member_energies: Array
    member_forces: Array

    @property
    def atoms(self) -> Array:
        """Atoms of each frame, [F]."""
        total: Array = self.composition.sum(1)
        return total

    def relative(self, error: Array) -> Array:
        """Energy errors [F] without the per-element offsets that fit best.

        NaN where there are too few frames to tell an error from an offset.
        """
        solution, _, rank, _ = np.linalg.lstsq(self.composition, error, rcond=None)
        if len(error) <= rank:
            return np.full_like(error, np.nan)
        rest: Array = error - self.composition @ solution
        return rest


@dataclass(frozen=True, eq=False)
class Calibration:
    """Committee std against error of n frames or atoms, in eV or eV/Å; see the head of the module.

    Attributes
    ----------
    std, error : [n], the latter without its sign.
    bin_std, bin_error : root of the mean variance and root-mean-square error of each bin, by ascending std.
    """

    std: Array
    error: Array
    bin_std: Array
    bin_error: Array
    pearson: float
    spearman: float
    slope: float
    factor: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `rareal evaluate` found; ``numbers`` is what ``--json`` prints."""

    predictions: Predictions
    energy: Calibration
    relative_energy: Calibration
    forces: Calibration
    numbers: dict[str, Any]


def evaluate(committee: Committee, data: Sequence[LabeledFrame], progress: Progress | None = None) -> Evaluation:
    """Evaluate a committee on labelled frames; weights of frames do not count here.

    Raises
    ------
    ModelFileError
        If the data hold an element that the committee does not know, or it returns numbers that are not finite.
    """
    found = predict(committee, data, progress)
    mean_energy, mean_forces = found.member_energies.mean(0), found.member_forces.mean(0)
    error = mean_energy - found.energies
    energy_std = found.member_energies.std(0)
    force_std = np.sqrt(found.member_forces.var(0).sum(1))
    force_error = np.linalg.norm(mean_forces - found.forces, axis=1)
    energy = calibration(energy_std, error)
    relative = calibration(energy_std, found.relative(error))
    forces = calibration(force_std, force_error)
    numbers = {
        "frames": len(found.energies),
        "atoms": len(found.forces),
        **errors(found, mean_energy, mean_forces),
        **_calibration_numbers("energy", energy),
        **_calibration_numbers("relative_energy", relative),
        **_calibration_numbers("forces", forces),
        "members": [
            errors(found, energies, members)
            for energies, members in zip(found.member_energies, found.member_forces, strict=True)
        ],
    }
    return Evaluation(found, energy, relative, forces, numbers)


def evaluate_file(model: Path, data: Sequence[LabeledFrame], progress: Progress | None = None) -> Evaluation:
    """`evaluate` the model file ``model``, on one thread: single frames of a molecule are fastest so."""
    torch.set_num_threads(1)
    return evaluate(Committee.load(model), data, progress)


def predict(committee: Committee, data: Sequence[LabeledFrame], progress: Progress | None = None) -> Predictions:
    """Every member's energies and forces of the frames."""
    from ase.data import chemical_symbols

    if not data:
        raise DatasetError("no frames to evaluate")
    numbers = np.unique(np.concatenate([item.frame.numbers for item in data]))
    unknown = [chemical_symbols[z] for z in numbers if z not in committee.self_energy]
    if unknown:
        raise ModelFileError(
            f"the data hold {', '.join(unknown)}, the model knows {', '.join(committee.metadata.elements)} only; "
            "evaluate it on data of its elements, or train it with those too"
        )
    energies, forces = [], []
    for k, item in enumerate(data):
        energy, force = committee.energies_forces(item.frame)
        if not (np.isfinite(energy).all() and np.isfinite(force).all()):
            raise ModelFileError(f"the model's energy or forces of frame {k} are not finite; train it anew")
        energies.append(energy)
        forces.append(force)
        if progress:
            progress(k + 1, len(data))
    return Predictions(
        composition=np.array([[np.sum(item.frame.numbers == z) for z in numbers] for item in data], dtype=np.float64),
        energies=np.array([item.label.energy for item in data]),
        forces=np.concatenate([item.label.forces for item in data]),
        member_energies=np.stack(energies, axis=1),
        member_forces=np.concatenate(forces, axis=1),
    )


def errors(labels: Predictions, energies: Array, forces: Array) -> dict[str, float]:
    """MAE, RMSE and largest error of energies [F] (absolute, relative, per atom) and force components [A, 3].

    In kcal/mol and kcal/mol/Å.
    """
    error = energies - labels.energies
    quantities = {
        "energy": (error, "kcal_mol"),
        "relative_energy": (labels.relative(error), "kcal_mol"),
        "energy_per_atom": (error / labels.atoms, "kcal_mol"),
        "forces": (forces - labels.forces, "kcal_mol_A"),
    }
    found = {}
    for name, (values, unit) in quantities.items():
        size = np.abs(values) / KCAL_MOL
        found[f"{name}_mae_{unit}"] = float(size.mean())
        found[f"{name}_rmse_{unit}"] = float(np.sqrt((size**2).mean()))
        found[f"{name}_max_{unit}"] = float(size.max())
    return found


def calibration(std: Array, error: Array) -> Calibration:
    """Compare std [n] with error [n] of either sign; NaN where one of them does not vary."""
    error = np.abs(error)
    bins = int(np.clip(len(std) // LEAST_IN_BIN, 1, MOST_BINS))
    parts = np.array_split(np.argsort(std, kind="stable"), bins)
    bin_std = np.array([np.sqrt((std[part] ** 2).mean()) for part in parts])
    bin_error = np.array([np.sqrt((error[part] ** 2).mean()) for part in parts])
    spread = float((bin_std**2).sum())
    variance = float((std**2).mean())
    return Calibration(
        std=std,
        error=error,
        bin_std=bin_std,
        bin_error=bin_error,
        pearson=_pearson(std, error),
        spearman=_spearman(std, error),
        slope=float(bin_std @ bin_error) / spread if spread > 0 else float("nan"),
        factor=float(np.sqrt((error**2).mean() / variance)) if variance > 0 else float("nan"),
    )


def _pearson(a: Array, b: Array) -> float:
    # numbers that differ by their rounding only do not vary
    if not all(np.isfinite(x).all() and np.ptp(x) > 1e-9 * np.abs(x).max() for x in (a, b)):
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _spearman(a: Array, b: Array) -> float:
    """Pearson's correlation of the ranks, equal values sharing theirs."""
    from scipy.stats import rankdata

    return _pearson(rankdata(a), rankdata(b)) if np.isfinite(_pearson(a, b)) else float("nan")


def _calibration_numbers(name: str, found: Calibration) -> dict[str, float]:
    unit = "kcal_mol_A" if name == "forces" else "kcal_mol"
    return {
        f"{name}_std_mean_{unit}": float(found.std.mean()) / KCAL_MOL,
        f"{name}_std_pearson": found.pearson,
        f"{name}_std_spearman": found.spearman,
        f"{name}_calibration_slope": found.slope,
        f"{name}_miscalibration_factor": found.factor,
    }


def describe(numbers: dict[str, Any]) -> str:
    """The numbers as a table for people."""
    rows = (
        ("energy", "energy", "kcal/mol"),
        ("  offset removed", "relative_energy", "kcal/mol"),
        ("  per atom", "energy_per_atom", "kcal/mol"),
        ("force component", "forces", "kcal/mol/Å"),
    )
    lines = [f"{'committee mean':<18}{'MAE':>10}{'RMSE':>10}{'largest':>10}"]
    for title, name, unit in rows:
        suffix = "kcal_mol_A" if name == "forces" else "kcal_mol"
        cells = "".join(f"{numbers[f'{name}_{kind}_{suffix}']:>10.4g}" for kind in ("mae", "rmse", "max"))
        lines.append(f"{title:<18}{cells}  {unit}")
    lines += ["", f"{'member':<18}{'energy MAE':>12}{'force MAE':>12}"]
    for k, member in enumerate(numbers["members"]):
        lines.append(f"{k + 1:<18}{member['energy_mae_kcal_mol']:>12.4g}{member['forces_mae_kcal_mol_A']:>12.4g}")
    lines += ["", f"{'std and error':<18}{'Pearson':>10}{'Spearman':>10}{'slope':>10}{'factor':>10}"]
    for title, name in (("energy", "energy"), ("  offset removed", "relative_energy"), ("force on an atom", "forces")):
        keys = ("std_pearson", "std_spearman", "calibration_slope", "miscalibration_factor")
        lines.append(f"{title:<18}" + "".join(f"{numbers[f'{name}_{key}']:>10.3f}" for key in keys))
    return "\n".join(lines)


def plot(found: Evaluation, folder: Path) -> list[Path]:
    """Draw ``parity.png`` and ``calibration.png`` into ``folder``; return them."""
    parity, reliability = panels(found)
    return [report.plot_parity(parity, folder), report.plot_calibration(reliability, folder)]


def panels(found: Evaluation) -> tuple[list[report.Parity], list[report.Reliability]]:
    """What the plots of an evaluation show: energies and force components.

    Energies are above the lowest label, all without what the composition explains of the labels. Where most of the
    energy error is an offset, as against labels of another level of theory, the offset is taken out.
    """
    labels = found.predictions
    error = labels.member_energies.mean(0) - labels.energies
    energy, name = found.energy, "energy"
    relative = labels.relative(error)
    if np.sum(relative**2) < OFFSET * np.sum(error**2):
        energy, name, error = found.relative_energy, "energy, offset removed", relative
    composition = labels.composition
    reference = labels.energies - composition @ np.linalg.lstsq(composition, labels.energies, rcond=None)[0]
    reference = reference - reference.min()
    forces = labels.forces.ravel()
    parity = [
        report.Parity(name, "eV", reference, reference + error, 1 / KCAL_MOL),
        report.Parity("force component", "eV/Å", forces, labels.member_forces.mean(0).ravel(), 1 / KCAL_MOL),
    ]
    reliability = [
        _reliability(name, "kcal/mol", energy),
        _reliability("force on an atom", "kcal/mol/Å", found.forces),
    ]
    return parity, reliability


def _reliability(name: str, unit: str, found: Calibration) -> report.Reliability:
    return report.Reliability(
        name=name,
        unit=unit,
        std=found.std / KCAL_MOL,
        error=found.error / KCAL_MOL,
        bin_std=found.bin_std / KCAL_MOL,
        bin_error=found.bin_error / KCAL_MOL,
        slope=found.slope,
        pearson=found.pearson,
        spearman=found.spearman,
        factor=found.factor,
    )
