"""Every message with which a configuration is refused, as a user sees it: a mistake each.

The messages are in ``tests/data/config_errors.txt``, which this writes anew::

    PYTHONPATH=. python tests/support/config_errors.py

Read what has changed before it is committed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from rareal.config import load, load_training
from rareal.errors import ConfigError, SamplingError
from rareal.labelconfig import load_labels

GOLDEN = Path(__file__).parents[1] / "data" / "config_errors.txt"
HEAD = f"""\
Every message with which a configuration is refused: the mistake, and what the user reads.
Where they are not shown, the YAML's first lines are `structure: water.xyz` and `cv: {{kind: distance, atoms: [1, 2]}}`.
Written by tests/support/{Path(__file__).name}.
"""
WATER = "3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"

Setup = Callable[[contextlib.ExitStack], None]


@dataclass(frozen=True)
class Case:
    """A mistake: the lines of the YAML that have it, or the whole file."""

    text: str
    whole: bool = False
    structure: str | None = WATER
    setup: Setup | None = None
    read: str = "run"
    overrides: tuple[tuple[str, Any], ...] = ()

    def yaml(self) -> str:
        """The whole file."""
        if self.whole:
            return self.text
        keys = re.findall(r"^(\w+):", self.text, flags=re.MULTILINE)
        base = {"structure": "water.xyz", "cv": "{kind: distance, atoms: [1, 2]}"}
        if self.read == "train":
            base = {}
        return "".join(f"{key}: {value}\n" for key, value in base.items() if key not in keys) + self.text + "\n"

    def shown(self) -> str:
        """What stands in the list."""
        lines = [f"    {line}".rstrip() for line in self.text.splitlines() or ["(nothing)"]]
        if self.structure != WATER:
            told = self.structure if self.structure is not None else "there is none"
            lines += ["    water.xyz:", *(f"        {line}".rstrip() for line in told.splitlines())]
        lines += [f"    (--{key} {value})" for key, value in self.overrides]
        return "\n".join(lines)


def without_programs(stack: contextlib.ExitStack) -> None:
    """No program on PATH, no setting of the environment."""
    stack.enter_context(mock.patch.dict(os.environ, {"PATH": ""}))


def slater_koster(*files: str) -> Setup:
    """A folder ``skf`` with these files."""

    def make(stack: contextlib.ExitStack) -> None:
        without_programs(stack)
        Path("skf").mkdir()
        for name in files:
            Path("skf", name).touch()

    return make


def no_slater_koster(stack: contextlib.ExitStack) -> None:
    """Nobody names a folder of Slater-Koster files."""
    from ase.config import cfg

    without_programs(stack)
    os.environ.pop("DFTB_PREFIX", None)
    parser = mock.Mock(has_section=lambda name: False)
    stack.enter_context(mock.patch.object(type(cfg), "parser", parser, create=True))


def missing(package: str) -> Setup:
    """A package that is not installed."""

    def make(stack: contextlib.ExitStack) -> None:
        real = importlib.util.find_spec
        stack.enter_context(
            mock.patch.object(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name))
        )

    return make


def stand_in_gpaw(stack: contextlib.ExitStack) -> None:
    """A GPAW that is installed, without PAW data."""
    from rareal.labeling import gpaw

    without_programs(stack)
    real = importlib.util.find_spec
    there = importlib.util.find_spec("json")
    stack.enter_context(
        mock.patch.object(importlib.util, "find_spec", lambda name, *rest: there if name == "gpaw" else real(name))
    )
    stack.enter_context(mock.patch.object(gpaw, "_data_file", return_value=None))


def stand_in_pyscf(stack: contextlib.ExitStack) -> None:
    """A PySCF that knows one basis set and one functional."""

    def refuse(known: str) -> Any:
        def look(name: str, *rest: Any) -> None:
            if name != known:
                raise KeyError(f"unknown {name}")

        return look

    pyscf, dft, gto, libxc = (ModuleType(name) for name in ("pyscf", "pyscf.dft", "pyscf.gto", "pyscf.dft.libxc"))
    gto.basis = mock.Mock(load=refuse("def2-svp"))  # type: ignore[attr-defined]
    libxc.parse_xc = refuse("PBE")  # type: ignore[attr-defined]
    pyscf.gto, pyscf.dft, dft.libxc = gto, dft, libxc  # type: ignore[attr-defined]
    pyscf.__spec__ = importlib.util.find_spec("json")
    modules = {"pyscf": pyscf, "pyscf.dft": dft, "pyscf.gto": gto, "pyscf.dft.libxc": libxc}
    stack.enter_context(mock.patch.dict(sys.modules, modules))


def program(name: str, **variables: str) -> Setup:
    """A program of that name on PATH, and nothing else."""

    def make(stack: contextlib.ExitStack) -> None:
        Path("bin").mkdir()
        Path("bin", name).write_text("#!/bin/sh\n")
        Path("bin", name).chmod(0o755)
        stack.enter_context(mock.patch.dict(os.environ, {"PATH": str(Path("bin").absolute()), **variables}))

    return make


def cp2k_data(*found: str) -> Setup:
    """CP2K with a data folder that has these for hydrogen and oxygen; none at all without arguments."""

    def make(stack: contextlib.ExitStack) -> None:
        from rareal.labeling import cp2k

        program("cp2k")(stack)
        folder = Path("data").absolute()
        stack.enter_context(mock.patch.object(cp2k, "data_folder", return_value=folder if found else None))
        known = {"H": set(found), "O": set(found)}
        stack.enter_context(mock.patch.object(cp2k, "entries", return_value=known))

    return make


def unreadable(stack: contextlib.ExitStack) -> None:
    """A YAML that is no text."""
    Path("case.yaml").write_bytes(b"\xff\xfe\x00")


def other_structure(stack: contextlib.ExitStack) -> None:
    """A structure of other atoms."""
    Path("other.xyz").write_text(WATER.replace("O 0 0 0", "S 0 0 0"))


def no_yaml(stack: contextlib.ExitStack) -> None:
    """No YAML."""
    Path("case.yaml").unlink()


def no_shared_library(stack: contextlib.ExitStack) -> None:
    """DFTB+ as a program without its library."""
    from rareal.labeling import dftbplus_library

    program("dftb+")(stack)
    Path("skf").mkdir()
    for pair in ("H-H", "H-O", "O-H", "O-O"):
        Path("skf", f"{pair}.skf").touch()
    stack.enter_context(mock.patch.object(dftbplus_library, "find_library", return_value=None))
    stack.enter_context(mock.patch.object(dftbplus_library, "NAME", "libdftbplus.so"))
    stack.enter_context(mock.patch.dict(os.environ, {"CONDA_PREFIX": ""}))
    stack.enter_context(mock.patch.object(sys, "prefix", str(Path("nowhere").absolute())))


def colvar(*statements: str) -> str:
    """A collective variable as a text of Colvars."""
    lines = "".join(f"      {line}\n" for statement in statements for line in _broken(statement))
    return f"cv:\n  kind: colvars\n  text: |\n    colvar {{\n{lines}    }}"


def _broken(statement: str) -> list[str]:
    """Braces at the ends of lines, as Colvars wants them."""
    text = statement.replace("{", "{\n").replace("}", "\n}\n")
    return [line.strip() for line in text.split("\n") if line.strip()]


def colvars_says(refused: str = "", value: float = 0.0) -> Setup:
    """What Colvars would say, without running it."""

    def make(stack: contextlib.ExitStack) -> None:
        from rareal.cv import verbatim

        answer = {"side_effect": SamplingError(refused)} if refused else {"return_value": np.array([value])}
        stack.enter_context(mock.patch.object(verbatim, "colvars_values", **answer))

    return make


SKEW = '3\nLattice="9 1 0 0 9 0 0 0 9"\n' + WATER[3:]
SKF = "slater_koster: skf"
PAIRS = ("H-H.skf", "H-O.skf", "O-H.skf", "O-O.skf")
BH = "2\n\nB 0 0 0\nH 1.23 0 0\n"

CASES: dict[str, tuple[Case, ...]] = {
    "The file": (
        Case("(no file)", whole=True, setup=no_yaml),
        Case("(not text)", whole=True, setup=unreadable),
        Case("", whole=True),
        Case("- 1\n", whole=True),
        Case("just words\n", whole=True),
        Case("model: [1\n", whole=True),
        Case("model: {a: b: c}\n", whole=True),
        Case("1: 2"),
        Case("seed: 1\nseed: 2"),
        Case("training: {members: 2, members: 3}"),
    ),
    "Keys": (
        Case("seeed: 3"),
        Case("nonsense: 3"),
        Case("sampler:\n  stps: 3"),
        Case("training: {loss: {kind: huber, weight: 1}}"),
        Case("check: {rupture: {stp: 1}}"),
        Case("check: {1: 2}"),
        Case("labels: {kind: labels}"),
        Case("seed: 1\n", whole=True),
        Case("cv: {kind: distance}"),
        Case("structure: water.xyz\n", whole=True),
    ),
    "Sections and kinds": (
        Case("model: 3"),
        Case("labels: plain"),
        Case("sampler: sterred"),
        Case("selection: {kind: 3}"),
        Case("selection: no.such.module"),
        Case("selection: json.decoder"),
        Case("training: {loss: hubber}"),
        Case("training: {loss: {kind: hubber}}"),
        Case("check: {rupture: 3}"),
    ),
    "Values": (
        Case("seed: one"),
        Case("seed: -1"),
        Case("seed: true"),
        Case("rounds: 2.5"),
        Case("name: a/b"),
        Case("training: {epochs: many}"),
        Case("training: {epochs: 2.5}"),
        Case("training: {learning_rate: fast}"),
        Case("training: {learning_rate: [1]}"),
        Case("training: {learning_rate: .nan}"),
        Case("training: {learning_rate: 0}"),
        Case("training: {averaging: 1}"),
        Case("training: {members: 1}"),
        Case("training: {keep_optimizer: perhaps}"),
        Case("training: {keep_optimizer: [1]}"),
        Case("training: {optimizer: sgd}"),
        Case("training: {device: tpu}"),
        Case("training: {recovery: 3}"),
        Case("labels: {max_failed_fraction: 1.5}"),
        Case("labels: {cache: 3}"),
        Case("labels: {scratch: 3}"),
        Case("sampler: {temperature: -1 K}"),
        Case("sampler: {timestep: 1 angstrom}"),
        Case("sampler: {timestep: 0.5 parsecs}"),
        Case("sampler: {timestep: fast}"),
        Case("model: {kind: ani, hidden: 3}"),
        Case("model: {kind: script, files: 3}"),
        Case("rounds: 3", overrides=(("rounds", 0),)),
    ),
    "The structure": (
        Case("structure: watr.xyz"),
        Case("structure: water.xyz", structure="3\n\nO 0 0 0\nH 0.96 0 0\nQq -0.24 0.93 0\n"),
        Case("structure: water.xyz", structure="3\n\nO 0 0 0\nH 0.96 0 0\nX -0.24 0.93 0\n"),
        Case("structure: water.xyz", structure="3\n\nO 0 0 0\nH 0.96 0 0\nH 0.96 0.001 0\n"),
        Case("structure: water.xyz", structure="3\n\nO 0 0 0\nH nan 0 0\nH 0.96 0.001 0\n"),
        Case("structure: water.xyz", structure="1\n\nO 0 0 0\n"),
        Case("structure: water.xyz", structure="9\n\nO 0 0 0\n"),
    ),
    "Collective variables": (
        Case("cv: {kind: distance, atoms: [1]}"),
        Case("cv: {kind: distance, atoms: [1, 1]}"),
        Case("cv: {kind: distance, atoms: [1, 4]}"),
        Case("cv: {kind: distance, atoms: [0, 1]}"),
        Case("cv: {kind: distance, atoms: [1, two]}"),
        Case("cv: {kind: distance, atoms: 1}"),
        Case("cv: {kind: distance, atoms: [1, 2, 3]}"),
        Case("cv: {kind: distance, atoms: [1, 2], groups: [[1], [2]]}"),
        Case("cv: {kind: distance, groups: [[1], [2, 2]]}"),
        Case("cv: {kind: distance, groups: [[1], [1, 2]]}"),
        Case("cv: {kind: distance, atoms: [1, 2], name: my cv}"),
        Case("cv: {kind: distance, atoms: [1, 2], name: work}"),
        Case("cv: []"),
        Case("cv: [{atoms: [1, 2], name: a}, {atoms: [1, 3], name: A}]"),
        Case("cv: [{atoms: [1, 2]}, 3]"),
        Case("cv: {kind: angle, atoms: [1, 2]}"),
        Case("cv: {kind: difference, pairs: [[1, 2], [1, 1]]}"),
        Case("cv: {kind: difference, pairs: [[1, 2], [2, 1]]}"),
        Case("cv: {kind: difference, pairs: [[1, 2]]}"),
        Case("cv: {kind: difference, pairs: [[1, 2], [1, 3], [2, 3]]}"),
        Case("cv: {kind: combination, pairs: [[1, 2]], coefficients: [0]}"),
        Case("cv: {kind: combination, pairs: [[1, 2]], coefficients: [1, 2]}"),
        Case("cv: {kind: coordination, groups: [[1], [1, 2]], r0: 1.2}"),
        Case("cv: {kind: coordination, groups: [[1], [2, 3]], r0: 1.2, exponents: [6, 3]}"),
        Case("cv: {kind: coordination, groups: [[1], [2, 3]], r0: 1.2}", structure=SKEW),
        Case("cv: {kind: rmsd, atoms: [1, 2, 2]}"),
        Case("cv: {kind: rmsd, reference: nowhere.xyz}"),
        Case("cv: rmsd", structure="2\n\nH 0 0 0\nH 0 0 0.74\n"),
        Case("cv: {kind: rmsd, reference: [[O, 0, 0, 0], [H, 1, 0, 0]]}"),
        Case("cv: {kind: rmsd, reference: [[O, 0, 0, 0], [C, 1, 0, 0], [H, 0, 1, 0]]}"),
        Case("cv: {kind: colvars, text: width 1}"),
        Case("cv: {kind: colvars, text: 'colvar {'}"),
        Case(colvar("width 1")),
        Case(colvar("name 1st")),
        Case(colvar("name work")),
        Case(colvar("name a", "distance { group1 { indexFile x.ndx } }")),
        Case(colvar("name a", "distance { group1 { atomNumbers 1 } group2 { atomNumbers 4 } }")),
        Case(colvar("name a", "nonsense { }"), setup=colvars_says(refused="unknown keyword")),
        Case(colvar("name a", "distance { group1 { atomNumbers 1 } }"), setup=colvars_says(value=float("nan"))),
    ),
    "Label engines": (
        Case("engine: {kind: tblite, multiplicity: 2}"),
        Case("engine: {kind: tblite}", structure="2\n\nFr 0 0 0\nFr 0 0 4\n"),
        Case("engine: {kind: ase, calculator: EMT}"),
        Case("engine: {kind: ase, calculator: no.such.Calculator}"),
        Case("engine: {kind: ase, calculator: ase.calculators.emt.ETM}"),
        Case("engine: {kind: ase, calculator: math.sqrt, arguments: {}}"),
        Case("engine: {kind: ase, calculator: os.listdir, arguments: {path: nowhere}}"),
        Case("engine: {kind: pyscf, multiplicity: 3}"),
        Case("engine: {kind: pyscf, broken_symmetry: true}"),
        Case("engine: {kind: pyscf, method: UKS, broken_symmetry: true, electronic_temperature: 300 K}"),
        Case("engine: pyscf", setup=missing("pyscf")),
        Case("engine: pyscf", setup=stand_in_pyscf, structure=f'3\nLattice="9 0 0 0 9 0 0 0 9"\n{WATER[3:]}'),
        Case("engine: {kind: pyscf, basis: def3}", setup=stand_in_pyscf),
        Case("engine: {kind: pyscf, functional: PEB}", setup=stand_in_pyscf),
        Case("engine: {kind: gpaw, extra: {mode: pw}}"),
        Case("engine: {kind: gpaw, initial_spins: {1: 1}}"),
        Case("engine: gpaw", setup=missing("gpaw")),
        Case("engine: {kind: gpaw, mode: pw}", setup=stand_in_gpaw),
        Case("engine: {kind: gpaw, spin_polarisation: true, initial_spins: {4: 1}}", setup=stand_in_gpaw),
        Case("engine: {kind: gpaw, launcher: mpirun -n 4}", setup=stand_in_gpaw),
        Case("engine: gpaw", setup=stand_in_gpaw),
        Case("engine: {kind: cp2k, input: {MOTION: {}}}"),
        Case("engine: {kind: cp2k, command: cp2k.psmp}", setup=without_programs),
        Case("engine: {kind: cp2k, method: DFT, command: cp2k}", setup=cp2k_data()),
        Case("engine: {kind: cp2k, method: DFT, command: cp2k}", setup=cp2k_data("DZVP-MOLOPT-SR-GTH")),
        Case("engine: {kind: dftbplus, hsd: {Geometry: {}}}"),
        Case("engine: {kind: dftbplus, multiplicity: 3}"),
        Case("engine: {kind: dftbplus, initial_spins: {1: 1}}"),
        Case("engine: {kind: dftbplus, interface: library, hsd: {Hamiltonian: {Filling: {}}}}"),
        Case("engine: dftbplus", structure=BH, setup=without_programs),
        Case("engine: dftbplus", setup=no_slater_koster),
        Case("engine: {kind: dftbplus, slater_koster: nowhere}", setup=without_programs),
        Case(f"engine: {{kind: dftbplus, {SKF}}}", setup=slater_koster("H-H.skf", "O-O.skf")),
        Case(f"engine: {{kind: dftbplus, {SKF}, command: dftb+}}", setup=slater_koster(*PAIRS)),
        Case(
            f"engine: {{kind: dftbplus, method: DFTB2, {SKF}, spin_polarisation: true}}",
            structure="2\n\nBr 0 0 0\nBr 0 0 2.3\n",
            setup=slater_koster("Br-Br.skf"),
        ),
        Case(
            f"engine: {{kind: dftbplus, {SKF}, spin_polarisation: true, initial_spins: {{4: 1}}}}",
            setup=slater_koster(*PAIRS),
        ),
        Case(f"engine: {{kind: dftbplus, {SKF}, interface: library, library: lib.so}}", setup=slater_koster(*PAIRS)),
        Case(f"engine: {{kind: dftbplus, {SKF}, interface: library, command: dftb+}}", setup=no_shared_library),
    ),
    "Models and training": (
        Case("model: {kind: ani, hidden: {Qq: [8]}}"),
        Case("model: {kind: ani, hidden: {C: [0]}}"),
        Case("model: {kind: ani, angular: {cutoff: 6}}"),
        Case("model: {kind: ani, angular: {sections: 0}}"),
        Case("model: {kind: script}"),
        Case("model: {kind: script, files: [a.pt], options: {a: 1}}"),
        Case("model: {kind: script, module: no-colon}"),
        Case("training: {keep_optimizer: true, warm_start: false}"),
        Case("elements: [C, Qq]", read="train"),
        Case("elements: [C, C]", read="train"),
        Case("elements: []", read="train"),
        Case("dtype: float16", read="train"),
        Case("smapler: {}", read="train"),
    ),
    "Executors": (
        Case("executor: {workers: 0}"),
        Case("executor: {lable: {workers: 2}}"),
        Case("executor: {label: {worker: 2}}"),
        Case("executor: {train: parsel}"),
        Case("executor: {kind: parsl, walltime: 90 minutes}"),
        Case("executor: {kind: parsl, provider: slurm, scheduler_options: '--mem=4G'}"),
        Case("executor: {kind: parsl, min_blocks: 3, max_blocks: 2}"),
        Case("executor: {kind: parsl, partition: cpu}"),
    ),
    "Samplers": (
        Case("sampler: {walkers: []}"),
        Case("sampler: {walkers: 0}"),
        Case("sampler: {walkers: [{walkers: 2}]}"),
        Case("sampler: {walkers: [{}, {temperature: -3}]}"),
        Case("sampler: {uncertainty_bias: {form: linear, width: 0.1}}"),
        Case("sampler: {kind: steered, velocity: 0}"),
        Case("sampler: {kind: steered, velocity: 1 ps}"),
        Case("sampler: {kind: steered, velocities: [0.001, -0.001]}"),
        Case("sampler: {kind: steered, mode: force}"),
        Case("sampler: {kind: steered, force: 1}"),
        Case("sampler: {kind: steered, mode: force, force: 1, reverse: true}"),
        Case("sampler: {kind: steered, along: {atoms: [1], direction: [0, 0, 0]}}"),
        Case("sampler: {kind: steered, along: {atoms: [1], direction: [0, 0, 1], away_from: [1]}}"),
        Case("sampler: {kind: steered, along: {atoms: [1], direction: [0, 0, 1]}}"),
        Case("sampler: {kind: steered, along: {atoms: [1], direction: [0, 0, 1]}, hold: [1]}"),
        Case("sampler: {kind: steered, hold: [4]}"),
        Case("sampler: {kind: steered, hold: [1, 2, 3]}"),
        Case("sampler: {kind: md, final_temperature: 300, temperature: 300}"),
        Case("sampler: {kind: md, pressure: 0}"),
        Case("sampler: metadynamics"),
        Case("sampler: {kind: metadynamics, biased: []}"),
        Case("sampler: {kind: metadynamics, biased: [{hill_width: 0.1}, {hill_width: 0.1}]}"),
        Case("sampler: {kind: metadynamics, biased: [{hill_width: 0.1, range: [2, 1]}]}"),
        Case("sampler: {kind: metadynamics, biased: [{hill_width: 0.1}]}"),
        Case("sampler: {kind: metadynamics, biased: [{hill_width: 0.1, range: [2, 3]}]}"),
        Case("sampler: {kind: metadynamics, biased: [{hill_width: 0.1, range: [0.5, 3]}], basins: [[1, 2], [3, 4]]}"),
        Case(
            "sampler: {kind: metadynamics, biased: [{hill_width: 0.1, range: [0.5, 3]}], "
            "walkers: [{temperature: 300}, {temperature: 400}]}"
        ),
        Case(
            colvar("name a", "width 0.1", "distance { group1 { atomNumbers 1 } group2 { atomNumbers 2 } }")
            + "\nsampler: {kind: metadynamics, biased: [{hill_width: 0.1, range: [0.5, 3]}]}",
            setup=colvars_says(value=1.0),
        ),
        Case("sampler: umbrella"),
        Case("sampler: {kind: umbrella, first: 1, last: 1}"),
        Case("sampler: {kind: umbrella, first: 1, last: 2, windows: 5, spacing: 0.1}"),
        Case("sampler: {kind: umbrella, first: 1, last: 2, spacing: 3}"),
        Case("sampler: {kind: umbrella, first: 1, last: 2, windows: 2, walkers: 3}"),
        Case("sampler: {kind: umbrella, first: 1, last: 2, walkers: [{}, {temperature: 400}]}"),
        Case("sampler: {kind: umbrella, first: 1, last: 2, steps: 10, frame_interval: 10}"),
        Case("sampler: {kind: umbrella, first: 1, last: 2}", setup=missing("pymbar")),
        Case("sampler: neb"),
        Case("sampler: {kind: neb, product: nowhere.xyz}"),
        Case("sampler: {kind: neb, product: other.xyz}", setup=other_structure),
    ),
    "Uncertainty and selection": (
        Case("uncertainty: {kind: fixed, threshold: 0.2, limit: 0.1}"),
        Case("uncertainty: {kind: fixed, threshold: 0.2 K}"),
        Case("selection: {kind: event, cv_spacing: 0}"),
        Case("selection: {kind: event, cv_spacing: [0.1, 0.2]}"),
    ),
    "What goes together": (
        Case("labels: {budget: 100}\ninitial: {frames: 150}"),
        Case("reference: nowhere"),
        Case("check: {path_frames: 16, break_frames: 14}"),
    ),
    "Labels without a run": (
        Case("engine: tblite\n", whole=True, read="label"),
        Case("structure: nowhere.xyz\nengine: tblite\n", whole=True, read="label"),
        Case("structure: water.xyz\nengine: {multiplicity: 2}\n", whole=True, read="label"),
    ),
}


def message(case: Case) -> str:
    """What the user reads, in a folder of its own; machine and folder taken out."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        stack.enter_context(contextlib.chdir(folder))
        if case.structure is not None:
            Path("water.xyz").write_text(case.structure)
        Path("case.yaml").write_text(case.yaml())
        stack.enter_context(mock.patch.dict(os.environ, dict(os.environ), clear=True))
        if case.setup is not None:
            case.setup(stack)
        python = sys.executable
        try:
            read(case)
        except ConfigError as error:
            return str(error).replace(str(folder), "FOLDER").replace(python, "PYTHON")
    raise AssertionError(f"this is not refused:\n{case.yaml()}")


def read(case: Case) -> None:
    """What the commands do with the YAML."""
    if case.read == "train":
        load_training("case.yaml")
    elif case.read == "label":
        load_labels("case.yaml").read_structure()
    else:
        load("case.yaml", dict(case.overrides))


def entries() -> Iterator[str]:
    """The list, piece by piece."""
    yield HEAD
    for title, cases in CASES.items():
        yield f"\n{title}\n{'=' * len(title)}\n"
        for case in cases:
            yield f"\n{case.shown()}\n{message(case)}\n"


if __name__ == "__main__":
    text = "".join(entries())
    GOLDEN.write_text(text, encoding="utf-8")
    print(f"{sum(map(len, CASES.values()))} messages in {os.path.relpath(GOLDEN)}")
