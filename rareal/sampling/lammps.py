"""LAMMPS as a subprocess: write its input, run several at a time, read what they leave.

Every run has a folder of its own with its script and data file, and runs again by hand there (``lmp -in in.steered``).
"""

from __future__ import annotations

import os
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from rareal.errors import SamplingError
from rareal.protocols import Progress
from rareal.records import Array, Frame

DATA, TABLE, DUMP, LOG, SCREEN = "start.data", "drive.dat", "drive.dump", "log.lammps", "screen.txt"
MARGIN = 10.0
"""Å between the atoms and the faces of a box that is no cell; the faces follow the atoms (boundary m)."""

INTERVAL = 0.05
"""Seconds between two looks at the processes."""


class Template(string.Template):
    """``@name`` is filled in, so that LAMMPS keeps its own ``$``."""

    delimiter = "@"


def render(name: str, values: Mapping[str, object]) -> str:
    """A template of ``rareal/inputs`` with its values filled in."""
    return fill(template(name), values)


def template(name: str) -> str:
    """A template of ``rareal/inputs``."""
    return (files("rareal") / "inputs" / name).read_text(encoding="utf-8")


def fill(text: str, values: Mapping[str, object]) -> str:
    """A template with its values filled in."""
    return Template(text).substitute(values)


def elements(frame: Frame) -> list[str]:
    """The element of each LAMMPS atom type, in the order of the types."""
    return sorted({chemical_symbols[number] for number in frame.numbers})


def boundary(frame: Frame) -> str:
    """The ``boundary`` of a frame: periodic, or shrink-wrapped but never smaller than the data file's box."""
    return " ".join("p" if periodic else "m" for periodic in frame.pbc)


def data_file(frame: Frame, velocities: Array | None = None) -> str:
    """A LAMMPS data file (``atom_style atomic``, ``units metal``); ``velocities`` [N, 3] in Å/ps.

    Raises
    ------
    SamplingError
        If the frame has a cell that LAMMPS cannot take as it is.
    """
    names = elements(frame)
    types = [names.index(chemical_symbols[number]) + 1 for number in frame.numbers]
    masses = [atomic_masses[chemical_symbols.index(name)] for name in names]
    lines = [
        "Written by rareal",
        "",
        f"{len(types)} atoms",
        f"{len(names)} atom types",
        "",
        *_box(frame),
        "",
        "Masses",
        "",
    ]
    lines += [f"{k} {mass:.8g}  # {name}" for k, (mass, name) in enumerate(zip(masses, names, strict=True), start=1)]
    lines += ["", "Atoms  # atomic", ""]
    digits = ".12f" if velocities is None else ".16g"
    lines += [
        f"{k} {kind} {x:{digits}} {y:{digits}} {z:{digits}}"
        for k, (kind, (x, y, z)) in enumerate(zip(types, frame.positions, strict=True), start=1)
    ]
    if velocities is not None:
        lines += ["", "Velocities", ""]
        lines += [f"{k} {x:.16g} {y:.16g} {z:.16g}" for k, (x, y, z) in enumerate(velocities, start=1)]
    return "\n".join(lines) + "\n"


def _box(frame: Frame) -> list[str]:
    low, high = frame.positions.min(axis=0) - MARGIN, frame.positions.max(axis=0) + MARGIN
    tilt: list[str] = []
    if any(frame.pbc):
        cell = frame.cell
        if np.abs(np.triu(cell, k=1)).max() > 1e-9:
            raise SamplingError(
                "LAMMPS wants the first cell vector along x and the second in the xy plane; rotate the structure, "
                "e.g. with ase.Atoms.standard_form"
            )
        periodic = np.array(frame.pbc)
        low, high = np.where(periodic, 0.0, low), np.where(periodic, np.diag(cell), high)
        if np.abs(np.tril(cell, k=-1)).max() > 1e-9:
            tilt = [f"{cell[1, 0]:.12f} {cell[2, 0]:.12f} {cell[2, 1]:.12f} xy xz yz"]
    return [f"{low[k]:.12f} {high[k]:.12f} {axis}lo {axis}hi" for k, axis in enumerate("xyz")] + tilt


