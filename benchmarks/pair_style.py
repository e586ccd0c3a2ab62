"""The pair style's speed beside its peers', on hexane, one thread, energy and force deviation at every step.

    python benchmarks/pair_style.py [--skip-deepmd] [--skip-large] [--soak] [--folder runs/benchmark-pair-style]

Installs what it compares with: DeePMD-kit into a virtual environment in the folder (it brings a LAMMPS and a TensorFlow
of its own); TorchANI is a dependency of rareal, SchNetPack comes with ``pip install ".[benchmark]"``. All sides take
turns, `--turns` times; a ratio is the median over turns and is given with its range. Weights are untrained: a step
takes the same time.

What a step of each side is:

rareal, m members      LAMMPS, pair_style mlensemble: mean forces, energy and largest force deviation (compute pair).
DeePMD-kit, n models   LAMMPS, pair_style deepmd, compressed se_e2_a of default size, out_freq 1: forces of model 1,
                       deviations of energy and forces over all n (one model: no deviation). n copies of one model file.
TorchANI, 4 members    Python, TorchScript: ANI-2x's descriptor and four networks; energy of each and gradient of the
                       mean. "with force std": gradients of each member, which is what rareal reports.
SchNetPack, PaiNN      Python, SchNetPack's ASE calculator with its skinned neighbour list; one member, no deviation,
                       the same weights as rareal's single member.

Where others use the machine, too, `--processor-time` counts the time that the process was on a core; else it is the
clock's. Large systems show both. Prints Markdown and writes table.json into the folder.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pair_style_sides
import torch
from pair_style_sides import (
    ELEMENTS,
    HEXANE,
    Side,
    clock,
    deepmd_environment,
    deepmd_side,
    loop_times,
    model_file,
    one_thread,
    rareal_script,
    rareal_side,
    schnetpack_side,
    torchani_side,
)

from rareal.plugin import lmp_command, lmp_environment

MEMBERS = (1, 4, 7)


# ---- the arithmetic limit -----------------------------------------------------------------------------------------


def network_flops(members: int) -> float:
    """Additions and multiplications of the networks of hexane, forwards and backwards."""
    from rareal.models import ani
    from rareal.models.ani_network import ANI2X_HIDDEN, AEVParameters

    counts = {"C": 6, "H": 14}
    total = 0
    for element, atoms in counts.items():
        sizes = (AEVParameters.of(ani.Config(), len(ELEMENTS)).dimension, *ANI2X_HIDDEN[element], 1)
        total += atoms * sum(a * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    return 2.0 * 2.0 * members * total


def gemm_rate() -> float:
    """FLOP/s of PyTorch's single-precision product of large matrices on one thread, the best of several."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(20):
        start = clock()
        torch.mm(a, b)
        best = max(best, 2.0 * 1024**3 / (clock() - start))
    return best


