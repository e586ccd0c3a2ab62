"""The umbrella script in LAMMPS on potentials whose free energy is known in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from toys import ManyBody, save_committee

from rareal import cv
from rareal.cv.angles import Dihedral
from rareal.errors import SamplingError
from rareal.plugin import lmp_command
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling import lammps
from rareal.sampling.umbrella import Config, Umbrella, build
from rareal.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
CV = cv.Distance((0, 1))
NO_COMMITTEE = """
variable energy_std equal 0.0
variable force_std_max equal 0.0
variable force_std_mean equal 0.0
variable committee_bias equal 0.0"""


def tabulated(folder: Path, energy: Array, force: Array, distances: Array) -> str:
    """A potential block for a pair energy given at distances [K] with even steps."""
    rows = [f"{k + 1} {r:.10g} {e:.12g} {f:.12g}"
            for k, (r, e, f) in enumerate(zip(distances, energy, force, strict=True))]  # fmt: skip
    head = f"WELL\nN {len(rows)} R {distances[0]:.10g} {distances[-1]:.10g}\n\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "well.table").write_text(head + "\n".join(rows) + "\n")
    return f"pair_style table spline {len(rows)}\npair_coeff * * well.table WELL {distances[-1]:.10g}{NO_COMMITTEE}"


def harmonic(r: Array) -> tuple[Array, Array]:
    """½ 3 (r - 2)², and the force."""
    return 1.5 * (r - 2.0) ** 2, -3.0 * (r - 2.0)


def double(r: Array) -> tuple[Array, Array]:
    """Minima at 1.5 and 2.5 Å, 0.15 eV between them."""
    x = (r - 2.0) / 0.5
    return 0.15 * (1 - x**2) ** 2, 0.15 * 4 * x * (1 - x**2) / 0.5


def sample(folder: Path, settings: Config, surface: object) -> tuple[Umbrella, list[Trajectory]]:
    """All walkers, with two carbon atoms on ``surface``."""
    start = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0, 0, settings.first]]))
    sampler = build(settings, [CV], start)
    distances = np.linspace(0.2, 5.0, 2401)
    trajectories = []
    for number in range(settings.count):
        walker = Walker(number, 11 + number, start)
        place = folder / f"walker-{number}"
        block = tabulated(place, *surface(distances), distances)  # type: ignore[operator]
        sampler.prepare(place, walker, block)
        run = sampler.run(place, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
        lammps.run_all([run], 1, 60.0)
        trajectories.append(sampler.collect(run, walker))
    return sampler, trajectories


@pytest.mark.parametrize(
    ("surface", "settings"),
    [
        (harmonic, {"first": 1.75, "last": 2.25, "windows": 5, "walkers": 1}),
        (double, {"first": 1.35, "last": 2.65, "windows": 14, "walkers": 2}),
    ],
    ids=["harmonic", "double-well"],
)
def test_free_energy_is_the_potential_and_the_shell(
    tmp_path: Path, surface: object, settings: dict[str, float]
) -> None:
    """F(r) = V(r) - 2 kT ln r of two atoms free to turn, whatever their masses."""
    config = Config.model_validate(
        {**settings, "equilibration": 1000, "steps": 16000, "frame_interval": 20, "timestep": 2.0, "bin_width": 0.1}
    )
    sampler, trajectories = sample(tmp_path, config, surface)
    assert [t.note for t in trajectories] == [""] * config.count
    found = sampler.barrier([], trajectories)
    r = found.coordinate
    exact = surface(r)[0] - 2 * KT * np.log(r)  # type: ignore[operator]
    off = found.energy - exact
    off -= np.average(off, weights=1 / np.maximum(found.error, 1e-3) ** 2)
    assert found.kind == "free energy"
    assert np.ptp(exact) > 0.06
    assert np.abs(off).max() < 0.02
    assert np.nanmax(found.error) < 0.02
    if surface is double:
        assert found.note == ""
        first = r < 2
        expected = exact.max() - exact[first].min()
        assert found.barrier == pytest.approx(expected, abs=4 * found.barrier_error)
        assert found.barrier_error < 0.02
    else:
        assert "no basin behind the top" in found.note


def test_bias_of_every_frame_is_the_restraint_of_its_window(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"first": 1.6, "last": 2.2, "spacing": 0.2, "walkers": 2, "equilibration": 20, "steps": 80,
         "frame_interval": 10, "force_constant": "100 kcal/mol/angstrom^2"}
    )  # fmt: skip
    sampler, trajectories = sample(tmp_path, config, double)
    assert config.constant == pytest.approx(4.3364, abs=1e-4)
    assert [t.steps[-1] for t in trajectories] == [200, 200]
    windows = sampler.windows(trajectories)
    assert windows.centers == pytest.approx([1.6, 1.8, 2.0, 2.2])
    assert [len(values) for values in windows.samples] == [7, 7, 7, 7]
    late = trajectories[1]
    rows = (late.steps > 120) & (late.steps < 200)
    assert late.bias[rows] == pytest.approx(0.5 * config.constant * (late.cv[rows] - 2.2) ** 2, abs=1e-6)
    spoilt = late.rows(slice(None))
    spoilt.bias[:] += 0.01
    with pytest.raises(SamplingError, match="the bias in LAMMPS differs from the restraint at 2"):
        sampler.windows([trajectories[0], spoilt])


def test_windows_of_an_angle_go_through_180_degrees(tmp_path: Path) -> None:
    """Colvars and MBAR agree on the restraint where the value jumps from 180 to -180."""
    start = Frame(np.array([6] * 4), np.array([[1.4, 0.2, 0], [0, 0, 0], [0, 0, 1.5], [-1.4, 0.1, 1.6]]))
    dihedral = Dihedral((0, 1, 2, 3))
    settings = {"first": 150, "last": 210, "windows": 4, "equilibration": 200, "steps": 100, "frame_interval": 2}
    config = Config.model_validate({**settings, "walkers": 2, "force_constant": "0.05 eV/degree^2", "damping": 20})
    sampler = build(config, [dihedral], start)
    found = []
    for number in range(2):
        place = tmp_path / str(number)
        walker = Walker(number, 3, start)
        sampler.prepare(place, walker, f"pair_style zero 5.0\npair_coeff * *{NO_COMMITTEE}")
        run = sampler.run(place, walker, [*lmp_command(), "-log", lammps.LOG, "-in"])
        lammps.run_all([run], 1, 60.0)
        found.append(sampler.collect(run, walker))
    assert [t.note for t in found] == ["", ""]
    windows = sampler.windows(found)
    assert [len(values) for values in windows.samples] == [49] * 4
    assert windows.samples[0].min() > 0
    assert windows.samples[3].max() < 0
    assert [float(np.mean(values % 360)) for values in windows.samples] == pytest.approx([150, 170, 190, 210], abs=6)


def test_a_committee_is_driven_from_window_to_window(tmp_path: Path) -> None:
    """`pair_style mlensemble` in the very script; disagreement at every frame, the restraint as bias."""
    model = save_committee(tmp_path / "model.pt", ManyBody(3, 1, 0.1))
    start = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0, 0, 1.5]]))
    settings = {"first": 1.5, "last": 1.8, "windows": 3, "equilibration": 20, "steps": 60, "force_constant": 100}
    config = Config.model_validate({**settings, "walkers": 1, "frame_interval": 5, "temperature": 50})
    sampler = build(config, [CV], start)
    seen: list[tuple[int, int]] = []
    found = sampler.sample(
        model, tmp_path / "walker", Walker(0, 5, start), lambda done, total: seen.append((done, total))
    )
    assert found.note == ""
    assert len(found) == 49
    assert seen[-1] == (240, 240)
    assert found.energy_std.min() > 0
    assert [len(values) for values in sampler.windows([found]).samples] == [11, 11, 11]
    last = found.cv[-10:]
    assert last.mean() == pytest.approx(1.8, abs=0.05)
    profile = sampler.barrier([], [found])
    assert "windows at 1.5 and 1.65" in profile.note
    assert np.isnan([profile.barrier, *profile.energy]).all()


def test_windows_that_were_not_reached_are_named(tmp_path: Path) -> None:
    config = Config.model_validate(
        {"first": 1.6, "last": 2.2, "windows": 6, "walkers": 1, "equilibration": 20, "steps": 400, "frame_interval": 4}
    )
    sampler, (whole,) = sample(tmp_path, config, double)
    found = sampler.barrier([], [whole.rows(whole.steps < 4 * config.each, note="lost atoms")])
    assert found.note.startswith("walker 0: lost atoms; no samples in window 5, 6")
    nothing = sampler.barrier([], [whole.rows(whole.steps < 10, note="lost atoms")])
    assert nothing.note == "walker 0: lost atoms; no window has samples"
    assert np.isnan(nothing.barrier)


def test_default_force_constant_goes_with_spacing_and_temperature() -> None:
    config = Config.model_validate({"first": 1.0, "last": 3.0, "spacing": 0.1, "temperature": 400})
    assert len(config.centers) == 21
    assert config.constant == pytest.approx(2 * KB * 400 / 0.1**2)
    assert len(Config.model_validate({"first": 0, "last": 1}).centers) == 24


def test_a_variable_with_a_width_gets_the_same_restraint() -> None:
    class Wide(cv.Distance):
        def colvars(self) -> str:
            return super().colvars().replace("  name cv", "  name cv\n  width 0.5")

    config = Config.model_validate({"first": 1.0, "last": 2.0, "windows": 6})
    start = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0, 0, 1.0]]))
    text = build(config, [Wide((0, 1))], start)._colvars(1.0, [])
    constant = float(text.split("forceConstant")[1].split()[0])
    assert constant == pytest.approx(config.constant * 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 1, "last": 1}, "first and last are the same"),
        ({"first": 1, "last": 2, "windows": 5, "spacing": 0.1}, "not both"),
        ({"first": 1, "last": 2, "spacing": 1.5}, "there would be one window"),
        ({"first": 1, "last": 2, "windows": 3, "walkers": 4}, "4 walkers cannot share 3 windows"),
        ({"first": 1, "last": 2, "walkers": [{}, {"temperature": 400}]}, r"walkers\[1\].temperature: all windows are"),
        ({"first": 1, "last": 2, "force_constant": "3 fs"}, "not a number with a unit"),
    ],
)
def test_settings_that_make_no_profile_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(settings)
