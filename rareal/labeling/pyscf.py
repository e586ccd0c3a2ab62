"""Hartree-Fock and density functionals in Gaussian basis sets through PySCF, in process. Molecules only.

Q. Sun et al., J. Chem. Phys. 2020, 153, 024109.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rareal.errors import LabelError
from rareal.labeling.base import BaseEngine, ElectronsConfig, check_package, one_line
from rareal.records import Calculation, Frame
from rareal.schema import Misfit
from rareal.units import BOHR, HARTREE, KB, Temperature

CURE = "install it with `pip install pyscf`"

LADDER = ("", "damping 0.5 and level shift 0.3 Hartree", "guess from a higher temperature", "second-order iterations")
"""What is tried in turn. Each step ends at the same convergence; the last one goes downhill wherever it starts."""

HOT = 10000.0
"""K, the least temperature of the guess on the ladder."""


class Config(ElectronsConfig):
    """Hartree-Fock or Kohn-Sham with PySCF."""

    kind: Literal["pyscf"] = "pyscf"
    method: Literal["RHF", "UHF", "RKS", "UKS"] = Field(
        "RKS", description="Hartree-Fock or Kohn-Sham, restricted or unrestricted"
    )
    functional: str = Field("PBE", description="exchange and correlation as PySCF spells it, e.g. PBE, B3LYP")
    basis: str = Field("def2-svp", description="basis set as PySCF spells it")
    density_fitting: bool = Field(True, description="fit the Coulomb integrals with an auxiliary basis")
    broken_symmetry: bool = Field(
        False, description="let the spins of a singlet separate: mixed orbitals as guess, instabilities followed"
    )
    electronic_temperature: Temperature = Field(0.0, ge=0, description="Fermi smearing of the occupations, K")
    convergence: float = Field(1e-9, gt=0, le=1e-5, description="change of the energy at self-consistency, Hartree")
    max_iterations: int = Field(80, ge=1, description="most iterations, for each step of the retry ladder")
    grid_level: int = Field(3, ge=0, le=9, description="PySCF's level of the integration grid")

    @property
    def unrestricted(self) -> bool:
        """Whether the spins have orbitals of their own."""
        return self.method.startswith("U")

    @model_validator(mode="after")
    def _spins(self) -> Config:
        if self.multiplicity > 1 and not self.unrestricted:
            raise ValueError(f"multiplicity {self.multiplicity} needs an unrestricted method; use UHF or UKS")
        if self.broken_symmetry and (not self.unrestricted or self.multiplicity > 1):
            raise ValueError("broken_symmetry needs an unrestricted method and multiplicity 1; use UHF or UKS")
        if self.broken_symmetry and self.electronic_temperature > 0:
            raise ValueError("broken_symmetry follows instabilities, which needs electronic_temperature: 0")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse what PySCF, its basis sets or its functionals do not have."""
        super().check_against(config)
        check_package("pyscf", "PySCF", CURE)
        if any(config.frame.pbc):
            raise Misfit("kind", "this engine computes molecules, and the structure is periodic; use gpaw or cp2k")
        from ase.data import chemical_symbols
        from pyscf import gto
        from pyscf.dft import libxc

        for number in sorted({int(z) for z in config.frame.numbers}):
            try:
                gto.basis.load(self.basis, chemical_symbols[number])
            except Exception as error:  # PySCF raises what it likes
                text = f"PySCF has no such basis set for {chemical_symbols[number]} ({one_line(error, 80)})"
                raise Misfit("basis", f"{text}; its manual lists them") from error
        try:
            libxc.parse_xc(self.functional)
        except Exception as error:
            raise Misfit(
                "functional", f"PySCF knows no such functional ({one_line(error, 80)}); its manual lists them"
            ) from error


