"""The example of the Python interface, executed in miniature: every line of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "hexane" / "python_api.py"


def test_the_example_runs(miniature: Path, tmp_path: Path) -> None:
    text = (
        miniature.read_text()
        .replace("rounds: 2", "rounds: 1")
        .replace("frames: 40", "frames: 20")
        .replace("epochs: 25", "epochs: 10")
    )
    miniature.write_text(text)
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLE), str(miniature)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for part in (
        "C3H8: 11 atoms", "<Run ", "finished, 1 of 1 rounds>", "round 0: ", "walker 0: ", "work: barrier",
        "'initial': 20", "least sure force", "force MAE", "1 of 1 frames labelled",
    ):  # fmt: skip
        assert part in done.stdout, part
    for name in ("frames.extxyz", "small.pt", "relaxed-labelled.extxyz"):
        assert (tmp_path / name).is_file()


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, rareal; print([name for name in ('numpy', 'torch', 'ase', 'pydantic') if name in sys.modules]); "
        "print(rareal.Run.__name__)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "Run"]