def parts(folder: Path) -> dict[str, float]:
    """Seconds that the operators of a step take in Python on hexane with four members, the best of many."""
    from rareal.export.modelfile import Committee
    from rareal.neighbours import all_edges
    from rareal.records import Frame

    committee = Committee.load(model_file(folder, "ani", 4))
    script: Any = committee.model
    atoms = ase.io.read(HEXANE / "hexane.xyz")
    species = torch.tensor([ELEMENTS.index(symbol) for symbol in atoms.symbols])
    index, vectors = all_edges(Frame(atoms.numbers.astype(np.int64), atoms.positions), committee.metadata.cutoff)
    shape = (species, index, vectors.float(), len(atoms))
    numbers = (script.n_elements, script.radial, script.shifts_r, script.angular, script.shifts_a, script.sections)
    script(*shape)
    cotangents = torch.randn(4, len(atoms), torch.ops.rareal.aev(*shape, *numbers).shape[1])

    def best(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    values = best(lambda: torch.ops.rareal.aev(*shape, *numbers))
    both = best(lambda: torch.ops.rareal.aev_vjp(cotangents, *shape, *numbers))
    whole = best(lambda: torch.ops.rareal.ani(*shape, *numbers, script.packed, script.counts))
    scripted = best(lambda: script(*shape))
    return {
        "descriptors": values,
        "contraction with the members' gradients": both - values,
        "networks": whole - both,
        "TorchScript": scripted - whole,
    }


# ---- large systems ---------------------------------------------------------------------------------------------------


def hexane_box(folder: Path, molecules: int) -> Path:
    """A periodic box of hexanes on a grid, turned at random, at the density of the liquid, as a data file."""
    path = folder / f"box-{molecules}.data"
    if path.exists():
        return path
    molecule, rng = ase.io.read(HEXANE / "hexane.xyz"), np.random.default_rng(molecules)
    volume = molecules * 86.18 / (0.655 * 0.602214)  # Å³
    # the molecule is long and thin: cells of 1:1:2, all along x
    cells = (molecules / 4) ** (1 / 3)
    shape = np.array([max(1, round(cells)), 0, 0])
    shape[1] = round((molecules / shape[0]) ** 0.5)
    shape[2] = -(-molecules // (shape[0] * shape[1]))
    stretch = np.array([10.5, 5.0, 4.6]) * shape
    box = stretch * (volume / np.prod(stretch) * np.prod(shape) / molecules) ** (1 / 3)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1).reshape(-1, 3)[:molecules]
    centred = molecule.positions - molecule.positions.mean(0)
    rows = []
    for place in places:
        angle = rng.uniform(0.0, 2.0 * np.pi)
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        rows += list(zip(molecule.symbols, centred @ turn.T + (place + 0.5) * box / shape, strict=True))
    head = f"hexane\n\n{len(rows)} atoms\n2 atom types\n\n"
    head += "".join(f"0 {length:.6f} {axis}lo {axis}hi\n" for length, axis in zip(box, "xyz", strict=True))
    lines = [f"{k} {ELEMENTS.index(s) + 1} {x:.6f} {y:.6f} {z:.6f}" for k, (s, (x, y, z)) in enumerate(rows, 1)]
    path.write_text(head + "\nMasses\n\n1 12.011\n2 1.008\n\nAtoms\n\n" + "\n".join(lines) + "\n")
    return path


def resident(command: Sequence[str], script: str, folder: Path, environment: dict[str, str]) -> list[int]:
    """Resident memory of a LAMMPS run in KiB, read several times a second until it ends."""
    (folder / "in.memory").write_text(script)
    process = subprocess.Popen(
        [*command, "-in", "in.memory", "-log", "none"], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    found = []
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        if match := re.search(r"VmRSS:\s+(\d+)", status):
            found.append(int(match[1]))
        time.sleep(0.2)
    if process.wait():
        raise SystemExit(f"LAMMPS failed in {folder}: see in.memory there")
    return found


def large_systems(folder: Path, sizes: Sequence[int], turns: int, table: dict[str, Any]) -> None:
    """Time per atom and step on 1 and 2 ranks, and memory per atom, of a 4-member committee."""
    steps, environment = 5, lmp_environment() | one_thread()
    scripts = {size: rareal_script(folder, "ani", 4, steps, hexane_box(folder, size // 20)) for size in sizes}
    times: dict[tuple[int, int], list[tuple[float, float]]] = {(size, r): [] for size in sizes for r in (1, 2)}
    for _ in range(turns):
        for (size, ranks), found in times.items():
            found.append(loop_times(lmp_command(ranks), scripts[size], folder, environment, steps))
    memory = {size: max(resident(lmp_command(), scripts[size], folder, environment)) for size in (sizes[0], sizes[-1])}
    per_atom = (memory[sizes[-1]] - memory[sizes[0]]) * 1.024 / (sizes[-1] - sizes[0])
    print("\n| atoms, 4 members | µs per atom and step, 1 rank | on a core | 2 ranks | speed-up (range) |")
    print("|---|---|---|---|---|")
    for size in sizes:
        (one, core), (two, _) = (zip(*times[size, ranks], strict=True) for ranks in (1, 2))
        ratios = [a / b for a, b in zip(one, two, strict=True)]
        cells = [f"{statistics.median(t) / size * 1e6:.1f}" for t in (one, core, two)]
        speed_up = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {size} | {' | '.join(cells)} | {speed_up} |")
    print(f"\nMemory: {per_atom:.1f} kB per atom, from {sizes[0]} to {sizes[-1]} atoms on 1 rank.")
    table["large"] = {f"{size} atoms, {ranks} ranks": found for (size, ranks), found in times.items()}
    table["kilobytes_per_atom"] = per_atom


def soak(folder: Path, steps: int, table: dict[str, Any]) -> None:
    """Resident memory over a long run: that of its last tenth against that of its second."""
    # an untrained committee does not hold a molecule together
    held = "fix keep all spring/self 10.0\nfix integrate"
    script = rareal_script(folder, "ani", 4, steps).replace("fix integrate", held)
    found = resident(lmp_command(), script, folder, lmp_environment() | one_thread())
    tenth = len(found) // 10
    early, late = max(found[tenth : 2 * tenth]), max(found[-tenth:])
    print(f"\nMemory over {steps} steps of hexane: {early} KiB in the second tenth, {late} KiB in the last.")
    table["soak"] = {"steps": steps, "KiB": [early, late]}


# ---- the table -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-pair-style"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--skip-deepmd", action="store_true")
    parser.add_argument("--skip-schnetpack", action="store_true")
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--soak", type=int, nargs="?", const=100_000, default=0, help="steps of the memory test")
    options = parser.parse_args()
    pair_style_sides.PROCESSOR_TIME = options.processor_time
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    steps = options.steps

    sides: dict[str, Side] = {f"rareal, {m} members": rareal_side(folder, "ani", m, steps) for m in MEMBERS}
    sides["TorchANI, 4 members"] = torchani_side(4, False, steps // 4)
    sides["TorchANI, 4 members, with force std"] = torchani_side(4, True, steps // 4)
    if not options.skip_deepmd:
        binaries = deepmd_environment(folder)
        sides["DeePMD-kit, 1 models"] = deepmd_side(folder, binaries, 1, steps // 4)
        sides["DeePMD-kit, 4 models"] = deepmd_side(folder, binaries, 4, steps // 10)
    sides["rareal, PaiNN, 1 member"] = rareal_side(folder, "painn", 1, steps // 4)
    sides["rareal, PaiNN, 4 members"] = rareal_side(folder, "painn", 4, steps // 10)
    if not options.skip_schnetpack:
        sides["SchNetPack, PaiNN"] = schnetpack_side(steps // 10)

    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.turns):
        for name, side in sides.items():
            times[name].append(side())
    table: dict[str, Any] = {"seconds_per_step": times, "turns": options.turns}

    print("| hexane, one thread | ms per step | against | ratio (range) |\n|---|---|---|---|")
    for name, own in times.items():
        base = "rareal, PaiNN, 1 member" if "PaiNN" in name else "rareal, 4 members"
        if name == "rareal, 4 members":
            base = "rareal, 1 members"
        ratios = [a / b for a, b in zip(own, times[base], strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if name != base else ""
        print(f"| {name} | {statistics.median(own) * 1e3:.3f} | {base if name != base else ''} | {shown} |")

    rate, flops = gemm_rate(), network_flops(4)
    fraction = flops / rate / statistics.median(times["rareal, 4 members"])
    print(
        f"\nArithmetic limit: {flops / 1e6:.1f} MFLOP of networks (4 members) at {rate / 1e9:.0f} GFLOP/s "
        f"(1024³ single-precision product, best of 20) are {flops / rate * 1e3:.3f} ms; {fraction:.0%} reached."
    )
    table["limit"] = {"flop": flops, "flop_per_second": rate, "fraction": fraction}
    found = parts(folder)
    print("Best times of the parts of a step in Python, 4 members, in µs: " + ", ".join(
        f"{name} {seconds * 1e6:.0f}" for name, seconds in found.items()
    ) + f"; {flops / found['networks'] / 1e9:.0f} GFLOP/s in the networks with their activations.")  # fmt: skip
    table["parts"] = found
    if not options.skip_large:
        large_systems(folder, options.sizes, max(1, options.turns // 2), table)
    if options.soak:
        soak(folder, options.soak, table)
    (folder / "table.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
