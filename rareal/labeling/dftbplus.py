"""Density-functional tight binding with DFTB+, through files or through its in-process library.

B. Hourahine et al., J. Chem. Phys. 2020, 152, 124101; DFTB3: M. Gaus, Q. Cui, M. Elstner, J. Chem. Theory Comput.
2011, 7, 931.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from ase.data import chemical_symbols
from pydantic import Field, field_validator, model_validator

from rareal.errors import ConfigError, LabelError
from rareal.labeling import dftbplus_library as library
from rareal.labeling.base import BaseEngine, ElectronsConfig, one_line
from rareal.labeling.dftbplus_input import (
    CURE_SET,
    SPIN_CONSTANTS,
    THREE_OB,
    ParameterSet,
    Tree,
    angular_momentum,
    check_pair_files,
    gen_format,
    hsd,
    merged,
    pair_files,
)
from rareal.labeling.settings import file_digest
from rareal.records import Array, Calculation, Frame
from rareal.schema import Misfit
from rareal.units import HARTREE, Temperature

PARAMETER_SETS: dict[str, ParameterSet] = {"DFTB3/3OB": THREE_OB}

LADDER: tuple[tuple[str, Tree, float], ...] = (
    ("", {}, 0.0),
    ("mixing 0.05", {"Mixer": {"Broyden": {"MixingParameter": 0.05}}}, 0.0),
    ("Anderson mixing 0.02", {"Mixer": {"Anderson": {"MixingParameter": 0.02, "Generations": 8}}}, 0.0),
    ("guess at 5000 K", {"Mixer": {"Broyden": {"MixingParameter": 0.05}}}, 5000.0),
)
"""What is tried in turn: note, changes of the Hamiltonian block, K of a first calculation whose charges are the guess.
All end at the same tolerance and the same electronic temperature."""

PARSER_VERSION = 10
"""Of the input: DFTB+ 21.2 and all later ones read it."""

INPUT, OUTPUT, RESULTS, DETAILS, CHARGES = "dftb_in.hsd", "dftbplus.log", "results.tag", "detailed.out", "charges.bin"

CURE = (
    "install it from conda-forge (`conda install -c conda-forge dftbplus`; dftbplus-python has the library), and put "
    "`dftb+` on PATH or name it under engine.command"
)


class Config(ElectronsConfig):
    """DFTB with DFTB+."""

    harmless: ClassVar[tuple[str, ...]] = (
        *ElectronsConfig.harmless,
        "interface",
        "command",
        "library",
        "slater_koster",
    )

    kind: Literal["dftbplus"] = "dftbplus"
    method: Literal["DFTB3/3OB", "DFTB2"] = Field(
        "DFTB3/3OB",
        description="DFTB3/3OB: third order, damped, with the set's own parameters; DFTB2: second order, any set",
    )
    slater_koster: Path | None = Field(
        None, description="folder of the .skf files, relative to the current one; else ASE's configuration, DFTB_PREFIX"
    )
    interface: Literal["files", "library"] = Field(
        "files",
        description="run the program on files, or call its library inside the worker, three times faster with "
        "reuse_charges; the program must be there too: it tells its version and does what the library cannot converge",
    )
    command: str | None = Field(
        None, description="how the program is called; else ASE's configuration, DFTB_COMMAND, `dftb+`"
    )
    library: Path | None = Field(None, description="libdftbplus.so; else it is looked for beside the program")
    electronic_temperature: Temperature = Field(300.0, ge=0, description="Fermi filling of the orbitals, K")
    scc_tolerance: float = Field(1e-7, gt=0, le=1e-3, description="charges at self-consistency, electrons")
    max_iterations: int = Field(200, ge=1, description="most iterations to self-consistency, for each step tried")
    spin_polarisation: bool = Field(False, description="collinear spins with energies of their own")
    initial_spins: dict[int, float] = Field(
        default_factory=dict, description="unpaired electrons on atoms to start from, by number from 1: {1: 1, 6: -1}"
    )
    spin_constants: dict[str, tuple[float, ...]] = Field(
        default_factory=dict, description="Hartree, shell by shell, row by row; built in for H, C, N, O"
    )
    reuse_charges: bool = Field(
        False, description="start from the frame before; faster, but the result may depend on the order of the frames"
    )
    hsd: dict[str, Any] = Field(
        default_factory=dict, description="any other block of DFTB+'s input, laid over what rareal writes; null removes"
    )

    @field_validator("hsd")
    @classmethod
    def _ours(cls, blocks: dict[str, Any]) -> dict[str, Any]:
        for key in blocks:
            if key.strip().lower() in ("geometry", "driver"):
                raise ValueError(
                    f"the block {key} is rareal's to write; set Hamiltonian, Analysis, Options, Parallel, ..."
                )
        return blocks

    @model_validator(mode="after")
    def _spins(self) -> Config:
        if self.multiplicity > 1 and not self.spin_polarisation:
            raise ValueError(f"multiplicity {self.multiplicity} needs spin_polarisation: true")
        if self.initial_spins and not self.spin_polarisation:
            raise ValueError("initial_spins need spin_polarisation: true")
        if self.interface == "library" and "filling" in str(self.hsd).lower():
            raise ValueError("the library labels with Fermi's filling; another one needs interface: files")
        return self

    def check_against(self, config: Any) -> None:
        """Refuse a missing program, library, Slater-Koster file or parameter."""
        super().check_against(config)
        elements = {chemical_symbols[z] for z in config.frame.numbers}
        known = PARAMETER_SETS.get(self.method)
        if known is not None and (strange := sorted(elements - set(known.hubbard_derivatives))):
            raise Misfit(
                "method", f"{self.method} has no parameters for {', '.join(strange)}; use DFTB2 and another set"
            )
        check_pair_files(self.slater_koster, elements, known.source if known else CURE_SET)
        if self.spin_polarisation:
            lacking = sorted(elements - set(SPIN_CONSTANTS) - set(self.spin_constants))
            if lacking:
                raise Misfit(
                    "spin_constants", f"give them for {', '.join(lacking)}, as the set's documentation has them"
                )
            wrong = [atom for atom in self.initial_spins if not 1 <= atom <= len(config.frame.numbers)]
            if wrong:
                raise Misfit("initial_spins", f"there is no atom {wrong[0]}; atoms are counted from 1")
        if self.interface == "library":
            library.find(self.library, program_name(self.command))
        if shutil.which(program_name(self.command)) is None:
            raise Misfit("command", f"there is no program `{program_name(self.command)}`; {CURE}")


class Engine(BaseEngine[Config]):
    """A level of theory, computed by DFTB+.

    Orbitals are filled by Fermi's function, so the energy is the Mermin free energy that the forces are the gradient
    of. A frame starts from neutral atoms unless `reuse_charges` is set, so that its label depends on nothing but the
    frame.

    Parameters
    ----------
    config : the settings.
    elements : chemical symbols whose Slater-Koster files belong to the level of theory.
    """

    keep = (DETAILS,)

    def __init__(self, config: Config, elements: tuple[str, ...]) -> None:
        super().__init__(config)
        self.elements = tuple(sorted(set(elements)))
        known = PARAMETER_SETS.get(config.method)
        # absolute, because workers compute in folders of their own
        self.folder = check_pair_files(config.slater_koster, self.elements, known.source if known else CURE_SET)
        self.command = program_command(config.command)
        self._library: library.Library | None = None
        self._charges: bytes | None = None
        self._tried: set[tuple[bytes, tuple[bool, bool, bool]]] = set()

    def version(self) -> str:
        """The program's, as it prints it; the library that lies beside it does not tell its own."""
        return program_version(shlex.join(self.command))

    def inputs(self) -> dict[str, Any]:
        """Contents of the Slater-Koster files, the parameters of the set, the ladder."""
        files = {file.name: file_digest(file) for file in pair_files(self.folder, self.elements)}
        return {
            "slater_koster_files": files,
            "hamiltonian": {k: v for k, v in self._dftb(self.elements).items() if k != "SlaterKosterFiles"},
            "ladder": [list(step) for step in LADDER],
        }

    def compute(self, frame: Frame) -> Calculation:
        """Energy, forces and, where the frame is periodic, stress."""
        strange = {chemical_symbols[z] for z in frame.numbers} - set(self.elements)
        if strange:
            raise LabelError(f"{', '.join(sorted(strange))}: the engine was set up for {', '.join(self.elements)}")
        reasons = []
        for note, changes, heat in LADDER:
            if self.config.interface == "library" and not note and self._accepted(frame):
                found = self._loaded().calculate(
                    frame, self.input(frame, {"ConvergentSCCOnly": False}), self.config.reuse_charges
                )
                if found is not None:
                    return found
                reasons.append("self-consistency was not reached")
                continue
            guess = self._charges if not reasons else None
            try:
                if heat:
                    self._run(self.input(frame, {**changes, **self._filling(heat)}))
                    guess = Path(CHARGES).read_bytes()
                result = self._attempt(frame, changes, guess)
            except NotConverged as error:
                reasons.append(str(error))
                self._charges = None
                continue
            self._tried.add(_kind(frame))
            if self.config.reuse_charges:
                self._charges = Path(CHARGES).read_bytes()
            return result._replace(note=note)
        raise LabelError(
            f"{self.config.method} failed: {reasons[-1]} (also with {', '.join(n for n, *_ in LADDER if n)})"
        )

    def _accepted(self, frame: Frame) -> bool:
        """Whether the program has taken this input: the first frame of a kind goes through files, because what the
        library does not like ends the process without a word."""
        return _kind(frame) in self._tried

    def _attempt(self, frame: Frame, changes: Tree, guess: bytes | None) -> Calculation:
        if guess is not None:
            Path(CHARGES).write_bytes(guess)
            changes = {**changes, "ReadInitialCharges": True}
        self._run(self.input(frame, changes))
        return read_results(Path(RESULTS), any(frame.pbc))

    def _run(self, text: str) -> None:
        """Run the program in the current directory.

        Raises
        ------
        NotConverged
            If self-consistency was not reached.
        LabelError
            For any other failure, with the program's own reason.
        """
        Path(INPUT).write_text(text, encoding="utf-8")
        Path(RESULTS).unlink(missing_ok=True)
        try:
            with open(OUTPUT, "w", encoding="utf-8") as output:
                code = subprocess.run(
                    self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False
                ).returncode
        except OSError as error:
            raise LabelError(f"`{' '.join(self.command)}` cannot be started ({error}); {CURE}") from error
        said = Path(OUTPUT).read_text(encoding="utf-8", errors="replace")
        details = Path(DETAILS).read_text(encoding="utf-8", errors="replace") if Path(DETAILS).exists() else ""
        check_output(said, details, code, Path(RESULTS).exists())

    def input(self, frame: Frame, changes: Tree | None = None) -> str:
        """DFTB+'s input for a frame; ``changes`` are laid over the Hamiltonian."""
        symbols = tuple(sorted({chemical_symbols[z] for z in frame.numbers}))
        dftb: Tree = merged(self._dftb(symbols), changes or {})
        if self.config.spin_polarisation and self.config.initial_spins:
            spins = [self.config.initial_spins.get(atom + 1, 0.0) for atom in range(len(frame.numbers))]
            dftb["SpinPolarisation"]["Colinear"]["InitialSpins"] = {"AllAtomSpins": spins}
        tree: Tree = {
            "Geometry": {"GenFormat": gen_format(frame) + "\n"},
            "Hamiltonian": {"DFTB": dftb},
            "Options": {"WriteResultsTag": True, "WriteDetailedOut": True},
            "Analysis": {"CalculateForces": True},
            "ParserOptions": {"ParserVersion": PARSER_VERSION},
        }
        return hsd(merged(tree, self.config.hsd)) + "\n"

    def _dftb(self, symbols: tuple[str, ...]) -> Tree:
        """The block Hamiltonian = DFTB, as far as it does not depend on the frame."""
        config, known = self.config, PARAMETER_SETS.get(self.config.method)
        momenta = (
            known.angular_momenta if known else {s: angular_momentum(self.folder / f"{s}-{s}.skf") for s in symbols}
        )
        tree: Tree = {
            "SCC": True,
            "SCCTolerance": config.scc_tolerance,
            "MaxSCCIterations": config.max_iterations,
            "Charge": config.charge,
            "MaxAngularMomentum": {s: f'"{momenta[s]}"' for s in symbols},
            "SlaterKosterFiles": {
                "Type2FileNames": {"Prefix": f'"{self.folder}/"', "Separator": '"-"', "Suffix": '".skf"'}
            },
        }
        if known is not None:
            tree["ThirdOrderFull"] = True
            tree["HubbardDerivs"] = {s: known.hubbard_derivatives[s] for s in symbols}
            tree["HCorrection"] = {"Damping": {"Exponent": known.zeta}}
        tree |= self._filling(config.electronic_temperature)
        if config.spin_polarisation:
            constants = {**SPIN_CONSTANTS, **config.spin_constants}
            tree["SpinPolarisation"] = {"Colinear": {"UnpairedElectrons": config.multiplicity - 1}}
            tree["SpinConstants"] = {"ShellResolvedSpin": True, **{s: list(constants[s]) for s in symbols}}
        return tree

    @staticmethod
    def _filling(temperature: float) -> Tree:
        return {"Filling": {"Fermi": {"Temperature [Kelvin]": temperature}}}

    def _loaded(self) -> library.Library:
        if self._library is None:
            self._library = library.Library(library.find(self.config.library, self.command[0]))
        return self._library

    def close(self) -> None:
        """Forget guess charges and let go of the library."""
        self._charges = None
        if self._library is not None:
            self._library.close()

    def __getstate__(self) -> dict[str, Any]:
        # the library and its charges belong to this process
        return {**super().__getstate__(), "_library": None, "_charges": None, "_tried": set()}


