"""Every YAML, command and Python block of the documentation is valid, parsed or executed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pages import DOCS, ROOT, Block, blocks, shell_lines

import rareal
from rareal import config
from rareal.cli import app
from rareal.errors import ConfigError
from rareal.yamlfile import YamlFile

EXAMPLES = ROOT / "examples"
BASE = EXAMPLES / "hexane" / "hexane.yaml"
MISSING = ("is not installed", "install", "download a set", "get the set", "on PATH")
"""What a message says where an engine, or a file of its parameters, is not there to be checked with."""

FOREIGN = {
    "apt-get",
    "cd",
    "cmake",
    "conda",
    "git",
    "lmp",
    "module",
    "pip",
    "pytest",
    "python3",
    "sphinx-build",
    "touch",
}
"""Programs of others: their lines are not run. What they say of rareal, extras and CMake variables, is looked at."""

QUICK = ("init", "validate", "schema", "plugin", "cache info")
"""Commands that are run as they stand; the others are parsed."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the pages assume it: with the examples, and a molecule of one's own."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    shutil.copy(EXAMPLES / "hexane" / "hexane.xyz", tmp_path / "mol.xyz")
    for block in blocks("python"):
        if block.caption:
            file = tmp_path / block.caption
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name == "mine" or name.startswith("mine.")]:
        del sys.modules[name]


DOCUMENTS = [
    pytest.param(document, id=f"{block}-{number}")
    for block in blocks("yaml")
    for number, document in enumerate(yaml.safe_load_all(block.text))
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_yaml_is_valid(folder: Path, document: dict[str, Any]) -> None:
    """As it stands, the keys that it does not give those of the hexane example."""
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    if "cv" in document and "sampler" not in document:
        base["sampler"] = {"kind": "mine.heating"}  # which drives any variable
    given = {**base, **document}
    try:
        config.load(YamlFile(BASE, given, {}))
    except ConfigError as error:
        for line in str(error).splitlines():
            assert "engine." in line and any(word in line for word in MISSING), line  # noqa: PT018  (one thought)


COMMANDS = list(dict.fromkeys(line for _, line in shell_lines()))


def words_of(line: str) -> list[str]:
    """The words of a command, without variables set for it alone and without the environment's folder."""
    words = shlex.split(line)
    while re.match(r"\w+=", words[0]):
        words.pop(0)
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


def test_there_are_commands_and_blocks() -> None:
    assert len(COMMANDS) > 25
    assert sum(1 for _ in blocks("yaml")) > 25
    assert sum(1 for _ in blocks("python")) > 10


@pytest.mark.parametrize("line", COMMANDS)
def test_command_is_understood(folder: Path, line: str) -> None:
    for part in line.split(" && "):
        program, *arguments = words_of(part)
        if program == "rareal":
            understood(arguments)
        elif program == "python":
            script = ROOT / arguments[0]
            assert script.is_file()
            source = script.read_text(encoding="utf-8")
            assert all(word in source for word in arguments if word.startswith("--"))
        else:
            assert program in FOREIGN, f"'{part}': neither rareal's nor known as another's program"
            about_us(part)


def understood(arguments: list[str]) -> None:
    """Parse a command of rareal's as the command line does, without running it."""
    command: Any = typer.main.get_command(app)
    name = "rareal"
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"there is no command '{name}'"
        command = command.commands[name]
    command.make_context(name, arguments)


def about_us(line: str) -> None:
    """Extras exist, CMake knows the variables, files of the repository are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for names in re.findall(r"\.\[([\w,]+)\]", line):
        assert set(names.split(",")) <= set(extras)
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    for variable in re.findall(r"-D(\w+)=", line):
        assert variable in cmake
    for file in re.findall(r"\$PWD/(\.ci/\S+)", line):
        assert (ROOT / file).is_file()


@pytest.mark.parametrize("line", [line for line in COMMANDS if re.match(rf"(\S*/)?rareal ({'|'.join(QUICK)})\b", line)])
def test_quick_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    _, *arguments = words_of(line)
    if arguments[0] == "validate" and not Path(arguments[-1]).exists():
        shutil.copy(BASE, arguments[-1])
        shutil.copy(EXAMPLES / "hexane" / "hexane.xyz", folder)
    monkeypatch.setenv("RAREAL_CACHE", str(folder / "cache"))
    assert not app(arguments, standalone_mode=False)


def python_pages() -> list[Any]:
    pages: dict[Path, list[Block]] = defaultdict(list)
    for block in blocks("python"):
        if not block.caption:
            pages[block.page].append(block)
    return [pytest.param(found, id=page.name) for page, found in pages.items()]


@pytest.mark.parametrize("page", python_pages())
def test_python_runs(folder: Path, page: list[Block]) -> None:
    """The blocks of a page, one after the other, in a process of their own."""
    text = "\n".join(f"# {block}\n{block.text}" for block in page)
    # the rareal of these tests, which is not the source tree's where it is installed
    places = [str(folder), str(Path(rareal.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", text], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_other_blocks_are_no_code() -> None:
    """What is neither run nor checked says what it is: text, or LAMMPS's language."""
    known = {"yaml", "bash", "python", "text", "console", "LAMMPS"}
    for block in blocks():
        assert block.language in known or block.language.startswith("{"), f"{block}: {block.language}"


@pytest.mark.parametrize("kind", ["selection", "engine", "model", "sampler", "cv", "executor"])
def test_an_example_of_each_extension_is_used(kind: str) -> None:
    page = (DOCS / "extending.md").read_text(encoding="utf-8")
    assert re.search(rf"^{kind}: \{{.*mine\.\w+", page, re.M)
