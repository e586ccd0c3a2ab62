"""Plots of a run folder that is made up, with curves of the shape that pulling a chain apart gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from made_runs import PEAK, SEEDS, make_reference, make_run

from rareal.errors import RarealError, RunFolderError
from rareal.files import write_csv, write_json, write_npz, write_text
from rareal.report.plots import KINDS, plot_run, write_plots
from rareal.report.rundata import RunData
from rareal.report.style import STYLE

ALL = ["barrier_convergence", "work", "path", "rupture", "uncertainty_cv", "uncertainty", "learning"]
"""What the made-up run has; it has no labels, no times and no profile."""


def drawn(run: Path) -> list[str]:
    """The kinds for which there is something to show; nothing is written."""
    data = RunData(run)
    with matplotlib.rc_context(STYLE):
        return [name for name, kind in KINDS.items() if kind.draw(data) is not None]


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


def test_a_whole_run_gives_every_plot_large_enough_to_read(whole: Path) -> None:
    written = plot_run(whole)
    assert [path.stem for path in written] == ALL
    assert sorted((whole / "plots").iterdir()) == sorted(written), "no table, no temporary file"
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
    assert drawn(run) == ALL


def test_a_reference_shows_in_the_picture(run: Path, tmp_path: Path) -> None:
    kinds = ("barrier_convergence", "work", "rupture", "learning")

    def pictures() -> dict[str, bytes]:
        written = write_plots(RunData(run), KINDS, kinds, tmp_path / "figures", tables=False)
        return {path.stem: path.read_bytes() for path in written}

    before = pictures()
    assert pictures() == before
    shutil.rmtree(run.with_name("chain-reference"))
    after = pictures()
    assert {name for name in kinds if before[name] != after[name]} == {"barrier_convergence", "work", "rupture"}


@pytest.mark.parametrize(
    ("missing", "left"),
    [
        (["rounds.csv", "round-000/sample", "round-000/check", "round-000/select"], ["learning"]),
        (["rounds.csv", "round-000/check", "round-000/select"], ["work", "uncertainty_cv", "uncertainty", "learning"]),
        (
            ["rounds.csv", "config.yaml", "round-000/train"],
            ["work", "path", "rupture", "uncertainty_cv", "uncertainty"],
        ),
        (["round-000"], ["barrier_convergence"]),
    ],
    ids=["trained", "driven", "checked", "table only"],
)
def test_a_half_done_first_round_gives_what_there_is(run: Path, missing: list[str], left: list[str]) -> None:
    for name in ["round-001", "round-002", *missing]:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    assert drawn(run) == left


def test_empty_cells_and_rounds_without_a_pull_are_survived(run: Path) -> None:
    write_csv(run / "rounds.csv", [{"round": 0, "labels": None, "barrier_eV": None, "path_error_kcal_mol": None}])
    write_npz(run / "round-001" / "sample" / "trajectories.npz", count=0)
    write_json(run / "round-000" / "select" / "stage.done", {"summary": {"threshold": None, "chosen": []}})
    assert drawn(run) == ALL


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
    assert drawn(run) == ALL


def test_a_damaged_file_is_named_and_left_out(run: Path) -> None:
    (run / "round-001" / "check" / "path.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.warns(UserWarning, match=r"round-001/check/path\.npz cannot be read"):
        assert drawn(run) == ALL


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such run folder"):
        plot_run(tmp_path / "absent")
    with pytest.raises(RunFolderError, match="no such reference"):
        plot_run(tmp_path, tmp_path / "absent")
    with pytest.raises(RarealError, match="nothing to draw yet"):
        plot_run(tmp_path)
    assert not (tmp_path / "plots").exists()
