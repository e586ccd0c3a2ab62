"""ANI: Behler–Parrinello descriptors and one network per element (rare-events paper, section 2.3.1 and Table 1).

The descriptor has ANI-2x's parameters unless the configuration gives others, for any element set; the networks are
TorchANI's ``AtomicNetwork`` with GELU. Both are evaluated by rareal's own code (a native operator; members batched) and
tested against TorchANI's model with the same weights.

Training sees standardised descriptors, (G − mean) / scale, which is a reparametrisation of the first layer: `export`
folds it into the weights, so that the model that leaves is ANI and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from rareal.models.graphs import species_of
from rareal.models.networks import BatchedNetwork, JacobianProduct, ScriptedNetwork
from rareal.neighbours import all_edges
from rareal.plugin import load_ops
from rareal.records import Frame

if TYPE_CHECKING:
    from rareal.models.ani import Config
    from rareal.protocols import Targets

ANI2X_HIDDEN = {
    "H": (256, 192, 160),
    "C": (224, 192, 160),
    "N": (192, 160, 128),
    "O": (192, 160, 128),
    "S": (160, 128, 96),
    "F": (160, 128, 96),
    "Cl": (160, 128, 96),
}
"""Hidden layers per element: Table 1 of the paper for H and C, ANI-2x for the others."""

DEFAULT_HIDDEN = (160, 128, 96)
"""Hidden layers of an element ANI-2x does not know."""

FLOOR = 0.02
"""Smallest spread a descriptor is scaled by: what hardly varies in training must not be blown up elsewhere."""


def padded(columns: int) -> int:
    """Columns of a Jacobian in memory: whole vectors of 16 numbers for the native operators."""
    return -(-columns // 16) * 16


FIRST_SHIFT = 0.8
"""Å, the centre of the first Gaussian."""


def _spread(count: int, cutoff: float) -> tuple[float, ...]:
    return tuple(FIRST_SHIFT + k * (cutoff - FIRST_SHIFT) / count for k in range(count))


@dataclass(frozen=True)
class AEVParameters:
    """Parameters of the descriptor, in the order the native operators take them (Å, Å⁻², radians)."""

    elements: int
    radial: tuple[float, ...]
    shifts_r: tuple[float, ...]
    angular: tuple[float, ...]
    shifts_a: tuple[float, ...]
    sections: tuple[float, ...]

    @classmethod
    def of(cls, config: Config, elements: int) -> AEVParameters:
        """Centres spread as in ANI: distances from 0.8 Å in equal steps, angles from half a section."""
        radial, angular = config.radial, config.angular
        return cls(
            elements,
            (radial.eta, radial.cutoff),
            _spread(radial.shifts, radial.cutoff),
            (angular.eta, angular.zeta, angular.cutoff),
            _spread(angular.shifts, angular.cutoff),
            tuple((k + 0.5) * math.pi / angular.sections for k in range(angular.sections)),
        )

    @property
    def cutoff(self) -> float:
        return self.radial[1]

    @property
    def dimension(self) -> int:
        pairs = self.elements * (self.elements + 1) // 2
        return self.elements * len(self.shifts_r) + pairs * len(self.shifts_a) * len(self.sections)

    def arguments(self) -> tuple[Any, ...]:
        lists = (self.radial, self.shifts_r, self.angular, self.shifts_a, self.sections)
        return (self.elements, *(list(values) for values in lists))


@dataclass(frozen=True, eq=False)
class Features:
    """Descriptors of F frames of one composition, atoms grouped by element.

    Attributes
    ----------
    descriptors : per element [F, n_e, D].
    jacobians : [C, N·D, K], d(descriptor)/d(position) of the first C frames, those that fit into memory; rows in
        grouped order, columns in the frame's own order, padded with zeros (`padded`).
    recompute : the Jacobian [N·D, K] of one of the other frames, as it was before standardisation.
    scales : [N·D], what a row of `recompute` is divided by.
    """

    descriptors: tuple[Tensor, ...]
    jacobians: Tensor
    recompute: Callable[[int], Tensor]
    scales: Tensor

    def __len__(self) -> int:
        return len(self.descriptors[0])

    @property
    def nbytes(self) -> int:
        return self.jacobians.nbytes + sum(d.nbytes for d in self.descriptors)

    def to(self, device: torch.device | str) -> Features:
        """The same on a device; what is recomputed is computed on the CPU and sent there."""
        descriptors = tuple(d.to(device) for d in self.descriptors)
        return replace(self, descriptors=descriptors, jacobians=self.jacobians.to(device))

    def batch(self, index: Tensor) -> Batch:
        """The frames ``index`` [B]; Jacobians are views, for copying them would cost as much as using them."""
        here = index.to(self.jacobians.device)
        return Batch(tuple(d[here] for d in self.descriptors), [self._jacobian(k) for k in index.tolist()])

    def _jacobian(self, k: int) -> Tensor:
        if k < len(self.jacobians):
            return self.jacobians[k]
        return (self.recompute(k) / self.scales[:, None]).to(self.jacobians.device)


@dataclass(frozen=True, eq=False)
class Batch:
    """A mini-batch of `Features`: descriptors per element [B, n_e, D], a Jacobian [N·D, K] per frame."""

    descriptors: tuple[Tensor, ...]
    jacobians: list[Tensor]


class ANI(nn.Module):
    """A committee of ANI models. ``elements`` gives the order of species; ``seeds`` one seed per member."""

    architecture = "ani"
    layers = 0
    mean: Tensor
    scale: Tensor
    networks: Any

    def __init__(self, elements: Sequence[str], seeds: Sequence[int], config: Config) -> None:
        super().__init__()
        load_ops()
        self.elements = tuple(elements)
        self.parameters_aev = AEVParameters.of(config, len(self.elements))
        self.members = len(seeds)
        self.networks = nn.ModuleList(
            BatchedNetwork([self._network(config.hidden.get(element), element, seed) for seed in seeds])
            for element in self.elements
        )
        shape = (len(self.elements), self.parameters_aev.dimension)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def _network(self, hidden: Sequence[int] | None, element: str, seed: int) -> nn.Module:
        from torchani.nn import AtomicNetwork

        sizes = hidden or ANI2X_HIDDEN.get(element, DEFAULT_HIDDEN)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + atomic_numbers[element])
            network: nn.Module = AtomicNetwork((self.parameters_aev.dimension, *sizes, 1), activation="gelu", bias=True)
        return network

    @property
    def cutoff(self) -> float:
        return self.parameters_aev.cutoff

    def member_parameters(self, member: int) -> list[Tensor]:
        """Views into what belongs to one member."""
        return [parameter.detach()[member] for parameter in self.parameters()]

    def prepare(self, frames: Sequence[Frame], memory: int | None = None) -> Features:
        """Descriptors and Jacobians of frames of one composition: computed once, used every epoch.

        Computed in double precision; held in the precision of the weights. A Jacobian takes N·D × 3N numbers, 0.6 MB
        for hexane in single precision: those beyond ``memory`` bytes are recomputed whenever they are needed.
        """
        species = species_of(frames[0], self.elements)
        order = torch.argsort(species, stable=True)
        dtype = self.networks[0].weights[0].dtype
        edges = [all_edges(frame, self.cutoff) for frame in frames]
        rows, columns = len(species) * self.parameters_aev.dimension, padded(3 * len(species))
        kept = len(frames) if memory is None else min(len(frames), memory // (rows * columns * dtype.itemsize))
        jacobians = torch.empty(kept, rows, columns, dtype=dtype)
        values = torch.empty(len(frames), len(species), self.parameters_aev.dimension, dtype=dtype)
        for k, (index, vectors) in enumerate(edges):
            arguments = (species, index, vectors, len(species), *self.parameters_aev.arguments())
            values[k] = torch.ops.rareal.aev(*arguments)[order].to(dtype)
            if k < kept:
                jacobians[k] = self._jacobian(species, order, index, vectors, dtype)
        counts = torch.bincount(species, minlength=len(self.elements)).tolist()

        def recompute(k: int) -> Tensor:
            return self._jacobian(species, order, *edges[k], dtype)

        return Features(torch.split(values, counts, dim=1), jacobians, recompute, torch.ones(rows, dtype=dtype))

    def _jacobian(self, species: Tensor, order: Tensor, index: Tensor, vectors: Tensor, dtype: torch.dtype) -> Tensor:
        """The dense Jacobian of one frame, atoms in the given order: [N·D, 3N], and columns of zeros for padding."""
        atoms, dimension = len(species), self.parameters_aev.dimension
        arguments = (species, index, vectors, atoms, *self.parameters_aev.arguments())
        by_edge = torch.ops.rareal.aev_jacobian(*arguments).to(dtype)
        # index_put_ would add in an order that changes from run to run with more than one thread
        dense = torch.zeros(atoms * atoms, dimension, 3, dtype=dtype)
        dense.index_add_(0, index[0] * atoms + index[1], by_edge)
        dense.index_add_(0, index[0] * (atoms + 1), by_edge, alpha=-1)
        dense = dense.view(atoms, atoms, dimension, 3)
        jacobian = torch.zeros(atoms * dimension, padded(3 * atoms), dtype=dtype)
        jacobian[:, : 3 * atoms] = dense[order].transpose(1, 2).reshape(atoms * dimension, 3 * atoms)
        return jacobian

    def standardise(self, features: Sequence[Features], targets: Sequence[Targets] | None = None) -> list[Features]:
        """Set mean and scale from the training frames, keep the function the same, return standardised features.

        Frames whose weight is below 1 in ``targets`` have no say. Spreads are floored (`FLOOR`).
        """
        mean, scale = torch.zeros_like(self.mean), torch.ones_like(self.scale)
        trusted = [slice(None) if targets is None else targets[k].weights >= 1.0 for k in range(len(features))]
        for e in range(len(self.elements)):
            rows = torch.cat([f.descriptors[e][t].flatten(0, 1) for f, t in zip(features, trusted, strict=True)])
            if len(rows):
                mean[e] = rows.mean(0)
                scale[e] = torch.sqrt(rows.var(0, unbiased=False) + FLOOR**2)
        with torch.no_grad():
            for network, m0, s0, m1, s1 in zip(self.networks, self.mean, self.scale, mean, scale, strict=True):
                weight, bias = network.weights[0], network.biases[0]
                bias += (((m1 - m0) / s0) @ weight).unsqueeze(1)
                weight *= (s1 / s0)[None, :, None]
        self.mean, self.scale = mean, scale
        return [self._standardised(f) for f in features]

    def features(self, frames: Sequence[Frame]) -> Batch:
        """Standardised features of frames of one composition, outside training."""
        return self._standardised(self.prepare(frames)).batch(torch.arange(len(frames)))

    def _standardised(self, features: Features) -> Features:
        mean, scale = self.mean.cpu(), self.scale.cpu()
        descriptors = tuple((d - mean[e]) / scale[e] for e, d in enumerate(features.descriptors))
        scales = torch.cat([scale[e].repeat(d.shape[1]) for e, d in enumerate(descriptors)])
        features.jacobians.div_(scales[:, None])
        return replace(features, descriptors=descriptors, scales=scales)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Energies without self-energies [M, B] and forces [M, B, N, 3] of a standardised batch."""
        frames = len(batch.jacobians)
        energy = batch.descriptors[0].new_zeros(self.members, frames)
        cotangents = []
        for network, descriptors in zip(self.networks, batch.descriptors, strict=True):
            count = descriptors.shape[1]
            if count == 0:
                continue
            atomic, gradient = network.energy_gradient(descriptors.flatten(0, 1))
            energy = energy + atomic.view(self.members, frames, count).sum(2)
            cotangents.append(gradient.view(self.members, frames, -1))
        atoms = sum(d.shape[1] for d in batch.descriptors)
        by_position: Tensor = JacobianProduct.apply(torch.cat(cotangents, dim=2), *batch.jacobians)  # type: ignore[no-untyped-call]
        return energy, -by_position[:, :, : 3 * atoms].reshape(self.members, frames, atoms, 3)

    def export(self, dtype: torch.dtype) -> torch.jit.ScriptModule:
        """The TorchScript committee of the model-file contract, standardisation folded into the first layer."""
        networks = []
        for network, mean, scale in zip(
            self.networks, self.mean.cpu().double(), self.scale.cpu().double(), strict=True
        ):
            weights = [w.detach().cpu().double() for w in network.weights]
            biases = [b.detach().cpu().double() for b in network.biases]
            weights[0] = weights[0] / scale[None, :, None]
            biases[0] = biases[0] - (mean @ weights[0]).unsqueeze(1)
            networks.append(ScriptedNetwork([w.to(dtype) for w in weights], [b.to(dtype) for b in biases]))
        return torch.jit.script(ScriptedANI(self.parameters_aev, networks).eval())


