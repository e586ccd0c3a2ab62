"""The pair style among LAMMPS's other commands: hybrid styles, compute pair, fix halt, the plugin path, Python."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from toys import evaluate

import rareal
from rareal.plugin import lmp_environment
from rareal.testing.lammps import Lammps, random_atoms


@pytest.mark.parametrize(("name", "newton"), [("float64", "on"), ("messages", "off")])
def test_hybrid_overlay_with_other_types(name: str, newton: str, lammps: Lammps, models: Callable[[str], Path]) -> None:
    # Types 1 and 2 belong to the committee, type 3 to Lennard-Jones, which also couples all of them.
    atoms = random_atoms(30, [9, 8, 7.5], periodic=True, seed=11)
    types = [1 if symbol == "C" else 2 for symbol in atoms.symbols]
    types[4] = types[17] = types[29] = 3
    lj = "pair_coeff * * {} 0.01 0.8\n"
    both = f"pair_coeff * * mlensemble {models(name)} C H NULL\n" + lj.format("lj/cut")
    forces = []
    for style, coeff in (("hybrid/overlay mlensemble lj/cut 3.5", both), ("lj/cut 3.5", lj.format(""))):
        script = lammps.script(atoms, models(name), types=types, style=style, coeff=coeff, newton=newton).replace(
            "mass 2 1.008", "mass 2 1.008\nmass 3 4.0"
        )
        output = lammps.run(script + DUMP, ranks=2)
        energy = float(output.split("energy ")[1].split()[0])
        forces.append((energy, np.loadtxt(lammps.folder / "forces.dump", skiprows=9)[:, 1:]))
    inside = [k for k, kind in enumerate(types) if kind != 3]
    expected = evaluate(models(name), atoms[inside])
    assert forces[0][0] - forces[1][0] == pytest.approx(expected.energies.mean(), abs=1e-9)
    difference = forces[0][1] - forces[1][1]
    np.testing.assert_allclose(difference[inside], expected.forces.mean(axis=0), rtol=0, atol=1e-8)
    assert not difference[[4, 17, 29]].any()


DUMP = """
run 0
print "energy $(pe:%20.15g)"
write_dump all custom forces.dump id fx fy fz modify sort id format float %20.15g
"""


def test_two_committees_in_one_overlay(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    names = ("float64", "messages")
    coeff = "\n".join(f"pair_coeff * * mlensemble {k + 1} {models(name)} C H" for k, name in enumerate(names))
    style = "hybrid/overlay mlensemble mlensemble drive 3"
    output = lammps.run(lammps.script(tilted, models("float64"), style=style, coeff=coeff) + DUMP, ranks=2)
    first, second = (evaluate(models(name), tilted) for name in names)
    energy = float(output.split("energy ")[1].split()[0])
    assert energy == pytest.approx(first.energies.mean() + second.energies[2], abs=1e-9)
    table = np.loadtxt(lammps.folder / "forces.dump", skiprows=9)
    np.testing.assert_allclose(table[:, 1:], first.forces.mean(axis=0) + second.forces[2], rtol=0, atol=1e-8)


def test_fix_halt_on_spread(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    # Thermo prints every 50 steps only: the halt itself must have the energy tallied at every step.
    threshold = evaluate(models("float64"), cluster).force_std.max()
    halt = """
compute spread all pair mlensemble
variable largest equal c_spread[2]
velocity all create 3000 99 mom yes
timestep 0.0005
fix integrate all nve
fix stop all halt 1 v_largest > {} error continue
thermo_style custom step pe c_spread[1] c_spread[2] c_spread[3]
thermo 50
run 400
print "stopped $(step) $(c_spread[2]:%20.15g)"
"""
    script = lammps.script(cluster, models("float64"))
    output = lammps.run(script + halt.format(1.05 * threshold))
    step, value = (float(word) for word in output.split("stopped ")[1].split()[:2])
    assert 0 < step < 400
    assert step % 50 != 0
    assert value > 1.05 * threshold


def test_coefficients_can_be_replaced(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    again = f"""
run 0
pair_style mlensemble drive 1
pair_coeff * * {models("identical")} C H
"""
    output = lammps.run(lammps.script(cluster, models("float64"), style="mlensemble drive 4") + again + DUMP)
    expected = evaluate(models("identical"), cluster)
    assert float(output.split("energy ")[1].split()[0]) == pytest.approx(expected.energies[0], abs=1e-10)


def test_plain_lmp_finds_the_style(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    # What pip leaves in site-packages for the entry point, so that a source tree is tested as well.
    source = Path(__file__).parents[2]
    entry_points = tomllib.loads((source / "pyproject.toml").read_text())["project"]["entry-points"]["lammps.plugins"]
    info = lammps.folder / "rareal-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rareal\nVersion: 0\n")
    lines = [f"{name} = {value}\n" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("[lammps.plugins]\n" + "".join(lines))
    hidden = ("LAMMPS_PLUGIN_PATH", "LD_LIBRARY_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["PYTHONPATH"] = f"{lammps.folder}:{Path(rareal.__file__).parents[1]}"

    (lammps.folder / "in.test").write_text(lammps.script(cluster, models("float64")) + "run 0\n")
    done = subprocess.run(
        [sysconfig.get_path("scripts") + "/lmp", "-in", "in.test", "-log", "none"],
        cwd=lammps.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout


def test_python_module_with_torch_loaded_first(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    # Both sides then share one PyTorch and one libgomp each; the numbers must not change.
    script = lammps.script(cluster, models("float64")) + "run 0\n"
    (lammps.folder / "in.test").write_text(script)
    program = """
import torch
from rareal.plugin import load_mpi, load_ops
load_ops()
load_mpi()
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.file("in.test")
print("energy", repr(lmp.get_thermo("pe")), float(torch.ones(3).sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=lammps.folder,
        env=lmp_environment() | {"PYTHONPATH": str(Path(rareal.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    energy = float(done.stdout.split("energy ")[1].split()[0])
    assert energy == pytest.approx(evaluate(models("float64"), cluster).energies.mean(), abs=1e-10)
