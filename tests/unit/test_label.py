"""`rareal label`: a file of geometries in, a labelled set out; nothing is lost and nothing computed twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from rareal import cli, label
from rareal.data import formats
from rareal.errors import ConfigError, DatasetError, LabelError
from rareal.files import read_csv
from rareal.labelconfig import load_labels
from rareal.progress import Silent


class Case:
    """A folder with a YAML and geometries, and what the engine was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames = folder / "frames.xyz"
        self.output = folder / "out.h5"
        self.calls = folder / "calls"
        self.yaml = folder / "tied.yaml"
        self.geometries([("CH4", k) for k in range(8)])
        self.engine()

    def geometries(self, kinds: list[tuple[str, int]]) -> None:
        """Write molecules of random geometry, by formula and seed."""
        images = []
        for formula, seed in kinds:
            atoms = Atoms(formula)
            atoms.pbc = seed == 7
            atoms.cell = 9 * np.eye(3)
            atoms.positions = np.random.default_rng(seed).normal(size=(len(atoms), 3)) * 3
            images.append(atoms)
        ase.io.write(self.frames, images)

    def engine(self, cache: str = "", **settings: object) -> None:
        """Write the YAML."""
        told = "".join(f", {key}: {value}" for key, value in settings.items())
        self.yaml.write_text(
            f"engine: {{kind: rareal.testing.tied, calls: {self.calls}{told}}}\n"
            f"labels: {{cache: {cache or self.folder / 'cache'}}}\n"
        )

    def label(self, force: bool = False) -> label.Labels:
        """Label the geometries in this process."""
        return label.label_file(load_labels(self.yaml), self.frames, self.output, force, Silent())

    def asked(self) -> list[int]:
        """The numbers of the frames that the engine was asked for."""
        return [int(line) for line in self.calls.read_text().split()] if self.calls.exists() else []

    def start(self) -> subprocess.Popen[str]:
        """`rareal label` in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "rareal", "label", str(self.yaml), str(self.frames), "-o", str(self.output)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # tests that a script runs in the background are born deaf to Ctrl-C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_labels_and_provenance(case: Case) -> None:
    found = case.label()
    assert (found.computed, len(found.failed)) == (8, 0)
    rows, settings = formats.read_set(case.output)
    for k, row in enumerate(rows):
        np.testing.assert_array_equal(row.label.forces, -row.frame.positions)
        assert row.label.energy == pytest.approx(0.5 * np.sum(row.frame.positions**2), rel=1e-14)
        np.testing.assert_array_equal(row.label.stress, np.arange(6.0) if k == 7 else None)
        assert (row.label.note, row.frame.origin, row.frame.step) == ("tied", "file", k)
    assert settings == {rows[0].label.engine: {"kind": "tied", "stiffness": 1.0, "atoms": {}, "forces": 1.0}}
    assert "8 of 8 frames labelled, 8 of them computed now" in found.describe()
    assert sorted(path.name for path in case.folder.iterdir()) == [
        "cache",
        "calls",
        "frames.xyz",
        "out.h5",
        "tied.yaml",
    ]


def test_nothing_is_computed_twice(case: Case) -> None:
    case.geometries([("CH4", 0), ("CH4", 1), ("CH4", 0), ("CH4", 1), ("CH3", 0)])
    assert case.label().computed == 3
    case.geometries([("CH4", 2), ("CH3", 0), ("CH4", 1)])
    assert case.label(force=True).computed == 1
    assert len(case.asked()) == 4
    case.engine(stiffness=2.0)
    assert case.label(force=True).computed == 3
    assert len(case.asked()) == 7


def test_failed_frames_are_left_out_and_told(case: Case) -> None:
    case.geometries([("CH4", 0), ("NeH", 1), ("CH4", 2)])
    found = case.label()
    assert found.failed == {1: "neon will not be tied"}
    assert [row.frame.step for row in formats.read(case.output)] == [0, 2]
    assert f"no label: {case.frames}, frame 1 (HNe): neon will not be tied" in found.describe()
    table = case.folder / "out.h5.failed.csv"
    (told,) = read_csv(table)
    assert (told["frame"], told["formula"], told["reason"]) == (
        f"{case.frames}, frame 1", "HNe", "neon will not be tied",
    )  # fmt: skip
    assert "neon will not be tied" in Path(told["files"], "reason.txt").read_text()
    case.geometries([("CH4", 0)])
    case.label(force=True)
    assert not table.exists()


def test_no_label_at_all(case: Case) -> None:
    case.geometries([("Ne", seed) for seed in range(12)])
    with pytest.raises(
        LabelError, match=r"no frame got a label, .*out\.h5 is not written; .*has all\n(.*\n)+no label: 2 more"
    ):
        case.label()
    assert not case.output.exists()
    assert len(label.Labels.failures_file(case.output).read_text().splitlines()) == 13


def test_a_frame_that_does_not_go_with_the_engine_is_refused_first(case: Case) -> None:
    case.geometries([("CH4", 0), ("CH4", 1), ("HeH", 2)])
    with pytest.raises(ConfigError) as caught:
        case.label()
    assert str(caught.value) == (
        f"{case.yaml}:1: engine.stiffness: 1.0: helium cannot be tied ({case.frames}, frame 2)"
    )
    assert case.asked() == []


def test_an_output_is_not_overwritten(case: Case) -> None:
    case.output.touch()
    with pytest.raises(DatasetError, match="exists already"):
        case.label()
    assert case.asked() == []


@pytest.mark.parametrize(("kind", "cache"), [(signal.SIGINT, ""), (signal.SIGKILL, ""), (signal.SIGTERM, "none")])
def test_an_interruption_loses_nothing(case: Case, kind: signal.Signals, cache: str) -> None:
    case.engine(cache, seconds=1.0)
    process = case.start()
    give_up = time.monotonic() + 120
    while len(case.asked()) < 5 and time.monotonic() < give_up:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(kind)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == (-kind if kind == signal.SIGKILL else 128 + kind)
    assert ("The same command goes on from here" in error) == (kind != signal.SIGKILL)
    assert not case.output.exists()
    time.sleep(1.0)  # its workers end by themselves
    before = Counter(case.asked())
    assert max(before.values()) == 1
    case.label()
    after = Counter(case.asked())
    assert sorted(after) == list(range(8))
    repeated = [k for k in after if after[k] > 1]
    # what was being computed when it came, and what had just come
    assert len(repeated) <= 4
    assert len(before) - len(repeated) >= 1
    assert len(formats.read(case.output)) == 8
    assert not list(case.folder.glob("*.partial"))


@pytest.mark.parametrize(
    ("kinds", "code", "told"),
    [
        (["CH4"], 0, "1 of 1 frames labelled"),
        (["CH4", "NeH"], 3, "neon will not be tied"),
        (["NeH"], 1, "no frame got a label"),
        (["HeH"], 2, "helium cannot be tied"),
    ],
)
def test_exit_codes(
    case: Case, kinds: list[str], code: int, told: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    case.geometries([(kind, 0) for kind in kinds])
    monkeypatch.setattr(sys, "argv", ["rareal", "label", str(case.yaml), str(case.frames), "-o", str(case.output)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert (caught.value.code or 0) == code
    out, error = capsys.readouterr()
    assert told in out + error
    assert case.output.exists() == (code in (0, 3))
