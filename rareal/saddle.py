"""The barrier between two structures of a stretched molecule: a nudged elastic band with a climbing image (ASE).

G. Henkelman, B. P. Uberuaga, H. Jónsson, J. Chem. Phys. 2000, 113, 9901.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import FIRE

from rareal.records import Array
from rareal.relaxation import RelaxationError, Stretched

FORCE = 0.02
"""eV/Å, the largest force on an image of the band; the barrier's error is of second order in it."""

IMAGES = 5
MAX_STEPS = 400


class _Surface(Calculator):
    """The potential of a `Stretched` molecule for ASE."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, system: Stretched) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.system = system

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Energy and forces of the atoms."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        energy, forces = self.system.evaluate(atoms.positions.copy())
        self.results = {"energy": energy, "forces": forces}


def barrier(system: Stretched, intact: Array, broken: Array) -> tuple[float, Array]:
    """Energy of the saddle between two minima [N, 3] at one distance above the first, eV, and the band [7, N, 3].

    Raises
    ------
    RelaxationError
        If the band does not converge.
    """
    images = []
    for share in np.linspace(0.0, 1.0, IMAGES + 2):
        image = Atoms(system.frame.numbers, (1.0 - share) * intact + share * broken)
        image.calc = _Surface(system)
        image.set_constraint(FixAtoms(list(system.ends)))
        images.append(image)
    band = NEB(images, climb=True, method="improvedtangent", k=2.0)
    if not FIRE(band, logfile=None, dt=0.05, maxstep=0.1).run(fmax=FORCE, steps=MAX_STEPS):
        raise RelaxationError(f"no path over the barrier found in {MAX_STEPS} steps")
    energies = np.array([image.get_potential_energy() for image in images])
    positions = np.stack([image.positions for image in images])
    return float(energies.max() - energies[0]), positions
