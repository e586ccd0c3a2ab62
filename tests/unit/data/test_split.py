"""Splits: sizes, inheritance, overlap."""

from __future__ import annotations

import numpy as np
import pytest

from rareal.data.split import InheritedConfig, RandomConfig, overlap, split
from rareal.errors import DatasetError


def stream() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("config", [RandomConfig(), InheritedConfig()])
def test_first_round_draws_80_percent_for_every_member_by_itself(config: RandomConfig | InheritedConfig) -> None:
    mask = split(config, 100, 4, None, None, stream())
    assert mask.shape == (4, 100)
    assert (mask.sum(axis=1) == 80).all()
    assert len({row.tobytes() for row in mask}) == 4


def test_inherited_split_continues_from_the_best_member() -> None:
    first = split(InheritedConfig(), 100, 4, None, None, stream())
    second = split(InheritedConfig(), 150, 4, first, 2, stream())
    assert (second[:, :100] == first[2]).all()
    assert (second[:, 100:].sum(axis=1) == 40).all()
    assert len({row.tobytes() for row in second[:, 100:]}) == 4


def test_random_split_forgets() -> None:
    first = split(RandomConfig(), 100, 3, None, None, stream())
    second = split(RandomConfig(), 100, 3, first, 0, np.random.default_rng(8))
    assert not (second == first[0]).all(axis=1).any()


def test_inheritance_with_no_new_frame_is_the_best_members_split() -> None:
    first = split(InheritedConfig(), 50, 2, None, None, stream())
    assert (split(InheritedConfig(), 50, 2, first, 1, stream()) == first[1]).all()


def test_every_member_keeps_a_validation_frame_of_few() -> None:
    mask = split(RandomConfig(train_fraction=0.99), 2, 2, None, None, stream())
    assert (mask.sum(axis=1) == 1).all()


def test_one_frame_is_refused() -> None:
    with pytest.raises(DatasetError, match="one frame cannot be split"):
        split(RandomConfig(), 1, 2, None, None, stream())


def test_overlap_is_one_for_equal_sets_and_grows_with_inheritance() -> None:
    first = split(InheritedConfig(), 100, 3, None, None, stream())
    second = split(InheritedConfig(), 120, 3, first, 0, stream())
    assert overlap(np.ones((3, 10), dtype=bool)) == 1.0
    assert overlap(first) < overlap(second) < 1.0
