"""What is released: one version, the licences of what is in it, a citation, checks that are those of the tests."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

import rareal

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def tracked(*patterns: str) -> list[str]:
    """Files that git knows; of an unpacked sdist, the files that are there."""
    found = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.splitlines() or [
        str(p.relative_to(ROOT)) for q in patterns for p in ROOT.glob(q) if p.is_file()
    ]


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(rareal.__version__)}\b", text, re.M), (
        "the version has no section in CHANGELOG.md"
    )
    places = [
        name
        for name in tracked("*.py", "*.toml", "*.cff", "CMakeLists.txt", "docs/conf.py")
        if re.search(rf"version.{{0,12}}{re.escape(rareal.__version__)}\b", (ROOT / name).read_text(encoding="utf-8"))
    ]
    assert places == ["rareal/__init__.py"]


def test_what_is_vendored_has_its_licence() -> None:
    vendored = [Path(name) for name in tracked("rareal/**/*-min.js", "rareal/**/*.min.js")]
    assert vendored
    named = {str(path.relative_to(ROOT)) for pattern in PROJECT["license-files"] for path in ROOT.glob(pattern)}
    for file in vendored:
        licence = next((ROOT / file.parent).glob(f"{file.name.split('-')[0]}-LICENSE*"))
        assert str(licence.relative_to(ROOT)) in named
        assert licence.stat().st_size > 500
    assert "LICENSE" in named
    assert PROJECT["license"] == "GPL-2.0-or-later AND BSD-3-Clause AND MIT AND Zlib"


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "references"} <= set(citation)
    assert citation["authors"] == [{"name": "The rareal developers"}]
    assert citation["license"] == "GPL-2.0-or-later"
    assert "version" not in citation  # it stands in one place
    doi = citation["references"][0]["doi"]
    assert doi in (ROOT / "README.md").read_text(encoding="utf-8")


def test_checks_before_a_commit_are_those_of_the_tests() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    entries = " ".join(hook["entry"] for repo in hooks for hook in repo["hooks"])
    for program in ("ruff check", "ruff format", "mypy", "clang-format"):
        assert program in entries


def test_the_workflow_runs_the_same_command() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    for command in (".ci/run", ".ci/packages"):
        assert command in commands
        assert (ROOT / command).stat().st_mode & 0o111


def test_extras_of_the_pages_exist() -> None:
    extras = PROJECT["optional-dependencies"]
    assert "rareal[docs]" in extras["test"]
    assert any(item.startswith("sphinx") for item in extras["docs"])
