"""Rules that take frames out of a set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rareal.errors import DatasetError
from rareal.records import Frame, Label, LabeledFrame
from rareal.subset import CUTOFF, farthest, fingerprints, select


def rows(count: int = 40) -> list[LabeledFrame]:
    """Frames of initial data and four rounds, of two origins; the bond gets longer and longer."""
    return [
        LabeledFrame(
            Frame(
                np.array([6, 1]),
                np.array([[0, 0, 0], [0, 0, 1.0 + 0.05 * k]]),
                origin="path" if k % 2 else "noise",
                round=k // 8 - 1,
            ),
            Label(0.0, np.zeros((2, 3)), "a"),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], list(range(40))),
        (["every=10"], [0, 10, 20, 30]),
        (["rounds=initial"], list(range(8))),
        (["rounds=0,2-3"], [*range(8, 16), *range(24, 40)]),
        (["origin=path"], list(range(1, 40, 2))),
        (["origin=path,noise", "rounds=3", "every=3"], [32, 35, 38]),
        (["every=3", "rounds=3"], [33, 36, 39]),  # in the order in which they are given
    ],
)
def test_rules(rules: list[str], expected: list[int]) -> None:
    assert select(rows(), rules, seed=1) == expected


def test_random_frames_are_the_seed_s() -> None:
    chosen = select(rows(), ["random=10"], seed=1)
    assert chosen == select(rows(), ["random=10"], seed=1)
    assert chosen != select(rows(), ["random=10"], seed=2)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 10
    assert select(rows(), ["random=400"], seed=1) == list(range(40))


def test_diverse_frames_cover_the_range() -> None:
    chosen = select(rows(), ["diverse=4"], seed=1)
    assert chosen[0] == 0
    lengths = [1.0 + 0.05 * k for k in chosen]
    assert max(lengths) - min(lengths) > 1.7  # of 1.95
    assert min(np.diff(lengths)) > 0.3


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("evry=10", "there is no rule 'evry', did you mean 'every'"),
        ("every=0", "'0' is no number above 0"),
        ("random=many", "'many' is no number above 0"),
        ("rounds=0,x", "'x' is no round"),
        ("rounds=9", "no frame is left of 40; they are of the rounds -1, 0, 1, 2, 3 .* origins noise, path"),
        ("origin=pull", "no frame is left of 40"),
    ],
)
def test_rules_that_cannot_be_followed(rule: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        select(rows(), [rule], seed=1)


def test_fingerprints_see_geometry_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    numbers = np.array([6, 8, 1, 1, 6])
    frame = Frame(numbers, rng.normal(size=(5, 3)) * 1.5)
    turned = replace(frame, positions=Rotation.random(random_state=1).apply(frame.positions) + 3.0)
    order = np.array([4, 1, 3, 2, 0])
    renumbered = replace(frame, numbers=numbers[order], positions=frame.positions[order])
    swapped = replace(frame, numbers=np.array([8, 6, 1, 1, 6]))
    first, *others = fingerprints([frame, turned, renumbered, swapped])
    np.testing.assert_allclose(others[0], first, atol=1e-12)
    np.testing.assert_allclose(others[1], first, atol=1e-12)
    assert np.abs(others[2] - first).max() > 0.1


def test_fingerprints_see_images_and_end_smoothly() -> None:
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 5.5]])
    free = Frame(np.array([1, 1]), positions)
    near = replace(free, cell=np.diag([20.0, 20.0, 7.0]), pbc=(False, False, True))
    ends = [replace(free, positions=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, CUTOFF + d]])) for d in (-1e-4, 1e-4)]
    found = fingerprints([free, near, *ends])
    assert found[0].max() == 0.0
    assert found[1].max() > 0.5  # 1.5 Å through the boundary
    np.testing.assert_allclose(found[2], found[3], atol=1e-8)


def test_farthest_points() -> None:
    points = np.array([[0.0], [1.0], [10.0], [4.0], [10.0], [0.0]])
    assert farthest(points, 3).tolist() == [0, 2, 3]
    assert farthest(points, 99).tolist() == [0, 2, 3, 1]  # equal ones once
    assert farthest(points[:0], 3).tolist() == []
