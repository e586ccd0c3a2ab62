"""Sphinx builds the pages, and has nothing to complain of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_pages_build_without_warnings(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason=f"documentation not built: no {package}; pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "read")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "samplers" / "steered.html").read_text(encoding="utf-8")
    assert re.search(r"spring constant", page, re.I)
    assert "https://docs.lammps.org/fix_halt.html" in (tmp_path / "html" / "pair-style.html").read_text()
