"""Splits: sizes, inheritance, overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rareal.data.split import AlternatingConfig, Config, InheritedConfig, KFoldConfig, RandomConfig, split
from rareal.errors import DatasetError
from rareal.records import Trained


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


def test_alternating_shares_new_frames_by_turns_and_keeps_the_members_initial_splits() -> None:
    config = AlternatingConfig(train_fraction=0.75)
    first = split(config, 40, 3, None, None, stream())
    assert (first.sum(axis=1) == 30).all()
    assert len({row.tobytes() for row in first}) == 3
    mask = first
    for count in (41, 43, 48, 60):  # however many come at a time
        mask = split(config, count, 3, mask, 1, stream())
    assert (mask[:, :40] == first).all()
    new = mask[:, 40:]
    assert (new == new[0]).all()
    at_once = split(config, 60, 3, first, 1, stream())
    assert (mask == at_once).all()
    assert [int(window.sum()) for window in new[0].reshape(5, 4)] == [3, 3, 3, 3, 3]


def test_folds_are_even_disjoint_and_stay() -> None:
    config = KFoldConfig()
    first = split(config, 22, 4, None, None, stream())
    held_out = ~first
    assert (held_out.sum(axis=0) == 1).all()
    assert sorted(held_out.sum(axis=1)) == [5, 5, 6, 6]
    second = split(config, 41, 4, first, 2, np.random.default_rng(3))
    assert (second[:, :22] == first).all()
    assert ((~second).sum(axis=0) == 1).all()
    assert sorted((~second).sum(axis=1)) == [10, 10, 10, 11]


@pytest.mark.parametrize(("folds", "members"), [(2, 5), (8, 3)])
def test_folds_need_not_be_as_many_as_members(folds: int, members: int) -> None:
    mask = split(KFoldConfig(folds=folds), 16, members, None, None, stream())
    assert ((~mask).sum(axis=1) == 16 // folds).all()
    for member in range(members):
        assert (mask[member] == mask[member % folds]).all()
    assert len({row.tobytes() for row in mask}) == min(folds, members)


def test_fewer_frames_than_folds_are_refused() -> None:
    with pytest.raises(DatasetError, match="4 frames cannot be dealt to 5 folds"):
        split(KFoldConfig(), 4, 5, None, None, stream())


@pytest.mark.parametrize("config", [RandomConfig(), InheritedConfig(), KFoldConfig(), AlternatingConfig()])
@pytest.mark.parametrize("count", [9, 10, 37])
def test_every_member_always_learns_and_validates(config: Config, count: int) -> None:
    mask = None
    for frames in (8, count):
        mask = split(config, frames, 4, mask, 1, stream())
        assert mask.shape == (4, frames)
        assert mask.any(axis=1).all()
        assert (~mask).any(axis=1).all()


def overlap(mask: np.ndarray) -> float:
    return Trained(Path(), mask, 0, (), ()).training_overlap


def test_overlap_is_one_for_equal_sets_and_grows_with_inheritance() -> None:
    first = split(InheritedConfig(), 100, 3, None, None, stream())
    second = split(InheritedConfig(), 120, 3, first, 0, stream())
    assert overlap(np.ones((3, 10), dtype=bool)) == 1.0
    assert overlap(first) < overlap(second) < 1.0
    assert overlap(np.eye(3, dtype=bool)) == 0.0
