"""Plots of a run folder that is made up here, with curves of the shape that pulling a chain apart gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rareal.errors import RarealError, RunFolderError
from rareal.files import write_csv, write_json, write_npz, write_text
from rareal.report.plots import plot_run
from rareal.report.rundata import RunData
from rareal.units import KCAL_MOL

ALL = ["barrier_convergence.png", "work.png", "uncertainty.png", "path.png", "rupture.png", "learning.png"]
STEPS, BREAK, PEAK = 6500, 5250, 7.7
SEEDS = (11, 12, 13, 14, 15)


def make_pull(rng: np.random.Generator, strength: float, spread: float) -> dict[str, Any]:
    """A pull that breaks after ``strength`` times the engine's work; ``spread`` scales the std, in meV."""
    steps = np.arange(STEPS + 1)
    snap = int(BREAK * np.sqrt(strength)) + int(rng.integers(-40, 40))
    held = 6.37 + steps * 0.0005
    cv = held - 0.35 * np.clip(steps / snap, 0, 1) + 0.02 * np.sin(steps / 37 + rng.random())
    cv[snap:] = held[snap:] + 0.1 * np.exp(-(steps[snap:] - snap) / 600) * np.sin((steps[snap:] - snap) / 80)
    x = np.minimum(steps, snap) / snap
    work = PEAK * strength * (1.9 * x**1.7 - 0.9 * x**3.2)
    work[snap:] += 0.04 * np.exp(-(steps[snap:] - snap) / 300) * np.cos((steps[snap:] - snap) / 60)
    std = 1e-3 * (2 + spread * np.exp(-(((steps - snap) / 150) ** 2)) + 0.2 * spread * (steps > snap))
    return {
        "steps": steps, "cv": cv, "work": work, "energy": work,
        "energy_std": std * (1 + 0.2 * rng.random(len(steps))), "force_std": 5 * std,
        "positions": np.zeros((len(steps), 1, 3)), "walker": 0, "seed": 1, "note": "",
    }  # fmt: skip


def write_pulls(path: Path, pulls: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, count=len(pulls), **{f"{k}/{key}": value for k, p in enumerate(pulls) for key, value in p.items()})


def write_rupture(path: Path, strength: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    distances = np.arange(6.4, 9.6, 0.05)
    x = (distances - 6.4) / 2.5
    energies = np.where(x < strength, 8 * (1.7 * x**1.9 - 0.7 * x**3.0), 3.2)
    forces = np.gradient(energies, distances).clip(0)
    write_npz(path, distances=distances, energies=energies, forces=forces, break_distance=6.4 + 2.4 * strength)


def make_round(folder: Path, number: int, rng: np.random.Generator, last: bool) -> dict[str, Any]:
    strength = 1 - 0.8 * np.exp(-1.3 * number)
    error = 30 * np.exp(-1.1 * number) + 0.2
    pulls = [make_pull(rng, strength, error * 20) for _ in range(5)]
    write_pulls(folder / "sample" / "trajectories.npz", pulls)
    snap = int(np.argmax(pulls[0]["work"]))
    steps = np.unique(np.r_[np.linspace(0, STEPS, 30).astype(int), np.arange(snap - 30, snap + 60, 5)])
    engine = pulls[0]["work"][steps] - 2.5 * (steps > snap + 30)
    off = error * KCAL_MOL * rng.normal(0, 0.5, len(steps)) * np.exp(-(((steps - snap) / 800) ** 2))
    (folder / "check").mkdir()
    write_npz(
        folder / "check" / "path.npz", steps=steps, cv=pulls[0]["cv"][steps], engine=engine, committee=engine + off,
        in_break=np.abs(steps - snap - 15) < 50, walker=0,
    )  # fmt: skip
    write_rupture(folder / "check" / "rupture.npz", strength)
    if not last:
        chosen = [[k, int(row)] for k in range(5) for row in np.arange(snap - 400, snap + 60, 40)]
        (folder / "select").mkdir()
        write_json(folder / "select" / "stage.done", {"summary": {"threshold": 4e-3, "chosen": chosen}})
    (folder / "train").mkdir()
    decay = np.exp(-np.arange(150) / 30)
    curve = [
        {"epoch": k, "learning_rate": 1e-3, "training_loss": d + 0.01, "validation_loss": 1.2 * d + 0.02,
         "energy_mae_eV": 0.3 * d + 0.004, "force_mae_eV_A": 0.5 * d + 0.02}
        for k, d in enumerate(decay / (1 + number))
    ]  # fmt: skip
    write_csv(folder / "train" / "learning_curve.csv", curve)
    barriers = np.array([p["work"].max() for p in pulls])
    return {
        "round": number, "labels": 198 + 80 * number, "barrier_eV": barriers.mean(),
        "barrier_se_eV": barriers.std() / 2 + 0.03, "reference_eV": PEAK,
        "error_kcal_mol": (barriers.mean() - PEAK) / KCAL_MOL, "path_error_kcal_mol": error,
        "rupture_energy_error_kcal_mol": -0.6 * error, "rupture_force_error_percent": error / 3,
        "train_s": 30, "sample_s": 20, "label_s": 1, "note": None,
    }  # fmt: skip


def make_run(folder: Path, rounds: int = 6) -> Path:
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    write_text(folder / "config.yaml", "name: chain\nreference: null\ncv: {kind: distance, atoms: [1, 6]}\n")
    rows = [make_round(folder / f"round-{k:03d}", k, rng, last=k == rounds - 1) for k in range(rounds)]
    write_csv(folder / "rounds.csv", rows)
    return folder


def make_reference(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    for seed in SEEDS:
        pull = make_pull(rng, 1 + 0.01 * rng.normal(), 0)
        write_pulls(folder / f"seed-{seed}" / "trajectory.npz", [{**pull, "energy_std": np.zeros(STEPS + 1)}])
    write_rupture(folder / "rupture" / "rupture.npz", 1.0)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("plots") / "chain", rounds=3)
    make_reference(run.with_name("chain-reference"))
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole.with_name("chain-reference"), tmp_path / "chain-reference")
    return Path(shutil.copytree(whole, tmp_path / "chain"))


