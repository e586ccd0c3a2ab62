"""Drives that halt inside LAMMPS and go on: as if they had never stopped, where the potential is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import MorsePairs, save_committee

from rareal.cv import Distance
from rareal.records import Frame, Halt, Part, Trajectory, Walker
from rareal.sampling import md, metadynamics, steered
from rareal.sampling.resume import Segment, joined, load_segment
from rareal.sampling.trajectory import ARCHIVE, read_table, save
from rareal.units import KB

CHAIN = Frame(np.array([6, 6, 6, 1]), np.array([[0.0, 0, 0], [1.5, 0.3, 0], [3.0, 0, 0], [4.4, 0.4, 0.2]]))
UNSURE, SURE, ABOVE = 0.1, 1e-4, 0.02
"""eV: how far the members of two committees of the same mean are apart, and the std that stops a drive."""


@pytest.fixture
def unsure(tmp_path: Path) -> Path:
    return committee(tmp_path / "unsure.pt", UNSURE)


@pytest.fixture
def sure(tmp_path: Path) -> Path:
    return committee(tmp_path / "sure.pt", SURE)


def committee(path: Path, doubt: float, where: float = 1.9) -> Path:
    return save_committee(path, MorsePairs(3, doubt, where), metadata={"cutoff": 2.6})


def pull(**settings: Any) -> steered.SteeredMD:
    values = {"relaxation_steps": 50, "steps": 300, "velocity": 0.006, "spring": 20.0, "walkers": 1, **settings}
    return steered.build(steered.Config.model_validate(values), [Distance((0, 2))], CHAIN)


def part(sampler: Any, model: Path, folder: Path, walker: Walker) -> tuple[Trajectory, Segment]:
    """A part of a drive, kept as the loop does."""
    found = sampler.sample(model, folder, walker)
    save(folder / ARCHIVE, [found])
    return found, load_segment(folder)


def go_on(walker: Walker, folder: Path, segment: Segment, **changes: Any) -> Walker:
    assert segment.snapshot is not None
    before = walker.resume.parts if walker.resume is not None else ()
    parts = (*before, Part(folder, segment.snapshot.step))
    return replace(walker, resume=replace(segment.snapshot, parts=parts), **{"halt": None, "until": None, **changes})


def same(one: Trajectory, other: Trajectory, within: float = 1e-6) -> None:
    np.testing.assert_array_equal(one.steps, other.steps)
    for name in ("cv", "work", "energy", "positions"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=within, err_msg=name)


KINDS: dict[str, tuple[float, dict[str, Any]]] = {
    "smd": (1.9, {}),
    "smd together": (2.0, {"velocity": -0.006, "steps": 230, "relaxation_steps": 400}),
    "there and back": (1.72, {"reverse": True, "steps": 160, "turn_steps": 40, "frame_interval": 4}),
    "force": (1.9, {"mode": "force", "force": 20.0, "steps": 100}),
}
"""Where [Å] the committee is in doubt, and settings of the pull."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_halted_pull_goes_on_as_if_it_had_never_stopped(kind: str, tmp_path: Path) -> None:
    where, settings = KINDS[kind]
    unsure, sure = committee(tmp_path / "unsure.pt", UNSURE, where), committee(tmp_path / "sure.pt", SURE, where)
    sampler = pull(**settings)
    walker = Walker(0, 11, CHAIN)
    whole = sampler.sample(sure, tmp_path / "whole", walker)
    assert not whole.note

    halting = replace(walker, halt=Halt("energy", ABOVE, 3))
    first, segment = part(sampler, unsure, tmp_path / "first", halting)
    assert segment.ending == "halted"
    assert segment.snapshot is not None
    # at the place that is known: where the drive, whose surface is the same, has been in doubt for three steps
    above = whole.energy_std * UNSURE / SURE > ABOVE
    assert first.energy_std[-1] > ABOVE >= first.energy_std[first.steps == segment.snapshot.step]
    if sampler.config.frame_interval == 1:
        step = next(k for k in range(2, len(above)) if above[k - 2 : k + 1].all())
        assert (segment.snapshot.step, first.steps[-1]) == (step - 3, step)

    last = go_on(halting, tmp_path / "first", segment)
    if kind in ("smd", "there and back"):  # with a pause on the way
        pausing = replace(last, until=segment.snapshot.step + 41)
        _, paused = part(sampler, sure, tmp_path / "second", pausing)
        assert paused.ending == "paused"
        last = go_on(pausing, tmp_path / "second", paused)
    rest = sampler.sample(sure, tmp_path / "last", last)
    assert last.resume is not None
    same(joined(last.resume, rest), whole)


def test_a_drive_that_is_at_its_end_ends_at_once(sure: Path, tmp_path: Path) -> None:
    sampler = pull(steps=60)
    walker = Walker(0, 11, CHAIN, until=60)
    whole, segment = part(sampler, sure, tmp_path / "first", walker)
    assert segment.ending == "finished"
    again = go_on(walker, tmp_path / "first", segment)
    rest = sampler.sample(sure, tmp_path / "second", again)
    assert again.resume is not None
    same(joined(again.resume, rest), whole)


