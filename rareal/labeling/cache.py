"""The label cache: what an engine has once computed is not computed again, in this run or in any other.

An entry is a file of its own, named by the SHA-256 of engine hash and geometry, in a folder per engine::

    CACHE/3fd1…/engine.json         what the engine is: its hash and its settings, version included
    CACHE/3fd1…/ab/ab54….json       a label: a checksum, and below it geometry and label, to be read by anyone

The geometry enters the key bit by bit, as it enters the engine: nothing is rounded. Rounding would hand out the label
of a neighbouring geometry (under a force of 5 eV/Å, 1e-6 Å are 5 µeV), and the forces would no longer be the gradient
of the energies. It would gain nothing either, for the frames that come again are the same to the last bit: those of a
run that is repeated or goes on, of a file that is labelled again, of a data set that is relabelled.

Writers need no locks. An entry is written under a name of its own and renamed, so that a reader sees all of it or none
of it; of two writers with the same frame the last one wins, with the same numbers. Nothing waits for the disk: what a
power failure tears fails its checksum, is not returned, and is overwritten by the next result.

The size is not bounded: an entry takes 4 kB for 20 atoms (one block of the file system) and 150 kB for 1000. Removing
entries, or the whole folder, is safe at any time; ``rareal cache clear`` does it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rareal.records import Frame, Label

FORMAT = "rareal label 1"
ENGINE = "engine.json"
USER, NONE = "user", "none"
"""What ``labels.cache`` may be beside a folder: the user's own cache folder, and no cache."""


