"""Layers of a whole committee: weights carry the member as first axis, [M, in, out]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """A random stream per member, so that a member's weights depend on its own seed alone."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def xavier(streams: Sequence[torch.Generator], inputs: int, outputs: int) -> Tensor:
    """Glorot and Bengio's uniform weights, [M, in, out]."""
    bound = (6.0 / (inputs + outputs)) ** 0.5
    return torch.stack([(torch.rand(inputs, outputs, generator=s) * 2.0 - 1.0) * bound for s in streams])


class Linear(nn.Module):
    """y = x W + b for every member: [M, n, in] to [M, n, out]."""

    def __init__(self, streams: Sequence[torch.Generator], inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(xavier(streams, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(len(streams), 1, outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias
        return torch.bmm(x, self.weight) if bias is None else torch.baddbmm(bias, x, self.weight)


class Embedding(nn.Module):
    """A learned vector per element and member: species [n] to [M, n, features]."""

    def __init__(self, streams: Sequence[torch.Generator], elements: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([torch.randn(elements, features, generator=s) for s in streams]))

    def forward(self, species: Tensor) -> Tensor:
        return self.weight.index_select(1, species)
