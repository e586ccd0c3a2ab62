"""PaiNN: polarisable atom interaction network (Schütt, Unke, Gastegger, ICML 2021; Curator paper, section 5.1).

Atoms carry scalars and vectors; messages turn and scale the vectors, so that what an atom knows of directions survives
several layers. The functional form is SchNetPack's, with one filter per layer; the message of all members is one native
operator with both of its derivatives. Every layer reaches one cutoff further: LAMMPS needs ghosts to layers × cutoff.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from rareal.models.batched import Embedding, Linear, generators

EPSILON = 1e-8
"""Keeps the norm of a vector differentiable at zero (SchNetPack's value)."""


class Interaction(nn.Module):
    """Messages from neighbours, equations 7 and 8 of the paper."""

    def __init__(self, streams: Sequence[torch.Generator], features: int, basis: int) -> None:
        super().__init__()
        self.hidden = Linear(streams, features, features)
        self.context = Linear(streams, features, 3 * features)
        # the last row belongs to the cutoff function alone: the filter's bias
        self.filter = Linear(streams, basis + 1, 3 * features, bias=False)
        with torch.no_grad():
            self.filter.weight[:, -1] = 0.0

    def forward(self, q: Tensor, v: Tensor, edges: Tensor, basis: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
        x = self.context(silu(self.hidden(q)))
        dq, dv = torch.ops.rareal.painn_message(x, v, self.filter(basis), unit, edges)
        return q + dq, v + dv


class Mixing(nn.Module):
    """Exchange between an atom's scalars and vectors, equations 9 and 10 of the paper."""

    def __init__(self, streams: Sequence[torch.Generator], features: int) -> None:
        super().__init__()
        self.features = features
        self.epsilon = EPSILON
        self.channels = Linear(streams, features, 2 * features, bias=False)
        self.hidden = Linear(streams, 2 * features, features)
        self.context = Linear(streams, features, 3 * features)

    def forward(self, q: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        members, atoms = q.size(0), q.size(1)
        mixed = self.channels(v.reshape(members, 3 * atoms, self.features)).view(members, atoms, 3, 2 * self.features)
        left, right = mixed.split(self.features, dim=3)
        norm = torch.sqrt((left * left).sum(2) + self.epsilon)
        x = self.context(silu(self.hidden(torch.cat([q, norm], 2))))
        dq, dv, dqv = x.split(self.features, dim=2)
        return q + dq + dqv * (left * right).sum(2), v + dv.unsqueeze(2) * right


class Network(nn.Module):
    """PaiNN's energies of all members; see `rareal.models.graphs` for what goes in and out."""

    def __init__(self, elements: int, seeds: Sequence[int], features: int, layers: int, basis: int) -> None:
        super().__init__()
        streams = generators(seeds)
        self.embedding = Embedding(streams, elements, features)
        self.interactions = nn.ModuleList([Interaction(streams, features, basis) for _ in range(layers)])
        self.mixings = nn.ModuleList([Mixing(streams, features) for _ in range(layers)])
        self.hidden = Linear(streams, features, features // 2)
        self.output = Linear(streams, features // 2, 1)

    def forward(self, species: Tensor, edges: Tensor, basis: Tensor, unit: Tensor) -> Tensor:
        q = self.embedding(species)
        v = torch.zeros([q.size(0), q.size(1), 3, q.size(2)], dtype=q.dtype, device=q.device)
        for interaction, mixing in zip(self.interactions, self.mixings):  # noqa: B905 (TorchScript knows no strict)
            q, v = interaction(q, v, edges, basis, unit)
            q, v = mixing(q, v)
        energies: Tensor = self.output(silu(self.hidden(q))).squeeze(2)
        return energies
