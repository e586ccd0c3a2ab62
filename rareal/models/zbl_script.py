"""The repulsive core in TorchScript, as the model file carries it; `rareal.models.zbl` has the potential."""

# no postponed annotations: TorchScript reads those of the class as they are
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rareal.models.zbl import COULOMB, ENVELOPE, LENGTH, POWER, SCREENING
from rareal.records import Array


class ScriptedZBL(nn.Module):
    """Switched ZBL potential of the species with the atomic ``numbers`` [E] and the ``outer`` radii [E, E], Å."""

    outer: Tensor
    inverse: Tensor
    charge: Tensor

    def __init__(self, numbers: NDArray[np.int64], outer: Array) -> None:
        super().__init__()
        z = numbers.astype(float)
        self.register_buffer("outer", torch.from_numpy(outer))
        self.register_buffer("inverse", torch.from_numpy((z[:, None] ** POWER + z[None, :] ** POWER) / LENGTH))
        self.register_buffer("charge", torch.from_numpy(COULOMB * z[:, None] * z[None, :]))
        self.coefficients = [c for c, _ in SCREENING]
        self.exponents = [d for _, d in SCREENING]
        self.power = ENVELOPE

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        """Atomic energies [n_local], half of each pair's, and their gradients [P, 3] by the edge vectors."""
        energies = torch.zeros([n_local], dtype=edge_vec.dtype, device=edge_vec.device)
        gradients = torch.zeros_like(edge_vec)
        square = (edge_vec * edge_vec).sum(1)
        outer = self.outer[species[edge_index[0]], species[edge_index[1]]]
        # few pairs are that close; those around ghost atoms are counted where the atoms are at home
        close = torch.nonzero((square < outer * outer) & (edge_index[0] < n_local)).squeeze(1)
        # saves time; a model that is compiled ahead of time cannot depend on the number
        if torch.jit.is_scripting() and close.size(0) == 0:  # type: ignore[attr-defined]
            return energies, gradients
        center = edge_index[0].index_select(0, close)
        first, second = species[center], species[edge_index[1].index_select(0, close)]
        vectors = edge_vec.index_select(0, close)
        r = square.index_select(0, close).sqrt()
        reach = outer.index_select(0, close)
        inverse = self.inverse[first, second]
        phi = torch.zeros_like(r)
        phi_slope = torch.zeros_like(r)
        for k in range(len(self.coefficients)):
            term = self.coefficients[k] * torch.exp(-self.exponents[k] * inverse * r)
            phi = phi + term
            phi_slope = phi_slope - self.exponents[k] * inverse * term
        bare = self.charge[first, second] / r
        value, slope = bare * phi, bare * (phi_slope - phi / r)
        p = float(self.power)
        a, b, c = 0.5 * (p + 1.0) * (p + 2.0), p * (p + 2.0), 0.5 * p * (p + 1.0)
        x = r / reach
        switch = 1.0 - x.pow(p) * (a - b * x + c * x * x)
        switch_slope = -a * p * x.pow(p - 1.0) * (1.0 - x) * (1.0 - x) / reach
        total = slope * switch + value * switch_slope
        energies = energies.index_add(0, center, 0.5 * value * switch)
        gradients = gradients.index_copy(0, close, (0.5 * total / r).unsqueeze(1) * vectors)
        return energies, gradients
