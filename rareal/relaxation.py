"""Relaxing a molecule whose two ends are held apart, and the softness of what it relaxes to.

The distance is fixed by holding both end atoms: for an isolated molecule that takes away the five motions that cost
nothing and leaves one, the turn about the line between the ends.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rareal.protocols import EnergyForces
from rareal.records import Array, Frame

DIFFERENCE = 0.01
"""Å, half the spacing of the central differences. For hexane (GFN2-xTB) 0.005 and 0.02 give the same lowest
curvature within 0.001 eV/Å², the same distance of rupture within 0.001 Å."""

SOFTEST = 0.02
"""eV/Å², the least curvature a step assumes, so that motions without any do not run away."""

LONGEST = 0.15
"""Å, the farthest that an atom moves in one step."""


class RelaxationError(Exception):
    """The surface has no minimum here that could be found: no convergence, or numbers that are not finite."""


class Stretched:
    """A molecule on a potential, its two end atoms held.

    Parameters
    ----------
    potential : energy [eV] and forces [eV/Å] of a frame.
    frame : elements and cell.
    ends : the two atoms that are held, counted from 0.
    max_calls : evaluations of the potential after which the search is given up.

    Attributes
    ----------
    calls : evaluations of the potential so far.
    """

    def __init__(self, potential: EnergyForces, frame: Frame, ends: tuple[int, int], max_calls: int) -> None:
        self.potential = potential
        self.frame = frame
        self.ends = ends
        self.max_calls = max_calls
        self.calls = 0
        self.free: NDArray[np.bool_] = np.ones(len(frame.numbers), dtype=bool)
        self.free[list(ends)] = False

    def evaluate(self, positions: Array) -> tuple[float, Array]:
        """Energy and forces [N, 3]."""
        if self.calls >= self.max_calls:
            raise RelaxationError(f"no result after {self.calls} evaluations; the surface is too rough")
        self.calls += 1
        energy, forces = self.potential(replace(self.frame, positions=positions))[:2]
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise RelaxationError("the potential is not finite")
        return energy, forces

    def axis(self, positions: Array) -> Array:
        """Unit vector from the first end to the second."""
        line = positions[self.ends[1]] - positions[self.ends[0]]
        unit: Array = line / np.linalg.norm(line)
        return unit

    def stretched(self, positions: Array, distance: float) -> Array:
        """All atoms moved along the axis in proportion, so that the ends are ``distance`` apart."""
        first = positions[self.ends[0]]
        axis = self.axis(positions)
        along = (positions - first) @ axis
        length = along[self.ends[1]]
        return positions + np.outer(np.clip(along / length, 0.0, 1.0) * (distance - length), axis)

    def moved(self, positions: Array, step: Array) -> Array:
        """Positions with the free atoms moved by ``step`` [3F]."""
        result = positions.copy()
        result[self.free] += step.reshape(-1, 3)
        return result

    def pull(self, positions: Array, forces: Array) -> float:
        """Derivative of the relaxed energy by the distance, eV/Å."""
        first, second = self.ends
        return float(-0.5 * (forces[second] - forces[first]) @ self.axis(positions))

    def hessian(self, positions: Array) -> Array:
        """Second derivatives [3F, 3F] of the free coordinates by central differences, eV/Å²."""
        size = 3 * int(self.free.sum())
        rows = np.stack([self.curvature_along(positions, np.eye(size)[k]) for k in range(size)])
        symmetric: Array = (rows + rows.T) / 2
        return symmetric

    def curvature_along(self, positions: Array, direction: Array) -> Array:
        """The Hessian times a vector [3F]; the difference moves the atoms by `DIFFERENCE` in all."""
        scale = DIFFERENCE / float(np.linalg.norm(direction))
        forces = [self.evaluate(self.moved(positions, sign * scale * direction))[1][self.free] for sign in (1.0, -1.0)]
        product: Array = (forces[1] - forces[0]).ravel() / (2 * scale)
        return product

    def turn(self, positions: Array) -> Array:
        """Normalised displacement [3F] of the turn about the axis, which costs nothing."""
        lever = np.cross(self.axis(positions), positions - positions[self.ends[0]])[self.free].ravel()
        norm = float(np.linalg.norm(lever))
        return lever / norm if norm > 1e-6 else lever


def relax(
    system: Stretched,
    positions: Array,
    hessian: Array,
    fmax: float,
    max_steps: int = 300,
    trail: list[Array] | None = None,
) -> tuple[Array, float, Array, Array]:
    """Minimise with BFGS from a given Hessian; the positions on the way are appended to ``trail``.

    Returns
    -------
    positions [N, 3], energy, forces [N, 3], updated Hessian [3F, 3F].

    Raises
    ------
    RelaxationError
        If the forces do not fall below ``fmax`` (eV/Å, the largest on a free atom).
    """
    energy, forces = system.evaluate(positions)
    for _ in range(max_steps):
        gradient = -forces[system.free].ravel()
        if np.linalg.norm(forces[system.free], axis=1).max(initial=0.0) < fmax:
            return positions, energy, forces, hessian
        step = _newton_step(hessian, gradient)
        while True:
            trial = system.moved(positions, step)
            new_energy, new_forces = system.evaluate(trial)
            # an uphill step means that the Hessian is of somewhere else
            if new_energy < energy + 1e-3 or np.abs(step).max() < 1e-3:
                break
            hessian = _update(hessian, step, -new_forces[system.free].ravel() - gradient)
            step = 0.3 * step
        hessian = _update(hessian, step, -new_forces[system.free].ravel() - gradient)
        positions, energy, forces = trial, new_energy, new_forces
        if trail is not None:
            trail.append(positions)
    raise RelaxationError(f"no minimum found in {max_steps} steps")


def _newton_step(hessian: Array, gradient: Array) -> Array:
    values, vectors = np.linalg.eigh(hessian)
    step = -vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), SOFTEST))
    longest = np.linalg.norm(step.reshape(-1, 3), axis=1).max()
    limited: Array = step * min(1.0, float(LONGEST / longest))
    return limited


def _update(hessian: Array, step: Array, change: Array) -> Array:
    """Powell-symmetric-Broyden/BFGS update: BFGS where the curvature is positive, else symmetric rank one."""
    product = hessian @ step
    along = float(change @ step)
    if along > 1e-8 * float(step @ step) and float(step @ product) > 0:
        return hessian + np.outer(change, change) / along - np.outer(product, product) / float(step @ product)
    rest = change - product
    overlap = float(rest @ step)
    if abs(overlap) < 1e-3 * float(np.linalg.norm(rest) * np.linalg.norm(step)):
        return hessian
    return hessian + np.outer(rest, rest) / overlap


def softest_mode(
    system: Stretched, positions: Array, hessian: Array, tolerance: float = 0.005, max_products: int = 24
) -> tuple[float, Array]:
    """Lowest curvature [eV/Å²] at a relaxed geometry and its mode [3F], the free turn aside.

    Davidson's method on products of the true Hessian with vectors; ``hessian`` is that of a geometry nearby, which
    gives the first vectors and the preconditioner.

    E. R. Davidson, J. Comput. Phys. 1975, 17, 87.
    """
    turn = system.turn(positions)
    values, vectors = np.linalg.eigh(hessian + 100.0 * np.outer(turn, turn))
    basis = vectors[:, :4]
    products = np.stack([system.curvature_along(positions, column) for column in basis.T], axis=1)
    while True:
        small, rotation = np.linalg.eigh((basis.T @ products + products.T @ basis) / 2)
        mode, curvature = basis @ rotation[:, 0], float(small[0])
        residual = products @ rotation[:, 0] - curvature * mode
        if np.linalg.norm(residual) < tolerance or basis.shape[1] >= max_products:
            return curvature, mode
        denominators = values - curvature
        denominators[np.abs(denominators) < 0.02] = 0.02
        correction = vectors @ ((vectors.T @ residual) / denominators)
        correction -= turn * (turn @ correction)
        for _ in range(2):
            correction -= basis @ (basis.T @ correction)
        norm = float(np.linalg.norm(correction))
        if norm < 1e-10:
            return curvature, mode
        correction /= norm
        basis = np.column_stack([basis, correction])
        products = np.column_stack([products, system.curvature_along(positions, correction)])
