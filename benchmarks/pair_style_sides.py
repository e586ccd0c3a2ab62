"""What benchmarks/pair_style.py times against one another: LAMMPS with rareal's pair style, and its peers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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

PROCESSOR_TIME = False
"""Whether `clock` is that of the processor; `main` of pair_style.py sets it."""

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
    """Seconds of the clock that `PROCESSOR_TIME` names."""
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
