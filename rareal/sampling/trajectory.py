"""Trajectories on disk: what LAMMPS writes, and the archive that a round keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.cv import Variable
from rareal.errors import SamplingError
from rareal.files import write_npz
from rareal.records import Array, Profile, Trajectory

ARCHIVE = "trajectory.npz"

STEP = "step"
COLUMNS = {"work": "work", "energy": "energy", "energy_std": "energy_std", "force_std": "force_std_max", "bias": "bias"}
"""Fields of a `Trajectory` and the columns of the table they come from; zeros where a table has no such column."""


CELL = ("lx", "ly", "lz", "xy", "xz", "yz")
"""LAMMPS's names of what a cell is made of, and the columns of a table where the cell changes."""


def read_table(path: Path) -> dict[str, Array]:
    """Columns [T] of the per-step table by the names in its header; a last line that is incomplete is left out.

    Empty where there is no table, or nothing in it.
    """
    if not path.exists():
        return {}
    text = path.read_bytes()
    lines = [line.split() for line in text[: text.rfind(b"\n") + 1].split(b"\n")]
    names: list[str] = []
    for line in lines:
        if not line or not line[0].startswith(b"#"):
            break
        names = [word.decode() for word in line if word != b"#"]
    rows = [line for line in lines if len(line) == len(names) and not line[0].startswith(b"#")]
    if not rows:
        return {}
    return dict(zip(names, np.array(rows, dtype=np.float64).T, strict=True))


def read_dump(path: Path, atoms: int) -> tuple[NDArray[np.int64], Array]:
    """Steps [T] and unwrapped positions [T, N, 3] of a dump with ``id xu yu zu`` sorted by id.

    Velocities may follow. A last frame that is incomplete is left out.

    Raises
    ------
    SamplingError
        If the dump is not of this form.
    """
    steps, values = _read_columns(path, atoms)
    return steps, np.ascontiguousarray(values[:, :, :3])


def read_velocities(path: Path, atoms: int) -> tuple[NDArray[np.int64], Array]:
    """Steps [T] and velocities [T, N, 3], Å/ps, of a dump with ``id xu yu zu vx vy vz``; see `read_dump`."""
    steps, values = _read_columns(path, atoms)
    if len(steps) and values.shape[2] != 6:
        raise SamplingError(f"{path} has no columns vx vy vz; give its dump `@velocity_columns` in the template")
    return steps, np.ascontiguousarray(values[:, :, 3:])


def _read_columns(path: Path, atoms: int) -> tuple[NDArray[np.int64], Array]:
    """Steps [T] and all columns but the id, [T, N, 3 or 6]."""
    if not path.exists():
        return np.empty(0, dtype=np.int64), np.empty((0, atoms, 6))
    text = path.read_bytes()
    lines = text[: text.rfind(b"\n") + 1].split(b"\n")
    block = 9 + atoms
    count = (len(lines) - 1) // block
    lines = lines[: count * block]
    bodies = b" ".join(line for k in range(count) for line in lines[k * block + 9 : (k + 1) * block])
    steps = np.array(lines[1::block], dtype=np.int64)
    values = np.array(bodies.split(), dtype=np.float64)
    columns = 7 if count and lines[8].endswith(b"vx vy vz") else 4
    sound = values.size == count * atoms * columns
    values = values.reshape(count, atoms, columns) if sound else values
    if not sound or not np.all(values[:, :, 0] == np.arange(atoms) + 1):
        raise SamplingError(f"{path} is no dump of {atoms} atoms with id xu yu zu, sorted by id")
    return steps, values[:, :, 1:]


def assemble(
    table: Mapping[str, Array],
    steps: NDArray[np.int64],
    positions: Array,
    variables: Sequence[Variable],
    walker: int,
    seed: int,
    note: str,
) -> Trajectory:
    """Join table and frames at their common steps and cut before the first number that is not finite."""
    clock = table.get(STEP, np.empty(0))
    length = len(clock)
    for column in table.values():
        length = min(length, _finite(np.isfinite(column)))
    if length < len(clock):
        note = note or "not finite"
    count = _finite(np.isfinite(positions).all(axis=(1, 2)))
    if count < len(positions):
        steps, positions, note = steps[:count], positions[:count], note or "not finite"
    common, rows, frames = np.intersect1d(clock[:length].astype(np.int64), steps, return_indices=True)
    positions = positions[frames]
    cvs = np.stack([variable.value(positions) for variable in variables], axis=1)
    values = {name: table[column][rows] if column in table else np.zeros(len(rows)) for name, column in COLUMNS.items()}
    return Trajectory(
        walker=walker, seed=seed, steps=common, cv=cvs[:, 0], cvs=cvs, positions=positions, note=note,
        cells=_cells(table, rows), **values,
    )  # fmt: skip


def _cells(table: Mapping[str, Array], rows: NDArray[np.int64]) -> Array:
    """Lattice vectors [T, 3, 3] from the columns of `CELL`; [T, 0, 3] where the table has none."""
    if not set(CELL) <= set(table):
        return np.empty((len(rows), 0, 3))
    x, y, z, xy, xz, yz = (table[name][rows] for name in CELL)
    none = np.zeros(len(rows))
    return np.stack([x, none, none, xy, y, none, xz, yz, z], axis=1).reshape(-1, 3, 3)


def _finite(good: Any) -> int:
    """How many rows there are before the first that is not good."""
    return len(good) if good.all() else int(np.argmin(good))


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


def save_profile(path: Path, profile: Profile) -> Path:
    """Write a round's profile to an ``.npz``."""
    return write_npz(path, **{item.name: getattr(profile, item.name) for item in fields(Profile)})


def load_profile(path: Path) -> Profile:
    """Read what `save_profile` wrote."""
    with np.load(path) as archive:
        return Profile(**{item.name: _plain(archive[item.name]) for item in fields(Profile)})
