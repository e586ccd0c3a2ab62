"""The whole loop in miniature: LAMMPS, plugin, xTB, training, selection; and a kill in its middle."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rareal.data import dataset
from rareal.plugin import lmp_command, lmp_environment

TIMES = {"train_s", "sample_s", "label_s"}


def command(config: Path, folder: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "rareal", "run", str(config), "--dir", str(folder)]


def rounds(folder: Path) -> list[dict[str, str]]:
    with open(folder / "rounds.csv", newline="") as stream:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)]


def test_two_rounds(miniature: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    subprocess.run(command(miniature, run), check=True, timeout=300)

    rows = rounds(run)
    assert [row["round"] for row in rows] == ["0", "1"]
    deltas = sorted(run.glob("**/data.h5"))
    assert [str(p.relative_to(run)) for p in deltas] == [
        "initial/data/data.h5", "round-000/check/data.h5", "round-000/select/data.h5", "round-001/check/data.h5",
    ]  # fmt: skip
    frames = [frame for path in deltas for frame in dataset.read(path)]
    markers = [json.loads(p.read_text())["summary"] for p in run.glob("**/stage.done")]
    bought = sum(m.get("labels", 0) for m in markers)
    failed = sum(m.get("failed", 0) for m in markers)
    assert int(rows[-1]["labels"]) == bought == len(frames) + failed
    assert float(rows[-1]["barrier_eV"]) > 0.5
    assert float(rows[-1]["path_error_kcal_mol"]) > 0
    assert {f.frame.origin for f in frames} >= {"initial", "path"}
    assert len({f.label.engine for f in frames}) == 1
    for name in ("barrier_convergence", "work", "uncertainty"):
        assert (run / "plots" / f"{name}.png").stat().st_size > 10_000

    # the script of the pull stays and runs by hand
    walker = run / "round-001" / "sample" / "walker-00"
    text = (walker / "in.steered").read_text()
    short = text.replace("run             700", "run             5").replace("run             100", "run             5")
    (walker / "in.short").write_text(short)
    subprocess.run([*lmp_command(), "-in", "in.short"], cwd=walker, env=lmp_environment(), check=True, timeout=60)

    # the same command again finds everything done
    before = (run / "rounds.csv").read_bytes()
    started = time.monotonic()
    subprocess.run(command(miniature, run), check=True, timeout=60)
    assert (run / "rounds.csv").read_bytes() == before
    assert time.monotonic() - started < 30

    status = subprocess.run(
        [sys.executable, "-P", "-m", "rareal", "status", str(run), "--json"], check=True, capture_output=True, text=True
    )
    assert json.loads(status.stdout)["table"][-1]["labels"] == bought


@pytest.mark.parametrize("victim", ["round-000/train", "round-001/sample"])
def test_killed_anywhere_it_goes_on_to_the_same_result(miniature: Path, tmp_path: Path, victim: str) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(miniature, undisturbed), check=True, timeout=300)

    process = subprocess.Popen(command(miniature, killed), start_new_session=True)
    deadline = time.monotonic() + 200
    while not (killed / victim).is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / victim / "stage.done").exists()

    subprocess.run(command(miniature, killed), check=True, timeout=300)
    assert rounds(killed) == rounds(undisturbed)
    for name in ("round-000/check/path.npz", "round-001/check/path.npz"):
        with np.load(undisturbed / name) as first, np.load(killed / name) as second:
            for key in first:
                np.testing.assert_array_equal(first[key], second[key])
