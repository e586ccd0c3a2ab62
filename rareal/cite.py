"""The papers that a run rests on: method, sampler, model, label engine and programs, by its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from rareal import __version__
from rareal.errors import RunFolderError
from rareal.rundir import CONFIG

ALWAYS = ("rare-events", "lammps", "pytorch", "ase")
"""What every run uses."""

BY_KIND: dict[tuple[str, str], tuple[str, ...]] = {
    ("engine", "tblite"): ("tblite",),
    ("engine", "dftbplus"): ("dftbplus",),
    ("engine", "gpaw"): ("gpaw",),
    ("engine", "pyscf"): ("pyscf",),
    ("engine", "cp2k"): ("cp2k",),
    ("engine", "ase"): (),
    ("model", "ani"): ("behler-parrinello", "ani-1", "ani-2x"),
    ("model", "painn"): ("painn",),
    ("model", "schnet"): ("schnet",),
    ("model", "script"): (),
    ("repulsion", "none"): (),
    ("repulsion", "zbl"): ("zbl",),
    ("sampler", "steered"): ("steered",),
    ("sampler", "metadynamics"): ("colvars", "metadynamics", "well-tempered"),
    ("sampler", "umbrella"): ("colvars", "umbrella", "mbar"),
    ("sampler", "md"): (),
    ("sampler", "udd"): ("udd",),
    ("sampler", "neb"): ("neb",),
    ("executor", "processes"): (),
    ("executor", "serial"): (),
    ("executor", "parsl"): ("parsl",),
}
"""What a kind of a section brings with it. A kind that is somebody else's has nothing here, and the user is told."""

BY_VALUE: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("engine", "method", "GFN2-xTB", ("gfn2-xtb",)),
    ("engine", "method", "GFN1-xTB", ("gfn1-xtb",)),
    ("engine", "method", "DFTB3/3OB", ("dftb3", "3ob")),
    ("engine", "functional", "PBE", ("pbe",)),
    ("training", "optimizer", "muon", ("muon",)),
    ("training", "optimizer", "adamw", ("adamw",)),
    ("training", "optimizer", "amsgrad", ("amsgrad",)),
    ("training", "loss.kind", "batch", ("batch-active-learning",)),
    ("training", "loss.kind", "schnet", ("schnet",)),
    ("model", "module", "rareal.models.mace:build", ("mace",)),
)
"""Section, key, value: what a setting brings with it."""

METHODS = {("engine", "cp2k"): ("DFT", ("pbe",)), ("engine", "pyscf"): ("KS", ("pbe",))}
"""Engines whose functional counts for some of their methods only."""


@dataclass(frozen=True)
class Citations:
    """The papers by key, and why they are here: ``entries`` are BibTeX, ``reasons`` words."""

    entries: Mapping[str, str]
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def bibtex(self) -> str:
        """A BibTeX file."""
        return "\n\n".join(self.entries.values()) + "\n"

    def describe(self) -> str:
        """A line for each paper."""
        lines = [f"rareal {__version__}; please cite what the run used:"]
        lines += [f"  {self.reasons[key]}: {plain(entry)}" for key, entry in self.entries.items()]
        return "\n".join([*lines, *self.notes])


