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
    return ANIProgram(*_ani_parts(script, slice(None))).eval()


def _ani_parts(script: Any, members: slice) -> tuple[Any, list[Any]]:
    """The descriptor of an ANI committee, and the networks of some of its members, element by element."""
    from rareal.models.ani_network import AEVParameters
    from rareal.models.networks import ScriptedNetwork

    parameters = AEVParameters(
        script.n_elements,
        *(tuple(getattr(script, name)) for name in ("radial", "shifts_r", "angular", "shifts_a", "sections")),
    )
    networks = []
    for network in script.networks.children():
        found = network.state_dict()
        weights, biases = (
            [found[f"{kind}.{k}"][members] for k in range(network.depth)] for kind in ("weights", "biases")
        )
        networks.append(ScriptedNetwork(weights, biases))
    return parameters, networks


def member(architecture: str, script: Any, number: int) -> nn.Module:
    """A committee of one: the member ``number``, from 0, of a loaded one, to be made TorchScript again."""
    alone = slice(number, number + 1)
    if architecture == "ani":
        from rareal.models.ani_network import ScriptedANI

        return ScriptedANI(*_ani_parts(script, alone)).eval()
    if architecture in RESTORED:
        return graph(architecture, script, alone)
    from rareal.models.script_network import ScriptedMembers

    return ScriptedMembers([list(script.members.children())[number]]).eval()


class ANIProgram(nn.Module):
    """`ScriptedANI` for a compiler: the same operators, and no array whose number of rows could turn out 0 or 1.

    The native operator's layout of the weights is the same on all processors, so that it can be part of a package.
    """

    def __init__(self, parameters: Any, networks: Sequence[Any]) -> None:
        super().__init__()
        self.arguments = parameters.arguments()
        self.members = len(networks[0].weights[0])
        self.networks = nn.ModuleList(networks)
        packed = [network.packed() for network in networks]
        self.counts = [len(tensors) for tensors in packed]
        for k, tensor in enumerate(tensor for tensors in packed for tensor in tensors):
            self.register_buffer(f"packed_{k}", tensor)

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Energies [M, n_local] and gradients with respect to the edge vectors [M, P, 3]."""
        graph = (species, edge_index, edge_vec, n_local, *self.arguments)
        if edge_vec.device.type != "cpu":
            return self.step_by_step(*graph)
        packed = [getattr(self, f"packed_{k}") for k in range(sum(self.counts))]
        energies, gradients = torch.ops.rareal.ani(*graph, packed, self.counts)
        return energies, gradients

    def step_by_step(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int, *parameters: Any
    ) -> tuple[Tensor, Tensor]:
        """The same from the operators that other devices have; two atoms of no element go with those of each."""
        aev = torch.ops.rareal.aev(species, edge_index, edge_vec, n_local, *parameters)
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
            cotangents[:, :n_local], species, edge_index, edge_vec, n_local, *parameters
        )
        return energies[:, :n_local], gradients


def graph(architecture: str, script: Any, some: slice = slice(None)) -> nn.Module:
    """`ScriptedGraphModel` with the network and the radial functions of a loaded one, or of some of its members."""
    from rareal.models import painn_network, schnet_network
    from rareal.models.graphs import ScriptedGraphModel
    from rareal.models.radial import Radial

    weights: dict[str, Tensor] = {name: tensor[some] for name, tensor in script.network.state_dict().items()}
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
