"""Tasks in processes of their own on this machine.

Unlike `concurrent.futures.ProcessPoolExecutor`, a process that dies takes nothing with it but its task, and the
processes are started afresh, not forked: forked OpenMP runtimes hang.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Literal

from pydantic import Field

from rareal.execution.child import Child
from rareal.schema import Section

TRAIN = "train"


class Config(Section):
    """Tasks run in processes on this machine."""

    kind: Literal["processes"] = "processes"
    workers: int | None = Field(
        None, ge=1, description="processes at the same time; the cores this program may use where not given"
    )


def cores() -> int:
    """How many cores this program may use."""
    return len(os.sched_getaffinity(0))


def call(task: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> Any:
    """Run a task; in the process."""
    function, args, kwargs = task
    return function(*args, **kwargs)


class ProcessExecutor(Executor):
    """A pool of processes.

    Parameters
    ----------
    workers : processes at the same time.
    threads : OpenMP threads of each, None for as many as its libraries like.
    """

    def __init__(self, workers: int, threads: int | None = 1) -> None:
        self.workers = workers
        self.threads = threads
        self._todo: queue.SimpleQueue[tuple[Future[Any], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._slots: list[tuple[threading.Thread, Child]] = []
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of ``fn(*args, **kwargs)``; `WorkerLost` is its exception if the process dies."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("no task can be submitted to an executor that has been shut down")
            self._todo.put((future, (fn, args, kwargs)))
            if self._todo.qsize() > self._idle and len(self._slots) < self.workers:
                child = Child(call, self.threads)
                thread = threading.Thread(target=self._serve, args=(child,), daemon=True)
                self._slots.append((thread, child))
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: after all tasks, or at once where they are cancelled."""
        with self._lock:
            self._closed = True
            slots, self._slots = self._slots, []
        if cancel_futures:
            while True:
                try:
                    item = self._todo.get_nowait()
                except queue.Empty:
                    break
                if item is not None:
                    item[0].cancel()
            for _, child in slots:
                child.stop()
        for _ in slots:
            self._todo.put(None)
        if wait:
            for thread, _ in slots:
                thread.join()

    def _serve(self, child: Child) -> None:
        """Hand tasks to one process."""
        while True:
            with self._lock:
                self._idle += 1
            item = self._todo.get()
            with self._lock:
                self._idle -= 1
            if item is None:
                break
            future, task = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(child.ask(task))
            except BaseException as error:  # it belongs to whoever waits for the result
                future.set_exception(error)
        child.close()


def build(config: Config, stage: str = "") -> ProcessExecutor:
    """The executor that ``config`` describes; a training chooses its threads by itself, and only one runs at a time."""
    if stage == TRAIN:
        return ProcessExecutor(1, threads=None)
    return ProcessExecutor(config.workers or cores())
