"""The page of a run, its plots with their numbers, and comparisons, from a run folder that is made up."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_runs import LENGTHS, PICKED, REFUSED, SPECIAL, make_reference, make_run, make_small_run

from rareal.errors import ConfigError, RunFolderError
from rareal.files import read_csv, write_npz, write_text
from rareal.report.molecule import molecule
from rareal.report.rundata import RunData
from rareal.reporting import write_comparison, write_kinds, write_report
from rareal.units import KCAL_MOL
from rareal.untrained import write_untrained

SECTIONS = [
    "barrier",
    "curves",
    "molecule",
    "path",
    "uncertainty",
    "errors",
    "learning",
    "labels",
    "cost",
    "provenance",
]
KINDS = ["barrier_convergence", "work", "path", "uncertainty_cv", "uncertainty", "learning", "labels", "cost"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Page(HTMLParser):
    """What a page holds: ids of sections, addresses, text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.scripts: list[str] = []
        self.captions = 0
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        if tag == "section":
            self.sections.append(str(told["id"]))
        self.captions += tag == "figcaption"
        self.addresses += [str(told[name]) for name in ("src", "href", "action", "data") if name in told]
        if tag == "script":
            self.scripts.append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose last round has a model; nothing in it is to be changed."""
    run = make_small_run(tmp_path_factory.mktemp("report") / "run")
    write_untrained(run / "round-001" / "train" / "model.pt", "ani", ["C", "H"], 2, "float32", 1)
    return run


@pytest.fixture(scope="module")
def text(trained: Path) -> str:
    return write_report(trained, trained.parent / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run without a model."""
    return make_small_run(tmp_path / "run")


def test_the_page_has_every_section_and_asks_for_no_other_file(text: str) -> None:
    page = Page(text)
    assert page.sections == SECTIONS
    assert page.captions == len(KINDS) + 4, "parity and calibration of both sets besides"
    for address in page.addresses:
        assert address.startswith(("#", "data:image/")), address[:80]
    assert "default-src 'none'" in text, "the browser is told to load nothing"
    assert len(page.scripts) == 3, "data, viewer, what starts the viewer; none of the run's making"
    assert len(text) < 2_000_000


def test_pictures_are_what_they_are_said_to_be(text: str) -> None:
    pictures = re.findall(r'src="data:image/(svg\+xml|png);base64,([^"]*)"', text)
    assert len(pictures) == len(KINDS) + 4
    for kind, content in pictures:
        raw = base64.b64decode(content, validate=True)
        assert raw.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


def test_text_of_the_run_is_escaped(text: str) -> None:
    page = Page(text)
    for told in (SPECIAL, REFUSED, "walker 1: <lost> atoms", "<x>.yaml", "a < b & c"):
        assert told in page.text
    assert "alert(1)" not in "".join(page.scripts)


def test_the_page_says_what_the_run_is(text: str) -> None:
    told = Page(text).text
    for part in (
        "Converged after 2 rounds", "3.061 ± 0.030 eV (70.6 ± 0.7 kcal/mol)", "25 bought of at most 50; 2 refused",
        "tblite, GFN2-xTB", "4 × ani", "walker 0: 1, walker 1: 2", "c0ffee", "torch", "2.13.0", "Python", "budget: 50",
        "frames labelled afterwards (9)", "frames it learnt from (14)",
    ):  # fmt: skip
        assert part in told, part


def test_molecule_at_its_three_instants(run: Path) -> None:
    found = molecule(RunData(run))
    assert found is not None
    assert [item.title for item in found.snapshots] == ["Start", "At the barrier", "After it"]
    lengths = [float(np.linalg.norm(item.positions[0] - item.positions[1])) for item in found.snapshots]
    assert lengths[0] == pytest.approx(1.52, abs=1e-3)
    assert 2.1 < lengths[1] < 3.2, "while the bond goes"
    assert lengths[2] == pytest.approx(LENGTHS[-1], abs=1e-3)
    assert [(0, 1) in item.bonds for item in found.snapshots] == [True, False, False]
    assert all(len(item.bonds) >= 6 for item in found.snapshots)
    assert found.source.startswith("walker 1 of round 1")
    assert found.viewer()["labels"] == {"0": "C1", "1": "C2"}
    # all three are turned alike, and none is a mirror image
    first, last = found.snapshots[0].positions, found.snapshots[-1].positions
    volume = [np.linalg.det(p[[2, 3, 4]] - p[1]) for p in (first, last)]
    assert np.sign(volume[0]) == np.sign(volume[1])


