"""Running processes, several at a time, and telling how they ended."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rareal import cv
from rareal.errors import SamplingError
from rareal.plugin import lmp_environment
from rareal.records import Frame, Walker
from rareal.sampling import lammps, steered

PAIR = Frame(np.array([6, 1]), np.array([[0.0, 0, 0], [0, 0, 1.1]]))


def run(folder: Path, code: str) -> lammps.Run:
    folder.mkdir(exist_ok=True)
    return lammps.Run(folder, [sys.executable, "-c", code], 10, lmp_environment())


def outcome(folder: Path, code: str, patience: float = 60.0) -> str:
    job = run(folder, code)
    lammps.run_all([job], 1, patience)
    return job.failure


def test_how_processes_end(tmp_path: Path) -> None:
    assert outcome(tmp_path, "pass") == ""
    assert outcome(tmp_path, "raise SystemExit(3)") == "ended with exit status 3"
    assert outcome(tmp_path, "import os; os.kill(os.getpid(), 11)") == "crashed (signal 11)"
    assert outcome(tmp_path, "print('ERROR: Lost atoms: original 20 current 19'); exit(1)") == "lost atoms"
    assert outcome(tmp_path, "print('ERROR on proc 0: Non-numeric atom coords'); exit(1)") == "not finite"
    assert outcome(tmp_path, "print('ERROR: bad model'); exit(1)") == "ERROR: bad model"


def test_a_process_that_writes_nothing_more_is_ended(tmp_path: Path) -> None:
    start = time.monotonic()
    assert outcome(tmp_path, "import time; time.sleep(60)", patience=0.5) == "hung (nothing written for 0.5 s)"
    assert time.monotonic() - start < 10


def test_all_run_but_no_more_than_cores_at_a_time(tmp_path: Path) -> None:
    code = (
        "import os, time, pathlib; p = pathlib.Path('..') / f'on-{os.getpid()}'; p.touch(); time.sleep(0.3);"
        "print(len(list(pathlib.Path('..').glob('on-*')))); p.unlink()"
    )
    jobs = [run(tmp_path / str(k), code) for k in range(5)]
    ended: list[lammps.Run] = []
    lammps.run_all(jobs, 2, 60.0, finished=ended.append)
    together = [int((job.folder / lammps.SCREEN).read_text()) for job in jobs]
    assert max(together) == 2
    assert set(ended) == set(jobs)


def test_interrupting_ends_what_runs(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    job = run(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        lammps.run_all([job], 1, 60.0, interrupt)
    assert job.process is not None
    assert job.process.poll() is not None


def test_progress_reads_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "drive.dat"
    assert lammps.last_step(path) == 0
    path.write_text("# title\n# step cv\n")
    assert lammps.last_step(path) == 0
    path.write_text("# title\n# step cv\n0 1\n41 1\n42")
    assert lammps.last_step(path) == 41


def test_data_file() -> None:
    text = lammps.data_file(PAIR).splitlines()
    assert text[text.index("Masses") + 2 :][:2] == ["1 12.011  # C", "2 1.008  # H"]
    assert text[-1] == "2 2 0.000000000000 0.000000000000 1.100000000000"
    assert "-10.000000000000 11.100000000000 zlo zhi" in text


def test_cells_that_lammps_cannot_take_are_refused() -> None:
    frame = Frame(PAIR.numbers, PAIR.positions, np.array([[5.0, 1, 0], [0, 5, 0], [0, 0, 5]]), (True, True, True))
    with pytest.raises(SamplingError, match="rotate the structure"):
        lammps.data_file(frame)


def test_a_model_that_cannot_be_read_names_the_log(tmp_path: Path) -> None:
    sampler = steered.build(steered.Config(steps=10, relaxation_steps=10), [cv.Distance((0, 1))], PAIR)
    found = sampler.sample(tmp_path / "missing.pt", tmp_path / "walker-00", Walker(0, 1, PAIR))
    assert not len(found)
    assert re.fullmatch(r"ERROR.*\. Read .*walker-00/log\.lammps", found.note)
    assert (tmp_path / "walker-00" / "in.steered").exists()


def script(folder: Path, atoms: tuple[int, int] = (0, 1), seed: int = 7) -> str:
    sampler = steered.build(steered.Config(), [cv.Distance(atoms)], PAIR)
    sampler.prepare(folder, Walker(0, seed, PAIR), "POTENTIAL")
    return (folder / "in.steered").read_text()


@pytest.mark.parametrize("seed", [0, -1, 2**31])
def test_seeds_that_lammps_cannot_take_are_refused(tmp_path: Path, seed: int) -> None:
    with pytest.raises(SamplingError, match="velocity seeds"):
        script(tmp_path, seed=seed)


def test_the_paper_s_protocol_is_the_default(tmp_path: Path) -> None:
    text = script(tmp_path, (0, 5))
    for line in (
        "timestep        0.0005",
        "POTENTIAL",
        "group cv_second id 6",
        "velocity        all create 10 7 mom yes rot yes dist gaussian",
        "run             2000",
        "fix             spring cv_first smd cvel 10 1 couple cv_second auto auto auto 0.0",
        "run             6500",
    ):
        assert line in text.splitlines()
