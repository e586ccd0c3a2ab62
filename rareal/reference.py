"""The engine's own figures: its pulls from the same velocities, and its quasi-static rupture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rareal.barrier import Work, broken_bond, work
from rareal.errors import RunFolderError
from rareal.files import read_json, write_json
from rareal.protocols import Engine, Progress
from rareal.records import Frame, Trajectory
from rareal.rupture import Config as RuptureConfig
from rareal.rupture import Rupture, rupture
from rareal.rupture import load as load_rupture
from rareal.rupture import save as save_rupture
from rareal.sampling.reference import archive
from rareal.sampling.trajectory import load as load_pull

SUMMARY, RUPTURE = "reference.json", "rupture.npz"


def velocity_seeds(walkers: int) -> list[int]:
    """Seeds of the initial velocities of so many pulls: the same in every round, every run and the reference."""
    return list(range(1, walkers + 1))


@dataclass(frozen=True, eq=False)
class Reference:
    """The engine's pulls, one per velocity seed, and its quasi-static rupture.

    ``engine`` is the hash of the engine's settings; broken bonds count atoms from 1.
    """

    engine: str
    pulls: tuple[Trajectory, ...]
    broken_bonds: tuple[tuple[int, int] | None, ...]
    rupture: Rupture

    @property
    def seeds(self) -> list[int]:
        """The velocity seeds, in the order of ``pulls``."""
        return [pull.seed for pull in self.pulls]

    @property
    def work(self) -> Work:
        """W_max of the pulls."""
        return work(self.pulls)


def load(folder: Path) -> Reference:
    """The reference in ``folder``.

    Raises
    ------
    RunFolderError
        If there is none, or it is not complete.
    """
    if not (folder / SUMMARY).is_file():
        raise RunFolderError(f"{folder} holds no finished reference; make one with `rareal reference CONFIG`")
    summary = read_json(folder / SUMMARY)
    pulls = tuple(load_pull(archive(folder, seed))[0] for seed in summary["seeds"])
    bonds = tuple(tuple(bond) if bond else None for bond in summary["broken_bonds"])
    try:
        static = load_rupture(folder / RUPTURE)
    except KeyError as error:
        raise RunFolderError(
            f"{folder / RUPTURE} was written by another version of rareal ({error}); delete it and "
            "run `rareal reference` again"
        ) from error
    return Reference(summary["engine"], pulls, bonds, static)


def compute(
    sampler: Any,
    engine: Engine,
    start: Frame,
    ends: tuple[int, int],
    config: RuptureConfig,
    folder: Path,
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> Reference:
    """Compute what is missing of the reference in ``folder``.

    ``sampler`` drives LAMMPS with the engine; ``ends`` are the atoms (from 0) of the quasi-static pull.
    """
    pulls = sampler.sample(folder, seeds, progress)
    settings = config.model_dump(mode="json")
    kept = read_json(folder / SUMMARY)["rupture"]["settings"] if (folder / SUMMARY).is_file() else None
    if kept != settings or not (folder / RUPTURE).is_file():
        save_rupture(folder / RUPTURE, rupture(engine.calculate, start, ends, config))
    static = load_rupture(folder / RUPTURE)
    summary = {
        "engine": engine.hash,
        "seeds": list(seeds),
        "works_eV": [float(pull.work.max()) for pull in pulls],
        "broken_bonds": [broken_bond(start.numbers, pull) for pull in pulls],
        "rupture": {
            "settings": settings,
            "energy_max_eV": static.energy_max,
            "force_max_eV_A": static.force_max,
            "distance_A": static.break_distance,
            "stability_energy_eV": static.stability_energy,
            "stability_distance_A": static.stability_distance,
            "broken_bond": list(static.broken_bond),
            "engine_calls": static.calls,
        },
    }
    write_json(folder / SUMMARY, summary)
    return load(folder)
