"""Parsl for real: its local provider, and the Slurm provider with a Slurm of shell scripts."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tasks import end_worker

from rareal.build import build_executors
from rareal.config import load
from rareal.errors import WorkerLost
from rareal.execution.parsl import Config, ParslExecutor, build, provider
from rareal.labeling.runner import Labeler
from rareal.records import FailedLabel, Frame, Label
from rareal.testing.engines import Faulty

pytestmark = pytest.mark.slow


def frames(*origins: str) -> list[Frame]:
    return [
        Frame(np.array([1, 1]), np.full((2, 3), float(k)), origin=origin, step=k) for k, origin in enumerate(origins)
    ]


def assert_right(given: list[Frame], results: list[Label | FailedLabel], failed: list[int]) -> None:
    assert len(results) == len(given)
    for k, (frame, result) in enumerate(zip(given, results, strict=True)):
        assert isinstance(result, FailedLabel) == (k in failed), result
        if isinstance(result, Label):
            assert result.energy == 0.5 * np.sum(frame.positions**2)


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ParslExecutor]:
    config = Config(provider="local", min_blocks=0, max_blocks=1, workers_per_node=2, heartbeat=1)
    executor = build(config, "label", tmp_path_factory.mktemp("parsl"))
    yield executor
    executor.shutdown(cancel_futures=True)


def test_workers_see_what_the_loop_sees(executor: ParslExecutor) -> None:
    assert executor.workers == 2
    assert executor.submit(os.getpid).result(timeout=60) != os.getpid()
    assert executor.submit(os.getenv, "OMP_NUM_THREADS").result(timeout=60) == "1"
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 1, 0).result(timeout=60)


def test_labels_with_every_kind_of_failure(executor: ParslExecutor, tmp_path: Path) -> None:
    given = frames("", "refuse", "die", "nan", "", "crash", "noise", "hang", "shape", *["sometimes"] * 20, "die_once")
    failed = [k for k, f in enumerate(given) if f.origin in ("refuse", "die", "nan", "crash", "hang", "shape")]
    failed += [k for k, f in enumerate(given) if f.origin == "sometimes" and k % 5 == 1]
    with Labeler(Faulty(tmp_path), executor, max_failed_fraction=0.5, timeout=3.0) as labeler:
        results = labeler.label(given, folder=tmp_path / "stage")
    assert_right(given, results, failed)
    assert sorted(int(p.name) for p in (tmp_path / "stage" / "failed").iterdir()) == sorted(failed)
    assert [int(p.name) for p in (tmp_path / "stage" / "labels").iterdir()] == [6]


def test_a_lost_worker_is_named_and_its_frames_are_handed_out_again(
    executor: ParslExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WorkerLost, match="loss of worker"):
        executor.submit(end_worker, tmp_path / "one").result(timeout=60)
    real, lost = executor.submit, []

    def submit(function: Any, *args: Any) -> Any:
        if len(lost) < 2 and len(args[1]) > 1:
            lost.append(args)
            return real(end_worker, tmp_path / f"two-{len(lost)}")
        return real(function, *args)

    monkeypatch.setattr(executor, "submit", submit)
    given = frames(*[""] * 40)
    with Labeler(Faulty(), executor, max_failed_fraction=0.0) as labeler:
        labeler.seconds = 0.01
        assert_right(given, labeler.label(given), [])
    assert len(lost) == 2


def test_a_lost_node_gives_its_frames_back(tmp_path: Path) -> None:
    """All of a block is killed while it computes; a new block takes over."""
    config = Config(provider="local", max_blocks=1, heartbeat=1)
    executor = build(config, "label", tmp_path / "parsl")
    given = frames(*["nap"] * 12)
    try:
        with Labeler(Faulty(), executor, max_failed_fraction=0.0) as labeler:
            batch = labeler.submit(given)
            while batch.progress()[0] < 3:
                time.sleep(0.02)
            manager = executor.submit(os.getppid)
            for line in (tmp_path / "parsl").rglob("manager.log"):
                pid = re.search(r"PID: (\d+)", line.read_text())
                if pid:
                    os.killpg(os.getpgid(int(pid.group(1))), 9)
            assert_right(given, batch.result(), [])
            assert manager.exception(timeout=60) is None or isinstance(manager.exception(), WorkerLost)
    finally:
        executor.shutdown(cancel_futures=True)


SBATCH = """#!/bin/sh
# a Slurm of one node: the job runs at once, in the background
cp "$1" "{folder}/script"
setsid sh "$1" >"{folder}/job.out" 2>&1 &
echo $! >"{folder}/pid"
echo "Submitted batch job $!"
"""
SQUEUE = """#!/bin/sh
for pid in $(cat "{folder}/pid" 2>/dev/null); do kill -0 "$pid" 2>/dev/null && echo "$pid R"; done
exit 0
"""
SCANCEL = """#!/bin/sh
for pid in "$@"; do kill -- "-$pid" 2>/dev/null && echo "$pid" >>"{folder}/cancelled"; done
exit 0
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `sbatch`, `squeue` and `scancel`, on PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL}.items():
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod((folder / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_slurm_gets_the_job_that_the_yaml_asks_for(slurm: Path, tmp_path: Path) -> None:
    config = Config(
        provider="slurm", partition="cpu", account="chem", qos="normal", constraint="rome", walltime="02:30:00",
        workers_per_node=2, cores_per_worker=4, mem_per_node=16, exclusive=True, max_blocks=3, heartbeat=1,
        worker_init="module() { echo module $*; }; module load gpaw", scheduler_options="#SBATCH --mail-type=FAIL",
        address="127.0.0.1",
    )  # fmt: skip
    executor = build(config, "label", tmp_path / "parsl")
    assert executor.workers == 6
    try:
        with Labeler(Faulty(), executor, max_failed_fraction=0.0) as labeler:
            given = frames("", "", "")
            assert_right(given, labeler.label(given), [])
    finally:
        executor.shutdown(cancel_futures=True)
    script = (slurm / "script").read_text()
    for line in (
        "#SBATCH --partition=cpu", "#SBATCH --account=chem", "#SBATCH --qos=normal", "#SBATCH --constraint=rome",
        "#SBATCH --time=150", "#SBATCH --nodes=1", "#SBATCH --mem=16g", "#SBATCH --cpus-per-task=8",
        "#SBATCH --exclusive", "#SBATCH --mail-type=FAIL", "export OMP_NUM_THREADS=4",
    ):  # fmt: skip
        assert line in script.splitlines(), line
    assert re.search(r"#SBATCH --job-name=parsl\.rareal-label", script)
    assert script.index("module load gpaw") < script.index("process_worker_pool.py")
    assert "module load gpaw" in (slurm / "job.out").read_text()
    assert (slurm / "cancelled").exists(), "the job is given back"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"provider": "local", "partition": "gpu"}, "partition is for 'provider: slurm'"),
        ({"provider": "slurm", "walltime": "2h"}, "hours, minutes and seconds"),
        ({"provider": "slurm", "scheduler_options": "--gres=gpu"}, "begin it with '#SBATCH '"),
        ({"min_blocks": 4, "max_blocks": 2}, r"min_blocks \(4\) exceeds max_blocks \(2\)"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(given)


def test_blocks_scale_between_the_bounds() -> None:
    made = provider(Config(provider="local", min_blocks=2, max_blocks=5))
    assert (made.init_blocks, made.min_blocks, made.max_blocks) == (2, 2, 5)
    assert provider(Config(provider="local", max_blocks=5)).init_blocks == 1


def test_the_example_asks_for_two_queues(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(slurm)
    config = load(Path(__file__).parents[3] / "examples" / "hexane" / "parsl-slurm.yaml")
    executors = build_executors(config)
    assert [e.workers for e in (executors.label, executors.sample, executors.train)] == [64, 64, 1]  # type: ignore[attr-defined]
    label, train = (provider(getattr(config.executor, stage)) for stage in ("label", "train"))
    assert "#SBATCH --partition=cpu" in label.scheduler_options
    assert "gpu" not in label.scheduler_options
    assert {"#SBATCH --partition=gpu", "#SBATCH --gpus-per-node=1", "#SBATCH --account=chemistry"} <= set(
        train.scheduler_options.splitlines()
    )
    assert (label.min_blocks, label.max_blocks, train.max_blocks) == (0, 4, 1)
    executors.close()