def cite(folder: Path) -> Citations:
    """The papers of a run.

    Raises
    ------
    RunFolderError
        If the folder is no run.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder}: this is no run folder (it has no {CONFIG}); name one made by `rareal run`")
    return of_config(yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")))


def of_config(tree: Mapping[str, Any]) -> Citations:
    """The papers of a resolved configuration."""
    known = references()
    reasons: dict[str, str] = dict.fromkeys(ALWAYS, "") | {
        "rare-events": "the method", "lammps": "LAMMPS", "pytorch": "PyTorch", "ase": "ASE"
    }  # fmt: skip
    notes = []
    for section, kind in kinds(tree):
        if (section, kind) in BY_KIND:
            _add(reasons, BY_KIND[section, kind], f"{section} {kind}")
        elif section in {name for name, _ in BY_KIND}:
            notes.append(f"{section}: {kind} is not rareal's; its authors may want to be cited")
    for section, key, value, papers in BY_VALUE:
        if _value(tree.get(section), key) == value and _counts(tree, section, papers):
            _add(reasons, papers, f"{section} {value}")
    if _uses_colvars(tree):
        _add(reasons, ("colvars",), "collective variables")
    if _value(tree.get("engine"), "kind") == "ase":
        notes.append(f"engine: the authors of {_value(tree['engine'], 'calculator')} want to be cited")
    if _value(tree.get("model"), "kind") == "script" and "mace" not in reasons:
        notes.append("model: the authors of its architecture want to be cited")
    return Citations({key: known[key] for key in reasons}, reasons, tuple(notes))


def kinds(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Section and kind of what a configuration names; of executors each stage's."""
    for section, value in tree.items():
        if section == "executor" and isinstance(value, Mapping):
            yield from dict.fromkeys((section, str(_value(stage, "kind"))) for stage in value.values())
        elif isinstance(value, Mapping) and "kind" in value:
            yield section, str(value["kind"])


def references() -> dict[str, str]:
    """The BibTeX entries of ``rareal/inputs/references.bib`` by key."""
    text = (files("rareal") / "inputs" / "references.bib").read_text(encoding="utf-8")
    found = re.split(r"\n(?=@)", text.strip())
    return {entry.partition("{")[2].partition(",")[0]: entry.strip() for entry in found}


def plain(entry: str) -> str:
    """An entry as a line of text: authors, title, where, DOI."""
    fields = {name: _untex(value) for name, value in re.findall(r"(\w+) = \{((?:[^{}]|\{[^{}]*\})*)\}", entry)}
    authors = fields["author"].split(" and ")
    who = " and ".join(_named(author) for author in authors[:3])
    if len(authors) > 3:
        who = f"{_named(authors[0])} et al."
    where = fields.get("journal") or fields.get("booktitle") or fields.get("publisher") or ""
    numbers = " ".join(fields[name] for name in ("volume", "pages") if name in fields).replace("--", "-")
    place = f"https://doi.org/{fields['doi']}" if "doi" in fields else fields.get("url", "")
    if not place and "eprint" in fields:
        place = f"arXiv:{fields['eprint']}"
    parts = [who, fields["title"], f"{where} {numbers}".strip(), fields.get("year", ""), place]
    return ", ".join(part for part in parts if part)


def _named(author: str) -> str:
    return author.partition(",")[0] if author != "others" else "others"


ACCENTS = {'\\"': "\u0308", "\\'": "\u0301", "\\^": "\u0302"}


def _untex(text: str) -> str:
    """``K{\\"u}hne`` as ``Kühne``; braces go."""
    import unicodedata

    for code, accent in ACCENTS.items():
        text = re.sub(re.escape(f"{{{code}") + r"(\w)\}", rf"\g<1>{accent}", text)
    return unicodedata.normalize("NFC", text.replace(r"{\o}", "ø").replace("{", "").replace("}", ""))


def _add(reasons: dict[str, str], papers: Iterable[str], reason: str) -> None:
    for paper in papers:
        reasons.setdefault(paper, reason)


def _value(section: Any, key: str) -> Any:
    for part in key.split("."):
        section = section.get(part) if isinstance(section, Mapping) else None
    return section


def _counts(tree: Mapping[str, Any], section: str, papers: tuple[str, ...]) -> bool:
    """Whether a functional is one that the method uses: CP2K's GFN1-xTB and Hartree-Fock have none."""
    method, of = METHODS.get((section, str(_value(tree.get(section), "kind"))), ("", ()))
    return papers != of or method in str(_value(tree[section], "method"))


def _uses_colvars(tree: Mapping[str, Any]) -> bool:
    variables = tree.get("cv")
    listed = variables if isinstance(variables, list) else [variables]
    return any(_value(item, "kind") == "colvars" for item in listed)
