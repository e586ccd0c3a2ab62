"""The initial data: the structure with Gaussian noise on its coordinates.

The simplest first data there is (Kulichenko et al., Chem. Rev. 2024, section 4.1). It costs one engine call per frame
and knows nothing of stiff and soft motions: the same noise breaks a bond before it turns a methyl group. `normal_modes`
does better where 6 N further calls are affordable.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from rareal.protocols import Engine, Progress
from rareal.records import Array, Frame
from rareal.sampling.draws import labelled
from rareal.sampling.initial import InitialData
from rareal.schema import Section
from rareal.units import Length


class Config(Section):
    """The structure with noise; each frame is a label."""

    kind: Literal["displacement"] = "displacement"
    frames: int = Field(100, ge=2, description="frames to make; each is a label")
    amplitude: Length = Field(
        0.05, gt=0, description="standard deviation of the Gaussian displacement of every coordinate, Å"
    )
    min_distance: float = Field(
        0.7,
        ge=0,
        lt=1,
        description="least distance of two atoms, in sums of their covalent radii; tighter structures are drawn again",
    )


def build(config: Config) -> Displacement:
    """The generator of initial data that ``config`` describes."""
    return Displacement(config)


class Displacement:
    """Makes the initial data."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, engine: Engine, start: Frame, seed: int, progress: Progress | None = None) -> InitialData:
        """Displace and label; the same seed gives the same frames.

        Raises
        ------
        SamplingError, LabelError
            See `rareal.sampling.draws.labelled`.
        """
        config, rng = self.config, np.random.default_rng(seed)

        def draw() -> Array:
            return start.positions + rng.normal(0.0, config.amplitude, start.positions.shape)

        return InitialData(*labelled(engine, start, draw, config.frames, config.min_distance, progress))