def _kind(frame: Frame) -> tuple[bytes, tuple[bool, bool, bool]]:
    return np.asarray(frame.numbers, dtype=np.int64).tobytes(), frame.pbc


class NotConverged(LabelError):
    """Self-consistency was not reached; other mixing may help."""


def program_command(given: str | None) -> list[str]:
    """How DFTB+ is called: as the YAML, section ``[dftb]`` of ASE's configuration or DFTB_COMMAND says, or `dftb+`."""
    import os

    from ase.config import cfg

    configured = cfg.parser["dftb"].get("command") if cfg.parser.has_section("dftb") else None
    words = shlex.split(given or configured or os.environ.get("DFTB_COMMAND") or "dftb+")
    # a folder of its own is the current directory when the program is called
    return [str(Path(words[0]).absolute()) if "/" in words[0] else words[0], *words[1:]]


def program_name(given: str | None) -> str:
    """The first word of the command: the program, or what launches it."""
    return program_command(given)[0]


@cache
def program_version(command: str) -> str:
    """What the program calls itself: it prints that before it looks for its input.

    Raises
    ------
    LabelError
        If it does not.
    """
    import tempfile

    try:
        # it stops where it finds no input
        with tempfile.TemporaryDirectory() as folder:
            said = subprocess.run(
                shlex.split(command), cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, text=True, check=False
            ).stdout
    except OSError as error:
        raise LabelError(f"`{command}` cannot be started ({error}); {CURE}") from error
    return library.release(said, f"`{command}`")


