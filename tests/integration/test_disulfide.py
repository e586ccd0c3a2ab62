"""`examples/disulfide` in miniature: nothing is tied to hydrocarbons."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rareal.build import build_variables, make
from rareal.config import load
from rareal.data import dataset
from rareal.event import find_event
from rareal.records import Walker
from rareal.sampling.reference import EngineSampler

EXAMPLE = Path(__file__).parents[2] / "examples" / "disulfide"

SMALL: dict[str, dict[str, Any]] = {
    "labels": {"budget": 150, "max_failed_fraction": 0.5, "cache": "none"},
    "initial": {"frames": 30},
    "model": {"hidden": {"C": [24, 16], "H": [24, 16], "S": [24, 16]}},
    "training": {"members": 2, "epochs": 15, "batch_size": 8, "threads": 1},
    "sampler": {"relaxation_steps": 100, "velocity": "8 angstrom/ps", "steps": 850, "walkers": 2},
    "uncertainty": {"window": 100},
    "selection": {"count": 6},
    "check": {
        "path_frames": 16, "break_frames": 6,
        "rupture": {"step": "0.2 angstrom", "max_stretch": "0.8 angstrom", "residual_barrier": "0.1 eV"},
    },
}  # fmt: skip


def miniature(folder: Path) -> Path:
    """The example's own YAML with everything made small."""
    tree = yaml.safe_load((EXAMPLE / "disulfide.yaml").read_text())
    tree |= {"rounds": 2, "directory": str(folder / "run"), "structure": str(EXAMPLE / "disulfide.xyz")}
    for section, values in SMALL.items():
        there = tree[section]
        tree[section] = ({"kind": there} if isinstance(there, str) else there) | values
    path = folder / "disulfide.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_disulfide(tmp_path: Path) -> None:
    config, run = miniature(tmp_path), tmp_path / "run"
    subprocess.run([sys.executable, "-P", "-m", "rareal", "run", str(config)], check=True, timeout=300)

    frames = [item.frame for path in sorted(run.glob("**/data.h5")) for item in dataset.read(path)]
    assert {6, 1, 16} == set(np.concatenate([frame.numbers for frame in frames]))
    assert sum(frame.origin == "initial" for frame in frames) == 30

    with open(run / "rounds.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["round"] for row in rows] == ["0", "1"]
    assert rows[-1]["barrier_kind"] == "work"
    assert float(rows[-1]["barrier_eV"]) > 0.5
    assert float(rows[-1]["path_error_kcal_mol"]) > 0


def test_the_engine_breaks_the_bond_between_the_sulphurs(tmp_path: Path) -> None:
    tree = load(miniature(tmp_path))
    sampler = make(tree, "sampler", start=tree.frame, variables=build_variables(tree))
    engine = make(tree, "engine", start=tree.frame)
    (pull,) = EngineSampler(sampler, engine).sample(tmp_path / "engine", [Walker(0, 1, tree.frame)])
    event = find_event(tree.frame.numbers, pull.positions)
    assert event is not None
    assert event.pair == (1, 2)  # counted from 0
