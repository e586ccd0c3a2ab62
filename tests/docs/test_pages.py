"""The pages say what the program says: kinds, columns, files, messages."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from pages import DOCS, PAGES, ROOT

from rareal.config import EXECUTOR, KINDS, Config
from rareal.export.archive import Metadata
from rareal.loop import LABEL_COLUMNS
from rareal.rundir import FREE_KEYS, ROUND_COLUMNS

TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
ALL = "\n".join(TEXT.values())
OWN_PAGE = {"sampler": "samplers", "selection": "selections", "engine": "engines", "model": "models"}
WITHOUT_KEYS = {"repulsion.none", "executor.serial", "exploration.batch"}


@pytest.mark.parametrize(
    "place",
    [f"{name}.{kind}" if choice.names_kind else name for name, choice in KINDS.items() for kind in choice.modules],
)
def test_every_kind_has_a_table(place: str) -> None:
    """Of its options, on a page of its own where that is promised."""
    section, _, kind = place.partition(".")
    if place not in WITHOUT_KEYS:
        assert f"```{{options}} {place}\n" in ALL, f"no page has the options of {place}"
    if section in OWN_PAGE:
        page = DOCS / OWN_PAGE[section] / f"{kind}.md"
        assert page.is_file(), f"write {page.relative_to(ROOT)}, as the other pages there"
        assert f"```{{options}} {place}\n" in TEXT[page]
        assert re.search(rf"^ *{section}:.*{kind}|kind: {kind}", TEXT[page], re.M), "the page has no example"
    elif choices(section) > 1:
        assert f"```{{kinds}} {section}\n" in ALL


def choices(section: str) -> int:
    return len(KINDS[section].modules)


def test_every_section_is_found_from_the_list_of_keys() -> None:
    page = TEXT[DOCS / "keys.md"]
    for name in Config.model_fields:
        if name in KINDS or name == EXECUTOR:
            assert f"`{name}`" in page or f"## {name}" in page
    for key in FREE_KEYS:
        assert f"`{key.rpartition('.')[2]}`" in page, f"{key} may change in a run folder"


def figures_columns() -> set[str]:
    """The columns that a round may have: names of strings that are keys in what writes them."""
    found: set[str] = set(ROUND_COLUMNS)
    for file in ("check.py", "loop.py", "sampling/neb.py"):
        for node in ast.walk(ast.parse((ROOT / "rareal" / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name in ("figures", "_rupture"):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Dict):
                        found |= {
                            k.value for k in inner.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)
                        }
    return found


def test_columns_are_explained() -> None:
    page = TEXT[DOCS / "formats.md"]
    columns = figures_columns()
    assert len(columns) > 25
    for name in [*columns, *LABEL_COLUMNS, *(f.name for f in fields(Metadata))]:
        assert f"`{name}`" in page, f"formats.md does not explain '{name}'"


def sources() -> str:
    """All string literals of the program, in one text, with what is filled in left out; and the C++ ones."""
    found: list[str] = []
    for file in (ROOT / "rareal").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    for file in (ROOT / "pair_style").rglob("*.cpp"):
        found.append(re.sub(r'"\s*\n\s*"', "", file.read_text(encoding="utf-8")))
    return "\n".join(found)


def test_messages_that_are_explained_exist() -> None:
    """Terms in code font are what the program says; others are of other programs."""
    text = sources()
    terms = re.findall(r"^(.+)\n: ", TEXT[DOCS / "troubleshooting.md"], re.M)
    messages = [message for term in terms for message in re.findall(r"`([^`]+)`", term)]
    assert len(messages) > 20
    for message in messages:
        for part in message.split(" … "):
            assert part.strip() in text, f"nothing says '{part}'"


def test_scripts_that_make_numbers_exist() -> None:
    page = TEXT[DOCS / "numbers.md"]
    scripts = re.findall(r"`python ((?:benchmarks|examples|docs)/\S+?)(?: [^`]*)?`", page)
    assert len(scripts) > 5
    for script in scripts:
        assert (ROOT / script).is_file(), script
    for file in Path(ROOT / "benchmarks").glob("*.py"):
        assert file.name in page


def test_no_page_is_forgotten() -> None:
    """Every page is reachable from the index: named in a table of contents, or in a folder that one takes whole."""
    index = TEXT[DOCS / "index.md"]
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        folder = page.parent / "index.md"
        assert name == "index" or name in index or (page.parent != DOCS and ":glob:" in TEXT[folder])


def test_the_first_hour_is_that_of_the_readme() -> None:
    """What is recorded stands in the README, and what the README says to a beginner is recorded."""
    spec = importlib.util.spec_from_file_location("first_hour", DOCS / "first_hour.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules["first_hour"] = script
    spec.loader.exec_module(script)
    recorded = [step.command for step in script.STEPS if ".venv" in step.command]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    beginning = readme[readme.index("## Install") : readme.index("### What it shows")]
    beginning += readme[readme.index("## Your own event") : readme.index("`cv` is what describes")]
    said = [
        line.partition("   #")[0].strip() for line in re.findall(r"^    (\S*(?:python3|rareal) .*)", beginning, re.M)
    ]
    # two runs to compare there are not; the own molecule has other atoms, and runs
    said = [line for line in said if " compare " not in line]
    assert [
        line.replace("--pull 1 6", "--pull 1 4") for line in said if line.replace("1 6", "1 4") not in recorded
    ] == []
    assert [line for line in recorded if line not in readme.replace("--pull 1 6", "--pull 1 4")] == [
        ".venv/bin/rareal run my.yaml --rounds 2"
    ]


def test_the_first_hour_has_been_recorded() -> None:
    page = TEXT[DOCS / "first-hour.md"]
    assert page.count("```console\n$ ") > 10
    assert "/tmp/" not in page
    report = DOCS / "first-hour" / "hexane-report.html"
    assert report.stat().st_size < 3e6
    # it needs no network: nothing is fetched when it is opened
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=[\"']https?:", report.read_text(encoding="utf-8"))


def test_links_of_the_readme_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme)
    assert len(links) > 15
    for link in links:
        assert (ROOT / link).exists(), link
