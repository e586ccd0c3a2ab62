"""Many labels: shared out among the workers of an executor, looked up in the cache, and counted when they fail."""

from __future__ import annotations

import pickle
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import replace
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from rareal.errors import LabelError, WorkerLost
from rareal.execution.serial import SerialExecutor
from rareal.labeling.guard import Setup, close_workers, label_jobs
from rareal.labeling.worker import Job
from rareal.protocols import Engine, Progress
from rareal.records import FailedLabel, Frame, Label

TASK_SECONDS = 1.0
"""What a task should take: as many frames go into one. Sending a task takes milliseconds."""

AHEAD = 2
"""Tasks per worker that are under way: while one is computed the next one waits."""

LOSSES = 3
"""A frame whose task has been lost so often, with process or machine, fails: it may be what kills them."""

INTERVAL = 0.1
"""Seconds between two looks at whether someone has interrupted."""

KEPT, FAILED = "labels", "failed"
"""Folders of the engine's files of frames with and without a label, by the frame's number."""

Result = Label | FailedLabel


class Cache(Protocol):
    """Labels of earlier runs; `rareal.labeling.cache` has one."""

    def get(self, engine_hash: str, frame: Frame) -> Label | None:
        """The label, None where there is none."""
        ...

    def put(self, engine_hash: str, frame: Frame, label: Label) -> None:
        """Keep a label."""
        ...

    def describe(self, engine_hash: str, settings: Mapping[str, Any]) -> None:
        """Say what an engine is."""
        ...


