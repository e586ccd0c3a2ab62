"""Engines for tests: analytic ones, whose answers are known, and one that goes wrong in every way."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rareal.errors import LabelError
from rareal.records import Array, Calculation, Frame


@dataclass(frozen=True)
class Bond:
    """A Morse bond: depth [eV], steepness [1/Å], length [Å] between two atoms counted from 0."""

    first: int
    second: int
    depth: float
    steepness: float
    length: float

    def energy(self, distance: Array) -> Array:
        """Energy at the distances [...], zero at the minimum."""
        return self.depth * (1.0 - np.exp(-self.steepness * (distance - self.length))) ** 2

    def slope(self, distance: Array) -> Array:
        """Derivative of the energy."""
        decay = np.exp(-self.steepness * (distance - self.length))
        return 2.0 * self.depth * self.steepness * decay * (1.0 - decay)


@dataclass(frozen=True)
class MorseChain:
    """Atoms held together by Morse bonds."""

    bonds: tuple[Bond, ...]
    hash: str = "morse"

    def calculate(self, frame: Frame) -> tuple[float, Array]:
        """Energy and forces."""
        energy, forces = 0.0, np.zeros_like(frame.positions)
        for bond in self.bonds:
            line = frame.positions[bond.second] - frame.positions[bond.first]
            distance = np.asarray(np.linalg.norm(line))
            energy += float(bond.energy(distance))
            pull = bond.slope(distance) * line / distance
            forces[bond.first] += pull
            forces[bond.second] -= pull
        return energy, forces


class Faulty:
    """Half the square of all positions; a frame's ``origin`` names what goes wrong with it."""

    hash = "faulty"
    keep = ("*.txt",)

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def calculate(self, frame: Frame) -> Calculation:
        """Energy and forces, or what ``frame.origin`` asks for."""
        if frame.origin:
            getattr(self, frame.origin, lambda _: None)(frame)
        energy, forces = 0.5 * float(np.sum(frame.positions**2)), -frame.positions
        if frame.origin == "nan":
            energy = float("nan")
        if frame.origin == "shape":
            forces = forces[:-1]
        if frame.origin == "text":
            return "no", "result"  # type: ignore[return-value]
        if frame.origin == "nothing":
            return None  # type: ignore[return-value]
        if frame.origin == "stress":
            return Calculation(energy, forces, np.zeros((3, 3)))
        if frame.origin == "complex":
            return Calculation(energy, forces + 1j)  # type: ignore[arg-type]
        return Calculation(energy, forces)

    def refuse(self, frame: Frame) -> None:
        """Fail as an engine should."""
        raise LabelError("will not")

    def crash(self, frame: Frame) -> None:
        """Fail as an engine should not."""
        raise ZeroDivisionError("somebody's bug")

    def die(self, frame: Frame) -> None:
        """End the process."""
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self, frame: Frame) -> None:
        """End the process the first time."""
        marker = (self.folder or Path()) / f"died-{frame.step}"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def hang(self, frame: Frame) -> None:
        """Take very long."""
        time.sleep(60)

    def leave(self, frame: Frame) -> None:
        """End the process in good order."""
        sys.exit(0)

    def noise(self, frame: Frame) -> None:
        """Write garbage wherever one can write, and succeed."""
        for descriptor in (1, 2):
            os.write(descriptor, bytes(range(256)) * 1000)
        Path("output.txt").write_text(f"frame {frame.step}\n")
        Path("garbage.bin").write_bytes(bytes(1000))

    def spoil(self, frame: Frame) -> None:
        """Write something and fail."""
        Path("output.txt").write_text(f"frame {frame.step}\n")
        raise LabelError("spoilt")

    def full(self, frame: Frame) -> None:
        """Write into the current folder until the disk is full."""
        with open("scratch.bin", "wb") as stream:
            for _ in range(64):
                stream.write(bytes(2**20))

    def sometimes(self, frame: Frame) -> None:
        """Fail in one way or another on every fifth frame."""
        if frame.step % 5 == 1:
            getattr(self, ("refuse", "crash", "die", "spoil")[frame.step // 5 % 4])(frame)

    def nap(self, frame: Frame) -> None:
        """Take a while."""
        time.sleep(0.3)

    def threads(self, frame: Frame) -> None:
        """Tell what the process is like."""
        raise LabelError(f"{os.environ['OMP_NUM_THREADS']} thread, torch {'torch' in sys.modules}")
