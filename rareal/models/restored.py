"""The modules that a model file's TorchScript was made from, rebuilt from it: compiling ahead of time needs Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

RESTORED = ("ani", "painn", "schnet")
"""Architectures whose modules can be rebuilt. Others' Python code is not ours, and a TorchScript file holds none."""


def restore(architecture: str, script: Any) -> nn.Module:
    """The committee as a plain module with the weights of ``script``, of the same ``forward``."""
    return ani(script) if architecture == "ani" else graph(architecture, script)


def ani(script: Any) -> nn.Module:
    """An ANI committee with the descriptor and the networks of a loaded one."""
    from rareal.models.ani_network import AEVParameters
    from rareal.models.networks import ScriptedNetwork

    parameters = AEVParameters(
        script.n_elements,
        *(tuple(getattr(script, name)) for name in ("radial", "shifts_r", "angular", "shifts_a", "sections")),
    )
    networks = []
    for network in script.networks.children():
        found = network.state_dict()
        weights, biases = ([found[f"{kind}.{k}"] for k in range(network.depth)] for kind in ("weights", "biases"))
        networks.append(ScriptedNetwork(weights, biases))
    return ANIProgram(parameters, networks).eval()


class ANIProgram(nn.Module):
    """`ScriptedANI` without arrays whose number of rows could be 0 or 1, which a compiler would have to know.

    How many atoms an element has is found when it runs; two atoms of no element go with each.
    """

    def __init__(self, parameters: Any, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.arguments = parameters.arguments()
        self.members = len(networks[0].weights[0])  # type: ignore[index, arg-type]
        self.networks = nn.ModuleList(networks)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients with respect to the edge vectors [M, P, 3]."""
        aev = torch.ops.rareal.aev(species, edge_index, edge_vec, n_local, *self.arguments)
        rows = torch.cat([aev, aev.new_zeros([2, aev.shape[1]])])
        extra = torch.arange(2, device=species.device) + n_local
        energies = aev.new_zeros([self.members, n_local + 2])
        cotangents = aev.new_zeros([self.members, n_local + 2, aev.shape[1]])
        local = species[:n_local]
        for element, network in enumerate(self.networks):
            atoms = torch.cat([torch.nonzero(local == element).squeeze(1), extra])
            atomic, gradient = network(rows.index_select(0, atoms))
            energies = energies.index_copy(1, atoms, atomic)
            cotangents = cotangents.index_copy(1, atoms, gradient)
        gradients = torch.ops.rareal.aev_vjp(
            cotangents[:, :n_local], species, edge_index, edge_vec, n_local, *self.arguments
        )
        return energies[:, :n_local], gradients


def graph(architecture: str, script: Any) -> nn.Module:
    """`ScriptedGraphModel` with the network and the radial functions of a loaded one."""
    from rareal.models import painn_network, schnet_network
    from rareal.models.graphs import ScriptedGraphModel
    from rareal.models.radial import Radial

    weights: dict[str, Tensor] = script.network.state_dict()
    members, elements, features = weights["embedding.weight"].shape
    layers = len(list(script.network.interactions.children()))
    radial = Radial(
        "bessel" if script.radial.bessel else "gaussian",
        len(script.radial.centres),
        script.radial.cutoff,
        script.radial.damped,
    )
    radial.load_state_dict(script.radial.state_dict())
    basis = len(script.radial.centres)
    kind = painn_network.Network if architecture == "painn" else schnet_network.Network
    network = kind(elements, [0] * members, features, layers, basis).to(weights["embedding.weight"].dtype)
    network.load_state_dict(weights)
    return ScriptedGraphModel(network.requires_grad_(False).eval(), radial, members).eval()


def core(settings: dict[str, Any], elements: tuple[str, ...], dtype: torch.dtype) -> nn.Module:
    """The repulsive core that a model file's metadata describe."""
    from rareal.models.zbl import ZBL

    return ZBL(settings["factor"]).script(elements).to(dtype).eval()