class ScriptedANI(nn.Module):
    """The committee as LAMMPS evaluates it; its `forward` is the model-file contract."""

    def __init__(self, parameters: AEVParameters, networks: Sequence[ScriptedNetwork]) -> None:
        super().__init__()
        self.n_elements = parameters.elements
        self.radial = list(parameters.radial)
        self.shifts_r = list(parameters.shifts_r)
        self.angular = list(parameters.angular)
        self.shifts_a = list(parameters.shifts_a)
        self.sections = list(parameters.sections)
        self.members = networks[0].weights[0].shape[0]
        self.networks = nn.ModuleList(networks)
        # per element: three tensors of every hidden layer, two of the output
        self.counts = [3 * (network.depth - 1) + 2 for network in networks]
        self.packed = [torch.empty(0)]  # TorchScript takes its type from what is in it

    @torch.jit.export
    def pack(self) -> None:
        """Lay the weights out as the native operator reads them; model files hold them as they are trained."""
        packed: list[Tensor] = []
        for network in self.networks:
            packed.extend(network.packed())  # type: ignore[operator]
        self.packed = packed

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients with respect to the edge vectors [M, P, 3]."""
        if edge_vec.device.type != "cpu":
            return self.step_by_step(species, edge_index, edge_vec, n_local)
        if self.packed[0].numel() == 0:
            self.pack()
        energies, gradients = torch.ops.rareal.ani(
            species, edge_index, edge_vec, n_local, self.n_elements,
            self.radial, self.shifts_r, self.angular, self.shifts_a, self.sections, self.packed, self.counts,
        )  # fmt: skip
        return energies, gradients

    def step_by_step(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int
    ) -> tuple[Tensor, Tensor]:
        """The same from the operators that other devices have."""
        aev = torch.ops.rareal.aev(
            species, edge_index, edge_vec, n_local, self.n_elements,
            self.radial, self.shifts_r, self.angular, self.shifts_a, self.sections,
        )  # fmt: skip
        energies = torch.zeros([self.members, n_local], dtype=edge_vec.dtype, device=edge_vec.device)
        cotangents = torch.zeros([self.members, n_local, aev.size(1)], dtype=edge_vec.dtype, device=edge_vec.device)
        local = species[:n_local]
        element = 0
        for network in self.networks:
            atoms = torch.nonzero(local == element).squeeze(1)
            atomic, gradient = network(aev.index_select(0, atoms))
            energies.index_copy_(1, atoms, atomic)
            cotangents.index_copy_(1, atoms, gradient)
            element += 1  # noqa: SIM113 (TorchScript unrolls this loop and knows no enumerate of modules)
        gradients = torch.ops.rareal.aev_vjp(
            cotangents, species, edge_index, edge_vec, n_local, self.n_elements,
            self.radial, self.shifts_r, self.angular, self.shifts_a, self.sections,
        )  # fmt: skip
        return energies, gradients
