"""Small committees of the three architectures, what a file of them says in Python, and boxes to say it of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from rareal.export.modelfile import DTYPES, Committee
from rareal.models import ani, painn, schnet
from rareal.records import Array, Frame
from rareal.testing.lammps import Result
from rareal.testing.systems import Graph, Prediction, predict

SEEDS = [1, 2, 3]
BUILD: dict[str, Callable[[], Any]] = {
    "ani": lambda: ani.build(ani.Config(hidden={"C": (16, 8), "H": (16, 8)}), ("C", "H"), SEEDS),
    "painn": lambda: painn.build(painn.Config(features=16, layers=2, cutoff=3.5), ("C", "H"), SEEDS),
    "schnet": lambda: schnet.build(schnet.Config(features=16, layers=3, cutoff=3.0), ("C", "H"), SEEDS),
}
SELF_ENERGIES = {"C": -38.0, "H": -13.0}
VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])
TOLERANCE = {"float64": 1e-8, "float32": 2e-5}


def in_python(path: Path, atoms: Atoms) -> tuple[Prediction, Array]:
    """The committee on the folded graph, and the virial of each atom [N, 6]: an edge's belongs to its centre."""
    committee = Committee.load(path)
    frame = Frame(atoms.numbers.astype(np.int64), atoms.positions, np.array(atoms.cell), tuple(atoms.pbc))
    graph = Graph.of(frame, ("C", "H"), committee.metadata.cutoff)
    found = predict(committee.model, graph, DTYPES[committee.metadata.dtype])
    of_edges = -np.einsum("pa,mpb->pab", graph.vectors.numpy(), found.gradients) / len(found.energies)
    virials = np.zeros((len(atoms), 3, 3))
    np.add.at(virials, graph.edges[0].numpy(), of_edges)
    return found, virials[:, VOIGT[0], VOIGT[1]]


def compare(result: Result, atoms: Atoms, expected: Prediction, virials: Array, dtype: str) -> float:
    """Energy, forces, energies of atoms, deviations and virial; returns the tolerance."""
    selves = np.array([SELF_ENERGIES[symbol] for symbol in atoms.symbols])
    largest = float(np.abs(expected.forces).max())
    assert largest > 1e-3
    tolerance = TOLERANCE[dtype] * max(1.0, largest)
    assert result.energy == pytest.approx(expected.energies.mean() + selves.sum(), abs=tolerance)
    np.testing.assert_allclose(result.forces, expected.forces.mean(0), rtol=0, atol=tolerance)
    np.testing.assert_allclose(result.atomic, expected.atomic.mean(0) + selves, rtol=0, atol=tolerance)
    std = np.sqrt(expected.forces.var(0).sum(1))
    spread = [expected.energies.std(), std.max(), std.mean()]
    np.testing.assert_allclose(result.spread, spread, rtol=0, atol=tolerance)
    assert min(spread) > 10 * tolerance or dtype == "float32"
    # LAMMPS converts virials to bar and back, with seven digits in the unit
    digits = 1e-6 * float(np.abs(virials).max())
    np.testing.assert_allclose(result.virial, virials.sum(0), rtol=2e-6, atol=20 * tolerance + digits)
    return tolerance
