"""Run folders that are made up: curves of the shape that pulling a chain apart gives, and a small one of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from rareal.files import write_csv, write_json, write_npz, write_text
from rareal.units import KCAL_MOL

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


ETHANE = ("C", "C", "H", "H", "H", "H", "H", "H")
GEOMETRY = np.array(
    [
        [0.0, 0.0, 0.7607], [0.0, 0.0, -0.7607], [0.0, 1.0181, 1.1436], [-0.8818, -0.5091, 1.1436],
        [0.8818, -0.5091, 1.1436], [0.0, -1.0181, -1.1436], [-0.8818, 0.5091, -1.1436], [0.8818, 0.5091, -1.1436],
    ]
)  # fmt: skip
UPPER = [0, 2, 3, 4]
LENGTHS = np.r_[np.linspace(1.52, 2.1, 180), np.linspace(2.11, 3.2, 40), np.linspace(3.21, 3.6, 80)]
"""C-C of the small run, Å: stretched slowly, broken fast, dragged apart."""

PICKED = [150, 190, 210]
REFUSED = "SCF of <walker 1> did not converge"
SPECIAL = "ethane <b>&amp; </script><script>alert(1)</script>"
"""A name that a careless page would trip over."""


def stretched(lengths: np.ndarray) -> np.ndarray:
    """Ethane with its C-C bond at these lengths, [T, 8, 3]."""
    positions = np.repeat(GEOMETRY[None], len(lengths), axis=0)
    positions[:, UPPER, 2] += (lengths - 1.5214)[:, None]
    return positions


def write_labels(stage: Path, frames: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    """``data.h5`` and ``labels.csv`` of a stage."""
    stage.mkdir(parents=True, exist_ok=True)
    lengths = np.array([frame["length"] for frame in frames])
    with h5py.File(stage / "data.h5", "w") as file:
        file.attrs["engine"], file.attrs["settings"] = "made-up", "{}"
        group = file.create_group("C2H6")
        group["species"] = np.array(ETHANE, dtype="S2")
        group["coordinates"] = stretched(lengths)
        group["energies"] = -200.0 + 3 * (lengths - 1.52) ** 2
        group["forces"] = np.zeros((len(frames), 8, 3))
        group["cell"], group["pbc"] = np.zeros((len(frames), 3, 3)), np.zeros((len(frames), 3), dtype=bool)
        group["order"] = np.arange(len(frames))
        group["origin"] = np.array([frame["origin"] for frame in frames], dtype=h5py.string_dtype())
        for name in ("round", "walker", "step", "cv"):
            group[name] = np.array([frame[name] for frame in frames])
        group["seconds"] = np.full(len(frames), 0.25)
    told = [{"origin": f["origin"], "walker": f["walker"], "step": f["step"], "cv": f["cv"], "seconds": 0.25,
             "cached": k == 0} for k, f in enumerate(frames)]  # fmt: skip
    write_csv(stage / "labels.csv", [*told, *failed])


def finish(stage: Path, minute: int, seconds: float, **summary: Any) -> None:
    """The marker of a stage."""
    stage.mkdir(parents=True, exist_ok=True)
    marker = {"stage": stage.name, "seconds": seconds, "finished": f"2026-01-02T03:{minute:02d}:00+00:00"}
    write_json(stage / "stage.done", {**marker, "summary": summary})


def make_small_run(folder: Path, rounds: int = 2, name: str = SPECIAL, finished: bool = True) -> Path:
    """A run of ethane with every file that a report reads but a model."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    config = {
        "name": name, "seed": 7, "rounds": rounds, "cv": {"kind": "distance", "atoms": [1, 2]},
        "engine": {"kind": "tblite", "method": "GFN2-xTB"}, "labels": {"budget": 50}, "model": {"kind": "ani"},
        "training": {"members": 4}, "sampler": {"kind": "steered"}, "check": {"join": True},
        "note": "a < b & c",
    }  # fmt: skip
    write_text(folder / "config.yaml", yaml.safe_dump(config))
    session = {
        "started": "2026-01-02T03:00:00+00:00", "command": ["rareal", "run", "<x>.yaml"], "host": "here", "cores": 2,
        "python": "3.11", "versions": {"rareal": "0.1.0", "torch": "2.13.0"},
    }  # fmt: skip
    hashes = {"config_hash": "c0ffee", "structure_hash": "5eed"}
    write_json(folder / "provenance.json", {"seed": 7, **hashes, "sessions": [session]})
    atoms = "\n".join(f"{s} {x} {y} {z}" for s, (x, y, z) in zip(ETHANE, GEOMETRY, strict=True))
    write_text(folder / "structure.extxyz", f'8\nProperties=species:S:1:pos:R:3 pbc="F F F"\n{atoms}\n')
    first = {"origin": "initial", "round": -1, "walker": -1, "cv": np.nan}
    start = [{**first, "step": k, "length": 1.5 + 0.01 * k} for k in range(5)]
    write_labels(folder / "initial" / "data", start, [])
    finish(folder / "initial" / "data", 0, 2.5, labels=5)
    rows = [_small_round(folder / f"round-{k:03d}", k, rng) for k in range(rounds)]
    write_csv(folder / "rounds.csv", rows)
    if finished:
        write_json(folder / "run.done", {"finished": "2026-01-02T03:30:00+00:00", "converged": True, "rounds": rounds})
    return folder


