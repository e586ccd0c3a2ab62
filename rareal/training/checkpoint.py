"""A training that was killed goes on where it was: its state on the disk, bound to everything that determines it."""

from __future__ import annotations

import pickle
import time
import zipfile
from pathlib import Path
from typing import Any, Protocol

import torch

from rareal.files import write_atomically

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)


class Stateful(Protocol):
    """What can be kept."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Checkpoint:
    """The file that an unfinished training leaves.

    Parameters
    ----------
    key : hash of what determines the training; a file with another one is of another training, and is ignored.
    every : least time between two writes, s.
    """

    def __init__(self, path: Path, key: str, every: float) -> None:
        self.path, self.key, self.every = path, key, every
        self._written = time.monotonic()

    def restore(self, state: Stateful) -> bool:
        """Bring ``state`` to where the training was; whether there was anything to go on from."""
        if not self.path.is_file():
            return False
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
            if kept["key"] != self.key:
                return False
        except UNREADABLE:
            return False
        state.load_state_dict(kept["state"])
        return True

    def keep(self, state: Stateful) -> None:
        """Write ``state``, if the last time is long enough ago."""
        if time.monotonic() - self._written < self.every:
            return
        content = {"key": self.key, "state": state.state_dict()}
        write_atomically(self.path, lambda stream: torch.save(content, stream))
        self._written = time.monotonic()

    def remove(self) -> None:
        """The training has ended."""
        self.path.unlink(missing_ok=True)
