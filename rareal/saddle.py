"""The barrier between two structures of a stretched molecule: a nudged elastic band with a climbing image (ASE).

G. Henkelman, B. P. Uberuaga, H. Jónsson, J. Chem. Phys. 2000, 113, 9901.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.mep.neb import idpp_interpolate
from ase.optimize import FIRE

from rareal.records import Array
from rareal.relaxation import RelaxationError, Stretched
from rareal.units import KCAL_MOL

FORCE = 0.02
"""eV/Å, the largest force on an image of the band; the barrier's error is of second order in it."""

FALL = KCAL_MOL
"""eV, the least depth of a valley of the band behind its barrier."""

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


def barrier(system: Stretched, intact: Array, broken: Array, gone: Callable[[Array], bool]) -> tuple[float, Array]:
    """Energy of the saddle between two minima [N, 3] at one distance above the first, eV, and the band [7, N, 3].

    The band starts from interpolated pair distances (IDPP: S. Smidstrup, A. Pedersen, K. Stokbro, H. Jónsson, J. Chem.
    Phys. 2014, 140, 214106), and if that leads nowhere from a straight line: where the fragments have turned, a line
    pushes atoms into one another. The broken molecule may have been found beyond further barriers, which say nothing of
    the bond: ``gone`` tells whether a structure is broken, and the band then ends in the first valley where it is.

    Raises
    ------
    RelaxationError
        If no band converges.
    """
    for start in (_distances, lambda images: None):
        images = _line(system, intact, broken)
        start(images)
        band = NEB(images, climb=True, method="improvedtangent", k=2.0)
        if FIRE(band, logfile=None, dt=0.05, maxstep=0.1).run(fmax=FORCE, steps=MAX_STEPS):
            energies = np.array([image.get_potential_energy() for image in images])
            nearer = nearer_end(energies, [gone(image.positions) for image in images])
            if nearer is not None:
                return barrier(system, intact, images[nearer].positions, gone)
            return float(energies.max() - energies[0]), np.stack([image.positions for image in images])
    raise RelaxationError(f"no path over the barrier found in {MAX_STEPS} steps")


def nearer_end(energies: Array, gone: Sequence[bool]) -> int | None:
    """The lowest image of a valley with a broken bond, if a higher barrier leads on from there to the end.

    Parameters
    ----------
    energies : [K] of the band, eV; gone : [K] whether the bond is broken.
    """
    for k in range(1, len(energies) - 1):
        before = energies[:k].max()
        valley = gone[k] and energies[k] < before - FALL and energies[k] <= energies[k + 1]
        if valley and energies[k:].max() > before:
            return k
    return None


def _line(system: Stretched, intact: Array, broken: Array) -> list[Atoms]:
    """Images on the straight line, the ends of the molecule held."""
    images = []
    for share in np.linspace(0.0, 1.0, IMAGES + 2):
        image = Atoms(system.frame.numbers, (1.0 - share) * intact + share * broken)
        image.calc = _Surface(system)
        image.set_constraint(FixAtoms(list(system.ends)))
        images.append(image)
    return images


def _distances(images: list[Atoms]) -> None:
    """Move the images to where their pair distances are interpolated ones."""
    idpp_interpolate(NEB(images, method="improvedtangent"), traj=None, log=None)
