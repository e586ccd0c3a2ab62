"""The part of a YAML that labels need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr, SerializeAsAny

from rareal.config import Config, Executors, Labels, TrainConfig, Tree, load_part
from rareal.errors import ConfigError
from rareal.records import Frame
from rareal.schema import Misfit, Section
from rareal.sections import Kinds
from rareal.structure import read_structure
from rareal.yamlfile import YamlFile


class LabelConfig(Tree):
    """Labels by themselves, `rareal label`, `relabel` and `doctor`; the YAML of a whole run holds them too."""

    elsewhere: ClassVar[tuple[str, ...]] = tuple({**Config.model_fields, **TrainConfig.model_fields})

    structure: Path | None = Field(None, description="what `rareal doctor` tries the engine on, relative to the YAML")
    engine: SerializeAsAny[Section]
    labels: SerializeAsAny[Labels]
    executor: Executors

    _frame: Frame = PrivateAttr()

    @property
    def frame(self) -> Frame:
        """The geometry that `check_frame` looks at."""
        return self._frame

    def check_frame(self, frame: Frame, where: str) -> None:
        """Refuse a geometry that does not go with the engine's settings, e.g. with their spin.

        Raises
        ------
        ConfigError
            With the key of the YAML, and ``where`` the geometry is.
        """
        view = self.model_copy()
        view._frame = frame
        try:
            self.engine.check_against(view)
        except Misfit as misfit:
            raise self.refusal("engine", misfit, f" ({where})") from misfit

    def read_structure(self) -> Frame:
        """The geometry in ``structure``.

        Raises
        ------
        ConfigError
            If the YAML names none, or it cannot be used with the engine.
        """
        if self.structure is None:
            raise ConfigError(f"{self.source}: the key 'structure' is missing; name a file with a geometry")
        path = self.source.parent / self.structure
        try:
            frame = read_structure(path)
        except Misfit as misfit:
            raise self.refusal("structure", misfit) from misfit
        self.check_frame(frame, str(path))
        return frame


def load_labels(path: str | Path | YamlFile, kinds: Mapping[str, Kinds] | None = None) -> LabelConfig:
    """Read what labels need of a YAML; see `rareal.config.load_part`."""
    return load_part(LabelConfig, path, None, kinds)
