"""Which member learns from which frame: random anew every round, or inherited (rare-events paper, 2.3.6)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rareal.errors import DatasetError
from rareal.schema import Section


class RandomConfig(Section):
    """Every member draws its training frames anew in every round."""

    kind: Literal["random"] = "random"
    train_fraction: float = Field(0.8, gt=0, lt=1, description="Share of the frames a member learns from.")


class InheritedConfig(Section):
    """All members continue from the best member's split; only new frames are distributed at random."""

    kind: Literal["inherited"] = "inherited"
    train_fraction: float = Field(0.8, gt=0, lt=1, description="Share of the new frames a member learns from.")


Config = RandomConfig | InheritedConfig


def split(
    config: Config,
    count: int,
    members: int,
    previous: NDArray[np.bool_] | None,
    best: int | None,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Training mask [members, count]; False is validation.

    Parameters
    ----------
    count : frames in the data set, old ones first.
    previous : last round's mask [members, old frames], ``best`` the member with the lowest force error on the
        whole set; both None in the first round.

    Raises
    ------
    DatasetError
        If there are too few frames for every member to have both training and validation frames.
    """
    old = 0 if previous is None or config.kind == "random" else previous.shape[1]
    if count - old and count < 2:
        raise DatasetError("a data set of one frame cannot be split into training and validation")
    mask = np.empty((members, count), dtype=bool)
    if old and previous is not None:
        mask[:, :old] = previous[best or 0]
    for member in range(members):
        new = count - old
        share = round(config.train_fraction * new)
        if not old:
            share = min(max(share, 1), new - 1)
        mask[member, old:] = rng.permutation(new) < share
    return mask


def overlap(mask: NDArray[np.bool_]) -> float:
    """Mean over pairs of members of |A ∩ B| / |A ∪ B| of their training sets: 1 means no diversity is left."""
    members = len(mask)
    pairs = [(a, b) for a in range(members) for b in range(a + 1, members)]
    return float(np.mean([np.sum(mask[a] & mask[b]) / max(1, np.sum(mask[a] | mask[b])) for a, b in pairs]))
