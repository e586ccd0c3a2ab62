"""Training throughput: a committee at once, against the same members one after another with TorchANI and SchNetPack.

    pip install ".[benchmark]" && python benchmarks/training.py

Prints frames × members per second, energies and forces in the loss, hexane, all cores. Data, batches, networks, loss
and optimizer are the same on both sides of a row. What can be prepared once is prepared before the clock starts:
descriptors and Jacobians here, neighbour lists and collated batches for SchNetPack (TorchANI has none). Both
sides of a row take turns; medians are shown. The last rows are rareal as it trains by default.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from torch import Tensor

from rareal.models import ani, painn
from rareal.records import Frame
from rareal.training.muon import Muon

HEXANE = Path(__file__).parent.parent / "examples" / "hexane" / "hexane.xyz"
ELEMENTS = ("C", "H")
LEARNING_RATE = 1e-4

Step = Callable[[int], None]
"""One optimizer step on the mini-batch of this number."""


@dataclass(frozen=True)
class Data:
    """Shaken hexane with made-up labels: the time of a step does not depend on what the labels are."""

    frames: list[Frame]
    energies: Tensor
    forces: Tensor

    @classmethod
    def make(cls, count: int) -> Data:
        atoms = ase.io.read(HEXANE)
        rng = np.random.default_rng(0)
        frames = [
            Frame(atoms.numbers, atoms.positions + rng.normal(0.0, 0.05, atoms.positions.shape)) for _ in range(count)
        ]
        generator = torch.Generator().manual_seed(0)
        shape = (count, len(atoms), 3)
        return cls(frames, torch.randn(count, generator=generator), torch.randn(shape, generator=generator))

    def batches(self, size: int) -> list[Tensor]:
        return list(torch.arange(len(self.frames)).split(size))


def loss_of(energy: Tensor, forces: Tensor, target: Tensor, target_forces: Tensor) -> Tensor:
    """Equation 3 of the rare-events paper, summed over members."""
    atoms = forces.shape[-2]
    by_energy = (energy - target) ** 2 / atoms**0.5
    by_force = ((forces - target_forces) ** 2).sum((-1, -2)) / atoms
    return (by_energy + by_force).mean(-1).sum()


def adamw(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)


def rareal_step(model: Any, data: Data, size: int, optimizer: str) -> Step:
    parameters = list(model.parameters())
    stepper = Muon(parameters, lr=LEARNING_RATE) if optimizer == "muon" else adamw(parameters)
    features = model.standardise([model.prepare(data.frames)], None)[0]
    batches = data.batches(size)

    def step(number: int) -> None:
        index = batches[number % len(batches)]
        energy, forces = model(features.batch(index))
        stepper.zero_grad(set_to_none=True)
        torch.autograd.backward(loss_of(energy, forces, data.energies[index], data.forces[index]), inputs=parameters)
        stepper.step()

    return step


def torchani_step(data: Data, size: int) -> Step:
    """One member with TorchANI's own modules: ANI-2x's AEVs and networks for carbon and hydrogen."""
    from torchani.aev import AEVComputer, ANIAngular, ANIRadial
    from torchani.nn import ANINetworks, AtomicNetwork

    from rareal.models.ani_network import ANI2X_HIDDEN

    aev = AEVComputer(radial=ANIRadial.like_2x(), angular=ANIAngular.like_2x(), num_species=len(ELEMENTS))
    networks = ANINetworks(
        {e: AtomicNetwork((aev.out_dim, *ANI2X_HIDDEN[e], 1), activation="gelu", bias=True) for e in ELEMENTS}
    )
    stepper = adamw(networks.parameters())
    species = torch.tensor([{6: 0, 1: 1}[int(z)] for z in data.frames[0].numbers])
    positions = torch.from_numpy(np.stack([f.positions for f in data.frames])).float()
    batches = data.batches(size)

    def step(number: int) -> None:
        index = batches[number % len(batches)]
        coordinates = positions[index].requires_grad_(True)
        elements = species.repeat(len(index), 1)
        energy = networks(elements, aev(elements, coordinates))
        forces = -torch.autograd.grad(energy.sum(), coordinates, create_graph=True)[0]
        stepper.zero_grad(set_to_none=True)
        loss_of(energy, forces, data.energies[index], data.forces[index]).backward()
        stepper.step()

    return step


def schnetpack_step(data: Data, size: int, config: painn.Config) -> Step:
    """One member with SchNetPack's own PaiNN, neighbour lists and batches made beforehand."""
    from torch.utils.data import dataloader

    # the SchNetPack that installs beside this torch imports a type variable that torch has renamed
    if not hasattr(dataloader, "T_co"):
        dataloader.T_co = Any  # type: ignore[attr-defined]
    import schnetpack as spk
    from schnetpack import properties

    from rareal.neighbours import all_edges

    radial = spk.nn.BesselRBF(n_rbf=config.basis_functions, cutoff=config.cutoff)
    network = spk.model.NeuralNetworkPotential(
        representation=spk.representation.PaiNN(
            n_atom_basis=config.features,
            n_interactions=config.layers,
            radial_basis=radial,
            cutoff_fn=spk.nn.CosineCutoff(config.cutoff),
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[
            spk.atomistic.Atomwise(n_in=config.features, output_key="energy"),
            spk.atomistic.Forces(energy_key="energy", force_key="forces"),
        ],
    )
    stepper = adamw(network.parameters())
    atoms = len(data.frames[0].numbers)
    lists = [all_edges(frame, config.cutoff)[0] for frame in data.frames]
    numbers = torch.from_numpy(data.frames[0].numbers)
    prepared = []
    for index in data.batches(size):
        edges = torch.cat([lists[int(k)] + atoms * n for n, k in enumerate(index)], 1)
        positions = torch.from_numpy(np.concatenate([data.frames[int(k)].positions for k in index])).float()
        prepared.append(
            (
                index,
                {
                    properties.Z: numbers.repeat(len(index)),
                    properties.R: positions,
                    properties.idx_i: edges[0],
                    properties.idx_j: edges[1],
                    properties.offsets: torch.zeros(edges.shape[1], 3),
                    properties.idx_m: torch.arange(len(index)).repeat_interleave(atoms),
                    properties.n_atoms: torch.full((len(index),), atoms),
                },
            )
        )

    def step(number: int) -> None:
        index, inputs = prepared[number % len(prepared)]
        inputs[properties.R].requires_grad_(False)
        result = network(dict(inputs))
        forces = result["forces"].view(len(index), atoms, 3)
        stepper.zero_grad(set_to_none=True)
        loss_of(result["energy"], forces, data.energies[index], data.forces[index]).backward()
        stepper.step()

    return step


def throughput(steps: Sequence[Step], work: Sequence[int], seconds: float) -> list[list[float]]:
    """Frames × members per second of each step, taken in turns for so many seconds."""
    for step in steps:
        step(0)
        step(1)
    rates: list[list[float]] = [[] for _ in steps]
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end or number < 5:
        for step, amount, found in zip(steps, work, rates, strict=True):
            start = time.perf_counter()
            step(number)
            found.append(amount / (time.perf_counter() - start))
        number += 1
    return rates


def row(name: str, peer: str, members: int, size: int, ours: Step, theirs: Step, seconds: float) -> None:
    rates = throughput([ours, theirs], [members * size, size], seconds)
    mine, other = (statistics.median(r) for r in rates)
    ratio = statistics.median(a / b for a, b in zip(*rates, strict=True))
    print(f"| {name} | {members} | {size} | {mine:.0f} | {peer} | {other:.0f} | {ratio:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="time per row")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64], help="frames per mini-batch")
    parser.add_argument("--models", nargs="+", choices=("ani", "painn"), default=["ani", "painn"])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    data = Data.make(4 * max(options.batches))
    print("frames × members per second, energies and forces\n")
    print("| rareal | members | batch | rate | one after another | rate | ratio |")
    print("|---|---|---|---|---|---|---|")
    for optimizer in ("adamw", "muon"):
        for size in options.batches:
            for name in options.models:
                members = 7 if name == "ani" else 4
                module: Any = ani if name == "ani" else painn
                model = module.build(module.Config(), ELEMENTS, list(range(members)))
                ours = rareal_step(model, data, size, optimizer)
                if name == "ani":
                    theirs, peer = torchani_step(data, size), "TorchANI, AdamW"
                else:
                    theirs, peer = schnetpack_step(data, size, painn.Config()), "SchNetPack, AdamW"
                row(f"{name}, {optimizer}", peer, members, size, ours, theirs, options.seconds)


if __name__ == "__main__":
    main()
