"""A miniature of the real thing: propane pulled apart, every part real, nothing long."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule
from ase.io import write

MINIATURE = """\
name: propane
seed: 3
rounds: 2
structure: propane.xyz
directory: {directory}
cv: {{kind: distance, atoms: [1, 3]}}
engine: {{kind: tblite, method: GFN2-xTB}}
labels: {{budget: 200, max_failed_fraction: 0.5, cache: none}}
initial: {{kind: md, frames: 40, interval: 5, equilibration: 50}}
model: {{kind: ani, hidden: {{C: [32, 24], H: [32, 24]}}}}
training: {{members: 2, epochs: 25, batch_size: 8, threads: 1}}
sampler: {{kind: steered, relaxation_steps: 100, steps: 700, velocity: 8 angstrom/ps, walkers: 2}}
uncertainty: {{window: 100}}
selection: {{kind: event, count: 6}}
augment: {{copies: 1}}
check: {{path_frames: 16, break_frames: 6, rupture: {{step: 0.2 angstrom, max_stretch: 1.0 angstrom}}}}
convergence: {{path_error: 1e-6 eV}}
"""


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    """The YAML of a run that takes seconds; its run folder is ``run`` beside it."""
    write(tmp_path / "propane.xyz", molecule("C3H8"))
    path = tmp_path / "propane.yaml"
    path.write_text(MINIATURE.format(directory=tmp_path / "run"))
    return path
