"""Geometries for the contract tests of models, and what an exported committee says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray

from rareal.neighbours import all_edges
from rareal.records import Array, Frame


def cluster(elements: Sequence[str], count: int = 7, seed: int = 0) -> Frame:
    """A free cluster without any symmetry; the elements in turn, neighbours 0.95 Å to 1.5 Å apart."""
    rng = np.random.default_rng(seed)
    places = [np.zeros(3)]
    while len(places) < count:
        direction = rng.normal(size=3)
        trial = places[rng.integers(len(places))] + rng.uniform(0.95, 1.5) * direction / np.linalg.norm(direction)
        if min(np.linalg.norm(trial - place) for place in places) > 0.95:
            places.append(trial)
    return Frame(_numbers(elements, count), np.array(places))


def crystal(elements: Sequence[str]) -> Frame:
    """A triclinic periodic system of five atoms that is smaller than any cutoff."""
    cell = np.array([[3.1, 0.0, 0.0], [0.6, 3.4, 0.0], [-0.4, 0.5, 2.9]])
    scaled = np.array([[0.02, 0.05, 0.1], [0.5, 0.1, 0.35], [0.1, 0.55, 0.6], [0.55, 0.6, 0.05], [0.6, 0.45, 0.7]])
    return Frame(_numbers(elements, 5), scaled @ cell, cell, (True, True, True))


def chain(elements: Sequence[str]) -> Frame:
    """A polymer: four atoms that repeat every 4.3 Å along x and nowhere else."""
    places = np.array([[0.1, 0.0, 0.0], [1.1, 0.7, 0.3], [2.3, 0.1, -0.2], [3.2, 0.9, 0.8]])
    return Frame(_numbers(elements, 4), places, np.diag([4.3, 0.0, 0.0]), (True, False, False))


def shaken(frame: Frame, count: int, amplitude: float = 0.05, seed: int = 1) -> list[Frame]:
    """Copies with all atoms displaced by up to ``amplitude``, Å."""
    rng = np.random.default_rng(seed)
    return [
        Frame(frame.numbers, frame.positions + rng.uniform(-amplitude, amplitude, frame.positions.shape),
              frame.cell, frame.pbc)
        for _ in range(count)
    ]  # fmt: skip


def joined(first: Frame, second: Frame, apart: float) -> Frame:
    """Two free clusters in one frame, the second displaced along x."""
    return Frame(
        np.concatenate([first.numbers, second.numbers]), np.vstack([first.positions, second.positions + [apart, 0, 0]])
    )


def strained(frame: Frame, strain: Array) -> Frame:
    """Positions and cell after r → r (1 + strain)."""
    deform = np.eye(3) + strain
    return Frame(frame.numbers, frame.positions @ deform, frame.cell @ deform, frame.pbc)


def repeated(frame: Frame) -> Frame:
    """The same crystal described by a cell twice as long in every periodic direction."""
    counts = [2 if periodic else 1 for periodic in frame.pbc]
    shifts = np.array(list(np.ndindex(*counts))) @ frame.cell
    positions = (shifts[:, None, :] + frame.positions[None, :, :]).reshape(-1, 3)
    return Frame(np.tile(frame.numbers, len(shifts)), positions, np.array(counts)[:, None] * frame.cell, frame.pbc)


def random_rotation(seed: int = 5) -> Array:
    """A proper rotation matrix."""
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    rotation: Array = matrix * np.sign(np.linalg.det(matrix))
    return rotation


def _numbers(elements: Sequence[str], count: int) -> NDArray[np.int64]:
    return np.array([atomic_numbers[elements[k % len(elements)]] for k in range(count)])


@dataclass(frozen=True, eq=False)
class Graph:
    """What the model file's ``forward`` takes: species [N], edges [2, P], vectors [P, 3] Å, the local atoms."""

    species: torch.Tensor
    edges: torch.Tensor
    vectors: torch.Tensor
    n_local: int

    @classmethod
    def of(cls, frame: Frame, elements: Sequence[str], cutoff: float) -> Graph:
        """The graph of a whole frame: no ghosts, periodic images folded onto the atoms."""
        numbers = [atomic_numbers[element] for element in elements]
        edges, vectors = all_edges(frame, cutoff)
        species = torch.tensor([numbers.index(int(z)) for z in frame.numbers], dtype=torch.long)
        return cls(species, edges, vectors, len(species))


