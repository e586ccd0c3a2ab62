"""How much W_max moves when the engine itself is changed by a fifth of a kcal/mol.

    python examples/hexane/sensitivity.py [--depth 0.2] [--seeds 3] [--folder runs/sensitivity]

Adds a smooth dip -depth·exp(-((r - 2.25 Å)/0.15 Å)²) on each terminal C-C bond to GFN2-xTB and repeats the engine's
own pull from the same velocities. The surface changes by at most twice ``depth``, and only where a terminal bond is
about to go; the paper's activation energy changes by far more. That is why `rareal` lets the error along the path and
the quasi-static rupture decide on convergence. Takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# the pulls run in processes of their own, which must find this module by name to unpickle the engine
HERE = str(Path(__file__).resolve().parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))

CENTRE, WIDTH = 2.25, 0.15
TERMINAL = ((0, 1), (4, 5))


@dataclass(frozen=True)
class DippedEngine:
    """An engine with a Gaussian dip of ``depth`` eV on the terminal C-C bonds."""

    engine: object
    depth: float

    @property
    def hash(self) -> str:
        return f"{self.engine.hash}-dip-{self.depth:.6f}"

    def calculate(self, frame):
        """Energy [eV] and forces [eV/Å] with the dip."""
        energy, forces = self.engine.calculate(frame)[:2]
        forces = forces.copy()
        for first, second in TERMINAL:
            bond = frame.positions[second] - frame.positions[first]
            length = np.linalg.norm(bond)
            dip = -self.depth * np.exp(-(((length - CENTRE) / WIDTH) ** 2))
            slope = dip * -2.0 * (length - CENTRE) / WIDTH**2
            energy += dip
            forces[first] += slope * bond / length
            forces[second] -= slope * bond / length
        return energy, forces


def main() -> None:
    from sensitivity import DippedEngine as Dipped

    from rareal.build import build_variables, build_walkers, make
    from rareal.config import load
    from rareal.progress import display
    from rareal.sampling.reference import EngineSampler
    from rareal.units import KCAL_MOL

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=float, default=0.2, help="depth of the dip, kcal/mol")
    parser.add_argument("--seeds", type=int, default=3, help="velocity seeds")
    parser.add_argument("--folder", type=Path, default=Path("runs/sensitivity"))
    options = parser.parse_args()

    config = load(Path(__file__).parent / "hexane.yaml")
    engine = make(config, "engine")
    steered = make(config, "sampler", start=config.frame, variables=build_variables(config))
    walkers = build_walkers(config, options.seeds)
    works = {}
    with display() as shown:
        for name, used in (("plain", engine), ("dipped", Dipped(engine, options.depth * KCAL_MOL))):
            with shown.stage(f"{name} engine") as progress:
                pulls = EngineSampler(steered, used).sample(options.folder / name, walkers, progress)
            works[name] = np.array([pull.work.max() for pull in pulls])
    print(f"\nA dip of {options.depth} kcal/mol on each terminal C-C bond at {CENTRE} Å:\n")
    print("| velocity seed | W_max, plain / eV | W_max, dipped / eV | change / kcal/mol |\n|---|---|---|---|")
    for walker, plain, dipped in zip(walkers, works["plain"], works["dipped"], strict=True):
        print(f"| {walker.seed} | {plain:.3f} | {dipped:.3f} | {(dipped - plain) / KCAL_MOL:+.1f} |")
    print(f"\nMean change: {(works['dipped'] - works['plain']).mean() / KCAL_MOL:+.1f} kcal/mol")


if __name__ == "__main__":
    main()
