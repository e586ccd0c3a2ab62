"""Labels from an engine that goes wrong in every way: nothing lost, nothing doubled, no wrong label."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tasks import Limited, Slow, kill_the_worker

from rareal.errors import LabelError
from rareal.execution.processes import ProcessExecutor
from rareal.execution.serial import SerialExecutor
from rareal.labeling.cache import Cache
from rareal.labeling.guard import Worker
from rareal.labeling.runner import Labeler
from rareal.labeling.worker import checked
from rareal.records import FailedLabel, Frame, Label
from rareal.testing.engines import Faulty


def frames(*origins: str) -> list[Frame]:
    return [
        Frame(np.array([1, 1]), np.full((2, 3), float(k)), origin=origin, step=k) for k, origin in enumerate(origins)
    ]


def reasons(results: list[Label | FailedLabel]) -> dict[int, str]:
    return {k: result.reason for k, result in enumerate(results) if isinstance(result, FailedLabel)}


def assert_right(given: list[Frame], results: list[Label | FailedLabel]) -> None:
    """Every label is its own frame's."""
    assert len(results) == len(given)
    for frame, result in zip(given, results, strict=True):
        if isinstance(result, Label):
            assert result.energy == 0.5 * np.sum(frame.positions**2)
            np.testing.assert_array_equal(result.forces, -frame.positions)


