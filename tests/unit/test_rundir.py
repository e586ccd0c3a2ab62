"""The run folder: killed at any instant, opened again, the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rareal import files, lock
from rareal.config import KINDS, Config, Kinds, load
from rareal.errors import RunFolderError
from rareal.rundir import ROUND_COLUMNS, RunFolder, config_hash

FAKE = """
from typing import Any
from rareal.schema import Section

class Inner(Section):
    gap: float = 1.0

class Config(Section):
    members: int = 4
    inner: Inner = Inner()
"""


def configuration(folder: Path, text: str = "") -> Config:
    """A configuration whose sections all have the same schema."""
    (folder / "fake_stage.py").write_text(FAKE)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sys.modules.pop("fake_stage", None)
    if not (folder / "hydrogen.xyz").exists():
        (folder / "hydrogen.xyz").write_text("2\n\nH 0 0 0\nH 0.1234567890123456 0 0.74\n")
    (folder / "case.yaml").write_text("structure: hydrogen.xyz\n" + text)
    kinds = {name: Kinds({"fake": "fake_stage"}) for name in KINDS}
    try:
        return load(
            folder / "case.yaml", kinds=kinds | {name: KINDS[name] for name in ("labels", "executor", "convergence")}
        )
    finally:
        sys.path.remove(str(folder))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configuration(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_a_stop_file_is_of_the_run_that_it_has_stopped(path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        assert not run.stop_requested
        (path / "STOP").touch()
        assert run.stop_requested
        run.finish(converged=False)
        assert files.read_json(path / "run.done")["stopped"]
    with RunFolder.open(path, config) as run:
        assert not run.stop_requested


def test_a_finished_stage_stays_finished(path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        stage = run.stage(0, "train")
        assert not stage.done
        (stage.folder / "model.pt").write_text("weights")
        stage.finish(labels=12, error=0.25)
    with RunFolder.open(path, config) as run:
        stage = run.stage(0, "train")
        assert stage.done
        assert stage.summary == {"labels": 12, "error": 0.25}
        assert stage.seconds >= 0
        assert (stage.folder / "model.pt").read_text() == "weights"


def test_an_unfinished_stage_starts_empty(path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        stage = run.stage(2, "sample")
        (stage.folder / "deep").mkdir()
        (stage.folder / "deep" / "half.lammpstrj").write_text("half a traj")
    with RunFolder.open(path, config) as run:
        assert list(run.stage(2, "sample").folder.iterdir()) == []
        assert not run.stage(2, "sample").done


def test_a_stage_may_keep_what_it_had(path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        (run.stage(0, "label").folder / "part").write_text("1")
        assert (run.stage(0, "label", keep=True).folder / "part").read_text() == "1"


def test_a_summary_is_the_same_before_and_after_a_restart(path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        summary = run.stage(0, "x").finish(
            pair=(1, 2), number=np.float32(0.1), array=np.arange(2), nothing=float("nan"), file=Path("a/b")
        )
        assert summary == run.stage(0, "x").summary
    assert summary == {
        "pair": [1, 2],
        "number": float(np.float32(0.1)),
        "array": [0, 1],
        "nothing": None,
        "file": "a/b",
    }


def test_summary_of_an_unfinished_stage_is_an_error(path: Path, config: Config) -> None:
    with (
        RunFolder.open(path, config) as run,
        pytest.raises(RunFolderError, match="'train' of round 3 has not finished"),
    ):
        _ = run.stage(3, "train").summary


WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_rundir import configuration
from rareal.rundir import RunFolder

folder = Path({folder!r})
with RunFolder.open(folder / "run", configuration(folder)) as run:
    total = 0.0
    for number in range(4):
        draw = run.stage(number, "draw")
        if not draw.done:
            for index in range(20):
                (draw.folder / f"{{index}}.txt").write_text("x")
                time.sleep(0.002)
            draw.finish(value=float(run.rng(number, "draw").normal()))
        add = run.stage(number, "add")
        if not add.done:
            time.sleep(0.01)
            add.finish(total=total + draw.summary["value"])
        total = add.summary["total"]
        run.append_round({{"round": number, "labels": number, "barrier_eV": total}})
    run.finish(reason="all rounds done")
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(WORKER).format(tests=str(Path(__file__).parent), folder=str(folder))
    return subprocess.Popen([sys.executable, "-P", "-c", code])


def test_killed_anywhere_the_result_is_the_same(tmp_path: Path) -> None:
    """SIGKILL after ever longer times until the run gets through; compare with a run that nobody disturbed."""
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    assert start(tmp_path / "calm").wait(timeout=60) == 0
    kills, delay = 0, 0.0
    while not (tmp_path / "killed/run/run.done").is_file():
        process = start(tmp_path / "killed")
        rounds = tmp_path / "killed/run/round-000"
        while process.poll() is None and not rounds.exists():
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(timeout=60)
        delay += 0.05
    assert kills >= 3, "the run was never interrupted: this test has shown nothing"
    for name in ("rounds.csv", "structure.extxyz", "config.yaml"):
        assert (tmp_path / "killed/run" / name).read_bytes() == (tmp_path / "calm/run" / name).read_bytes()
    names = [
        sorted(str(file.relative_to(tmp_path / run)) for file in (tmp_path / run).rglob("*") if file.name != "lock")
        for run in ("calm/run", "killed/run")
    ]
    assert names[0] == names[1]


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    files.write_csv(target, [{"a": 1}])

    def fail(stream: Any) -> None:
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(target, fail)
    assert target.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [target]


def test_tables_and_arrays_come_back(tmp_path: Path) -> None:
    rows = [{"a": 1, "b": 0.1 + 0.2, "c": "x, y"}, {"a": 2, "d": float("nan"), "b": None, "e": False}]
    files.write_csv(tmp_path / "t.csv", rows, columns=("b", "z"))
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "b,z,a,c,d,e"
    first, second = files.read_csv(tmp_path / "t.csv")
    assert first == {"b": 0.30000000000000004, "z": None, "a": 1, "c": "x, y", "d": None, "e": None}
    assert second["a"] == 2
    assert second["e"] is False
    files.write_npz(tmp_path / "a.npz", x=np.eye(3))
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["x"], np.eye(3))


def test_rounds_have_the_promised_columns_and_one_row_each(path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        run.append_round({"round": 1, "labels": 20, "extra": 5})
        run.append_round({"round": 0, "labels": 10})
        run.append_round({"round": 1, "labels": 30, "barrier_eV": 7.5, "extra": 5})
        assert [row["labels"] for row in run.rounds()] == [10, 30]
    header = (path / "rounds.csv").read_text().splitlines()[0]
    assert header == ",".join([*ROUND_COLUMNS, "extra"])
    assert header.startswith(
        "round,labels,barrier_eV,barrier_se_eV,reference_eV,error_kcal_mol,path_error_kcal_mol,"
        "rupture_energy_error_kcal_mol,rupture_force_error_percent,train_s,sample_s,label_s"
    )


def test_two_processes_do_not_share_a_folder(path: Path, config: Config) -> None:
    with (
        RunFolder.open(path, config),
        pytest.raises(RunFolderError, match=rf"process {os.getpid()} on .* is working in this run folder"),
    ):
        RunFolder.open(path, config)
    RunFolder.open(path, config).close()


@pytest.mark.parametrize("reused_number", [False, True])
def test_the_lock_of_a_dead_process_is_taken_over(path: Path, config: Config, reused_number: bool) -> None:
    RunFolder.open(path, config).close()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    # the number of a process that has died may by now be that of another one, here of ourselves
    left = {"pid": os.getpid() if reused_number else dead.pid, "host": os.uname().nodename, "born": "1"}
    (path / lock.NAME).write_text(json.dumps(left))
    assert lock.owner(path) is None
    RunFolder.open(path, config).close()


def test_a_zombie_is_dead(path: Path, config: Config) -> None:
    RunFolder.open(path, config).close()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{zombie.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    (path / lock.NAME).write_text(json.dumps({"pid": zombie.pid, "host": os.uname().nodename}))
    assert lock.owner(path) is None
    RunFolder.open(path, config).close()
    zombie.wait()


def test_the_lock_of_another_machine_is_respected(path: Path, config: Config) -> None:
    RunFolder.open(path, config).close()
    (path / lock.NAME).write_text(json.dumps({"pid": 1, "host": "elsewhere", "born": "1"}))
    with pytest.raises(RunFolderError, match=r"on elsewhere .* if it no longer runs, delete .*lock"):
        RunFolder.open(path, config)


def test_a_torn_lock_file_locks_nobody_out(path: Path, config: Config) -> None:
    RunFolder.open(path, config).close()
    (path / lock.NAME).write_text('{"pid": 12')
    assert lock.owner(path) is None
    RunFolder.open(path, config).close()


def test_another_configuration_is_refused_with_the_keys(tmp_path: Path, path: Path, config: Config) -> None:
    RunFolder.open(path, config).close()
    before = {file: file.read_bytes() for file in path.iterdir()}
    other = configuration(tmp_path, "seed: 3\ntraining: {members: 8, inner: {gap: 2}}\n")
    with pytest.raises(RunFolderError) as caught:
        RunFolder.open(path, other)
    message = str(caught.value)
    for part in (
        "seed (was 1, is 3)",
        "training.members (was 4, is 8)",
        "training.inner.gap (was 1.0, is 2.0)",
        "--dir",
    ):
        assert part in message
    assert "sampler" not in message
    assert before == {file: file.read_bytes() for file in path.iterdir()}
    RunFolder.open(path, config).close()


def test_other_atoms_are_another_configuration(tmp_path: Path, path: Path, config: Config) -> None:
    RunFolder.open(path, config).close()
    (tmp_path / "hydrogen.xyz").write_text("2\n\nH 0 0 0\nH 0 0 0.75\n")
    with pytest.raises(RunFolderError, match="structure"):
        RunFolder.open(path, configuration(tmp_path))


def test_rounds_budget_and_name_may_change(tmp_path: Path, path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        run.stage(0, "train").finish()
        run.finish(reason="converged")
    more = configuration(
        tmp_path, "name: longer\nrounds: 20\nlabels: {budget: 2000}\nexecutor: {workers: 1}\ndirectory: moved\n"
    )
    assert config_hash(more) == config_hash(config)
    with RunFolder.open(path, more) as run:
        assert run.stage(0, "train").done
    assert yaml.safe_load((path / "config.yaml").read_text())["rounds"] == 20
    assert not (path / "run.done").exists(), "a run that goes on is not finished"


def test_somebody_elses_folder_is_left_alone(path: Path, config: Config) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("precious")
    with pytest.raises(RunFolderError, match=r"holds other files \(thesis\.tex\)"):
        RunFolder.open(path, config)
    assert [item.name for item in path.iterdir()] == ["thesis.tex"]
    (path / "thesis.tex").rename(path.parent / "thesis.tex")
    path.rmdir()
    path.write_text("a file")
    with pytest.raises(RunFolderError, match="this is a file"):
        RunFolder.open(path, config)


def test_a_start_killed_half_way_is_repeated(path: Path, config: Config) -> None:
    path.mkdir()
    for name in ("lock", "structure.extxyz", ".provenance.json.12.tmp"):
        (path / name).write_text("")
    RunFolder.open(path, config).close()
    assert (path / "structure.extxyz").read_text()


def test_provenance_and_the_folder_stands_alone(tmp_path: Path, path: Path, config: Config) -> None:
    import ase.io

    RunFolder.open(path, config).close()
    RunFolder.open(path, config).close()
    record = json.loads((path / "provenance.json").read_text())
    assert record["seed"] == 1
    assert record["config_hash"] == config_hash(config)
    assert len(record["sessions"]) == 2
    session = record["sessions"][0]
    assert session["versions"]["torch"].startswith("2.13")
    assert session["command"] == sys.argv
    assert session["python"] == ".".join(map(str, sys.version_info[:3]))
    atoms = ase.io.read(path / "structure.extxyz")
    assert np.array_equal(atoms.positions, config.frame.positions), "every digit counts: the run is to be repeatable"
    assert yaml.safe_load((path / "config.yaml").read_text())["structure"] == "structure.extxyz"


def test_random_streams_are_named_independent_and_stable(tmp_path: Path, path: Path, config: Config) -> None:
    with RunFolder.open(path, config) as run:
        names: list[tuple[Any, ...]] = [
            (0, "train"), (1, "train"), (0, "label"), (0, "train", 0), (0, "train", 1), (0, "train", "0"),
            (0, "tra", "in"), (0, "train", 0, 0), (-1, "train"),
        ]  # fmt: skip
        seeds = [run.seed(*name) for name in names]
        draws = [run.rng(*name).random() for name in names]
        assert len(set(seeds)) == len(names) == len(set(draws))
        assert all(0 < seed < 900_000_000 for seed in seeds)
        assert seeds == [run.seed(*name) for name in names]
        assert run.seed(0, "train", np.int64(1)) == run.seed(0, "train", 1)
        # the same in every process, version and place: a run must be repeatable
        assert run.seed(0, "train") == SEED_OF_TRAIN
    with RunFolder.open(tmp_path / "other", configuration(tmp_path, "seed: 2\n")) as run:
        assert run.seed(0, "train") != SEED_OF_TRAIN


SEED_OF_TRAIN = 306221075
