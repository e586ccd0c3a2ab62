"""What a run leaves for others: its model, whole or a member of it, its data, the papers to cite."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import molecule
from commandline import Command

from rareal import Run, labelled, results
from rareal.ase import CommitteeCalculator
from rareal.cite import BY_KIND, BY_VALUE, of_config, plain, references
from rareal.config import KINDS, load
from rareal.data import dataset, formats
from rareal.errors import DatasetError, RunFolderError
from rareal.export import archive
from rareal.records import Frame, Label, LabeledFrame
from rareal.rundir import RunFolder
from rareal.untrained import write_untrained

EXAMPLES = Path(__file__).parents[2] / "examples" / "hexane"


def frames(count: int = 3) -> list[LabeledFrame]:
    """Frames with all that a frame can have."""
    rng = np.random.default_rng(3)
    water = molecule("H2O")
    made = []
    for k in range(count):
        frame = Frame(
            water.numbers.astype(np.int64), water.positions + rng.normal(size=(3, 3)) * 0.01, np.diag([9.0, 8.0, 7.0]),
            (True, True, True), "path", k, 1, 10 * k, 1.5 + k,
        )  # fmt: skip
        label = Label(-140.0 - k, rng.normal(size=(3, 3)), "ab12" * 8, 0.5, rng.normal(size=6), 'smeared "hot" 5 %')
        made.append(LabeledFrame(frame, label, 0.5 if k == 1 else 1.0, "old" if k == 2 else ""))
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of two rounds, as `rareal run` would leave it; its committees have learnt nothing."""
    folder = tmp_path_factory.mktemp("run") / "hexane"
    config = load(EXAMPLES / "hexane.yaml", {"directory": folder})
    with RunFolder.open(folder, config) as run:
        data = run.stage(-1, "data")
        dataset.write(data.folder / "data.h5", frames(), {"ab12" * 8: {"method": "GFN2-xTB"}})
        data.finish(labels=4, failed=1)
        for number in range(2):
            train = run.stage(number, "train")
            write_untrained(train.folder / "model.pt", "ani", ("C", "H", "O"), 3, "float64", 1 + number)
            train.finish(frames=3)
            run.append_round({"round": number, "labels": 4, "barrier_eV": 7.5 + number, "barrier_se_eV": 0.01})
        run.finish(converged=False)
    return folder


def energies(model: Path) -> np.ndarray[Any, Any]:
    ethanol = molecule("CH3CH2OH")
    ethanol.calc = CommitteeCalculator(model)
    ethanol.get_potential_energy()
    found: np.ndarray[Any, Any] = ethanol.calc.results["energies_members"]
    return found


def test_the_last_committee_or_that_of_a_round(finished: Path, tmp_path: Path, command: Command) -> None:
    assert command("export", finished, "-o", tmp_path / "last.pt")[0] == 0
    assert (tmp_path / "last.pt").read_bytes() == (finished / "round-001/train/model.pt").read_bytes()
    assert command("export", finished, "-o", tmp_path / "first.pt", "--round", 0)[0] == 0
    assert (tmp_path / "first.pt").read_bytes() == (finished / "round-000/train/model.pt").read_bytes()
    for arguments, message in (
        ((finished, "-o", tmp_path / "last.pt"), "exists already"),
        ((finished, "-o", tmp_path / "x.pt", "--round", 7), "no training of round 7 has finished; there are [0, 1]"),
        ((tmp_path, "-o", tmp_path / "x.pt"), "this is no run folder"),
        ((tmp_path / "last.pt", "-o", tmp_path / "x.pt"), "whose name ends in .pt2"),
        ((tmp_path / "last.pt", "-o", tmp_path / "x.pt", "--round", 1), "is no run folder; a file has one committee"),
        ((finished,), "what is to be written?"),
        ((finished, "--random", "-o", tmp_path / "x.pt"), "one of the two"),
        (("--random", "--data", tmp_path / "x.h5"), "an untrained committee has no data"),
    ):
        code, _, error = command("export", *arguments)
        assert code != 0
        assert message in error
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize("model", ["ani", "painn", "schnet"])
def test_a_member_alone_is_that_member(model: str, tmp_path: Path, command: Command) -> None:
    whole = tmp_path / "whole.pt"
    write_untrained(whole, model, ("C", "H", "O"), 3, "float32", 5)
    code, out, error = command("export", whole, "-o", tmp_path / "second.pt", "--member", 2)
    assert code == 0, error
    assert "member 2 of" in out
    assert archive.read(tmp_path / "second.pt")[0].members == 1
    np.testing.assert_allclose(energies(tmp_path / "second.pt"), energies(whole)[1:2], rtol=1e-6)
    # less work, not the whole committee with all but one thrown away
    assert (tmp_path / "second.pt").stat().st_size < 0.6 * whole.stat().st_size


