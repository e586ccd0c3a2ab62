"""The model file: a whole committee in TorchScript with its metadata, written, checked and read here.

The metadata travel as the extra file ``rareal.json`` inside the archive (`rareal.export.archive`).
``forward(species, edge_index, edge_vec, n_local)`` returns the members' atomic energies [M, n_local] without
self-energies and the gradients of their sums with respect to the edge vectors [M, P, 3]; `Committee` turns these into
energies and forces, as the pair style does. `Committee` reads AOTInductor packages as well (`rareal.export.package`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

import rareal
from rareal.errors import ModelFileError
from rareal.export import archive
from rareal.export.archive import EXTRA, UNITS, Metadata
from rareal.export.package import Package
from rareal.neighbours import all_edges
from rareal.plugin import load_ops
from rareal.protocols import EnergyForces, Repulsion
from rareal.records import Array, Frame

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class WithRepulsion(nn.Module):
    """A committee on top of a repulsive core, evaluated once for all members."""

    def __init__(self, committee: nn.Module, core: nn.Module) -> None:
        super().__init__()
        self.committee = committee
        self.core = core

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients [M, P, 3], the core's added to each member's."""
        energies, gradients = self.committee(species, edge_index, edge_vec, n_local)
        core, core_gradients = self.core(species, edge_index, edge_vec, n_local)
        return energies + core.unsqueeze(0), gradients + core_gradients.unsqueeze(0)


def write(
    model: Any,
    path: Path,
    self_energies: Sequence[float],
    *,
    dtype: str,
    dataset_hash: str = "",
    best_member: int = 0,
    check: Sequence[Frame] = (),
    repulsion: Repulsion | None = None,
) -> Metadata:
    """Export ``model`` to ``path`` and release it only if it reproduces the model on the frames ``check``.

    Parameters
    ----------
    self_energies : per element, eV.
    best_member : which member (from 0) has the lowest force error over the data set.
    check : frames of one composition.
    repulsion : a core that ``model`` has been trained on top of; the file contains it.

    Raises
    ------
    ModelFileError
        If the reloaded file disagrees with the model by more than float32 allows.
    ConfigError
        If the core is wider than the model's neighbour list.
    """
    script = model.export(DTYPES[dtype])
    if repulsion is not None:
        repulsion.check_cutoff(model.elements, model.cutoff)
        core = repulsion.script(model.elements).to(DTYPES[dtype])
        script = torch.jit.script(WithRepulsion(script, core).eval())
    metadata = Metadata(
        architecture=model.architecture,
        elements=tuple(model.elements),
        self_energies=tuple(float(e) for e in self_energies),
        cutoff=float(model.cutoff),
        layers=int(model.layers),
        members=int(model.members),
        dtype=dtype,
        dataset_hash=dataset_hash,
        best_member=best_member,
        units=UNITS,
        rareal_version=rareal.__version__,
        repulsion=repulsion.settings() if repulsion is not None else None,
    )
    temporary = path.with_name(path.name + ".part")
    script.save(str(temporary), _extra_files={EXTRA: json.dumps(asdict(metadata), indent=1)})
    if check:
        _check_parity(model, Committee.load(temporary), check, repulsion)
    os.replace(temporary, path)
    return metadata


def _check_parity(model: Any, exported: Committee, frames: Sequence[Frame], repulsion: Repulsion | None = None) -> None:
    with torch.no_grad():
        energies, forces = (t.double().numpy() for t in model(model.features(frames)))
    shift = sum(exported.self_energy[int(z)] for z in frames[0].numbers)
    for k, frame in enumerate(frames):
        energy, force = exported.energies_forces(frame)
        core, core_force = repulsion.energy_forces(frame) if repulsion is not None else (0.0, np.zeros_like(force[0]))
        energy_error = float(np.abs(energy - shift - core - energies[:, k]).max())
        force_error = float(np.abs(force - core_force - forces[:, k]).max())
        # single precision keeps 7 digits of numbers that a standardised descriptor may have scaled up
        scale = 1.0 + float(np.abs(forces[:, k]).max()) + float(np.abs(core_force).max())
        if not (energy_error < 2e-4 * scale and force_error < 2e-4 * scale):
            raise ModelFileError(
                f"the exported committee differs from the trained one on frame {k} by {energy_error:.2e} eV and "
                f"{force_error:.2e} eV/Å; the model file was not released. This is a bug in the model's export"
            )


