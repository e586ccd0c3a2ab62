"""Exploration on the fly in miniature, every part real: LAMMPS halts, xTB labels, training goes on; and a kill."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.io import write

from rareal.data import dataset
from rareal.files import read_json
from rareal.sampling.resume import load_segment
from rareal.sampling.trajectory import load

ETHANE = """\
name: ethane
seed: 3
rounds: 1
structure: ethane.xyz
cv: {kind: distance, atoms: [1, 2]}
engine: {kind: tblite, method: GFN2-xTB}
labels: {budget: 100, cache: none}
initial: {kind: md, frames: 20, interval: 5, equilibration: 20}
model: {kind: ani, hidden: {C: [16, 12], H: [16, 12]}}
training: {members: 2, epochs: 10, batch_size: 8, threads: 1}
sampler: {kind: steered, relaxation_steps: 50, steps: 400, velocity: 5 angstrom/ps, walkers: 2, frame_interval: 2}
uncertainty: {kind: moving_average, window: 100, c_x: 0.2}
exploration: {kind: on_the_fly, patience: 4, stretch: 150, labels: 6, frames: 2, epochs: 5}
check:
  path_frames: 10
  break_frames: 4
  scout_frames: 4
  rupture: {step: 0.5, fmax: 0.2, resolution: 0.2, max_calls: 300}
"""


def command(folder: Path, run: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "rareal", "run", str(folder / "ethane.yaml"), "--dir", str(run)]


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "rounds.csv", newline="") as stream:
        return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in csv.DictReader(stream)]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_a_round_on_the_fly_killed_or_not(tmp_path: Path) -> None:
    write(tmp_path / "ethane.xyz", molecule("C2H6"))
    (tmp_path / "ethane.yaml").write_text(ETHANE)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shown = subprocess.run(command(tmp_path, whole), check=True, timeout=200, capture_output=True, text=True)
    assert "on the fly: " in shown.stdout + shown.stderr

    (row,) = rows(whole)
    fly = whole / "round-000" / "fly"
    counts = read_json(fly / "stage.done")["summary"]
    assert counts["halts"] >= 1
    assert counts["updates"] >= 1
    assert counts["halted_labels"] == 2 * counts["halts"] <= 6
    halted = [f for delta in sorted(fly.glob("*/data.h5")) for f in dataset.read(delta)]
    assert len(halted) == counts["halted_labels"]
    assert int(row["labels"]) == 20 + len(halted) + len(dataset.read(whole / "round-000" / "check" / "data.h5"))
    # the parts make whole drives
    for trajectory in load(whole / "round-000" / "sample" / "trajectories.npz"):
        assert trajectory.note == ""
        assert trajectory.steps.tolist() == list(range(0, 401, 2))
        assert np.abs(np.diff(trajectory.positions, axis=0)).max() < 0.15
        assert np.abs(np.diff(trajectory.work)).max() < 0.1
    # where one has halted it was in doubt for so many steps, and went on from before
    part = next(
        p.parent for p in sorted(fly.glob("update-*/walker-*/segment.npz")) if load_segment(p.parent).ending == "halted"
    )
    segment, seen = load_segment(part), load(part / "trajectory.npz")[0]
    threshold = next(
        w["threshold"]
        for w in read_json(part.parent / "stage.done")["summary"]["walkers"]
        if w["walker"] == seen.walker
    )
    assert segment.snapshot is not None
    after = seen.steps > segment.snapshot.step
    assert after.sum() >= 2
    assert (seen.energy_std[after] > threshold).all()
    assert seen.energy_std[~after][-1] <= threshold
    assert "halt energy" in (part / "in.steered").read_text()

    # as if it had been killed while the first labels on the fly were computed
    shutil.copytree(whole, killed)
    begun = part.parent
    for path in ("run.done", "rounds.csv", "round-000/check", "round-000/sample", "round-000/fly/stage.done"):
        remove(killed / path)
    for path in sorted((killed / "round-000" / "fly").glob("update-*")):
        if path.name > begun.name:
            remove(path)
    for name in ("stage.done", "train", "walker-01"):
        remove(killed / "round-000" / "fly" / begun.name / name)
    subprocess.run(command(tmp_path, killed), check=True, timeout=200, capture_output=True)
    assert rows(killed) == rows(whole)
    pairs = zip(*(load(run / "round-000" / "sample" / "trajectories.npz") for run in (whole, killed)), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.energy_std, other.energy_std)
