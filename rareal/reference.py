"""The engine's own figures: its pulls from the same velocities, and its quasi-static rupture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rareal.barrier import broken_bond, work
from rareal.errors import RunFolderError
from rareal.files import read_json, write_json
from rareal.records import Trajectory
from rareal.rupture import Rupture, load, rupture, save
from rareal.sampling.reference import archive
from rareal.sampling.trajectory import load as load_pull

SUMMARY, RUPTURE = "reference.json", "rupture.npz"


def velocity_seeds(walkers: int) -> list[int]:
    """Seeds of the initial velocities of so many pulls: the same in every round, every run and the reference."""
    return list(range(1, walkers + 1))


@dataclass(frozen=True, eq=False)
class Reference:
    """The engine's pulls, one per velocity seed, and its quasi-static rupture."""

    pulls: tuple[Trajectory, ...]
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
        pulls = tuple(load_pull(archive(folder, int(seed)))[0] for seed in summary["works_eV"])
        return cls(pulls, load(folder / RUPTURE))


def make(config: Any, sampler: Any, engine: Any, worker: Any, folder: Path, seeds: Sequence[int], display: Any) -> str:
    """Run what is missing of the reference, write its summary and say what it found.

    ``sampler`` drives LAMMPS with the engine, ``worker`` evaluates single frames.
    """
    with display.stage("engine-driven pulls") as progress:
        trajectories = sampler.sample(folder, seeds, progress)
    if not (folder / RUPTURE).is_file():
        with display.stage("quasi-static rupture"):
            save(folder / RUPTURE, rupture(worker.calculate, config.frame, sampler.cv.atoms, config.check.rupture))
    quasistatic = load(folder / RUPTURE)
    write_json(
        folder / SUMMARY,
        {
            "engine": engine.hash,
            "works_eV": {str(t.seed): float(t.work.max()) for t in trajectories},
            "broken_bonds": {str(t.seed): broken_bond(config.frame.numbers, t) for t in trajectories},
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


def _text(config: Any, trajectories: Sequence[Trajectory], quasistatic: Rupture, folder: Path) -> str:
    pulls = work(trajectories)
    lines = [
        f"W_max of the engine's own pulls: {pulls.mean:.4f} ± {pulls.error:.4f} eV "
        f"(mean and standard error of {len(pulls.maxima)})"
    ]
    for t in trajectories:
        bond = broken_bond(config.frame.numbers, t)
        lines.append(f"  velocity seed {t.seed}: {t.work.max():.4f} eV, broken bond {'-'.join(map(str, bond or ('none',)))}")
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
