"""The archive that a model file is, and the metadata in it; whatever is wrong with a file is found here and said."""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from rareal.errors import ModelFileError

FORMAT = 1
EXTRA = "rareal.json"
UNITS = {"energy": "eV", "length": "angstrom"}
PRECISIONS = ("float32", "float64")
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError
)  # fmt: skip
"""What `zipfile` raises on damaged archives."""


@dataclass(frozen=True)
class Metadata:
    """What a model file says of itself; see DESIGN, "Model file". Energies in eV, lengths in Å."""

    architecture: str
    elements: tuple[str, ...]
    self_energies: tuple[float, ...]
    cutoff: float
    layers: int
    members: int
    dtype: str
    dataset_hash: str
    best_member: int
    units: dict[str, str]
    rareal_version: str
    format: int = FORMAT
    ops: tuple[str, ...] = ("rareal",)
    repulsion: dict[str, Any] | None = None
    compiled: dict[str, str] | None = None
    """Of an AOTInductor package: device, version of torch and processor's instructions that it was compiled for."""


def read(path: Path) -> tuple[Metadata, bool]:
    """The metadata of a model file, and whether it is an AOTInductor package; every record has been read once.

    Raises
    ------
    ModelFileError
        If the file is missing, no archive, damaged, without our metadata, or of a format that we do not know.
    """
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a model file")
    if not path.is_file():
        raise ModelFileError(f"{path}: no such model file")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            # all records lie in one folder
            records = {name.partition("/")[2]: name for name in archive.namelist()}
            text = archive.read(records[f"extra/{EXTRA}"]) if f"extra/{EXTRA}" in records else None
    except UNREADABLE as error:
        raise ModelFileError(f"{path} is no archive of PyTorch, or is damaged or cut off: {error}") from error
    if damaged is not None:
        raise ModelFileError(f"{path} is damaged: its record {damaged} cannot be read")
    if text is None:
        raise ModelFileError(f"{path} carries no rareal metadata; export it with rareal")
    return parse(path, text), any(record.startswith("data/aotinductor/") for record in records)


def parse(path: Path, text: bytes) -> Metadata:
    """Metadata from their JSON.

    Raises
    ------
    ModelFileError
        If they are of another format, or are not what they must be.
    """
    try:
        found = json.loads(text)
        number = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path}: its metadata cannot be read: {error}") from error
    # the format comes first: of a newer file nothing else may be assumed
    if number != FORMAT:
        raise ModelFileError(
            f"{path} has format {number}; this rareal reads format {FORMAT}: use the rareal that wrote it "
            f"({found.get('rareal_version', 'unknown')})"
        )
    known = {field.name: field for field in fields(Metadata)}
    missing = [name for name, field in known.items() if name not in found and field.default is MISSING]
    if missing:
        raise ModelFileError(f"{path}: its metadata lack {', '.join(missing)}")
    try:
        for name in ("elements", "self_energies", "ops"):
            if name in found:
                found[name] = tuple(found[name])
        metadata = Metadata(**{name: value for name, value in found.items() if name in known})
        problem = _problem(metadata)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{path}: its metadata cannot be read: {error}") from error
    if problem:
        raise ModelFileError(f"{path} has {problem}")
    return metadata


def _problem(metadata: Metadata) -> str | None:
    """What is impossible about metadata of the right format."""
    if metadata.units != UNITS:
        return f"units {metadata.units}; this rareal needs {UNITS}"
    if metadata.dtype not in PRECISIONS:
        return f"dtype '{metadata.dtype}'; this rareal needs {' or '.join(PRECISIONS)}"
    if not metadata.elements or len(metadata.elements) != len(metadata.self_energies):
        return f"{len(metadata.elements)} elements and {len(metadata.self_energies)} self-energies"
    if not all(math.isfinite(energy) for energy in metadata.self_energies):
        return "self-energies that are no numbers"
    if metadata.members < 1 or metadata.layers < 0 or not 0.0 < metadata.cutoff < math.inf:
        return f"impossible metadata: members {metadata.members}, layers {metadata.layers}, cutoff {metadata.cutoff}"
    return None