class Committee:
    """A model file in Python: the members' energies and forces of a frame, as LAMMPS computes them."""

    def __init__(self, model: Any, metadata: Metadata) -> None:
        self.model = model
        self.metadata = metadata
        self.dtype = DTYPES[metadata.dtype]
        numbers = [atomic_numbers[e] for e in metadata.elements]
        self._species = {z: k for k, z in enumerate(numbers)}
        self.self_energy = dict(zip(numbers, metadata.self_energies, strict=True))

    @classmethod
    def load(cls, path: Path) -> Committee:
        """Read a model file, TorchScript or an AOTInductor package.

        Raises
        ------
        ModelFileError
            If it is missing, damaged, foreign, or of a format we do not know, or predicts no numbers.
        """
        load_ops()
        metadata, package = archive.read(path)
        try:
            model: Any = (
                Package.load(path, metadata.compiled, metadata.cutoff)
                if package
                else torch.jit.load(str(path), map_location="cpu")
            )
        except (RuntimeError, ValueError, AttributeError) as error:
            raise ModelFileError(
                f"{path} is no model file that torch {torch.__version__} can read: {_first_line(error)}"
            ) from error
        committee = cls(model, metadata)
        committee._try_out(path)
        return committee

    def _try_out(self, path: Path) -> None:
        """Evaluate a zigzag chain of all elements, as the pair style does: the file is what its metadata promise."""
        count, cutoff = max(3, len(self.metadata.elements)), self.metadata.cutoff
        places = torch.arange(count, dtype=torch.float64)[:, None] * torch.tensor([0.25 * cutoff, 0.0, 0.0])
        places[1::2, 1:] += torch.tensor([0.15, 0.015]) * cutoff
        left = torch.arange(count - 1)
        edges = torch.stack([torch.cat([left, left + 1]), torch.cat([left + 1, left])])
        edges = edges[:, torch.argsort(edges[0], stable=True)]
        species = torch.arange(count) % len(self.metadata.elements)
        try:
            found = self._evaluate(species, edges, places[edges[1]] - places[edges[0]])
        except (RuntimeError, AttributeError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path} cannot be evaluated: {_first_line(error)}") from error
        members = self.metadata.members
        if [list(part.shape) for part in found] != [[members, count], [members, edges.shape[1], 3]]:
            raise ModelFileError(f"{path} returned arrays of other shapes than its metadata promise")
        if any(part.dtype != self.dtype for part in found):
            raise ModelFileError(f"{path} promises {self.metadata.dtype}, but computes in another precision")
        if not all(bool(torch.isfinite(part).all()) for part in found):
            raise ModelFileError(f"{path} predicts energies or forces that are no numbers")

    def _evaluate(self, species: Tensor, index: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        # as written: specialising to the shapes of one frame would cost more than it gains for the next
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            energies, gradients = self.model(species, index, vectors.to(self.dtype), len(species))
        return energies.detach(), gradients.detach()

    def energies_forces(self, frame: Frame) -> tuple[Array, Array]:
        """Total energies of the members [M], eV, and their forces [M, N, 3], eV/Å; see `evaluate`."""
        return self.evaluate(frame)[:2]

    def evaluate(self, frame: Frame) -> tuple[Array, Array, Array]:
        """Total energies of the members, their forces, and how their energies change with the strain of the frame.

        Returns
        -------
        energies : [M] eV; forces : [M, N, 3] eV/Å; strain derivatives : [M, 3, 3] eV, symmetric: the stress times the
            volume, positive where the frame is pulled, minus the virial of LAMMPS.

        Raises
        ------
        ModelFileError
            If the frame holds an element the committee does not know.
        """
        unknown = sorted({int(z) for z in frame.numbers} - self._species.keys())
        if unknown:
            raise ModelFileError(
                f"the committee knows {', '.join(self.metadata.elements)}, not atomic number {unknown[0]}"
            )
        species = torch.tensor([self._species[int(z)] for z in frame.numbers])
        index, vectors = all_edges(frame, self.metadata.cutoff)
        atomic, gradients = self._evaluate(species, index, vectors)
        forces = torch.zeros((atomic.shape[0], len(species), 3), dtype=torch.float64)
        gradients = gradients.double()
        forces.index_add_(1, index[0], gradients)
        forces.index_add_(1, index[1], -gradients)
        strain = torch.einsum("mpa,pb->mab", gradients, vectors)
        strain = 0.5 * (strain + strain.transpose(1, 2))  # of an invariant energy it is symmetric but for rounding
        shift = sum(self.self_energy[int(z)] for z in frame.numbers)
        return atomic.double().sum(1).numpy() + shift, forces.numpy(), strain.numpy()

    def surface(self) -> EnergyForces:
        """The committee mean as a potential-energy surface."""

        def mean(frame: Frame) -> tuple[float, Array]:
            energies, forces = self.energies_forces(frame)
            return float(energies.mean()), forces.mean(0)

        return mean


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
