"""Radial functions of message-passing models: a basis, a cutoff, and their derivatives, once for all members."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

BASES = ("bessel", "gaussian")


class Radial(nn.Module):
    """Radial basis and cosine cutoff f(r) = (cos(π r / r_c) + 1) / 2 of every edge.

    Parameters
    ----------
    basis : ``bessel``, sin(k π r / r_c) / r for k = 1 … count (Gasteiger et al., ICLR 2020), or ``gaussian``,
        ``count`` Gaussians centred evenly from 0 to r_c, as wide as their spacing (SchNet).
    cutoff : r_c, Å.
    damped : multiply the basis by f.
    """

    def __init__(self, basis: str, count: int, cutoff: float, damped: bool) -> None:
        super().__init__()
        self.bessel = basis == "bessel"
        self.cutoff = cutoff
        self.damped = damped
        centres = torch.arange(1, count + 1) * (math.pi / cutoff) if self.bessel else torch.linspace(0, cutoff, count)
        self.register_buffer("centres", centres.double())
        self.width = cutoff / max(1, count - 1)

    def forward(self, edge_vec: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Basis with f as its last column [P, K + 1], its derivative [P, K + 1], unit vectors [P, 3], distances [P]."""
        distance = torch.linalg.vector_norm(edge_vec, dim=1)
        unit = edge_vec / distance.unsqueeze(1)
        r = distance.unsqueeze(1)
        centres: Tensor = self.centres.to(edge_vec.dtype)
        if self.bessel:
            value = torch.sin(r * centres) / r
            slope = (centres * torch.cos(r * centres) - value) / r
        else:
            offset = r - centres
            value = torch.exp(offset * offset * (-0.5 / self.width**2))
            slope = value * offset * (-1.0 / self.width**2)
        inside = (r < self.cutoff).to(edge_vec.dtype)
        argument = r * (math.pi / self.cutoff)
        f = 0.5 * (torch.cos(argument) + 1.0) * inside
        df = torch.sin(argument) * (-0.5 * math.pi / self.cutoff) * inside
        if self.damped:
            slope = slope * f + value * df
            value = value * f
        return torch.cat([value, f], 1), torch.cat([slope, df], 1), unit, distance


def edge_gradients(
    basis_gradient: Tensor, unit_gradient: Tensor | None, slope: Tensor, unit: Tensor, distance: Tensor
) -> Tensor:
    """dE/d(edge vector) [M, P, 3] from dE/d(basis) [M, P, K + 1] and dE/d(unit vector) [M, P, 3]."""
    radial = (basis_gradient * slope).sum(2, keepdim=True) * unit
    if unit_gradient is None:
        return radial
    along = (unit_gradient * unit).sum(2, keepdim=True)
    return radial + (unit_gradient - along * unit) / distance.unsqueeze(1)