class Labeler:
    """Labels frames with the workers of an executor.

    Parameters
    ----------
    engine : the level of theory.
    executor : where it runs; in this process, guarded, where not given.
    max_failed_fraction : largest share of a batch that may fail.
    timeout : seconds that one frame may take.
    scratch : folder for the engine's files while it computes; None is the temporary folder of the worker's machine.
    cache : labels that are not computed again.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor | None = None,
        max_failed_fraction: float = 0.2,
        timeout: float = 3600.0,
        scratch: Path | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.engine = engine
        self.hash = engine.hash
        self.executor = executor or SerialExecutor()
        self.max_failed_fraction = max_failed_fraction
        self.cache = cache
        self.setup = Setup(engine, self.hash, timeout, scratch)
        self.seconds = 0.0
        self._batches: list[Batch] = []

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the engine's hash is of; empty where it does not say."""
        return dict(getattr(self.engine, "settings", {}))

    def submit(
        self, frames: Sequence[Frame], folder: Path | None = None, first: int = 0, may_fail: float | None = None
    ) -> Batch:
        """Begin to label frames; their labels are the result of what is returned.

        Parameters
        ----------
        folder : receives the engine's files, in ``labels/NNNNN`` and ``failed/NNNNN``; None drops them.
        first : the number NNNNN of the first frame.
        may_fail : largest share of these frames that may fail; ``max_failed_fraction`` where not given.
        """
        self._batches = [batch for batch in self._batches if not batch.future.done()]
        batch = Batch(self, frames, folder, first, self.max_failed_fraction if may_fail is None else may_fail)
        self._batches.append(batch)
        batch.start()
        return batch

    def label(
        self, frames: Sequence[Frame], progress: Progress | None = None, folder: Path | None = None, first: int = 0
    ) -> list[Result]:
        """One result per frame, in order; see `submit`.

        Raises
        ------
        LabelError
            If more than ``max_failed_fraction`` of the frames fail.
        """
        batch = self.submit(frames, folder, first)
        told = 0
        try:
            while True:
                finished = wait([batch.future], timeout=INTERVAL).done
                if progress is not None and batch.progress()[0] > told:
                    told = batch.progress()[0]
                    progress(*batch.progress())
                if finished:
                    return batch.result()
        except BaseException:
            batch.cancel()
            raise

    def close(self) -> None:
        """End what is under way, and the workers in this process; the executor is whoever's made it."""
        for batch in self._batches:
            batch.cancel()
        close_workers(self.hash)

    def __enter__(self) -> Labeler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Batch:
    """Frames that are being labelled. A thread of its own hands them out."""

    def __init__(
        self, labeler: Labeler, frames: Sequence[Frame], folder: Path | None, first: int, may_fail: float
    ) -> None:
        self.labeler = labeler
        self.frames = frames
        self.folder = folder
        self.first = first
        self.may_fail = may_fail
        self.future: Future[list[Result]] = Future()
        self._results: list[Result | None] = [None] * len(frames)
        self._losses = [0] * len(frames)
        self._done = 0
        self._failures = 0
        self._cancelled = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, daemon=True).start()

    def progress(self) -> tuple[int, int]:
        """Frames that have a result, and all."""
        return self._done, len(self.frames)

    def result(self) -> list[Result]:
        """One result per frame, in order, once all are there."""
        return self.future.result()

    def cancel(self) -> None:
        """Hand out no more frames."""
        self._cancelled = True

    def _run(self) -> None:
        try:
            self.future.set_result(self._label())
        except BaseException as error:  # it belongs to whoever waits for the result
            self.future.set_exception(error)

    def _label(self) -> list[Result]:
        """Look up what is known, compute the rest, copy what is equal."""
        same: dict[bytes, list[int]] = {}
        for k, frame in enumerate(self.frames):
            same.setdefault(identity(frame), []).append(k)
        self._copies = {indices[0]: indices[1:] for indices in same.values()}
        todo: deque[list[int]] = deque()
        for k in self._copies:
            known = self.labeler.cache.get(self.labeler.hash, self.frames[k]) if self.labeler.cache else None
            if known is None:
                todo.append([k])
            else:
                self._settle(k, replace(known, cached=True))
        if todo and self.labeler.cache is not None:
            self.labeler.cache.describe(self.labeler.hash, self.labeler.settings)
        self._compute(todo)
        return [result for result in self._results if result is not None]

    def _compute(self, todo: deque[list[int]]) -> None:
        executor = self.labeler.executor
        workers = int(getattr(executor, "workers", 1))
        running: dict[Future[list[Result]], list[int]] = {}
        try:
            while todo or running:
                while todo and len(running) < AHEAD * workers and not self._cancelled:
                    task = self._next_task(todo, workers)
                    future = self._submit(task)
                    running[future] = task
                    if future.done():  # of a serial executor: its result may be the last one that is wanted
                        break
                if self._cancelled:
                    raise LabelError("labelling has been interrupted")
                for future in wait(running, timeout=INTERVAL, return_when=FIRST_COMPLETED).done:
                    self._take(future, running.pop(future), todo)
        finally:
            for future in running:
                future.cancel()

    def _next_task(self, todo: deque[list[int]], workers: int) -> list[int]:
        """The frames of the next task: one that was lost alone, of others as many as take `TASK_SECONDS`.

        Towards the end tasks get smaller, so that all workers finish together.
        """
        task = todo.popleft()
        if self._losses[task[0]]:
            return task
        size = int(TASK_SECONDS / self.labeler.seconds) if self.labeler.seconds else 1
        size = min(size, ceil(len(todo) / (AHEAD * workers)))
        while len(task) < size and todo and not self._losses[todo[0][0]]:
            task += todo.popleft()
        return task

    def _submit(self, task: list[int]) -> Future[list[Result]]:
        jobs = [self._job(k) for k in task]
        try:
            return self.labeler.executor.submit(label_jobs, self.labeler.setup, jobs)
        except (BrokenExecutor, RuntimeError) as error:
            raise LabelError(f"the executor takes no more tasks: {error}") from error

    def _job(self, k: int) -> Job:
        question = pickle.dumps(self.frames[k])
        if self.folder is None:
            return Job(question)
        name = f"{self.first + k:05d}"
        return Job(question, self.folder / KEPT / name, self.folder / FAILED / name)

    def _take(self, future: Future[list[Result]], task: list[int], todo: deque[list[int]]) -> None:
        """The results of a task; the frames of one that was lost are handed out again, one by one."""
        try:
            results = future.result()
        except (WorkerLost, BrokenExecutor) as error:
            if self._cancelled:
                return
            for k in reversed(task):
                self._losses[k] += 1
                if self._losses[k] < LOSSES:
                    todo.appendleft([k])
                else:
                    self._settle(k, FailedLabel(f"its worker was lost {LOSSES} times: {error}"))
            return
        for k, result in zip(task, results, strict=True):
            if isinstance(result, Label):
                if self.labeler.cache is not None:
                    self.labeler.cache.put(self.labeler.hash, self.frames[k], result)
                past = self.labeler.seconds or result.seconds
                self.labeler.seconds = 0.8 * past + 0.2 * result.seconds
            self._settle(k, result)

    def _settle(self, k: int, result: Result) -> None:
        """Note a result, for all frames that are equal to this one."""
        self._results[k] = result
        for copy in self._copies[k]:
            self._results[copy] = replace(result, cached=True) if isinstance(result, Label) else result
        count = 1 + len(self._copies[k])
        self._done += count
        if isinstance(result, FailedLabel):
            self._failures += count
            self._refuse_too_many()

    def _refuse_too_many(self) -> None:
        """Stop as soon as the share of failures is certain to be too large: the rest would be a biased set."""
        allowed = self.may_fail
        if self._failures <= allowed * len(self.frames):
            return
        reasons = Counter(result.reason for result in self._results if isinstance(result, FailedLabel))
        common = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        where = f", whose files are in {self.folder / FAILED}" if self.folder is not None else ""
        raise LabelError(
            f"{self._failures} of {len(self.frames)} frames got no label after {self._done} results, more than "
            f"labels.max_failed_fraction ({allowed:g}) allows: {common}. Look at the engine's settings and at the "
            f"frames{where}"
        )


def identity(frame: Frame) -> bytes:
    """The same for frames with the same label: atoms, positions and cell, bit by bit."""
    arrays: Sequence[Any] = (frame.numbers, frame.positions, frame.cell, np.asarray(frame.pbc))
    return b"|".join(np.ascontiguousarray(array).tobytes() for array in arrays)
