"""Labelling in worker processes, and everything that may go wrong there."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from rareal.errors import LabelError
from rareal.labeling.runner import Labeler, Worker
from rareal.records import FailedLabel, Frame, Label
from rareal.testing.engines import Faulty


def frames(*origins: str) -> list[Frame]:
    return [
        Frame(np.array([1, 1]), np.full((2, 3), float(k)), origin=origin, step=k) for k, origin in enumerate(origins)
    ]


def reasons(results: list[Label | FailedLabel]) -> dict[int, str]:
    return {k: result.reason for k, result in enumerate(results) if isinstance(result, FailedLabel)}


def test_labels_come_in_order_with_the_engine_hash() -> None:
    seen: list[tuple[int, int]] = []
    with Labeler(Faulty(), workers=2) as labeler:
        results = labeler.label(frames(*[""] * 20), lambda done, total: seen.append((done, total)))
    assert [r.energy for r in results if isinstance(r, Label)] == [3.0 * k * k for k in range(20)]
    assert {r.engine for r in results if isinstance(r, Label)} == {"faulty"}
    assert seen == [(k, 20) for k in range(1, 21)]


def test_no_frames() -> None:
    with Labeler(Faulty()) as labeler:
        assert labeler.label([]) == []


def test_failures_cost_one_frame_each() -> None:
    with Labeler(Faulty(), workers=2, max_failed_fraction=1.0) as labeler:
        results = labeler.label(frames("", "refuse", "nan", "", "crash", "shape", ""))
    assert reasons(results) == {
        1: "will not",
        2: "the engine returned an energy or a force that is not finite",
        4: "ZeroDivisionError: somebody's bug",
        5: "the engine returned forces of shape (1, 3)",
    }


def test_a_killed_worker_costs_one_retry(tmp_path: Path) -> None:
    with Labeler(Faulty(tmp_path), workers=2, max_failed_fraction=0.0) as labeler:
        results = labeler.label(frames("", "die_once", "", "die_once", ""))
    assert all(isinstance(result, Label) for result in results)
    assert (tmp_path / "died-1").exists()


def test_a_frame_that_kills_every_worker_fails_with_its_last_words() -> None:
    with Labeler(Faulty(), workers=2, max_failed_fraction=0.5) as labeler:
        results = labeler.label(frames("", "die", "", ""))
    assert reasons(results) == {1: "the process of the label engine ended with signal 9: last words"}


def test_a_frame_that_hangs_fails_and_is_not_tried_again() -> None:
    with Labeler(Faulty(), timeout=1.0, max_failed_fraction=1.0) as labeler:
        start = time.monotonic()
        results = labeler.label(frames("hang", ""))
    assert time.monotonic() - start < 5.0
    assert reasons(results) == {0: "no answer from the label engine within 1 s"}


def test_too_many_failures_are_an_error_with_a_summary() -> None:
    with (
        Labeler(Faulty(), max_failed_fraction=0.2) as labeler,
        pytest.raises(LabelError, match=r"2 of 4 frames got no label.*max_failed_fraction \(0.2\).*2 x will not"),
    ):
        labeler.label(frames("", "refuse", "refuse", ""))


def test_workers_have_one_thread_and_no_torch() -> None:
    with Labeler(Faulty(), max_failed_fraction=1.0) as labeler:
        assert reasons(labeler.label(frames("threads"))) == {0: "1 thread, torch False"}


def test_interrupting_ends_the_workers() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with Labeler(Faulty(), workers=2) as labeler:
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            labeler.label(frames("", "hang", "", "hang"), interrupt)
        assert time.monotonic() - start < 5.0


def test_a_worker_is_an_engine(tmp_path: Path) -> None:
    with Worker(Faulty(tmp_path)) as worker:
        good, refused, dies = frames("", "refuse", "die_once")
        assert worker.hash == "faulty"
        assert worker.calculate(good)[0] == 0.0
        with pytest.raises(LabelError, match="will not"):
            worker.calculate(refused)
        assert worker.calculate(dies)[0] == pytest.approx(12.0)
