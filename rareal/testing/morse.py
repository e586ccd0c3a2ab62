"""A small model in the signature of `rareal.models.script`: Morse pairs whose depth depends on the surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Morse(nn.Module):
    """Morse pairs, deeper or shallower by how crowded both atoms are: one round of messages, a reach of two cutoffs."""

    def __init__(self, elements: int, cutoff: float) -> None:
        super().__init__()
        pairs = (elements, elements)
        self.cutoff = cutoff
        self.depth = nn.Parameter(3.0 + 2.0 * torch.rand(pairs))
        self.length = nn.Parameter(1.0 + 0.3 * torch.rand(pairs))
        self.steepness = nn.Parameter(1.0 + 0.5 * torch.rand(pairs))
        self.crowding = nn.Parameter(0.3 * torch.randn(elements))

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        """Atomic energies [n_local], eV."""
        center, neighbor = edge_index[0], edge_index[1]
        square = (edge_vec * edge_vec).sum(1)
        switch = (1.0 - square / self.cutoff**2) ** 3
        first, second = species[center], species[neighbor]
        zero = torch.zeros(species.size(0), dtype=edge_vec.dtype, device=edge_vec.device)
        crowd = torch.tanh(zero.index_add(0, center, switch * self.crowding[second]))
        decay = torch.exp(-self.steepness[first, second] * (square.sqrt() - self.length[first, second]))
        pair = self.depth[first, second] * (decay * decay - 2.0 * decay) * switch
        return zero.index_add(0, center, pair * (1.0 + crowd[center] * crowd[neighbor]))[:n_local]


def build(elements: Sequence[str], seed: int, cutoff: float) -> Morse:
    """An untrained member; rareal has seeded torch with ``seed`` already."""
    return Morse(len(elements), cutoff)
