"""Change of level: a labelled set, or some of it, computed anew by another engine; and what the change amounts to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from rareal import labelled
from rareal.data import formats
from rareal.errors import DatasetError
from rareal.label import Labels, compute, engine_of, forget
from rareal.labelconfig import LabelConfig
from rareal.progress import Display
from rareal.records import Label, LabeledFrame
from rareal.subset import select
from rareal.units import KCAL_MOL


@dataclass(frozen=True)
class Shift:
    """New labels minus old ones, over the frames that have both. eV and eV/Å.

    Attributes
    ----------
    engine : the hash of the old level.
    frames : how many.
    elements : energy shift per atom of each element, by linear regression of the energy differences on the numbers of
        atoms; empty where the compositions do not tell the elements apart.
    mean : of the energy differences.
    rest_rms, rest_max : of what the regression leaves of them, the part that changes the shape of the surface; NaN
        where there are too few frames to tell.
    force_rms, force_max : of the differences of force components.
    force_scale : root mean square of the new force components, to compare with.
    """

    engine: str
    frames: int
    elements: dict[str, float]
    mean: float
    rest_rms: float
    rest_max: float
    force_rms: float
    force_max: float
    force_scale: float

    def describe(self) -> str:
        """The numbers in words."""
        offsets = ", ".join(f"{symbol} {value:+.4f}" for symbol, value in self.elements.items())
        per_element = f"; per atom: {offsets} eV" if offsets else " (one composition does not tell it by element)"
        share = f" ({100 * self.force_rms / self.force_scale:.1f} % of the forces)" if self.force_scale else ""
        rest = f"RMS {self.rest_rms / KCAL_MOL:.3f} kcal/mol, largest {self.rest_max / KCAL_MOL:.3f} kcal/mol"
        lines = [
            f"Shift from engine {self.engine[:12]}, {self.frames} frames",
            f"  energy: mean {self.mean:+.4f} eV a frame{per_element}",
            f"  energy without that: {rest if np.isfinite(self.rest_rms) else 'too few frames to tell'}",
            f"  forces: RMS {self.force_rms:.4f} eV/Å{share}, largest {self.force_max:.4f} eV/Å",
        ]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A set at its new level: its rows, what labelling them took, and the shift from every old level."""

    rows: list[LabeledFrame]
    labels: Labels
    shifts: list[Shift]

    def numbers(self) -> dict[str, Any]:
        """For programs."""
        return {
            "engine": self.labels.engine,
            "frames": len(self.rows),
            "failed": len(self.labels.failed),
            "shifts": [asdict(shift) for shift in self.shifts],
        }


def relabel(
    source: Path,
    config: LabelConfig,
    output: Path,
    rules: Sequence[str],
    seed: int,
    display: Display,
    units: str | None = None,
    mixed: bool = False,
    force: bool = False,
) -> Outcome:
    """Label the frames of ``source`` with the engine of ``config`` and write them to ``output``.

    Where a frame comes from stays with it, and so does its weight; the hash of the engine whose label it had goes to
    ``replaces``. Frames that are at the level already keep their labels.

    Parameters
    ----------
    rules, seed : which frames, see `rareal.subset.select`.
    units, mixed : see `rareal.labelled.read`.

    Raises
    ------
    DatasetError
        If the set cannot be read, is of mixed levels without ``mixed``, a rule cannot be followed, ``output`` cannot be
        written, or all frames are at the level already.
    ConfigError, LabelError
        As `rareal.label.compute` does.
    """
    formats.refuse_output(output, force)
    frames, _ = labelled.read(source, units, mixed)
    indices = select(frames, rules, seed)
    old = [frames[k] for k in indices]
    engine = engine_of(config, old[0].frame)
    to_do = [k for k, item in enumerate(old) if item.label.engine != engine.hash]
    if not to_do:
        raise DatasetError(
            f"{source}: its labels are of this engine and these settings already; there is nothing to do"
        )
    found = compute(
        config, [old[k].frame for k in to_do], output, display, lambda k: f"{source}, frame {indices[to_do[k]]}"
    )
    new = dict(zip(to_do, found.results, strict=True))
    rows, before = [], []
    for k, item in enumerate(old):
        result = new.get(k, item.label)
        if isinstance(result, Label):
            rows.append(replace(item, label=result, replaces=item.label.engine) if k in new else item)
            before.append(item)
    formats.write(output, rows, {found.engine: found.settings})
    found.write_failures(output)
    forget(output)
    return Outcome(rows, found, shifts(before, rows))


def shifts(old: Sequence[LabeledFrame], new: Sequence[LabeledFrame]) -> list[Shift]:
    """The shift from each old level to the new one; ``old`` and ``new`` are the same frames in the same order."""
    levels: dict[str, list[int]] = {}
    for k, (before, after) in enumerate(zip(old, new, strict=True)):
        if before.label.engine != after.label.engine:
            levels.setdefault(before.label.engine, []).append(k)
    return [shift([old[k] for k in held], [new[k] for k in held]) for held in levels.values()]


def shift(old: Sequence[LabeledFrame], new: Sequence[LabeledFrame]) -> Shift:
    """The difference between two levels."""
    elements = sorted({int(z) for item in old for z in item.frame.numbers})
    counts = np.array([[np.sum(item.frame.numbers == z) for z in elements] for item in old], dtype=np.float64)
    energy = np.array([b.label.energy - a.label.energy for a, b in zip(old, new, strict=True)])
    offsets, _, rank, _ = np.linalg.lstsq(counts, energy, rcond=None)
    # as many frames as offsets leave nothing, whatever the levels are
    rest = energy - counts @ offsets if len(old) > rank else np.full(len(old), np.nan)
    force = np.concatenate([(b.label.forces - a.label.forces).ravel() for a, b in zip(old, new, strict=True)])
    forces = np.concatenate([item.label.forces.ravel() for item in new])
    told = rank == len(elements)
    return Shift(
        engine=old[0].label.engine,
        frames=len(old),
        elements={chemical_symbols[z]: float(x) for z, x in zip(elements, offsets, strict=True)} if told else {},
        mean=float(energy.mean()),
        rest_rms=_rms(rest),
        rest_max=float(np.abs(rest).max()),
        force_rms=_rms(force),
        force_max=float(np.abs(force).max()),
        force_scale=_rms(forces),
    )


def _rms(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(np.sqrt(np.mean(values**2)))
