"""The initial data: normal-mode sampling (Kulichenko et al., Chem. Rev. 2024, section 4.1).

The structure is relaxed with the engine, its Hessian is made of finite differences of the engine's forces, and frames
are drawn from the Gaussian distribution that the harmonic oscillators of the modes have at a temperature. ANI-1 (J. S.
Smith, O. Isayev, A. E. Roitberg, Chem. Sci. 2017, 8, 3192) draws energies of the modes that add up to at most the
thermal one; here every mode has its exact thermal distribution, classical or quantum mechanical, so that the frames
have a temperature that means something.

Modes are straight lines: a methyl group that turns far along one has its C-H bonds stretched. What is softer than
``lowest_wavenumber`` is therefore sampled as if it were as stiff as that, and so is a mode of negative curvature where
the relaxation has ended at a saddle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from ase.data import atomic_masses
from pydantic import BeforeValidator, Field

from rareal.errors import SamplingError
from rareal.protocols import Engine, Progress
from rareal.records import Array, Frame
from rareal.sampling.draws import labelled
from rareal.sampling.initial import InitialData, calculator
from rareal.schema import Section
from rareal.units import ACCELERATION, HBAR, KB, LIGHT, Force, Length, Temperature, parse_quantity

WaveNumber = Annotated[float, BeforeValidator(lambda value: parse_quantity(value, "cm**-1"))]


class Config(Section):
    """Thermal displacements along the normal modes of the relaxed structure, with the engine's own Hessian."""

    kind: Literal["normal_modes"] = "normal_modes"
    frames: int = Field(100, ge=2, description="frames to make; each is a label")
    temperature: Temperature = Field(500.0, gt=0, description="temperature of the modes, K")
    statistics: Literal["classical", "quantum"] = Field(
        "classical",
        description="variance of a mode of curvature k and frequency w: kT/k, or hbar w/(2 k) coth(hbar w/2kT), which "
        "has the zero-point motion and so displaces X-H bonds as they are",
    )
    lowest_wavenumber: WaveNumber = Field(
        100.0, gt=0, description="softer modes, and those of negative curvature, are drawn as if they had this, cm^-1"
    )
    displacement: Length = Field(0.01, gt=0, description="of the finite differences of the forces, Å")
    fmax: Force = Field(0.01, gt=0, description="largest force on an atom of the relaxed structure, eV/Å")
    relaxation_steps: int = Field(300, ge=0, description="most steps of the relaxation; 0: the structure is relaxed")
    min_distance: float = Field(
        0.7,
        ge=0,
        lt=1,
        description="least distance of two atoms, in sums of their covalent radii; tighter structures are drawn again",
    )


@dataclass(frozen=True, eq=False)
class Modes:
    """Normal modes of N atoms.

    Attributes
    ----------
    curvatures : [K] eigenvalues of the mass-weighted Hessian, eV/(Å² amu); negative at a saddle.
    vectors : [K, N, 3] displacement of the atoms per mass-weighted length of the mode, amu^(-1/2).
    """

    curvatures: Array
    vectors: Array

    @property
    def wavenumbers(self) -> Array:
        """[K] in cm⁻¹; negative for imaginary ones."""
        frequencies = np.sqrt(np.abs(self.curvatures) * ACCELERATION)
        result: Array = np.sign(self.curvatures) * frequencies / (2 * np.pi * LIGHT)
        return result

    def variances(self, temperature: float, statistics: str, lowest: float) -> Array:
        """[K] thermal variances of the mass-weighted amplitudes, amu Å²; see `Config`."""
        frequencies = 2 * np.pi * LIGHT * np.maximum(self.wavenumbers, lowest)
        stiffness = frequencies**2 / ACCELERATION
        thermal = KB * temperature
        if statistics == "classical":
            return thermal / stiffness
        quantum = HBAR * frequencies
        result: Array = 0.5 * quantum / np.tanh(0.5 * quantum / thermal) / stiffness
        return result


