"""Density functionals with GPAW: atomic orbitals, real-space grids or plane waves.

J. J. Mortensen et al., J. Chem. Phys. 2024, 160, 092503.
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field, field_validator, model_validator

from rareal.errors import LabelError
from rareal.labeling.base import BaseEngine, ElectronsConfig, check_package, one_line
from rareal.labeling.box import molecule_in_box, without_net_force
from rareal.records import Calculation, Frame
from rareal.schema import Misfit
from rareal.units import KB, Energy, Length, Temperature

CURE = (
    "`GPAW_BUILD_JOBS=1 pip install gpaw gpaw-data` builds it with libxc and openblas (on Debian: `apt-get install g++ "
    "python3-dev libxc-dev libopenblas-dev`, and GPAW_CONFIG naming a siteconfig.py such as .ci/gpaw-siteconfig.py of "
    "rareal's source)"
)

LADDER: tuple[tuple[str, float, int], ...] = (
    ("", 0.0, 1),
    ("mixing 0.02, twice the iterations", 0.02, 2),
    ("mixing 0.005, five times the iterations", 0.005, 5),
)
"""What is tried in turn: note, weight of the new density (0: GPAW's own), factor on the number of iterations.
All end at the same convergence."""

LOG, JOB, ANSWER = "gpaw.txt", "job.pickle", "answer.pickle"

OURS = ("mode", "xc", "h", "gpts", "basis", "charge", "spinpol", "kpts", "occupations", "txt", "maxiter", "mixer")
"""GPAW's keywords that have keys of their own here."""


class Config(ElectronsConfig):
    """Kohn-Sham with GPAW."""

    harmless: ClassVar[tuple[str, ...]] = (*ElectronsConfig.harmless, "launcher")

    kind: Literal["gpaw"] = "gpaw"
    mode: Literal["lcao", "fd", "pw"] = Field("lcao", description="atomic orbitals, grid, or plane waves")
    functional: str = Field("PBE", description="exchange and correlation as GPAW spells it")
    basis: str = Field("dzp", description="basis set (lcao)")
    spacing: Length = Field(0.2, gt=0, le=0.5, description="of the grid, Å (lcao, fd)")
    cutoff: Energy = Field(400.0, gt=0, description="of the plane waves, eV (pw)")
    kpoints: tuple[int, int, int] = Field((1, 1, 1), description="Monkhorst-Pack grid")
    cell: tuple[Length, Length, Length] | None = Field(
        None, description="box around a molecule, Å; else one that leaves `vacuum` around every frame (lcao, fd)"
    )
    vacuum: Length = Field(4.0, ge=2, description="around a molecule, Å; half of it in a box that is given")
    electronic_temperature: Temperature = Field(300.0, ge=0, description="Fermi smearing of the occupations, K")
    spin_polarisation: bool = Field(False, description="collinear spins; always where the multiplicity is above 1")
    initial_spins: dict[int, float] = Field(
        default_factory=dict, description="unpaired electrons on atoms to start from, by number from 1: {1: 1, 6: -1}"
    )
    density_convergence: float = Field(1e-5, gt=0, description="change of the density, electrons per valence electron")
    max_iterations: int = Field(200, ge=1, description="most iterations, for each step of the retry ladder")
    launcher: str = Field(
        "", description="e.g. `mpiexec -n 4`: what starts GPAW in processes of its own; empty for inside the worker"
    )
    extra: dict[str, Any] = Field(default_factory=dict, description="any other keyword of GPAW's calculator")

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for key in extra:
            if key in OURS:
                raise ValueError(f"'{key}' of GPAW is set by a key of this section")
        return extra

    @model_validator(mode="after")
    def _spins(self) -> Config:
        if self.initial_spins and not self.spin_polarisation:
            raise ValueError("initial_spins need spin_polarisation: true")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse a missing GPAW, PAW data, box or launcher."""
        super().check_against(config)
        check_package("gpaw", "GPAW", CURE)
        if self.mode == "pw" and not any(config.frame.pbc) and self.cell is None:
            raise Misfit("cell", "plane waves depend on the box: give one, long enough for the whole event")
        wrong = [atom for atom in self.initial_spins if not 1 <= atom <= len(config.frame.numbers)]
        if wrong:
            raise Misfit("initial_spins", f"there is no atom {wrong[0]}; atoms are counted from 1")
        if self.launcher and shutil.which(shlex.split(self.launcher)[0]) is None:
            raise Misfit("launcher", f"there is no program `{shlex.split(self.launcher)[0]}`")
        for symbol in sorted({chemical_symbols[z] for z in config.frame.numbers}):
            names = [f"{symbol}.{self.functional}"] + [f"{symbol}.{self.basis}.basis"] * (self.mode == "lcao")
            for name in names:
                if not _data_file(name):
                    # functionals without data of their own run on those of LDA or PBE
                    if name == f"{symbol}.{self.functional}" and _data_file(f"{symbol}.PBE"):
                        continue
                    cure = "install them with `pip install gpaw-data`, or set GPAW_SETUP_PATH"
                    raise Misfit("kind", f"GPAW's PAW data have no {name}; {cure}")


class Engine(BaseEngine[Config]):
    """A level of theory, computed by GPAW, every frame from atomic densities.

    With smeared occupations the energy is the free energy that the forces are the gradient of. The centre of a molecule
    is put on a grid point of its box (`rareal.labeling.box`).
    """

    keep = ("*.txt",)

    def version(self) -> str:
        """GPAW's, and that of its PAW data."""
        return f"{version('gpaw')}, data {version('gpaw-data')}"

    def inputs(self) -> dict[str, Any]:
        """The retry ladder: its steps may find different solutions."""
        return {"ladder": [list(step) for step in LADDER]}

    def compute(self, frame: Frame) -> Calculation:
        """Energy, forces and, with plane waves, stress."""
        if not self.config.launcher:
            return calculate(self.config, frame)
        Path(JOB).write_bytes(pickle.dumps((self.config, frame)))
        Path(ANSWER).unlink(missing_ok=True)
        command = [*shlex.split(self.config.launcher), sys.executable, "-P", "-m", "rareal.labeling.gpaw"]
        # the launched processes import the rareal that this one does
        path = os.pathsep.join(
            [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        with open("screen.txt", "w", encoding="utf-8") as screen:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=screen,
                stderr=subprocess.STDOUT,
                # without a backend, GPAW's MPI is off in a plain Python
                env={"GPAW_MPI_BACKEND": "cgpaw", **os.environ, "PYTHONPATH": path},
                check=False,
            ).returncode
        if not Path(ANSWER).exists():
            said = Path("screen.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            last = next((line for line in reversed(said) if line.strip(" !")), "it said nothing")
            raise LabelError(f"`{self.config.launcher}` with GPAW ended with exit status {code}: {one_line(last)}")
        answer = pickle.loads(Path(ANSWER).read_bytes())
        if isinstance(answer, str):
            raise LabelError(answer)
        return Calculation(*answer)


def calculate(config: Config, frame: Frame) -> Calculation:
    """What GPAW says of a frame, in this process or, under MPI, in all of its ranks.

    Raises
    ------
    LabelError
        If self-consistency is not reached.
    """
    from gpaw import KohnShamConvergenceError

    for step, (note, weight, factor) in enumerate(LADDER):
        atoms = _atoms(config, frame)
        try:
            atoms.calc = _calculator(config, f"gpaw-{step}.txt" if step else LOG, weight, factor)
            energy = atoms.get_potential_energy(force_consistent=True)
            forces = np.array(atoms.get_forces(), dtype=np.float64)
        except KohnShamConvergenceError:
            continue
        stress = atoms.get_stress() if config.mode == "pw" and all(frame.pbc) else None
        return Calculation(float(energy), forces if any(frame.pbc) else without_net_force(forces), stress, note)
    tried = "; ".join(note for note, *_ in LADDER if note)
    raise LabelError(
        f"GPAW did not reach self-consistency in {config.max_iterations} iterations (tried also: {tried}); see {LOG}"
    )


def _atoms(config: Config, frame: Frame) -> Any:
    from ase import Atoms

    if any(frame.pbc):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    else:
        cell, positions = molecule_in_box(frame, config.cell, config.vacuum, config.spacing)
        # plane waves know no walls
        atoms = Atoms(frame.numbers, positions, cell=cell, pbc=config.mode == "pw")
    moments = np.zeros(len(frame.numbers))
    for atom, spin in config.initial_spins.items():
        moments[atom - 1] = spin
    if config.multiplicity > 1 and not config.initial_spins:
        moments[:] = (config.multiplicity - 1) / len(moments)
    if moments.any():
        atoms.set_initial_magnetic_moments(moments)
    return atoms


def _calculator(config: Config, log: str, weight: float, factor: int) -> Any:
    from gpaw import GPAW

    spins = config.spin_polarisation or config.multiplicity > 1
    words: dict[str, Any] = {
        "mode": {"name": "pw", "ecut": config.cutoff} if config.mode == "pw" else config.mode,
        "xc": config.functional,
        "charge": config.charge,
        "kpts": config.kpoints,
        "spinpol": spins,
        "occupations": {
            "name": "fermi-dirac",
            "width": config.electronic_temperature * KB,
            "fixmagmom": config.multiplicity > 1,
        },
        "maxiter": factor * config.max_iterations,
        "convergence": {"density": config.density_convergence},
        # a label must not depend on whether a geometry looks symmetric
        "symmetry": {"point_group": False},
        "txt": log,
    }
    if config.mode == "lcao":
        words["basis"] = config.basis
    if config.mode != "pw":
        words["h"] = config.spacing
    if weight:
        words["mixer"] = {
            "backend": "pulay",
            "method": "difference" if spins else "separate",
            "beta": weight,
            "nmaxold": 5,
        }
        words["mixer"]["weight"] = 50.0
    return GPAW(**{**words, **config.extra})


def _data_file(name: str) -> bool:
    """Whether GPAW's data have such a file, as it is or compressed."""
    from gpaw import setup_paths

    return any((Path(folder) / f"{name}{end}").exists() for folder in setup_paths for end in ("", ".gz"))


def build(config: Config) -> Engine:
    """The engine that ``config`` describes."""
    return Engine(config)


def main() -> None:
    """One frame, in as many MPI ranks as the launcher started: read the job, leave the answer."""
    from gpaw.mpi import world

    config, frame = pickle.loads(Path(JOB).read_bytes())
    try:
        answer: Any = tuple(calculate(config, frame))
    except LabelError as error:
        answer = str(error)
    if world.rank == 0:
        Path(ANSWER).write_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    main()
