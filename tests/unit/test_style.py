"""Lint, layout and types of the source tree, so that the test command is the only command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check"], ["ruff", "format", "--check", "--quiet"], ["mypy"]],
    ids=["lint", "layout", "types"],
)
def test_style(command: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}:\n{result.stdout}{result.stderr}"


def test_layout_of_the_plugin() -> None:
    program = Path(sys.executable).with_name("clang-format")
    command = [str(program) if program.exists() else shutil.which("clang-format") or ""]
    if not command[0]:
        pytest.skip("layout of the C++ code not checked: no clang-format; pip install '.[test]'")
    files = [
        str(file)
        for folder in ("pair_style", "tests")
        for pattern in ("*.cpp", "*.h")
        for file in sorted((ROOT / folder).rglob(pattern))
    ]
    assert len(files) > 30
    result = subprocess.run(
        [*command, "--dry-run", "-Werror", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