@dataclass(frozen=True, eq=False)
class Prediction:
    """A committee on one graph, in double precision.

    energies [M] eV, atomic [M, n_local] eV, forces [M, N, 3] eV/Å, virials [M, 3, 3] eV (minus the derivative of the
    energy with respect to strain), gradients [M, P, 3] eV/Å by the edge vectors.
    """

    energies: Array
    atomic: Array
    forces: Array
    virials: Array
    gradients: Array


def predict(script: Any, graph: Graph, dtype: torch.dtype = torch.float64) -> Prediction:
    """Evaluate an exported committee as the pair style does: as written, without specialising to the shapes."""
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        atomic, gradients = script(graph.species, graph.edges, graph.vectors.to(dtype), graph.n_local)
    if atomic.dtype != dtype or gradients.dtype != dtype:
        raise TypeError(f"edge vectors of {dtype} gave energies of {atomic.dtype} and gradients of {gradients.dtype}")
    if atomic.shape[1:] != (graph.n_local,) or gradients.shape[1:] != graph.vectors.shape:
        raise ValueError(f"energies {tuple(atomic.shape)} and gradients {tuple(gradients.shape)} have wrong shapes")
    atomic, gradients = atomic.detach().double(), gradients.detach().double()
    forces = torch.zeros((len(atomic), len(graph.species), 3), dtype=torch.float64)
    forces.index_add_(1, graph.edges[0], gradients)
    forces.index_add_(1, graph.edges[1], -gradients)
    virials = -torch.einsum("pa,mpb->mab", graph.vectors, gradients)
    return Prediction(
        atomic.sum(1).numpy(), atomic.numpy(), forces.numpy(), virials.numpy(), gradients.numpy()
    )  # fmt: skip


def with_ghosts(frame: Frame, elements: Sequence[str], cutoff: float, layers: int) -> tuple[Graph, NDArray[np.int64]]:
    """A periodic frame as LAMMPS sees it: images within layers × cutoff are ghost atoms of their own.

    Returns the graph, local atoms first, edges around local atoms and around ghosts that messages come from; and the
    atom [N] that each node is an image of.
    """
    local = Graph.of(frame, elements, cutoff)
    edges, vectors = local.edges.numpy(), local.vectors.numpy()
    around: list[list[int]] = [[] for _ in frame.numbers]
    for edge, atom in enumerate(edges[0]):
        around[atom].append(edge)
    nodes: dict[tuple[int, ...], int] = {}
    homes: list[int] = []
    places: list[Array] = []

    def node_of(home: int, place: Array) -> int:
        # an image is known by its displacement from home, a sum of lattice vectors
        key = (home, *np.round((place - frame.positions[home]) * 1e3).astype(int).tolist())
        if key not in nodes:
            nodes[key] = len(homes)
            homes.append(home)
            places.append(place)
        return nodes[key]

    for home, place in enumerate(frame.positions):
        node_of(home, place)
    found: list[tuple[int, int]] = []
    steps: list[Array] = []
    done = 0
    for _ in range(max(1, layers)):
        centers, done = range(done, len(homes)), len(homes)
        for center in centers:
            for edge in around[homes[center]]:
                found.append((center, node_of(int(edges[1][edge]), places[center] + vectors[edge])))
                steps.append(vectors[edge])
    origin = np.array(homes)
    graph = Graph(
        local.species[torch.from_numpy(origin)],
        torch.tensor(found).T.contiguous(),
        torch.from_numpy(np.array(steps)),
        len(frame.numbers),
    )
    return graph, origin
