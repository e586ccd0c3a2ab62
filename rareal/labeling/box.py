"""The box around a molecule, for codes that work on a grid.

On a grid the energy of a molecule depends a little on where it sits between the points. Here its centre is always put
on a grid point, so that a molecule that drifts keeps its energy. The gradient of that energy is the force less its mean
over the atoms: nothing is left that would push the molecule as a whole, as for a potential that knows no grid.
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
    centred = frame.positions - frame.positions.mean(axis=0)
    reach = 2 * np.abs(centred).max(axis=0)
    if cell is None:
        step = MULTIPLE * spacing
        lengths = np.ceil((reach + 2 * vacuum) / step - 1e-9) * step
    else:
        lengths = np.asarray(cell, dtype=np.float64)
        room = lengths - reach
        if (room < vacuum).any():
            axis = int(np.argmin(room))
            raise LabelError(
                f"the molecule reaches {reach[axis] / 2:.1f} Å from its centre in {'xyz'[axis]} and does not fit the "
                f"box of {lengths[axis]:g} Å with {vacuum / 2:g} Å to the walls; enlarge engine.cell"
            )
    # the middle of an even number of points is a point
    return lengths, centred + 0.5 * lengths


def without_net_force(forces: Array) -> Array:
    """Forces [N, 3] less their mean: the gradient of the energy of a molecule whose centre stays where it is."""
    return np.asarray(forces - forces.mean(axis=0))
