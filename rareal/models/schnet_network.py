"""SchNet: continuous-filter convolutions (Schütt et al., J. Chem. Phys. 2018, 148, 241722; rare-events paper, Table 2).

Atoms carry scalars and see distances alone. The rare-events paper (section 3.2) reports that active learning with it
breaks down; it is here so that this can be shown, and it is SchNetPack's, weight for weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from rareal.models.batched import Embedding, Linear, generators


def shifted_softplus(x: Tensor) -> Tensor:
    """ln(1 + eˣ) − ln 2."""
    return softplus(x) - math.log(2.0)


class Interaction(nn.Module):
    """One continuous-filter convolution with its atom-wise layers."""

    def __init__(self, streams: Sequence[torch.Generator], features: int, basis: int) -> None:
        super().__init__()
        self.inward = Linear(streams, features, features, bias=False)
        self.filter_hidden = Linear(streams, basis, features)
        self.filter = Linear(streams, features, features)
        self.hidden = Linear(streams, features, features)
        self.outward = Linear(streams, features, features)

    def forward(self, x: Tensor, edges: Tensor, basis: Tensor, cutoff: Tensor) -> Tensor:
        weights = self.filter(shifted_softplus(self.filter_hidden(basis))) * cutoff
        messages = self.inward(x).index_select(1, edges[1]) * weights
        gathered = torch.zeros_like(x).index_add(1, edges[0], messages)
        update: Tensor = self.outward(shifted_softplus(self.hidden(gathered)))
        return x + update


class Network(nn.Module):
    """SchNet's energies of all members; see `rareal.models.graphs` for what goes in and out."""

    def __init__(self, elements: int, seeds: Sequence[int], features: int, layers: int, basis: int) -> None:
        super().__init__()
        streams = generators(seeds)
        self.embedding = Embedding(streams, elements, features)
        self.interactions = nn.ModuleList([Interaction(streams, features, basis) for _ in range(layers)])
        self.hidden = Linear(streams, features, features // 2)
        self.output = Linear(streams, features // 2, 1)

    def forward(self, species: Tensor, edges: Tensor, basis: Tensor, unit: Tensor) -> Tensor:
        x = self.embedding(species)
        cutoff = basis[:, :, -1:]
        for interaction in self.interactions:
            x = interaction(x, edges, basis[:, :, :-1], cutoff)
        energies: Tensor = self.output(silu(self.hidden(x))).squeeze(2)
        return energies