def _frames(origin: str, number: int, walker: int, rows: list[int]) -> list[dict[str, Any]]:
    """Frames of a walker, as a labelling stage gets them."""
    at = [{"step": 10 * row, "cv": LENGTHS[row], "length": LENGTHS[row]} for row in rows]
    return [{"origin": origin, "round": number, "walker": walker, **place} for place in at]


def _small_round(folder: Path, number: int, rng: np.random.Generator) -> dict[str, Any]:
    steps = np.arange(len(LENGTHS)) * 10
    work = 3 * np.minimum(LENGTHS - 1.52, 1.0)
    energy = np.where(LENGTHS < 2.6, 3 * (LENGTHS - 1.52) ** 2, 2.5)
    std = 1e-3 * (1 + 20 / (1 + number) * np.exp(-(((LENGTHS - 2.4) / 0.3) ** 2)))
    common = {"steps": steps, "cv": LENGTHS, "energy": energy, "force_std": 5 * std, "positions": stretched(LENGTHS),
              "cvs": LENGTHS[:, None], "bias": np.zeros(len(steps)), "note": ""}  # fmt: skip
    noise = 1 + 0.1 * rng.random((2, len(steps)))
    own = [{"walker": k, "seed": k + 1, "work": work * (1 + 0.02 * k), "energy_std": std * noise[k]} for k in range(2)]
    write_pulls(folder / "sample" / "trajectories.npz", [{**common, **mine} for mine in own])
    finish(folder / "sample", 10 * number + 2, 20.0, notes=["walker 1: <lost> atoms"])
    checked = [0, 100, 185, 200, 215, 250]
    refused = {"origin": "path", "walker": 1, "step": 2990, "cv": 3.59, "failed": REFUSED}
    write_labels(folder / "check", _frames("path", number, 1, checked), [refused])
    rows = np.array(checked)
    engine, in_break = energy[rows], (rows > 180) & (rows < 220)
    path = {"steps": steps[rows], "cv": LENGTHS[rows], "engine": engine, "committee": engine + 0.01}
    write_npz(folder / "check" / "path.npz", **path, in_break=in_break, walker=1)
    finish(folder / "check", 10 * number + 3, 4.0, labels=7, failed=1, believed=True)
    write_labels(folder / "select", _frames("selected", number, 0, PICKED), [])
    chosen = [[1, row] for row in PICKED]  # walker 0 was judged last
    told = {"walkers": [1, 0], "threshold": [2.5e-3, 2e-3], "chosen": chosen, "labels": 3, "failed": 0, "notes": []}
    finish(folder / "select", 10 * number + 4, 1.5, **told)
    epochs = [1 / (epoch + 1) for epoch in range(5)]
    curve = [{"epoch": k, "training_loss": x, "validation_loss": 2 * x, "energy_mae_eV": x, "force_mae_eV_A": x}
             for k, x in enumerate(epochs)]  # fmt: skip
    (folder / "train").mkdir()
    write_csv(folder / "train" / "learning_curve.csv", curve)
    finish(folder / "train", 10 * number + 1, 30.0, frames=5 + 9 * number)
    return {
        "round": number, "labels": 15 + 10 * number, "barrier_eV": 3.06 + 0.001 * number, "barrier_se_eV": 0.03,
        "reference_eV": None, "error_kcal_mol": None, "path_error_kcal_mol": 0.23, "train_s": 30.0, "sample_s": 20.0,
        "label_s": 5.5, "barrier_kind": "work", "met": number > 0,
    }  # fmt: skip