def test_which_member(finished: Path, tmp_path: Path, command: Command) -> None:
    assert command("export", finished, "-o", tmp_path / "best.pt", "--member", "best")[0] == 0
    best = archive.read(finished / "round-001/train/model.pt")[0].best_member
    expected = energies(finished / "round-001/train/model.pt")[best : best + 1]
    np.testing.assert_allclose(energies(tmp_path / "best.pt"), expected, rtol=1e-12)
    for member, message in (
        ("4", "has the members 1 to 3"),
        ("0", "1 to 3"),
        ("worst", "give a number from 1, or best"),
    ):
        code, _, error = command("export", finished, "-o", tmp_path / "x.pt", "--member", member)
        assert code == 2
        assert message in error
        assert not (tmp_path / "x.pt").exists()


def same(a: LabeledFrame, b: LabeledFrame) -> None:
    np.testing.assert_array_equal(a.frame.numbers, b.frame.numbers)
    np.testing.assert_array_equal(a.frame.positions, b.frame.positions)
    np.testing.assert_array_equal(a.frame.cell, b.frame.cell)
    np.testing.assert_array_equal(a.label.forces, b.label.forces)
    assert a.label.stress is not None
    assert b.label.stress is not None
    np.testing.assert_allclose(a.label.stress, b.label.stress, rtol=1e-15)
    for name in ("origin", "round", "walker", "step", "cv"):
        assert getattr(a.frame, name) == getattr(b.frame, name), name
    assert (a.label.energy, a.label.engine, a.label.seconds, a.label.note) == (
        b.label.energy, b.label.engine, b.label.seconds, b.label.note,
    )  # fmt: skip
    assert (a.weight, a.replaces) == (b.weight, b.replaces)


@pytest.mark.parametrize("name", ["frames.extxyz", "frames.h5", "frames.db"])
def test_data_keep_all_that_is_known(finished: Path, tmp_path: Path, command: Command, name: str) -> None:
    code, out, error = command("export", finished, "--data", tmp_path / name)
    assert code == 0, error
    assert out.startswith("3 labelled frames")
    found, settings = labelled.read(tmp_path / name)
    for a, b in zip(found, frames(), strict=True):
        same(a, b)
    assert settings["ab12" * 8]["method"] == "GFN2-xTB"
    code, _, error = command("export", finished, "--data", tmp_path / name)
    assert (code, "exists already; overwrite it with --force" in error) == (1, True)
    assert command("export", tmp_path / name, "--data", tmp_path / f"again-{name}", "--force")[0] == 0


def test_other_programs_read_the_data(finished: Path, tmp_path: Path) -> None:
    for name in ("frames.extxyz", "frames.db"):
        results.write_data(finished, tmp_path / name)
        atoms = ase.io.read(tmp_path / name, ":")
        assert [a.get_potential_energy() for a in atoms] == [-140.0, -141.0, -142.0]
        assert atoms[0].get_forces().shape == (3, 3)
    with ase.db.connect(tmp_path / "frames.db") as base:
        (row,) = base.select(round=2, origin="path")
        assert (row.step, row.cv, row.energy) == (20, 3.5, -142.0)


def test_a_database_of_somebody_elses(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "theirs.db") as base:
        base.write(molecule("H2O"))
    with pytest.raises(DatasetError, match="has no 'energy'"):
        formats.read(tmp_path / "theirs.db")
    (tmp_path / "broken.db").write_text("no data base")
    with pytest.raises(DatasetError, match=r"ASE cannot read .*broken\.db"):
        formats.read(tmp_path / "broken.db")


