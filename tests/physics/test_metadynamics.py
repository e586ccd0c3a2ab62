"""Metadynamics on surfaces known in closed form: the sampler's own LAMMPS script, LAMMPS's own forces.

An atom moves in a potential of its Cartesian coordinates, which are the collective variables, so that the free energy
is the potential: there is no Jacobian. A second atom makes it a molecule, and is tied to its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rareal.freeenergy.analysis import FreeEnergy, load
from rareal.freeenergy.bias import no_bias, tempered
from rareal.plugin import lmp_command
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling import lammps
from rareal.sampling.metadynamics import ARCHIVE, SURFACE, Config, Metadynamics, load_bias, wall
from rareal.units import KB, KCAL_MOL

KT = KB * 300.0
START = Frame(np.array([1, 6]), np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))


@dataclass(frozen=True)
class Coordinate:
    """A Cartesian coordinate of the first atom, or its angle about z (degrees)."""

    name: str
    kind: str

    label = "coordinate"
    ends = None

    @property
    def unit(self) -> str:
        return "°" if self.kind == "phi" else "Å"

    @property
    def period(self) -> float | None:
        return 360.0 if self.kind == "phi" else None

    def value(self, positions: Array) -> Array:
        x, y = positions[..., 0, 0], positions[..., 0, 1]
        value: Array = {"x": x, "y": y, "phi": np.rad2deg(np.arctan2(y, x))}[self.kind]
        return value

    def colvars(self) -> str:
        axis = "(1, 0, 0)" if self.kind == "x" else "(0, 1, 0)"
        if self.kind == "phi":
            body = ["polarPhi {", "atoms {", "atomNumbers 1", "}", "}"]
        else:
            body = [
                "distanceZ {",
                "main {",
                "atomNumbers 1",
                "}",
                "ref {",
                "dummyAtom (0, 0, 0)",
                "}",
                f"axis {axis}",
                "}",
            ]
        return "\n".join(["colvar {", f"name {self.name}", *body, "}"])


X, Y, PHI = Coordinate("cv1", "x"), Coordinate("cv2", "y"), Coordinate("cv1", "phi")


def potential(energy: str, along_x: str, along_y: str) -> str:
    """The block of a potential of the first atom's x and y, with its negative derivatives; all else is harmonic."""
    return "\n".join(
        [
            "pair_style zero 5.0",
            "pair_coeff * *",
            "group moving id 1",
            "group tied id 2",
            f'variable fx atom "{along_x}"',
            f'variable fy atom "{along_y}"',
            'variable fz atom "-z"',
            f'variable e atom "{energy}+0.5*z*z"',
            "fix surface moving addforce v_fx v_fy v_fz energy v_e",
            "fix_modify surface energy yes",
            "fix tether tied spring/self 5.0",
            "fix_modify tether energy yes",
            *(f"variable {name} equal 0.0" for name in ("energy_std", "force_std_max", "force_std_mean")),
            "variable committee_bias equal 0.0",
        ]
    )


# 3 kcal/mol between minima at -1 and 1, the second 0.5 kcal/mol higher
HEIGHT, TILT = 3.0 * KCAL_MOL, 0.25 * KCAL_MOL


def double_well(x: Array) -> Array:
    energy: Array = HEIGHT * (x**2 - 1) ** 2 + TILT * x
    return energy


WELL = potential(
    f"{HEIGHT}*(x*x-1)^2+{TILT}*x+0.5*y*y", f"-{4 * HEIGHT}*x*(x*x-1)-{TILT}", "-y"
)  # fmt: skip


def sampler(*variables: Coordinate, **settings: object) -> Metadynamics:
    config = {
        "biased": [{"hill_width": 0.15, "range": [-1.6, 1.6]}] * len(variables),
        "steps": 40000,
        "timestep": 2.0,
        "damping": 100.0,
        "relaxation_steps": 100,
        "hill_height": "0.2 kcal/mol",
        "hill_interval": 100,
        **settings,
    }
    return Metadynamics(Config.model_validate(config), variables, START)


