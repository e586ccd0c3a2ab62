"""A repulsive core under any model: the universal potential of Ziegler, Biersack and Littmark.

The Stopping and Range of Ions in Matter (Pergamon, 1985), equations 2-59 and 2-60:

    V(r) = Z1 Z2 e² / r · φ(r/a),   a = 0.46850 Å / (Z1^0.23 + Z2^0.23),   φ(x) = Σ c_k exp(−d_k x).

It is multiplied by the polynomial of Gasteiger et al. (arXiv:2003.03123, equation 8), which is 1 where the nuclei
meet and zero, with its first and second derivatives, at the outer radius: the sum of the covalent radii times
``factor``. So atoms in their bonds hardly feel it, and atoms that would fuse are thrown apart whatever the networks,
which have never seen them so close, may say.

Training subtracts `ZBL.energy_forces` from the labels; the model file adds `ZBL.script` to every member.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from pydantic import Field

from rareal.errors import ConfigError
from rareal.records import Array, Frame
from rareal.schema import Section

if TYPE_CHECKING:
    from torch import nn

COULOMB = 14.3996454784
"""e²/(4πε₀), eV Å."""

LENGTH, POWER = 0.46850, 0.23
"""Screening length: a = LENGTH / (Z1^POWER + Z2^POWER), Å."""

SCREENING = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
"""Coefficient c_k and exponent d_k of each term of φ; the coefficients sum to 1."""

ENVELOPE = 6
"""Exponent p of the switching polynomial."""


class NoneConfig(Section):
    """No repulsive core."""

    kind: Literal["none"] = "none"


class Config(Section):
    """The universal Ziegler-Biersack-Littmark potential at short distances, under any model."""

    kind: Literal["zbl"] = "zbl"
    factor: float = Field(
        1.0, gt=0, le=2, description="Times the sum of two covalent radii: the distance where it has gone to zero."
    )


def envelope(x: Array) -> tuple[Array, Array]:
    """The switching polynomial and its derivative at x = r / r_outer ≤ 1: 1 at 0; zero, up to its curvature, at 1."""
    p = ENVELOPE
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    value = 1.0 - x**p * (a - b * x + c * x**2)
    return value, -a * p * x ** (p - 1) * (1.0 - x) ** 2


def screened(r: Array, z1: Array, z2: Array) -> tuple[Array, Array]:
    """Z1 Z2 e²/r φ(r/a) without any switching [eV], and its derivative [eV/Å], at r [Å]."""
    inverse = (z1**POWER + z2**POWER) / LENGTH
    phi = sum(c * np.exp(-d * inverse * r) for c, d in SCREENING)
    slope = sum(-c * d * inverse * np.exp(-d * inverse * r) for c, d in SCREENING)
    bare = COULOMB * z1 * z2 / r
    return bare * phi, bare * (slope - phi / r)


class ZBL:
    """The switched potential for all elements; ``factor`` times the sum of covalent radii is its outer radius."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def outer(self, z1: Any, z2: Any) -> Any:
        """Distance beyond which two atoms of these atomic numbers feel nothing, Å."""
        return self.factor * (covalent_radii[z1] + covalent_radii[z2])

    def settings(self) -> dict[str, Any]:
        """What a model file says of it, in plain types."""
        return {"kind": "zbl", "factor": self.factor}

    def check_cutoff(self, elements: Sequence[str], cutoff: float) -> None:
        """Refuse a core that is wider than the neighbour list of the model it goes under.

        Raises
        ------
        ConfigError
            If the outer radius of a pair of ``elements`` exceeds ``cutoff``, Å.
        """
        for first, second in combinations_with_replacement(elements, 2):
            outer = float(self.outer(atomic_numbers[first], atomic_numbers[second]))
            if outer > cutoff:
                fitting = np.floor(100 * self.factor * cutoff / outer) / 100
                raise ConfigError(
                    f"repulsion.factor: the core of {first}-{second} ends at {outer:.2f} Å, beyond the model's cutoff "
                    f"of {cutoff:g} Å; lower the factor to {fitting:g} or less"
                )

    def pair(self, r: Array, z1: Any, z2: Any) -> tuple[Array, Array]:
        """Energy [eV] and its derivative [eV/Å] of pairs at the distances ``r`` [P], Å."""
        outer = self.outer(z1, z2)
        value, slope = screened(r, np.asarray(z1, float), np.asarray(z2, float))
        switch, switch_slope = envelope(np.minimum(r / outer, 1.0))
        return value * switch, slope * switch + value * switch_slope / outer

    def energy_forces(self, frame: Frame) -> tuple[float, Array]:
        """Energy [eV] and forces [N, 3] [eV/Å] of a frame, periodic images included."""
        from rareal.neighbours import all_edges

        numbers = np.asarray(frame.numbers)
        index, vectors = (
            part.numpy() for part in all_edges(frame, 2.0 * self.factor * float(covalent_radii[numbers].max()))
        )
        center, neighbor = index
        distance = np.linalg.norm(vectors, axis=1)
        energy, slope = self.pair(distance, numbers[center], numbers[neighbor])
        forces = np.zeros((len(numbers), 3))
        # every pair is there in both directions: half of its energy, and all of its force on the centre
        np.add.at(forces, center, (slope / distance)[:, None] * vectors)
        return 0.5 * float(energy.sum()), forces

    def script(self, elements: Sequence[str]) -> nn.Module:
        """The same for TorchScript: ``forward(species, edge_index, edge_vec, n_local)`` returns the atomic energies
        [n_local] and the gradients [P, 3] with respect to the edge vectors; double precision until converted.
        """
        from rareal.models.zbl_script import ScriptedZBL

        numbers = np.array([atomic_numbers[element] for element in elements])
        return ScriptedZBL(numbers, self.outer(numbers[:, None], numbers[None, :]))


def build(config: NoneConfig | Config, elements: Sequence[str]) -> ZBL | None:
    """The core that ``config`` asks for, None where it asks for none."""
    return ZBL(config.factor) if isinstance(config, Config) else None
