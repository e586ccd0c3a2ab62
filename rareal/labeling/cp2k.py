"""GFN1-xTB and density functionals (GPW) with CP2K, through files.

T. D. Kühne et al., J. Chem. Phys. 2020, 152, 194103.

CP2K goes on with wrong numbers and ends without an error where self-consistency is not reached: only a WARNING in its
output says so. Here a result counts if the output says that it converged, and nowhere that it did not.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field, field_validator

from rareal.errors import LabelError
from rareal.labeling.base import BaseEngine, ElectronsConfig, one_line
from rareal.labeling.box import molecule_in_box, without_net_force
from rareal.records import Array, Calculation, Frame
from rareal.schema import Misfit
from rareal.units import BOHR, HARTREE, Length, Temperature

Tree = dict[str, Any]

GIGAPASCAL = 0.006241509074460763
"""One GPa in eV/Å³ (exact in the 2019 SI)."""

LADDER: tuple[tuple[str, Tree], ...] = (
    ("", {}),
    ("mixing 0.1", {"MIXING": {"METHOD": "DIRECT_P_MIXING", "ALPHA": 0.1}, "EPS_DIIS": 1e-3}),
    ("Broyden mixing 0.05", {"MIXING": {"METHOD": "BROYDEN_MIXING", "ALPHA": 0.05, "NBUFFER": 8}, "MAX_DIIS": 0}),
    ("orbital transformation", {"OT": {"MINIMIZER": "CG", "PRECONDITIONER": "FULL_SINGLE_INVERSE"}}),
)
"""What is tried in turn: note, changes of the section SCF. All end at the same EPS_SCF; the last one minimises, and is
left out where occupations are smeared."""

PROJECT, INPUT, OUTPUT = "cp2k", "cp2k.inp", "cp2k.out"

CURE = "install it (on Debian: `apt-get install cp2k`), and put it on PATH or name it under engine.command"


class Config(ElectronsConfig):
    """CP2K's Quickstep."""

    harmless: ClassVar[tuple[str, ...]] = (*ElectronsConfig.harmless, "command")

    kind: Literal["cp2k"] = "cp2k"
    method: Literal["GFN1-xTB", "DFT"] = Field("GFN1-xTB", description="tight binding, or a density functional")
    command: str | None = Field(
        None, description="how the program is called, e.g. `mpiexec -n 4 cp2k.psmp`; else CP2K's first name on PATH"
    )
    functional: str = Field("PBE", description="a name that CP2K's XC_FUNCTIONAL knows (DFT)")
    basis_set: str = Field("DZVP-MOLOPT-SR-GTH", description="from BASIS_MOLOPT (DFT)")
    potential: str = Field("GTH-PBE", description="from GTH_POTENTIALS, without the number of electrons (DFT)")
    cutoff: float = Field(400.0, gt=0, description="of the finest grid, Rydberg (DFT)")
    relative_cutoff: float = Field(60.0, gt=0, description="REL_CUTOFF, Rydberg (DFT)")
    electronic_temperature: Temperature = Field(0.0, ge=0, description="Fermi smearing of the occupations, K")
    spin_polarisation: bool = Field(False, description="unrestricted; always where the multiplicity is above 1")
    convergence: float = Field(1e-7, gt=0, le=1e-4, description="EPS_SCF")
    max_iterations: int = Field(100, ge=1, description="most iterations, for each step of the retry ladder")
    cell: tuple[Length, Length, Length] | None = Field(
        None, description="box around a molecule, Å; else one that leaves `vacuum` around every frame"
    )
    vacuum: Length = Field(5.0, ge=2, description="around a molecule, Å; half of it in a box that is given")
    input: dict[str, Any] = Field(
        default_factory=dict,
        description="any other part of CP2K's input, laid over what rareal writes; sections are mappings, null removes",
    )

    @field_validator("input")
    @classmethod
    def _ours(cls, sections: dict[str, Any]) -> dict[str, Any]:
        for key in sections:
            if key.upper() not in ("FORCE_EVAL", "GLOBAL"):
                raise ValueError(f"the section {key} is not one of FORCE_EVAL and GLOBAL, which a single point has")
        return sections

    def check_against(self, config: Any) -> None:
        """Refuse a missing program, data folder, basis set or potential."""
        super().check_against(config)
        program = program_command(self.command)[0]
        if shutil.which(program) is None:
            raise Misfit("command", f"there is no program `{program}`; {CURE}")
        if self.method != "DFT":
            return
        folder = data_folder()
        if folder is None:
            text = "CP2K's data folder was not found; set CP2K_DATA_DIR to the folder with BASIS_MOLOPT"
            raise Misfit("basis_set", text)
        symbols = {chemical_symbols[z] for z in config.frame.numbers}
        for field, name, file in (
            ("basis_set", self.basis_set, "BASIS_MOLOPT"),
            ("potential", self.potential, "GTH_POTENTIALS"),
        ):
            known = entries(folder / file)
            lacking = sorted(symbol for symbol in symbols if name not in known.get(symbol, ()))
            if lacking:
                raise Misfit(field, f"{folder / file} has no {name} for {', '.join(lacking)}; it lists what there is")