def drive(made: Metadynamics, folder: Path, walker: Walker, block: str) -> Trajectory:
    """One walker, driven by LAMMPS's own forces."""
    made.prepare(folder, walker, block)
    run = made.run(folder, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0)
    trajectory = made.collect(run, walker)
    assert trajectory.note == "", (folder / lammps.SCREEN).read_text()[-500:]
    return trajectory


def free_energy(
    made: Metadynamics, place: Path, block: str, walkers: int, previous: tuple[Path, ...] = ()
) -> FreeEnergy:
    folders = [place / f"walker-{k:02d}" for k in range(walkers)]
    runs = [drive(made, folder, Walker(k, 11 + k, START, previous), block) for k, folder in enumerate(folders)]
    profile = made.barrier(folders, runs)
    result = load(place / SURFACE)
    assert profile.note == result.note
    assert np.array_equal(
        [profile.barrier, profile.barrier_error], [result.barrier, result.barrier_error], equal_nan=True
    )
    return result


def deviation(result: FreeEnergy, exact: Array, below: float) -> tuple[float, float]:
    """Largest and mean difference from the ``exact`` free energy where that is below a value, kcal/mol."""
    exact = exact - exact.min()
    there = (exact < below) & np.isfinite(result.energy)
    # the constant between the two is fitted with Boltzmann's weights
    shift = np.average(result.energy[there] - exact[there], weights=np.exp(-exact[there] / KT))
    apart = np.abs(result.energy - shift - exact)[there] / KCAL_MOL
    return float(apart.max()), float(apart.mean())


def known(trajectory: Trajectory, folder: Path, made: Metadynamics) -> Array:
    """What hills and walls should add up to at every frame, eV."""
    start, hills = load_bias(folder / ARCHIVE)
    added = np.searchsorted(hills.steps, trajectory.steps, side="right")
    energy = np.array(
        [start.plus(hills.part(slice(0, k))).at(trajectory.cvs[row : row + 1])[0] for row, k in enumerate(added)]
    )
    for column, own in enumerate(made.config.biased):
        if own.range is not None:
            value = trajectory.cvs[:, column]
            apart = [made.axes[column].difference(value, end) for end in own.range]
            outside = (value < own.range[0]) | (value > own.range[1])
            # the nearer wall, by the shorter way round
            energy += np.where(outside, 0.5 * wall(own, KT) * np.min(np.square(apart), axis=0), 0.0)
    return energy


def test_free_energy_of_a_harmonic_well(tmp_path: Path) -> None:
    stiffness = 4 * KCAL_MOL
    block = potential(f"{0.5 * stiffness}*x*x+0.5*y*y", f"-{stiffness}*x", "-y")
    result = free_energy(sampler(X, steps=30000), tmp_path, block, 1)
    largest, average = deviation(result, 0.5 * stiffness * result.coordinates[:, 0] ** 2, 4 * KCAL_MOL)
    assert average < 0.12
    assert largest < 0.35
    assert np.isnan(result.barrier)
    assert result.note == "no second basin has been seen yet"


def test_free_energy_of_a_double_well(tmp_path: Path) -> None:
    result = free_energy(sampler(X), tmp_path, WELL, 2)
    x = result.coordinates[:, 0]
    exact = double_well(x)
    top = exact[np.abs(x) < 0.5].max()
    largest, average = deviation(result, exact, 5 * KCAL_MOL)
    assert average < 0.1
    assert largest < 0.3
    for barrier, error, bottom in (
        (result.barrier, result.barrier_error, exact[x < 0].min()),
        (result.reverse, result.reverse_error, exact[x > 0].min()),
    ):
        assert barrier == pytest.approx(top - bottom, abs=3 * error)
        assert 0.01 * KCAL_MOL < error < 0.2 * KCAL_MOL
    assert [result.first[0], result.second[0], result.saddle[0]] == pytest.approx([-1.02, 0.98, 0.02], abs=0.1)
    # the hills alone say the same, with less confidence
    assert result.hills_barrier == pytest.approx(result.barrier, abs=0.5 * KCAL_MOL)
    assert result.times[-1] == 40000
    assert result.so_far[-1] == result.barrier
    assert np.ptp(result.so_far[-5:]) < 4 * result.barrier_error


