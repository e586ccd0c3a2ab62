"""Every refusal of a configuration is in the list of them, word for word; and no place that refuses is left out."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from config_errors import CASES, GOLDEN, entries

import rareal
from rareal.complaints import _CURES

PACKAGE = Path(rareal.__file__).parent
Executed = tuple[str, dict[Path, set[int]]]
READERS = ("config.py", "yamlfile.py", "labelconfig.py", "structure.py")
"""What reads a configuration: every refusal there is a message. Elsewhere it is those of the sections."""


def refusals(file: Path) -> Iterator[int]:
    """The lines of a module that refuse a configuration: its sections' validators, and whatever does not fit."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    validating = [
        function
        for parent in classes
        for function in parent.body
        if isinstance(function, ast.FunctionDef)
        and any("_validator" in ast.unparse(decorator) for decorator in function.decorator_list)
    ]
    reader = str(file.relative_to(PACKAGE)) in READERS
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            text = ast.unparse(node.exc)
            within = any(f.lineno <= node.lineno <= (f.end_lineno or 0) for f in validating)
            if (
                text.startswith("Misfit(")
                or (reader and "Error" in text)
                or (within and text.startswith("ValueError("))
            ):
                yield node.lineno


@pytest.fixture(scope="module")
def executed() -> Executed:
    """The list as it is now, and the lines of our modules that its mistakes run through."""
    found: dict[Path, set[int]] = {}

    def follow(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(str(PACKAGE)):
            return None
        lines = found.setdefault(Path(name), set())

        def line(inner: FrameType, event: str, argument: Any) -> Any:
            lines.add(inner.f_lineno)
            return line

        return line

    before = sys.gettrace()
    sys.settrace(follow)
    try:
        text = "".join(entries())
    finally:
        sys.settrace(before)
    return text, found


def test_the_list_is_what_users_read(executed: Executed) -> None:
    written, now = GOLDEN.read_text(encoding="utf-8").split("\n\n"), executed[0].split("\n\n")
    advice = "if this is meant, write the list anew with `PYTHONPATH=. python tests/support/config_errors.py`"
    for old, new in zip(written, now, strict=False):
        assert new == old, advice
    assert len(now) == len(written), advice


def test_no_refusal_is_missing(executed: Executed) -> None:
    """Whoever adds a validator, or a check against the rest, adds a mistake that it refuses."""
    missing = [
        f"rareal/{file.relative_to(PACKAGE)}:{line}"
        for file in sorted(PACKAGE.rglob("*.py"))
        if "testing" not in file.parts
        for line in refusals(file)
        if line not in executed[1].get(file, set())
    ]
    assert not missing, f"no mistake in tests/support/config_errors.py is refused at {', '.join(missing)}"


def test_every_wording_of_a_wrong_type_is_there() -> None:
    text = GOLDEN.read_text(encoding="utf-8")
    others = (
        "unknown key",
        "is missing",
        "no such choice",
        "too many entries",
        "above",
        "at least",
        "below",
        "at most",
    )
    for words in (*_CURES.values(), *others):
        assert words in text


def test_every_message_says_where() -> None:
    """File (or option) and key stand in front of every mistake."""
    blocks = [block for block in GOLDEN.read_text(encoding="utf-8").split("\n\n") if block.startswith("    ")]
    told = [line for block in blocks for line in block.splitlines() if not line.startswith("    ")]
    assert len(told) >= sum(map(len, CASES.values()))
    assert all(line.startswith(("case.yaml:", "command line, --")) for line in told)