class Engine(BaseEngine[Config]):
    """A level of theory, computed by CP2K, every frame from atomic guesses."""

    keep = (OUTPUT,)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.command = program_command(config.command)

    def version(self) -> str:
        """CP2K's, as it prints it."""
        return program_version(shlex.join(self.command))

    def inputs(self) -> dict[str, Any]:
        """The retry ladder: its steps may find different solutions."""
        return {"ladder": [list(step) for step in LADDER]}

    def compute(self, frame: Frame) -> Calculation:
        """Energy, forces and, where the frame is periodic, stress."""
        reasons = []
        for note, changes in LADDER:
            if "OT" in changes and self.config.electronic_temperature > 0:
                continue
            try:
                return self._run(frame, changes)._replace(note=note)
            except NotConverged as error:
                reasons.append(str(error))
        tried = ", ".join(note for note, _ in LADDER if note)
        raise LabelError(f"{self.config.method} with CP2K failed: {reasons[-1]} (tried also: {tried})")

    def _run(self, frame: Frame, changes: Tree) -> Calculation:
        Path(INPUT).write_text(self.input(frame, changes), encoding="utf-8")
        # CP2K adds to an output that is there
        Path(OUTPUT).unlink(missing_ok=True)
        try:
            result = subprocess.run(
                [*self.command, "-i", INPUT, "-o", OUTPUT],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise LabelError(f"`{shlex.join(self.command)}` cannot be started ({error}); {CURE}") from error
        said = Path(OUTPUT).read_text(encoding="utf-8", errors="replace") if Path(OUTPUT).exists() else ""
        screen = result.stdout.decode(errors="replace")
        found = read_output(said, screen, result.returncode, len(frame.numbers), any(frame.pbc))
        return found if any(frame.pbc) else found._replace(forces=without_net_force(found.forces))

    def input(self, frame: Frame, changes: Tree | None = None) -> str:
        """CP2K's input for a frame; ``changes`` are laid over the section SCF."""
        dft = self._dft(frame)
        dft["SCF"] = merged(dft["SCF"], changes or {})
        evaluation: Tree = {
            "METHOD": "QUICKSTEP",
            "DFT": dft,
            "SUBSYS": self._subsystem(frame),
            "PRINT": {"FORCES ON": {"NDIGITS": 14}},
        }
        if any(frame.pbc):
            evaluation["STRESS_TENSOR"] = "ANALYTICAL"
            evaluation["PRINT"]["STRESS_TENSOR ON"] = {}
        tree: Tree = {
            "GLOBAL": {"PROJECT": PROJECT, "RUN_TYPE": "ENERGY_FORCE", "PRINT_LEVEL": "MEDIUM"},
            "FORCE_EVAL": evaluation,
        }
        return text(merged(tree, self.config.input))

    def _dft(self, frame: Frame) -> Tree:
        config = self.config
        scf: Tree = {
            "SCF_GUESS": "MOPAC" if config.method == "GFN1-xTB" else "ATOMIC",
            "EPS_SCF": config.convergence,
            "MAX_SCF": config.max_iterations,
            "MIXING": {"METHOD": "DIRECT_P_MIXING", "ALPHA": 0.3},
            "PRINT": {"RESTART OFF": {}},
        }
        if config.electronic_temperature > 0:
            scf["ADDED_MOS"] = "-1 -1" if self._unrestricted else -1
            scf["SMEAR ON"] = {
                "METHOD": "FERMI_DIRAC",
                "ELECTRONIC_TEMPERATURE [K]": config.electronic_temperature,
            }
            if config.multiplicity > 1:
                scf["SMEAR ON"]["FIXED_MAGNETIC_MOMENT"] = config.multiplicity - 1
        dft: Tree = {
            "CHARGE": config.charge,
            "MULTIPLICITY": config.multiplicity,
            "UKS": self._unrestricted,
            "SCF": scf,
        }
        if config.method == "GFN1-xTB":
            dft["QS"] = {"METHOD": "xTB", "XTB": {"DO_EWALD": any(frame.pbc)}}
            return dft
        dft |= {
            "BASIS_SET_FILE_NAME": "BASIS_MOLOPT",
            "POTENTIAL_FILE_NAME": "GTH_POTENTIALS",
            "QS": {"METHOD": "GPW", "EPS_DEFAULT": 1e-12},
            "MGRID": {"CUTOFF": config.cutoff, "REL_CUTOFF": config.relative_cutoff},
            "XC": {f"XC_FUNCTIONAL {config.functional}": {}},
        }
        if not any(frame.pbc):
            dft["POISSON"] = {"PERIODIC": "NONE", "POISSON_SOLVER": "WAVELET"}
        return dft

    @property
    def _unrestricted(self) -> bool:
        return self.config.spin_polarisation or self.config.multiplicity > 1

    def _subsystem(self, frame: Frame) -> Tree:
        config = self.config
        symbols = [chemical_symbols[z] for z in frame.numbers]
        if any(frame.pbc):
            cell, positions = frame.cell, frame.positions
            directions = "".join(axis for axis, periodic in zip("XYZ", frame.pbc, strict=True) if periodic)
        else:
            # what CP2K calls its cutoff is that of plane waves: E = (π/h)²/2 in Hartree, in Rydberg (π/h)²
            spacing = float(np.pi / np.sqrt(config.cutoff)) * BOHR
            lengths, positions = molecule_in_box(frame, config.cell, config.vacuum, spacing)
            if config.method == "DFT" and config.cell is None:
                edge = float(lengths.max())  # the wavelet solver wants a cube
                lengths, positions = molecule_in_box(frame, (edge, edge, edge), config.vacuum, spacing)
            cell, directions = np.diag(lengths), "NONE"
        rows = {axis: " ".join(f"{x:.12f}" for x in row) for axis, row in zip("ABC", cell, strict=True)}
        places = [f"{s} " + " ".join(f"{x:.12f}" for x in p) for s, p in zip(symbols, positions, strict=True)]
        tree: Tree = {"CELL": {**rows, "PERIODIC": directions}, "COORD": {"": places}}
        if config.method == "DFT":
            for symbol in sorted(set(symbols)):
                tree[f"KIND {symbol}"] = {"BASIS_SET": config.basis_set, "POTENTIAL": config.potential}
        return tree


class NotConverged(LabelError):
    """Self-consistency was not reached; other mixing may help."""


def read_output(said: str, screen: str, code: int, atoms: int, periodic: bool) -> Calculation:
    """What CP2K computed.

    Parameters
    ----------
    said, screen : its output file, and what it wrote to the screen.
    code : its exit status.

    Raises
    ------
    NotConverged
        If its output says that self-consistency was not reached.
    LabelError
        If it failed otherwise, or says nowhere that it converged.
    """
    if re.search(r"SCF run NOT converged|FAILED to converge", said + screen, re.I):
        steps = re.findall(
            r"^\s*(\d+)\s+\S+.*?\s(\d\.\d+(?:E[-+]\d+)?)\s+-?\d+\.\d+\s+-?\d\.\d+E[-+]\d+\s*$", said, re.M
        )
        where = f" ({steps[-1][0]} iterations, convergence {float(steps[-1][1]):.1e})" if steps else ""
        raise NotConverged(f"self-consistency was not reached{where}")
    if code != 0 or "ENERGY|" not in said:
        reason = abort_reason(said + screen)
        # an iteration with charges that cannot be: another mixing may avoid it
        failure = NotConverged if "xTB Charges" in reason else LabelError
        raise failure(f"CP2K ended with {how(code)}: {reason}")
    if "SCF run converged" not in said:
        raise LabelError("CP2K's output does not say that self-consistency was reached")
    energy = re.findall(r"ENERGY\| Total FORCE_EVAL.*?:\s+(\S+)\s*$", said, re.M)
    forces = read_forces(said, atoms)
    stress = None
    if periodic:
        rows = re.findall(r"^ ?STRESS\|\s+([xyz])\s+(\S+)\s+(\S+)\s+(\S+)\s*$", said, re.M)[:3]
        if len(rows) != 3:
            raise LabelError("CP2K's output has no stress tensor")
        # CP2K's sign is that of a pressure
        tensor = -np.array([row[1:] for row in rows], dtype=np.float64) * GIGAPASCAL
        stress = tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    return Calculation(float(energy[-1]) * HARTREE, forces * (HARTREE / BOHR), stress)


def read_forces(said: str, atoms: int) -> Array:
    """Forces [N, 3] Hartree/Bohr; the table changed its look in CP2K 2024.

    Raises
    ------
    LabelError
        If there is not one row per atom.
    """
    number = r"(-?\d+\.\d+(?:E[-+]\d+)?)"
    patterns = (
        rf"^\s+\d+\s+\d+\s+[A-Z][a-z]?\w*\s+{number}\s+{number}\s+{number}\s*$",
        rf"^ ?FORCES\|\s+\d+\s+{number}\s+{number}\s+{number}\s+{number}\s*$",
    )
    table = (
        said.split("ATOMIC FORCES in", 1)[-1].split("SUM OF ATOMIC FORCES", 1)[0]
        if "ATOMIC FORCES in" in said
        else said
    )
    for pattern in patterns:
        rows = re.findall(pattern, table, re.M)
        if len(rows) == atoms:
            return np.array([row[:3] for row in rows], dtype=np.float64)
    raise LabelError(f"CP2K's output has no table of forces for {atoms} atoms")


def abort_reason(said: str) -> str:
    """What stands in the frame of asterisks that CP2K ends with."""
    found = re.search(r"\[ABORT\](.*?)\*{20}", said, re.S)
    if found:
        # the drawing of a man stands left of the text
        reason = one_line(" ".join(line[15:].rstrip(" *") for line in found.group(1).split("\n")))
        if reason:
            return reason
    return one_line(next((line for line in reversed(said.splitlines()) if line.strip()), "it said nothing"))


def how(code: int) -> str:
    """How a program ended."""
    return f"signal {-code}" if code < 0 else f"exit status {code}"


def program_command(given: str | None) -> list[str]:
    """How CP2K is called: the YAML, ASE_CP2K_COMMAND is for its shell and not read, the first of its names on PATH."""
    names = ("cp2k.psmp", "cp2k", "cp2k.popt", "cp2k.ssmp", "cp2k.sopt")
    words = shlex.split(given) if given else [next((name for name in names if shutil.which(name)), names[0])]
    return [str(Path(words[0]).absolute()) if "/" in words[0] else words[0], *words[1:]]


@cache
def program_version(command: str) -> str:
    """What the program calls itself.

    Raises
    ------
    LabelError
        If it does not.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            said = subprocess.run(
                [*shlex.split(command), "--version"],
                cwd=folder,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                check=False,
            ).stdout
    except OSError as error:
        raise LabelError(f"`{command}` cannot be started ({error}); {CURE}") from error
    found = re.search(r"CP2K version\s+(\S+)", said)
    if found is None:
        raise LabelError(f"`{command} --version` does not look like CP2K; it said: {one_line(said)}")
    return found.group(1)


def data_folder() -> Path | None:
    """Where CP2K's basis sets and potentials are."""
    named = os.environ.get("CP2K_DATA_DIR")
    found = shutil.which(program_command(None)[0])
    prefix = [Path(found).resolve().parents[1] / "share" / "cp2k"] if found else []
    places = [Path(named)] if named else [Path("/usr/share/cp2k"), *prefix, *(p / "data" for p in prefix)]
    return next((place for place in places if (place / "BASIS_MOLOPT").is_file()), None)


@cache
def entries(path: Path) -> dict[str, frozenset[str]]:
    """Names in a file of basis sets or potentials, by element; ``GTH-PBE-q4`` counts as ``GTH-PBE`` too."""
    found: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if words and words[0] in chemical_symbols:
            names = found.setdefault(words[0], set())
            names.update(words[1:])
            names.update(re.sub(r"-q\d+$", "", word) for word in words[1:])
    return {symbol: frozenset(names) for symbol, names in found.items()}


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """``tree`` with ``changes`` laid over it. A section is named by its first word; None takes it away."""
    result = dict(tree)
    for key, value in changes.items():
        repeated = key.upper().startswith("KIND ")
        names = {(name.upper() if repeated else name.split(" ")[0].upper()): name for name in result}
        old = names.get(key.upper() if repeated else key.split(" ")[0].upper())
        before = result.pop(old) if old is not None else None
        if isinstance(value, Mapping):
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        elif value is not None:
            result[key] = value
    return result


def text(tree: Mapping[str, Any], indent: int = 0) -> str:
    """CP2K's input: mappings are sections, lists are repeated keywords."""
    pad = "  " * indent
    lines = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += [f"{pad}&{key}", text(value, indent + 1).rstrip("\n"), f"{pad}&END {key.split(' ')[0]}"]
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                lines.append(f"{pad}{key} {_plain(item)}".rstrip() if key else f"{pad}{item}")
    return "\n".join(line for line in lines if line.strip()) + "\n"


def _plain(value: Any) -> str:
    return (".TRUE." if value else ".FALSE.") if isinstance(value, bool) else str(value)


def build(config: Config) -> Engine:
    """The engine that ``config`` describes."""
    return Engine(config)
