"""One process at a time in a run folder; the lock of a process that has died is taken over."""

from __future__ import annotations

import fcntl
import json
import os
import platform
from pathlib import Path
from typing import Any

from rareal.errors import RunFolderError

NAME = "lock"


class Lock:
    """A file that names the process working in a folder.

    ``flock`` guards only the moment of looking and writing: held for the whole run it would be inherited by forked
    label workers, and one that outlives its parent would keep the folder locked.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._held = 0

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        RunFolderError
            If a living process has it, or one on another machine.
        """
        with self._path.open("a+", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.seek(0)
            owner = _parse(stream.read())
            if owner and _alive(owner):
                raise RunFolderError(_refusal(self._path, owner))
            self._write(stream, json.dumps({"pid": os.getpid(), "host": platform.node(), "born": _born(os.getpid())}))
        self._held = os.getpid()

    def release(self) -> None:
        """Give the lock back; a forked child leaves its parent's alone."""
        if self._held != os.getpid():
            return
        self._held = 0
        if self._path.exists():
            with self._path.open("a+", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                self._write(stream, "")

    @staticmethod
    def _write(stream: Any, text: str) -> None:
        stream.seek(0)
        stream.truncate()
        stream.write(text)
        stream.flush()


def owner(folder: Path) -> dict[str, Any] | None:
    """The living process that works in ``folder``: its ``pid`` and ``host``; None if there is none."""
    path = folder / NAME
    found = _parse(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found if found and _alive(found) else None


def _parse(text: str) -> dict[str, Any] | None:
    """The owner written in a lock file; None where it is empty or cut short by a kill."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else None


def _alive(owner: dict[str, Any]) -> bool:
    """Whether the owner still runs; of another machine that cannot be known, so it counts as running."""
    if owner.get("host") != platform.node():
        return True
    born = _born(owner["pid"])
    # the number of a dead process may have gone to another one, which was born at another time
    return born is not None and born == owner.get("born", born)


def _born(pid: int) -> str | None:
    """When a process was started (in its kernel's own count); None if it has ended, "" where that cannot be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    stat = Path(f"/proc/{pid}/stat")
    try:
        # the second field, the command in brackets, may itself hold blanks
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in "ZX" else fields[19]


def _refusal(path: Path, owner: dict[str, Any]) -> str:
    where = f"process {owner['pid']} on {owner.get('host')}"
    cure = "wait for it or stop it"
    if owner.get("host") != platform.node():
        cure += f"; if it no longer runs, delete {path}"
    return f"{path.parent}: {where} is working in this run folder; {cure}, or choose another folder"
