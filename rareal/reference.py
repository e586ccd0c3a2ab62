"""The engine's own figures: its pulls from the same velocities, and its quasi-static rupture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rareal.errors import RunFolderError
from rareal.event import broken_bonds
from rareal.files import read_json, write_json
from rareal.records import Trajectory
from rareal.rupture import Rupture, load, rupture, save

SUMMARY, RUPTURE = "reference.json", "rupture.npz"


def velocity_seeds(walkers: int) -> list[int]:
    """Seeds of the initial velocities of so many pulls: the same in every round, every run and the reference."""
    return list(range(1, walkers + 1))


@dataclass(frozen=True, eq=False)
class Reference:
    """W_max of the engine's pulls by velocity seed, eV, and its quasi-static rupture."""

    folder: Path
    works: dict[int, float]
    rupture: Rupture

    @classmethod
    def read(cls, folder: Path, engine_hash: str) -> Reference | None:
        """The reference in ``folder``, None if there is none (yet).

        Raises
        ------
        RunFolderError
            If it was made by another engine than the one with this hash.
        """
        if not (folder / SUMMARY).is_file():
            return None
        summary = read_json(folder / SUMMARY)
        if summary["engine"] != engine_hash:
            raise RunFolderError(
                f"{folder} is a reference of another engine ({summary['engine'][:12]}) than the labels' "
                f"({engine_hash[:12]}); make it again with `rareal reference`, or name another folder under 'reference'"
            )
        works = {int(seed): float(work) for seed, work in summary["works_eV"].items()}
        return cls(folder, works, load(folder / RUPTURE))


def make(config: Any, sampler: Any, engine: Any, worker: Any, folder: Path, seeds: Sequence[int], display: Any) -> str:
    """Run what is missing of the reference, write its summary and say what it found.

    ``sampler`` drives LAMMPS with the engine, ``worker`` evaluates single frames.
    """
    with display.stage("engine-driven pulls") as progress:
        trajectories = sampler.sample(folder, seeds, progress)
    if not (folder / RUPTURE).is_file():
        with display.stage("quasi-static rupture"):
            save(folder / RUPTURE, rupture(worker.calculate, config.frame, config.cv_atoms, config.check.rupture))
    quasistatic = load(folder / RUPTURE)
    works = {str(t.seed): float(t.work.max()) for t in trajectories}
    write_json(
        folder / SUMMARY,
        {
            "engine": engine.hash,
            "works_eV": works,
            "broken_bonds": {str(t.seed): _bonds(config, t) for t in trajectories},
            "rupture": {
                "energy_max_eV": quasistatic.energy_max,
                "force_max_eV_A": quasistatic.force_max,
                "distance_A": quasistatic.break_distance,
                "broken_bond": list(quasistatic.broken_bond),
                "engine_calls": quasistatic.calls,
            },
        },
    )
    return _text(config, trajectories, quasistatic, folder)


def _bonds(config: Any, trajectory: Trajectory) -> list[list[int]]:
    return [[a + 1, b + 1] for a, b in broken_bonds(config.frame.numbers, trajectory.positions)]


def _text(config: Any, trajectories: Sequence[Trajectory], quasistatic: Rupture, folder: Path) -> str:
    works = np.array([t.work.max() for t in trajectories])
    error = f" ± {works.std(ddof=1) / len(works) ** 0.5:.4f}" if len(works) > 1 else ""
    lines = [f"W_max of the engine's own pulls: {works.mean():.4f}{error} eV (mean and standard error of {len(works)})"]
    for t in trajectories:
        bonds = ", ".join(f"{a}-{b}" for a, b in _bonds(config, t)) or "none"
        lines.append(f"  velocity seed {t.seed}: {t.work.max():.4f} eV, broken bond {bonds}")
    if quasistatic.broke:
        a, b = quasistatic.broken_bond
        lines.append(
            f"Quasi-static rupture: E_max {quasistatic.energy_max:.4f} eV, F_max {quasistatic.force_max:.4f} eV/Å, "
            f"breaks at {quasistatic.break_distance:.3f} Å, bond {a}-{b}"
        )
    else:
        lines.append(f"Quasi-static rupture: {quasistatic.note}")
    lines.append(f"Reference in {folder}")
    return "\n".join(lines)