@pytest.fixture(params=["serial", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = SerialExecutor() if request.param == "serial" else ProcessExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


def test_labels_come_in_order_with_the_engine_hash(executor: Executor) -> None:
    seen: list[tuple[int, int]] = []
    with Labeler(Faulty(), executor) as labeler:
        results = labeler.label(frames(*[""] * 50), lambda done, total: seen.append((done, total)))
    assert [r.energy for r in results if isinstance(r, Label)] == [3.0 * k * k for k in range(50)]
    assert {r.engine for r in results if isinstance(r, Label)} == {"faulty"}
    assert seen == sorted(set(seen))
    assert seen[-1] == (50, 50)


def test_no_frames() -> None:
    with Labeler(Faulty()) as labeler:
        assert labeler.label([]) == []


def test_failures_cost_one_frame_each(executor: Executor) -> None:
    given = frames("", "refuse", "nan", "", "crash", "shape", "", "text", "nothing", "stress", "complex", "")
    with Labeler(Faulty(), executor, max_failed_fraction=1.0) as labeler:
        results = labeler.label(given)
    assert_right(given, results)
    assert reasons(results) == {
        1: "will not",
        2: "the engine returned an energy that is not finite",
        4: "ZeroDivisionError: somebody's bug",
        5: "the engine returned forces of shape (1, 3), not (2, 3)",
        7: "the engine returned as energy 'no'",
        8: "the engine returned no (energy, forces) but None",
        9: "the engine returned stress of shape (3, 3), not (6,)",
        10: reasons(results)[10],
    }
    assert reasons(results)[10].startswith("the engine returned as forces array([[-10.+1.j")


def test_an_engine_may_return_a_plain_pair_of_lists() -> None:
    found = checked((1, [[0, 0, 1], [0, 0, -1]]), frames("")[0])
    assert found.energy == 1.0
    assert found.forces.dtype == np.float64


@pytest.mark.slow
def test_one_in_five_fails_and_nothing_is_lost_or_doubled(executor: Executor, tmp_path: Path) -> None:
    given = frames(*["sometimes"] * 100)
    with Labeler(Faulty(), executor, max_failed_fraction=0.2) as labeler:
        results = labeler.label(given, folder=tmp_path)
    assert_right(given, results)
    assert sorted(reasons(results)) == list(range(1, 100, 5))
    assert sorted(int(path.name) for path in (tmp_path / "failed").iterdir()) == list(range(1, 100, 5))
    for k, reason in reasons(results).items():
        assert (tmp_path / "failed" / f"{k:05d}" / "reason.txt").read_text() == f"{reason}\n"


def test_a_batch_may_have_a_limit_of_its_own(executor: Executor) -> None:
    with Labeler(Faulty(), executor, max_failed_fraction=0.0) as labeler:
        assert isinstance(labeler.submit(frames("refuse"), may_fail=1.0).result()[0], FailedLabel)
        with pytest.raises(LabelError, match=r"max_failed_fraction \(0\)"):
            labeler.submit(frames("refuse")).result()


def test_a_killed_engine_costs_one_retry(executor: Executor, tmp_path: Path) -> None:
    given = frames("", "die_once", "", "die_once", "", "die_once")
    with Labeler(Faulty(tmp_path), executor, max_failed_fraction=0.0) as labeler:
        results = labeler.label(given)
    assert_right(given, results)
    assert not reasons(results)
    assert len(list(tmp_path.glob("died-*"))) == 3


def test_a_frame_that_kills_its_engine_twice_fails_with_the_last_words(executor: Executor) -> None:
    with Labeler(Faulty(), executor, max_failed_fraction=0.5) as labeler:
        results = labeler.label(frames("", "die", "", "leave", ""))
    assert reasons(results) == {
        1: "the label engine died 2 times: the process ended with signal 9: last words",
        3: "the label engine died 2 times: the process ended with exit status 0",
    }


def test_a_frame_that_hangs_fails_and_is_not_tried_again(executor: Executor, tmp_path: Path) -> None:
    given = frames("", "hang", "")
    with Labeler(Faulty(), executor, timeout=1.0, max_failed_fraction=1.0) as labeler:
        labeler.label(frames(""))  # the processes have started
        start = time.monotonic()
        results = labeler.label(given, folder=tmp_path)
    assert time.monotonic() - start < 8.0
    assert_right(given, results)
    assert reasons(results) == {1: "no answer from the label engine within 1 s"}
    assert (tmp_path / "failed" / "00001" / "reason.txt").is_file()


def test_too_many_failures_stop_the_batch_with_a_summary(tmp_path: Path) -> None:
    given = frames("", "refuse", "refuse", *[""] * 3, *["hang"] * 4)
    with (
        Labeler(Faulty(), max_failed_fraction=0.1) as labeler,
        pytest.raises(
            LabelError, match=r"2 of 10 frames got no label after 3 .*max_failed_fraction \(0.1\).*2 x will not.*failed"
        ),
    ):
        labeler.label(given, folder=tmp_path)


def test_engines_have_one_thread_and_no_torch() -> None:
    with Labeler(Faulty(), max_failed_fraction=1.0) as labeler:
        assert reasons(labeler.label(frames("threads"))) == {0: "1 thread, torch False"}


def test_interrupting_ends_the_engines(executor: Executor, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Labeler(Faulty(), executor, scratch=tmp_path) as labeler:
        labeler.label(frames("", "hang", "", "hang"), interrupt)
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - start < 10.0
    deadline = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(tmp_path.iterdir()), "scratch folders are left"


def test_garbage_on_the_streams_and_files_disturbs_nothing(executor: Executor, tmp_path: Path) -> None:
    given = frames("", "noise", "", "noise", "spoil")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with Labeler(Faulty(), executor, 0.5, scratch=scratch) as labeler:
        results = labeler.label(given, folder=tmp_path / "stage", first=10)
        assert_right(given, results)
        assert reasons(results) == {4: "spoilt"}
        labels, failed = tmp_path / "stage" / "labels", tmp_path / "stage" / "failed"
        # what `keep` asks for, under the frame's number
        assert sorted(str(p.relative_to(labels)) for p in labels.rglob("*.*")) == [
            "00011/output.txt",
            "00013/output.txt",
        ]
        assert (labels / "00013" / "output.txt").read_text() == "frame 3\n"
        assert sorted(p.name for p in (failed / "00014").iterdir()) == ["output.txt", "reason.txt"]
        # frames leave nothing behind
        assert not [path for root in scratch.iterdir() for path in root.rglob("*") if path.is_file()]
    executor.shutdown()
    deadline = time.monotonic() + 5
    while list(scratch.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not list(scratch.iterdir())


def test_a_missing_scratch_folder_is_said_and_costs_nothing(tmp_path: Path) -> None:
    with (
        Labeler(Faulty(), scratch=tmp_path / "nowhere") as labeler,
        pytest.raises(LabelError, match=r"no scratch folder.*nowhere.*labels.scratch"),
    ):
        labeler.label(frames(""))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("build", [SerialExecutor, lambda: ProcessExecutor(1)], ids=["serial", "process"])
def test_a_full_scratch_disk_costs_the_frames_that_fill_it(
    build: Callable[[], Executor], small_disk: Path, tmp_path: Path
) -> None:
    """With one worker: what another computes in the same instant finds no room either."""
    given = frames("", "full", "noise", "full", "", "noise")
    with build() as executor, Labeler(Faulty(), executor, 0.5, scratch=small_disk) as labeler:
        results = labeler.label(given, folder=tmp_path / "stage")
    assert_right(given, results)
    assert sorted(reasons(results)) == [1, 3]
    assert "No space left on device" in reasons(results)[1]
    assert (tmp_path / "stage" / "labels" / "00005" / "output.txt").read_text() == "frame 5\n"


def test_a_full_disk_for_the_kept_files_loses_no_label(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(4 * 2**20))
    given = frames("", "noise", "refuse", "spoil")
    with Labeler(Faulty(), max_failed_fraction=0.5, scratch=tmp_path) as labeler:
        results = labeler.label(given, folder=small_disk / "stage")
    assert_right(given, results)
    assert isinstance(results[1], Label)
    assert "its files could not be kept: " in results[1].note
    assert [reason.partition(";")[0] for reason in reasons(results).values()] == ["will not", "spoilt"]


def test_a_limit_on_file_size_is_as_good_as_a_full_disk(tmp_path: Path) -> None:
    with Labeler(Limited(), max_failed_fraction=1.0) as labeler:
        results = labeler.label(frames("", "full", ""))
    assert reasons(results) == {1: "OSError: [Errno 27] File too large"}


def test_a_killed_worker_of_the_executor_costs_nothing(tmp_path: Path) -> None:
    given = frames(*["count"] * 40)
    with ProcessExecutor(2) as executor, Labeler(Slow(tmp_path), executor, max_failed_fraction=0.0) as labeler:
        batch = labeler.submit(given)
        while batch.progress()[0] < 10 and not batch.future.done():
            time.sleep(0.01)
        victim = next(child for _, child in executor._slots if child.pid is not None)
        os.kill(victim.pid or 0, signal.SIGKILL)
        results = batch.result()
    assert_right(given, results)
    assert not reasons(results)
    # what was under way was computed again, no more
    assert 40 <= len(list(tmp_path.iterdir())) <= 60


def test_a_frame_that_kills_its_workers_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with ProcessExecutor(2) as executor, Labeler(Faulty(), executor, max_failed_fraction=0.5) as labeler:
        real = executor.submit

        def submit(function: Any, setup: Any, jobs: Any) -> Any:
            deadly = any(pickle.loads(job.question).step == 3 for job in jobs)
            return real(kill_the_worker if deadly else function, setup, jobs)

        monkeypatch.setattr(executor, "submit", submit)
        labeler.seconds = 0.001  # as after many quick labels: many frames in one task
        given = frames(*[""] * 20)
        results = labeler.label(given)
    assert_right(given, results)
    assert list(reasons(results)) == [3]
    assert "its worker was lost 3 times: the process ended with signal 9" in reasons(results)[3]


def test_an_executor_of_the_standard_library_will_do() -> None:
    import multiprocessing

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        given = frames("", "die", "refuse", "")
        results = Labeler(Faulty(), executor, max_failed_fraction=0.5).label(given)
    assert_right(given, results)
    assert sorted(reasons(results)) == [1, 2]


def test_equal_frames_are_computed_once(tmp_path: Path) -> None:
    given = frames("count", "count", "count")
    again = [replace(given[1], step=99, origin="noise"), given[0]]
    with Labeler(Slow(tmp_path)) as labeler:
        results = labeler.label([*given, *again])
    assert_right([*given, *again], results)
    assert len(list(tmp_path.iterdir())) == 3
    assert [isinstance(r, Label) and r.cached for r in results] == [False, False, False, True, True]


def test_cached_frames_are_not_computed_and_new_ones_are_cached(tmp_path: Path) -> None:
    marks, given = tmp_path / "marks", frames("count", "count", "refuse", "count")
    marks.mkdir()
    cache = Cache(tmp_path / "cache")
    with Labeler(Slow(marks), cache=cache, max_failed_fraction=0.5) as labeler:
        first = labeler.label(given[:3])
        results = labeler.label(given)
    assert_right(given, results)
    # a failure is not kept: it is tried again
    assert len(list(marks.iterdir())) == 5
    assert [isinstance(r, Label) and r.cached for r in results] == [True, True, False, False]
    for old, new in zip(first[:2], results[:2], strict=True):
        assert isinstance(old, Label)
        assert isinstance(new, Label)
        assert (old.energy, old.seconds) == (new.energy, new.seconds)


def test_two_batches_at_the_same_time(executor: Executor) -> None:
    with Labeler(Faulty(), executor) as labeler:
        one, other = frames(*[""] * 30), [replace(f, positions=f.positions + 0.5) for f in frames(*[""] * 30)]
        batches = [labeler.submit(one), labeler.submit(other)]
        assert_right(one, batches[0].result())
        assert_right(other, batches[1].result())


def test_a_worker_is_an_engine(tmp_path: Path) -> None:
    with Worker(Faulty(tmp_path)) as worker:
        good, refused, dies = frames("", "refuse", "die_once")
        assert worker.hash == "faulty"
        assert worker.calculate(good)[0] == 0.0
        with pytest.raises(LabelError, match="will not"):
            worker.calculate(refused)
        assert worker.calculate(dies)[0] == pytest.approx(12.0)


def test_engines_end_with_the_program_that_started_them(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\nfrom rareal.labeling.guard import Worker\nfrom rareal.testing.engines import Faulty\n"
        "from rareal.records import Frame\nworker = Worker(Faulty(), 60.0)\n"
        "worker.calculate(Frame(np.array([1]), np.zeros((1, 3))))\nprint(worker._child.pid, worker._root, flush=True)\n"
        "worker.calculate(Frame(np.array([1]), np.zeros((1, 3)), origin='hang'))\n"
    )
    import sys

    from rareal.execution.child import environment

    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, env=environment(1), text=True
    )
    assert process.stdout is not None
    pid, root = process.stdout.readline().split()
    threading.Timer(0.5, process.kill).start()
    process.wait(timeout=10)
    deadline = time.monotonic() + 10
    while (Path("/proc") / pid).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (Path("/proc") / pid).exists()
    assert not Path(root).exists()
    shutil.rmtree(root, ignore_errors=True)
