"""SchNet: continuous-filter convolutions (Schütt et al., JCP 2018, 148, 241722; rare-events paper, Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rareal.schema import Section
from rareal.units import Length

if TYPE_CHECKING:
    from rareal.models.graphs import GraphModel


class Config(Section):
    """Invariant message passing; the defaults are Table 2 of the rare-events paper."""

    kind: Literal["schnet"] = "schnet"
    features: int = Field(128, ge=2, multiple_of=2, description="Features per atom; 128 in the paper.")
    layers: int = Field(3, ge=1, description="Interaction blocks; LAMMPS needs ghosts to layers × cutoff.")
    basis_functions: int = Field(25, ge=2, description="Gaussians from 0 to the cutoff; 25 in the paper.")
    cutoff: Length = Field(5.0, gt=0, description="Reach of one block, Å; 5 in the paper.")


def build(config: Config, elements: Sequence[str], seeds: Sequence[int]) -> GraphModel:
    """A committee with one member per seed, untrained."""
    from rareal.models.graphs import GraphModel
    from rareal.models.radial import Radial
    from rareal.models.schnet_network import Network

    network = Network(len(elements), seeds, config.features, config.layers, config.basis_functions)
    radial = Radial("gaussian", config.basis_functions, config.cutoff, damped=False)
    return GraphModel("schnet", elements, len(seeds), config.layers, network, radial)
