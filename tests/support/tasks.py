"""What the tests send to other processes: in a module that those can import, unlike the tests' own."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from rareal.records import Frame
from rareal.testing.engines import Faulty
from rareal.watch import Report


def refuse() -> None:
    class Local(Exception):
        """Cannot be pickled."""

    raise Local("the reason")


def count(folder: Path, upto: int, progress: Report) -> int:
    for k in range(1, upto + 1):
        progress(k, upto)
        time.sleep(0.01)
    (folder / "seen").write_text("seen")
    return upto


def die_twice(folder: Path) -> int:
    marks = len(list(folder.glob("mark-*")))
    (folder / f"mark-{marks}").touch()
    if marks < 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return marks


def end_worker(marker: Path) -> str:
    """Kill the worker the first time."""
    if not marker.exists():
        marker.touch()
        os._exit(9)
    return "survived"


class Limited(Faulty):
    """Its process may write files of 1 MB."""

    def calculate(self, frame: Frame) -> Any:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
        return super().calculate(frame)


class Slow(Faulty):
    """Leaves a mark for every call."""

    def calculate(self, frame: Frame) -> Any:
        assert self.folder is not None
        tempfile.mkstemp(dir=self.folder)
        time.sleep(0.02)
        return super().calculate(frame)


def kill_the_worker(setup: Any, jobs: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)
