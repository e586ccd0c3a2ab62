"""A committee that has learnt nothing, as a model file: for tests and benchmarks that need no training."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from ase.data import atomic_numbers

from rareal.complaints import closest, join
from rareal.config import KINDS
from rareal.errors import ConfigError
from rareal.export import modelfile
from rareal.seeds import integer

KINDS_WITH_DEFAULTS = ("ani", "painn", "schnet")


def write_untrained(path: Path, model: str, elements: Sequence[str], members: int, dtype: str, seed: int) -> None:
    """Write a committee with random weights and all settings at their defaults; self-energies are zero.

    TorchScript; `rareal.compiled` makes a package of it.

    Raises
    ------
    ConfigError
        If there is no such model, element or precision, or the file exists.
    """
    if model not in KINDS_WITH_DEFAULTS:
        raise ConfigError(
            f"--model {model}: there is no such model{closest(model, KINDS_WITH_DEFAULTS)}; "
            f"use {join(KINDS_WITH_DEFAULTS)}"
        )
    if dtype not in modelfile.DTYPES:
        raise ConfigError(f"--dtype {dtype}: use {join(modelfile.DTYPES)}")
    unknown = [e for e in elements if e not in atomic_numbers or e == "X"]
    if unknown or not elements or len(set(elements)) < len(elements):
        what = f"'{unknown[0]}' is no chemical element" if unknown else "name every element once"
        raise ConfigError(f"--elements {','.join(elements)}: {what}, e.g. --elements C,H")
    if path.exists():
        raise ConfigError(f"{path} exists already; nothing was written")
    module = importlib.import_module(KINDS["model"].module(model))
    seeds = [integer(seed, "member", k) for k in range(members)]
    committee = module.build(module.Config(), tuple(elements), seeds)
    modelfile.write(committee, path, [0.0] * len(elements), dtype=dtype)
