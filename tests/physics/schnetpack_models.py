"""SchNetPack's PaiNN and SchNet with the weights of one of our committees' members."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import dataloader

# the SchNetPack that installs beside our torch imports a type variable that torch has renamed
if not hasattr(dataloader, "T_co"):
    dataloader.T_co = Any

import schnetpack as spk
from schnetpack import properties

from rareal.models import painn, schnet
from rareal.neighbours import all_edges
from rareal.records import Frame


def dense(ours: Any, member: int, prefix: str) -> dict[str, Tensor]:
    """A linear layer in SchNetPack's names and its layout, [out, in]."""
    found = {f"{prefix}.weight": ours.weight[member].T}
    if ours.bias is not None:
        found[f"{prefix}.bias"] = ours.bias[member, 0]
    return found


def common(network: Any, member: int, numbers: list[int], features: int) -> dict[str, Tensor]:
    embedding = torch.zeros(100, features)
    embedding[numbers] = network.embedding.weight[member]
    return {
        "representation.embedding.weight": embedding,
        **dense(network.hidden, member, "output_modules.0.outnet.0"),
        **dense(network.output, member, "output_modules.0.outnet.1"),
    }


def painn_weights(network: Any, member: int, numbers: list[int], features: int) -> dict[str, Tensor]:
    found = common(network, member, numbers, features)
    filters = [layer.filter.weight[member] for layer in network.interactions]
    found["representation.filter_net.weight"] = torch.cat([f[:-1] for f in filters], 1).T
    found["representation.filter_net.bias"] = torch.cat([f[-1] for f in filters])
    for k, (message, mixing) in enumerate(zip(network.interactions, network.mixings, strict=True)):
        inner, outer = f"representation.interactions.{k}", f"representation.mixing.{k}"
        found |= dense(message.hidden, member, f"{inner}.interatomic_context_net.0")
        found |= dense(message.context, member, f"{inner}.interatomic_context_net.1")
        found |= dense(mixing.hidden, member, f"{outer}.intraatomic_context_net.0")
        found |= dense(mixing.context, member, f"{outer}.intraatomic_context_net.1")
        found |= dense(mixing.channels, member, f"{outer}.mu_channel_mix")
    return found


def schnet_weights(network: Any, member: int, numbers: list[int], features: int) -> dict[str, Tensor]:
    found = common(network, member, numbers, features)
    for k, layer in enumerate(network.interactions):
        prefix = f"representation.interactions.{k}"
        found |= dense(layer.inward, member, f"{prefix}.in2f")
        found |= dense(layer.hidden, member, f"{prefix}.f2out.0")
        found |= dense(layer.outward, member, f"{prefix}.f2out.1")
        found |= dense(layer.filter_hidden, member, f"{prefix}.filter_network.0")
        found |= dense(layer.filter, member, f"{prefix}.filter_network.1")
    return found


def theirs(config: painn.Config | schnet.Config, model: Any, member: int, numbers: list[int]) -> torch.nn.Module:
    """SchNetPack's model with the weights of ``member``; ``numbers`` are the atomic numbers of the model's elements."""
    shared = {"n_atom_basis": config.features, "n_interactions": config.layers}
    cutoff = spk.nn.CosineCutoff(config.cutoff)
    if isinstance(config, painn.Config):
        kind = spk.nn.BesselRBF if config.basis == "bessel" else spk.nn.GaussianRBF
        basis = kind(n_rbf=config.basis_functions, cutoff=config.cutoff)
        representation = spk.representation.PaiNN(radial_basis=basis, cutoff_fn=cutoff, **shared)
        weights = painn_weights(model.network, member, numbers, config.features)
    else:
        basis = spk.nn.GaussianRBF(n_rbf=config.basis_functions, cutoff=config.cutoff)
        representation = spk.representation.SchNet(radial_basis=basis, cutoff_fn=cutoff, **shared)
        weights = schnet_weights(model.network, member, numbers, config.features)
    network = spk.model.NeuralNetworkPotential(
        representation=representation,
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=config.features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )
    missing, unexpected = network.load_state_dict({k: v.detach() for k, v in weights.items()}, strict=False)
    assert not unexpected
    assert all("radial_basis" in name or "cutoff" in name for name in missing), missing
    return network


def energy_forces(network: torch.nn.Module, frame: Frame, cutoff: float) -> tuple[float, np.ndarray]:
    """What SchNetPack says of a frame, from our neighbour list."""
    index, vectors = all_edges(frame, cutoff)
    positions = torch.from_numpy(frame.positions).float()
    inputs = {
        properties.Z: torch.from_numpy(frame.numbers),
        properties.R: positions,
        properties.idx_i: index[0],
        properties.idx_j: index[1],
        properties.offsets: vectors.float() - (positions[index[1]] - positions[index[0]]),
        properties.idx_m: torch.zeros(len(frame.numbers), dtype=torch.int64),
        properties.n_atoms: torch.tensor([len(frame.numbers)]),
    }
    result = network(inputs)
    return float(result["energy"].detach()), result["forces"].detach().double().numpy()