def check_output(said: str, details: str, code: int, finished: bool) -> None:
    """Find out from what DFTB+ said whether it failed, and why.

    Parameters
    ----------
    said, details : its output and ``detailed.out``.
    code : its exit status.
    finished : whether it wrote its results.
    """
    if "SCC is NOT converged" in said or "SCC is NOT converged" in details:
        raise NotConverged(f"self-consistency was not reached ({last_iteration(said)})")
    if reason := error_reason(said):
        raise LabelError(f"DFTB+ says: {reason}")
    if code != 0 or not finished:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing")
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        raise LabelError(f"DFTB+ ended with {how} and no results; it said last: {one_line(last)}")


def error_reason(said: str) -> str:
    """DFTB+'s own message; empty if there is none. Of errors in the input, it names the keys in a warning before."""
    head, error, tail = said.partition("ERROR!")
    if not error:
        return ""
    ignored = re.findall(r"ignored by the parser:\s*(.*?)\n\s*\n", head, re.S) if "Code halting" in tail else []
    words = one_line(re.split(r"ERROR STOP|Note: The following", tail)[0].replace("->", " "))
    return f"{words} Not known to it: {one_line(ignored[-1])}" if ignored else words


def last_iteration(said: str) -> str:
    """The last iteration and its error, from the table that DFTB+ prints: ``iSCC, energy, difference, error``."""
    rows = re.findall(r"^\s*(\d+)\s+[-+]?\d\.\d+E[-+]\d+\s+[-+]?\d\.\d+E[-+]\d+\s+(\d\.\d+E[-+]\d+)\s*$", said, re.M)
    return f"{rows[-1][0]} iterations, last error of the charges {float(rows[-1][1]):.1e}" if rows else "no iteration"


