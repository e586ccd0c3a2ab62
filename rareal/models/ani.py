"""ANI: Behler–Parrinello descriptors and one network per element (rare-events paper, section 2.3.1 and Table 1).

The descriptor has ANI-2x's parameters, taken from TorchANI, for any element set; the networks are TorchANI's
``AtomicNetwork`` with GELU. Both are evaluated by rareal's own code (a native operator; members batched) and tested
against TorchANI's model with the same weights.

Training sees standardised descriptors, (G − mean) / scale, which is a reparametrisation of the first layer: `export`
folds it into the weights, so that the model that leaves is ANI and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from ase.data import atomic_numbers
from pydantic import Field, field_validator
from torch import Tensor, nn

from rareal.models.networks import BatchedNetwork, ScriptedNetwork
from rareal.neighbours import all_edges
from rareal.plugin import load_ops
from rareal.protocols import Targets
from rareal.records import Frame
from rareal.schema import Section

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


class Config(Section):
    """ANI networks on ANI-2x descriptors."""

    kind: Literal["ani"] = "ani"
    hidden: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="Hidden layer sizes per element, e.g. {C: [224, 192, 160]}; ANI-2x's where not given.",
    )

    @field_validator("hidden")
    @classmethod
    def _known_elements(cls, hidden: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        for element, sizes in hidden.items():
            if element not in atomic_numbers or element == "X":
                raise ValueError(f"'{element}' is no chemical element")
            if not sizes or min(sizes) < 1:
                raise ValueError(f"layer sizes of {element} must be positive whole numbers")
        return hidden


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
    def ani2x(cls, elements: int) -> AEVParameters:
        """ANI-2x's, read from TorchANI in double precision."""
        from torchani.aev import ANIAngular, ANIRadial

        radial, angular = ANIRadial.like_2x().double(), ANIAngular.like_2x().double()
        return cls(
            elements,
            (float(radial.eta), float(radial.cutoff)),
            tuple(radial.shifts.tolist()),
            (float(angular.eta), float(angular.zeta), float(angular.cutoff)),
            tuple(angular.shifts.tolist()),
            tuple(angular.sections.tolist()),
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
    jacobian : [F, N·D, 3N], d(descriptor)/d(position); rows in grouped order, columns in the frame's own order.
    """

    descriptors: tuple[Tensor, ...]
    jacobian: Tensor

    def __len__(self) -> int:
        return len(self.jacobian)

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (*self.descriptors, self.jacobian))

    def to(self, device: torch.device) -> Features:
        return Features(tuple(d.to(device) for d in self.descriptors), self.jacobian.to(device))

    def batch(self, index: Tensor) -> Batch:
        """The frames ``index`` [B]; Jacobians are views, for copying them would cost as much as using them."""
        return Batch(tuple(d[index] for d in self.descriptors), [self.jacobian[k] for k in index.tolist()])


@dataclass(frozen=True, eq=False)
class Batch:
    """A mini-batch of `Features`: descriptors per element [B, n_e, D], a Jacobian [N·D, 3N] per frame."""

    descriptors: tuple[Tensor, ...]
    jacobians: list[Tensor]


class ANI(nn.Module):
    """A committee of ANI models. ``elements`` gives the order of species; ``seeds`` one seed per member."""

    architecture = "ani"
    layers = 0
    mean: Tensor
    scale: Tensor
    networks: Any

    def __init__(self, elements: Sequence[str], seeds: Sequence[int], hidden: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        load_ops()
        self.elements = tuple(elements)
        self.parameters_aev = AEVParameters.ani2x(len(self.elements))
        self.members = len(seeds)
        self.networks = nn.ModuleList(
            BatchedNetwork([self._network(hidden.get(element), element, seed) for seed in seeds])
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

    def species(self, frame: Frame) -> Tensor:
        """Index of each atom's element, [N]."""
        index = {atomic_numbers[element]: k for k, element in enumerate(self.elements)}
        return torch.tensor([index[int(z)] for z in frame.numbers])

    def prepare(self, frames: Sequence[Frame], memory: int | None = None) -> Features:
        """Descriptors and Jacobians of frames of one composition: computed once, used every epoch.

        Computed in double precision; held in single.
        """
        species = self.species(frames[0])
        order = torch.argsort(species, stable=True)
        atoms, dimension = len(species), self.parameters_aev.dimension
        values = torch.empty(len(frames), atoms, dimension)
        jacobian = torch.empty(len(frames), atoms * dimension, 3 * atoms)
        for k, frame in enumerate(frames):
            index, vectors = all_edges(frame, self.cutoff)
            arguments = (species, index, vectors, atoms, *self.parameters_aev.arguments())
            values[k] = torch.ops.rareal.aev(*arguments)[order].float()
            by_edge = torch.ops.rareal.aev_jacobian(*arguments).float()
            dense = torch.zeros(atoms, atoms, dimension, 3)
            dense.index_put_((index[0], index[1]), by_edge, accumulate=True)
            dense.index_put_((index[0], index[0]), -by_edge, accumulate=True)
            jacobian[k] = dense[order].transpose(1, 2).reshape(atoms * dimension, 3 * atoms)
        counts = torch.bincount(species, minlength=len(self.elements)).tolist()
        return Features(torch.split(values, counts, dim=1), jacobian)

    def standardise(
        self, features: Sequence[Features], targets: Sequence[Targets], floor: float = FLOOR
    ) -> list[Features]:
        """Set mean and scale from the training frames, keep the function the same, return standardised features.

        ``floor`` keeps descriptors that hardly vary in training from being blown up elsewhere.
        """
        mean, scale = torch.zeros_like(self.mean), torch.ones_like(self.scale)
        for e in range(len(self.elements)):
            rows = torch.cat(
                [f.descriptors[e][t.weights >= 1].flatten(0, 1) for f, t in zip(features, targets, strict=True)]
            )
            if len(rows):
                mean[e] = rows.mean(0)
                scale[e] = torch.sqrt(rows.var(0, unbiased=False) + floor**2)
        with torch.no_grad():
            for network, m0, s0, m1, s1 in zip(self.networks, self.mean, self.scale, mean, scale, strict=True):
                weight, bias = network.weights[0], network.biases[0]
                bias += (((m1 - m0) / s0) @ weight).unsqueeze(1)
                weight *= (s1 / s0)[None, :, None]
        self.mean, self.scale = mean, scale
        return [self._standardised(f) for f in features]

    def member_parameters(self, member: int) -> list[Tensor]:
        """Views of one member's weights."""
        return [p.detach()[member] for p in self.parameters()]

    def features(self, frames: Sequence[Frame]) -> Batch:
        """Standardised features of frames of one composition, outside training."""
        return self._standardised(self.prepare(frames)).batch(torch.arange(len(frames)))

    def _standardised(self, features: Features) -> Features:
        descriptors, rows = [], []
        for e, d in enumerate(features.descriptors):
            descriptors.append((d - self.mean[e]) / self.scale[e])
            rows.append((1.0 / self.scale[e]).repeat(d.shape[1]))
        features.jacobian.mul_(torch.cat(rows)[None, :, None])
        return Features(tuple(descriptors), features.jacobian)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Energies without self-energies [M, B] and forces [M, B, N, 3] of a standardised batch."""
        frames = len(batch.jacobians)
        energy = torch.zeros(self.members, frames)
        cotangents = []
        for network, descriptors in zip(self.networks, batch.descriptors, strict=True):
            count = descriptors.shape[1]
            if count == 0:
                continue
            atomic, gradient = network.energy_gradient(descriptors.flatten(0, 1))
            energy = energy + atomic.view(self.members, frames, count).sum(2)
            cotangents.append(gradient.view(self.members, frames, -1))
        cotangent = torch.cat(cotangents, dim=2).transpose(0, 1)
        forces = torch.stack([torch.mm(c, j) for c, j in zip(cotangent.unbind(0), batch.jacobians, strict=True)], 1)
        return energy, -forces.view(self.members, frames, -1, 3)

    def export(self, dtype: torch.dtype) -> torch.jit.ScriptModule:
        """The TorchScript committee of the model-file contract, standardisation folded into the first layer."""
        networks = []
        for network, mean, scale in zip(self.networks, self.mean.double(), self.scale.double(), strict=True):
            weights = [w.detach().double() for w in network.weights]
            biases = [b.detach().double() for b in network.biases]
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

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients with respect to the edge vectors [M, P, 3]."""
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


def build(config: Config, elements: Sequence[str], seeds: Sequence[int]) -> ANI:
    """A committee with one member per seed, untrained."""
    return ANI(elements, seeds, config.hidden)
