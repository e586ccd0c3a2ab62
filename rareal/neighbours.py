"""Edge lists of a whole frame, as models and exported committees take them."""

from __future__ import annotations

import numpy as np
import torch
from ase.neighborlist import primitive_neighbor_list
from torch import Tensor

from rareal.records import Frame


def all_edges(frame: Frame, cutoff: float) -> tuple[Tensor, Tensor]:
    """Every directed pair closer than ``cutoff`` [Å], periodic images included, grouped by ascending centre.

    Returns
    -------
    index : int64 [2, P], centre and neighbour; vectors : float64 [P, 3], neighbour minus centre, Å.
    """
    if any(frame.pbc):
        i, j, vectors = primitive_neighbor_list("ijD", frame.pbc, frame.cell, frame.positions, cutoff)
        order = np.argsort(i, kind="stable")
        i, j, vectors = i[order], j[order], vectors[order]
    else:
        difference = frame.positions[None, :, :] - frame.positions[:, None, :]
        distance2 = np.einsum("ijk,ijk->ij", difference, difference)
        np.fill_diagonal(distance2, np.inf)
        i, j = np.nonzero(distance2 < cutoff**2)
        vectors = difference[i, j]
    return torch.from_numpy(np.stack([i, j]).astype(np.int64)), torch.from_numpy(np.ascontiguousarray(vectors))
