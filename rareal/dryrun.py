"""`rareal run --dry-run`: the LAMMPS input of a round, to read and to run by hand, and nothing run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rareal.build import DTYPE, build_parts, build_walkers, make
from rareal.config import Config
from rareal.errors import ConfigError, RunFolderError
from rareal.seeds import integer

MODEL = "untrained.pt"


def write_scripts(config: Config, folder: Path) -> list[Path]:
    """Write script and data of every walker of a round below ``folder``; returns the scripts.

    The committee that they name is one with random weights, in the same folder: the scripts run, with forces that mean
    nothing. Once there is a trained one, its file takes the place of the other. What a run would measure first, the
    strength of a bias towards disagreement, is a placeholder.

    Raises
    ------
    RunFolderError
        If the folder holds anything.
    ConfigError
        If the sampler does not work with LAMMPS scripts.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} holds other files; name another folder with --dir")
    parts = build_parts(config)
    sampler = make(config, "sampler", **parts)
    if not hasattr(sampler, "write"):
        raise ConfigError(
            f"sampler: {type(sampler).__name__} writes no LAMMPS scripts; there is nothing to be seen without a run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    model = _write_untrained(config, folder / MODEL, parts)
    scripts = []
    for walker in build_walkers(config):
        place = folder / f"walker-{walker.number:02d}"
        sampler.write(model, place, walker, dry=True)
        scripts += sorted(place.rglob("in.*"))
    return scripts


def _write_untrained(config: Config, path: Path, parts: dict[str, Any]) -> Path:
    """A committee as the configuration describes it, before it has learnt anything."""
    from rareal.export import modelfile

    settings: Any = config
    elements = parts["elements"]
    seeds = [integer(config.seed, 0, "member", k) for k in range(settings.training.members)]
    committee = make(config, "model", **parts, seeds=seeds)
    repulsion = make(config, "repulsion", elements=elements)
    modelfile.write(committee, path, [0.0] * len(elements), dtype=DTYPE, repulsion=repulsion)
    return path
