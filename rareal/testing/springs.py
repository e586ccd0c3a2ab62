"""For tests of training: molecules held together by springs, and a committee of small networks that learns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rareal.protocols import Targets
from rareal.records import Array, Frame, Label, LabeledFrame

WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


@dataclass(frozen=True)
class Springs:
    """Springs between all pairs of atoms: an engine whose answers are known.

    numbers : [N]; rest : [N, 3] Å, without tension; zero : energy at rest, eV, far from 0 as an engine's is.
    """

    numbers: tuple[int, ...] = (8, 1, 1)
    rest: Array = field(default_factory=lambda: WATER)
    zero: float = -140.0
    stiffness: float = 20.0
    hash: str = "springs"

    def calculate(self, frame: Frame) -> tuple[float, Array]:
        """Energy and forces."""
        energy, forces = self.zero, np.zeros_like(frame.positions)
        for i, j in zip(*np.triu_indices(len(self.rest), 1), strict=True):
            bond = frame.positions[j] - frame.positions[i]
            length = float(np.linalg.norm(bond))
            stretch = length - float(np.linalg.norm(self.rest[i] - self.rest[j]))
            energy += 0.5 * self.stiffness * stretch**2
            forces[i] += self.stiffness * stretch * bond / length
            forces[j] -= self.stiffness * stretch * bond / length
        return energy, forces

    def shaken(self, count: int, seed: int = 0, amplitude: float = 0.1) -> list[LabeledFrame]:
        """So many frames, atoms displaced at random by at most ``amplitude`` Å in each direction, with labels."""
        rng = np.random.default_rng(seed)
        frames = [
            Frame(np.array(self.numbers), self.rest + rng.uniform(-amplitude, amplitude, self.rest.shape))
            for _ in range(count)
        ]
        return [LabeledFrame(frame, Label(*self.calculate(frame), self.hash)) for frame in frames]


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """Distances [F, P] of all pairs, and their derivatives [F, P, 3N]."""

    distances: Tensor
    jacobian: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that is held."""
        return self.distances.nbytes + self.jacobian.nbytes

    def __len__(self) -> int:
        return len(self.distances)

    def batch(self, index: Tensor) -> PairFeatures:
        """The frames ``index``."""
        return PairFeatures(self.distances[index], self.jacobian[index])

    def to(self, device: torch.device) -> PairFeatures:
        """The same on another device."""
        return PairFeatures(self.distances.to(device), self.jacobian.to(device))


class PairCommittee(nn.Module):
    """A network of the distance, summed over pairs; members are modules of their own, nothing is batched over them."""

    architecture = "pairs"
    layers = 0
    cutoff = 10.0

    def __init__(self, elements: Sequence[str], seeds: Sequence[int], width: int = 12) -> None:
        super().__init__()
        self.elements = tuple(elements)
        self.members = len(seeds)
        self.networks = nn.ModuleList()
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                layers = nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
            self.networks.append(nn.Sequential(*layers))
        self.asked_for: list[int | None] = []

    def prepare(self, frames: Sequence[Frame], memory: int | None = None) -> PairFeatures:
        """See `rareal.protocols.Model`."""
        self.asked_for.append(memory)
        positions = torch.from_numpy(np.stack([f.positions for f in frames]))
        first, second = torch.triu_indices(positions.shape[1], positions.shape[1], 1)
        bonds = positions[:, second] - positions[:, first]
        distances = bonds.norm(dim=2)
        jacobian = torch.zeros(*distances.shape, positions.shape[1], 3, dtype=torch.float64)
        pairs = torch.arange(len(first))
        jacobian[:, pairs, second] = bonds / distances[:, :, None]
        jacobian[:, pairs, first] = -bonds / distances[:, :, None]
        return PairFeatures(distances.float(), jacobian.flatten(2).float())

    def standardise(self, features: Sequence[PairFeatures], targets: Sequence[Targets]) -> list[PairFeatures]:
        """There is nothing to scale."""
        return list(features)

    def features(self, frames: Sequence[Frame]) -> PairFeatures:
        """See `rareal.protocols.Model`."""
        return self.prepare(frames)

    def member_parameters(self, member: int) -> list[Tensor]:
        """See `rareal.protocols.Model`."""
        return [p.detach() for p in self.networks[member].parameters()]

    def forward(self, batch: PairFeatures) -> tuple[Tensor, Tensor]:
        """Energies [M, B] and forces [M, B, N, 3]."""
        training = torch.is_grad_enabled()
        energies, forces = [], []
        for network in self.networks:
            with torch.enable_grad():
                distances = batch.distances.detach().requires_grad_()
                # bonds of light elements as numbers about one
                energy = network(5.0 * (distances.unsqueeze(2) - 1.2)).sum((1, 2))
                (slope,) = torch.autograd.grad(energy.sum(), distances, create_graph=training)
            energies.append(energy)
            forces.append(-torch.einsum("fp,fpx->fx", slope, batch.jacobian).unflatten(1, (-1, 3)))
        return torch.stack(energies), torch.stack(forces)

    def export(self, dtype: torch.dtype) -> Any:
        """These are never exported."""
        raise NotImplementedError
