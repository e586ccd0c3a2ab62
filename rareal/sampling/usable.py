"""What of a trajectory can be used: up to the first frame that is no longer a molecule's, or a number.

A committee that is driven where it knows nothing may send the atoms anywhere, and LAMMPS integrates on as long as the
numbers are finite. A trajectory is cut before the first frame in which

- something is **not finite**;
- the **energy** is more than 12 eV + 1 eV × N away from the first frame's, up or down: 12 eV is more than the strongest
  bond there is (CO, 11.1 eV), 1 eV per atom the thermal energy at 7700 K; no event of one bond needs more;
- two atoms are **fused**: closer than half the sum of their covalent radii (N₂ and CO at rest are at 0.78 of it);
- atoms or fragments have **flown apart**: the gap between some of the atoms and all others has grown by more than 10 Å
  since the start structure, beyond the cutoff of any model, where nothing is left to learn. The gap is the longest edge
  of the tree of shortest distances that joins all atoms, so bonds need not be known. What is pulled apart *on purpose*
  is another matter: by as much as the collective variables that are lengths have changed since the start, the gap
  may have grown as well.

In periodic directions distances are to the nearest image, for which the cell is taken to be that of the start.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from rareal.cv import Variable
from rareal.records import TIME_SERIES, Array, Frame, Trajectory

ENERGY, ENERGY_PER_ATOM = 12.0, 1.0
"""eV and eV per atom that the energy may be away from the first frame's."""

FUSED = 0.5
"""Times the sum of the covalent radii: atoms that are closer have fused."""

APART = 10.0
"""Å that the gap between fragments may grow."""

BLOCK = 5_000_000
"""Numbers that a block of frames may have in memory at once."""


def usable(trajectory: Trajectory, frame: Frame, variables: Sequence[Variable] = ()) -> Trajectory:
    """The trajectory up to its first frame that cannot be used; ``note`` says where and why it was cut.

    Parameters
    ----------
    trajectory : any, also an empty one.
    frame : the start structure, for its elements, its cell and how far apart its parts are.
    variables : the collective variables; those in Å may pull fragments apart on purpose.
    """
    found = [
        _not_finite(trajectory),
        _exploded(trajectory),
    ]
    # geometry only means something where there are numbers
    sound = trajectory.rows(slice(0, min((row for row, _ in found), default=0)))
    found.append(_misplaced(sound, frame, _allowed(sound, frame, variables)))
    row, why = min(found, key=lambda item: item[0])
    if row >= len(trajectory):
        return trajectory
    why = f"cut at step {trajectory.steps[row]}: {why}"
    return trajectory.rows(slice(0, row), "; ".join(filter(None, (trajectory.note, why))))


def _first(bad: NDArray[np.bool_]) -> int:
    """The first row that is bad, or the number of rows."""
    return int(np.argmax(bad)) if bad.any() else len(bad)


def _not_finite(trajectory: Trajectory) -> tuple[int, str]:
    count = len(trajectory)
    first = {
        name: _first(~np.isfinite(getattr(trajectory, name).reshape(count, -1)).all(axis=1)) if count else 0
        for name in TIME_SERIES
    }
    name = min(first, key=lambda key: first[key])
    return first[name], f"not finite ({name.replace('_', ' ')})"


def _exploded(trajectory: Trajectory) -> tuple[int, str]:
    energy = trajectory.energy
    if len(energy) == 0:
        return 0, ""
    with np.errstate(invalid="ignore"):
        change = energy - energy[0]
    limit = ENERGY + ENERGY_PER_ATOM * trajectory.positions.shape[1]
    row = _first(np.abs(change) > limit)
    return row, f"the energy exploded ({change[row]:+.3g} eV)" if row < len(energy) else ""


def _allowed(trajectory: Trajectory, frame: Frame, variables: Sequence[Variable]) -> Array:
    """Å that the gap may have grown at every row, [T]."""
    allowed = np.full(len(trajectory), APART)
    for k, variable in enumerate(variables[: trajectory.cvs.shape[1]]):
        if variable.unit == "Å":
            allowed += np.abs(trajectory.cvs[:, k] - variable.value(frame.positions))
    return allowed


