"""A labelled set by its name: files and run folders; mixed levels are refused wherever a set is read."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rareal import cli, labelled
from rareal.data import dataset, formats
from rareal.errors import DatasetError
from rareal.files import write_json
from rareal.records import Frame, Label, LabeledFrame
from rareal.rundir import CONFIG, MARKER

GFN2 = {"a" * 64: {"kind": "tblite", "method": "GFN2-xTB", "version": "0.8.0"}}
GFN1 = {"b" * 64: {"kind": "tblite", "method": "GFN1-xTB", "version": "0.8.0"}}


def row(round_number: int, step: int, engine: str = "a" * 64) -> LabeledFrame:
    frame = Frame(np.array([6, 1]), np.eye(2, 3) * (1 + step), origin="path", round=round_number, step=step)
    return LabeledFrame(frame, Label(-1.0, np.zeros((2, 3)), engine))


def stage(folder: Path, rows: list[LabeledFrame], settings: dataset.Settings, done: bool = True) -> None:
    folder.mkdir(parents=True)
    dataset.write(folder / "data.h5", rows, settings)
    if done:
        write_json(folder / MARKER, {})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two rounds, interrupted in the selection of the second one."""
    folder = tmp_path / "run"
    stage(folder / "round-000" / "select", [row(0, 3)], GFN2)
    stage(folder / "round-000" / "check", [row(0, 2)], GFN2)
    stage(folder / "initial" / "data", [row(-1, 0), row(-1, 1)], GFN2)
    stage(folder / "round-001" / "check", [], GFN2)
    stage(folder / "round-001" / "select", [row(1, 9)], GFN2, done=False)
    (folder / CONFIG).touch()
    return folder


def test_a_run_s_labels_in_the_order_of_the_run(run: Path) -> None:
    rows, settings = labelled.read(run)
    assert [item.frame.step for item in rows] == [0, 1, 2, 3]
    assert settings == GFN2


def test_a_run_whose_engine_has_changed(run: Path) -> None:
    stage(run / "round-002" / "check", [row(2, 4, "b" * 64), row(2, 5, "b" * 64)], GFN1)
    with pytest.raises(DatasetError) as caught:
        labelled.read(run)
    first, mine, other, cure = str(caught.value).splitlines()
    assert first.startswith(f"{run}: labels of 2 engines")
    assert mine == (
        "  engine aaaaaaaaaaaa (kind tblite, method GFN2-xTB): 4 frames, of the initial data and of round 0"
    )
    assert other == "  engine bbbbbbbbbbbb (kind tblite, method GFN1-xTB): 2 frames, of round 2"
    assert "rareal relabel" in cure
    rows, settings = labelled.read(run, mixed=True)
    assert len(rows) == 6
    assert settings == GFN2 | GFN1


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="this is no run folder"):
        labelled.read(tmp_path)
    (tmp_path / CONFIG).touch()
    with pytest.raises(DatasetError, match="the run has no labels yet"):
        labelled.read(tmp_path)


def test_a_file(tmp_path: Path) -> None:
    formats.write(tmp_path / "set.h5", [row(0, 0)], GFN2)
    assert labelled.read(tmp_path / "set.h5")[1] == GFN2
    mixed = [row(0, 0), replace(row(1, 1), label=replace(row(1, 1).label, engine="b" * 64))]
    formats.write(tmp_path / "set.xyz", mixed, GFN2)
    with pytest.raises(DatasetError, match=r"set\.xyz: labels of 2 engines.*\n.*\n.*settings not known.*round 1"):
        labelled.read(tmp_path / "set.xyz")
    assert len(labelled.read(tmp_path / "set.xyz", mixed=True)[0]) == 2


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_commands_refuse_a_mixture(
    verb: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage(run / "round-002" / "check", [row(2, 4, "b" * 64)], GFN1)
    (tmp_path / "train.yaml").write_text("seed: 1\n")
    model = str(tmp_path / "model.pt")
    arguments = [str(tmp_path / "train.yaml"), str(run), "-o", model] if verb == "train" else [model, str(run)]
    monkeypatch.setattr(sys, "argv", ["rareal", verb, *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "engine bbbbbbbbbbbb (kind tblite, method GFN1-xTB): 1 frame, of round 2" in capsys.readouterr().err
    assert not (tmp_path / "model.pt").exists()
