"""Small committees in the model-file contract, made without any of rareal's own models, and their direct evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from torch import Tensor

CUTOFF = 3.0
ELEMENTS = ["C", "H"]
SELF_ENERGIES = {"C": -40.0, "H": -13.5}


class ManyBody(torch.nn.Module):
    """Per-atom energies from a pair term, an embedding of the coordination and an angular (dipole) term."""

    def __init__(self, members: int, seed: int, spread: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> torch.nn.Parameter:
            common = torch.randn(shape, generator=generator, dtype=torch.float64)
            own = torch.randn((members, *shape), generator=generator, dtype=torch.float64)
            return torch.nn.Parameter(common + spread * own)

        self.members = members
        self.cutoff = CUTOFF
        self.pair = weights(2, 2)
        self.density = weights(2)
        self.dipole = weights(2)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        center, neighbor = edge_index[0], edge_index[1]
        energies: list[Tensor] = []
        gradients: list[Tensor] = []
        for m in range(self.members):
            vec = edge_vec.detach().requires_grad_(True)
            square = (vec * vec).sum(1) / self.cutoff**2
            smooth = (1 - square) ** 3
            element = species[neighbor]
            nodes = species.size(0)
            zero = torch.zeros(nodes, dtype=vec.dtype)
            pair = zero.index_add(0, center, smooth * self.pair[m][species[center], element])
            density = zero.index_add(0, center, smooth * self.density[m][element])
            dipole = torch.zeros((nodes, 3), dtype=vec.dtype).index_add(
                0, center, (smooth * self.dipole[m][element]).unsqueeze(1) * vec
            )
            energy = (pair + torch.tanh(density) + (dipole * dipole).sum(1))[:n_local]
            gradient = torch.autograd.grad([energy.sum()], [vec])[0]
            assert gradient is not None
            energies.append(energy.detach())
            gradients.append(gradient)
        return torch.stack(energies), torch.stack(gradients)


class Undefined(torch.nn.Module):
    """No number where a neighbour is further away along z than along y, as none is in what a file is tried out on."""

    def __init__(self, committee: ManyBody) -> None:
        super().__init__()
        self.committee = committee
        self.members = committee.members

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        energies, gradients = self.committee(species, edge_index, edge_vec, n_local)
        if bool((edge_vec[:, 2].abs() > edge_vec[:, 1].abs()).any()):
            energies, gradients = energies * float("nan"), gradients * float("nan")
        return energies, gradients


class MessagePassing(torch.nn.Module):
    """Two layers: what an atom feels depends on its neighbours' own neighbourhoods, so on ghosts up to two cutoffs."""

    def __init__(self, members: int, seed: int, spread: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        common = torch.randn(4, generator=generator, dtype=torch.float64)
        own = torch.randn((members, 4), generator=generator, dtype=torch.float64)
        self.members = members
        self.cutoff = CUTOFF
        self.weights = torch.nn.Parameter(common + spread * own)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        center, neighbor = edge_index[0], edge_index[1]
        energies: list[Tensor] = []
        gradients: list[Tensor] = []
        for m in range(self.members):
            w = self.weights[m]
            vec = edge_vec.detach().requires_grad_(True)
            smooth = (1 - (vec * vec).sum(1) / self.cutoff**2) ** 3
            zero = torch.zeros(species.size(0), dtype=vec.dtype)
            first = torch.tanh(zero.index_add(0, center, smooth * (w[0] + w[1] * species[neighbor].to(vec.dtype))))
            second = zero.index_add(0, center, smooth * (w[2] * first[neighbor] + w[3] * first[center] ** 2))
            energy = (second + torch.sin(second))[:n_local]
            gradient = torch.autograd.grad([energy.sum()], [vec])[0]
            assert gradient is not None
            energies.append(energy.detach())
            gradients.append(gradient)
        return torch.stack(energies), torch.stack(gradients)


def save_committee(
    path: Path,
    module: torch.nn.Module,
    *,
    layers: int = 0,
    dtype: str = "float64",
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Write a model file; entries of ``metadata`` replace the right ones."""
    script = torch.jit.script(module.to(getattr(torch, dtype)))
    entries = {
        "format": 1,
        "architecture": "toy",
        "elements": ELEMENTS,
        "self_energies": [SELF_ENERGIES[element] for element in ELEMENTS],
        "cutoff": CUTOFF,
        "layers": layers,
        "members": module.members,
        "dtype": dtype,
        "units": {"energy": "eV", "length": "angstrom"},
        "dataset_hash": "none",
        "best_member": 0,
        "rareal_version": "test",
        "ops": [],
    } | (metadata or {})
    torch.jit.save(script, str(path), _extra_files={"rareal.json": json.dumps(entries)})
    return path


@dataclass(frozen=True, eq=False)
class Expected:
    """A committee's predictions: energies [M] eV, forces [M, N, 3] eV/Å, virials [M, 3, 3] eV, atomic [M, N] eV."""

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    atomic: np.ndarray

    @property
    def energy_std(self) -> float:
        return float(self.energies.std())

    @property
    def force_std(self) -> np.ndarray:
        """[N] norm of the vector std."""
        return np.sqrt(self.forces.var(axis=0).sum(axis=1))

    @property
    def virial_std(self) -> np.ndarray:
        """[3, 3] of every component."""
        return self.virials.std(axis=0)


def evaluate(path: Path, atoms: Atoms) -> Expected:
    """Evaluate a model file on one graph of the periodic system: no ghosts, ASE's neighbour list."""
    script = torch.jit.load(str(path))
    dtype = next(script.parameters()).dtype
    i, j, vectors = neighbor_list("ijD", atoms, CUTOFF)
    order = np.argsort(i, kind="stable")
    i, j, vectors = i[order], j[order], vectors[order]
    species = torch.tensor([ELEMENTS.index(symbol) for symbol in atoms.symbols])
    output = script(species, torch.tensor(np.stack([i, j])), torch.tensor(vectors, dtype=dtype), len(atoms))
    atomic, gradients = (part.detach().double().numpy() for part in output)
    forces = np.zeros((len(atomic), len(atoms), 3))
    for member, gradient in zip(forces, gradients, strict=True):
        np.add.at(member, i, gradient)
        np.subtract.at(member, j, gradient)
    selves = np.array([SELF_ENERGIES[symbol] for symbol in atoms.symbols])
    return Expected(
        energies=atomic.sum(axis=1) + selves.sum(),
        forces=forces,
        virials=-np.einsum("pa,mpb->mab", vectors, gradients),
        atomic=atomic + selves,
    )


class MorsePairs(torch.nn.Module):
    """Morse pairs of which all members have the same mean; they disagree about pairs near ``where`` [Å] alone.

    A committee of another ``doubt`` [eV] has the same mean surface: dynamics driven by it cannot tell the two apart.
    """

    def __init__(self, members: int, doubt: float, where: float = 1.9) -> None:
        super().__init__()
        self.members = members
        self.cutoff = 2.6
        self.where = where
        opinions = torch.linspace(-1.0, 1.0, members, dtype=torch.float64)
        self.opinions = torch.nn.Parameter(doubt * opinions)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        center = edge_index[0]
        energies: list[Tensor] = []
        gradients: list[Tensor] = []
        for m in range(self.members):
            vec = edge_vec.detach().requires_grad_(True)
            square = (vec * vec).sum(1)
            length = square.sqrt()
            decay = torch.exp(-1.9 * (length - 1.5))
            pair = 6.0 * (decay * decay - 2.0 * decay) * (1 - square / self.cutoff**2) ** 3
            pair = pair + 0.5 * self.opinions[m] * torch.exp(-(((length - self.where) / 0.1) ** 2))
            zero = torch.zeros(species.size(0), dtype=vec.dtype)
            energy = zero.index_add(0, center, pair)[:n_local]
            gradient = torch.autograd.grad([energy.sum()], [vec])[0]
            assert gradient is not None
            energies.append(energy.detach())
            gradients.append(gradient)
        return torch.stack(energies), torch.stack(gradients)
