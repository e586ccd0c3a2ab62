"""Committees of the three architectures: what LAMMPS reports of them and how it biases them, against Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from rareal.export.modelfile import Committee, write
from rareal.models import ani, painn, schnet
from rareal.records import Frame
from rareal.testing.lammps import Lammps

BUILD: dict[str, Callable[[list[int]], object]] = {
    "ani": lambda seeds: ani.build(ani.Config(hidden={"C": (16, 8), "H": (16, 8)}), ("C", "H"), seeds),
    "painn": lambda seeds: painn.build(painn.Config(features=16, layers=2, cutoff=4.0), ("C", "H"), seeds),
    "schnet": lambda seeds: schnet.build(schnet.Config(features=16, layers=2, cutoff=4.0), ("C", "H"), seeds),
}
SEEDS = [1, 2, 3, 4, 5]
STRENGTH = 0.2

REPORT = """
compute spread all pair mlensemble
fix deviation all pair 1 mlensemble fstd 1
thermo_style custom step pe c_spread[*]
run 0
print "vector $(c_spread[1]:%20.15g) $(c_spread[2]:%20.15g) $(c_spread[3]:%20.15g) $(c_spread[4]:%20.15g) &
$(c_spread[5]) $(c_spread[7]:%20.15g)"
write_dump all custom forces.dump id fx fy fz f_deviation modify sort id format float %20.15g
"""


@pytest.fixture(scope="module")
def crystal() -> Atoms:
    """Three molecules across the faces of a small periodic box."""
    rng = np.random.default_rng(4)
    atoms = Atoms(cell=[9.0, 8.0, 8.5], pbc=True)
    for place in ([0.5, 1.0, 0.2], [4.8, 4.5, 2.0], [2.0, 5.0, 6.5]):
        part = molecule("C2H6")
        part.rotate(rng.uniform(0, 180), rng.normal(size=3))
        part.positions += np.array(place) + rng.uniform(-0.05, 0.05, part.positions.shape)
        atoms += part
    atoms.wrap()
    return atoms


@pytest.mark.parametrize(("ranks", "newton"), [(1, "on"), (2, "off"), (4, "on")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", BUILD)
def test_deviation_and_bias(
    name: str, dtype: str, ranks: int, newton: str, lammps: Lammps, crystal: Atoms, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    write(BUILD[name](SEEDS), path, [-45.0, -13.0], dtype=dtype)
    frame = Frame(crystal.numbers.astype(np.int64), crystal.positions, np.array(crystal.cell), (True, True, True))
    energies, forces = Committee.load(path).energies_forces(frame)
    style = f"mlensemble bias linear {STRENGTH}"
    output = lammps.run(lammps.script(crystal, path, style=style, newton=newton) + REPORT, ranks)
    vector = np.array(output.split("\nvector ")[1].split()[:6], dtype=float)
    table = np.loadtxt(lammps.folder / "forces.dump", skiprows=9)[:, 1:]

    tolerance = {"float32": 1e-5, "float64": 1e-8}[dtype] * max(1.0, np.abs(forces).max())
    std = np.sqrt(forces.var(axis=0).sum(axis=1))
    np.testing.assert_allclose(vector[:4], [energies.std(), std.max(), std.mean(), std.min()], rtol=0, atol=tolerance)
    assert vector[4] == std.argmax() + 1
    assert vector[5] == pytest.approx(-STRENGTH * energies.var(), abs=tolerance)
    np.testing.assert_allclose(table[:, 3], std, rtol=0, atol=tolerance)
    weights = -STRENGTH * 2 / len(SEEDS) * (energies - energies.mean())
    bias = np.einsum("m,mia->ia", weights, forces)
    np.testing.assert_allclose(table[:, :3], forces.mean(axis=0) + bias, rtol=0, atol=tolerance)
    assert np.abs(bias).max() > 1e3 * tolerance or dtype == "float32"
