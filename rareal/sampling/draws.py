"""Initial data that is drawn instead of driven: geometries from a distribution, labelled one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ase.data import covalent_radii

from rareal.errors import LabelError, SamplingError
from rareal.protocols import Engine, Progress
from rareal.records import Array, Calculation, Frame, Label, LabeledFrame

TRIES = 50
"""Geometries drawn per frame wanted before the distribution counts as hopeless."""

FAILURES = 0.2
"""Engine failures per frame wanted (one at least is forgiven) before the engine's own error is raised."""


def closeness(frame: Frame) -> float:
    """Smallest distance of two atoms as a share of the sum of their covalent radii; inf for a single atom."""
    first, second = np.triu_indices(len(frame.numbers), k=1)
    separations = frame.positions[second] - frame.positions[first]
    if any(frame.pbc):
        from ase.geometry import find_mic

        distances = find_mic(separations, frame.cell, frame.pbc)[1]
    else:
        distances = np.linalg.norm(separations, axis=1)
    radii = covalent_radii[frame.numbers]
    return float(np.min(distances / (radii[first] + radii[second]), initial=np.inf))


def labelled(
    engine: Engine,
    start: Frame,
    draw: Callable[[], Array],
    count: int,
    min_distance: float,
    progress: Progress | None = None,
) -> tuple[list[LabeledFrame], int]:
    """Label ``count`` geometries; those that are too tight, or that the engine refuses, are drawn again.

    Parameters
    ----------
    engine : the level of theory.
    start : elements and cell.
    draw : positions [N, 3] in Å, others at every call.
    count : frames wanted.
    min_distance : least distance of two atoms, in sums of their covalent radii.
    progress : told (frames done, frames wanted).

    Returns
    -------
    The frames, numbered by ``step``, and how often the engine was called for them, failures included.

    Raises
    ------
    SamplingError
        If hardly any geometry keeps its atoms apart.
    LabelError
        If the engine fails for more than a fifth of the frames.
    """
    frames: list[LabeledFrame] = []
    tries, calls = 0, 0
    while len(frames) < count:
        tries += 1
        if tries > TRIES * count:
            raise SamplingError(
                f"only {len(frames)} of {tries - 1} displaced structures keep all atoms {min_distance:g} times the sum "
                "of their covalent radii apart; lower the temperature or amplitude of the section 'initial', or its "
                "min_distance"
            )
        frame = replace(start, positions=draw(), origin="initial", round=0, walker=-1, step=len(frames))
        if closeness(frame) < min_distance:
            continue
        calls += 1
        try:
            found = Calculation(*engine.calculate(frame))
        except LabelError:
            if calls - len(frames) > max(1.0, FAILURES * count):
                raise
            continue
        label = Label(float(found.energy), np.array(found.forces), engine.hash, stress=found.stress, note=found.note)
        frames.append(LabeledFrame(frame, label))
        if progress is not None:
            progress(len(frames), count)
    return frames, calls