def read_results(path: Path, periodic: bool) -> Calculation:
    """Free energy, forces and stress from ``results.tag``.

    Raises
    ------
    LabelError
        If one of them is missing.
    """
    tags = read_tags(path)
    # what the forces are the gradient of; the same as the Mermin free energy with Fermi's filling
    name = "forcerelated_energy" if "forcerelated_energy" in tags else "mermin_energy"
    missing = [name for name in (name, "forces", *(["stress"] if periodic else [])) if name not in tags]
    if missing:
        raise LabelError(f"DFTB+ wrote no {' and no '.join(missing)} to {path.name}")
    stress = None
    if periodic:
        # DFTB+'s own sign is that of a pressure
        tensor = -tags["stress"].reshape(3, 3) * (HARTREE / library.BOHR**3)
        stress = tensor[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    forces = tags["forces"].reshape(-1, 3) * (HARTREE / library.BOHR)
    return Calculation(float(tags[name][0]) * HARTREE, forces, stress)


def read_tags(path: Path) -> dict[str, Array]:
    """Real numbers in DFTB+'s tagged format, flat: ``name :real:2:3,20`` and the values, Fortran's order."""
    tags: dict[str, Array] = {}
    name, values = "", [""]
    for line in [*path.read_text(encoding="utf-8").splitlines(), "end :end:0:"]:
        header = re.match(r"(\w+)\s*:(\w+):\d*:", line)
        if header is None:
            values += line.split()
            continue
        if name:
            tags[name] = np.array(values, dtype=np.float64)
        name, values = (header.group(1) if header.group(2) == "real" else ""), []
    return tags


def build(config: Config, start: Frame) -> Engine:
    """The engine that ``config`` describes, for frames with the elements of ``start``.

    Raises
    ------
    ConfigError
        If a Slater-Koster file is missing.
    """
    try:
        return Engine(config, tuple(chemical_symbols[z] for z in start.numbers))
    except Misfit as misfit:
        raise ConfigError(f"engine.{misfit.field}: {misfit}") from misfit
