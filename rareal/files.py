"""Writing files so that a reader, or a killed process, never leaves or sees half of one."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, put it on the disk, and only then give it its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write ``text`` in UTF-8."""
    return write_atomically(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value: Any) -> Path:
    """Write ``value``; NumPy scalars and arrays become numbers and lists, what is not finite becomes null."""
    return write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_npz(path: Path, **arrays: Any) -> Path:
    """Write arrays under their names."""
    return write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> Path:
    """Write one line per row: ``columns`` first, then any others in the order in which they turn up.

    None and what is not finite become empty cells; floats keep every digit.
    """
    rows = list(rows)
    names = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        cells = plain({name: row.get(name) for name in names})
        writer.writerow(["" if cells[name] is None else cells[name] for name in names])
    return write_text(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Read what `write_csv` wrote; numbers and truth values become what they were, empty cells None."""
    with path.open(newline="", encoding="utf-8") as stream:
        return [{key: _cell(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def plain(value: Any) -> Any:
    """``value`` in the types that JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Put a folder and all that is in it on the disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent) / name
            if file.is_file() and not file.is_symlink():
                sync(file)
        sync(Path(parent))


def _cell(text: str | None) -> Any:
    if not text:
        return None
    if text in ("True", "False"):
        return text == "True"
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
