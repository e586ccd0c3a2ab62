"""Labels per second: rareal's labelling against bare engines with nothing around them.

    python benchmarks/labels.py [--frames 1000] [--workers 2] [--turns 5]

The bare run is as many processes as there are workers, started together, that each label their share of the frames in a
loop, nothing checked, nothing kept; its rate is the sum of theirs, each by its own clock. Both take turns, with the
processes warm: importing the engine is not counted on either side. Prints one line per turn and the median ratio, and
the processor time of all processes that a label takes, which does not depend on what else the machine does. The label
cache is off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rareal.execution.processes import ProcessExecutor
from rareal.labeling import tblite
from rareal.labeling.runner import Labeler
from rareal.records import Frame, Label
from rareal.structure import read_structure

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HEXANE = Path(__file__).parents[1] / "examples" / "hexane" / "hexane.xyz"


def hexanes(count: int) -> list[Frame]:
    """Hexane with its atoms displaced at random, 0.05 Å in each direction."""
    start, rng = read_structure(HEXANE), np.random.default_rng(1)
    return [
        replace(start, positions=start.positions + rng.normal(0, 0.05, start.positions.shape)) for _ in range(count)
    ]


def bare(connection: Any, frames: list[Frame]) -> None:
    """An engine and a loop; in a process of its own."""
    engine = tblite.build(tblite.Config())
    engine.calculate(frames[0])
    connection.send("warm")
    while connection.recv():
        start, used = time.perf_counter(), time.process_time()
        for frame in frames:
            engine.calculate(frame)
        connection.send((len(frames) / (time.perf_counter() - start), time.process_time() - used))


def processor_time(root: int) -> float:
    """Seconds that a process and all that it has started have used, by /proc."""
    ticks, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)], ticks[int(folder.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        grown = bool(more)
        family |= more
    return sum(ticks[pid] for pid in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    import multiprocessing

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    frames = hexanes(options.frames)
    os.environ.update(dict.fromkeys(THREADS, "1"))  # of the bare engines; rareal's have one by themselves
    context = multiprocessing.get_context("spawn")
    pipes = []
    for k in range(options.workers):
        ours, theirs = context.Pipe()
        context.Process(target=bare, args=(theirs, frames[k :: options.workers]), daemon=True).start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    ratios, costs = [], []
    with (
        ProcessExecutor(options.workers) as executor,
        Labeler(tblite.build(tblite.Config()), executor) as labeler,
    ):
        labeler.label(hexanes(20 * options.workers))
        for turn in range(options.turns):
            for pipe in pipes:
                pipe.send(True)
            rates, seconds = zip(*[pipe.recv() for pipe in pipes], strict=True)
            start, used = time.perf_counter(), processor_time(os.getpid())
            labels = labeler.label(frames)
            ours, used = options.frames / (time.perf_counter() - start), processor_time(os.getpid()) - used
            assert all(isinstance(label, Label) for label in labels)
            ratios.append(ours / sum(rates))
            costs.append(sum(seconds) / used)
            busy = sum(label.seconds for label in labels) * ours / (options.frames * options.workers)
            print(
                f"turn {turn}: {ours:.0f} labels/s, bare {sum(rates):.0f}, ratio {ratios[-1]:.3f}; processor time "
                f"{1e3 * used / options.frames:.2f} ms a label, bare {1e3 * sum(seconds) / options.frames:.2f}; "
                f"engines busy {100 * busy:.0f} %",
                flush=True,
            )
    for pipe in pipes:
        pipe.send(False)
    print(
        f"median ratio {statistics.median(ratios):.3f} ({options.workers} workers, {options.frames} frames), "
        f"of processor time {statistics.median(costs):.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
