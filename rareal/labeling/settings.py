"""The settings of a level of theory as plain values, and the hash that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any


def digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of ``settings``, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of what is in a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_version(module: ModuleType) -> str:
    """What tells one state of a module's code from another.

    That is the version of the distribution that its package comes with; for a module that nobody installed, the hash
    of its source.
    """
    package = module.__name__.partition(".")[0]
    for name in dict.fromkeys(_distributions().get(package, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "source " + file_digest(Path(str(module.__file__)))


@cache
def _distributions() -> Mapping[str, list[str]]:
    # it reads the metadata of all that is installed
    return packages_distributions()
