"""Uncertainty-driven dynamics: molecular dynamics with a bias towards what the committee disagrees on.

Needs no collective variable to explore; the one there is serves to look at the result. Its free energy has the bias
taken off by reweighting. The bias and the rule for its strength are those of `rareal.sampling.bias`, which every other
sampler takes under ``uncertainty_bias`` as well.

M. Kulichenko, K. Barros, N. Lubbers, Y. W. Li, R. Messerly, S. Tretiak, J. S. Smith, B. Nebgen, Nat. Comput. Sci. 2023,
3, 230; equations 18 and 19 of Kulichenko et al., Chem. Rev. 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from rareal.cv import Variable
from rareal.records import Frame
from rareal.sampling import md
from rareal.sampling.bias import UncertaintyBias


class Config(md.Config):
    """Molecular dynamics with a bias whose strength is set by a rule, unless it is given."""

    kind: Literal["udd"] = "udd"  # type: ignore[assignment]
    uncertainty_bias: UncertaintyBias = Field(
        UncertaintyBias.model_validate({}), description="the bias towards what the committee disagrees on"
    )


def build(config: Config, variables: Sequence[Variable], start: Frame) -> md.MolecularDynamics:
    """The sampler that ``config`` describes."""
    return md.MolecularDynamics(config, variables, start)
