"""Labels that cannot be right: how they are told from honest ones, and how little they then count.

A label of an SCF that did not converge, or of a molecule with two atoms fused, is off by hundreds of eV and would own
the squared loss, the self-energies, the scales of the model and the choice of the best epoch. A broken bond is not
such a label: it is what is to be learnt. So there is a limit far above chemistry:

    x = max( |E − Σ_Z n_Z e_Z| / (energy + N energy_per_atom),  max_i |F_i| / force )

with e_Z a robust fit of the composition. A frame with x ≤ 1 keeps its weight, any other gets x⁻⁴ of it. With a
quadratic loss its pull on the weights then falls as x⁻³: it is largest for labels just beyond the limit, which may be
honest, and nothing for nonsense. The same weight holds in the loss, in the least squares for the self-energies and in
the validation; and frames of weight below 1 set no scales.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rareal.records import Array, LabeledFrame
from rareal.training.config import OutlierConfig, TrustAll

ITERATIONS = 50
"""Of the reweighted least squares; it settles in far fewer."""


def composition(frames: Sequence[LabeledFrame], elements: Sequence[str]) -> Array:
    """Atoms of each element in each frame, [F, E]."""
    from ase.data import atomic_numbers

    numbers = np.array([atomic_numbers[e] for e in elements])
    return np.array([(f.frame.numbers[:, None] == numbers).sum(0) for f in frames], dtype=float)


def self_energies(
    frames: Sequence[LabeledFrame], elements: Sequence[str], weights: Array | None = None
) -> NDArray[np.float64]:
    """Energy per element [eV] with the smallest residual: weighted least squares, smallest norm if undetermined."""
    root = np.sqrt(np.ones(len(frames)) if weights is None else weights)
    energies = np.array([f.label.energy for f in frames])
    solution: NDArray[np.float64] = np.linalg.lstsq(
        composition(frames, elements) * root[:, None], energies * root, rcond=None
    )[0]
    return solution


def residuals(frames: Sequence[LabeledFrame], elements: Sequence[str]) -> Array:
    """Energies minus what the composition explains [F] eV, by a fit that a minority of wrong labels cannot move.

    Least absolute deviations of each composition's median energy, by iteratively reweighted least squares.
    """
    counts = composition(frames, elements)
    energies = np.array([f.label.energy for f in frames])
    kinds, kind, frequency = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    kind = kind.reshape(-1)
    medians = np.array([np.median(energies[kind == k]) for k in range(len(kinds))])
    weights = frequency.astype(float)
    for _ in range(ITERATIONS):
        root = np.sqrt(weights)
        solution = np.linalg.lstsq(kinds * root[:, None], medians * root, rcond=None)[0]
        weights = frequency / np.maximum(np.abs(medians - kinds @ solution), 1e-3)
    rest: Array = energies - counts @ solution
    return rest


def frame_weights(config: OutlierConfig, frames: Sequence[LabeledFrame], elements: Sequence[str]) -> Array:
    """Weight of each frame [F]: its own, less where its label cannot be right."""
    own = np.array([f.weight for f in frames], dtype=float)
    if isinstance(config, TrustAll):
        return own
    atoms = np.array([len(f.frame.numbers) for f in frames])
    largest = np.array([np.linalg.norm(f.label.forces, axis=1).max() for f in frames])
    energy_excess = np.abs(residuals(frames, elements)) / (config.energy + atoms * config.energy_per_atom)
    excess = np.maximum(energy_excess, largest / config.force)
    softened: Array = own * np.maximum(excess, 1.0) ** -4
    return softened


def describe(frames: Sequence[LabeledFrame], weights: Array) -> list[str]:
    """What the user should know of softened labels: nothing, or one line."""
    softened = [k for k, f in enumerate(frames) if weights[k] < f.weight]
    if not softened:
        return []
    worst = min(softened, key=lambda k: float(weights[k]))
    frame, label = frames[worst].frame, frames[worst].label
    largest = np.linalg.norm(label.forces, axis=1).max()
    return [
        f"{len(softened)} of {len(frames)} labels cannot be right and hardly count in training; the worst is frame "
        f"{worst} (round {frame.round}, {frame.origin or 'origin unknown'}): energy {label.energy:.6g} eV, "
        f"largest force {largest:.3g} eV/Å"
    ]
