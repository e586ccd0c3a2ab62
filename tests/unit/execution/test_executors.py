"""Executors: tasks run, losses are named, nothing outlives its time."""

from __future__ import annotations

import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from pathlib import Path

import pytest
from tasks import count, die_twice, refuse

from rareal.errors import WorkerLost
from rareal.execution import processes, serial
from rareal.execution.child import Child, Overdue
from rareal.execution.processes import ProcessExecutor, cores
from rareal.execution.serial import SerialExecutor
from rareal.progress import Silent
from rareal.watch import Task, Watch


@pytest.fixture(params=["serial", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = SerialExecutor() if request.param == "serial" else ProcessExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


def test_results_and_exceptions(executor: Executor) -> None:
    assert list(executor.map(operator.add, range(10), range(10))) == [2 * k for k in range(10)]
    with pytest.raises(ZeroDivisionError):
        executor.submit(operator.truediv, 1, 0).result()


def test_an_exception_that_does_not_pickle_arrives_as_text() -> None:
    with ProcessExecutor(1) as executor, pytest.raises(RuntimeError, match=r"Local: the reason"):
        executor.submit(refuse).result()


def test_tasks_run_in_processes_that_stay(tmp_path: Path) -> None:
    with ProcessExecutor(2) as executor:
        found = {executor.submit(os.getpid).result() for _ in range(5)}
    assert 1 <= len(found) <= 2
    assert os.getpid() not in found
    assert not any((Path("/proc") / str(pid)).exists() for pid in found)


def test_no_more_processes_than_workers_at_a_time() -> None:
    with ProcessExecutor(2) as executor:
        start = time.monotonic()
        list(executor.map(time.sleep, [0.2] * 6))
        assert time.monotonic() - start > 0.55


def test_a_dead_process_costs_its_own_task() -> None:
    with ProcessExecutor(2) as executor:
        good = [executor.submit(operator.add, k, 1) for k in range(5)]
        dead = executor.submit(os.kill, 0, signal.SIGKILL)  # its whole session
        more = [executor.submit(operator.add, k, 1) for k in range(5)]
        with pytest.raises(WorkerLost, match="ended with signal 9"):
            dead.result()
        assert [f.result() for f in good + more] == [*range(1, 6), *range(1, 6)]


def test_shutting_down_waits_or_cancels() -> None:
    executor = ProcessExecutor(1)
    first = executor.submit(operator.add, 1, 1)
    executor.shutdown()
    assert first.result(timeout=0) == 2
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(operator.add, 1, 1)

    executor = ProcessExecutor(1)
    running, waiting = executor.submit(time.sleep, 60), executor.submit(time.sleep, 60)
    while not running.running():
        time.sleep(0.01)
    start = time.monotonic()
    executor.shutdown(cancel_futures=True)
    assert time.monotonic() - start < 5
    with pytest.raises(WorkerLost):
        running.result(timeout=0)
    with pytest.raises(CancelledError):
        waiting.result(timeout=0)


def test_a_child_that_is_overdue_is_ended() -> None:
    child = Child(time.sleep)
    child.ask(0.0)
    pid = child.pid
    with pytest.raises(Overdue):
        child.ask(60.0, timeout=0.2)
    assert not (Path("/proc") / str(pid)).exists()
    assert child.ask(0.0) is None, "it starts again"
    child.close()


def test_kinds_build() -> None:
    assert processes.build(processes.Config()).workers == cores() == len(os.sched_getaffinity(0))
    assert processes.build(processes.Config(workers=7), "label").workers == 7
    assert processes.build(processes.Config(workers=7), "train").workers == 1
    assert serial.build(serial.Config()).workers == 1


class Seen(Silent):
    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def stage(self, name: str):  # type: ignore[no-untyped-def]
        from contextlib import nullcontext

        return nullcontext(lambda done, total: self.calls.append((done, total)))


def test_a_watch_shows_tasks_of_other_processes(executor: Executor, tmp_path: Path) -> None:
    display = Seen()
    with Watch(display) as watch:
        stage = watch.stage("counting")
        tasks = [stage.start(executor, count, tmp_path, 60, report=tmp_path / f".{k}") for k in range(2)]
        assert watch.wait(*tasks) == [60, 60]
    assert display.calls
    assert all(0 <= done <= total in (60, 120) for done, total in display.calls)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seen"], "no file of the progress is left"


def test_a_lost_task_is_begun_again(tmp_path: Path) -> None:
    with ProcessExecutor(1) as executor, Watch(Silent()) as watch:
        assert watch.wait(Task(executor, die_twice, tmp_path)) == [2]
        with pytest.raises(WorkerLost):
            watch.wait(Task(executor, os.kill, 0, signal.SIGKILL))


def test_watching_can_be_interrupted(tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    task = Task(executor, time.sleep, 60)
    threading.Timer(0.5, executor.shutdown, kwargs={"cancel_futures": True}).start()
    with pytest.raises((WorkerLost, RuntimeError)), Watch(Silent()) as watch:
        watch.wait(task)
