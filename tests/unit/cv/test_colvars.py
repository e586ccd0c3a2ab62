"""The NumPy values against those of Colvars and LAMMPS, along trajectories that are real."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet

from rareal.cv import Variable, angles, combination, coordination, distance, rmsd, verbatim
from rareal.cv.evaluate import colvars_values
from rareal.errors import SamplingError
from rareal.plugin import lmp_command, lmp_environment
from rareal.records import Array, Frame
from rareal.sampling.lammps import data_file
from rareal.sampling.trajectory import read_dump

HEXANE = Path(__file__).parents[3] / "examples" / "hexane" / "hexane.xyz"
TILTED = np.array([[8.0, 0.0, 0.0], [1.5, 7.0, 0.0], [-0.7, 1.1, 7.5]])


def variables(start: Frame) -> list[Variable]:
    """One of every kind and every way to give its atoms."""
    return [
        distance.build(distance.Config(atoms=(1, 6)), start, "ends"),
        distance.build(distance.Config(groups=((1, 7, 8), (5, 6))), start, "centres"),
        angles.build(angles.AngleConfig(atoms=(1, 2, 3)), start, "bend"),
        angles.build(angles.AngleConfig(groups=((1, 7), (3,), (5, 6))), start, "hinge"),
        angles.build(angles.DihedralConfig(atoms=(1, 2, 3, 4)), start, "torsion"),
        angles.build(angles.DihedralConfig(groups=((1, 7), (2,), (4,), (5, 6, 8))), start, "twist"),
        combination.build(combination.DifferenceConfig(pairs=((1, 7), (2, 7))), "transfer"),
        combination.build(
            combination.CombinationConfig(pairs=((1, 2), (3, 4), (5, 6)), coefficients=(1, -0.5, 2)), "sum"
        ),
        coordination.build(coordination.Config(groups=((1, 2), (7, 8, 5)), r0=2.5), start, "neighbours"),
        coordination.build(coordination.Config(groups=((1,), (2, 3, 4)), r0=3.0, exponents=(10, 16)), start, "shell"),
        rmsd.build(rmsd.Config(), start, "change"),
        rmsd.build(rmsd.Config(atoms=(6, 1, 3, 7)), start, "part"),
    ]


def agree(cvs: Sequence[Variable], positions: Array, theirs: Array) -> None:
    """Every variable's value is Colvars's, whose file has 15 digits."""
    assert theirs.shape == (len(positions), len(cvs))
    for variable, column in zip(cvs, theirs.T, strict=True):
        value = variable.value(positions)
        assert np.ptp(value) > 0.05, f"{variable.name} hardly moves"
        off = value - column
        if variable.period:
            off -= variable.period * np.rint(off / variable.period)
        # rounding of sums of squares under a root (RMSD) and of masses written with eight digits (centres)
        assert np.abs(off).max() < 2e-6 * max(1.0, np.abs(value).max()), variable.name


@pytest.fixture(scope="module")
def hexane() -> tuple[Frame, Array]:
    """Hexane, and 120 frames of it hot, by GFN2-xTB; its chain is all-trans, so the torsion wraps at 180 degrees."""
    from tblite.ase import TBLite

    atoms = ase.io.read(HEXANE)
    start = Frame(np.asarray(atoms.numbers), atoms.positions.copy())
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    rng = np.random.default_rng(2)
    speeds = np.sqrt(units.kB * 4000 / atoms.get_masses())  # half of it becomes potential energy
    atoms.set_velocities(speeds[:, None] * rng.normal(size=(len(atoms), 3)))
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    frames = []
    for _ in range(120):
        dynamics.run(2)
        frames.append(atoms.positions.copy())
    return start, np.array(frames)


def test_hexane_by_gfn2_xtb(hexane: tuple[Frame, Array]) -> None:
    start, frames = hexane
    cvs = variables(start)
    torsion = next(item for item in cvs if item.name == "torsion").value(frames)
    assert np.abs(np.diff(torsion)).max() > 300, "the torsion must wrap"
    agree(cvs, frames, colvars_values(start, frames, "\n".join(item.colvars() for item in cvs)))


SCRIPT = """
units metal
atom_style atomic
atom_modify map yes
boundary p p p
box tilt large
read_data start.data
pair_style lj/cut 6.0
pair_coeff * * 0.02 2.2
neighbor 1.0 bin
timestep 0.001
velocity all create 6000 7 mom yes rot no
fix motion all nve
fix tether all spring/self 0.05
fix bath all langevin 6000 6000 0.1 5
{groups}
{variable}
fix bias all colvars cv.colvars output out
fix table all ave/time 1 1 1 v_cv file cv.dat format " %.12g"
dump frames all custom 1 cv.dump id xu yu zu
dump_modify frames sort id format float %.12f
run 1000
"""


def test_inside_a_lammps_run_across_periodic_images(tmp_path: Path) -> None:
    """Eight hot atoms in a tilted cell: they meet, part and leave through the faces while LAMMPS runs Colvars."""
    grid = np.array([(x, y, z) for x in (0.1, 0.55) for y in (0.1, 0.57) for z in (0.15, 0.61)])
    start = Frame(np.array([6, 1, 6, 8, 6, 6, 1, 8]), grid @ TILTED, TILTED, (True, True, True))
    cvs = variables(start)
    pull = cvs[1]
    assert isinstance(pull, distance.Distance)
    (tmp_path / "start.data").write_text(data_file(start))
    (tmp_path / "in.cv").write_text(SCRIPT.format(groups=pull.lammps_groups(), variable=pull.lammps_variable()))
    (tmp_path / "cv.colvars").write_text(
        "\n".join(["colvarsTrajFrequency 1", *(item.colvars() for item in cvs)]) + "\n"
    )
    command = [*lmp_command(), "-in", "in.cv"]
    done = subprocess.run(command, cwd=tmp_path, env=lmp_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    _, frames = read_dump(tmp_path / "cv.dump", 8)
    left = np.floor(frames @ np.linalg.inv(TILTED)) != 0
    assert left.any(axis=(0, 1)).all(), "atoms must have left the cell through all its faces"
    agree(cvs, frames, np.loadtxt(tmp_path / "out.colvars.traj")[:, 1:])
    values = {item.name: item.value(frames) for item in cvs}
    assert np.abs(np.diff(values["torsion"])).max() > 300, "the torsion must wrap"
    assert np.ptp(values["bend"]) > 60
    assert np.loadtxt(tmp_path / "cv.dat")[:, 1] == pytest.approx(values["centres"], abs=1e-6)
    # the very frames once more, through the library: the same numbers, the cell's images included
    theirs = colvars_values(start, frames[::50], "\n".join(item.colvars() for item in cvs))
    agree(cvs, frames[::50], theirs)


def test_a_verbatim_block_is_computed_by_colvars(hexane: tuple[Frame, Array]) -> None:
    start, frames = hexane
    torsion = angles.build(angles.DihedralConfig(atoms=(1, 2, 3, 4)), start, "torsion")
    ours = verbatim.build(verbatim.Config(text=torsion.colvars(), unit="°"), start)
    assert (ours.name, ours.period, ours.label, ours.axis) == ("torsion", 360.0, "torsion", "torsion (°)")
    some = frames[:6].reshape(2, 3, *frames.shape[1:]).copy()
    some[1, 1, 4, 2] = np.nan
    value = ours.value(some)
    expected = torsion.value(some)
    assert value.shape == (2, 3)
    assert np.isnan(value[1, 1])
    np.testing.assert_allclose(np.delete(value.ravel(), 4), np.delete(expected.ravel(), 4), atol=1e-8)
    assert ours.value(frames[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("colvar {\n  name a\n  distanc {\n    group1 {\n      atomNumbers 1\n    }\n  }\n}", "no valid components"),
        (
            "colvar {\n  name a\n  distanceVec {\n    group1 {\n      atomNumbers 1\n    }\n    group2 {\n"
            "      atomNumbers 2\n    }\n  }\n}",
            "is a vector",
        ),
    ],
)
def test_what_colvars_refuses_is_said(hexane: tuple[Frame, Array], block: str, says: str) -> None:
    start, frames = hexane
    with pytest.raises(SamplingError, match=says):
        colvars_values(start, frames[:1], block)
