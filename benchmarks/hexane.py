"""The README's table: hexane for several root seeds, and the paper's own selection under the same budget.

    python benchmarks/hexane.py [--seeds 1 2 3] [--folder runs/benchmark] [--paper-seed 1]

Runs the engine's reference first (once), then one `rareal run` after the other; a run that is finished is only read.
Prints one Markdown row per run and one per round. Takes about a quarter of an hour per seed on two cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import yaml

CONFIG = Path(__file__).parent.parent / "examples" / "hexane" / "hexane.yaml"


def configure(folder: Path, selection: str | None) -> Path:
    """A copy of hexane.yaml for the benchmark, with another selection if asked for."""
    tree = yaml.safe_load(CONFIG.read_text())
    tree["structure"] = str(CONFIG.parent / tree["structure"])
    tree["reference"] = str(folder / "reference")
    tree["labels"]["cache"] = "none"  # labels of another run would take no time
    if selection:
        # the checked frames are the event's own: the paper's rule must do without them, and gets other labels instead
        tree["selection"] = {"kind": selection, "count": 28}
        tree["augment"]["copies"] = 2
        tree["check"] |= {"join": False, "rupture_frames": 0}
        tree["labels"]["budget"] = 600 + 8 * tree["check"]["path_frames"]
        tree["convergence"]["rounds"] = 8
    path = folder / f"{selection or 'event'}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def rareal(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-P", "-m", "rareal", *map(str, arguments)], check=True)


def minutes(folder: Path) -> float:
    """Time in the stages of a run."""
    return sum(json.loads(p.read_text())["seconds"] for p in folder.glob("**/stage.done")) / 60


def number(text: str, form: str) -> str:
    return form.format(float(text)) if text not in ("", "nan") else "–"


def describe(name: str, row: dict[str, str], time: str) -> str:
    cells = [
        name,
        row["labels"],
        time,
        f"{number(row['path_error_kcal_mol'], '{:.2f}')} ({row['path_frames']}, {row['path_frames_in_break']})",
        number(row["rupture_energy_error_kcal_mol"], "{:+.2f}"),
        number(row["rupture_force_error_percent"], "{:+.2f}"),
        number(row["rupture_distance_error_A"], "{:+.3f}"),
        row["same_bond"],
        f"{number(row['barrier_eV'], '{:.3f}')} ± {number(row['barrier_se_eV'], '{:.3f}')}",
        f"{number(row['reference_eV'], '{:.3f}')} ± {number(row['reference_se_eV'], '{:.3f}')}",
        number(row["error_kcal_mol"], "{:+.2f}"),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--paper-seed", type=int, nargs="*", default=[1])
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark"))
    options = parser.parse_args()
    folder = options.folder.resolve()
    (folder / "reference").mkdir(parents=True, exist_ok=True)
    ours, paper = configure(folder, None), configure(folder, "paper")
    rareal("reference", ours, "--dir", folder / "reference")
    runs = [(f"seed {s}", ours, s, folder / f"event-{s}") for s in options.seeds]
    runs += [(f"seed {s}, `selection: paper`", paper, s, folder / f"paper-{s}") for s in options.paper_seed]
    for _, config, seed, place in runs:
        rareal("run", config, "--seed", str(seed), "--dir", place)

    print(
        "\n| run | labels | minutes | path error (frames, in break) | E_max error | F_max error / % | "
        "rupture distance error / Å | same bond | W_max / eV | engine's W_max / eV | W_max error |"
    )
    print("|" + "---|" * 11)
    for name, _, _, place in runs:
        with open(place / "rounds.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            last = row is rows[-1]
            label = f"{name}, round {row['round']}" + (" (last)" if last else "")
            print(describe(label, row, f"{minutes(place):.1f}" if last else ""))
    print("\nErrors in kcal/mol where no unit is given; committee minus engine; ± is the standard error.")


if __name__ == "__main__":
    main()
