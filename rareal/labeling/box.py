"""The box around a molecule, for codes that work on a grid.

On a grid the energy of a molecule depends a little on where it sits between the points. Here a molecule is moved by
whole grid spacings only, so that the same geometry has the same energy wherever it has drifted to, and energies along
a path are as smooth as the code makes them.
"""

from __future__ import annotations

import numpy as np

from rareal.errors import LabelError
from rareal.records import Array, Frame

MULTIPLE = 8
"""Numbers of grid points are multiples of this, which multigrid solvers and Fourier transforms like."""


def molecule_in_box(
    frame: Frame, cell: tuple[float, float, float] | None, vacuum: float, spacing: float
) -> tuple[Array, Array]:
    """Lengths [3] of an orthogonal box and positions [N, 3] in it, Å.

    Parameters
    ----------
    cell : the box; None for one that leaves ``vacuum`` around the atoms, in steps of `MULTIPLE` spacings.
    vacuum : Å between the nuclei and the walls; half of it is enough in a box that is given.
    spacing : of the grid, Å.

    Raises
    ------
    LabelError
        If the molecule does not fit into ``cell``.
    """
    low, high = frame.positions.min(axis=0), frame.positions.max(axis=0)
    if cell is None:
        step = MULTIPLE * spacing
        lengths = np.ceil((high - low + 2 * vacuum) / step - 1e-9) * step
    else:
        lengths = np.asarray(cell, dtype=np.float64)
        room = lengths - (high - low)
        if (room < vacuum).any():
            axis = int(np.argmin(room))
            raise LabelError(
                f"the molecule is {high[axis] - low[axis]:.1f} Å long in {'xyz'[axis]} and does not fit the box of "
                f"{lengths[axis]:g} Å with {vacuum / 2:g} Å to either wall; enlarge engine.cell"
            )
    points = np.maximum(1, np.round(lengths / spacing / MULTIPLE)) * MULTIPLE
    true_spacing = lengths / points
    shift = np.round((0.5 * lengths - 0.5 * (low + high)) / true_spacing) * true_spacing
    return lengths, frame.positions + shift
