"""What the process of a label engine does: compute one frame after the other, each in an empty folder of its own.

The guard on the other side is `rareal.labeling.guard.Worker`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from rareal.errors import LabelError
from rareal.protocols import Engine
from rareal.records import Calculation, FailedLabel, Frame, Label

PREFIX = "rareal-"
"""Of scratch folders."""

FILING_TIMEOUT = 60.0
"""Seconds that the next frame waits for the guard to take away the files of one that failed."""


@dataclass(frozen=True, eq=False)
class Job:
    """A frame to label.

    Attributes
    ----------
    question : the frame, pickled: those who pass it on need not know it.
    kept, failed : folders that receive the engine's files if it succeeds or fails; None drops them.
    """

    question: bytes
    kept: Path | None = None
    failed: Path | None = None


class Compute:
    """An engine and its scratch folder.

    Parameters
    ----------
    engine : the level of theory.
    scratch : folder in which the process makes its own; None is the machine's temporary folder.
    """

    def __init__(self, engine: Engine, scratch: Path | None) -> None:
        self.engine = engine
        self.scratch = scratch
        self.root: Path | None = None
        self.hash = ""
        self._folders = count()
        self._folder: Path | None = None
        self._failed: Path | None = None  # with the files of the frame before, if that failed

    def __call__(self, frame: Frame | None) -> Any:
        """To a frame its label or failure, and the name of the folder with the engine's files, empty if there are none.

        To None the engine's hash and the scratch folder.
        """
        if frame is not None:
            self._wait_for_filing()
            result, used = self.compute(frame), self._used()
            self._failed = self.root / used if self.root and used and isinstance(result, FailedLabel) else None
            return result, used
        self.hash = self.engine.hash
        try:
            self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.scratch))
        except OSError as error:
            raise LabelError(f"no scratch folder for the label engine: {error}; see labels.scratch") from error
        return self.hash, self.root

    def compute(self, frame: Frame) -> Label | FailedLabel:
        """The engine's answer, its failure made a record."""
        start = time.perf_counter()
        try:
            self._enter_empty_folder()
            found = checked(self.engine.calculate(frame), frame)
        except LabelError as error:
            return FailedLabel(str(error))
        except Exception as error:  # an engine of someone else's may raise anything: it costs that frame, no more
            return FailedLabel(f"{type(error).__name__}: {error}")
        return Label(found.energy, found.forces, self.hash, time.perf_counter() - start, found.stress, note=found.note)

    def _wait_for_filing(self) -> None:
        """Let the files of a frame that failed be taken away first: they may be what fills the disk."""
        patience = time.monotonic() + FILING_TIMEOUT
        while self._failed is not None and self._failed.exists() and time.monotonic() < patience:
            time.sleep(0.001)

    def _enter_empty_folder(self) -> None:
        """Make an empty folder the current one; that of the frame before if it has stayed empty, for that is faster."""
        assert self.root is not None
        if self._folder is None:
            folder = self.root / str(next(self._folders))
            folder.mkdir()
            self._folder = folder
        os.chdir(self._folder)

    def _used(self) -> str:
        """The name of the folder if there is something in it; the next frame then gets another one."""
        assert self.root is not None
        folder = self._folder
        if folder is None:
            return ""
        os.chdir(self.root)
        if folder.is_dir() and not os.listdir(folder):
            return ""
        self._folder = None
        return folder.name

    def close(self) -> None:
        """Let the engine go and clear the scratch folder away."""
        try:
            getattr(self.engine, "close", lambda: None)()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Clear the scratch folder away, whatever the engine is doing."""
        if self.root is not None:
            shutil.rmtree(self.root, ignore_errors=True)


def checked(result: Any, frame: Frame) -> Calculation:
    """The result in plain numbers.

    Raises
    ------
    LabelError
        If it is not finite, not of the frame's shape or not a result at all, whatever engine it comes from.
    """
    try:
        found = Calculation(*result)
    except TypeError as error:
        raise LabelError(f"the engine returned no (energy, forces) but {shortened(result)}") from error
    energy = numbers(found.energy, (), "energy")
    forces = numbers(found.forces, frame.positions.shape, "forces")
    stress = None if found.stress is None else numbers(found.stress, (6,), "stress")
    return Calculation(float(energy), forces, stress, str(found.note))


def numbers(value: Any, shape: tuple[int, ...], what: str) -> Any:
    """``value`` as an array of double precision of its own memory."""
    try:
        array = np.array(value)
        if array.dtype.kind not in "fiu":
            raise TypeError
    except (TypeError, ValueError) as error:
        raise LabelError(f"the engine returned as {what} {shortened(value)}") from error
    if array.shape != shape:
        raise LabelError(f"the engine returned {what} of shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise LabelError(f"the engine returned an {what} that is not finite" if not shape else
                         f"the engine returned {what} that are not finite")  # fmt: skip
    return array.astype(np.float64)


def shortened(value: Any) -> str:
    """``value`` in a few characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
