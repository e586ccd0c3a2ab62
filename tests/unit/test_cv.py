"""The collective variable's NumPy value against LAMMPS's and Colvars's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from rareal.cv import Config, build
from rareal.plugin import lmp_command, lmp_environment
from rareal.sampling.trajectory import read_dump

SCRIPT = """
units metal
atom_style atomic
atom_modify map yes
boundary p p p
region box block 0 6 0 6 0 6
create_box 1 box
create_atoms 1 single 1.0 1.0 1.0
create_atoms 1 single 2.0 3.0 1.5
create_atoms 1 single 5.5 4.0 2.5
mass 1 12.0
pair_style zero 2.0 nocoeff
pair_coeff * *
{groups}
{variable}
velocity all create 90000 7 loop all
fix move all nve
fix bias all colvars cv.colvars output out
fix table all ave/time 1 1 1 v_cv file cv.dat format " %.12g"
dump frames all custom 1 cv.dump id xu yu zu
dump_modify frames sort id format float %.12f
run 200
"""


def test_atoms_are_counted_from_one_in_the_yaml() -> None:
    assert build(Config(atoms=(1, 6))).atoms == (0, 5)


def test_value_of_many_frames() -> None:
    positions = np.zeros((2, 3, 3))
    positions[:, 2] = [[3, 4, 0], [0, 0, 2]]
    assert build(Config(atoms=(1, 3))).value(positions) == pytest.approx([5.0, 2.0])


@pytest.mark.parametrize("atoms", [(0, 1), (2, 2), (1, -1), (1.5, 2), (1,), (1, 2, 3)])
def test_impossible_atoms_are_refused(atoms: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"atoms": atoms})


def test_lammps_and_colvars_agree_across_periodic_images(tmp_path: Path) -> None:
    cv = build(Config(atoms=(1, 3)))
    (tmp_path / "in.cv").write_text(SCRIPT.format(groups=cv.lammps_groups(), variable=cv.lammps_variable()))
    (tmp_path / "cv.colvars").write_text(f"colvarsTrajFrequency 1\n{cv.colvars()}\n")
    command = [*lmp_command(), "-in", "in.cv"]
    done = subprocess.run(command, cwd=tmp_path, env=lmp_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    _, positions = read_dump(tmp_path / "cv.dump", 3)
    value = cv.value(positions)
    assert np.ptp(positions[:, 2], axis=0).max() > 6.0, "the atoms must have crossed the box"
    assert np.loadtxt(tmp_path / "cv.dat")[:, 1] == pytest.approx(value, abs=1e-9)
    assert np.loadtxt(tmp_path / "out.colvars.traj")[:, 1] == pytest.approx(value, abs=1e-9)
