"""Running an engine in processes of its own: one for a caller that goes point by point, several for a batch.

An engine is compiled code that may end its process, hang, or fight with torch over OpenMP threads. So it lives in a
worker with one thread; what goes wrong there costs one frame.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, Any

import numpy as np

from rareal.errors import LabelError
from rareal.protocols import Engine, Progress
from rareal.records import Calculation, FailedLabel, Frame, Label

START_TIMEOUT = 120.0
"""Seconds a worker may take to import its engine."""


class WorkerDied(LabelError):
    """The worker ended before it answered."""


class Overdue(LabelError):
    """The worker did not answer in time and has been ended."""


class Worker:
    """An engine in a process of its own; itself an `Engine`.

    The process starts with the first frame and starts again after it died.

    Parameters
    ----------
    engine : what to run; it is sent to the process by pickle.
    timeout : seconds that one frame may take.
    """

    def __init__(self, engine: Engine, timeout: float = 3600.0) -> None:
        self.engine = engine
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._output: IO[bytes] | None = None
        self._stopped = False

    @property
    def hash(self) -> str:
        """The engine's hash."""
        return self.engine.hash

    def label(self, frame: Frame) -> Label | FailedLabel:
        """Label one frame.

        Raises
        ------
        WorkerDied
            If the process ended; it has been cleared away.
        """
        connection = self._connection if self._connection is not None else self._start()
        try:
            return checked(self._ask(connection, frame, self.timeout), frame)
        except Overdue as error:
            return FailedLabel(str(error))

    def calculate(self, frame: Frame) -> Calculation:
        """What the engine says of a frame; a process that died is tried once more.

        Raises
        ------
        LabelError
            If the engine fails.
        """
        result = label_twice(self, frame)
        if isinstance(result, FailedLabel):
            raise LabelError(result.reason)
        return Calculation(result.energy, result.forces, result.stress, result.note)

    def close(self) -> None:
        """End the process."""
        process, connection, output = self._process, self._connection, self._output
        self._process = self._connection = self._output = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.wait()
        if output is not None:
            output.close()

    def stop(self) -> None:
        """End the process for good, from another thread; whoever waits for its answer gets `WorkerDied`."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> Connection:
        if self._stopped:
            raise WorkerDied("the label engine has been stopped")
        ours, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rareal.labeling.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=worker_environment(),
            )
        self._connection = Connection(ours.detach())
        found = self._ask(self._connection, self.engine, START_TIMEOUT)
        if found != self.engine.hash:
            self.close()
            raise LabelError(
                f"the engine's hash in the worker, {found}, is not {self.engine.hash}; is it pickled whole?"
            )
        return self._connection

    def _ask(self, connection: Connection, question: Any, timeout: float) -> Any:
        try:
            connection.send(question)
            if not connection.poll(timeout):
                self.close()
                raise Overdue(f"no answer from the label engine within {timeout:g} s")
            return connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerDied(self._last_words()) from error

    def _last_words(self) -> str:
        """How the process ended and what it said last; clears it away."""
        code, said = None, ""
        if self._process is not None:
            self._process.kill()
            code = self._process.wait()
        if self._output is not None:
            self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - 4000))
            lines = self._output.read().decode(errors="replace").split("\n")
            said = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
        self.close()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return f"the process of the label engine ended with {how}{said}"


def worker_environment() -> dict[str, str]:
    """One thread per worker (more only slow a molecule down), and the modules that this process sees."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**os.environ, **threads, "PYTHONPATH": path}


def label_twice(worker: Worker, frame: Frame) -> Label | FailedLabel:
    """Label a frame, once more if the worker dies on it: a process may be killed for no fault of the frame's."""
    try:
        return worker.label(frame)
    except WorkerDied:
        try:
            return worker.label(frame)
        except WorkerDied as error:
            return FailedLabel(str(error))


class Labeler:
    """Labels frames with several workers.

    Parameters
    ----------
    engine : the level of theory.
    workers : processes at the same time.
    max_failed_fraction : largest share of a batch that may fail.
    timeout : seconds that one frame may take.
    """

    def __init__(
        self, engine: Engine, workers: int = 1, max_failed_fraction: float = 0.2, timeout: float = 3600.0
    ) -> None:
        self.engine = engine
        self.max_failed_fraction = max_failed_fraction
        self._workers = [Worker(engine, timeout) for _ in range(workers)]

    @property
    def hash(self) -> str:
        """The engine's hash."""
        return self.engine.hash

    def label(self, frames: Sequence[Frame], progress: Progress | None = None) -> list[Label | FailedLabel]:
        """One result per frame, in order.

        Raises
        ------
        LabelError
            If more than ``max_failed_fraction`` of the frames fail.
        """
        results: list[Label | FailedLabel] = [FailedLabel("not computed")] * len(frames)
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, Label | FailedLabel | BaseException]] = queue.SimpleQueue()
        for index in range(len(frames)):
            todo.put(index)
        workers = self._workers[: len(frames)]
        threads = [threading.Thread(target=_serve, args=(w, frames, todo, done), daemon=True) for w in workers]
        for thread in threads:
            thread.start()
        try:
            for count in range(1, len(frames) + 1):
                index, result = done.get()
                if isinstance(result, BaseException):
                    raise result
                results[index] = result
                if progress is not None:
                    progress(count, len(frames))
        except BaseException:
            while not todo.empty():
                todo.get()
            for worker in workers:
                worker.stop()
            raise
        finally:
            for thread in threads:
                thread.join(timeout=10)
        self._check(results)
        return results

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> Labeler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, results: Sequence[Label | FailedLabel]) -> None:
        reasons = [result.reason for result in results if isinstance(result, FailedLabel)]
        if len(reasons) <= self.max_failed_fraction * len(results):
            return
        common = "; ".join(f"{count} x {reason}" for reason, count in Counter(reasons).most_common(3))
        raise LabelError(
            f"{len(reasons)} of {len(results)} frames got no label, more than labels.max_failed_fraction "
            f"({self.max_failed_fraction:g}) allows: {common}. Look at the engine's settings and at the frames"
        )


def _serve(
    worker: Worker,
    frames: Sequence[Frame],
    todo: queue.SimpleQueue[int],
    done: queue.SimpleQueue[tuple[int, Label | FailedLabel | BaseException]],
) -> None:
    """Take frames until there are none left."""
    while True:
        try:
            index = todo.get_nowait()
        except queue.Empty:
            return
        try:
            done.put((index, label_twice(worker, frames[index])))
        except BaseException as error:  # handed to the thread that waits for the results
            done.put((index, error))
            return


def checked(result: Label | FailedLabel, frame: Frame) -> Label | FailedLabel:
    """A label that is not finite, or not of the frame's shape, is a failure whatever engine it comes from."""
    if isinstance(result, FailedLabel):
        return result
    if np.shape(result.forces) != frame.positions.shape:
        return FailedLabel(f"the engine returned forces of shape {np.shape(result.forces)}")
    if not (np.isfinite(result.energy) and np.isfinite(result.forces).all()):
        return FailedLabel("the engine returned an energy or a force that is not finite")
    if result.stress is not None and (np.shape(result.stress) != (6,) or not np.isfinite(result.stress).all()):
        return FailedLabel("the engine returned a stress that is not six finite numbers")
    return result
