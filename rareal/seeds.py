"""Random streams: one root seed, and a stream of its own for whatever has a name."""

from __future__ import annotations

import hashlib

import numpy as np

LARGEST = 899_999_999
"""What LAMMPS's generators take as a seed."""


def sequence(root: int, *names: int | str) -> np.random.SeedSequence:
    """The seed sequence of what ``names`` name, e.g. (round, stage, member); independent of every other."""
    # hashed one by one, two words each: ("ab", "c") is not ("a", "bc")
    return np.random.SeedSequence(root, spawn_key=tuple(word for name in names for word in _words(name)))


def stream(root: int, *names: int | str) -> np.random.Generator:
    """The random stream of what ``names`` name."""
    return np.random.default_rng(sequence(root, *names))


def integer(root: int, *names: int | str) -> int:
    """A seed, 1 to `LARGEST`, for a program of its own."""
    return 1 + int(sequence(root, *names).generate_state(1, np.uint64)[0] % LARGEST)


def _words(name: int | str) -> list[int]:
    kind = "name" if isinstance(name, str) else "number"
    digest = hashlib.sha256(f"{kind}:{name}".encode()).digest()
    return [int.from_bytes(digest[start : start + 4], "little") for start in (0, 4)]
