"""What the settings of metadynamics accept, and the scripts they become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from pydantic import ValidationError

from rareal.config import load
from rareal.cv import Distance
from rareal.errors import ConfigError
from rareal.freeenergy.bias import Hills, mean, no_bias
from rareal.records import Frame, Walker
from rareal.sampling.metadynamics import ARCHIVE, START, Config, Metadynamics, load_bias, save_bias

PEROXIDE = Atoms("HOOH", [[0.9, 0.7, 0.3], [0.7, 0, 0], [-0.7, 0, 0], [-0.9, 0.7, -0.3]])
STRUCTURE = Frame(PEROXIDE.numbers.astype(np.int64), PEROXIDE.positions)
HEADER = """\
structure: peroxide.xyz
engine: tblite
sampler:
  kind: metadynamics
"""
ANGLE = "cv: {kind: dihedral, atoms: [1, 2, 3, 4]}\n"
STRETCH = "cv: {kind: distance, atoms: [2, 3]}\n"


VERBATIM = """\
cv:
  kind: colvars
  text: |
    colvar {
      name stretch
      width 0.1
      distance {
        group1 {
          atomNumbers 2
        }
        group2 {
          atomNumbers 3
        }
      }
    }
"""


def read(folder: Path, cv: str, *lines: str) -> Config:
    write(folder / "peroxide.xyz", PEROXIDE)
    path = folder / "run.yaml"
    path.write_text(HEADER + "".join(f"  {line}\n" for line in lines) + cv)
    found: Config = load(path).sampler  # type: ignore[assignment]
    return found


def test_one_variable_needs_no_list(tmp_path: Path) -> None:
    config = read(tmp_path, STRETCH, "biased: {hill_width: 0.05, range: [1.0, 3.0]}", "basins: [1.4, 2.5]")
    assert config.biased[0].range == (1.0, 3.0)
    assert config.basins == ((1.4,), (2.5,))
    assert read(tmp_path, ANGLE, "biased: {hill_width: 15}").biased[0].range is None


def test_two_variables_have_points_of_two_numbers(tmp_path: Path) -> None:
    both = "cv:\n- {kind: dihedral, atoms: [1, 2, 3, 4]}\n- {kind: distance, atoms: [2, 3]}\n"
    entries = "biased: [{hill_width: 15}, {hill_width: 0.1, range: [1, 2]}]"
    config = read(tmp_path, both, entries, "basins: [[90, 1.4], [-90, 1.4]]")
    assert config.basins == ((90.0, 1.4), (-90.0, 1.4))
    with pytest.raises(ConfigError, match="a point has 2 numbers"):
        read(tmp_path, both, entries, "basins: [90, -90]")


@pytest.mark.parametrize(
    ("cv", "lines", "message"),
    [
        (STRETCH, ["biased: [{hill_width: 0.1, range: [1, 2]}, {hill_width: 3}]"], "2 entries for 1 collective"),
        (STRETCH, ["biased: {hill_width: 0.1}"], "needs a `range`: .* does not wrap"),
        (STRETCH, ["biased: {hill_width: 0.1, range: [1.6, 3]}"], "is at 1.4 Å, outside of the range 1.6"),
        (STRETCH, ["biased: {hill_width: 0.1, range: [3, 1]}"], "the lower end first"),
        (STRETCH, ["biased: {hill_width: 1.0, range: [1, 2]}"], "four hill widths"),
        (STRETCH, ["biased: {hill_width: 0, range: [1, 2]}"], "hill_width: 0: out of range"),
        (STRETCH, ["biased: {hill_width: 0.1, range: [1, 2]}", "bias_factor: 1"], "bias_factor: 1: out of range"),
        (STRETCH, ["steps: 5"], "biased"),
        (STRETCH, ["biased: []"], "one entry per collective variable"),
        (
            STRETCH,
            ["biased: {hill_width: 0.1, range: [1, 2]}", "walkers: [{}, {temperature: 400 K}]"],
            "temperature is the same for all",
        ),
        (
            VERBATIM,
            ["biased: {hill_width: 0.1, range: [1, 2]}"],
            "leave .* width out of cv.1.",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path: Path, cv: str, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, cv, *lines)


def sampler(**settings: object) -> Metadynamics:
    config = {"biased": {"hill_width": 0.1, "range": [1.0, 3.0]}, **settings}
    return Metadynamics(Config.model_validate(config), [Distance((1, 2))], STRUCTURE)


def test_grid_reaches_beyond_the_walls_and_is_fine() -> None:
    (grid,) = sampler().axes
    assert grid.low < 1.0 - 0.5
    assert grid.high > 3.0 + 0.5
    assert grid.width <= 0.02
    soft = sampler(biased={"hill_width": 0.1, "range": [1.0, 3.0], "wall": 0.5})
    assert soft.axes[0].high > grid.high


def test_walkers_of_the_last_round_that_left_nothing_are_passed_over(tmp_path: Path) -> None:
    made = sampler()
    folders = tuple(tmp_path / name for name in "abc")
    hills = Hills(np.array([50]), np.array([[1.5]]), np.array([[0.1]]), np.array([0.02]))
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        save_bias(folder / ARCHIVE, no_bias(made.axes), hills)
    begun = made.inherited(Walker(0, 1, STRUCTURE, folders))
    assert begun.energy == pytest.approx(mean([no_bias(made.axes).plus(hills)]).energy)
    start, again = load_bias(folders[0] / ARCHIVE)
    assert start.axes == made.axes
    assert again.centres.tolist() == [[1.5]]
    alone = made.inherited(Walker(0, 1, STRUCTURE, folders[2:]))
    assert not alone.energy.any()
    fresh = sampler(inherit=0.0).inherited(Walker(0, 1, STRUCTURE, folders))
    assert not fresh.energy.any()


def test_script_reads_a_state_only_where_there_is_a_bias(tmp_path: Path) -> None:
    made = sampler()
    made.prepare(tmp_path / "first", Walker(0, 1, STRUCTURE), "pair_style zero 5.0")
    assert "input" not in (tmp_path / "first" / "in.metadynamics").read_text().partition("fix             bias")[2][:80]
    hills = Hills(np.array([50]), np.array([[1.5]]), np.array([[0.1]]), np.array([0.02]))
    save_bias(tmp_path / "first" / ARCHIVE, no_bias(made.axes), hills)
    made.prepare(tmp_path / "next", Walker(0, 1, STRUCTURE, (tmp_path / "first",)), "pair_style zero 5.0")
    assert f"input {START}" in (tmp_path / "next" / "in.metadynamics").read_text()
    assert (tmp_path / "next" / START).is_file()


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        sampler().config.bias_factor = 3.0
