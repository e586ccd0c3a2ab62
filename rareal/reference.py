"""The engine's own figures: its drives from the same velocities, their barrier, and the quasi-static rupture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rareal.barrier import broken_bond
from rareal.errors import RunFolderError
from rareal.files import plain, read_json, write_json
from rareal.protocols import Engine, Progress
from rareal.records import Frame, Profile, Trajectory, Walker
from rareal.rupture import Config as RuptureConfig
from rareal.rupture import Rupture, rupture
from rareal.rupture import load as load_rupture
from rareal.rupture import save as save_rupture
from rareal.sampling.reference import EngineSampler, archive
from rareal.sampling.trajectory import load as load_pull
from rareal.sampling.trajectory import load_profile, save_profile

SUMMARY, RUPTURE, PROFILE = "reference.json", "rupture.npz", "profile.npz"


def velocity_seeds(walkers: int) -> list[int]:
    """Seeds of the initial velocities of so many drives: the same in every round, every run and the reference."""
    return list(range(1, walkers + 1))


@dataclass(frozen=True, eq=False)
class Reference:
    """The engine's drives, one per walker, and what they say.

    ``engine`` is the hash of the engine's settings; broken bonds count atoms from 1; ``rupture`` is None where nothing
    is pulled apart; ``works`` has W_max of each drive, eV, where it is a pull.
    """

    engine: str
    folders: tuple[Path, ...]
    pulls: tuple[Trajectory, ...]
    broken_bonds: tuple[tuple[int, int] | None, ...]
    profile: Profile
    rupture: Rupture | None
    works: tuple[float, ...] = ()

    @property
    def seeds(self) -> list[int]:
        """The velocity seeds, in the order of ``pulls``."""
        return [pull.seed for pull in self.pulls]

    def barrier(self, sampler: Any, seeds: Sequence[int]) -> Profile:
        """The barrier to compare with: of the drives with these seeds, as far as the seeds matter."""
        chosen = [k for k, pull in enumerate(self.pulls) if pull.seed in seeds]
        if sampler.thermal or len(chosen) in (0, len(self.pulls)):
            return self.profile
        found: Profile = sampler.barrier([self.folders[k] for k in chosen], [self.pulls[k] for k in chosen])
        return found


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
    files = [archive(folder, seed) for seed in summary["seeds"]]
    pulls = tuple(replace(load_pull(file)[0], walker=k) for k, file in enumerate(files))
    bonds = tuple(tuple(bond) if bond else None for bond in summary["broken_bonds"])
    try:
        static = load_rupture(folder / RUPTURE) if summary["rupture"] else None
        profile = load_profile(folder / PROFILE)
    except (KeyError, OSError) as error:
        raise RunFolderError(
            f"{folder} was written by another version of rareal ({error}); delete it and run `rareal reference` again"
        ) from error
    works = tuple(summary.get("works_eV", ()))
    return Reference(summary["engine"], tuple(file.parent for file in files), pulls, bonds, profile, static, works)


def compute(
    sampler: EngineSampler,
    start: Frame,
    ends: tuple[int, int] | None,
    config: RuptureConfig,
    folder: Path,
    walkers: Sequence[Walker],
    progress: Progress | None = None,
) -> Reference:
    """Compute what is missing of the reference in ``folder``.

    ``sampler`` drives LAMMPS with the engine; ``ends`` are the atoms (from 0) of the quasi-static pull, if any.
    """
    pulls = sampler.sample(folder, walkers, progress)
    folders = [archive(folder, walker.seed).parent for walker in walkers]
    profile = sampler.sampler.barrier(folders, pulls)
    save_profile(folder / PROFILE, profile)
    summary = {
        "engine": sampler.engine.hash,
        "seeds": [walker.seed for walker in walkers],
        "kind": profile.kind,
        "barrier_eV": profile.barrier,
        "barrier_error_eV": profile.barrier_error,
        "broken_bonds": [broken_bond(start.numbers, pull) for pull in pulls],
        "rupture": None if ends is None else _rupture(sampler.engine, start, ends, config, folder),
    }
    if profile.kind == "work":
        # one by one, for the sampler knows which part of a drive is the way there
        single = [sampler.sampler.barrier([place], [pull]) for place, pull in zip(folders, pulls, strict=True)]
        summary["works_eV"] = [one.barrier for one in single]
    write_json(folder / SUMMARY, plain(summary))
    return load(folder)


def _rupture(
    engine: Engine, start: Frame, ends: tuple[int, int], config: RuptureConfig, folder: Path
) -> dict[str, Any]:
    """The engine's quasi-static rupture, computed unless it is there, and its figures."""
    settings = config.model_dump(mode="json")
    summary = read_json(folder / SUMMARY)["rupture"] if (folder / SUMMARY).is_file() else None
    kept = summary["settings"] if summary else None
    if kept != settings or not (folder / RUPTURE).is_file():
        save_rupture(folder / RUPTURE, rupture(engine.calculate, start, ends, config))
    static = load_rupture(folder / RUPTURE)
    return {
        "settings": settings,
        "energy_max_eV": static.energy_max,
        "force_max_eV_A": static.force_max,
        "distance_A": static.break_distance,
        "stability_energy_eV": static.stability_energy,
        "stability_distance_A": static.stability_distance,
        "broken_bond": list(static.broken_bond),
        "engine_calls": static.calls,
    }


def describe(found: Reference) -> str:
    """What a reference says, in words."""
    lines = []
    for number, (pull, bond) in enumerate(zip(found.pulls, found.broken_bonds, strict=True)):
        work = f"W_max {found.works[number]:.4f} eV, " if found.works else ""
        lines.append(f"velocity seed {pull.seed}: {work}{_bond(bond)}")
    name = "W_max" if found.profile.kind == "work" else f"Barrier ({found.profile.kind})"
    lines.append(f"{name}: {found.profile.barrier:.4f} ± {found.profile.barrier_error:.4f} eV (with standard error)")
    if found.profile.note:
        lines.append(found.profile.note)
    static = found.rupture
    if static is not None:
        lines.append(f"Quasi-static rupture: {_describe_rupture(static) if static.broke else static.note}")
    return "\n".join(lines)


def _describe_rupture(static: Rupture) -> str:
    text = (
        f"E_max {static.energy_max:.4f} eV, F_max {static.force_max:.4f} eV/Å, at {static.break_distance:.3f} Å, "
        f"{_bond(static.broken_bond)}"
    )
    if static.gradual:
        return f"{text} gradually"
    return f"{text}; limit of stability {static.stability_energy:.4f} eV at {static.stability_distance:.3f} Å"


def _bond(pair: tuple[int, int] | None) -> str:
    return f"bond {pair[0]}-{pair[1]} broke" if pair else "no bond broke"
