"""An engine in a process of its own, watched: what goes wrong there costs one frame."""

from __future__ import annotations

import pickle
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType

from rareal.errors import LabelError, WorkerLost
from rareal.execution.child import SMALL, Child, Overdue
from rareal.labeling.worker import Compute, Job
from rareal.protocols import Engine
from rareal.records import Calculation, FailedLabel, Frame, Label

START_TIMEOUT = 120.0
"""Seconds a process may take to import its engine."""

ATTEMPTS = 2
"""A process may be killed for no fault of the frame's, but not twice."""

REASON = "reason.txt"


class Worker:
    """An engine in a process of its own; itself an `Engine`.

    The process starts with the first frame and starts again after it died.

    Parameters
    ----------
    engine : what to run; it is sent to the process by pickle.
    timeout : seconds that one frame may take.
    scratch : folder for the engine's files; None is the machine's temporary folder.
    engine_hash : the engine's hash where it is known already: some take time to find out what they are.
    """

    def __init__(
        self, engine: Engine, timeout: float = 3600.0, scratch: Path | None = None, engine_hash: str | None = None
    ) -> None:
        self.engine = engine
        self.timeout = timeout
        self.keep: tuple[str, ...] = tuple(getattr(engine, "keep", ()))
        self._hash = engine_hash
        self._child = Child(Compute(engine, scratch))
        self._root: Path | None = None

    @property
    def hash(self) -> str:
        """The engine's hash."""
        if self._hash is None:
            self._hash = self.engine.hash
        return self._hash

    @property
    def stopped(self) -> bool:
        """Whether it has been ended for good."""
        return self._child.stopped

    def calculate(self, frame: Frame) -> Calculation:
        """What the engine says of a frame; a process that died is tried once more.

        Raises
        ------
        LabelError
            If the engine fails.
        """
        (result,) = self.label([Job(pickle.dumps(frame))])
        if isinstance(result, FailedLabel):
            raise LabelError(result.reason)
        return Calculation(result.energy, result.forces, result.stress, result.note)

    def label(self, jobs: Sequence[Job]) -> Iterator[Label | FailedLabel]:
        """What becomes of each, in order.

        The frames after the one that is computed wait in the process already, so that the engine never waits.

        Raises
        ------
        LabelError
            If the process cannot be made ready.
        WorkerLost
            If it has been stopped for good.
        """
        reach = list(accumulate(len(job.question) for job in jobs))  # bytes up to and with each
        asked = 0
        for k, job in enumerate(jobs):
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    while asked <= k or (asked < len(jobs) and reach[asked] - reach[k] < SMALL):
                        self._ask(jobs[asked].question)
                        asked += 1
                    result, used = self._child.receive(self.timeout)
                except Overdue:
                    result, used = FailedLabel(f"no answer from the label engine within {self.timeout:g} s"), None
                    asked = k + 1
                except WorkerLost as error:
                    if self._child.stopped:
                        raise
                    result, used = FailedLabel(f"the label engine died {attempt} times: {error}"), None
                    asked = k
                    if attempt < ATTEMPTS:
                        self._clear()
                        continue
                    asked = k + 1
                break
            yield self._filed(job, result, used)

    def close(self) -> None:
        """End the process."""
        self._child.close()
        self._clear()

    def stop(self) -> None:
        """End the process for good, from another thread; whoever waits for its answer gets `WorkerLost`."""
        self._child.stop()
        if self._root is not None:  # the process was killed and cannot clear up
            shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Have the process and its engine ready, as the first frame would.

        Raises
        ------
        LabelError
            If the engine cannot be made.
        WorkerLost
            If the process ends or does not start in time.
        """
        if self._child.pid is None or self._root is None:
            self._clear()
            try:
                found, self._root = self._child.ask(None, START_TIMEOUT)
            except Overdue as error:
                raise WorkerLost(f"it did not start within {START_TIMEOUT:g} s") from error
            if found != self.hash:
                self.close()
                raise LabelError(f"the engine's hash in the worker, {found}, is not {self.hash}; is it pickled whole?")

    def _ask(self, question: bytes) -> None:
        self.start()
        self._child.send(question)

    def _filed(self, job: Job, result: Label | FailedLabel, used: str | None) -> Label | FailedLabel:
        """Put the files of a calculation where they belong, before its folder goes.

        ``used`` is the name of that folder, empty if there are no files; of a process that died it is not known.
        """
        folder = self._latest() if used is None else self._root / used if self._root is not None and used else None
        try:
            if isinstance(result, FailedLabel):
                set_aside(folder, job.failed, result.reason)
            elif self.keep and job.kept is not None and folder is not None:
                move_kept(folder, job.kept, self.keep)
        except OSError as error:  # a full disk must not turn a good label into none, or hide why another failed
            lost = f"its files could not be kept: {error}"
            if isinstance(result, FailedLabel):
                result = FailedLabel(f"{result.reason}; {lost}")
            else:
                result = Label(
                    result.energy, result.forces, result.engine, result.seconds, result.stress,
                    note="; ".join(filter(None, (result.note, lost))),
                )  # fmt: skip
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return result

    def _latest(self) -> Path | None:
        """The folder that a process made last: the others have been filed."""
        folders = [path for path in self._root.glob("*") if path.name.isdigit()] if self._root is not None else []
        return max(folders, key=lambda path: int(path.name), default=None)

    def _clear(self) -> None:
        """Remove what a process left in the scratch."""
        if self._child.pid is None and self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None


def set_aside(folder: Path | None, target: Path | None, reason: str) -> None:
    """Move the folder of a calculation that failed to ``target``, with the reason in it."""
    if target is None:
        return
    shutil.rmtree(target, ignore_errors=True)
    if folder is not None and folder.is_dir():
        shutil.copytree(folder, target, symlinks=True)
    else:
        target.mkdir(parents=True)
    (target / REASON).write_text(f"{reason}\n", encoding="utf-8")


def move_kept(folder: Path, target: Path, patterns: Sequence[str]) -> None:
    """Move the files of a calculation that match to ``target``; a folder of an earlier attempt makes way."""
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})
    if not files:
        return
    shutil.rmtree(target, ignore_errors=True)
    for file in files:
        place = target / file.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, place)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a task needs to know to label frames: the arguments of a `Worker`."""

    engine: Engine
    engine_hash: str
    timeout: float
    scratch: Path | None


_workers: dict[tuple[str, float, Path | None], list[Worker]] = {}
_busy: set[Worker] = set()
_lock = threading.Lock()


def label_jobs(setup: Setup, jobs: Sequence[Job]) -> list[Label | FailedLabel]:
    """Label frames with a worker that stays for the next ones: the task that executors are given."""
    key = (setup.engine_hash, setup.timeout, setup.scratch)
    with _lock:
        idle = _workers.setdefault(key, [])
        worker = idle.pop() if idle else Worker(setup.engine, setup.timeout, setup.scratch, setup.engine_hash)
        _busy.add(worker)
    try:
        return list(worker.label(jobs))
    finally:
        with _lock:
            _busy.discard(worker)
            if not worker.stopped:
                _workers[key].append(worker)
        if worker.stopped:
            worker.close()


def close_workers(engine_hash: str) -> None:
    """End the workers of an engine that live in this process."""
    with _lock:
        for key in [key for key in _workers if key[0] == engine_hash]:
            for worker in _workers.pop(key):
                worker.close()
        for worker in _busy:
            if worker.hash == engine_hash:
                worker.stop()