def _misplaced(trajectory: Trajectory, frame: Frame, allowed: Array) -> tuple[int, str]:
    """The first row with fused atoms, or with a gap that has grown by more than ``allowed`` [T]."""
    count, atoms = len(trajectory), len(frame.numbers)
    if count == 0 or atoms < 2:
        return count, ""
    start = float(_closest_and_gap(frame.positions[None], frame)[1][0])
    size = max(1, BLOCK // (3 * atoms))
    for begin in range(0, count, size):
        part = slice(begin, begin + size)
        closest, gap = _closest_and_gap(trajectory.positions[part], frame)
        bad = (closest < FUSED) | (gap > start + allowed[part])
        if bad.any():
            row = begin + _first(bad)
            positions = trajectory.positions[row]
            fused = closest[row - begin] < FUSED
            return row, _fused(positions, frame) if fused else _apart(positions, frame, float(gap[row - begin]))
    return count, ""


def _distances(positions: Array, others: Array, frame: Frame) -> Array:
    """Distances [...] between positions [..., 3], to the nearest image in periodic directions, Å."""
    apart = others - positions
    periodic = np.array(frame.pbc)
    if periodic.any():
        # rows of directions that are not periodic may be zero
        cell = np.where(periodic[:, None], frame.cell, 0.0)
        images = np.round(apart @ np.linalg.pinv(cell))
        apart = apart - images @ cell
    found: Array = np.sqrt(np.einsum("...k,...k->...", apart, apart))
    return found


def _closest_and_gap(positions: Array, frame: Frame) -> tuple[Array, Array]:
    """Of geometries [T, N, 3] the smallest distance in units of the covalent radii, and the largest gap, Å. [T] each

    Prim's algorithm for all frames at once: the tree of shortest distances grows by the atom next to it, and the
    longest edge it had to take is the largest gap between some atoms and the rest.
    """
    count, atoms = positions.shape[:2]
    radii, frames = covalent_radii[frame.numbers], np.arange(count)
    new = np.zeros(count, dtype=np.int64)
    reach = np.full((count, atoms), np.inf)
    outside = np.ones((count, atoms), dtype=bool)
    closest, gap = np.full(count, np.inf), np.zeros(count)
    for _ in range(atoms - 1):
        outside[frames, new] = False
        distance = _distances(positions[frames, new][:, None], positions, frame)
        ratio = np.where(outside, distance / (radii[new][:, None] + radii), np.inf)
        closest = np.minimum(closest, ratio.min(axis=1))
        reach = np.minimum(reach, distance)
        waiting = np.where(outside, reach, np.inf)
        new = waiting.argmin(axis=1)
        gap = np.maximum(gap, waiting[frames, new])
    return closest, gap


def _name(frame: Frame, atom: int) -> str:
    return f"{chemical_symbols[frame.numbers[atom]]}{atom + 1}"


def _fused(positions: Array, frame: Frame) -> str:
    i, j = np.triu_indices(len(frame.numbers), k=1)
    distance = _distances(positions[i], positions[j], frame)
    radii = covalent_radii[frame.numbers]
    pair = int(np.argmin(distance / (radii[i] + radii[j])))
    return f"{_name(frame, i[pair])} and {_name(frame, j[pair])} have fused ({distance[pair]:.2f} Å)"


def _apart(positions: Array, frame: Frame, gap: float) -> str:
    """In words what is on the other side of a gap."""
    near = _distances(positions[:, None], positions[None], frame) < gap * (1 - 1e-9)
    side = near[0]
    while (grown := near[side].any(axis=0)).sum() > side.sum():
        side = grown
    smaller = np.nonzero(side if side.sum() <= len(side) / 2 else ~side)[0]
    if len(smaller) == 1:
        return f"lost atom {_name(frame, int(smaller[0]))} ({gap:.1f} Å from the others)"
    return f"fragments have flown apart ({len(smaller)} atoms, {gap:.1f} Å from the others)"
