"""Whether an engine's forces are the gradient of its energy, on this machine, with these settings.

Forces that are not (the energy without the entropy of smeared electrons, a grid that is too coarse, units) are found
out here in a handful of calculations, instead of in a potential that cannot be trained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rareal.protocols import Engine
from rareal.records import Array, Calculation, Frame


@dataclass(frozen=True)
class SelfCheck:
    """What a finite-difference check found.

    Attributes
    ----------
    engine : hash of the engine's settings.
    energy : eV, of the frame itself.
    deviations : eV/Å, force along a direction minus the slope of the energy along it, per direction.
    largest_force : eV/Å, the largest component, to compare with.
    repeat : eV, energy of the frame computed again, after the others, minus the first.
    stress_deviation : eV/Å³, largest deviation of a diagonal component of the stress; None where there is none.
    seconds : of one calculation, the median.
    note : what the calculation of the frame took.
    """

    engine: str
    energy: float
    deviations: tuple[float, ...]
    largest_force: float
    repeat: float
    stress_deviation: float | None
    seconds: float
    note: str = ""

    @property
    def max_deviation(self) -> float:
        """eV/Å, the largest of all directions."""
        return max(abs(value) for value in self.deviations)

    def passed(self, tolerance: float = 0.01) -> bool:
        """Whether forces agree within ``tolerance`` [eV/Å] and a repeated calculation within a tenth of it [eV]."""
        return self.max_deviation <= tolerance and abs(self.repeat) <= 0.1 * tolerance


def self_check(
    engine: Engine, frame: Frame, step: float = 0.005, directions: int = 3, seed: int = 1, stress: bool = True
) -> SelfCheck:
    """Compare forces, and the stress if there is one, with central differences of the energy.

    Parameters
    ----------
    step : Å, length of the displacement of all 3 N coordinates together; for the stress, strain of step / 2 Å⁻¹.
    directions : random directions to displace along, two calculations each.
    seed : of the directions.

    Raises
    ------
    LabelError
        If the engine fails.
    """
    if not (step > 0 and directions > 0):
        raise ValueError(f"step ({step}) and directions ({directions}) must be positive")
    seconds: list[float] = []

    def compute(positions: Array, cell: Array | None = None) -> Calculation:
        start = time.perf_counter()
        moved = replace(frame, positions=positions, cell=frame.cell if cell is None else cell)
        result = Calculation(*engine.calculate(moved))
        seconds.append(time.perf_counter() - start)
        return result

    found = compute(frame.positions)
    deviations = []
    for direction in unit_directions(frame.positions.shape, directions, seed):
        up, down = (compute(frame.positions + h * direction).energy for h in (step, -step))
        deviations.append(float(np.sum(found.forces * direction) + (up - down) / (2 * step)))
    worst = None
    if stress and found.stress is not None:
        volume, strains = abs(float(np.linalg.det(frame.cell))), []
        for axis in range(3):
            energies = []
            for strain in (0.5 * step, -0.5 * step):
                deformation = np.eye(3)
                deformation[axis, axis] += strain
                energies.append(compute(frame.positions @ deformation, frame.cell @ deformation).energy)
            strains.append(float(found.stress[axis]) - (energies[0] - energies[1]) / (step * volume))
        worst = max(strains, key=abs)
    repeat = compute(frame.positions).energy - found.energy
    return SelfCheck(
        engine.hash,
        found.energy,
        tuple(deviations),
        float(np.abs(found.forces).max()),
        repeat,
        worst,
        float(np.median(seconds)),
        found.note,
    )


def unit_directions(shape: Sequence[int], count: int, seed: int) -> list[Array]:
    """Random vectors of length 1 in the space of all coordinates."""
    rng = np.random.default_rng(seed)
    vectors = [rng.normal(size=shape) for _ in range(count)]
    return [np.asarray(vector / np.linalg.norm(vector)) for vector in vectors]
