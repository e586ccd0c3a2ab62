"""What all label engines share: settings and their hash, the check of the geometry, the check of the result.

An engine of your own is a class with one method, `compute`, in a module of its own; the YAML names that module::

    # mypackage/myengine.py                       engine: {kind: mypackage.myengine, depth: 2.5}
    from rareal.labeling.base import BaseEngine, EngineConfig

    class Config(EngineConfig):
        depth: float = 1.0

    class Engine(BaseEngine[Config]):
        def compute(self, frame):
            return energy, forces                 # eV, [N, 3] eV/Å; or a `Calculation` with stress and note

    build = Engine

It runs in a worker process, in an empty folder of its own for each frame. `rareal.testing.engine_contract` has tests
for it to inherit.
"""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rareal.errors import LabelError
from rareal.labeling.geometry import check_geometry
from rareal.labeling.settings import code_version, digest
from rareal.records import Array, Calculation, Frame
from rareal.schema import Misfit, Section


class EngineConfig(Section):
    """What every engine can be told.

    ``harmless`` names the keys that cannot change an energy or a force: they stay out of the hash.
    """

    harmless: ClassVar[tuple[str, ...]] = ("min_distance_ratio",)

    min_distance_ratio: float = Field(
        0.5, ge=0, lt=1, description="refuse pairs of atoms closer than this share of the sum of their covalent radii"
    )


class ElectronsConfig(EngineConfig):
    """Charge and spin."""

    charge: int = Field(0, description="total charge, elementary charges")
    multiplicity: int = Field(1, ge=1, description="spin multiplicity 2S+1; 1 is closed-shell")

    def check_against(self, config: Any) -> None:
        """Refuse spins that the electrons cannot have."""
        check_spin(config.frame.numbers, self.charge, self.multiplicity)


ConfigType = TypeVar("ConfigType", bound=EngineConfig)


class BaseEngine(Generic[ConfigType]):
    """A level of theory.

    Attributes
    ----------
    config : what the YAML says of it.
    keep : patterns of the files of a calculation that are kept with its label.
    """

    keep: tuple[str, ...] = ()

    def __init__(self, config: ConfigType) -> None:
        self.config = config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that determines a result, in plain values: the configuration, the version of the code, what it reads."""
        kept = self.config.model_dump(mode="json", exclude=set(self.config.harmless) | {"kind"})
        return {"kind": self.kind, "version": self.version(), **kept, **self.inputs()}

    @property
    def hash(self) -> str:
        """SHA-256 of the settings."""
        return digest(self.settings)

    @property
    def kind(self) -> str:
        """The kind in the YAML; the module's name for an engine that is not one of rareal's."""
        return str(getattr(self.config, "kind", type(self).__module__))

    def version(self) -> str:
        """The version of the code that computes."""
        return code_version(sys.modules[type(self).__module__])

    def inputs(self) -> dict[str, Any]:
        """What else determines a result: contents of files, steps of the retry ladder."""
        return {}

    def compute(self, frame: Frame) -> Calculation | tuple[float, Array]:
        """Energy [eV] and forces [N, 3] [eV/Å] of a frame whose geometry has been checked. To be written.

        The current directory is an empty one of this frame's own. Any exception is a failure of this frame; a
        `LabelError` says why in the user's words.
        """
        raise NotImplementedError

    def calculate(self, frame: Frame) -> Calculation:
        """The checked result.

        Raises
        ------
        LabelError
            If two atoms nearly coincide, the engine fails, or its result is not finite.
        """
        check_geometry(frame, self.config.min_distance_ratio)
        try:
            result = Calculation(*self.compute(frame))
        except LabelError:
            raise
        except Exception as error:
            raise LabelError(f"{self.kind}: {type(error).__name__}: {one_line(error)}") from error
        if np.shape(result.forces) != frame.positions.shape:
            raise LabelError(f"{self.kind} returned forces of shape {np.shape(result.forces)}")
        values = [np.atleast_1d(result.energy), result.forces, *([] if result.stress is None else [result.stress])]
        if not all(np.isfinite(value).all() for value in values):
            raise LabelError(f"{self.kind} returned an energy or a force that is not finite")
        return result

    def close(self) -> None:
        """Let go of what the engine holds."""

    def __getstate__(self) -> dict[str, Any]:
        # the hash is made anew where the engine arrives: another version there must not go unseen
        return {key: value for key, value in self.__dict__.items() if key != "settings"}


def check_spin(numbers: NDArray[np.int64], charge: int, multiplicity: int) -> None:
    """Refuse a multiplicity that the number of electrons does not allow.

    Raises
    ------
    Misfit
        For the key ``multiplicity``.
    """
    electrons = int(numbers.sum()) - charge
    if electrons < multiplicity - 1 or (electrons - multiplicity + 1) % 2:
        raise Misfit("multiplicity", f"{electrons} electrons cannot have multiplicity {multiplicity}")


def check_package(package: str, title: str, cure: str) -> None:
    """Refuse a kind of engine whose Python package is not there.

    Raises
    ------
    Misfit
        For the key ``kind``.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise Misfit("kind", f"{title} is not installed for {sys.executable}; {cure}")


def one_line(text: object, limit: int = 300) -> str:
    """``text`` without its line breaks, cut where it gets long."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
