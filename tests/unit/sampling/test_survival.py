"""Drives that explode, crash, hang or give no numbers leave a usable trajectory with the reason in its note."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rareal.cv import Distance
from rareal.plugin import lmp_command
from rareal.records import Frame, Trajectory, Walker
from rareal.sampling import lammps, steered
from rareal.sampling.usable import usable

START = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0.3, 0.2, 1.48]]))
CV = Distance((0, 1))
VARIABLES = "\n".join(
    f"variable {name} equal {value}"
    for name, value in (("energy_std", 0.1), ("force_std_max", 0.2), ("force_std_mean", 0.1), ("committee_bias", 0.0))
)
MORSE = f"pair_style morse 8.0\npair_coeff * * 4.0 1.9 1.5\n{VARIABLES}"
STEPS = 400


def sampler(**settings: float) -> steered.SteeredMD:
    values = {"steps": STEPS, "relaxation_steps": 20, "velocity": 0.0001, **settings}
    return steered.build(steered.Config.model_validate(values), [CV], START)


def drive(
    folder: Path, potential: str, progress: Callable[[lammps.Run], None] | None = None, **settings: float
) -> Trajectory:
    """What LAMMPS itself leaves of a drive on a potential of its own."""
    driver, walker = sampler(**settings), Walker(0, 5, START)
    driver.prepare(folder, walker, potential)
    run = driver.run(folder, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0, (lambda done, total: progress(run)) if progress else None)
    return driver.collect(run, walker)


def finite(trajectory: Trajectory) -> bool:
    arrays = (trajectory.positions, trajectory.energy, trajectory.work, trajectory.cv)
    return len(trajectory) > 0 and all(np.isfinite(array).all() for array in arrays)


def test_a_sound_drive_is_used_whole(tmp_path: Path) -> None:
    left = drive(tmp_path, MORSE)
    assert len(left) == STEPS + 1
    assert usable(left, START, (CV,)) is left


def test_forces_that_overflow_end_lammps_and_leave_what_was_before(tmp_path: Path) -> None:
    kick = f"{MORSE}\nvariable kick atom (id-1.5)*exp(1000*(step>20))\nfix kick all addforce v_kick 0 0"
    left = drive(tmp_path, kick, relaxation_steps=0)
    assert left.note == "not finite"
    found = usable(left, START, (CV,))
    assert finite(found)
    assert 15 < len(found) <= 22


def test_a_molecule_that_flies_apart_is_cut_though_lammps_does_not_mind(tmp_path: Path) -> None:
    """The atoms start so close that they leave with 10 eV."""
    close = Frame(START.numbers, np.array([[0.0, 0, 0], [0, 0, 0.95]]))
    driver, walker = sampler(relaxation_steps=0, spring=1e-6, damping=1e6), Walker(0, 5, close)
    driver.prepare(tmp_path, walker, MORSE)
    run = driver.run(tmp_path, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0)
    left = driver.collect(run, walker)
    assert not left.note
    assert len(left) == STEPS + 1
    found = usable(left, close)
    assert 1 < len(found) < STEPS
    assert found.note.startswith(f"cut at step {left.steps[len(found)]}: lost atom C")
    assert 10.8 < CV.value(found.positions)[-1] < 0.95 + 10


def test_a_killed_lammps_leaves_its_whole_lines(tmp_path: Path) -> None:
    def kill(run: lammps.Run) -> None:
        if run.process is not None and run.process.poll() is None and run.done() >= 100:
            os.killpg(run.process.pid, signal.SIGSEGV)

    left = drive(tmp_path, MORSE, kill, steps=3_000_000)
    assert left.note == "crashed (signal 11)"
    assert 100 <= left.steps[-1] < 3_000_000
    assert finite(left)
    assert usable(left, START, (CV,)) is left


FAKE = """\
import math, os, sys, time
table, dump = open("drive.dat", "w"), open("drive.dump", "w")
table.write("# a drive\\n# step cv work bias energy energy_std force_std_max force_std_mean\\n")
for step in range(10):
    z = 1.5 + 0.01 * step
    energy = {energy}
    table.write(f"{{step}} {{z}} 0.1 0 {{energy}} 0.1 0.2 0.1\\n")
    dump.write(f"ITEM: TIMESTEP\\n{{step}}\\nITEM: NUMBER OF ATOMS\\n2\\n")
    dump.write("ITEM: BOX BOUNDS mm mm mm\\n0 1\\n0 1\\n0 1\\n")
    dump.write(f"ITEM: ATOMS id xu yu zu\\n1 0 0 0\\n2 0 0 {{z}}\\n")
table.write("10 1.6 0.")
table.flush(), dump.flush()
{end}
"""


def fake(
    folder: Path, monkeypatch: pytest.MonkeyPatch, end: str, energy: str = "-4.0", patience: float = 60.0
) -> Trajectory:
    """What the sampler gives back where ``lmp`` writes ten frames and then does ``end``."""
    program = folder / "fake.py"
    program.write_text(FAKE.format(end=end, energy=energy))
    monkeypatch.setattr("rareal.sampling.base.lmp_command", lambda: [sys.executable, str(program)])
    return sampler(patience=patience).sample(folder / "model.pt", folder / "walker", Walker(0, 5, START))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "crashed (signal 11)"),
        ("os.abort()", "crashed (signal 6)"),
        ("print('ERROR: Lost atoms: original 2 current 1'); sys.exit(1)", "lost atoms"),
        ("print('ERROR on proc 0: Non-numeric box dimensions'); sys.exit(1)", "not finite"),
        ("sys.exit(7)", "ended with exit status 7"),
    ],
)
def test_a_program_that_fails_leaves_its_frames_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, reason: str
) -> None:
    left = fake(tmp_path, monkeypatch, end)
    assert left.note == reason
    assert left.steps.tolist() == list(range(10))
    assert usable(left, START, (CV,)).note == reason


def test_a_program_that_hangs_leaves_its_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = fake(tmp_path, monkeypatch, "time.sleep(60)", patience=1.0)
    assert left.note == "hung (nothing written for 1 s)"
    assert len(left) == 10


def test_a_program_that_runs_on_with_nan_is_cut_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = fake(tmp_path, monkeypatch, "pass", "-4.0 if step < 6 else math.nan")
    assert left.note == "not finite"
    assert len(left) == 6
    assert finite(usable(left, START, (CV,)))


def test_an_explosion_before_a_crash_is_told_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = fake(tmp_path, monkeypatch, "os.abort()", "-4.0 if step < 7 else 1e5")
    found = usable(left, START, (CV,))
    assert len(found) == 7
    assert found.note == "crashed (signal 6); cut at step 7: the energy exploded (+1e+05 eV)"
