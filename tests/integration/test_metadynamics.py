"""The examples of metadynamics in miniature: their own YAMLs with fewer of everything."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rareal.freeenergy.analysis import load as load_surface
from rareal.freeenergy.bias import mean
from rareal.sampling.metadynamics import ARCHIVE, SURFACE, load_bias
from rareal.sampling.trajectory import load, load_profile

EXAMPLES = Path(__file__).parents[2] / "examples"
FEWER: dict[str, dict[str, Any]] = {
    "labels": {"cache": "none"},
    "initial": {"frames": 24, "interval": 4, "equilibration": 40},
    "training": {"members": 2, "epochs": 12, "batch_size": 8, "threads": 1},
    "sampler": {"walkers": 2, "steps": 600, "relaxation_steps": 100, "hill_interval": 20, "frame_interval": 5},
    "selection": {"count": 4},
    "check": {"path_frames": 8},
}


def miniature(name: str, folder: Path, rounds: int) -> Path:
    """Run an example with fewer of everything; returns its run folder."""
    source = EXAMPLES / name / f"{name}.yaml"
    settings = yaml.safe_load(source.read_text(encoding="utf-8"))
    for section, changes in FEWER.items():
        settings[section] = {**settings[section], **changes}
    hidden = {element: [24, 16] for element in "CHO"}
    settings |= {"executor": "serial", "rounds": rounds, "structure": str(source.parent / settings["structure"]),
                 "model": {"kind": "ani", "hidden": hidden}}  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run = folder / "run"
    subprocess.run([sys.executable, "-P", "-m", "rareal", "run", str(path), "--dir", str(run)], check=True, timeout=300)
    return run


def walkers(run: Path, number: int) -> list[Path]:
    return sorted((run / f"round-{number:03d}" / "sample").glob("walker-*"))


def test_proton_transfer_goes_on_with_the_bias_of_the_round_before(tmp_path: Path) -> None:
    run = miniature("malonaldehyde", tmp_path, 2)
    first, second = walkers(run, 0), walkers(run, 1)
    left = [start.plus(hills) for start, hills in (load_bias(folder / ARCHIVE) for folder in first)]
    assert len(left) == 2
    assert all(each.energy.max() > 0 for each in left)
    for folder in second:
        begun, hills = load_bias(folder / ARCHIVE)
        assert begun.energy == pytest.approx(mean(left).energy, abs=1e-12)
        assert len(hills) == 30
    for number in (0, 1):
        sample = run / f"round-{number:03d}" / "sample"
        surface, profile = load_surface(sample / SURFACE), load_profile(sample / "profile.npz")
        assert profile.kind == "free energy"
        assert surface.frames == profile_frames(sample, 0.1, (-1.3, 1.3))
        # what LAMMPS says of the bias is what the analysis takes it for
        trajectory = load(sample / "trajectories.npz")[0]
        begun, hills = load_bias(walkers(run, number)[0] / ARCHIVE)
        final = begun.plus(hills).at(trajectory.cvs[-1:])[0]
        assert trajectory.bias[-1] == pytest.approx(final, abs=1e-4)
    with open(run / "rounds.csv", newline="") as stream:
        assert [row["barrier_kind"] for row in csv.DictReader(stream)] == ["free energy"] * 2


def profile_frames(sample: Path, discard: float, limits: tuple[float, float]) -> int:
    """Frames that count: after the beginning, within the walls."""
    count = 0
    for trajectory in load(sample / "trajectories.npz"):
        late = trajectory.steps >= discard * trajectory.steps[-1]
        count += int((late & (trajectory.cv >= limits[0]) & (trajectory.cv <= limits[1])).sum())
    return count


def test_isomerisation_has_a_surface_over_two_angles(tmp_path: Path) -> None:
    run = miniature("glycolaldehyde", tmp_path, 1)
    sample = run / "round-000" / "sample"
    surface = load_surface(sample / SURFACE)
    assert surface.shape.tolist() == [90, 90]
    assert np.isfinite(surface.energy).sum() > 20
    (trajectory, _) = load(sample / "trajectories.npz")
    assert trajectory.cvs.shape == (len(trajectory), 2)
    assert np.array_equal(trajectory.cvs[:, 0], trajectory.cv)
    assert np.abs(trajectory.cvs).max() <= 180
    assert np.ptp(trajectory.cvs, axis=0).min() > 5
