"""Are an engine's forces the gradient of its energy? Finite differences tell, whatever the engine.

What they find: units and signs, an energy that the forces do not belong to (the total energy instead of the free energy
under Fermi filling), self-consistency that is too loose, a correction that one of the two lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rareal.protocols import Engine
from rareal.records import Array, Frame

SHAKE = 0.05
"""Å. At a minimum or under symmetry all forces vanish, and wrong ones too: `shaken` goes away from there."""


@dataclass(frozen=True, eq=False)
class SelfCheck:
    """Slopes of the energy along D directions of unit length in all coordinates, eV/Å.

    Attributes
    ----------
    analytic : [D] from the forces.
    numeric : [D] from finite differences.
    net_force : norm of the sum of all forces; zero for a molecule, but for the grid of a grid-based engine.
    calls : calculations that it took.
    """

    analytic: Array
    numeric: Array
    net_force: float
    calls: int

    @property
    def error(self) -> float:
        """The largest difference of the two slopes."""
        return float(np.abs(self.analytic - self.numeric).max())


def shaken(frame: Frame, seed: int = 0) -> Frame:
    """``frame`` with every coordinate displaced by up to `SHAKE`."""
    noise = np.random.default_rng(seed).uniform(-SHAKE, SHAKE, frame.positions.shape)
    return replace(frame, positions=frame.positions + noise)


def self_check(engine: Engine, frame: Frame, step: float = 0.01, directions: int = 3) -> SelfCheck:
    """Compare forces with fourth-order central differences of the energy at ``frame``.

    The slope is (4 D(h) - D(2h)) / 3 with D(h) = (E(x + h u) - E(x - h u)) / 2h (Richardson's extrapolation), whose
    error is of the order h⁴.

    Parameters
    ----------
    engine : whatever calculates.
    step : h, Å in all coordinates together. Errors of the energy count 1/h times.
    directions : u; the first is that of the forces, where the slope is steepest, the others are random.

    Raises
    ------
    LabelError
        If the engine fails at one of the 4 * ``directions`` + 1 geometries.
    """
    rng = np.random.default_rng(0)
    forces = np.asarray(engine.calculate(frame)[1], dtype=np.float64)
    along = [forces if k == 0 and forces.any() else rng.normal(size=forces.shape) for k in range(directions)]
    units = [direction / np.linalg.norm(direction) for direction in along]

    def slope(unit: Array, length: float) -> float:
        ahead, behind = (
            engine.calculate(replace(frame, positions=frame.positions + sign * length * unit))[0] for sign in (1, -1)
        )
        return (ahead - behind) / (2 * length)

    near = np.array([slope(unit, step) for unit in units])
    far = np.array([slope(unit, 2 * step) for unit in units])
    return SelfCheck(
        analytic=np.array([-np.sum(forces * unit) for unit in units]),
        numeric=(4 * near - far) / 3,
        net_force=float(np.linalg.norm(forces.sum(axis=0))),
        calls=1 + 4 * directions,
    )