def normal_modes(frame: Frame, hessian: Array) -> Modes:
    """Modes of a Hessian [3N, 3N] in eV/Å², rigid motions left out.

    Those are the translations and, of an isolated molecule, the rotations: five in all for a linear one.
    """
    masses = np.repeat(atomic_masses[frame.numbers], 3)
    weighted = hessian / np.sqrt(np.outer(masses, masses))
    rigid = _rigid_motions(frame)
    # what is left when the rigid motions are taken out: an orthonormal basis
    left, singular, _ = np.linalg.svd(rigid, full_matrices=True)
    rest = left[:, int(np.sum(singular > 1e-6 * singular[0])) :]
    curvatures, vectors = np.linalg.eigh(rest.T @ (0.5 * (weighted + weighted.T)) @ rest)
    return Modes(curvatures, ((rest @ vectors) / np.sqrt(masses)[:, None]).T.reshape(-1, len(frame.numbers), 3))


def _rigid_motions(frame: Frame) -> Array:
    """Translations and, without a cell, rotations, mass-weighted, as columns [3N, 3 or 6]."""
    masses = atomic_masses[frame.numbers]
    motions = [np.tile(axis, (len(masses), 1)) for axis in np.eye(3)]
    if not any(frame.pbc):
        lever = frame.positions - np.average(frame.positions, axis=0, weights=masses)
        motions += [np.cross(axis, lever) for axis in np.eye(3)]
    return np.stack([(np.sqrt(masses)[:, None] * motion).ravel() for motion in motions], axis=1)


def build(config: Config) -> NormalModeSampling:
    """The generator of initial data that ``config`` describes."""
    return NormalModeSampling(config)


class NormalModeSampling:
    """Makes the initial data."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, engine: Engine, start: Frame, seed: int, progress: Progress | None = None) -> InitialData:
        """Relax, differentiate, displace and label; the same seed gives the same frames.

        ``engine_calls`` of the result are those of the relaxation, 6 N of the Hessian and those of the frames.

        Raises
        ------
        SamplingError
            If the relaxation does not converge, or see `rareal.sampling.draws.labelled`.
        LabelError
            If the engine fails on the way to the Hessian, or too often after it.
        """
        config, rng = self.config, np.random.default_rng(seed)
        frame, relaxation = self.relaxed(engine, start)
        total = config.frames + 6 * len(start.numbers)

        def report(done: int, _: int) -> None:
            if progress is not None:
                progress(done, total)

        modes = normal_modes(frame, self.hessian(engine, frame, report))
        deviations = np.sqrt(modes.variances(config.temperature, config.statistics, config.lowest_wavenumber))

        def draw() -> Array:
            amplitudes = rng.normal(0.0, deviations)
            displaced: Array = frame.positions + np.einsum("k,kax->ax", amplitudes, modes.vectors)
            return displaced

        before = total - config.frames
        frames, calls = labelled(
            engine, frame, draw, config.frames, config.min_distance, lambda done, _: report(before + done, total)
        )
        return InitialData(frames, relaxation + before + calls)

    def relaxed(self, engine: Engine, start: Frame) -> tuple[Frame, int]:
        """The engine's minimum nearest to ``start``, and the calls it took."""
        import ase
        from ase.optimize import BFGS

        config = self.config
        if not config.relaxation_steps:
            return start, 0
        atoms = ase.Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc)
        atoms.calc = calculator(engine, start)
        search: Any = BFGS(atoms, logfile=None)
        if not search.run(fmax=config.fmax, steps=config.relaxation_steps):
            largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            raise SamplingError(
                f"the structure is not relaxed after {config.relaxation_steps} steps: the largest force is "
                f"{largest:.3g} eV/Å, fmax {config.fmax:g}. Give a better structure, more initial.relaxation_steps, "
                "or a larger fmax"
            )
        counting: Any = atoms.calc
        return replace(start, positions=atoms.positions.copy()), int(counting.calls)

    def hessian(self, engine: Engine, frame: Frame, progress: Progress) -> Array:
        """Central differences of the forces, [3N, 3N] in eV/Å², symmetric."""
        size, step = frame.positions.size, self.config.displacement
        rows = np.empty((size, size))
        for k in range(size):
            forces = []
            for sign in (1.0, -1.0):
                positions = frame.positions.copy()
                positions.flat[k] += sign * step
                forces.append(np.asarray(engine.calculate(replace(frame, positions=positions))[1]).ravel())
                progress(2 * k + (1 if sign > 0 else 2), 2 * size)
            rows[k] = -(forces[0] - forces[1]) / (2 * step)
        symmetric: Array = 0.5 * (rows + rows.T)
        return symmetric
