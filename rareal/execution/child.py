"""A process that answers one question after the other, and may be ended at any time.

Compiled code may end its process, hang, or fight with other libraries over threads. In a process of its own it costs
one answer.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import IO, Any

from rareal.errors import WorkerLost

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SMALL = 64 * 1024
"""Bytes. What is no larger than this fits into a socket that nobody reads yet."""


class Overdue(Exception):
    """The process has not answered in time; it has been ended."""


class Child:
    """A process that holds ``handler`` and calls it with every question.

    It starts with the first question, and anew with the first one after its end. Whatever it has started itself ends
    with it.

    Parameters
    ----------
    handler : called in the process; it is sent there by pickle.
    threads : OpenMP threads of the process, None for as many as its libraries like.
    """

    def __init__(self, handler: Callable[[Any], Any], threads: int | None = 1) -> None:
        self.handler = handler
        self.threads = threads
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._output: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, None where there is none."""
        return self._process.pid if self._process is not None else None

    def ask(self, question: Any, timeout: float | None = None) -> Any:
        """The handler's answer; an exception of the handler's is raised here.

        Raises
        ------
        WorkerLost
            If the process ended first.
        Overdue
            If it took longer than ``timeout`` seconds.
        """
        self.send(pickle.dumps(question))
        return self.receive(timeout)

    def send(self, question: bytes) -> None:
        """Ask a pickled question without waiting for the answer; if others wait already, it must be `SMALL`."""
        connection = self._connection if self._connection is not None else self._start()
        try:
            connection.send_bytes(question)
        except OSError as error:
            raise WorkerLost(self._last_words()) from error

    def receive(self, timeout: float | None = None) -> Any:
        """The next answer; see `ask`."""
        if self._connection is None:
            raise WorkerLost("the process has been ended")
        try:
            if not self._poll.poll(None if timeout is None else 1000 * timeout):
                self.close()
                raise Overdue
            succeeded, answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerLost(self._last_words()) from error
        if succeeded:
            return answer
        raise answer

    def close(self) -> None:
        """End the process."""
        process, connection, output = self._process, self._connection, self._output
        self._process = self._connection = self._output = None
        if connection is not None:
            connection.close()
        if process is not None:
            _end(process)
            process.wait()
        if output is not None:
            output.close()

    def stop(self) -> None:
        """End the process for good, from another thread; whoever waits for its answer gets `WorkerLost`."""
        self.stopped = True
        process = self._process
        if process is not None:
            _end(process)

    def _start(self) -> Connection:
        if self.stopped:
            raise WorkerLost("the process has been stopped")
        ours, theirs = socket.socketpair()
        try:
            self._output = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "rareal.execution.serve", str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=subprocess.STDOUT,
                    env=environment(self.threads),
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise WorkerLost(f"a process cannot be started: {error}") from error
        self._connection = Connection(ours.detach())
        self._poll = select.poll()  # `Connection.poll` makes one anew each time, which takes longer than the rest
        self._poll.register(self._connection.fileno(), select.POLLIN)
        self.send(pickle.dumps(self.handler))
        return self._connection

    def _last_words(self) -> str:
        """How the process ended and what it said last; clears it away."""
        code, said = None, ""
        if self._process is not None:
            deadline = time.monotonic() + 1.0  # it closes its end a moment before it has ended
            while (code := self._process.poll()) is None and time.monotonic() < deadline:
                time.sleep(0.005)
            _end(self._process)
            code = self._process.wait()
        if self._output is not None:
            self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - 4000))
            lines = self._output.read().decode(errors="replace").split("\n")
            said = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
        self.close()
        how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
        return f"the process ended with {how}{said}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all of its session."""
    if process.returncode is not None:  # its number may be another's by now
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def environment(threads: int | None) -> dict[str, str]:
    """Of a process that sees the modules which this one sees, with so many OpenMP threads."""
    limits = {} if threads is None else dict.fromkeys(THREADS, str(threads))
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return {**os.environ, **limits, "PYTHONPATH": path}