def test_total_energy_is_conserved_over_the_seam(unsure: Path, sure: Path, tmp_path: Path) -> None:
    settings = {"thermostat": "csvr", "damping": 1e12, "temperature": 600.0, "equilibration": 0, "steps": 200}
    config = md.Config.model_validate({**settings, "timestep": 0.1, "frame_interval": 5, "walkers": 1})
    sampler = md.build(config, [Distance((0, 2))], CHAIN)
    walker = Walker(0, 5, CHAIN, halt=Halt("energy", 1.0, 5), until=90)
    _, segment = part(sampler, unsure, tmp_path / "first", walker)
    assert segment.snapshot is not None
    assert (segment.ending, segment.snapshot.step) == ("paused", 90)
    sampler.sample(sure, tmp_path / "second", go_on(walker, tmp_path / "first", segment))
    first, second = (total(tmp_path / name) for name in ("first", "second"))
    assert list(first) == list(range(91))
    assert list(second) == list(range(90, 201))
    assert second[90] == pytest.approx(first[90], abs=1e-8)
    energies = np.array([*first.values(), *second.values()])
    assert np.ptp(energies) < 0.02 * np.ptp(read_table(tmp_path / "second" / "drive.dat")["energy"])


def total(folder: Path) -> dict[int, float]:
    """Potential and kinetic energy, eV, by step."""
    table = read_table(folder / "drive.dat")
    kinetic = 0.5 * (3 * len(CHAIN.numbers) - 3) * KB * table["temperature"]
    return {int(step): float(e) for step, e in zip(table["step"], table["energy"] + kinetic, strict=True)}


def test_hills_stay_where_they_are_when_metadynamics_goes_on(unsure: Path, sure: Path, tmp_path: Path) -> None:
    """Without noise, a drive of three parts is the whole drive, its hills included; and it inherits but once."""
    biased = {"hill_width": 0.2, "range": [2.0, 4.0]}
    settings = {"biased": biased, "steps": 300, "relaxation_steps": 20, "hill_interval": 12, "frame_interval": 5}
    config = metadynamics.Config.model_validate({**settings, "hill_height": 0.1, "damping": 1e12, "walkers": 1})
    sampler = metadynamics.build(config, [Distance((0, 2))], CHAIN)
    before = sampler.sample(sure, tmp_path / "before", Walker(0, 7, CHAIN))
    walker = Walker(0, 11, CHAIN, previous=(tmp_path / "before",))
    whole = sampler.sample(sure, tmp_path / "whole", walker)
    assert not before.note + whole.note

    halting = replace(walker, halt=Halt("energy", ABOVE, 5))
    _, segment = part(sampler, unsure, tmp_path / "first", halting)
    assert segment.ending == "halted"
    assert segment.snapshot is not None
    pausing = go_on(halting, tmp_path / "first", segment, until=segment.snapshot.step + 31)
    _, paused = part(sampler, sure, tmp_path / "second", pausing)
    assert paused.ending == "paused"
    last = go_on(pausing, tmp_path / "second", paused)
    rest = sampler.sample(sure, tmp_path / "last", last)
    assert last.resume is not None
    found = joined(last.resume, rest)
    # Colvars leaves out the tails of its hills
    same(found, whole, within=2e-3)
    np.testing.assert_allclose(found.bias, whole.bias, rtol=0, atol=2e-3)  # that of a bin next to it, sometimes
    assert np.ptp(whole.bias) > 0.05
    (begun, hills), (expected, laid) = (
        metadynamics.load_bias(tmp_path / name / "bias.npz") for name in ("last", "whole")
    )
    assert np.array_equal(begun.energy, expected.energy)
    assert hills.steps.tolist() == laid.steps.tolist() == list(range(12, 301, 12))
    np.testing.assert_allclose(hills.heights, laid.heights, rtol=0, atol=1e-4)
    np.testing.assert_allclose(hills.centres, laid.centres, rtol=0, atol=2e-4)


def test_noise_is_not_repeated_and_a_ramp_goes_on(sure: Path, tmp_path: Path) -> None:
    config = md.Config.model_validate({"temperature": 100.0, "final_temperature": 300.0, "steps": 100, "walkers": 1})
    sampler = md.build(config, [Distance((0, 2))], CHAIN)
    walker = Walker(0, 5, CHAIN, until=40)
    sampler.prepare(tmp_path / "first", walker, "")
    sampler.prepare(tmp_path / "again", walker, "")
    _, segment = part(sampler, sure, tmp_path / "run", walker)
    sampler.prepare(tmp_path / "second", go_on(walker, tmp_path / "run", segment), "")
    first, again, second = ((tmp_path / name / "in.md").read_text() for name in ("first", "again", "second"))
    assert first == again
    assert "langevin 100 180 0.05 5\n" in first
    bath = [line.split() for line in second.splitlines() if "langevin" in line][-1]
    assert bath[-4:-1] == ["180", "300", "0.05"]
    assert bath[-1] != "5"
    assert "# it goes on: velocity" in second
    assert "reset_timestep  40" in second


def test_a_drive_in_doubt_from_the_beginning_has_nothing_to_go_on_from(unsure: Path, tmp_path: Path) -> None:
    _, segment = part(pull(), unsure, tmp_path / "first", Walker(0, 11, CHAIN, halt=Halt("energy", 1e-12, 1)))
    assert (segment.ending, segment.snapshot) == ("halted", None)


def test_a_drive_that_breaks_down_goes_on_from_what_could_be_trusted(sure: Path, tmp_path: Path) -> None:
    walker = Walker(0, 11, CHAIN, halt=Halt("energy", ABOVE, 3))
    _, segment = part(pull(timestep=60.0), sure, tmp_path / "first", walker)
    assert segment.ending == "failed"
    assert load_segment(tmp_path / "nowhere").ending == "failed"
