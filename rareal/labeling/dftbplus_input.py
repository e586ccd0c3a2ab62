"""DFTB+'s input: HSD text from nested mappings, the named parameter sets, and where the Slater-Koster files are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rareal.records import Frame
from rareal.schema import Misfit

Tree = dict[str, Any]


@dataclass(frozen=True)
class ParameterSet:
    """What a Slater-Koster set wants in the input and does not say in its files.

    ``angular_momenta`` and ``hubbard_derivatives`` (atomic units) by element; ``zeta`` the exponent of the damped
    γ function for pairs with hydrogen.
    """

    angular_momenta: dict[str, str]
    hubbard_derivatives: dict[str, float]
    zeta: float
    source: str


THREE_OB = ParameterSet(
    {
        "H": "s",
        **dict.fromkeys(("C", "Ca", "F", "K", "Mg", "N", "Na", "O"), "p"),
        **dict.fromkeys(("Br", "Cl", "I", "P", "S", "Zn"), "d"),
    },
    {
        "Br": -0.0573,
        "C": -0.1492,
        "Ca": -0.0340,
        "Cl": -0.0697,
        "F": -0.1623,
        "H": -0.1857,
        "I": -0.0433,
        "K": -0.0339,
        "Mg": -0.02,
        "N": -0.1535,
        "Na": -0.0454,
        "O": -0.1575,
        "P": -0.14,
        "S": -0.11,
        "Zn": -0.03,
    },
    4.0,
    "the set 3ob-3-1 from https://dftb.org/parameters/download (cite J. Chem. Theory Comput. 2013, 9, 338)",
)
"""M. Gaus, A. Goez, M. Elstner, J. Chem. Theory Comput. 2013, 9, 338, and the papers that its README names."""

SPIN_CONSTANTS: dict[str, tuple[float, ...]] = {
    "H": (-0.072,),
    "C": (-0.031, -0.025, -0.025, -0.023),
    "N": (-0.033, -0.027, -0.027, -0.026),
    "O": (-0.035, -0.030, -0.030, -0.028),
}
"""Shell-resolved, from PBE, Hartree (DFTB+ manual, appendix on atomic spin constants; from C. Köhler's thesis)."""

CURE_SET = "download a set from https://dftb.org/parameters/download"


def hsd(tree: Mapping[str, Any], indent: int = 0) -> str:
    """HSD text: mappings are blocks, lists and texts of several lines blocks of their values, true is Yes.

    ``Filling = Fermi {...}`` is the same in HSD as the nested ``Filling { Fermi {...} }`` that comes out here.
    """
    lines = []
    pad = "  " * indent
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += [f"{pad}{key} {{", *([hsd(value, indent + 1)] if value else []), f"{pad}}}"]
        elif isinstance(value, list | tuple):
            lines.append(f"{pad}{key} {{ {' '.join(_plain(item) for item in value)} }}")
        elif isinstance(value, str) and "\n" in value:
            inner = "\n".join(f"{pad}  {line}" for line in value.strip("\n").split("\n"))
            lines += [f"{pad}{key} {{", inner, f"{pad}}}"]
        else:
            lines.append(f"{pad}{key} = {_plain(value)}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "Yes" if value else "No"
    return repr(value) if isinstance(value, float) else str(value)


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """``tree`` with ``changes`` laid over it. HSD's keys know no case; a value of None takes a key away."""
    result = dict(tree)
    names = {_bare(key): key for key in result}
    for key, value in changes.items():
        old = names.get(_bare(key))
        before = result.pop(old) if old is not None else None
        if isinstance(value, Mapping):
            result[key] = merged(before if isinstance(before, Mapping) else {}, value)
        elif value is not None:
            result[key] = value
    return result


def _bare(key: str) -> str:
    return key.partition("[")[0].strip().lower()


def gen_format(frame: Frame) -> str:
    """The geometry in DFTB+'s own format, Å."""
    from ase.data import chemical_symbols

    kinds = list(dict.fromkeys(int(z) for z in frame.numbers))
    periodic = any(frame.pbc)
    lines = [f"{len(frame.numbers)} {'S' if periodic else 'C'}", " ".join(chemical_symbols[z] for z in kinds)]
    for k, (number, position) in enumerate(zip(frame.numbers, frame.positions, strict=True), start=1):
        lines.append(f"{k} {kinds.index(int(number)) + 1} " + " ".join(f"{x:.14e}" for x in position))
    if periodic:
        lines += [" ".join(f"{x:.14e}" for x in row) for row in [(0.0, 0.0, 0.0), *frame.cell.tolist()]]
    return "\n".join(lines)


def slater_koster_folder(given: Path | None) -> tuple[Path, str]:
    """The folder of the Slater-Koster files, and where it was named.

    In this order: the YAML, ``skt_path`` in section ``[dftb]`` of ASE's configuration file, ``DFTB_PREFIX`` in the
    environment or in section ``[environment]`` of that file.

    Raises
    ------
    Misfit
        If nobody names one.
    """
    if given is not None:
        return given.expanduser().absolute(), "engine.slater_koster"
    from ase.config import cfg

    if cfg.parser.has_section("dftb") and cfg.parser["dftb"].get("skt_path"):
        return Path(cfg.parser["dftb"]["skt_path"]).expanduser().absolute(), "skt_path of ASE's configuration"
    prefix = os.environ.get("DFTB_PREFIX") or (
        cfg.parser["environment"].get("DFTB_PREFIX") if cfg.parser.has_section("environment") else None
    )
    if prefix:
        return Path(prefix).expanduser().absolute(), "DFTB_PREFIX"
    raise Misfit(
        "slater_koster",
        f"no folder of Slater-Koster files is named; {CURE_SET} and give its folder here, as skt_path in section "
        "[dftb] of ASE's configuration file, or as DFTB_PREFIX in the environment",
    )


def pair_files(folder: Path, elements: Iterable[str]) -> list[Path]:
    """The files for all ordered pairs of ``elements``."""
    symbols = sorted(set(elements))
    return [folder / f"{first}-{second}.skf" for first, second in product(symbols, symbols)]


def check_pair_files(given: Path | None, elements: Iterable[str], source: str = CURE_SET) -> Path:
    """The folder, with a file for each pair of elements.

    Raises
    ------
    Misfit
        Naming the folder, who named it, the files that are missing, and where to get them.
    """
    folder, whose = slater_koster_folder(given)
    if not folder.is_dir():
        raise Misfit("slater_koster", f"{whose} names {folder}, which is no folder; get {source}")
    missing = [file.name for file in pair_files(folder, elements) if not file.is_file()]
    if missing:
        raise Misfit(
            "slater_koster",
            f"{folder} (from {whose}) lacks {', '.join(missing)}; get {source}, complete for your elements",
        )
    return folder


def angular_momentum(file: Path) -> str:
    """The highest shell that an element's own file has integrals for: s, p, d or f."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    extended = lines[0].startswith("@")
    # the line after the grid has the on-site energies from the highest shell down to s
    values = [float(x) for item in lines[1 + extended].replace(",", " ").split() for x in _repeated(item)]
    shells = 4 if extended else 3
    energies, occupations = values[:shells], values[-shells:]
    # a shell that the element does not have has neither
    highest = next(k for k in range(shells) if energies[k] != 0.0 or occupations[k] != 0.0)
    return "spdf"[shells - 1 - highest]


def _repeated(item: str) -> list[str]:
    """``3*0.0`` as Fortran means it."""
    count, star, value = item.partition("*")
    return [value] * int(count) if star else [item]
