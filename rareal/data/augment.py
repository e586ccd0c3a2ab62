"""Noise copies: uniform displacements around chosen frames (rare-events paper, 2.3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from rareal.records import Frame
from rareal.schema import Section
from rareal.units import Length


class Config(Section):
    """Copies of every selected frame with noise on its coordinates."""

    copies: int = Field(2, ge=0, description="Noise copies of every selected frame; 2 in the paper.")
    amplitude: Length = Field(0.05, gt=0, description="Largest displacement along each axis, Å; 0.05 in the paper.")


def noise_copies(frames: Sequence[Frame], config: Config, rng: np.random.Generator) -> list[Frame]:
    """``config.copies`` displaced copies of each frame, in the order of the frames."""
    copies = []
    for frame in frames:
        for _ in range(config.copies):
            noise = rng.uniform(-config.amplitude, config.amplitude, frame.positions.shape)
            copies.append(replace(frame, positions=frame.positions + noise, origin="noise"))
    return copies
