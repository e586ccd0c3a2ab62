"""What message-passing models share: graphs of frames, forces from edge vectors, members in one batch, export.

An architecture is a `nn.Module` that TorchScript understands, with the weights of all members, first axis M, and

    forward(species [n], edges [2, P], basis [M, P, K + 1], unit [M, P, 3]) -> atomic energies [M, n]

where ``basis`` and ``unit`` are what `Radial` says of the edges. The energy's derivatives with respect to these two
give those with respect to the edge vectors, from which forces and virial follow (Curator paper, section 5.1, equations
4 to 6); the radial functions themselves are evaluated and differentiated once, for all members and layers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from rareal.models.radial import Radial, edge_gradients
from rareal.neighbours import all_edges
from rareal.records import Frame


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs of B frames of N atoms in one: species [B·N], edges [2, P] (centre, neighbour), edge vectors [P, 3] Å."""

    species: Tensor
    edges: Tensor
    vectors: Tensor
    frames: int


@dataclass(frozen=True, eq=False)
class GraphFeatures:
    """Edges of F frames of one composition.

    Attributes
    ----------
    species : [N]; edges : [2, P] of all frames one after another, atoms numbered from 0 in each; vectors : [P, 3] Å.
    starts : [F + 1], where the edges of each frame begin.
    """

    species: Tensor
    edges: Tensor
    vectors: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.species, self.edges, self.vectors, self.starts))

    def to(self, device: torch.device | str) -> GraphFeatures:
        return GraphFeatures(self.species.to(device), self.edges.to(device), self.vectors.to(device), self.starts)

    def batch(self, index: Tensor) -> GraphBatch:
        """The frames ``index`` [B] as one graph."""
        first, last = self.starts[index], self.starts[index + 1]
        counts = last - first
        # the n-th edge of frame k is edge starts[k] + n of all
        before = torch.cumsum(counts, 0) - counts
        rows = torch.arange(int(counts.sum())) + torch.repeat_interleave(first - before, counts)
        shift = torch.repeat_interleave(torch.arange(len(index)) * len(self.species), counts)
        rows, shift = rows.to(self.edges.device), shift.to(self.edges.device)
        return GraphBatch(self.species.repeat(len(index)), self.edges[:, rows] + shift, self.vectors[rows], len(index))


def graph_features(frames: Sequence[Frame], species: Tensor, cutoff: float, dtype: torch.dtype) -> GraphFeatures:
    """Edges of frames of one composition."""
    found = [all_edges(frame, cutoff) for frame in frames]
    counts = torch.tensor([0, *(index.shape[1] for index, _ in found)])
    return GraphFeatures(
        species,
        torch.cat([index for index, _ in found], 1),
        torch.cat([vectors for _, vectors in found]).to(dtype),
        torch.cumsum(counts, 0),
    )


def forces_of(batch: GraphBatch, gradients: Tensor) -> Tensor:
    """Forces [M, B, N, 3] from dE/d(edge vector) [M, P, 3]."""
    members, atoms = len(gradients), len(batch.species)
    forces = torch.zeros((members, atoms, 3), dtype=gradients.dtype, device=gradients.device)
    forces = forces.index_add(1, batch.edges[0], gradients).index_add(1, batch.edges[1], -gradients)
    return forces.view(members, batch.frames, -1, 3)


def species_of(frame: Frame, elements: Sequence[str]) -> Tensor:
    """Index of each atom's element, [N]."""
    index = {atomic_numbers[element]: k for k, element in enumerate(elements)}
    return torch.tensor([index[int(z)] for z in frame.numbers])


class GraphModel(nn.Module):
    """A committee of message-passing models: an architecture, its radial functions, and the Model protocol."""

    network: Any
    radial: Any

    def __init__(
        self, architecture: str, elements: Sequence[str], members: int, layers: int, network: nn.Module, radial: Radial
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.elements = tuple(elements)
        self.members = members
        self.layers = layers
        self.network = network
        self.radial = radial

    @property
    def cutoff(self) -> float:
        return float(self.radial.cutoff)

    def member_parameters(self, member: int) -> list[Tensor]:
        """Views into what belongs to one member."""
        return [parameter.detach()[member] for parameter in self.parameters()]

    def prepare(self, frames: Sequence[Frame], memory: int | None = None) -> GraphFeatures:
        """Edges of frames of one composition; small beside everything else, so ``memory`` does not matter."""
        dtype = next(self.network.parameters()).dtype
        return graph_features(frames, species_of(frames[0], self.elements), self.cutoff, dtype)

    def standardise(
        self, features: Sequence[GraphFeatures], targets: Sequence[Any] | None = None
    ) -> list[GraphFeatures]:
        """Nothing to standardise."""
        return list(features)

    def features(self, frames: Sequence[Frame]) -> GraphBatch:
        """Frames of one composition as one graph, outside training."""
        device = next(self.network.parameters()).device
        return self.prepare(frames).to(device).batch(torch.arange(len(frames)))

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Energies without self-energies [M, B] and forces [M, B, N, 3]; differentiable where gradients are enabled."""
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            energies, gradients = evaluate(
                self.network, self.radial, self.members, batch.species, batch.edges, batch.vectors,
                len(batch.species), differentiable,
            )  # fmt: skip
        energies = energies.view(self.members, batch.frames, -1).sum(2)
        if not differentiable:
            energies, gradients = energies.detach(), gradients.detach()
        return energies, forces_of(batch, gradients)

    def export(self, dtype: torch.dtype) -> torch.jit.ScriptModule:
        """The TorchScript committee of the model-file contract."""
        network = copy.deepcopy(self.network).to("cpu", dtype).requires_grad_(False).eval()
        return torch.jit.script(ScriptedGraphModel(network, copy.deepcopy(self.radial).cpu(), self.members).eval())


def evaluate(
    network: Any, radial: Any, members: int, species: Tensor, edges: Tensor, vectors: Tensor, n_local: int, graph: bool
) -> tuple[Tensor, Tensor]:
    """Atomic energies [M, n_local] and gradients [M, P, 3]; with ``graph`` these can be differentiated further."""
    basis, slope, unit, distance = radial(vectors)
    basis = basis.expand(members, -1, -1).detach().requires_grad_(True)
    directions = unit.expand(members, -1, -1).detach().requires_grad_(True)
    energies = network(species, edges, basis, directions)[:, :n_local]
    by_basis, by_unit = torch.autograd.grad(
        [energies.sum()], [basis, directions], create_graph=graph, allow_unused=True
    )
    if by_basis is None:
        raise RuntimeError("the energies do not depend on the distances")
    return energies, edge_gradients(by_basis, by_unit, slope, unit, distance)


class ScriptedGraphModel(nn.Module):
    """A committee as LAMMPS evaluates it; its `forward` is the model-file contract."""

    def __init__(self, network: nn.Module, radial: nn.Module, members: int) -> None:
        super().__init__()
        self.network = network
        self.radial = radial
        self.members = members

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients with respect to the edge vectors [M, P, 3]."""
        basis, slope, unit, distance = self.radial(edge_vec)
        basis = basis.expand(self.members, -1, -1).detach().requires_grad_(True)
        directions = unit.expand(self.members, -1, -1).detach().requires_grad_(True)
        energies = self.network(species, edge_index, basis, directions)[:, :n_local]
        by_basis, by_unit = torch.autograd.grad([energies.sum()], [basis, directions], allow_unused=True)
        if by_basis is None:
            raise RuntimeError("the energies do not depend on the distances")
        return energies.detach(), edge_gradients(by_basis, by_unit, slope, unit, distance).detach()
