"""The base of every configuration section: frozen, and strict about its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Misfit(ValueError):
    """A value that is valid by itself but does not go with the rest of the configuration.

    Parameters
    ----------
    field : the key within the section, e.g. ``atoms``.
    message : what does not fit, and the cure.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Section(BaseModel):
    """A level of the YAML tree. Unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def read_files(self, folder: Path) -> Self:
        """This section with what its files hold in their places; by default it names none.

        Called once the section is valid by itself; ``folder`` is that of the YAML. What is kept of a run is then
        complete, and shows a file that changes.

        Raises
        ------
        Misfit
            If a file cannot be used.
        """
        return self

    def check_against(self, config: Any) -> None:
        """Refuse what only the whole configuration can show, before anything is written.

        Called once the whole YAML is read and every section is valid by itself; ``config.frame`` is the structure.

        Raises
        ------
        Misfit
            If this section does not go with the structure or with another section.
        """