def test_a_run_from_python(finished: Path, tmp_path: Path) -> None:
    run = Run.open(finished)
    assert [found.number for found in run.rounds] == [0, 1]
    assert run.barriers.energy.tolist() == [7.5, 8.5]
    assert run.barriers.error.tolist() == [0.01, 0.01]
    assert np.isnan(run.barriers.reference)
    assert len(run.dataset) == 3
    assert list(run.models) == [0, 1]
    assert run.best == run.rounds[-1].model == finished / "round-001/train/model.pt"
    assert run.config.name == "hexane"
    assert run.status["bought"] == 4
    assert repr(run) == f"<Run {finished}: finished, 2 of {run.config.rounds} rounds>"
    water = molecule("H2O")
    water.calc = run.calculator(member=1)
    assert np.isfinite(water.get_potential_energy())
    assert run.export(tmp_path / "m.pt", member=1).is_file()
    assert run.export(tmp_path / "d.db").is_file()
    with pytest.raises(RunFolderError, match="a data set has no members"):
        run.export(tmp_path / "d.h5", member=1)
    with pytest.raises(RunFolderError, match="no run folder"):
        Run.open(tmp_path)
    empty = tmp_path / "empty"
    RunFolder.open(empty, load(EXAMPLES / "hexane.yaml")).close()
    assert Run.open(empty).rounds == []
    assert len(Run.open(empty).barriers) == 0
    with pytest.raises(RunFolderError, match="no training has finished yet"):
        _ = Run.open(empty).best


def test_citations_of_a_run(finished: Path, tmp_path: Path, command: Command) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    code, out, _ = command("cite", run)
    assert code == 0
    for part in (
        "10.1039/d3dd00216k",
        "10.1016/j.cpc.2021.108171",
        "10.1021/acs.jctc.8b01176",
        "Behler and Parrinello",
    ):
        assert part in out
    text = (run / "citations.bib").read_text()
    for key in ("{rare-events,", "{gfn2-xtb,", "{muon,", "{steered,", "{ani-2x,"):
        assert key in text
    assert "{painn," not in text
    assert command("cite", run, "-o", tmp_path / "mine.bib")[0] == 0
    assert (tmp_path / "mine.bib").read_text() == text


def test_what_is_cited_follows_the_configuration() -> None:
    tree: dict[str, Any] = {
        "cv": [{"kind": "distance"}, {"kind": "colvars"}],
        "engine": {"kind": "cp2k", "method": "GFN1-xTB", "functional": "PBE"},
        "model": {"kind": "script", "module": "rareal.models.mace:build"},
        "training": {"kind": "committee", "optimizer": "adamw", "loss": {"kind": "batch"}},
        "sampler": {"kind": "metadynamics"},
        "executor": {stage: {"kind": "parsl"} for stage in ("label", "sample", "train")},
    }
    found = of_config(tree)
    expected = {"cp2k", "gfn1-xtb", "mace", "adamw", "batch-active-learning", "metadynamics", "colvars", "parsl"}
    assert expected <= set(found.entries)
    assert "pbe" not in found.entries
    tree["engine"] |= {"method": "DFT"}
    assert "pbe" in of_config(tree).entries
    tree |= {"engine": {"kind": "ase", "calculator": "tblite.ase.TBLite"}, "sampler": {"kind": "their.sampler"}}
    notes = " ".join(of_config(tree).notes)
    assert "TBLite" in notes
    assert "their.sampler is not rareal's" in notes


def test_every_kind_and_every_paper_is_known() -> None:
    """A new engine, model, sampler or core says what it brings with it; a paper has a DOI or another address."""
    for section in ("engine", "model", "sampler", "repulsion", "executor"):
        for kind in KINDS[section].modules:
            assert (section, kind) in BY_KIND, f"{section}: {kind}: add it to rareal/cite.py"
    papers = references()
    used = [key for keys in BY_KIND.values() for key in keys] + [key for *_, keys in BY_VALUE for key in keys]
    assert set(used) <= set(papers)
    for key, entry in papers.items():
        assert entry.count("{") == entry.count("}")
        assert key == "zbl" or any(name in entry for name in ("doi = ", "eprint = ", "url = ")), key
        line = plain(entry)
        assert "{" not in line
        assert "\\" not in line


def test_names_are_written_with_their_accents() -> None:
    assert plain(references()["steered"]).startswith("Grubmüller and Heymann and Tavan, Ligand Binding")
    assert "Kühne et al." in plain(references()["cp2k"])
    assert "Hénin" in plain(references()["colvars"])
