"""Reading LAMMPS's output, whole or torn, and the archive."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rareal.cv import Distance
from rareal.errors import SamplingError
from rareal.records import Trajectory
from rareal.sampling.trajectory import assemble, load, read_dump, read_table, save


def dump(steps: list[int], positions: np.ndarray) -> str:
    blocks = []
    for step, frame in zip(steps, positions, strict=True):
        head = ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(len(frame)), "ITEM: BOX BOUNDS mm mm mm"]
        head += ["0 1"] * 3 + ["ITEM: ATOMS id xu yu zu"]
        blocks.append("\n".join(head + [f"{k} {x:.10f} {y:.10f} {z:.10f}" for k, (x, y, z) in enumerate(frame, 1)]))
    return "\n".join(blocks) + "\n"


NAMES = ("work", "energy", "energy_std", "force_std_max", "force_std_mean")
CV = Distance((0, 1))


def table(steps: int) -> dict[str, np.ndarray]:
    columns = {name: np.linspace(k, k + 1, steps) for k, name in enumerate(NAMES, start=1)}
    return {"step": np.arange(float(steps)), **columns}


@pytest.fixture
def positions() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 3, 3))


def test_dump(tmp_path: Path, positions: np.ndarray) -> None:
    path = tmp_path / "drive.dump"
    path.write_text(dump([0, 2, 4, 6, 8], positions))
    steps, read = read_dump(path, 3)
    assert steps.tolist() == [0, 2, 4, 6, 8]
    assert read == pytest.approx(positions, abs=1e-9)


@pytest.mark.parametrize("lost", [1, 10, 40, 200])
def test_torn_dump_loses_only_what_is_torn(tmp_path: Path, positions: np.ndarray, lost: int) -> None:
    path = tmp_path / "drive.dump"
    text = dump([0, 2, 4, 6, 8], positions)
    path.write_text(text[:-lost])
    steps, read = read_dump(path, 3)
    assert len(steps) == len(read) == 5 - (1 if lost < len(text) / 5 else 2)
    assert read == pytest.approx(positions[: len(read)], abs=1e-9)


def test_dump_of_another_kind_is_refused(tmp_path: Path, positions: np.ndarray) -> None:
    path = tmp_path / "drive.dump"
    path.write_text(dump([0, 1, 2, 3, 4], positions).replace("\n2 ", "\n7 "))
    with pytest.raises(SamplingError, match=r"drive\.dump is no dump of 3 atoms"):
        read_dump(path, 3)


def test_torn_table(tmp_path: Path) -> None:
    path = tmp_path / "drive.dat"
    path.write_text("# a title\n# step work energy\n0 1 2\n1 3 4\n2 5")
    columns = read_table(path)
    assert {name: values.tolist() for name, values in columns.items()} == {
        "step": [0, 1], "work": [1, 3], "energy": [2, 4],
    }  # fmt: skip
    assert read_table(tmp_path / "none") == {}
    path.write_text("# a title\n# step work energy\n")
    assert read_table(path) == {}


def test_table_and_frames_meet_at_common_steps(positions: np.ndarray) -> None:
    joined = assemble(table(9), np.array([0, 2, 4, 6, 8]), positions, [CV], 1, 7, "")
    assert joined.steps.tolist() == [0, 2, 4, 6, 8]
    assert joined.work == pytest.approx(table(9)["work"][::2])
    assert joined.force_std == pytest.approx(table(9)["force_std_max"][::2])
    assert joined.cv == pytest.approx(np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1))
    assert joined.cvs[:, 0] == pytest.approx(joined.cv)
    assert not joined.bias.any()
    assert joined.note == ""


def test_cut_before_what_is_not_finite(positions: np.ndarray) -> None:
    rows = table(5)
    rows["energy"][3] = np.inf
    joined = assemble(rows, np.arange(5), positions, [CV], 0, 7, "")
    assert (joined.steps.tolist(), joined.note) == ([0, 1, 2], "not finite")
    positions[2, 1, 0] = np.nan
    joined = assemble(table(5), np.arange(5), positions, [CV], 0, 7, "lost atoms")
    assert (joined.steps.tolist(), joined.note) == ([0, 1], "lost atoms")


def test_archive_gives_back_what_it_got(tmp_path: Path, positions: np.ndarray) -> None:
    kept = [assemble(table(5), np.arange(5), positions + k, [CV], k, 7 + k, "hung" * k) for k in range(2)]
    read = load(save(tmp_path / "t.npz", kept))
    for before, after in zip(kept, read, strict=True):
        for item in fields(Trajectory):
            old, new = getattr(before, item.name), getattr(after, item.name)
            assert type(old) is type(new)
            assert np.array_equal(old, new)
