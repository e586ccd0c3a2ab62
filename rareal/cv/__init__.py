"""Collective variables, defined once: the NumPy value, and the same thing as text for Colvars and LAMMPS.

Samplers put the text into their scripts, screening and plots take the value; the tests hold them against each other.
One file per kind, or per family of kinds; `rareal.cv.base` has what all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from rareal.cv.base import Group, Variable
from rareal.cv.distance import Distance
from rareal.schema import Misfit, Section

__all__ = ["KINDS", "Distance", "Group", "Variable", "axis", "names"]

KINDS = {
    "distance": "rareal.cv.distance",
    "angle": "rareal.cv.angles:AngleConfig",
    "dihedral": "rareal.cv.angles:DihedralConfig",
    "difference": "rareal.cv.combination:DifferenceConfig",
    "combination": "rareal.cv.combination:CombinationConfig",
    "coordination": "rareal.cv.coordination",
    "rmsd": "rareal.cv.rmsd",
    "colvars": "rareal.cv.verbatim",
}
"""The kinds of the section ``cv`` and their modules."""


def names(sections: Sequence[Section]) -> tuple[str, ...]:
    """The name of each variable: its own, else ``cv`` where it is the only one, else ``cv1``, ``cv2``, ...

    Raises
    ------
    NameTaken
        If two have the same.
    """
    found: list[str] = []
    for number, section in enumerate(sections, start=1):
        name = getattr(section, "name", None) or ("cv" if len(sections) == 1 else f"cv{number}")
        # LAMMPS tells capitals apart, files on some machines and Colvars's keywords do not
        taken = [earlier.lower() for earlier in found]
        if name.lower() in taken:
            first = taken.index(name.lower()) + 1
            raise NameTaken(number - 1, f"'{name}' is the name of cv[{first}] already; give every variable its own")
        found.append(name)
    return tuple(found)


class NameTaken(Misfit):
    """Two variables have the same name; ``index`` is the second one, from 0."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__("name", message)
        self.index = index


def axis(tree: Any) -> str:
    """Label and unit of the (first) variable for an axis, from what a run's ``config.yaml`` has under ``cv``.

    "Collective variable" where that is of a kind that is not ours, or damaged.
    """
    first = tree[0] if isinstance(tree, list) and tree else tree
    if not isinstance(first, Mapping) or first.get("kind") not in KINDS:
        return "Collective variable"
    module, _, schema = KINDS[first["kind"]].partition(":")
    try:
        section = getattr(import_module(module), schema or "Config").model_validate(first)
    except ValueError:  # pydantic's errors are ValueErrors
        return "Collective variable"
    label = str(section.label or section.name)
    return f"{label} ({section.unit})" if section.unit else label