def size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_whole_run_gives_every_plot_large_enough_to_read(whole: Path) -> None:
    written = plot_run(whole)
    assert names(written) == ALL
    assert sorted(names(list((whole / "plots").iterdir()))) == sorted(ALL), "no temporary file is left"
    for path in written:
        width, height = size(path)
        assert 900 <= width <= 2000
        assert 500 <= height <= 2000


def test_the_reference_beside_the_run_is_found(whole: Path) -> None:
    data = RunData(whole)
    assert len(data.reference_pulls) == len(SEEDS)
    assert data.reference_barrier is not None
    summits = [pull.work.max() for pull in data.reference_pulls]
    assert data.reference_barrier == pytest.approx((np.mean(summits), np.std(summits, ddof=1) / np.sqrt(5)))
    assert data.reference_rupture is not None
    assert data.cv_label == "Distance between atoms 1 and 6 (Å)"


def test_a_named_reference_goes_before_the_sibling(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run.with_name("chain-reference") / "seed-11", other / "seed-11")
    assert len(RunData(run, other).reference_pulls) == 1
    write_text(run / "config.yaml", f"reference: {other}\n")
    assert len(RunData(run).reference_pulls) == 1


def test_without_a_reference_the_number_in_the_table_is_drawn(run: Path) -> None:
    shutil.rmtree(run.with_name("chain-reference"))
    data = RunData(run)
    assert data.reference is None
    assert data.reference_barrier is not None
    assert data.reference_barrier[0] == PEAK
    assert names(plot_run(run)) == ALL


def test_a_reference_shows_in_the_picture(run: Path) -> None:
    drawn = [plot_run(run), plot_run(run)]
    before = {path.name: path.read_bytes() for path in drawn[1]}
    shutil.rmtree(run.with_name("chain-reference"))
    after = {path.name: path.read_bytes() for path in plot_run(run)}
    changed = {name for name in ALL if before[name] != after[name]}
    assert changed == {"barrier_convergence.png", "work.png", "rupture.png"}


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        (["rounds.csv", "round-000/sample", "round-000/check", "round-000/select"], ["learning.png"]),
        (["rounds.csv", "round-000/check", "round-000/select"], ["work.png", "uncertainty.png", "learning.png"]),
        (["rounds.csv", "config.yaml", "round-000/train"], ["work.png", "uncertainty.png", "path.png", "rupture.png"]),
        (["round-000"], ["barrier_convergence.png"]),
    ],
    ids=["trained", "driven", "checked", "table only"],
)
def test_a_half_done_first_round_gives_what_there_is(run: Path, missing: list[str], left: list[str]) -> None:
    for name in ["round-001", "round-002", *missing]:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    assert names(plot_run(run)) == left


def test_empty_cells_and_rounds_without_a_pull_are_survived(run: Path) -> None:
    write_csv(run / "rounds.csv", [{"round": 0, "labels": None, "barrier_eV": None, "path_error_kcal_mol": None}])
    write_npz(run / "round-001" / "sample" / "trajectories.npz", count=0)
    write_json(run / "round-000" / "select" / "stage.done", {"summary": {"threshold": None, "chosen": []}})
    assert names(plot_run(run)) == ALL


def test_numbers_that_are_not_finite_are_left_out(run: Path) -> None:
    check = run / "round-001" / "check"
    infinite = np.array([0.0, np.inf, 2.0])
    write_npz(
        check / "path.npz", steps=[20, 10, 0], cv=infinite, engine=infinite, committee=np.array([0.1, 0.1, 2.0]),
        in_break=[True, False, False], walker=0,
    )  # fmt: skip
    write_npz(
        check / "rupture.npz",
        distances=np.arange(3),
        energies=infinite,
        forces=np.array([np.nan, 1, 2]),
        break_distance=np.nan,
    )
    item = RunData(run).rounds[1]
    assert item.path is not None
    assert item.path.steps.tolist() == [0, 20], "in time order"
    assert item.path.break_steps == (20, 20)
    assert item.rupture is not None
    assert item.rupture.distances.tolist() == [2]
    assert names(plot_run(run)) == ALL


def test_a_damaged_file_is_named_and_left_out(run: Path) -> None:
    (run / "round-001" / "check" / "path.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.warns(UserWarning, match=r"round-001/check/path\.npz cannot be read"):
        assert names(plot_run(run)) == ALL


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        plot_run(tmp_path / "absent")
    with pytest.raises(RunFolderError, match="no such reference"):
        plot_run(tmp_path, tmp_path / "absent")
    with pytest.raises(RarealError, match="nothing to draw yet"):
        plot_run(tmp_path)
    assert not (tmp_path / "plots").exists()
