"""The examples of engines that may be missing: valid, or refused for the engine and how to get it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from rareal import config
from rareal.errors import ConfigError

EXAMPLES = Path(__file__).parents[3] / "examples" / "hexane"


@pytest.mark.parametrize(
    ("name", "cures"),
    [
        ("dftbplus", ["install it from conda-forge", "download a set from https://dftb.org", "get the set 3ob-3-1"]),
        ("gpaw", ["GPAW is not installed", "install them with `pip install gpaw-data`"]),
    ],
)
def test_examples_are_valid_but_for_a_missing_engine(name: str, cures: list[str]) -> None:
    try:
        found = config.load(EXAMPLES / f"{name}.yaml")
    except ConfigError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1, lines
        assert "engine." in lines[0]
        assert any(cure in lines[0] for cure in cures), lines[0]
    else:
        assert found.engine.kind == name
