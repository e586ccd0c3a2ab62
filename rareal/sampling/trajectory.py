"""Trajectories on disk: what LAMMPS writes, and the archive that a round keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.errors import SamplingError
from rareal.files import write_npz
from rareal.protocols import Progress, Sampler
from rareal.records import Array, Trajectory

ARCHIVE = "trajectory.npz"

STEP, CV, WORK, ENERGY, ENERGY_STD, FORCE_STD_MAX, FORCE_STD_MEAN = range(7)
"""Columns of the table that a pull writes at every step."""


def read_table(path: Path) -> Array:
    """Rows [T, 7] of the per-step table; a last line that is incomplete is left out."""
    if not path.exists():
        return np.empty((0, 7))
    text = path.read_bytes()
    lines = text[: text.rfind(b"\n") + 1].split(b"\n")
    rows = [words for words in (line.split() for line in lines if not line.startswith(b"#")) if len(words) == 7]
    return np.array(rows, dtype=np.float64).reshape(-1, 7)


def read_dump(path: Path, atoms: int) -> tuple[NDArray[np.int64], Array]:
    """Steps [T] and unwrapped positions [T, N, 3] of a dump with ``id xu yu zu`` sorted by id.

    A last frame that is incomplete is left out.

    Raises
    ------
    SamplingError
        If the dump is not of this form.
    """
    if not path.exists():
        return np.empty(0, dtype=np.int64), np.empty((0, atoms, 3))
    text = path.read_bytes()
    lines = text[: text.rfind(b"\n") + 1].split(b"\n")
    block = 9 + atoms
    count = (len(lines) - 1) // block
    lines = lines[: count * block]
    bodies = b" ".join(line for k in range(count) for line in lines[k * block + 9 : (k + 1) * block])
    steps = np.array(lines[1::block], dtype=np.int64)
    values = np.array(bodies.split(), dtype=np.float64)
    if values.size != count * atoms * 4 or not np.all(values.reshape(count, atoms, 4)[:, :, 0] == np.arange(atoms) + 1):
        raise SamplingError(f"{path} is no dump of {atoms} atoms with id xu yu zu, sorted by id")
    return steps, np.ascontiguousarray(values.reshape(count, atoms, 4)[:, :, 1:])


def assemble(table: Array, steps: NDArray[np.int64], positions: Array, walker: int, seed: int, note: str) -> Trajectory:
    """Join table and frames at their common steps and cut before the first number that is not finite."""
    finite = np.isfinite(table[:, 1:]).all(axis=1)
    if not finite.all():
        table, note = table[: int(np.argmin(finite))], note or "not finite"
    finite = np.isfinite(positions).all(axis=(1, 2))
    if not finite.all():
        bad = int(np.argmin(finite))
        steps, positions, note = steps[:bad], positions[:bad], note or "not finite"
    common, rows, frames = np.intersect1d(table[:, STEP].astype(np.int64), steps, return_indices=True)
    return Trajectory(
        walker=walker,
        seed=seed,
        steps=common,
        cv=table[rows, CV],
        work=table[rows, WORK],
        energy=table[rows, ENERGY],
        energy_std=table[rows, ENERGY_STD],
        force_std=table[rows, FORCE_STD_MAX],
        positions=positions[frames],
        note=note,
    )


def drive(
    sampler: Sampler, model: Path, folder: Path, walker: int, seed: int, progress: Progress | None = None
) -> Path:
    """A walker's drive as a task: its trajectory goes into its folder, or is there already; returns the file."""
    archive = folder / ARCHIVE
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save(archive, [sampler.sample(model, folder, walker, seed, progress)])
    return archive


def save(path: Path, trajectories: Sequence[Trajectory]) -> Path:
    """Write trajectories to one ``.npz``, all or nothing."""
    arrays = {f"{k}/{item.name}": getattr(trajectory, item.name)
              for k, trajectory in enumerate(trajectories) for item in fields(Trajectory)}  # fmt: skip
    return write_npz(path, count=len(trajectories), **arrays)


def load(path: Path) -> list[Trajectory]:
    """Read what `save` wrote."""
    with np.load(path) as archive:
        return [
            Trajectory(**{item.name: _plain(archive[f"{k}/{item.name}"]) for item in fields(Trajectory)})
            for k in range(int(archive["count"]))
        ]


def _plain(value: NDArray[np.generic]) -> Any:
    return value.item() if value.ndim == 0 else value
