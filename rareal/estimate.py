"""What a run will cost, before anything runs: labels, time steps, memory; a label is timed on the structure itself."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rareal.config import Config
from rareal.errors import RarealError
from rareal.execution.processes import cores
from rareal.progress import clock

if TYPE_CHECKING:
    from rareal.labeling.guard import Worker

LIMIT = 1.0
"""Seconds that `measure` gives an engine, once it has started."""

START = 20.0
"""Seconds that an engine may take to start."""


@dataclass(frozen=True)
class LabelTime:
    """What one label takes: ``seconds`` where it was measured, else more than them; ``failure`` where there is none."""

    seconds: float
    finished: bool = True
    failure: str = ""

    def describe(self) -> str:
        """``4.1 ms``, ``more than 1 s`` or why it is not known."""
        if self.failure:
            return f"the engine fails on the structure: {self.failure}"
        return readable(self.seconds) if self.finished else f"more than {readable(self.seconds)}"


@dataclass(frozen=True)
class Estimate:
    """The cost of a run. Steps are time steps, sizes bytes.

    Attributes
    ----------
    formula, atoms : of the structure.
    budget : most labels that are bought.
    initial_calls : engine calls of the initial dynamics, None where they cannot be told beforehand.
    walkers, steps : drives per round and the time steps of all of them; None where LAMMPS does not run.
    frames : frames that the drives of a round leave.
    rounds, members, workers : as configured; workers label at the same time.
    trajectories : what the frames of one round take, in memory and on the disk before compression.
    training_memory : most that is held of what is computed once per frame, None where the training does not say.
    label : the time of one label, None where it was not measured.
    """

    formula: str
    atoms: int
    budget: int
    initial_calls: int | None
    walkers: int
    steps: int | None
    frames: int | None
    rounds: int
    members: int | None
    workers: int
    trajectories: int | None
    training_memory: float | None
    label: LabelTime | None

    @property
    def label_seconds(self) -> float | None:
        """Wall time of all labels, None where it is not known."""
        if self.label is None or self.label.failure:
            return None
        # the initial dynamics is a chain, and part of its calls are labels that count
        serial = self.initial_calls or 0
        return self.label.seconds * (serial + self.budget / self.workers)

    def describe(self) -> str:
        """A line for each."""
        lines = [f"{self.formula}: {self.atoms} atoms"]
        at_once = f", {self.workers} at a time" if self.workers > 1 else ""
        label = f"labels: at most {self.budget}{at_once}"
        if self.initial_calls is not None:
            label += f"; the initial dynamics calls the engine {self.initial_calls} times, one after the other"
        lines.append(label)
        if self.label is not None:
            lines.append(f"one label: {self.label.describe()}" + ("" if self.label.failure else " (measured here)"))
        if self.label_seconds is not None and self.label is not None:
            more = "" if self.label.finished else "more than "
            lines.append(f"engine in all: {more}{readable(self.label_seconds)}")
        if self.steps is not None:
            lines.append(
                f"LAMMPS: {self.rounds} rounds of {self.steps} steps ({self.walkers} walkers) at most, "
                f"{self.rounds * self.steps} in all, with {self.members or 'all'} members at every step"
            )
        if self.trajectories is not None:
            lines.append(f"memory: trajectories of a round {size(self.trajectories)} ({self.frames} frames)")
        if self.training_memory is not None:
            lines.append(f"memory: training at most {size(self.training_memory)} for what is computed once per frame")
        return "\n".join(lines)


def estimate(config: Config, label: LabelTime | None = None) -> Estimate:
    """The cost of ``config``; `measure` gives the time of a label."""
    from ase.symbols import Symbols

    settings: Any = config
    initial = settings.initial
    atoms = len(config.frame.numbers)
    drives = _drives(config)
    steps = sum(drive.steps for drive in drives) if drives else None
    frames = sum(drive.frames for drive in drives) if drives else None
    # positions, and the seven numbers of a row
    row = 8 * (3 * atoms + 7)
    calls = None
    if all(hasattr(initial, key) for key in ("equilibration", "interval", "frames")):
        calls = 1 + initial.equilibration + (initial.frames - 1) * initial.interval
    return Estimate(
        formula=str(Symbols(config.frame.numbers).get_chemical_formula()),
        atoms=atoms,
        budget=config.labels.budget,
        initial_calls=calls,
        walkers=len(drives) or 1,
        steps=steps,
        frames=frames,
        rounds=config.rounds,
        members=getattr(settings.training, "members", None),
        workers=getattr(config.executor.label, "workers", None) or cores(),
        trajectories=frames * row if frames is not None else None,
        training_memory=getattr(settings.training, "memory", None),
        label=label,
    )


@dataclass(frozen=True)
class _Drive:
    """Time steps of a walker, and the frames that it leaves."""

    steps: int
    frames: int


def _drives(config: Config) -> list[_Drive]:
    """The drives of a round; none where the sampler runs no LAMMPS."""
    from rareal.build import build_parts, make
    from rareal.sampling.base import LammpsSampler
    from rareal.sampling.umbrella import Umbrella

    sampler = make(config, "sampler", **build_parts(config))
    if not isinstance(sampler, LammpsSampler):
        return []
    found = []
    for number in range(sampler.config.count):
        settings = sampler.config.of(number)
        if isinstance(sampler, Umbrella):  # windows are shared out among the walkers, each with its equilibration
            steps, before = settings.each * len(sampler.block(number)), 0
        else:
            steps, before = sampler.steps(settings), sum(getattr(settings, key, 0) for key in BEFORE)
        found.append(_Drive(steps + before, steps // settings.frame_interval + 1))
    return found


BEFORE = ("relaxation_steps", "equilibration")
"""Steps that a drive takes before frames are kept."""


def measure(config: Config, limit: float = LIMIT) -> LabelTime:
    """Time a label of the structure, in a process as in a run; the cache is not asked.

    The engine is started first; if the first label leaves time, the faster of two counts. What has not ended after
    ``limit`` seconds is stopped.
    """
    from rareal.build import make
    from rareal.labeling.guard import Worker

    worker = Worker(make(config, "engine", start=config.frame), START + limit, config.labels.scratch)
    timer = _Timer(worker, config)
    timer.start()
    timer.started.wait(START)
    timer.join(limit)
    if timer.is_alive():
        worker.stop()
        timer.join()
    worker.close()
    if timer.failure:
        return LabelTime(0.0, failure=timer.failure)
    return LabelTime(min(timer.seconds)) if timer.seconds else LabelTime(limit, finished=False)


class _Timer(threading.Thread):
    """Labels the structure twice and notes how long each takes."""

    def __init__(self, worker: Worker, config: Config) -> None:
        super().__init__(daemon=True)
        self.worker = worker
        self.config = config
        self.started = threading.Event()
        self.seconds: list[float] = []
        self.failure = ""

    def run(self) -> None:
        try:
            self.worker.start()
            self.started.set()
            for _ in range(2):
                began = time.perf_counter()
                self.worker.calculate(self.config.frame)
                self.seconds.append(time.perf_counter() - began)
        except RarealError as error:
            if not self.worker.stopped:
                self.failure = str(error)
        finally:
            self.started.set()


def readable(seconds: float) -> str:
    """``4.1 ms``, ``5.2 s``, ``3:07`` or ``1:02:03``."""
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else clock(seconds)


def size(number: float) -> str:
    """``3.1 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
