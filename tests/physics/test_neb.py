"""Minimum-energy paths against saddles that are known in closed form, or found in another way."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar, root

from rareal import cv
from rareal.labeling.tblite import Config as XtbConfig
from rareal.labeling.tblite import build as build_xtb
from rareal.protocols import Engine
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling.bands import aligned, distances, through_frames
from rareal.sampling.neb import (
    ElasticBand,
    Members,
    PathConfig,
    figures,
    minimum_energy_path,
    path_between,
    read,
    save,
)
from rareal.sampling.resume import drive

SCALE = 0.005
"""eV, of the surface of Müller and Brown."""

SADDLES = {"high": -40.664844, "low": -72.248940}
MINIMA = {"deep": (-0.558224, 1.441726), "between": (-0.050011, 0.466694), "right": (0.623499, 0.028038)}
ENERGIES = {"deep": -146.699517, "between": -80.767818, "right": -108.166724}
ATOM = Frame(np.array([1]), np.zeros((1, 3)), 20.0 * np.eye(3), (True, True, True))


def surface(frame: Frame) -> tuple[float, Array]:
    """K. Müller and L. D. Brown, Theor. Chim. Acta 1979, 53, 75; and a well along z."""
    x, y, z = frame.positions[0]
    energy, force = 0.0, np.zeros((1, 3))
    for depth, a, b, c, x0, y0 in (
        (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
        (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
        (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
        (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
    ):
        part = depth * np.exp(a * (x - x0) ** 2 + b * (x - x0) * (y - y0) + c * (y - y0) ** 2)
        energy += part
        force[0, 0] -= part * (2 * a * (x - x0) + b * (y - y0))
        force[0, 1] -= part * (b * (x - x0) + 2 * c * (y - y0))
    return SCALE * energy + z**2, np.array([[SCALE * force[0, 0], SCALE * force[0, 1], -2 * z]])


def scaled(*factors: float) -> Members:
    """A committee whose members are multiples of the surface."""

    def committee(frame: Frame) -> tuple[Array, Array]:
        energy, forces = surface(frame)
        return np.array([f * energy for f in factors]), np.array([f * forces for f in factors])

    return committee


def at(place: str) -> Frame:
    return replace(ATOM, positions=np.array([[*MINIMA[place], 0.0]]))


def alone(engine: Engine) -> Members:
    """An engine as a committee of one."""

    def committee(frame: Frame) -> tuple[Array, Array]:
        energy, forces = engine.calculate(frame)[:2]
        return np.array([energy]), np.array([forces])

    return committee


def trajectory(positions: Array, values: Array) -> Trajectory:
    zeros = np.zeros(len(positions))
    return Trajectory(0, 1, np.arange(len(positions)), values, zeros, zeros, zeros, zeros, positions)


NONE = np.empty((0, 1, 3))
FINE = PathConfig(images=11, fmax=0.01, end_fmax=0.001)


def test_saddle_and_ends_of_the_closed_form() -> None:
    path = path_between(scaled(0.9, 1.1), at("deep"), at("right").positions + 0.05, NONE, FINE)
    high = SCALE * (SADDLES["high"] - ENERGIES["deep"])
    assert path.converged
    assert path.guess == "idpp"
    assert path.barrier == pytest.approx(high, abs=2e-4)
    assert path.barrier_std == pytest.approx(0.1 * high, abs=1e-4)
    assert path.barrier_back == pytest.approx(SCALE * (SADDLES["high"] - ENERGIES["right"]), abs=2e-4)
    assert path.positions[path.top, 0, :2] == pytest.approx([-0.822001, 0.624314], abs=0.01)
    assert path.note.startswith("the path goes through another minimum, 0.3")
    assert figures(path)["mep_barrier_eV"] == path.barrier


def test_frames_show_the_way() -> None:
    """Frames that go back and forth around the bent valley, over and over, with noise."""
    rng = np.random.default_rng(4)
    valley = np.array([MINIMA["deep"], (-0.8, 0.65), MINIMA["between"]])
    share = 1.0 - np.abs(np.linspace(-3.0, 3.0, 601) % 2 - 1.0)
    places = [np.interp(2 * share, [0, 1, 2], valley[:, axis]) for axis in (0, 1)]
    positions = np.stack([*places, np.zeros(601)], axis=1)[:, None, :] + rng.normal(0, 0.03, (601, 1, 3))
    positions[-1] = positions[100]  # back and forth, and back: the last frame is where it began
    values = positions[:, 0, 0] - positions[:, 0, 1]
    path = minimum_energy_path(scaled(1.0), ATOM, trajectory(positions, values), FINE)
    assert path.converged
    assert path.guess == "frames"
    assert path.note == ""
    ends = sorted(ENERGIES[place] for place in ("deep", "between"))
    assert {round(path.barrier, 3), round(path.barrier_back, 3)} == {
        round(SCALE * (SADDLES["high"] - energy), 3) for energy in ends
    }


def test_shortest_way_leaves_out_the_detours() -> None:
    rng = np.random.default_rng(0)
    way = np.linspace(0, 1, 400)
    frames = np.stack([way, np.sin(np.pi * way), np.zeros(400)], axis=1)[:, None, :]
    frames = np.concatenate([np.repeat(frames[:1], 2000, axis=0), frames, frames[::-1]])
    frames += rng.normal(0, 0.02, frames.shape)
    path = through_frames(np.zeros((1, 3)), np.array([[1.0, 0, 0]]), frames, 9, free=False)
    assert path is not None
    gaps = np.linalg.norm(np.diff(path[:, 0], axis=0), axis=1)
    assert gaps == pytest.approx(np.full(8, gaps.mean()), rel=0.25)
    assert path[:, 0, 1] == pytest.approx(np.sin(np.pi * path[:, 0, 0]), abs=0.15)


def test_frames_with_a_gap_do_not_show_the_way() -> None:
    ends = np.zeros((1, 3)), np.array([[1.0, 0, 0]])
    assert through_frames(*ends, np.array([[[0.1, 0, 0]], [[0.2, 0, 0]]]), 9, free=False) is None
    assert through_frames(*ends, np.empty((0, 1, 3)), 9, free=False) is None


def test_alignment_turns_but_does_not_mirror() -> None:
    rng = np.random.default_rng(1)
    structure = rng.normal(size=(5, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = np.stack([structure @ turn + 3.0, structure])
    assert aligned(turned, structure) == pytest.approx(np.stack([structure, structure]))
    assert distances(-structure, structure) > 0.5


def xtb() -> Engine:
    engine: Engine = build_xtb(XtbConfig())
    return engine


def ammonia(height: float, length: float = 1.01) -> Array:
    """N in the origin, the hydrogens in a plane ``height`` Å away."""
    angle = np.arange(3) * 2 * np.pi / 3
    radius = np.sqrt(length**2 - height**2)
    return np.vstack([np.zeros(3), np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(3, height)], 1)])


def test_inversion_of_ammonia_goes_over_the_planar_molecule() -> None:
    """By symmetry the saddle is planar, with the N-H length that is best there. The frames tumble and shake."""
    rng = np.random.default_rng(2)
    engine, frame = xtb(), Frame(np.array([7, 1, 1, 1]), ammonia(0.3))
    heights = np.concatenate([np.full(60, 0.35), np.linspace(0.35, -0.35, 20), np.full(60, -0.35)])
    positions = np.array([ammonia(h) for h in heights]) + rng.normal(0, 0.03, (140, 4, 3))
    for k in range(140):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        positions[k] = positions[k] @ (turn * np.linalg.det(turn)) + rng.normal(size=3)
    path = minimum_energy_path(alone(engine), frame, trajectory(positions, heights), PathConfig(images=5, fmax=0.03))

    def energy(length: float, height: float) -> float:
        return float(engine.calculate(replace(frame, positions=ammonia(height, length)))[0])

    saddle = minimize_scalar(lambda r: energy(r, 0.0), bounds=(0.95, 1.1), method="bounded").fun
    assert path.converged
    assert path.guess == "frames"
    assert path.note == ""
    assert saddle - path.members[0, 0] > 0.1
    assert path.barrier == pytest.approx(saddle - path.members[0, 0], abs=1e-3)
    assert path.barrier_back == pytest.approx(path.barrier, abs=1e-3)


def test_hydrogen_cyanide_isomerises_over_the_saddle_that_newton_finds() -> None:
    engine = xtb()
    frame = Frame(np.array([1, 6, 7]), np.array([[0.0, 0.05, -1.07], [0, 0, 0], [0, 0, 1.15]]))
    product = np.array([[0.0, 0.05, 2.15], [0, 0, 0], [0, 0, 1.17]])
    path = path_between(alone(engine), frame, product, np.empty((0, 3, 3)), PathConfig(images=5))

    def placed(point: Array) -> Frame:
        return replace(frame, positions=np.array([[0.0, point[0], point[1]], [0, 0, 0], [0, 0, point[2]]]))

    def slope(point: Array) -> Array:
        forces = engine.calculate(placed(point))[1]
        return np.array([forces[0, 1], forces[0, 2], forces[2, 2]])

    # C at the origin, H beside the middle of the bond
    found = root(slope, np.array([1.15, 0.45, 1.19]), tol=1e-4)
    hessian = -np.array([(slope(found.x + step) - slope(found.x - step)) / 2e-3 for step in 1e-3 * np.eye(3)])
    assert found.success
    assert int(np.sum(np.linalg.eigvalsh((hessian + hessian.T) / 2) < 0)) == 1
    barrier = engine.calculate(placed(found.x))[0] - path.members[0, 0]
    assert path.converged
    assert path.note == ""
    assert path.barrier > 1.0
    assert path.barrier == pytest.approx(barrier, abs=2e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PathConfig(fmax=1e-4, max_steps=20, end_fmax=0.1), "has not converged in 20 steps: .* there is no barrier"),
        (PathConfig(end_fmax=1e-9, max_steps=3), "an end does not relax to a minimum in 3 steps"),
    ],
)
def test_no_convergence_is_no_barrier(config: PathConfig, message: str) -> None:
    path = path_between(scaled(1.0), at("deep"), at("right").positions + 0.1, NONE, config)
    assert not path.converged
    assert np.isnan([path.barrier, path.barrier_back, path.barrier_std]).all()
    assert re.search(message, path.note)


def test_no_event_is_said() -> None:
    near = np.array([at("deep").positions + shift for shift in (0.0, 0.05, 0.1)])
    path = minimum_energy_path(scaled(1.0), ATOM, trajectory(near, np.arange(3.0)), FINE)
    assert path.note == "both ends relax to the same minimum: there is no event between them"
    assert np.isnan(path.barrier)
    short = minimum_energy_path(scaled(1.0), ATOM, trajectory(near[:1], np.zeros(1)), FINE)
    assert short.note == "the trajectory has no two frames"


def test_a_committee_without_the_product_gives_the_guess_to_be_labelled(tmp_path: Path) -> None:
    """Its own surface leads from both ends to the same minimum."""

    def bowl(frame: Frame) -> tuple[Array, Array]:
        return np.array([float(np.sum(frame.positions**2))]), -2 * frame.positions[None]

    sampler = band(bowl)
    found = sampler.sample(tmp_path / "model.pt", tmp_path, Walker(0, 3, at("deep")))
    assert len(found) == 13
    assert found.note == ""
    assert found.positions[0] == pytest.approx(at("deep").positions)
    assert found.positions[-1] == pytest.approx(at("between").positions)
    profile = sampler.barrier([tmp_path], [found])
    assert profile.note == "both ends relax to the same minimum: there is no event between them"
    assert np.isnan(profile.barrier)


def test_a_surface_without_numbers_is_said() -> None:
    def torn(frame: Frame) -> tuple[Array, Array]:
        energies, forces = scaled(1.0)(frame)
        return (energies * np.nan if frame.positions[0, 1] < 0.8 else energies), forces

    path = path_between(torn, at("deep"), at("right").positions, NONE, FINE)
    assert path.note == "the potential is not finite"
    assert np.isnan(path.barrier)


class Coordinate(cv.Distance):
    """x - y of the one atom."""

    def value(self, positions: Array) -> Array:
        difference: Array = positions[..., 0, 0] - positions[..., 0, 1]
        return difference


def band(committee: Members) -> ElasticBand:
    def load(model: Path) -> Members:
        return committee

    make: Callable[[Path], Members] = load
    return ElasticBand(FINE, [Coordinate((0, 0))], at("between").positions, make)


def test_images_are_the_trajectory_and_the_next_round_goes_on_from_them(tmp_path: Path) -> None:
    sampler, walker = band(scaled(0.9, 1.1)), Walker(0, 3, at("deep"))
    drive(sampler, tmp_path / "model.pt", tmp_path / "first", walker)
    found = sampler.sample(tmp_path / "model.pt", tmp_path / "second", replace(walker, previous=(tmp_path / "first",)))
    first, second = read(tmp_path / "first" / "neb.npz"), read(tmp_path / "second" / "neb.npz")
    assert (first.guess, second.guess) == ("idpp", "frames")
    assert second.calls < first.calls
    assert len(found) == 13
    assert found.energy == pytest.approx(second.members.mean(axis=0))
    assert found.energy_std == pytest.approx(0.1 * np.abs(found.energy))
    assert found.force_std.max() > 0
    profile = sampler.barrier([tmp_path / "second"], [found])
    assert profile.kind == "potential energy"
    assert profile.barrier == pytest.approx(SCALE * (SADDLES["high"] - ENERGIES["deep"]), abs=2e-4)
    assert profile.coordinate == pytest.approx(found.cv)


def test_a_band_without_images_says_why(tmp_path: Path) -> None:
    sampler = band(lambda frame: (np.array([np.nan]), np.zeros((1, 1, 3))))
    found = sampler.sample(tmp_path / "model.pt", tmp_path, Walker(0, 3, at("deep")))
    assert len(found) == 0
    assert found.note == "the potential is not finite"


def test_archive_gives_back_what_it_got(tmp_path: Path) -> None:
    path = path_between(scaled(1.0), at("deep"), at("between").positions, NONE, FINE)
    again = read(save(tmp_path / "neb.npz", path))
    assert np.array_equal(again.positions, path.positions)
    assert (again.converged, again.guess, again.calls, again.note) == (True, "idpp", path.calls, "")
