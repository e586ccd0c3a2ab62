"""The other end of `rareal.execution.child`: a process that computes what it is asked.

Started as ``python -m rareal.execution.serve FD PARENT``; FD is its end of a socket pair, over which it first receives
a function and then questions, and over which it answers. It ends, with all that it has started, when the other side
closes or the process PARENT is gone, so that nothing outlives the program that started it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

INTERVAL = 1.0
"""Seconds between two looks at the parent."""


def answer(handler: Callable[[Any], Any], question: bytes) -> bytes:
    """The pickled answer: (True, value), or (False, exception)."""
    try:
        return pickle.dumps((True, handler(pickle.loads(question))))
    except Exception as error:
        where = "".join(traceback.format_exception(error))
        try:
            error.add_note(where)
            text = pickle.dumps((False, error))
            pickle.loads(text)  # some exceptions pickle and cannot be made again
            return text
        except Exception:
            return pickle.dumps((False, RuntimeError(where)))


class Server:
    """The process.

    A handler may have the methods ``close``, called when no more questions will come, and ``abandon``, called from
    another thread when the parent is gone while a question is being answered.
    """

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.handler: Any = None

    def run(self, connection: Connection) -> None:
        """Serve until the other side closes."""
        # Ctrl-C is the parent's business
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self.follow, daemon=True).start()
        try:
            self.handler = pickle.loads(connection.recv_bytes())
            while True:
                connection.send_bytes(answer(self.handler, connection.recv_bytes()))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.end("close")

    def follow(self) -> None:
        """End the whole session once the parent is gone."""
        while os.getppid() == self.parent:
            time.sleep(INTERVAL)
        self.end("abandon")

    def end(self, method: str) -> None:
        """Let the handler clear up, and end the session."""
        try:
            getattr(self.handler, method, lambda: None)()
        finally:
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    Server(int(sys.argv[2])).run(Connection(int(sys.argv[1])))
