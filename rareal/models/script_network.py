"""A committee of separate modules, trained and exported by autograd; `rareal.models.script` says what they must do."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rareal.errors import ConfigError
from rareal.models.graphs import GraphBatch, GraphFeatures, forces_of, graph_features, species_of
from rareal.records import Frame

SIGNATURE = "forward(species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random numbers as ``seed`` makes them, and as they were afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def as_written() -> Iterator[None]:
    """No specialising of TorchScript to shapes: every batch has others, and fused code has no second derivative."""
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield


def train(member: nn.Module, wanted: bool) -> None:
    """Switch the gradients of all weights on or off; modules from files have no method for it."""
    for parameter in member.parameters():
        parameter.requires_grad_(wanted and parameter.is_floating_point())


def load_member(path: Path) -> nn.Module:
    """Read one member from a TorchScript file.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not path.is_file():
        raise ConfigError(f"model.files: {path}: no such file")
    try:
        member: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"model.files: {path} is no TorchScript file ({reason}); write it with "
            "torch.jit.save(torch.jit.script(module), file)"
        ) from error
    train(member, True)
    return member


def copied(member: nn.Module) -> nn.Module:
    """A TorchScript copy of a member. By way of a file: `copy` makes no leaves of a scripted module's weights."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(member), file)
    file.seek(0)
    copy: nn.Module = torch.jit.load(file)
    return copy


def check_member(name: str, member: nn.Module, elements: int, cutoff: float) -> None:
    """Refuse a module that cannot be a member.

    Raises
    ------
    ConfigError
        If it is not scriptable, has another signature, nothing to train, or returns something else than energies.
    """
    try:
        script: Any = torch.jit.script(member)
    except Exception as error:  # TorchScript has a type of its own for each complaint
        reason = str(error).strip()
        raise ConfigError(f"model: {name} is not scriptable, TorchScript says:\n{reason}") from error
    schema = script.forward.schema
    kinds = [str(argument.type) for argument in schema.arguments[1:]]
    returns = [str(value.type) for value in schema.returns]
    if kinds != ["Tensor", "Tensor", "Tensor", "int"] or returns != ["Tensor"]:
        raise ConfigError(
            f"model: {name} has forward({', '.join(kinds)}) -> {', '.join(returns)}; a member needs {SIGNATURE}"
        )
    dtype = next((p.dtype for p in member.parameters()), None)
    if dtype is None:
        raise ConfigError(f"model: {name} has no parameters, there is nothing to train")
    species = torch.arange(3) % elements
    edges = torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]])
    step = 0.4 * cutoff * torch.tensor([[1.0, 0.2, 0.1], [-0.3, 0.9, 0.2]], dtype=dtype)
    vectors = torch.cat([step, -step]).requires_grad_(True)
    try:
        with as_written():
            energies = script(species, edges, vectors, 2)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ConfigError(f"model: {name} fails on three atoms, one of them a ghost: {reason}") from error
    if energies.shape != (2,):
        raise ConfigError(
            f"model: {name} returned the shape {list(energies.shape)} for 3 atoms with n_local = 2; it must return the "
            "energies of the first n_local atoms, [2]"
        )
    if energies.dtype != dtype:
        raise ConfigError(f"model: {name} returned {energies.dtype} for edge vectors in {dtype}; follow edge_vec.dtype")
    if not energies.requires_grad or torch.autograd.grad(energies.sum(), vectors, allow_unused=True)[0] is None:
        raise ConfigError(f"model: the energies of {name} do not depend on edge_vec, there would be no forces")


class WithOffsets(nn.Module):
    """A member and an energy per element, from zero, to be trained with it.

    rareal's self-energies are fitted to labels of whole molecules and so contain the mean energy of their bonds, of
    which a module from elsewhere has an idea of its own.
    """

    def __init__(self, member: nn.Module, elements: int) -> None:
        super().__init__()
        self.member = member
        self.offsets = nn.Parameter(torch.zeros(elements, dtype=next(member.parameters()).dtype))

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> Tensor:
        """Atomic energies [n_local]."""
        energies: Tensor = self.member(species, edge_index, edge_vec, n_local)
        return energies + self.offsets[species[:n_local]]


class ScriptCommittee(nn.Module):
    """A committee of modules that have nothing to do with each other; the Model protocol."""

    architecture = "script"

    def __init__(self, members: Sequence[nn.Module], elements: Sequence[str], cutoff: float, layers: int) -> None:
        super().__init__()
        shapes = [{name: p.shape for name, p in member.named_parameters()} for member in members]
        for k, other in enumerate(shapes):
            if other != shapes[0]:
                raise ConfigError(f"model: member {k + 1} has other parameters than member 1; only weights may differ")
        self.elements = tuple(elements)
        self.members = len(members)
        self.cutoff = cutoff
        self.layers = layers
        self.networks = nn.ModuleList([WithOffsets(member, len(elements)) for member in members])

    def member_parameters(self, member: int) -> list[Tensor]:
        """Views of one member's weights."""
        return [p.detach() for p in self.networks[member].parameters() if p.requires_grad]

    def prepare(self, frames: Sequence[Frame], memory: int | None = None) -> GraphFeatures:
        """Edges of frames of one composition; small beside everything else, so ``memory`` does not matter."""
        dtype = next(self.networks.parameters()).dtype
        return graph_features(frames, species_of(frames[0], self.elements), self.cutoff, dtype)

    def standardise(self, features: Sequence[GraphFeatures], targets: Sequence[Any]) -> list[GraphFeatures]:
        """The modules' scales are their own business."""
        return list(features)

    def features(self, frames: Sequence[Frame]) -> GraphBatch:
        """Frames of one composition as one graph, outside training."""
        device = next(self.networks.parameters()).device
        return self.prepare(frames).to(device).batch(torch.arange(len(frames)))

    def forward(self, batch: GraphBatch) -> tuple[Tensor, Tensor]:
        """Energies without self-energies [M, B] and forces [M, B, N, 3]; differentiable where gradients are enabled."""
        differentiable = torch.is_grad_enabled()
        energies, gradients = [], []
        with torch.enable_grad(), as_written():
            for network in self.networks:
                vectors = batch.vectors.detach().requires_grad_(True)
                atomic = network(batch.species, batch.edges, vectors, len(batch.species))
                gradient = None
                if len(vectors) > 0:
                    (gradient,) = torch.autograd.grad(
                        atomic.sum(), vectors, create_graph=differentiable, allow_unused=True
                    )
                energies.append(atomic.view(batch.frames, -1).sum(1))
                gradients.append(torch.zeros_like(vectors) if gradient is None else gradient)
        energy, gradient = torch.stack(energies), torch.stack(gradients)
        if not differentiable:
            energy, gradient = energy.detach(), gradient.detach()
        return energy, forces_of(batch, gradient)

    def export(self, dtype: torch.dtype) -> torch.jit.ScriptModule:
        """The TorchScript committee of the model-file contract."""
        members = [copied(network).to("cpu", dtype).eval() for network in self.networks]
        for member in members:
            train(member, False)
        return torch.jit.script(ScriptedMembers(members).eval())


class ScriptedMembers(nn.Module):
    """The members one after another, as LAMMPS evaluates them; its `forward` is the model-file contract."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients with respect to the edge vectors [M, P, 3]."""
        if n_local == 0:  # a rank without atoms, of which few modules think
            count = len(self.members)
            return edge_vec.new_zeros([count, 0]), edge_vec.new_zeros([count, edge_vec.size(0), 3])
        energies: list[Tensor] = []
        gradients: list[Tensor] = []
        for member in self.members:
            vectors = edge_vec.detach().requires_grad_(True)
            atomic = member(species, edge_index, vectors, n_local)
            gradient = torch.zeros_like(edge_vec)
            if edge_vec.size(0) > 0:
                found = torch.autograd.grad([atomic.sum()], [vectors], allow_unused=True)[0]
                if found is not None:
                    gradient = found
            energies.append(atomic.detach())
            gradients.append(gradient)
        return torch.stack(energies), torch.stack(gradients)
