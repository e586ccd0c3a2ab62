"""The samplers' sections in a YAML: read, resolved, read back, built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.io import write

from rareal.build import build_variables, build_walkers, make
from rareal.config import load
from rareal.errors import ConfigError
from rareal.sampling import displacement, lammps, md, normal_modes, steered

SECTIONS: list[dict[str, Any]] = [
    {"sampler": {"kind": "md", "thermostat": "csvr", "final_temperature": "600 K"}},
    {"sampler": {"kind": "md", "walkers": [{}, {"temperature": "500 K", "uncertainty_bias": {"form": "linear"}}]}},
    {"sampler": {"kind": "udd", "uncertainty_bias": {"gain": 10}}},
    {"sampler": {"kind": "steered", "uncertainty_bias": {"temperature": "300 K"}, "reverse": True}},
    {"sampler": {"kind": "steered", "velocities": [0.001, "2 angstrom/ps"], "walkers": 2, "thermostat": "langevin"}},
    {"sampler": {"kind": "steered", "mode": "force", "force": "2 eV/angstrom", "hold": [2]}},
    {"sampler": {"kind": "steered", "along": {"atoms": [1], "direction": [0, 0, 1], "away_from": [2]}}},
    {"initial": {"kind": "normal_modes", "statistics": "quantum", "lowest_wavenumber": "80 cm^-1"}},
    {"initial": {"kind": "displacement", "amplitude": "0.1 angstrom"}},
]


def written(folder: Path, sections: dict[str, Any]) -> Path:
    write(folder / "propane.xyz", molecule("C3H8"))
    tree = {"structure": "propane.xyz", "cv": {"kind": "distance", "atoms": [1, 3]}, **sections}
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("sections", SECTIONS, ids=lambda s: "-".join(map(str, next(iter(s.values())))))
def test_sections_are_read_and_resolved(tmp_path: Path, sections: dict[str, Any]) -> None:
    config = load(written(tmp_path, sections))
    again = tmp_path / "again.yaml"
    again.write_text(config.resolved_yaml())
    assert load(again).resolved() == config.resolved()
    if "initial" in sections:
        made = make(config, "initial", start=config.frame)
        assert isinstance(made, displacement.Displacement | normal_modes.NormalModeSampling)
        return
    sampler = make(config, "sampler", start=config.frame, variables=build_variables(config))
    assert isinstance(sampler, md.MolecularDynamics | steered.SteeredMD)
    walkers = build_walkers(config)
    assert len(walkers) == sampler.config.count
    for walker in walkers:
        folder = tmp_path / f"walker-{walker.number}"
        sampler.prepare(folder, walker, "# potential")
        text = (folder / sampler.script_name).read_text()
        assert "@" not in text
        assert (folder / lammps.DATA).exists()


def test_walkers_have_their_own_temperature(tmp_path: Path) -> None:
    config = load(written(tmp_path, SECTIONS[1]))
    sampler = make(config, "sampler", start=config.frame, variables=build_variables(config))
    found = [sampler.config.of(k) for k in range(2)]
    assert [s.temperature for s in found] == [300.0, 500.0]
    assert [s.uncertainty_bias is None for s in found] == [True, False]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sampler": {"kind": "md", "pressure": "1 bar"}}, r"sampler\.pressure.*periodic in all three directions"),
        ({"sampler": {"kind": "steered", "hold": [99]}}, "there is no atom 99"),
        ({"sampler": {"kind": "udd", "uncertainty_bias": {"gain": 0.5}}}, "gain"),
        ({"sampler": {"kind": "udd", "uncertainty_bias": {"from": "gaussian"}}}, "form"),
        ({"sampler": {"kind": "md", "walkers": [{"temperatur": 5}]}}, r"walkers\[0\]\.temperatur"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, sections))


def test_what_the_spring_pulls_along_a_direction(tmp_path: Path) -> None:
    config = load(written(tmp_path, SECTIONS[6]))
    sampler = make(config, "sampler", start=config.frame, variables=build_variables(config))
    pulled = sampler.pulled(config.sampler, config.frame)
    positions = np.stack([config.frame.positions, config.frame.positions])
    positions[1, 0] += [3.0, 2.0, 1.0]
    assert np.diff(pulled(positions)) == pytest.approx([1.0])
