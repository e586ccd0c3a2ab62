"""Geometries that no engine should see: some return numbers for nuclei on top of each other."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from rareal.errors import LabelError
from rareal.records import Frame


def check_geometry(frame: Frame, min_distance_ratio: float) -> None:
    """Refuse positions that are not finite, and pairs closer than a share of the sum of their covalent radii.

    Raises
    ------
    LabelError
        Naming the atoms (counted from 1).
    """
    if not np.isfinite(frame.positions).all():
        atom = int(np.argmin(np.isfinite(frame.positions).all(axis=1))) + 1
        raise LabelError(f"the position of atom {atom} is not finite")
    first, second = np.triu_indices(len(frame.numbers), k=1)
    separations = frame.positions[second] - frame.positions[first]
    if any(frame.pbc):
        from ase.geometry import find_mic

        distances = find_mic(separations, frame.cell, frame.pbc)[1]
    else:
        distances = np.linalg.norm(separations, axis=1)
    radii = covalent_radii[frame.numbers]
    ratios = distances / (radii[first] + radii[second])
    if len(ratios) and ratios.min() < min_distance_ratio:
        pair = int(np.argmin(ratios))
        one, other = (f"{chemical_symbols[frame.numbers[k]]}{k + 1}" for k in (first[pair], second[pair]))
        raise LabelError(
            f"{one} and {other} are {distances[pair]:.3f} Å apart, less than {min_distance_ratio:g} of the sum of "
            "their covalent radii"
        )