def test_bias_of_another_surface_is_as_good_a_beginning(tmp_path: Path) -> None:
    """The next round inherits hills of a surface with the wells exchanged, half as high, from walkers of two rounds."""
    other = WELL.replace(f"+{TILT}*x", f"-{TILT}*x").replace(f")-{TILT}", f")+{TILT}")
    assert other != WELL
    made = sampler(X, steps=5000)
    for k in range(3):
        drive(made, tmp_path / f"before-{k}", Walker(k, 21 + k, START), other)
    previous = tuple(tmp_path / f"before-{k}" for k in range(3))
    result = free_energy(sampler(X, steps=25000), tmp_path / "after", WELL, 2, previous)
    exact = double_well(result.coordinates[:, 0])
    assert deviation(result, exact, 5 * KCAL_MOL)[1] < 0.12
    assert result.barrier == pytest.approx(3.2528 * KCAL_MOL, abs=3 * result.barrier_error)


def test_free_energy_of_two_coupled_coordinates(tmp_path: Path) -> None:
    """The valleys lie askew: the barrier is that of the surface, and higher than that along x alone."""
    stiffness = 12 * KCAL_MOL
    block = potential(
        f"{HEIGHT}*(x*x-1)^2+{0.5 * stiffness}*(y-0.5*x)^2",
        f"-{4 * HEIGHT}*x*(x*x-1)+{0.5 * stiffness}*(y-0.5*x)",
        f"-{stiffness}*(y-0.5*x)",
    )
    biased = [{"hill_width": 0.2, "range": [-1.5, 1.5]}, {"hill_width": 0.2, "range": [-1.3, 1.3]}]
    made = sampler(X, Y, steps=20000, hill_height="0.4 kcal/mol", biased=biased)
    result = free_energy(made, tmp_path, block, 2)
    x, y = result.coordinates.T
    largest, average = deviation(result, HEIGHT * (x**2 - 1) ** 2 + 0.5 * stiffness * (y - 0.5 * x) ** 2, 4 * KCAL_MOL)
    assert average < 0.2
    assert result.barrier == pytest.approx(HEIGHT, abs=max(3 * result.barrier_error, 0.2 * KCAL_MOL))
    assert result.barrier_error < 0.35 * KCAL_MOL
    assert result.saddle == pytest.approx([0, 0], abs=0.2)
    assert result.first == pytest.approx([-1, -0.5], abs=0.2)
    # integrated over y, the first variable's own free energy
    along = HEIGHT * (made.axes[0].centres ** 2 - 1) ** 2
    there = along < 4 * KCAL_MOL
    assert np.abs(result.along - along)[there].mean() < 0.15 * KCAL_MOL


def test_free_energy_of_an_angle_that_wraps(tmp_path: Path) -> None:
    """A ring of radius 1 with two wells at 0 and 180 degrees: minima and barriers repeat after a full turn."""
    height, ring = 2.5 * KCAL_MOL, 20 * KCAL_MOL
    # in x and y: height sin^2(phi), which is y^2/r^2
    block = potential(
        f"{height}*y*y/(x*x+y*y)+{ring}*(sqrt(x*x+y*y)-1)^2",
        f"2*{height}*x*y*y/(x*x+y*y)^2-2*{ring}*(1-1/sqrt(x*x+y*y))*x",
        f"-2*{height}*y*x*x/(x*x+y*y)^2-2*{ring}*(1-1/sqrt(x*x+y*y))*y",
    )
    made = sampler(PHI, biased={"hill_width": 12.0}, basins=[0, 180])
    result = free_energy(made, tmp_path, block, 1)
    assert made.axes[0].period == 360.0
    assert deviation(result, height * np.sin(np.deg2rad(result.coordinates[:, 0])) ** 2, 3 * KCAL_MOL)[1] < 0.15
    assert result.barrier == pytest.approx(height, abs=3 * result.barrier_error)
    assert np.isfinite(result.energy).all()


