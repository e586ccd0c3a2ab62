"""The native code of ANI, compiled for one instruction set after another: every processor gets the same numbers."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
OPS = HERE.parents[1] / "pair_style" / "ops"
SETS = {
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512f": (64, ["-mavx512f"]),
}


def results(folder: Path, width: int, options: list[str]) -> list[tuple[str, np.ndarray]]:
    sources = [OPS / "environment.cpp", OPS / "committee_network.cpp", HERE / "instruction_sets.cpp"]
    command = ["g++", "-std=c++20", "-O2", "-w", "-fno-math-errno", "-fno-trapping-math", f"-DRAREAL_BYTES={width}"]
    program = folder / f"width{width}"
    subprocess.run([*command, *options, f"-I{OPS}", *map(str, sources), "-o", str(program)], check=True)
    output = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return [(line.split()[0], np.array(line.split()[1:], dtype=float)) for line in output.splitlines()]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86-64")
def test_all_instruction_sets_agree(tmp_path: Path) -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    portable = results(tmp_path, 16, [])
    assert [name for name, _ in portable] == [
        f"{name}{size}" for size in (8, 4) for name in ("values", "gradients", *["energies"] * 3, "slopes")
    ]
    for flag, (width, options) in SETS.items():
        if flag not in flags:  # such a program cannot run here
            continue
        for (name, expected), (_, found) in zip(portable, results(tmp_path, width, options), strict=True):
            assert np.abs(expected).max() > 0.1
            tolerance = (1e-12 if name.endswith("8") else 1e-5) * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=f"{flag} {name}")
