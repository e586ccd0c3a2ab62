"""PaiNN: polarisable atom interaction network (Schütt, Unke, Gastegger, ICML 2021; Curator paper, section 5.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rareal.schema import Section
from rareal.units import Length

if TYPE_CHECKING:
    from rareal.models.graphs import GraphModel


class Config(Section):
    """Equivariant message passing; what an atom feels reaches to layers × cutoff."""

    kind: Literal["painn"] = "painn"
    features: int = Field(64, ge=2, multiple_of=2, description="Scalar and vector features per atom.")
    layers: int = Field(3, ge=1, description="Message-passing layers; LAMMPS needs ghosts to layers × cutoff.")
    basis: Literal["bessel", "gaussian"] = Field("bessel", description="Radial basis; sinc functions or Gaussians.")
    basis_functions: int = Field(20, ge=2, description="Number of radial basis functions.")
    cutoff: Length = Field(5.0, gt=0, description="Reach of one layer, Å.")


def build(config: Config, elements: Sequence[str], seeds: Sequence[int]) -> GraphModel:
    """A committee with one member per seed, untrained."""
    from rareal.models.graphs import GraphModel
    from rareal.models.painn_network import Network
    from rareal.models.radial import Radial
    from rareal.plugin import load_ops

    load_ops()
    network = Network(len(elements), seeds, config.features, config.layers, config.basis_functions)
    radial = Radial(config.basis, config.basis_functions, config.cutoff, damped=True)
    return GraphModel("painn", elements, len(seeds), config.layers, network, radial)