class Engine(BaseEngine[Config]):
    """A level of theory, computed by PySCF in this process, every frame from atomic densities.

    With smeared occupations the energy is the free energy that the forces are the gradient of.
    """

    keep = ("*.log",)

    def version(self) -> str:
        """PySCF's."""
        return version("pyscf")

    def inputs(self) -> dict[str, Any]:
        """The retry ladder: unrestricted, its steps may find different solutions."""
        return {"ladder": list(LADDER)}

    def compute(self, frame: Frame) -> Calculation:
        """Energy and forces."""
        if any(frame.pbc):
            raise LabelError("the PySCF engine computes molecules, and this frame is periodic")
        molecule = self._molecule(frame)
        try:
            field, note = self._converge(molecule)
            gradient = self._gradient(field)
        finally:
            molecule.stdout.close()
        # smeared, e_tot lacks the entropy that the gradient contains
        smeared = self.config.electronic_temperature > 0
        energy = float(field.e_free if smeared else field.e_tot)
        return Calculation(energy * HARTREE, np.asarray(gradient) * (-HARTREE / BOHR), None, note)

    def _molecule(self, frame: Frame) -> Any:
        from ase.data import chemical_symbols
        from pyscf import gto

        atoms = [[chemical_symbols[z], tuple(x / BOHR)] for z, x in zip(frame.numbers, frame.positions, strict=True)]
        molecule = gto.Mole()
        # PySCF's own `output` announces itself on the screen
        molecule.stdout = open("pyscf.log", "w", encoding="utf-8")  # noqa: SIM115  (closed with the calculation)
        molecule.verbose = 4
        molecule.build(
            False,
            False,
            atom=atoms,
            unit="Bohr",
            basis=self.config.basis,
            charge=self.config.charge,
            spin=self.config.multiplicity - 1,
            symmetry=False,
        )
        return molecule

    def _field(self, molecule: Any) -> Any:
        """The mean field, not yet computed."""
        from pyscf import dft, scf

        config = self.config
        field = getattr(dft if config.method.endswith("KS") else scf, config.method)(molecule)
        if config.method.endswith("KS"):
            field.xc = config.functional
            field.grids.level = config.grid_level
        if config.density_fitting:
            field = field.density_fit()
        if config.electronic_temperature > 0:
            field = self._smeared(field, config.electronic_temperature)
        field.conv_tol = config.convergence
        field.conv_tol_grad = config.convergence**0.5
        field.max_cycle = config.max_iterations
        field.chkfile = None
        return field

    def _smeared(self, field: Any, temperature: float) -> Any:
        from pyscf.scf.addons import smearing

        sigma = temperature * KB / HARTREE
        return smearing(field, sigma=sigma, method="fermi", fix_spin=self.config.unrestricted)

    def _converge(self, molecule: Any) -> tuple[Any, str]:
        for step, taken in enumerate(LADDER):
            field = self._field(molecule)
            guess = self._guess(field, molecule)
            if step == 1:
                field.damp, field.level_shift, field.diis_start_cycle = 0.5, 0.3, 4
            if step == 2:
                hot = self._smeared(self._field(molecule), max(HOT, 3 * self.config.electronic_temperature))
                hot.conv_tol = 1e-5
                hot.kernel(dm0=guess)
                guess = hot.make_rdm1()
            if step == 3:
                if self.config.electronic_temperature > 0:
                    continue  # the second-order solver has no fractional occupations
                field = field.newton()
            field.kernel(dm0=guess)
            if field.converged and (not self.config.broken_symmetry or self._follow_instabilities(field)):
                return field, taken
        raise LabelError(
            f"{self.config.method} is not converged in {self.config.max_iterations} iterations, whatever was tried "
            f"({', '.join(filter(None, LADDER))}); last change of the energy in pyscf.log"
        )

    def _guess(self, field: Any, molecule: Any) -> Any:
        """Atomic densities; for a broken symmetry, with highest occupied and lowest empty orbital mixed by 45°."""
        density = field.get_init_guess(molecule, "minao")
        if not self.config.broken_symmetry:
            return density
        energies, orbitals = field.eig(field.get_fock(dm=density), field.get_ovlp())
        occupied = int(molecule.nelec[0])
        densities = []
        for spin, sign in ((0, 1.0), (1, -1.0)):
            coefficients = orbitals[spin][:, :occupied].copy()
            if occupied < orbitals[spin].shape[1]:
                coefficients[:, -1] = (orbitals[spin][:, occupied - 1] + sign * orbitals[spin][:, occupied]) * 0.5**0.5
            densities.append(coefficients @ coefficients.T)
        return np.array(densities)

    def _follow_instabilities(self, field: Any) -> bool:
        """Go down until the solution is a minimum; beyond the Coulson-Fischer point that breaks the symmetry."""
        for _ in range(5):
            orbitals, _, stable, _ = field.stability(return_status=True)
            if stable:
                return True
            field.kernel(dm0=field.make_rdm1(orbitals, field.mo_occ))
            if not field.converged:
                return False
        return False

    def _gradient(self, field: Any) -> Any:
        gradients = field.undo_newton().nuc_grad_method() if hasattr(field, "undo_newton") else field.nuc_grad_method()
        if self.config.method.endswith("KS"):
            # the grid moves with the atoms: without its response the forces are not the energy's gradient
            gradients.grid_response = True
        return gradients.kernel()


def build(config: Config) -> Engine:
    """The engine that ``config`` describes."""
    return Engine(config)
