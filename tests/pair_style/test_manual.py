"""The manual page: its examples run as they stand, its lists are those of the program."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms

from rareal.testing.lammps import Lammps, random_atoms

PAGE = Path(__file__).parents[2] / "pair_style" / "pair_mlensemble.rst"
TEXT = PAGE.read_text()


def examples() -> list[str]:
    """What one can type: the LAMMPS blocks of the page, split where another pair_style begins."""
    blocks = re.findall(r"\.\. code-block:: LAMMPS\n\n((?:   .*\n|\n)+)", TEXT)
    lines = ["\n".join(line[3:] for line in block.splitlines()) for block in blocks]
    return [part.strip() for block in lines for part in re.split(r"^(?=pair_style)", block, flags=re.M) if part.strip()]


@pytest.fixture
def atoms() -> Atoms:
    return random_atoms(30, [9, 8, 7.5], periodic=True, seed=11)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("example", examples(), ids=range(len(examples())))
def test_example_runs(example: str, ranks: int, lammps: Lammps, models: Callable[[str], Path], atoms: Atoms) -> None:
    shutil.copy(models("float64"), lammps.folder / "model.pt")
    types = [1 if symbol == "C" else 2 for symbol in atoms.symbols]
    if "NULL" in example:
        types[4] = types[17] = 3
    script, _ = lammps.script(atoms, Path("model.pt"), types=types).split("pair_style")
    script = script.replace("mass 2 1.008", "mass 2 1.008\nmass 3 4.0" if 3 in types else "mass 2 1.008")
    if "pair_style" not in example:
        script += "pair_style mlensemble\npair_coeff * * model.pt C H\n"
    script += "velocity all create 300 1 mom yes\ntimestep 0.0001\nfix integrate all nve\n" + example
    output = lammps.run(script + ("" if "\nrun" in example else "\nrun 10\n"), ranks)
    assert "ERROR" not in output
    assert "WARNING" not in output
    for name in re.findall(r"(?:out_file|dump \S+ all custom \d+) (\S+)", example):
        assert (lammps.folder / name).stat().st_size > 100


def test_there_are_examples_of_everything() -> None:
    text = "\n".join(examples())
    for word in (
        "bias",
        "halt force",
        "fix trust all halt",
        "out_file",
        "compute spread",
        "fix deviation",
        "hybrid",
        "zbl",
    ):
        assert word in text


def test_syntax_names_the_keywords_of_the_program(lammps: Lammps, models: Callable[[str], Path], atoms: Atoms) -> None:
    output = lammps.run(lammps.script(atoms, models("float64"), style="mlensemble what"), check=False)
    known = re.search(r"known: (.*?)( \(|\n)", output)[1].split()
    listed = re.search(r"keyword = (.*)\n", TEXT)[1]
    assert known == re.findall(r"\*(\w+)\*", listed)
    for keyword in known:
        assert re.search(rf"^       \*{keyword}\* (value|=)", TEXT, re.M)


def test_headings_are_those_of_lammps() -> None:
    headings = re.findall(r'^(.+)\n("+|=+)$', TEXT, re.M)
    assert all(len(line) >= len(heading) for heading, line in headings)
    names = ["Syntax", "Examples", "Description", "Mixing, shift, table, tail correction, restart, rRESPA info",
             "Restrictions", "Related commands", "Default"]  # fmt: skip
    assert [heading for heading, _ in headings if heading in names] == names