@dataclass(eq=False)
class Run:
    """One process that runs a script in its folder.

    Attributes
    ----------
    folder : where it runs.
    command : what is started there.
    steps : steps it takes after the relaxation, for the progress display.
    environment : of the process.
    stdin : bytes for its standard input.
    failure : empty, or why it did not reach its end.
    """

    folder: Path
    command: Sequence[str]
    steps: int
    environment: Mapping[str, str]
    stdin: bytes = b""
    failure: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the process; files of an earlier attempt go first."""
        for name in (TABLE, DUMP, LOG, SCREEN):
            (self.folder / name).unlink(missing_ok=True)
        with (self.folder / SCREEN).open("wb") as screen:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "rareal.sampling.launch", str(os.getpid()), *self.command],
                    cwd=self.folder,
                    env={**self.environment, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                    stdin=subprocess.PIPE,
                    stdout=screen,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise SamplingError(f"{self.command[0]} cannot be started: {error}") from error
        self._feed()

    def stop(self) -> None:
        """End the process and all that it started."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def size(self) -> int:
        """Bytes written so far: what grows is alive."""
        return sum(path.stat().st_size for path in map(self.folder.joinpath, (TABLE, DUMP, LOG)) if path.exists())

    def done(self) -> int:
        """Steps of the drive so far."""
        return last_step(self.folder / TABLE)

    def _feed(self) -> None:
        """Hand over standard input; a process that has died already says so elsewhere."""
        if self.process is None or self.process.stdin is None:
            return
        try:
            with self.process.stdin as pipe:
                pipe.write(self.stdin)
        except BrokenPipeError:
            return


def run_all(
    runs: Sequence[Run],
    cores: int,
    patience: float,
    progress: Progress | None = None,
    finished: Callable[[Run], None] | None = None,
) -> None:
    """Run all, ``cores`` at a time, and set each one's ``failure``.

    Parameters
    ----------
    runs : what to run.
    cores : how many at the same time.
    patience : seconds after which a run that writes nothing more counts as hung and is ended.
    progress : told (steps done, steps in all).
    finished : called with each run as it ends.
    """
    waiting, active = list(runs), list[tuple[Run, _Pulse]]()
    total = sum(run.steps for run in runs)
    try:
        while waiting or active:
            while waiting and len(active) < cores:
                run = waiting.pop(0)
                run.start()
                active.append((run, _Pulse(run)))
            time.sleep(INTERVAL)
            ended = [run for run, pulse in active if _ended(run, pulse, patience)]
            active = [(run, pulse) for run, pulse in active if run not in ended]
            if finished is not None:
                for run in ended:
                    finished(run)
            if progress is not None:
                progress(sum(run.done() for run in runs), total)
    finally:
        for run in runs:
            run.stop()


class _Pulse:
    """Notices when a run stops writing."""

    def __init__(self, run: Run) -> None:
        self.run, self.size, self.time = run, -1, time.monotonic()

    def silence(self) -> float:
        """Seconds since the run last wrote something."""
        size = self.run.size()
        if size != self.size:
            self.size, self.time = size, time.monotonic()
        return time.monotonic() - self.time


def _ended(run: Run, pulse: _Pulse, patience: float) -> bool:
    code = run.process.poll() if run.process is not None else 0
    if code is not None:
        run.failure = explain(code, run.folder)
        return True
    if pulse.silence() > patience:
        run.stop()
        run.failure = f"hung (nothing written for {patience:g} s)"
        return True
    return False


def explain(code: int, folder: Path) -> str:
    """Why a process with this exit code failed, in a few words; empty for success."""
    if code == 0:
        return ""
    text = "".join(
        path.read_text(encoding="utf-8", errors="replace") for path in (folder / LOG, folder / SCREEN) if path.exists()
    )
    for sign, reason in (
        ("Lost atoms", "lost atoms"),
        ("Non-numeric", "not finite"),
        ("Out of range atoms", "lost atoms"),
    ):
        if sign in text:
            return reason
    errors = [line.strip() for line in text.splitlines() if "ERROR" in line or "Error:" in line]
    if errors:
        return errors[-1]
    return f"crashed (signal {-code})" if code < 0 else f"ended with exit status {code}"


def last_step(table: Path) -> int:
    """The step of the last whole line of a table that is still being written; 0 before there is one."""
    if not table.exists():
        return 0
    with table.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1000))
        lines = stream.read().split(b"\n")[1:-1]
    word = lines[-1].split(maxsplit=1)[:1] if lines else []
    return int(word[0]) if word and word[0].isdigit() else 0
