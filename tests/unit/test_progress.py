"""The display: what is said of a round, on a terminal and in a log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rareal.config import load
from rareal.progress import Display, Lines, Live, Silent, clock, describe, display
from rareal.rundir import RunFolder
from rareal.units import KCAL_MOL

EXAMPLES = Path(__file__).parents[2] / "examples" / "hexane"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder in its third round."""
    folder = tmp_path / "run"
    with RunFolder.open(folder, load(EXAMPLES / "hexane.yaml")) as opened:
        opened.stage(-1, "data").finish(labels=60)
        opened.stage(0, "check").finish(labels=4, failed=1)
        opened.stage(1, "select").finish(
            threshold=[0.05, 0.02], worthwhile=[10, 20], rows=[100, 100], labels=36, failed=4
        )
        for number in range(2):
            opened.append_round(
                {"round": number, "labels": 100, "barrier_eV": 7.5 + 0.1 * number, "barrier_se_eV": 0.01}
            )
    return folder


ROW = {
    "round": 1,
    "labels": 240,
    "barrier_eV": 7.6812,
    "barrier_se_eV": 0.0123,
    "reference_eV": None,
    "error_kcal_mol": None,
    "path_error_kcal_mol": 0.42,
    "rupture_energy_error_kcal_mol": -0.2,
    "rupture_force_error_percent": float("nan"),
}


def walk(shown: Display) -> None:
    """What a loop does with a display."""
    shown.round(0, 3)
    with shown.stage("train") as progress:
        progress(1, 4)
        progress(4, 4)
    shown.row(ROW)
    shown.round(1, 3)
    with shown.stage("sample"):
        shown.note("walker 2 [lost atoms]")
    with pytest.raises(ZeroDivisionError), shown.stage("label"):
        _ = 1 / 0
    shown.row({"labels": 300})


def test_description_leaves_out_what_is_not_known() -> None:
    text = describe(ROW)
    assert (
        text
        == "labels 240 · barrier 7.681 ± 0.012 eV · path error 0.42 kcal/mol · rupture off reference -0.20 kcal/mol"
    )
    assert describe({}) == ""
    assert describe({"barrier_eV": 7.0, "barrier_se_eV": None}) == "barrier 7.000 eV"


def test_the_rupture_is_told_with_its_change_and_where_there_is_none() -> None:
    row = {"rupture_energy_eV": 5.0, "rupture_bond": "1-2"}
    assert describe(row) == "rupture 5.000 eV"
    assert describe({**row, "rupture_energy_eV": 5.0 + KCAL_MOL}, row) == "rupture 5.043 eV (+1.00 kcal/mol)"
    for nothing in (None, float("nan")):
        assert describe({"rupture_energy_eV": nothing, "rupture_bond": "none"}, row) == "no rupture found"
    assert describe({"rupture_energy_eV": None, "rupture_bond": ""}) == ""


def test_lines() -> None:
    stream = io.StringIO()
    walk(Lines(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("round 0/2: train 4/4 (")
    assert lines[1] == f"round 0/2: {describe(ROW)}"
    assert lines[2] == "round 1/2: walker 2 [lost atoms]"
    assert lines[-1] == "round 1/2: labels 300"


def test_live() -> None:
    stream = io.StringIO()
    with Live(Console(file=stream, force_terminal=True, width=160)) as live:
        walk(live)
    text = stream.getvalue()
    for part in ("round 0: labels 240", "path error 0.42 kcal/mol", "walker 2 [lost atoms]", "labels 300"):
        assert part in text


def test_the_change_of_the_barrier_is_told() -> None:
    before = {**ROW, "barrier_eV": 7.6812 - 0.1 * KCAL_MOL}
    assert "barrier 7.681 ± 0.012 eV (+0.10 kcal/mol)" in describe(ROW, before)
    assert "(" not in describe(ROW, {**ROW, "barrier_eV": None})
    stream = io.StringIO()
    lines = Lines(stream)
    for row in (before, ROW):
        lines.row(row)
    assert [line.count("kcal/mol)") for line in stream.getvalue().splitlines()] == [0, 1]


def test_of_a_run_more_is_told(run: Path) -> None:
    """Labels bought and refused, the barrier and its change, the threshold and how many frames pass it."""
    stream = io.StringIO()
    lines = Lines(stream, run)
    lines.round(1, 3)
    lines.row({"round": 1, "labels": 100})
    told = "threshold 0.02 to 0.05, 30 of 200 frames above it; 36 labels bought, 4 refused"
    assert stream.getvalue().splitlines()[-1] == f"round 1/2: {told}"
    stream = io.StringIO()
    with Live(Console(file=stream, force_terminal=True, width=120), run) as live:
        live.round(2, 3)
        with live.stage("drive") as progress:
            progress(50, 200)
            live._screen.refresh()
    text = stream.getvalue()
    for part in ("100 of 600 bought, 5 refused", "7.600 ± 0.010 eV, +2.31 kcal/mol since", told, "drive", "50/200"):
        assert part in text


def test_a_run_that_is_being_made_disturbs_no_view(tmp_path: Path) -> None:
    stream = io.StringIO()
    with Live(Console(file=stream, force_terminal=True, width=120), tmp_path / "nowhere") as live:
        live.round(0, 3)
        live._screen.refresh()
    assert "ound 0" in stream.getvalue()


def test_silent(capsys: pytest.CaptureFixture[str]) -> None:
    walk(Silent())
    assert capsys.readouterr() == ("", "")


def test_output_that_is_no_terminal_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with display() as shown:
        shown.note("hello")
    with display(quiet=True) as shown:
        shown.note("hush")
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (187, "3:07"), (3599.6, "1:00:00"), (3723, "1:02:03")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
