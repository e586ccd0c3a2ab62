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
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch

from rareal.models import painn
from rareal.plugin import lmp_command, lmp_environment
from rareal.untrained import write_untrained

ROOT = Path(__file__).parent.parent
HEXANE = ROOT / "examples" / "hexane"
ELEMENTS = ("C", "H")
DEEPMD = "deepmd-kit[cpu,lmp]==3.2.0"
MEMBERS = (1, 4, 7)

PROCESSOR_TIME = False

Side = Callable[[], float]
"""Seconds per step, measured once."""

STEPS = """
units metal
boundary {boundary}
atom_style atomic
read_data {data}
{style}
neighbor {skin} bin
timestep 0.0001
{spread}
thermo_style custom step pe
thermo {steps}
velocity all create 10 4711
fix integrate all nve
run {warm}
run {steps}
"""

SPREAD = """
compute spread all pair mlensemble
variable std equal c_spread[2]
fix std all ave/time 1 {steps} {steps} v_std
"""


def model_file(folder: Path, model: str, members: int) -> Path:
    """An untrained committee with all settings at their defaults, single precision."""
    path = folder / f"{model}-{members}.pt"
    if not path.exists():
        write_untrained(path, model, ELEMENTS, members, "float32", 1)
    return path


def one_thread() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
             "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS")  # fmt: skip
    return dict.fromkeys(names, "1")


def clock() -> float:
    """Seconds; `main` sets which clock it is."""
    return time.process_time() if PROCESSOR_TIME else time.perf_counter()


def loop_times(
    command: Sequence[str], script: str, folder: Path, environment: dict[str, str], steps: int
) -> tuple[float, float]:
    """Seconds per step of the second run of a LAMMPS script: by the clock, and on a core."""
    name = "in.benchmark"
    (folder / name).write_text(script)
    done = subprocess.run(
        [*command, "-in", name, "-log", "none"], cwd=folder, env=environment, capture_output=True, text=True
    )
    times = re.findall(r"Loop time of (\S+)", done.stdout)
    if done.returncode or len(times) != 2:
        raise SystemExit(f"LAMMPS failed in {folder}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    share = float(re.findall(r"([\d.]+)% CPU use", done.stdout)[1]) / 100.0
    return float(times[1]) / steps, share * float(times[1]) / steps


def lammps_side(command: Sequence[str], script: str, folder: Path, environment: dict[str, str], steps: int) -> Side:
    return lambda: loop_times(command, script, folder, environment, steps)[PROCESSOR_TIME]


def rareal_script(folder: Path, model: str, members: int, steps: int, data: Path | None = None) -> str:
    """LAMMPS with rareal's pair style, deviations at every step; ``data`` is a periodic box instead of the molecule."""
    warm = max(5, steps // 10)
    return STEPS.format(
        boundary="p p p" if data else "f f f", data=data or HEXANE / "hexane.data", skin=1.0, steps=steps, warm=warm,
        spread=SPREAD.format(steps=warm),
        style=f"pair_style mlensemble\npair_coeff * * {model_file(folder, model, members)} {' '.join(ELEMENTS)}",
    )  # fmt: skip


def rareal_side(folder: Path, model: str, members: int, steps: int) -> Side:
    script = rareal_script(folder, model, members, steps)
    return lammps_side(lmp_command(), script, folder, lmp_environment() | one_thread(), steps)


# ---- DeePMD-kit ------------------------------------------------------------------------------------------------------


def deepmd_environment(folder: Path) -> Path:
    """The ``bin`` folder of a virtual environment with DeePMD-kit; installed if need be."""
    place = folder / "deepmd"
    binaries = place / "bin"
    if not (binaries / "dp").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(binaries / "pip"), "install", "-q", DEEPMD], check=True)
    return binaries


def deepmd_model(folder: Path, binaries: Path) -> Path:
    """A compressed se_e2_a model of default size, trained for five steps on made-up labels."""
    place = folder / "deepmd-model"
    compressed = place / "compressed.pb"
    if compressed.exists():
        return compressed
    data = place / "data" / "set.000"
    data.mkdir(parents=True, exist_ok=True)
    atoms, rng, frames = ase.io.read(HEXANE / "hexane.xyz"), np.random.default_rng(0), 8
    (data.parent / "type.raw").write_text("\n".join(str(ELEMENTS.index(symbol)) for symbol in atoms.symbols))
    (data.parent / "type_map.raw").write_text("\n".join(ELEMENTS))
    (data.parent / "nopbc").write_text("")
    shaken = atoms.positions + rng.normal(0.0, 0.05, (frames, len(atoms), 3))
    np.save(data / "coord.npy", shaken.reshape(frames, -1))
    np.save(data / "box.npy", np.tile(np.diag([60.0, 40.0, 40.0]).ravel(), (frames, 1)))
    np.save(data / "energy.npy", rng.normal(size=frames))
    np.save(data / "force.npy", rng.normal(size=(frames, 3 * len(atoms))))
    descriptor = {
        "type": "se_e2_a", "rcut": 6.0, "rcut_smth": 0.5, "sel": "auto", "neuron": [25, 50, 100], "axis_neuron": 16,
        "seed": 1,
    }  # fmt: skip
    training = {
        "training_data": {"systems": ["data"], "batch_size": 1}, "numb_steps": 5, "disp_freq": 5, "save_freq": 5,
        "seed": 1,
    }  # fmt: skip
    settings = {
        "model": {
            "type_map": list(ELEMENTS),
            "descriptor": descriptor,
            "fitting_net": {"neuron": [240, 240, 240], "resnet_dt": True, "seed": 1},
        },
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-8, "decay_steps": 5},
        "loss": {},
        "training": training,
    }
    (place / "input.json").write_text(json.dumps(settings))
    dp = [str(binaries / "dp"), "--tf"]
    for words in (["train", "input.json"], ["freeze", "-o", "model.pb"], ["compress", "-i", "model.pb", "-o",
                  compressed.name]):  # fmt: skip
        done = subprocess.run([*dp, *words], cwd=place, env=os.environ | one_thread(), capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"dp {words[0]} failed:\n{done.stderr[-2000:]}")
    return compressed


