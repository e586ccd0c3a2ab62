"""The molecule at three instants of the event: at the start, at the barrier, and after it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors
from numpy.typing import NDArray

from rareal.bonds import BONDED, stretches
from rareal.event import Event, find_event
from rareal.records import Array, Profile
from rareal.report.reading import DAMAGED, LeftOut
from rareal.report.rundata import Pull, RoundData, RunData

SPACE = "\u00a0"
"""Between a number and its unit, where no line breaks."""

STRETCHED = 1.75
"""Times the sum of the covalent radii: a bond of the start or the end is drawn dashed up to here."""

AFTERMATH = 200
"""Rows after the event at which the last picture is taken: what is left has moved apart, and is still near."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One instant: positions [N, 3] Å, turned so that the molecule lies flat; bonds and stretched bonds, from 0."""

    title: str
    text: str
    positions: Array
    bonds: tuple[tuple[int, int], ...]
    stretched: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Molecule:
    """The snapshots, where they come from, and the atoms that the collective variable names (from 0)."""

    numbers: NDArray[np.int64]
    snapshots: tuple[Snapshot, ...]
    source: str
    marked: tuple[int, ...]

    def viewer(self) -> dict[str, Any]:
        """What the viewer's script reads."""
        symbols = [chemical_symbols[z] for z in self.numbers]
        return {
            "symbols": symbols,
            "labels": {str(k): f"{symbols[k]}{k + 1}" for k in self.marked},
            "snapshots": [
                {
                    "positions": np.round(item.positions, 4).tolist(),
                    "bonds": [list(pair) for pair in item.bonds],
                    "stretched": [list(pair) for pair in item.stretched],
                }
                for item in self.snapshots
            ],
        }


def molecule(run: RunData) -> Molecule | None:
    """The event as the latest round saw it; None where there is no trajectory, or it is damaged."""
    for item in reversed(run.rounds):
        if item.pulls:
            try:
                return _molecule(run, item)
            except (*DAMAGED, IndexError) as error:
                warnings.warn(f"the molecule of round {item.number} cannot be drawn: {error}", LeftOut, stacklevel=2)
                return None
    return None


def _molecule(run: RunData, item: RoundData) -> Molecule:
    if run.start is None:
        raise ValueError("its structure cannot be read")
    numbers = run.start.numbers
    checked = item.path.walker if item.path else -1
    ordered = sorted(item.pulls, key=lambda pull: (pull.walker != checked, pull.row))
    # a walker that saw the event, the checked one first; that one where none did
    for candidate in (*ordered, ordered[0]):
        geometry = _positions(item, candidate)
        if geometry.shape[1] != len(numbers):
            raise ValueError(f"{geometry.shape[1]} atoms in the trajectory, {len(numbers)} in the structure")
        found = find_event(numbers, geometry)
        pull, positions, event = candidate, geometry, found
        if found is not None:
            break
    rows, why = _rows(item, pull, event)
    names = ("Start", "At the barrier", "After it")
    bonded = _union(_bonds(numbers, positions[0]), _bonds(numbers, positions[rows[-1]]))
    chain = _chain(run, event)
    flat = _laid_flat(positions[rows[0]])
    unit = run.cv_unit
    snapshots = []
    for name, row, reason in zip(names, rows, why, strict=True):
        bonds = _bonds(numbers, positions[row])
        told = [reason, f"step {pull.steps[row]}", f"{run.cv_name}: {pull.cv[row]:.3f}{SPACE + unit if unit else ''}"]
        told += [f"{_pair(numbers, pair)}: {_length(positions[row], pair):.2f}{SPACE}Å" for pair in chain]
        snapshots.append(
            Snapshot(
                title=name,
                text="; ".join(told),
                positions=_superposed(positions[row], flat),
                bonds=bonds,
                stretched=tuple(
                    p for p in bonded if p not in bonds and _stretch(numbers, positions[row], p) < STRETCHED
                ),
            )
        )
    source = f"walker {pull.walker} of round {item.number}, driven by the committee"
    return Molecule(numbers, tuple(snapshots), source, _marked(run, len(numbers)))


def _positions(item: RoundData, pull: Pull) -> Array:
    with np.load(item.trajectories) as archive:
        found: Array = archive[f"{pull.row}/positions"]
    return found


def _rows(item: RoundData, pull: Pull, event: Event | None) -> tuple[tuple[int, int, int], tuple[str, str, str]]:
    """The rows of the three instants, and how each was chosen."""
    last = pull.steps.size - 1
    if event is not None:
        # a drive's largest work may come long after the event: what is left is still dragged along
        during = slice(event.onset, event.end + 1)
        thermal = item.profile is not None and item.profile.kind == "free energy"
        height, what = (
            (_height(item.profile, pull.cv[during]), "top of the free energy") if thermal else
            (_energy(item, pull)[during], "highest energy")
        )  # fmt: skip
        top = event.onset + int(np.argmax(height))
        late = min(event.end + AFTERMATH, last)
        return (0, top, late), ("first frame", f"{what} while bonds change", "bonds have changed")
    if pull.work.any():
        return (0, pull.summit, last), ("first frame", "largest work", "last frame")
    far = int(np.argmax(np.abs(pull.cv - pull.cv[0])))
    if item.profile is not None and np.isfinite(item.profile.energy).any():
        between = np.nonzero((pull.cv - pull.cv[0]) * (pull.cv - pull.cv[far]) <= 0)[0]
        top = int(between[np.argmax(_height(item.profile, pull.cv[between]))])
        return (0, top, far), ("first frame", "highest in the profile on the way", "farthest from the start")
    middle = int(np.argmin(np.abs(pull.cv - (pull.cv[0] + pull.cv[far]) / 2)))
    return (0, middle, far), ("first frame", "half way", "farthest from the start")