@pytest.mark.parametrize("variables", [(X,), (PHI,), (X, Y)], ids=["line", "angle", "plane"])
def test_colvars_starts_from_the_mean_of_the_walkers_and_adds_to_it(
    tmp_path: Path, variables: tuple[Coordinate, ...]
) -> None:
    """The bias that LAMMPS reports at every frame is ours: inherited part, hills and walls, at the points it visits."""
    width = 12.0 if variables[0] is PHI else 0.15
    limits = {"range": (-90.0, 150.0)} if variables[0] is PHI else {"range": (-1.1, 1.0)}
    made = sampler(
        *variables, steps=1500, biased=[{"hill_width": width, **limits}] * len(variables), inherit=0.5, hill_interval=50
    )
    start = replace(START, positions=START.positions * 0.8)
    folders = tuple(tmp_path / f"before-{k}" for k in range(3))
    for k, folder in enumerate(folders):
        drive(made, folder, Walker(k, 31 + k, start), WELL)
    after = tmp_path / "after"
    trajectory = drive(made, after, Walker(0, 41, start, folders), WELL)
    begun, hills = load_bias(after / ARCHIVE)
    grown = [load_bias(folder / ARCHIVE) for folder in folders]
    expected = 0.5 / 3 * sum(no_bias(made.axes).plus(own).energy for _, own in grown)
    assert begun.energy == pytest.approx(expected, abs=1e-12)
    assert begun.energy.max() > 0.5 * KCAL_MOL
    assert trajectory.bias == pytest.approx(known(trajectory, after, made), abs=1e-5)
    # hills where there is bias already are smaller
    levels = np.array([begun.plus(hills.part(slice(0, k))).at(hills.centres[k : k + 1])[0] for k in range(len(hills))])
    heights = [tempered(made.config.hill_height, level, made.config.bias_factor, 300.0) for level in levels]
    assert hills.heights == pytest.approx(heights, abs=1e-6)
    outside = (trajectory.cvs[:, 0] < limits["range"][0]) | (trajectory.cvs[:, 0] > limits["range"][1])
    assert outside.any()


def test_forces_are_those_of_the_bias(tmp_path: Path) -> None:
    """Without thermostat, the energy with the bias in it is conserved between two hills."""
    made = sampler(X, steps=2000, timestep=0.5, damping=1e9, hill_interval=10000)
    folders = (tmp_path / "before",)
    drive(sampler(X, steps=10000), folders[0], Walker(0, 5, START), WELL)
    made.prepare(tmp_path / "after", Walker(0, 6, START, folders), WELL)
    script = tmp_path / "after" / made.script_name
    script.write_text(script.read_text().replace("thermo          1000", "thermo 20"))
    run = made.run(tmp_path / "after", Walker(0, 6, START), [*lmp_command(), "-log", lammps.LOG, "-in"])
    lammps.run_all([run], 1, 60.0)
    rows = thermo(tmp_path / "after" / lammps.LOG)
    total = rows["TotEng"] + rows["v_bias"]
    assert np.ptp(rows["v_bias"]) > 0.5 * KCAL_MOL
    # Colvars takes the energy of the bin and not of the point; without its forces this would be as large as the bias
    assert np.ptp(total) < 0.3 * np.ptp(rows["v_bias"])


def thermo(log: Path) -> dict[str, Array]:
    """Thermodynamic output of the drive."""
    lines = log.read_text().splitlines()
    head = max(k for k, line in enumerate(lines) if line.split()[:2] == ["Step", "Temp"])
    rows = []
    for line in lines[head + 1 :]:
        if line.startswith("Loop"):
            break
        if line.split()[0].isdigit():
            rows.append([float(word) for word in line.split()])
    return dict(zip(lines[head].split(), np.array(rows).T, strict=True))


def test_same_seed_gives_the_same_drive_and_leftovers_do_not_matter(tmp_path: Path) -> None:
    made = sampler(X, steps=500)
    first = drive(made, tmp_path / "a", Walker(0, 5, START), WELL)
    again = drive(made, tmp_path / "a", Walker(0, 5, START), WELL)
    other = drive(made, tmp_path / "b", Walker(0, 6, START), WELL)
    assert np.array_equal(first.positions, again.positions)
    assert np.array_equal(first.bias, again.bias)
    assert not np.allclose(first.positions, other.positions, atol=1e-3)
    assert len(load_bias(tmp_path / "a" / ARCHIVE)[1]) == 5
    assert not list((tmp_path / "a").glob("*.BAK"))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        path.name for path in (tmp_path / "b").iterdir()
    )
