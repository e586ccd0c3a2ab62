"""The display: what is said of a round, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rareal.progress import Display, Lines, Live, Silent, clock, describe, display

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
    assert text == "labels 240 · barrier 7.681 ± 0.012 eV · path error 0.42 kcal/mol · rupture energy -0.20 kcal/mol"
    assert describe({}) == ""
    assert describe({"barrier_eV": 7.0, "barrier_se_eV": None}) == "barrier 7.000 eV"


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
    for part in ("round 0: labels 240", "path error 0.42 kcal/mol", "walker 2 [lost atoms]", "300 labels", "train"):
        assert part in text


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
