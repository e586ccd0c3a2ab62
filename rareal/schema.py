"""The base of every configuration section: frozen, and strict about its keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A level of the YAML tree. Unknown keys are refused, values are fixed once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
