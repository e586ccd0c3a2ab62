"""Uncertainty-driven dynamics with a committee whose disagreement is known: springs of different stiffness.

Member m has the energy ½ k_m (r - r0)², so that the std is ½ S (r - r0)² with S the std of the stiffnesses. Under
E = -A s² the pair of atoms is in the potential ½ k (r - r0)² - ¼ A S² (r - r0)⁴, under E = A exp(-s²/B²) in another
that can be written down: the mean std follows by quadrature.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from rareal import cv
from rareal.errors import SamplingError
from rareal.records import Array, Frame, Trajectory, Walker
from rareal.sampling import bias, lammps, steered, udd
from rareal.sampling.base import Dynamics
from rareal.sampling.bias import UncertaintyBias, new_above
from rareal.units import KB

MEAN, STD, LENGTH = 4.0, 3.0, 1.5
TEMPERATURE = 300.0
PAIR = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [0.0, 0.0, LENGTH]]))
CV = cv.Distance((0, 1))


class Springs(torch.nn.Module):
    """Two members, stiffnesses MEAN ± STD; every bond is half an atom's."""

    def __init__(self, mean: float, std: float, length: float) -> None:
        super().__init__()
        self.members = 2
        self.length = length
        self.stiffness = torch.nn.Parameter(torch.tensor([mean - std, mean + std], dtype=torch.float64))

    def forward(self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, n_local: int) -> tuple[Tensor, Tensor]:
        distance = (edge_vec * edge_vec).sum(1).sqrt()
        stretch = distance - self.length
        energies: list[Tensor] = []
        gradients: list[Tensor] = []
        for m in range(self.members):
            pair = 0.25 * self.stiffness[m] * stretch * stretch
            zero = torch.zeros(species.size(0), dtype=edge_vec.dtype)
            energies.append(zero.index_add(0, edge_index[0], pair)[:n_local].detach())
            slope = 0.5 * self.stiffness[m] * stretch
            gradients.append((slope / distance).unsqueeze(1).detach() * edge_vec)
        return torch.stack(energies), torch.stack(gradients)


@pytest.fixture(scope="module")
def springs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "springs.pt"
    entries = {
        "format": 1, "architecture": "springs", "elements": ["C"], "self_energies": [0.0], "cutoff": 6.0, "layers": 0,
        "members": 2, "dtype": "float64", "units": {"energy": "eV", "length": "angstrom"}, "dataset_hash": "none",
        "best_member": 0, "rareal_version": "test", "ops": [],
    }  # fmt: skip
    script = torch.jit.script(Springs(MEAN, STD, LENGTH))
    torch.jit.save(script, str(path), _extra_files={"rareal.json": json.dumps(entries)})
    return path


def expected(energy: Any) -> tuple[float, float]:
    """Means of (r - r0)² and of the std in three dimensions under the bias ``energy`` of the std."""
    r = np.linspace(LENGTH - 0.5, LENGTH + 0.5, 20001)  # the linear bias wins beyond: 11 kT higher
    s = 0.5 * STD * (r - LENGTH) ** 2
    weight = r**2 * np.exp(-(0.5 * MEAN * (r - LENGTH) ** 2 + energy(s)) / (KB * TEMPERATURE))
    weight /= weight.sum()
    return float(weight @ (r - LENGTH) ** 2), float(weight @ s)


def drive(folder: Path, model: Path, wanted: dict[str, Any] | None, **settings: Any) -> Trajectory:
    values = {
        "steps": 30000, "equilibration": 1000, "temperature": TEMPERATURE, "damping": 20.0, "timestep": 2.0,
        "frame_interval": 5, "walkers": 1, "uncertainty_bias": wanted, **settings,
    }  # fmt: skip
    made = udd.build(udd.Config.model_validate(values), [CV], PAIR)
    found = made.sample(model, folder, Walker(0, 3, PAIR))
    assert found.note == "", (folder / lammps.SCREEN).read_text()[-2000:]
    return found


def error(values: Array) -> float:
    """Standard error by blocks."""
    blocks = np.array([part.mean() for part in np.array_split(values, 20)])
    return float(blocks.std(ddof=1) / math.sqrt(20))


