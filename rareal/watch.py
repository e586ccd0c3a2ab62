"""Tasks that are under way, and what the user sees of them while something is waited for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rareal.errors import WorkerLost
from rareal.progress import Display
from rareal.protocols import Progress

Key = TypeVar("Key")

INTERVAL = 0.2
"""Seconds between two looks at how far a task is."""

LOSSES = 3
"""A task that has been lost so often, with process or machine, is not begun again."""


class Pending(Protocol):
    """Work that is under way: a `Task`, or a batch of labels."""

    future: Future[Any]

    def progress(self) -> tuple[int, int]:
        """(done, total), 0 where that is not known yet."""
        ...


class Report:
    """A `Progress` that leaves word in a file, for whoever waits, in whatever process or on whatever machine."""

    live: dict[Path, Progress] = {}  # noqa: RUF012  (of tasks that run in the process that waits for them)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Note (done, total), at most every `INTERVAL`."""
        if done < total and time.monotonic() - self._last < INTERVAL:
            return
        self._last = time.monotonic()
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        temporary.write_text(f"{done} {total}", encoding="utf-8")
        os.replace(temporary, self.path)
        if self.path in self.live:
            self.live[self.path](done, total)

    def read(self) -> tuple[int, int]:
        """What was noted last."""
        try:
            done, total = self.path.read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return 0, 0
        return int(done), int(total)


class Task:
    """``function(*args)`` in an executor; begun again where it is lost with its process or machine.

    Parameters
    ----------
    report : a file for this task's progress; the function is then called with a `Progress` as its last argument.
    live : told of the progress at once if the executor runs the task in this process.

    Attributes
    ----------
    seconds : from its beginning to its end.
    """

    def __init__(
        self,
        executor: Executor,
        function: Callable[..., Any],
        *args: Any,
        report: Path | None = None,
        live: Progress | None = None,
    ) -> None:
        self.future: Future[Any] = Future()
        self.seconds = 0.0
        self._began = time.monotonic()
        self._executor = executor
        self._function = function
        self._report = Report(report) if report is not None else None
        self._args = args if self._report is None else (*args, self._report)
        self._losses = 0
        if report is not None and live is not None:
            Report.live[report] = live
        self._submit()

    def progress(self) -> tuple[int, int]:
        """What the task has said of itself."""
        return self._report.read() if self._report is not None else (0, 0)

    def _submit(self) -> None:
        try:
            self._executor.submit(self._function, *self._args).add_done_callback(self._ended)
        except Exception as error:
            self._settle(error)

    def _ended(self, theirs: Future[Any]) -> None:
        if theirs.cancelled():
            self._settle(WorkerLost("the task has been cancelled"))
            return
        error = theirs.exception()
        if isinstance(error, WorkerLost) and (losses := self._losses + 1) < LOSSES:
            self._losses = losses
            self._submit()
            return
        self._settle(error, None if error is not None else theirs.result())

    def _settle(self, error: BaseException | None, result: Any = None) -> None:
        self.seconds = time.monotonic() - self._began
        if self._report is not None:
            Report.live.pop(self._report.path, None)
            self._report.path.unlink(missing_ok=True)
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Stage:
    """Work that is shown as one: a bar for all walkers, a bar for all labels of a batch."""

    def __init__(self, show: Progress) -> None:
        self.show = show
        self.items: list[Pending] = []
        self._lengths: dict[Pending, int] = {}

    @property
    def done(self) -> bool:
        """Whether all of it is."""
        return all(item.future.done() for item in self.items)

    def add(self, item: Pending) -> Pending:
        """Count an item in."""
        self.items.append(item)
        return item

    def start(self, executor: Executor, function: Callable[..., Any], *args: Any, report: Path | None = None) -> Task:
        """Begin a task and count it in; see `Task`."""
        task = Task(executor, function, *args, report=report, live=lambda done, total: self.show(done, total))
        self.items.append(task)
        return task

    def refresh(self) -> None:
        """Show how far it is. What has not said yet how long it is counts as long as the others."""
        done = 0
        for item in self.items:
            steps, total = item.progress()
            if total:
                self._lengths[item] = total
            done += 0 if item.future.done() else steps
        if not self._lengths:
            return
        usual = round(sum(self._lengths.values()) / len(self._lengths))
        lengths = {item: self._lengths.get(item, usual) for item in self.items}
        done += sum(length for item, length in lengths.items() if item.future.done())
        self.show(done, sum(lengths.values()))


class Watch:
    """What is under way, shown on a display while something is waited for."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self._stages: list[tuple[Stage, ExitStack]] = []

    def stage(self, name: str) -> Stage:
        """A new bar; it goes when all that is added to it has ended."""
        stack = ExitStack()
        stage = Stage(stack.enter_context(self.display.stage(name)))
        self._stages.append((stage, stack))
        return stage

    def wait(self, *items: Pending) -> list[Any]:
        """The results of ``items``, once all are there; an exception of one is raised."""
        while True:
            self.refresh()
            waiting = [item.future for item in items if not item.future.done()]
            if not waiting:
                return [item.future.result() for item in items]
            wait(waiting, timeout=INTERVAL)

    def ended(self, tasks: Mapping[Key, Task]) -> Iterator[tuple[Key, Task]]:
        """The tasks with their keys, each as soon as it has ended."""
        waiting = dict(tasks)
        while waiting:
            self.refresh()
            for key in [key for key, task in waiting.items() if task.future.done()]:
                yield key, waiting.pop(key)
            wait([task.future for task in waiting.values()], timeout=INTERVAL, return_when=FIRST_COMPLETED)

    def refresh(self) -> None:
        """Bring the bars up to date, and take those away that have ended."""
        for stage, stack in list(self._stages):
            stage.refresh()
            if stage.items and stage.done:
                self._stages.remove((stage, stack))
                stack.close()

    def close(self) -> None:
        """Take all bars away."""
        while self._stages:
            self._stages.pop()[1].close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