def test_a_run_that_is_not_finished_says_so_and_shows_what_there_is(tmp_path: Path) -> None:
    run = make_small_run(tmp_path / "run", finished=False)
    for name in ("rounds.csv", "round-000/check", "round-000/select", "round-001"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    (run / "round-000" / "check").mkdir()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "This run is not finished" in page.text
    assert "stage “check” of round 0 under way or interrupted" in page.text
    assert page.sections == ["barrier", "curves", "molecule", "uncertainty", "learning", "labels", "cost", "provenance"]
    assert "No round has finished yet." in page.text


def test_damaged_files_are_named_on_the_page(run: Path) -> None:
    (run / "round-001" / "check" / "path.npz").write_bytes(b"PK\x03\x04 no archive")
    (run / "round-001" / "train" / "model.pt").write_bytes(b"no model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.parent)
        told = Page(write_report(Path("run")).read_text(encoding="utf-8")).text
    assert "round-001/check/path.npz cannot be read" in told
    assert "the last committee cannot be judged" in told
    assert "model.pt" in told


@pytest.mark.parametrize("verb", [write_report, write_kinds], ids=["report", "plot"])
def test_a_foreign_or_broken_folder_is_one_clear_error(run: Path, verb: object) -> None:
    with pytest.raises(RunFolderError, match="this is no run folder"):
        verb(run.parent)  # type: ignore[operator]
    write_text(run / "config.yaml", "name: x\n")
    with pytest.raises(RunFolderError, match="this run folder is damaged .it lacks 'seed'"):
        verb(run)  # type: ignore[operator]
    write_text(run / "config.yaml", "a: [\n")
    with pytest.raises(RunFolderError, match="this run folder is damaged"):
        verb(run)  # type: ignore[operator]


def test_tables_hold_the_numbers_of_the_run(run: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    written = write_kinds(run, output=figures)
    assert sorted(path.name for path in written) == sorted(f"{k}.{end}" for k in KINDS for end in ("png", "csv"))
    tables = {kind: read_csv(figures / f"{kind}.csv") for kind in KINDS}
    with np.load(run / "round-001" / "sample" / "trajectories.npz") as archive:
        work, std = archive["1/work"], archive["0/energy_std"]
    last = [row for row in tables["work"] if (row["round"], row["walker"]) == (1, 1)]
    assert [row["work_eV"] for row in last] == work.tolist()
    assert [row["cv_A"] for row in last] == LENGTHS.tolist()
    assert {row["velocity_seed"] for row in last} == {2}
    first = [row for row in tables["uncertainty_cv"] if (row["round"], row["walker"]) == (1, 0)]
    assert [row["energy_std_eV"] for row in first] == std.tolist()
    assert [k for k, row in enumerate(first) if row["selected"]] == PICKED
    assert {row["threshold_of_energy_std_eV"] for row in first} == {2e-3}, "its own, not the other walker's"
    assert tables["barrier_convergence"] == read_csv(run / "rounds.csv")
    assert [row["error_kcal_mol"] for row in tables["path"]] == pytest.approx([0.01 / KCAL_MOL] * 12)
    labels = tables["labels"]
    assert [row["origin"] for row in labels].count("selected") == 6
    assert [row["failed"] for row in labels if row["failed"]] == [REFUSED] * 2
    # kept without a value: it comes from the geometry
    assert [row["cv_A"] for row in labels[:5]] == pytest.approx(1.5 + 0.01 * np.arange(5), abs=1e-3)
    cost = tables["cost"]
    assert [row["round"] for row in cost] == [-1, 0, 1]
    assert (cost[1]["train_s"], cost[1]["check_s"], cost[1]["select_s"], cost[0]["data_s"]) == (30, 4, 1.5, 2.5)
    # of nine labels one in each stage came from the cache
    assert (cost[1]["labels"], cost[1]["refused"], cost[1]["engine_s"]) == (9, 1, 7 * 0.25)


def test_single_kinds_and_unknown_ones(run: Path, tmp_path: Path) -> None:
    written = write_kinds(run, ["cost"], tmp_path / "figures")
    assert [path.name for path in written] == ["cost.png", "cost.csv"]
    with pytest.raises(ConfigError, match="there is no plot 'costs'; there are all, barrier_convergence, work"):
        write_kinds(run, ["costs"])
    with pytest.raises(RunFolderError, match="rupture: nothing of that in this run"):
        write_kinds(run, ["rupture"])


def test_parity_table_holds_the_labels(trained: Path, tmp_path: Path) -> None:
    rows = read_csv(write_kinds(trained, ["parity_unseen"], tmp_path)[1])
    energies = np.array([row["label"] for row in rows if row["quantity"] != "force component"])
    lengths = LENGTHS[[0, 100, 185, 200, 215, 250, *PICKED]]
    expected = 3 * (lengths - 1.52) ** 2
    assert energies == pytest.approx(expected - expected.min())
    assert sum(row["quantity"] == "force component" for row in rows) == 9 * 8 * 3


def test_a_free_energy_is_drawn_with_its_error(run: Path, tmp_path: Path) -> None:
    coordinate = np.linspace(1.5, 3.5, 21)
    for number in range(2):
        folder = run / f"round-{number:03d}" / "sample"
        write_npz(folder / "profile.npz", kind="free energy", coordinate=coordinate, energy=np.sin(coordinate),
                  error=np.full(21, 0.02), barrier=0.5, barrier_error=0.02, note="hills <overlap>")  # fmt: skip
    written = write_kinds(run, ["profile"], tmp_path)
    rows = read_csv(written[1])
    assert [row["energy_eV"] for row in rows if row["round"] == 1] == np.sin(coordinate).tolist()
    assert {row["kind"] for row in rows} == {"free energy"}
    assert RunData(run).rounds[1].notes == ["walker 1: <lost> atoms", "hills <overlap>"]


def test_a_surface_of_two_variables_and_its_barrier_in_time(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["cv"] = [{"kind": "dihedral", "atoms": [3, 1, 2, 6]}, {"kind": "distance", "atoms": [1, 2]}]
    write_text(run / "config.yaml", yaml.safe_dump(config))
    first, second = np.meshgrid(np.linspace(-170, 170, 18), np.linspace(1.4, 3.4, 6), indexing="ij")
    energy = (0.2 * (1 - np.cos(np.radians(2 * first))) + (second - 2) ** 2).ravel()
    energy[0] = np.inf  # not visited
    surface = {
        "coordinates": np.stack([first.ravel(), second.ravel()], axis=1), "energy": energy, "error": 0.01 * energy,
        "hills": energy + 0.02, "shape": np.array([18, 6]), "first": np.array([-10, 2]), "second": np.array([170, 2]),
        "saddle": np.array([-90, 2]), "way": np.array([51, 45, 3, 105]), "times": np.array([100, 200]),
        "so_far": np.array([0.3, 0.4]), "so_far_reverse": np.array([np.nan, 0.39]),
    }  # fmt: skip
    write_npz(run / "round-001" / "sample" / "free_energy.npz", **surface)
    write_kinds(run, ["free_energy", "barrier_time"], tmp_path)
    rows = read_csv(tmp_path / "free_energy.csv")
    assert [row["cv1_deg"] for row in rows] == first.ravel().tolist()
    assert [row["cv2_A"] for row in rows] == second.ravel().tolist()
    assert [row["free_energy_eV"] for row in rows] == [None, *energy[1:].tolist()]
    so_far = read_csv(tmp_path / "barrier_time.csv")
    told = [(row["round"], row["steps"], row["barrier_eV"], row["barrier_back_eV"]) for row in so_far]
    assert told == [(1, 100, 0.3, None), (1, 200, 0.4, 0.39)]


def test_comparison_of_runs(run: Path, tmp_path: Path) -> None:
    make_reference(tmp_path / "other" / "chain-reference")
    other = make_run(tmp_path / "other" / "chain", rounds=3)
    shutil.copy(run / "provenance.json", other)
    whole = {**yaml.safe_load((run / "config.yaml").read_text()), **yaml.safe_load((other / "config.yaml").read_text())}
    write_text(other / "config.yaml", yaml.safe_dump(whole))
    again = shutil.copytree(run, tmp_path / "again" / "run")
    picture, numbers = write_comparison([run, other, again], tmp_path / "figures")
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = read_csv(numbers)
    names = [f"{tmp_path.name}/run", "other/chain", "again/run"]
    assert list(dict.fromkeys(row["run"] for row in rows)) == names
    first = [row for row in rows if row["run"] == names[0]]
    assert [row["labels"] for row in first] == [15, 25]
    assert [row["time_min"] for row in first] == pytest.approx([(2.5 + 55.5) / 60, (2.5 + 111) / 60])
    with pytest.raises(RunFolderError, match="named twice"):
        write_comparison([run, run], tmp_path)
    (again / "rounds.csv").unlink()
    with pytest.raises(RunFolderError, match="no round of this run has finished"):
        write_comparison([run, again], tmp_path)


def test_the_viewer_comes_with_its_licence() -> None:
    from rareal.report.page import ASSETS, LICENCE, VIEWER

    licence = (ASSETS / LICENCE).read_text(encoding="utf-8")
    assert "BSD-3-Clause" in licence
    for part in ("University of Pittsburgh", "GLmol", "Three.js", "jQuery", "iobuffer", "netcdfjs", "pako", "upng-js"):
        assert part in licence
    assert "3Dmol" in (ASSETS / VIEWER).read_text(encoding="utf-8")[:200]


def test_a_browser_turns_the_molecule_and_complains_of_nothing(text: str, tmp_path: Path) -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium to open the page in; `apt-get install chromium` has it tested")
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    options = [
        "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-gl=angle", "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=10000", "--dump-dom",
    ]  # fmt: skip
    done = subprocess.run([browser, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count('<div class="stage live">') == 3
    assert done.stdout.count("<canvas") >= 3
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, "\n".join(console)
    data = json.loads(re.findall(r'id="molecule-data">(.*?)</script>', text)[0])
    assert len(data["snapshots"]) == 3