@pytest.mark.parametrize(
    ("wanted", "energy"),
    [
        ({"form": "gaussian", "strength": 0.08, "width": 0.03}, lambda s: 0.08 * np.exp(-(s**2) / 0.03**2)),
        ({"form": "linear", "strength": 1.5}, lambda s: -1.5 * s**2),
    ],
    ids=["gaussian", "linear"],
)
def test_disagreement_is_sought_as_the_bias_says(tmp_path: Path, springs: Path, wanted: Any, energy: Any) -> None:
    found = drive(tmp_path, springs, wanted)
    spread, doubt = expected(energy)
    plain_spread, plain_doubt = expected(lambda s: 0.0 * s)
    stretch = (found.cv - LENGTH) ** 2
    assert found.energy_std == pytest.approx(0.5 * STD * stretch, abs=1e-7)
    assert found.bias == pytest.approx(energy(found.energy_std), abs=1e-7)
    assert stretch.mean() == pytest.approx(spread, abs=4 * error(stretch))
    assert found.energy_std.mean() == pytest.approx(doubt, abs=4 * error(found.energy_std))
    assert spread > 1.05 * plain_spread
    if wanted["form"] == "gaussian":  # and that is far from what it would be without
        assert found.energy_std.mean() - plain_doubt > 4 * error(found.energy_std)
    # reweighting takes it off again
    weights = np.exp(found.bias / (KB * TEMPERATURE))
    reweighted = np.sum(weights * stretch) / weights.sum()
    assert reweighted == pytest.approx(plain_spread, rel=0.15)


def test_strength_and_width_by_the_rule(tmp_path: Path, springs: Path) -> None:
    found = drive(tmp_path, springs, {"gain": 50.0, "steps": 2000}, steps=100)
    assert len(found)
    line = next(x for x in (tmp_path / "in.md").read_text().splitlines() if x.startswith("pair_style"))
    words = line.split()
    assert words[:5] == ["pair_style", "mlensemble", "drive", "mean", "bias"]
    form, strength, width = words[5], float(words[6]), float(words[7])
    assert form == "gaussian"
    assert strength == pytest.approx(KB * TEMPERATURE * math.log(50.0))
    # the std is S/k times an energy of one degree of freedom: mean kT/2, std kT/sqrt 2
    exact = STD / MEAN * KB * TEMPERATURE * (0.5 + 3 / math.sqrt(2))
    assert width == pytest.approx(exact, rel=0.5)
    with (tmp_path / bias.FOLDER / lammps.TABLE).open() as stream:
        rows = list(csv.reader(stream, delimiter=" ", skipinitialspace=True))
    stds = np.array([float(row[2]) for row in rows if row[0] != "#"])
    assert width == pytest.approx(new_above(stds))
    assert (
        "bias" not in (tmp_path / bias.FOLDER / bias.SCRIPT).read_text().split("pair_coeff")[0].split("pair_style")[1]
    )


def test_any_sampler_takes_the_bias(tmp_path: Path, springs: Path) -> None:
    config = steered.Config.model_validate(
        {"steps": 50, "relaxation_steps": 20, "walkers": 1, "uncertainty_bias": {"form": "linear", "strength": 2.0}}
    )
    made = steered.build(config, [CV], PAIR)
    found = made.sample(springs, tmp_path, Walker(0, 3, PAIR))
    assert found.note == ""
    assert found.bias == pytest.approx(-2.0 * found.energy_std**2, abs=1e-10)
    assert not (tmp_path / bias.FOLDER).exists()


def test_a_committee_of_one_mind_is_an_error_that_says_so(tmp_path: Path, springs: Path) -> None:
    with pytest.raises(SamplingError, match="agree everywhere"):
        UncertaintyBias().keyword(300.0, 0.0)
    made = udd.build(udd.Config(walkers=1), [CV], PAIR)
    found = made.sample(tmp_path / "missing.pt", tmp_path / "walker", Walker(0, 3, PAIR))
    assert not len(found)
    assert "run without bias failed" in found.note


def test_rule_and_given_values() -> None:
    kt = KB * 300.0
    assert UncertaintyBias(gain=math.e).keyword(300.0, 0.1) == f"bias gaussian {kt:.10g} 0.1"
    assert UncertaintyBias(form="linear", gain=math.e).keyword(300.0, 0.1) == f"bias linear {kt / 0.01:.10g}"
    # what the rule promises: frames at the scale are `gain` times as likely
    assert math.exp(kt / 0.01 * 0.1**2 / kt) == pytest.approx(math.e)
    assert UncertaintyBias(gain=math.e, temperature=600).keyword(10.0, 0.1) == f"bias gaussian {2 * kt:.10g} 0.1"
    assert UncertaintyBias(strength=1.0, width=0.2).keyword(300.0, math.nan) == "bias gaussian 1 0.2"
    with pytest.raises(ValidationError, match="linear form has none"):
        UncertaintyBias(form="linear", width=0.1)
    assert Dynamics().uncertainty_bias is None
    assert Dynamics.model_validate({"uncertainty_bias": {}}).uncertainty_bias == UncertaintyBias()
    assert udd.Config().of(0).uncertainty_bias == UncertaintyBias()