def deepmd_side(folder: Path, binaries: Path, models: int, steps: int) -> Side:
    model = deepmd_model(folder, binaries)
    options = " out_freq 1 out_file model_devi.out" if models > 1 else ""
    script = STEPS.format(
        boundary="f f f", data=HEXANE / "hexane.data", skin=1.0, steps=steps, warm=max(5, steps // 10), spread="",
        style=f"pair_style deepmd {' '.join([str(model)] * models)}{options}\npair_coeff * * C H",
    )  # fmt: skip
    environment = os.environ | one_thread() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return lammps_side([str(binaries / "lmp")], script, folder, environment, steps)


# ---- TorchANI --------------------------------------------------------------------------------------------------------


class TorchANI(torch.nn.Module):
    """ANI-2x's descriptor and ``members`` networks for carbon and hydrogen, TorchANI's own modules."""

    def __init__(self, members: int) -> None:
        super().__init__()
        from torchani.aev import AEVComputer, ANIAngular, ANIRadial
        from torchani.nn import ANINetworks, AtomicNetwork, Ensemble

        from rareal.models.ani_network import ANI2X_HIDDEN

        self.aev = AEVComputer(radial=ANIRadial.like_2x(), angular=ANIAngular.like_2x(), num_species=len(ELEMENTS))
        self.networks = Ensemble([
            ANINetworks({
                element: AtomicNetwork((self.aev.out_dim, *ANI2X_HIDDEN[element], 1), activation="gelu", bias=True)
                for element in ELEMENTS
            })
            for _ in range(members)
        ])  # fmt: skip

    def forward(self, species: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Energies of the members [M, 1]."""
        energies: torch.Tensor = self.networks(species, self.aev(species, positions), ensemble_values=True)
        return energies


def torchani_side(members: int, each: bool, steps: int) -> Side:
    """Energies and the gradient of their mean; with ``each`` the gradient of every member."""
    atoms = ase.io.read(HEXANE / "hexane.xyz")
    species = torch.tensor([[ELEMENTS.index(symbol) for symbol in atoms.symbols]])
    start = torch.from_numpy(atoms.positions).float()[None]
    script = torch.jit.script(TorchANI(members).eval().requires_grad_(False))

    def step() -> None:
        positions = (start + 0.01 * torch.randn_like(start)).requires_grad_(True)
        energies = script(species, positions)
        if not each:
            torch.autograd.grad(energies.mean(), positions)[0].numpy()
            energies.std().item()
            return
        gradients = [torch.autograd.grad(energies[m].sum(), positions, retain_graph=True)[0] for m in range(members)]
        torch.stack(gradients).var(0, unbiased=False).sum(-1).sqrt().max().item()

    return python_side(step, steps)


def python_side(step: Callable[[], None], steps: int) -> Side:
    for _ in range(20):
        step()

    def measure() -> float:
        start = clock()
        for _ in range(steps):
            step()
        return (clock() - start) / steps

    return measure


# ---- SchNetPack ------------------------------------------------------------------------------------------------------


def schnetpack_side(steps: int) -> Side:
    """SchNetPack's ASE calculator with the weights of the single member that `rareal_side` runs."""
    sys.path.insert(0, str(ROOT / "tests" / "physics"))
    import schnetpack_models
    from schnetpack import interfaces, transform

    from rareal.seeds import integer

    config = painn.Config()
    model = painn.build(config, ELEMENTS, [integer(1, "member", 0)])
    network = schnetpack_models.theirs(config, model, 0, [6, 1]).eval()
    atoms = ase.io.read(HEXANE / "hexane.xyz")
    neighbours = transform.SkinNeighborList(
        neighbor_list=transform.MatScipyNeighborList(cutoff=config.cutoff), cutoff_skin=1.0
    )

    class Calculator(interfaces.SpkCalculator):
        """Has its model already: torch refuses to unpickle whole modules, which is how SchNetPack stores them."""

        def _load_model(self, model_file: str) -> torch.nn.Module:
            return network

    calculator = Calculator(
        "", neighbor_list=neighbours, energy_key="energy", force_key="forces", energy_unit="eV", position_unit="Ang"
    )
    start, rng = atoms.positions.copy(), np.random.default_rng(0)

    def step() -> None:
        atoms.positions = start + rng.normal(0.0, 0.01, start.shape)
        calculator.calculate(atoms, ["energy", "forces"])

    return python_side(step, steps)


# ---- the arithmetic limit -----------------------------------------------------------------------------------------


def network_flops(members: int) -> float:
    """Additions and multiplications of the networks of hexane, forwards and backwards."""
    from rareal.models.ani_network import ANI2X_HIDDEN, AEVParameters

    counts = {"C": 6, "H": 14}
    total = 0
    for element, atoms in counts.items():
        sizes = (AEVParameters.ani2x(len(ELEMENTS)).dimension, *ANI2X_HIDDEN[element], 1)
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
    global PROCESSOR_TIME
    PROCESSOR_TIME = options.processor_time
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
