"""Where the compiled parts are, and how LAMMPS is started with them.

``pip install`` puts ``mlensembleplugin.so`` and ``librareal_ops.so`` into ``rareal/lib``; so does, in a source tree,
``cmake --install build --prefix .``. Everything heavy is imported inside the functions: LAMMPS's ``lmp`` imports this
module at every start, through the entry-point group ``lammps.plugins``.

Environment variables
---------------------
RAREAL_LIBRARY_DIR : folder of the two libraries, for instance a CMake build folder.
RAREAL_LMP : another LAMMPS executable than that of the lammps wheel.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import rareal
from rareal.errors import InstallationError

PLUGIN = "mlensembleplugin.so"
OPS = "librareal_ops.so"


def _folders() -> list[Path]:
    if override := os.environ.get("RAREAL_LIBRARY_DIR"):
        return [Path(override)]
    # Editable installs spread a package over two folders, sources in one and libraries in the other.
    return [Path(folder) / "lib" for folder in rareal.__path__]


def directory() -> str:
    """Return the folder for ``LAMMPS_PLUGIN_PATH``; never raises, for an unbuilt plugin must not keep LAMMPS down."""
    folders = _folders()
    return str(next((folder for folder in folders if (folder / PLUGIN).is_file()), folders[0]))


def library(name: str) -> Path:
    """Return the path of a compiled library, `PLUGIN` or `OPS`.

    Raises
    ------
    InstallationError
        If it has not been built.
    """
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(str(folder) for folder in _folders())
    raise InstallationError(
        f"{name} is not in {looked}. Install rareal with 'pip install .', or build it in a source tree with "
        "'cmake -S . -B build && cmake --build build && cmake --install build --prefix .'"
    )


@cache
def load_ops() -> None:
    """Make ``torch.ops.rareal`` available in this process."""
    import torch

    path = library(OPS)
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise InstallationError(f"{path} cannot be loaded, build it for torch {torch.__version__}: {error}") from error


def _file_of(distribution: str, pattern: str) -> Path | None:
    """Return an installed file of a wheel whose path ends like this; the wheel itself need not be importable."""
    from importlib import metadata

    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())).resolve() for file in files if file.match(pattern)), None)


@cache
def load_mpi() -> None:
    """Make MPI's symbols global, which ``lammps.lammps()`` needs in a Python process that has no mpi4py."""
    import ctypes

    if path := _file_of("mpich", "libmpi.so.12"):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def lmp_command(ranks: int = 1) -> list[str]:
    """Return the command that starts LAMMPS on so many MPI ranks; append ``["-in", script]``.

    Run it in `lmp_environment`, then it knows ``pair_style mlensemble`` from a source tree as well.

    Raises
    ------
    InstallationError
        If there is no LAMMPS, or no ``mpiexec`` where more than one rank is asked for.
    """
    if executable := os.environ.get("RAREAL_LMP"):
        command = [executable]
    elif found := _file_of("lammps", "lammps/lmp"):
        command = [str(found)]
    else:
        raise InstallationError("LAMMPS is missing: pip install 'lammps[mpi]==2025.7.22.4.0', or set RAREAL_LMP")
    if ranks == 1:
        return command
    mpiexec = _file_of("mpich", "bin/mpiexec") or shutil.which("mpiexec")
    if mpiexec is None:
        raise InstallationError("mpiexec is missing: pip install mpich")
    return [str(mpiexec), "-n", str(ranks), *command]


def lmp_environment(threads: int = 1) -> dict[str, str]:
    """Return this process's environment with what `lmp_command` needs: plugin, MPI library, number of threads."""
    environment = dict(os.environ)

    def prepend(variable: str, folder: str) -> None:
        rest = environment.get(variable)
        environment[variable] = f"{folder}:{rest}" if rest else folder

    prepend("LAMMPS_PLUGIN_PATH", str(library(PLUGIN).parent))
    if mpi := _file_of("mpich", "libmpi.so.12"):
        prepend("LD_LIBRARY_PATH", str(mpi.parent))
    environment["OMP_NUM_THREADS"] = str(threads)
    return environment
