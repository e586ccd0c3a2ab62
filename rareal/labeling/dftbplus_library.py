"""DFTB+'s library, called in this process (its C interface, ``dftbplus.h``).

An error inside the library ends the whole process, after a message in the log in the current directory; so this
belongs into a worker. That self-consistency was not reached is told to us instead, because the input asks for that.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rareal.errors import LabelError
from rareal.records import Calculation, Frame
from rareal.schema import Misfit
from rareal.units import HARTREE

BOHR = 0.529177249
"""Å, the value that DFTB+ reads coordinates with: 1e-7 away from today's, which is 4e-6 eV for hexane."""

NAME = "libdftbplus.dylib" if sys.platform == "darwin" else "libdftbplus.so"

CURE = (
    "install dftbplus and dftbplus-python from conda-forge, or build DFTB+ with WITH_API, BUILD_SHARED_LIBS and "
    "ENABLE_DYNAMIC_LOADING, and name the file under engine.library; or use interface: files"
)


def find(given: Path | None, program: str) -> Path:
    """The library: the one that is named, or in ``lib`` beside the program, in this environment or in the system.

    Raises
    ------
    Misfit
        If there is none.
    """
    if given is not None:
        path = given.expanduser().absolute()
        if not path.is_file():
            raise Misfit("library", f"there is no file {path}; {CURE}")
        return path
    found = shutil.which(program)
    prefixes = [place.parents[1] for place in (Path(found).absolute(), Path(found).resolve())] if found else []
    prefixes += [Path(p) for p in (sys.prefix, os.environ.get("CONDA_PREFIX", "")) if p]
    for prefix in prefixes:
        for path in (prefix / "lib" / NAME, *sorted((prefix / "lib").glob(f"*/{NAME}"))):
            if path.is_file():
                return path
    if name := find_library("dftbplus"):
        return Path(name)
    raise Misfit("library", f"there is no {NAME} beside `{program}`, in this environment or in the system; {CURE}")


class Library:
    """DFTB+ for one frame after the other.

    A frame gets an instance of its own, which starts from neutral atoms; with ``reuse`` the instance of the frame
    before goes on from its charges. A process has one instance at a time: DFTB+ is seldom built for more.
    """

    _active: ClassVar[Library | None] = None

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise LabelError(f"the library {path} cannot be loaded ({error}); {CURE}") from error
        # the structs of dftbplus.h hold one pointer each
        self._handle: ctypes.c_void_p | None = None
        self._kind: tuple[bytes, tuple[bool, bool, bool]] | None = None

    def calculate(self, frame: Frame, text: str, reuse: bool) -> Calculation | None:
        """Free energy, forces and, where the frame is periodic, stress; None if self-consistency was not reached.

        Parameters
        ----------
        text : the input, with ConvergentSCCOnly = No.
        reuse : go on from the charges of the frame before, if that had the same atoms.
        """
        kind = (np.asarray(frame.numbers, dtype=np.int64).tobytes(), frame.pbc)
        if self._handle is None or not reuse or kind != self._kind:
            self._begin(text, kind, b"/dev/null" if reuse else b"dftbplus.log")
        Path("detailed.out").unlink(missing_ok=True)
        handle, periodic, atoms = ctypes.byref(self._handle), any(frame.pbc), len(frame.numbers)  # type: ignore[arg-type]
        coordinates = np.ascontiguousarray(frame.positions / BOHR)
        if periodic:
            cell = np.ascontiguousarray(frame.cell / BOHR)
            self._library.dftbp_set_coords_and_lattice_vecs(handle, _pointer(coordinates), _pointer(cell))
        else:
            self._library.dftbp_set_coords(handle, _pointer(coordinates))
        energy, gradients, stress = np.empty(1), np.empty((atoms, 3)), np.empty((3, 3))
        self._library.dftbp_get_energy(handle, _pointer(energy))
        self._library.dftbp_get_gradients(handle, _pointer(gradients))
        if periodic:
            self._library.dftbp_get_stress_tensor(handle, _pointer(stress))
        if not reuse:
            self.close()
        if "SCC is NOT converged" in Path("detailed.out").read_text(encoding="utf-8", errors="replace"):
            self.close()
            return None
        tensor = -stress * (HARTREE / BOHR**3)
        return Calculation(
            float(energy[0]) * HARTREE,
            gradients * (-HARTREE / BOHR),
            tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] if periodic else None,
        )

    def _begin(self, text: str, kind: tuple[bytes, tuple[bool, bool, bool]], log: bytes) -> None:
        if Library._active is not None:
            Library._active.close()
        Path("dftb_in.hsd").write_text(text, encoding="utf-8")
        handle, tree = ctypes.c_void_p(), ctypes.c_void_p()
        self._library.dftbp_init(ctypes.byref(handle), log)
        self._library.dftbp_get_input_from_file(ctypes.byref(handle), b"dftb_in.hsd", ctypes.byref(tree))
        self._library.dftbp_process_input(ctypes.byref(handle), ctypes.byref(tree))
        self._library.dftbp_input_final(ctypes.byref(tree))
        self._handle, self._kind, Library._active = handle, kind, self

    def close(self) -> None:
        """End the instance."""
        if self._handle is not None:
            self._library.dftbp_final(ctypes.byref(self._handle))
            Library._active = None
        self._handle = None


def release(said: str, where: str) -> str:
    """The release that DFTB+ names in the first lines of its output.

    Raises
    ------
    LabelError
        If there is none.
    """
    found = re.search(r"DFTB\+\s+(?:release|version|development version)?\s*([^\s|]+)", said)
    if found is None:
        raise LabelError(f"{where} does not look like DFTB+; it said: {' '.join(said.split())[:200]}")
    return found.group(1)


def _pointer(array: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