def _height(profile: Profile | None, cv: Array) -> Array:
    """The profile's energy at these values of its coordinate; the lowest there is where it says nothing."""
    if profile is None:
        return np.zeros(len(cv))
    known = np.isfinite(profile.energy)
    order = np.argsort(profile.coordinate[known])
    low = float(profile.energy[known].min())
    found: Array = np.interp(cv, profile.coordinate[known][order], profile.energy[known][order], left=low, right=low)
    return found


def _energy(item: RoundData, pull: Pull) -> Array:
    with np.load(item.trajectories) as archive:
        found: Array = archive[f"{pull.row}/energy"]
    return found


def _chain(run: RunData, event: Event | None) -> tuple[tuple[int, int], ...]:
    """The bond that decides the event, unless the collective variable is its length anyway."""
    return () if event is None or set(event.pair) == set(_named(run)) else (event.pair,)


def _named(run: RunData) -> list[int]:
    """The atoms that the configuration's first variable names, from 0; none for kinds that name groups."""
    section = run.config.get("cv")
    first = section[0] if isinstance(section, list) and section else section
    atoms = first.get("atoms") if isinstance(first, dict) else None
    return [a - 1 for a in atoms if isinstance(a, int)] if isinstance(atoms, list) else []


def _marked(run: RunData, count: int) -> tuple[int, ...]:
    return tuple(k for k in _named(run) if 0 <= k < count)


def _bonds(numbers: NDArray[np.int64], positions: Array) -> tuple[tuple[int, int], ...]:
    pairs = np.stack(np.triu_indices(len(numbers), k=1), axis=1)
    near = pairs[stretches(numbers, positions, pairs) < BONDED] if len(pairs) else pairs
    return tuple((int(i), int(j)) for i, j in near)


def _union(*lists: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted({pair for pairs in lists for pair in pairs}))


def _stretch(numbers: NDArray[np.int64], positions: Array, pair: tuple[int, int]) -> float:
    return float(stretches(numbers, positions, np.array([pair]))[0])


def _length(positions: Array, pair: tuple[int, int]) -> float:
    return float(np.linalg.norm(positions[pair[1]] - positions[pair[0]]))


def _pair(numbers: NDArray[np.int64], pair: tuple[int, int]) -> str:
    """``C1–C2``, atoms counted from 1."""
    return "–".join(f"{chemical_symbols[numbers[k]]}{k + 1}" for k in sorted(pair))


def _laid_flat(positions: Array) -> Array:
    """Centred, the longest extension along x, the shortest along z (towards the reader)."""
    centred: Array = positions - positions.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    axes[2] *= np.sign(np.linalg.det(axes))  # a rotation, no mirror image
    turned: Array = centred @ axes.T
    return turned


def _superposed(positions: Array, target: Array) -> Array:
    """Centred and turned onto ``target`` (W. Kabsch, Acta Cryst. 1976, A32, 922)."""
    centred: Array = positions - positions.mean(axis=0)
    left, _, right = np.linalg.svd(centred.T @ target)
    left[:, 2] *= np.sign(np.linalg.det(left @ right))
    turned: Array = centred @ left @ right
    return turned


def drawings(found: Molecule, width: int = 340, height: int = 300) -> list[str]:
    """The snapshots as SVG, all to one scale: for print, and for browsers without WebGL."""
    places = [item.positions for item in found.snapshots]
    middles = [(p.min(axis=0) + p.max(axis=0)) / 2 for p in places]
    extent = np.max([np.ptp(p[:, :2], axis=0) for p in places], axis=0) + 2.0
    scale = float(min(width / extent[0], height / extent[1], 45.0))
    return [
        _drawing(found, item, (item.positions - middle) * scale, scale, width, height)
        for item, middle in zip(found.snapshots, middles, strict=True)
    ]


def _drawing(found: Molecule, item: Snapshot, places: Array, scale: float, width: int, height: int) -> str:
    """One snapshot, atoms and bonds from the back to the front."""
    shapes: list[tuple[float, str]] = []
    for pairs, style in ((item.bonds, 'stroke="#777" stroke-width="{:.1f}"'),
                         (item.stretched, 'stroke="#a33" stroke-width="{:.1f}" stroke-dasharray="4 4"')):  # fmt: skip
        for i, j in pairs:
            (x1, y1), (x2, y2) = places[i, :2], places[j, :2]
            line = f'<line x1="{x1:.1f}" y1="{-y1:.1f}" x2="{x2:.1f}" y2="{-y2:.1f}" {style.format(0.14 * scale)}/>'
            shapes.append((float(min(places[i, 2], places[j, 2])), line))
    for z, (x, y, depth) in zip(found.numbers, places, strict=True):
        red, green, blue = (int(255 * share) for share in jmol_colors[z])
        fill = f'fill="rgb({red},{green},{blue})" stroke="#555" stroke-width="0.8"'
        shapes.append(
            (
                float(depth),
                f'<circle cx="{x:.1f}" cy="{-y:.1f}" r="{scale * (0.12 + 0.3 * covalent_radii[z]):.1f}" {fill}/>',
            )
        )
    body = "".join(shape for _, shape in sorted(shapes, key=lambda entry: entry[0]))
    box = f"{-width / 2:g} {-height / 2:g} {width} {height}"
    return f'<svg viewBox="{box}" role="img" aria-label="{item.title}">{body}</svg>'
