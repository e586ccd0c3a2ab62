"""One task after the other, in this process: for finding errors, and for machines that allow nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Literal

from rareal.schema import Section


class Config(Section):
    """Tasks run in the process of the loop."""

    kind: Literal["serial"] = "serial"


class SerialExecutor(Executor):
    """Runs a task when it is submitted."""

    workers = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of ``fn(*args, **kwargs)``."""
        future: Future[Any] = Future()
        with self._lock:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
        return future


def build(config: Config) -> SerialExecutor:
    """The executor that ``config`` describes."""
    return SerialExecutor()
