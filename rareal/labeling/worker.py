"""The other end of `rareal.labeling.runner`: a process that computes what it is sent, one frame after the other.

Started as ``python -m rareal.labeling.worker FD``; FD is its end of a socket pair, over which it first receives the
engine and then frames, and over which it answers. It ends when the other side closes, so that no worker outlives
the program that started it.
"""

from __future__ import annotations

import signal
import sys
import time
from multiprocessing.connection import Connection

from rareal.errors import LabelError
from rareal.protocols import Engine
from rareal.records import Calculation, FailedLabel, Frame, Label


def compute(engine: Engine, engine_hash: str, frame: Frame) -> Label | FailedLabel:
    """The engine's answer, its failure made a record."""
    start = time.perf_counter()
    try:
        found = Calculation(*engine.calculate(frame))
    except LabelError as error:
        return FailedLabel(str(error))
    except Exception as error:  # an engine of someone else's may raise anything: it costs that frame, no more
        return FailedLabel(f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    return Label(found.energy, found.forces, engine_hash, seconds, found.stress, found.note)


def main(descriptor: int) -> None:
    """Serve until the other side closes."""
    # Ctrl-C reaches the whole process group; the parent decides what happens then
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    try:
        engine: Engine = connection.recv()
        engine_hash = engine.hash
        connection.send(engine_hash)
        while True:
            connection.send(compute(engine, engine_hash, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
