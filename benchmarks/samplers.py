"""Labels that hexane's rupture takes to 1 kcal/mol, by the way in which frames are found.

    python benchmarks/samplers.py [--seeds 1 2 3] [--methods steered udd metadynamics hot-md] [--folder runs/samplers]

Steered MD alone, with uncertainty-driven dynamics, metadynamics on the same distance, and random frames of hot
molecular dynamics of the engine; the rest of hexane.yaml (model, training, selection, check) is the same. A committee
counts as within 1 kcal/mol where both hold:

- its energies along the *engine's own* pulls (44 frames of each of two, 16 of them within the break, relative to
  their first frame) err by no more: frames that no run has seen;
- the energy of its quasi-static rupture errs by no more.

A run goes on, round by round, until both hold. Runs are resumed, and the reference is made once; in the same folder
`benchmarks/hexane.py` takes the runs of steered MD further. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hexane import configure as steered
from hexane import rareal

from rareal.barrier import path_frames
from rareal.check import mean_surface
from rareal.config import load
from rareal.export.modelfile import Committee
from rareal.files import read_csv

from rareal.reference import Reference, load as load_reference  # isort: skip
from rareal.rupture import compare, rupture
from rareal.units import KCAL_MOL

HOT = {"temperature": 1500.0, "frames": 500, "interval": 20}
SIZES = (200, 400)
ROUNDS = 9
LIMIT = 1.0
"""kcal/mol."""
METHODS: dict[str, dict[str, Any]] = {
    "steered": {},
    # at the 10 K of the pull its rule would hardly push
    "udd": {"sampler": {"uncertainty_bias": {"temperature": "300 K"}}},
    # hills high enough to break a bond of 5 eV in the steps of two pulls
    "metadynamics": {
        "sampler": {
            "kind": "metadynamics",
            "temperature": "300 K",
            "relaxation_steps": 1000,
            "steps": 12000,
            "walkers": 2,
            "frame_interval": 5,
            "biased": {"hill_width": 0.15, "range": [5.0, 11.0]},
            "hill_height": "2 kcal/mol",
            "hill_interval": 20,
            "bias_factor": 200,
            "basins": [6.4, 10.0],
        }
    },
}


def configure(folder: Path, method: str) -> Path:
    """A copy of hexane.yaml with another sampler."""
    plain = steered(folder, None)
    if method == "steered":
        return plain
    tree = yaml.safe_load(plain.read_text())
    for section, values in METHODS.get(method, {}).items():
        adds = isinstance(values, dict) and "kind" not in values
        tree[section] = {**tree[section], **values} if adds else values
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


class Judge:
    """Errors of a committee against the engine's own pulls and rupture, kcal/mol."""

    def __init__(self, reference: Reference, config: Any) -> None:
        self.reference, self.config = reference, config
        self.paths = []
        for pull in reference.pulls[:2]:
            rows = path_frames(config.frame.numbers, pull, 44, 16, config.check.beyond_steps)
            self.paths.append((pull.positions[rows], pull.energy[rows]))

    def __call__(self, model: Path) -> tuple[float, float]:
        """Largest error along the engine's pulls, and error of the rupture energy."""
        surface, start = mean_surface(Committee.load(model).energies_forces), self.config.frame
        worst = 0.0
        for positions, energy in self.paths:
            found = np.array([surface(replace(start, positions=p))[0] for p in positions])
            worst = max(worst, float(np.abs(found - found[0] - energy + energy[0]).max()))
        assert self.reference.rupture is not None
        ours = rupture(surface, start, tuple(a - 1 for a in self.config.cv[0].atoms), self.config.check.rupture)
        return worst / KCAL_MOL, compare(ours, self.reference.rupture).energy_max / KCAL_MOL


Row = tuple[int, float, float]
"""Labels that the committee has learnt from, path error, rupture error in kcal/mol."""


def reached(row: Row) -> bool:
    return row[1] <= LIMIT and abs(row[2]) <= LIMIT


def active(folder: Path, method: str, seed: int, judge: Judge) -> Iterator[Row]:
    """What each round of a run has reached."""
    config = configure(folder, method)
    place = config.with_suffix("").with_name(f"{config.stem}-{seed}")
    for number in range(ROUNDS):
        rareal("run", config, "--seed", str(seed), "--dir", place, "--rounds", str(number + 1))
        if len(read_csv(place / "rounds.csv")) <= number:
            return  # the run has converged, or its budget is spent
        done = place / f"round-{number:03d}" / "train"
        yield json.loads((done / "stage.done").read_text())["summary"]["frames"], *judge(done / "model.pt")


def hot(folder: Path, seed: int, judge: Judge) -> Iterator[Row]:
    """The same of committees trained on random frames of hot dynamics of the engine."""
    from rareal.build import make
    from rareal.config import load_training
    from rareal.progress import Silent
    from rareal.sampling.initial import Config, MolecularDynamics
    from rareal.train import train

    config = load(configure(folder, "hot-md"))
    data = MolecularDynamics(Config.model_validate(HOT)).run(
        make(config, "engine", start=config.frame), config.frame, seed
    )
    order = np.random.default_rng(seed).permutation(len(data.frames))
    for size in SIZES:
        output = folder / f"hot-md-{seed}" / f"{size}.pt"
        output.parent.mkdir(exist_ok=True)
        if not output.exists():
            # as many steps as the rounds of a run have given its committee by then
            tree = yaml.safe_load((folder / "hot-md.yaml").read_text())
            tree["training"]["epochs"], tree["seed"] = size // 2, seed
            (folder / f"hot-md-{seed}.yaml").write_text(yaml.safe_dump(tree))
            chosen = [data.frames[k] for k in order[:size]]
            train(load_training(folder / f"hot-md-{seed}.yaml"), chosen, output, True, Silent())
        yield size, *judge(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="*", default=[*METHODS, "hot-md"], choices=[*METHODS, "hot-md"])
    parser.add_argument("--folder", type=Path, default=Path("runs/samplers"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    rareal("reference", configure(folder, "steered"), "--dir", folder / "reference")
    config = load(configure(folder, "steered"))
    judge = Judge(load_reference(folder / "reference"), config)
    print("\n| frames by | seed | labels to 1 kcal/mol | labels: path error, rupture error / kcal/mol |")
    print("|---|---|---|---|")
    for method in options.methods:
        for seed in options.seeds:
            rows: list[Row] = []
            for row in hot(folder, seed, judge) if method == "hot-md" else active(folder, method, seed, judge):
                rows.append(row)
                if reached(row):
                    break
            history = "; ".join(f"{labels}: {path:.2f}, {energy:+.2f}" for labels, path, energy in rows)
            needed = f"{rows[-1][0]}" if reached(rows[-1]) else f"more than {rows[-1][0]}"
            print(f"| {method} | {seed} | {needed} | {history} |", flush=True)


if __name__ == "__main__":
    main()
