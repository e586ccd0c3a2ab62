"""Which member learns from which frame.

random : anew in every round. inherited : as the best member's, new frames at random (rare-events paper, 2.3.6).
kfold : every member validates on a fold of its own. alternating : new frames go to training and validation by turns,
the same for all members (aims-PAX, A 3 c).
"""

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


class KFoldConfig(Section):
    """The frames are dealt to folds; member m validates on fold m mod k and learns from the others."""

    kind: Literal["kfold"] = "kfold"
    folds: int | None = Field(None, ge=2, description="Number of folds; as many as members if empty.")


class AlternatingConfig(Section):
    """Every member draws the initial data's split; new frames go to training and validation by turns, for all alike."""

    kind: Literal["alternating"] = "alternating"
    train_fraction: float = Field(0.8, gt=0, lt=1, description="Share of the frames a member learns from.")


Config = RandomConfig | InheritedConfig | KFoldConfig | AlternatingConfig


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
    old = np.empty((members, 0), dtype=bool)
    if previous is not None and config.kind != "random":
        old = np.tile(previous[best or 0], (members, 1)) if config.kind == "inherited" else previous
    new, first = count - old.shape[1], not old.shape[1]
    if isinstance(config, KFoldConfig):
        added = folded(config.folds or members, new, members, old.shape[1], rng)
    elif isinstance(config, AlternatingConfig) and not first:
        added = np.tile(by_turns(config.train_fraction, old.shape[1], count), (members, 1))
    else:
        added = drawn(config.train_fraction, new, members, first, rng)
    return np.concatenate([old, added], axis=1)


def drawn(fraction: float, count: int, members: int, alone: bool, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Every member draws its share; where there are no other frames (``alone``) it keeps one of each sort."""
    if alone and count < 2:
        raise DatasetError("a data set of one frame cannot be split into training and validation")
    share = round(fraction * count)
    if alone:
        share = min(max(share, 1), count - 1)
    return np.array([rng.permutation(count) < share for _ in range(members)], dtype=bool).reshape(members, count)


def folded(folds: int, count: int, members: int, dealt: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Deal frames to folds of equal size, going on after the ``dealt`` ones; a member learns not from its own fold."""
    if dealt + count < folds:
        raise DatasetError(f"a data set of {dealt + count} frames cannot be dealt to {folds} folds; lower split.folds")
    fold = (dealt + rng.permutation(count)) % folds
    return np.array([fold != member % folds for member in range(members)], dtype=bool).reshape(members, count)


def by_turns(fraction: float, start: int, stop: int) -> NDArray[np.bool_]:
    """Training or validation of frames ``start`` to ``stop``, evenly interleaved; goes on where it ended."""
    validated = np.floor(np.arange(start, stop + 1) * (1.0 - fraction) + 1e-9)
    return np.asarray(np.diff(validated) == 0)
