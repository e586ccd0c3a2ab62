"""Change of level: provenance stays, the shift is what it is known to be, mixtures pass only when asked to."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rareal import cli
from rareal.data import formats
from rareal.errors import DatasetError
from rareal.labelconfig import load_labels
from rareal.progress import Silent
from rareal.records import Frame, Label, LabeledFrame
from rareal.relabel import Outcome, relabel, shift

OLD = "o" * 64


def row(numbers: tuple[int, ...], seed: int, engine: str = OLD) -> LabeledFrame:
    """A frame as an old engine has labelled it: springs of 1 eV/Å², no energies of atoms."""
    positions = np.random.default_rng(seed).normal(size=(len(numbers), 3))
    frame = Frame(np.array(numbers), positions, origin="path", round=seed % 3, walker=1, step=seed, cv=seed / 10)
    label = Label(0.5 * float(np.sum(positions**2)), -positions, engine, 2.5, note="old")
    return LabeledFrame(frame, label, 0.25)


MOLECULES = ((6, 1), (6, 1, 1), (6, 6, 1, 1), (6, 1, 1, 1))


def rows(count: int = 12) -> list[LabeledFrame]:
    return [row(MOLECULES[k % 4], k) for k in range(count)]


class Case:
    """A labelled set, and a YAML with the new level."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.yaml = folder / "new.yaml"
        self.calls = folder / "calls"
        self.engine()

    def engine(self, stiffness: float = 1.0) -> None:
        """Write the YAML: atoms of energy, and springs of another stiffness."""
        self.yaml.write_text(
            f"engine: {{kind: rareal.testing.tied, calls: {self.calls}, stiffness: {stiffness}, "
            f"atoms: {{C: -7.5, H: 0.25}}}}\nlabels: {{cache: {self.folder / 'cache'}}}\n"
        )

    def relabel(self, held: list[LabeledFrame], *rules: str, mixed: bool = False, name: str = "new.h5") -> Outcome:
        """Take a set to the level of the YAML."""
        formats.write(self.folder / "old.extxyz", held, {OLD: {"kind": "former"}})
        output = self.folder / name
        config = load_labels(self.yaml)
        return relabel(self.folder / "old.extxyz", config, output, rules, 1, Silent(), mixed=mixed, force=True)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize("name", ["new.h5", "new.extxyz"])
def test_provenance_is_kept_and_the_old_engine_recorded(case: Case, name: str) -> None:
    found = case.relabel(rows(), name=name)
    kept, settings = formats.read_set(case.folder / name)
    assert len(kept) == 12
    for new, old in zip(kept, rows(), strict=True):
        assert new.replaces == OLD
        assert new.label.engine == found.labels.engine
        assert new.weight == 0.25
        for field in ("origin", "round", "walker", "step", "cv"):
            assert getattr(new.frame, field) == getattr(old.frame, field)
        np.testing.assert_array_equal(new.frame.positions, old.frame.positions)
        assert new.label.energy - old.label.energy == pytest.approx(
            -7.5 * np.sum(old.frame.numbers == 6) + 0.25 * np.sum(old.frame.numbers == 1), abs=1e-12
        )
    assert settings[found.labels.engine]["kind"] == "tied"


def test_a_shift_by_element_is_found_exactly(case: Case) -> None:
    (found,) = case.relabel(rows()).shifts
    assert (found.engine, found.frames) == (OLD, 12)
    assert found.elements == pytest.approx({"H": 0.25, "C": -7.5}, abs=1e-12)
    assert found.rest_rms == pytest.approx(0.0, abs=1e-12)
    assert found.force_rms == 0.0
    assert "per atom: H +0.2500, C -7.5000 eV" in found.describe()


def test_what_changes_the_shape_is_what_the_regression_leaves(case: Case) -> None:
    case.engine(stiffness=1.1)
    (found,) = case.relabel(rows()).shifts
    every = np.concatenate([item.frame.positions.ravel() for item in rows()])
    assert found.force_rms == pytest.approx(0.1 * np.sqrt(np.mean(every**2)))
    assert found.force_max == pytest.approx(0.1 * np.abs(every).max())
    assert found.force_scale == pytest.approx(1.1 * np.sqrt(np.mean(every**2)))
    assert "(9.1 % of the forces)" in found.describe()
    counts = np.array([[np.sum(item.frame.numbers == z) for z in (1, 6)] for item in rows()])
    change = np.array([0.05 * np.sum(item.frame.positions**2) for item in rows()])
    rest = change - counts @ np.linalg.solve(counts.T @ counts, counts.T @ change)
    assert found.rest_rms == pytest.approx(np.sqrt(np.mean(rest**2)))
    assert found.rest_max == pytest.approx(np.abs(rest).max())


def test_one_composition_does_not_tell_the_elements_apart() -> None:
    old = [row((6, 1), k) for k in range(4)]
    new = [replace(item, label=replace(item.label, energy=item.label.energy - 3.0, engine="n")) for item in old]
    found = shift(old, new)
    assert found.elements == {}
    assert found.mean == pytest.approx(-3.0)
    assert found.rest_rms == pytest.approx(0.0, abs=1e-12)
    assert "one composition does not tell it by element" in found.describe()
    assert np.isnan(shift(old[:1], new[:1]).rest_rms)
    assert "too few frames to tell" in shift(old[:1], new[:1]).describe()


def test_some_frames(case: Case) -> None:
    found = case.relabel(rows(), "rounds=1-2", "every=2")
    assert [item.frame.step for item in found.rows] == [1, 4, 7, 10]
    assert len(case.calls.read_text().split()) == 4


def test_failed_frames_keep_the_rows_in_step(case: Case) -> None:
    held = rows(6)
    held[2] = row((10, 1), 2)
    found = case.relabel(held)
    assert [item.frame.step for item in found.rows] == [0, 1, 3, 4, 5]
    assert found.labels.failed == {2: "neon will not be tied"}
    assert "old.extxyz, frame 2 (HNe)" in found.labels.describe()
    assert found.shifts[0].elements == pytest.approx({"H": 0.25, "C": -7.5}, abs=1e-12)


def test_a_mixture_passes_only_when_asked_to(case: Case) -> None:
    held = [*rows(6), *(row(MOLECULES[k % 4], k, "p" * 64) for k in range(6, 12))]
    with pytest.raises(DatasetError, match=r"engine oooooooooooo \(kind former\): 6 frames, of rounds 0-2"):
        case.relabel(held)
    assert not case.calls.exists()
    found = case.relabel(held, mixed=True)
    assert [(item.engine[0], item.frames) for item in found.shifts] == [("o", 6), ("p", 6)]
    assert {item.label.engine for item in formats.read(case.folder / "new.h5")} == {found.labels.engine}


def test_what_is_at_the_level_already_is_not_computed(case: Case) -> None:
    first = case.relabel(rows(4))
    case.calls.unlink()
    found = case.relabel([*first.rows, *rows(8)[4:]], mixed=True)
    assert len(case.calls.read_text().split()) == 4
    assert [item.replaces for item in found.rows] == [OLD] * 8
    assert found.shifts[0].frames == 4
    with pytest.raises(DatasetError, match="of this engine and these settings already"):
        case.relabel(found.rows)


def test_the_command(case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    formats.write(case.folder / "old.h5", rows(), {})
    command = ["rareal", "relabel", case.folder / "old.h5", "--config", case.yaml, "-o", case.folder / "new.xyz"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--select", "diverse=6", "--json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["failed"]) == (6, 0)
    assert told["shifts"][0]["elements"] == pytest.approx({"H": 0.25, "C": -7.5}, abs=1e-12)
