"""A `colvar` block of Colvars, given as text: whatever Colvars can compute is a collective variable.

Its values come from Colvars itself, in one run of LAMMPS for all frames. The block is tried out on the starting
structure when the YAML is read, which takes a second or two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from rareal.cv.base import NAME, RESERVED, Variable
from rareal.cv.evaluate import colvars_values
from rareal.errors import SamplingError
from rareal.records import Array, Frame
from rareal.schema import Misfit, Section

WRAPS = ("dihedral", "spinangle", "polarphi")
"""Components of Colvars that are angles of period 360."""

Words = tuple[int, list[str]]


class Config(Section):
    """A `colvar` block as it stands in a Colvars file; its name is the one in the text."""

    kind: Literal["colvars"] = "colvars"
    text: str = Field(description="the whole block, `colvar { ... }`; atoms are numbered from 1")
    unit: str = Field("", description="unit of the value, for tables and plots")
    label: str = Field("", description="what it is, for plots; its name if not given")
    period: float | None = Field(
        None, gt=0, description="period of the value; that of the text, or 360 for a dihedral, if not given"
    )

    @field_validator("text")
    @classmethod
    def _one_named_block(cls, text: str) -> str:
        lines = outline(text)
        top = [words for depth, words in lines if depth == 0]
        if [[word.lower() for word in words] for words in top] != [["colvar", "{"]]:
            raise ValueError("give one block `colvar { ... }`; biases and settings of Colvars belong to the sampler")
        name = _value(lines, "name", depth=1)
        if not re.match(NAME, name):
            raise ValueError("give the block a name of letters, digits and underscores, e.g. `name ring`")
        if name in RESERVED:
            raise ValueError(f"'{name}' is the name of another column of the tables; give the block another one")
        for _, (keyword, *values) in lines:
            if keyword.lower().endswith("file") and values and not values[0].strip('"').startswith("/"):
                raise ValueError(f"`{keyword} {values[0]}`: LAMMPS runs in folders of its own; give the whole path")
        return text

    @property
    def name(self) -> str:
        """The name in the block."""
        return _value(outline(self.text), "name", depth=1)

    @property
    def wraps(self) -> float | None:
        """The period: as given, as in the text, or that of the only component."""
        if self.period is not None:
            return self.period
        lines = outline(self.text)
        if period := _value(lines, "period", depth=2) or _value(lines, "period", depth=1):
            return float(period)
        components = [words[0].lower() for depth, words in lines if depth == 1 and words[-1] == "{"]
        return 360.0 if len(components) == 1 and components[0] in WRAPS else None

    def atoms(self) -> Iterator[int]:
        """The atoms that the text numbers."""
        for _, (keyword, *values) in outline(self.text):
            if keyword.lower() in ("atomnumbers", "atomnumbersrange"):
                yield from (int(number) for number in re.findall(r"\d+", " ".join(values)))

    def check_against(self, config: Any) -> None:
        """Refuse what Colvars refuses, or cannot make one number of, for the starting structure."""
        frame = config.frame
        for atom in self.atoms():
            if not 1 <= atom <= len(frame.numbers):
                raise Misfit(
                    "text", f"there is no atom {atom} in the structure; number the atoms 1 to {len(frame.numbers)}"
                )
        try:
            value = colvars_values(frame, frame.positions[None], self.text)
        except SamplingError as error:
            raise Misfit("text", f"Colvars does not take it ({error}); correct the block") from error
        if not np.isfinite(value).all():
            raise Misfit("text", "its value is not finite for the starting structure; correct the block")


def outline(text: str) -> list[Words]:
    """Every statement of a Colvars text with its depth in braces; that of a block ends in ``{``.

    Raises
    ------
    ValueError
        If braces do not match.
    """
    found: list[Words] = []
    depth = 0
    for line in text.splitlines():
        words: list[str] = []
        for word in re.findall(r"[{}]|\"[^\"]*\"|[^\s{}]+", line.partition("#")[0]):
            if word not in "{}":
                words.append(word)
                continue
            if words:
                found.append((depth, [*words, word] if word == "{" else words))
                words = []
            elif word == "{" and found and found[-1][0] == depth:
                found[-1][1].append(word)  # the brace stands on the next line
            depth += 1 if word == "{" else -1
            if depth < 0:
                raise ValueError("there is a closing brace too many")
        if words:
            found.append((depth, words))
    if depth:
        raise ValueError("there is a closing brace missing")
    return found


def _value(lines: list[Words], keyword: str, depth: int) -> str:
    """The first value of a keyword at that depth, empty where it is not there; Colvars does not look at case."""
    found = (words[1] for level, words in lines if level == depth and words[0].lower() == keyword and len(words) > 1)
    return next(found, "").strip('"')


@dataclass(frozen=True, eq=False)
class Verbatim(Variable):
    """A variable that Colvars computes.

    Parameters
    ----------
    text : its block.
    start : the structure, for masses and cell.
    name : the name in the block.
    unit, label, period : see `Variable`.
    """

    text: str
    start: Frame
    name: str
    unit: str = ""
    label: str = ""
    period: float | None = None

    def value(self, positions: Array) -> Array:
        """Values [...] as Colvars has them, for unwrapped positions [..., N, 3] in Å; one run of LAMMPS."""
        frames = positions.reshape(-1, *positions.shape[-2:])
        if not len(frames):
            return np.zeros(positions.shape[:-2])
        values: Array = colvars_values(self.start, frames, self.text)[:, 0].reshape(positions.shape[:-2])
        return values

    def colvars(self) -> str:
        """The text."""
        return self.text.strip()


def build(config: Config, start: Frame) -> Verbatim:
    """The variable that ``config`` describes."""
    return Verbatim(config.text, start, config.name, config.unit, config.label or config.name, config.wraps)
