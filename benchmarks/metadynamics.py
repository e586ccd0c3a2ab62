"""The tables of the examples of metadynamics: free-energy barriers of committee and engine, for several root seeds.

    python benchmarks/metadynamics.py malonaldehyde [--seeds 1 2 3] [--walkers 8] [--folder FOLDER]
    python benchmarks/metadynamics.py glycolaldehyde

Runs the same metadynamics with the engine itself first (once, with ``--walkers`` walkers), then one `rareal run` after
the other; a run that is finished is only read. Prints one Markdown row per round and the engine's.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from rareal.freeenergy.analysis import FreeEnergy, load
from rareal.sampling.metadynamics import SURFACE
from rareal.units import KCAL_MOL

EXAMPLES = Path(__file__).parent.parent / "examples"


def configure(name: str, folder: Path) -> Path:
    """A copy of the example's YAML for the benchmark."""
    source = EXAMPLES / name / f"{name}.yaml"
    tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    tree["structure"] = str(source.parent / tree["structure"])
    tree["reference"] = str(folder / "reference")
    tree["labels"]["cache"] = "none"  # labels of another run would take no time
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def rareal(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-P", "-m", "rareal", *map(str, arguments)], check=True)


def minutes(folder: Path) -> float:
    """Time in the stages of a run."""
    return sum(json.loads(p.read_text())["seconds"] for p in folder.glob("**/stage.done")) / 60


def asymmetry(surface: FreeEnergy) -> float:
    """Root mean square of F(s) - F(-s), eV, below the barrier; both examples' molecules are their own mirror images."""
    energy = surface.energy
    there = (energy < surface.barrier) & (energy[::-1] < surface.barrier)
    return float(np.sqrt(np.mean((energy[there] - energy[::-1][there]) ** 2))) if there.any() else float("nan")


def describe(name: str, labels: str, time: str, path: str, surface: FreeEnergy, engine: FreeEnergy | None) -> str:
    def kcal(value: float, form: str = "{:.2f}") -> str:
        return form.format(value / KCAL_MOL) if np.isfinite(value) else "–"

    error = float("nan") if engine is None else surface.barrier - engine.barrier
    own = float("nan") if engine is None else float(np.hypot(surface.barrier_error, engine.barrier_error))
    cells = [
        name,
        labels,
        time,
        path,
        f"{kcal(surface.barrier)} ± {kcal(surface.barrier_error)}",
        f"{kcal(surface.reverse)} ± {kcal(surface.reverse_error)}",
        kcal(surface.hills_barrier),
        kcal(asymmetry(surface)),
        f"{kcal(error, '{:+.2f}')} ± {kcal(own)}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", choices=["malonaldehyde", "glycolaldehyde"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--walkers", type=int, default=8, help="of the engine's metadynamics")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    folder = (options.folder or Path(f"runs/benchmark-{options.example}")).resolve()
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    config = configure(options.example, folder)
    rareal("reference", config, "--dir", folder / "reference", "--seeds", str(options.walkers))
    engine = load(folder / "reference" / SURFACE)
    runs = {seed: folder / f"seed-{seed}" for seed in options.seeds}
    for seed, place in runs.items():
        rareal("run", config, "--seed", str(seed), "--dir", place)

    columns = "run | labels | minutes | path error | barrier | reverse barrier | of the hills | asymmetry | error"
    print(f"\n| {columns} |\n|" + "---|" * 9)
    for seed, place in runs.items():
        with open(place / "rounds.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            last = row is rows[-1]
            surface = load(place / f"round-{int(row['round']):03d}" / "sample" / SURFACE)
            name = f"seed {seed}, round {row['round']}" + (" (last)" if last else "")
            path = f"{float(row['path_error_kcal_mol'] or 'nan'):.2f}"
            print(describe(name, row["labels"], f"{minutes(place):.1f}" if last else "", path, surface, engine))
    print(describe("engine", "", "", "", engine, None))
    print(
        "\nFree energies in kcal/mol, ± is the standard error; error: committee minus engine; asymmetry: root mean "
        "square of F(s) - F(-s) below the barrier."
    )


if __name__ == "__main__":
    main()