def user_folder() -> Path:
    """``$RAREAL_CACHE``, or ``$XDG_CACHE_HOME/rareal/labels``, by default ``~/.cache/rareal/labels``."""
    if folder := os.environ.get("RAREAL_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the XDG specification has relative paths ignored
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "rareal" / "labels"


def open_cache(setting: str = USER) -> Cache | None:
    """The cache that the key ``labels.cache`` of a YAML means: a folder, ``user`` or ``none``."""
    if setting == NONE:
        return None
    return Cache(user_folder() if setting == USER else Path(setting).expanduser())


def key(engine_hash: str, frame: Frame) -> str:
    """SHA-256 of what determines a label: the engine's hash, atomic numbers, positions, cell and periodicity.

    The numbers go in as they are (little-endian int64 and float64), behind their count, so that no two geometries give
    the same bytes. Where a frame comes from does not matter.
    """
    name = engine_hash.encode()
    digest = hashlib.sha256(f"{FORMAT}\n{len(name)} {len(frame.numbers)}\n".encode() + name)
    for array, kind in ((frame.numbers, "<i8"), (frame.positions, "<f8"), (frame.cell, "<f8"), (frame.pbc, "?")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Level:
    """What the cache holds of one engine.

    Attributes
    ----------
    engine, settings : its hash, and what the hash is of (empty where nobody has told).
    folder, entries, size : where its labels are, how many, and their bytes.
    """

    engine: str
    settings: dict[str, Any]
    folder: Path
    entries: int
    size: int


@dataclass(frozen=True)
class Cache:
    """A folder of labels, shared by any number of threads, processes and machines.

    It must never harm: an entry that cannot be read is as good as none, and one that cannot be written (a full disk, a
    folder of somebody else's) costs a warning, the first time.

    Parameters
    ----------
    folder : made with the first entry.
    """

    folder: Path
    _warned: list[str] = field(default_factory=list, compare=False, repr=False)

    def get(self, engine_hash: str, frame: Frame) -> Label | None:
        """The label, bit by bit as it was put; None where there is none, or where it is damaged."""
        path = self._path(engine_hash, frame)
        try:
            return decode(path.read_bytes(), engine_hash, frame)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"the label cache cannot be read: {error}; labels are computed anew")
            return None
        except (ValueError, KeyError, TypeError):  # torn, or not ours; the next result overwrites it
            return None

    def put(self, engine_hash: str, frame: Frame, label: Label) -> None:
        """Keep a label.

        Raises
        ------
        ValueError
            If the label is of another engine or another number of atoms, or is not finite.
        """
        self._write(self._path(engine_hash, frame), encode(label, engine_hash, frame))

    def describe(self, engine_hash: str, settings: Mapping[str, Any]) -> None:
        """Say what an engine is; kept with its labels, for people."""
        path = self._folder(engine_hash) / ENGINE
        if not path.is_file():
            about = {"engine": engine_hash, "settings": dict(settings)}
            self._write(path, json.dumps(about, indent=1, default=str).encode())

    def levels(self) -> list[Level]:
        """What the cache holds, by engine, the most labels first."""
        found = []
        for folder in self._engines():
            sizes = [_size(file) for file in folder.glob("??/*.json")]
            about = _read(folder / ENGINE) or next(filter(None, map(_read, folder.glob("??/*.json"))), {})
            settings = about.get("settings", {})
            found.append(Level(str(about.get("engine", "unknown")), settings, folder, len(sizes), sum(sizes)))
        return sorted(found, key=lambda level: -level.entries)

    def clear(self, engine: str = "") -> int:
        """Remove what there is of the engines whose hash begins with ``engine``; returns the number of labels.

        Whoever works with the cache at that moment goes on without them.
        """
        count = 0
        for level in self.levels():
            if level.engine.startswith(engine):
                shutil.rmtree(level.folder, ignore_errors=True)
                count += level.entries
        return count

    def _engines(self) -> list[Path]:
        # nothing else is touched, should the user have named a folder with other things in it
        return [path for path in self.folder.glob("engine-*") if path.is_dir()]

    def _folder(self, engine_hash: str) -> Path:
        # hashed, for an engine of a user's own may call its hash anything
        return self.folder / f"engine-{hashlib.sha256(engine_hash.encode()).hexdigest()[:16]}"

    def _path(self, engine_hash: str, frame: Frame) -> Path:
        name = key(engine_hash, frame)
        return self._folder(engine_hash) / name[:2] / f"{name}.json"

    def _write(self, path: Path, content: bytes) -> None:
        # machines may share the folder: a process id would not tell two writers apart
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except FileNotFoundError:  # cleared away by another process just now: that entry is lost, no more
            return
        except OSError as error:
            self._warn(f"the label cache cannot be written: {error}; the labels are used, but not kept for other runs")
            _remove(temporary)
        except BaseException:
            _remove(temporary)
            raise

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned.append(message)
            warnings.warn(message, RuntimeWarning, stacklevel=3)


def encode(label: Label, engine_hash: str, frame: Frame) -> bytes:
    """The content of an entry: a line with format and checksum, and JSON, in which floats keep every bit."""
    forces = np.asarray(label.forces, dtype=np.float64)
    stress = None if label.stress is None else np.asarray(label.stress, dtype=np.float64)
    if label.engine != engine_hash:
        raise ValueError(f"a label of engine {label.engine[:12]} cannot be kept for engine {engine_hash[:12]}")
    if forces.shape != (len(frame.numbers), 3) or (stress is not None and stress.shape != (6,)):
        raise ValueError(f"the label is not of a frame of {len(frame.numbers)} atoms")
    if not all(np.isfinite(value).all() for value in (label.energy, forces, stress) if value is not None):
        raise ValueError("a label that is not finite cannot be kept")
    entry = {
        "engine": engine_hash,
        "key": key(engine_hash, frame),
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "cell": frame.cell.tolist(),
        "pbc": [bool(periodic) for periodic in frame.pbc],
        "energy": float(label.energy),
        "forces": forces.tolist(),
        "stress": None if stress is None else stress.tolist(),
        "note": label.note,
        "seconds": float(label.seconds),
    }
    body = json.dumps(entry).encode()
    return f"{FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def decode(content: bytes, engine_hash: str, frame: Frame) -> Label:
    """The label in an entry.

    Raises
    ------
    ValueError
        If the content is torn, altered, or the entry of something else.
    """
    head, _, body = content.partition(b"\n")
    if head.decode(errors="replace") != f"{FORMAT} {hashlib.sha256(body).hexdigest()}":
        raise ValueError("the checksum is wrong")
    entry = json.loads(body)
    if entry["key"] != key(engine_hash, frame):
        raise ValueError("this is the label of another frame")
    stress = None if entry["stress"] is None else np.array(entry["stress"])
    forces = np.array(entry["forces"]).reshape(-1, 3)
    return Label(entry["energy"], forces, engine_hash, entry["seconds"], stress=stress, note=entry["note"])


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON in a file, below the line with the checksum if there is one; None where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        about = json.loads(text if text.startswith("{") else text.partition("\n")[2])
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # cleared away just now
        return 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # it takes room, and is cleared away with the rest
        return
