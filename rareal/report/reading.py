"""Reading files that may be missing or damaged, and remembering which were.

A run that is still going on lacks files, and one that is being resumed clears the folder of an unfinished stage while
it is read. So a file that is missing counts as not there yet; one that is damaged is named in a warning and left out.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

T = TypeVar("T")

DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, yaml.YAMLError)


def attempt(path: Path, read: Callable[[Path], T]) -> T | None:
    """What ``read`` makes of the file, None where there is no usable one."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        warnings.warn(f"{path} cannot be read ({error}) and is left out of the plots", LeftOut, stacklevel=2)
        return None


class LeftOut(UserWarning):
    """Something of the run cannot be shown."""


@contextmanager
def left_out() -> Iterator[list[str]]:
    """Collect what could not be shown within the block, each once; the list is filled when the block ends."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LeftOut)
        yield notes
    notes += dict.fromkeys(str(item.message) for item in caught if issubclass(item.category, LeftOut))
    for item in caught:
        if not issubclass(item.category, LeftOut):
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)


def number(value: Any) -> float:
    """A cell of a table as a number, NaN where it is none."""
    return float(value) if isinstance(value, int | float) else np.nan
