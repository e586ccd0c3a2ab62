"""The section `cv` of the YAML: one variable or several, and what is said about those that cannot be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest

from rareal import cv
from rareal.build import build_variables
from rareal.config import Config, load
from rareal.cv.rmsd import RMSD
from rareal.errors import ConfigError, RunFolderError
from rareal.records import Array
from rareal.rundir import RunFolder

EXAMPLES = Path(__file__).parents[3] / "examples" / "hexane"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(EXAMPLES / "hexane.xyz", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str) -> Config:
    Path("case.yaml").write_text(f"structure: hexane.xyz\n{text}\n")
    return load("case.yaml")


SEVERAL = """\
cv:
  - {kind: distance, atoms: [1, 6]}
  - {kind: distance, groups: [[1, 2], [5, 6]], name: halves}
  - {kind: angle, atoms: [1, 2, 3]}
  - {kind: dihedral, groups: [[1, 2], [3], [4], [6]]}
  - {kind: difference, pairs: [[1, 2], [2, 3]]}
  - {kind: combination, pairs: [[1, 2], [2, 3]], coefficients: [1, 2.5]}
  - {kind: coordination, groups: [[1], [2, 3, 4]], r0: 0.2 nm}
  - {kind: rmsd, atoms: [1, 2, 3, 4]}
"""


def test_one_variable_is_named_cv(folder: Path) -> None:
    config = read("cv: {kind: distance, atoms: [1, 6]}")
    assert len(config.cv) == 1
    assert config.resolved()["cv"] == {"kind": "distance", "atoms": [1, 6]}
    (variable,) = build_variables(config)
    assert isinstance(variable, cv.Variable)
    assert (variable.name, variable.unit, variable.label) == ("cv", "Å", "Distance between atoms 1 and 6")
    assert variable.ends == (0, 5)
    first, last = config.frame.positions[[0, 5]]
    assert variable.value(config.frame.positions) == pytest.approx(np.linalg.norm(last - first))


def test_several_variables(folder: Path) -> None:
    config = read(SEVERAL)
    variables = build_variables(config)
    assert [item.name for item in variables] == ["cv1", "halves", *(f"cv{k}" for k in range(3, 9))]
    assert [item.label for item in variables] == [
        "Distance between atoms 1 and 6",
        "Distance between atoms 1-2 and atoms 5-6",
        "Angle of atoms 1, 2 and 3",
        "Dihedral angle of atoms 1-2, atom 3, atom 4 and atom 6",
        "d(1,2) - d(2,3)",
        "d(1,2) + 2.5 d(2,3)",
        "Coordination number between atom 1 and atoms 2-4",
        "RMSD of atoms 1-4",
    ]
    assert [item.ends for item in variables[:3]] == [(0, 5), None, None]
    assert all(np.isfinite(item.value(config.frame.positions)) for item in variables)
    Path("again.yaml").write_text(config.resolved_yaml())
    again = load("again.yaml")
    assert again.resolved() == config.resolved()
    assert [item.colvars() for item in build_variables(again)] == [item.colvars() for item in variables]


def test_a_list_of_one_is_one(folder: Path) -> None:
    listed, plain = read("cv: [{atoms: [1, 6]}]"), read("cv: {kind: distance, atoms: [1, 6]}")
    assert listed.resolved() == plain.resolved()
    assert build_variables(listed) == build_variables(plain)


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("cv: 3", "2: cv: 3", "needs keys below it"),
        ("cv: []", "2: cv: []", "an event needs a collective variable"),
        (
            "cv: distance",
            "2: cv: {'kind': 'distance'}",
            "a distance needs either `atoms`, e.g. atoms: [1, 2], or `groups`",
        ),
        ("cv: {atoms: [1, 6], groups: [[1], [6]]}", "2: cv: {", "both are given"),
        ("cv: {kind: distnce}", "2: cv.kind: 'distnce'", "did you mean 'distance'?"),
        ("cv: {atoms: [1, 2, 3]}", "2: cv.atoms: [1, 2, 3]", "a distance needs 2 atoms, not 3"),
        ("cv: {atoms: [2, 2]}", "2: cv.atoms: [2, 2]", "atom 2 is named twice; a distance needs 2 different atoms"),
        ("cv: {atoms: [0, 2]}", "2: cv.atoms[1]: 0", "at least 1"),
        ("cv: {atoms: [1.5, 2]}", "2: cv.atoms[1]: 1.5", "give a whole number"),
        (
            "cv: {atoms: [1, 21]}",
            "2: cv.atoms: [1, 21]",
            "there is no atom 21 in the structure; number the atoms 1 to 20",
        ),
        (
            "cv: {groups: [[1, 2], [2, 3]]}",
            "2: cv.groups",
            "atom 2 is named twice; a distance needs groups that share no",
        ),
        ("cv: {groups: [[1, 1], [3]]}", "2: cv.groups", "atom 1 is named twice"),
        ("cv: {groups: [[], [3]]}", "2: cv.groups[1]: []", "at least 1"),
        ("cv: {groups: [[1], [2], [3]]}", "2: cv.groups", "a distance needs 2 groups, not 3"),
        ("cv:\n- {atoms: [1, 6]}\n- {kind: angle, atoms: [1, 2, 30]}", "4: cv[2].atoms: [1, 2, 30]", "no atom 30"),
        (
            "cv:\n- {atoms: [1, 6]}\n- {kind: angle,\n   atoms: [1, 2]}",
            "5: cv[2].atoms: [1, 2]",
            "an angle needs 3 atoms",
        ),
        ("cv:\n- {atoms: [1, 6]}\n- {kind: angle, atms: [1, 2]}", "4: cv[2].atms: [1, 2]", "did you mean 'atoms'?"),
        ("cv:\n- {atoms: [1, 6]}\n- 7", "4: cv[2]: 7", "put its keys in braces"),
        ("cv: {kind: dihedral, atoms: [1, 2, 3, 1]}", "cv.atoms", "atom 1 is named twice; a dihedral angle needs 4"),
        ("cv: {kind: difference, pairs: [[1, 2]]}", "cv.pairs: [[1, 2]]", "at least 2"),
        ("cv: {kind: difference}", "cv.pairs: this key is missing", "add it (the two pairs of atoms"),
        ("cv: {kind: difference, pairs: [[1, 2], [2, 1]]}", "cv.pairs", "the pair [2, 1] is named twice"),
        ("cv: {kind: difference, pairs: [[1, 2], [4, 4]]}", "cv.pairs", "atom 4 is named twice"),
        (
            "cv:\n- {atoms: [1, 6]}\n- {kind: difference, pairs: [[1, 2], [4, 44]]}",
            "4: cv[2].pairs",
            "there is no atom 44",
        ),
        ("cv: {kind: combination, pairs: [[1, 2]], coefficients: [1, 2]}", "cv: {", "1 pairs and 2 coefficients"),
        ("cv: {kind: combination, pairs: [[1, 2]], coefficients: [0]}", "cv.coefficients: [0]", "leave the pair out"),
        ("cv: {kind: combination, pairs: [[1, 2]], coefficients: [.inf]}", "cv.coefficients[1]: inf", "finite number"),
        ("cv: {kind: coordination, groups: [[1], [1, 2]], r0: 2}", "cv.groups", "an atom is no neighbour of itself"),
        ("cv: {kind: coordination, groups: [[1], [2]], r0: 2 eV}", "cv.r0: '2 eV'", "converts to angstrom"),
        ("cv: {kind: coordination, groups: [[1], [2]], r0: 0}", "cv.r0: 0", "above 0"),
        (
            "cv: {kind: coordination, groups: [[1], [2]], r0: 2, exponents: [6, 6]}",
            "cv.exponents: [6, 6]",
            "the larger one second",
        ),
        (
            "cv: {kind: coordination, groups: [[1], [2]], r0: 2, exponents: [5, 12]}",
            "cv.exponents: [5, 12]",
            "two even numbers",
        ),
        ("cv: {kind: rmsd, atoms: [1, 2]}", "cv.atoms: [1, 2]", "at least 3"),
        ("cv: {kind: rmsd, atoms: [1, 2, 2]}", "cv.atoms", "atom 2 is named twice; name every atom once"),
        ("cv: {kind: rmsd, reference: hexan.xyz}", "cv.reference: 'hexan.xyz'", "did you mean 'hexane.xyz'?"),
        ("cv: {name: 1st, atoms: [1, 2]}", "cv.name: '1st'", "it must match"),
        ("cv: {name: work, atoms: [1, 2]}", "cv.name: 'work'", "the name of another column"),
        (
            "cv:\n- {name: a, atoms: [1, 2]}\n- {name: A, atoms: [1, 3]}",
            "4: cv[2].name: 'A'",
            "the name of cv[1] already",
        ),
        ("cv:\n- {name: cv2, atoms: [1, 2]}\n- {atoms: [1, 3]}", "4: cv[2].name: 'cv2'", "the name of cv[1] already"),
        ("cv: {kind: colvars}", "cv.text: this key is missing", "the whole block"),
        ("cv: {kind: colvars, text: 'harmonic { }'}", "cv.text", "give one block `colvar { ... }`"),
        ("cv: {kind: colvars, text: 'colvar { name a'}", "cv.text", "there is a closing brace missing"),
        ("cv: {kind: colvars, text: 'colvar { width 1 }'}", "cv.text", "e.g. `name ring`"),
        ("cv: {kind: colvars, text: 'colvar { name energy }'}", "cv.text", "the name of another column"),
    ],
)
def test_refusals(folder: Path, text: str, where: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("case.yaml:")
    assert where in message
    assert says in message


def test_all_wrong_variables_are_named_at_once(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read("cv:\n- {atoms: [1, 1]}\n- {kind: rmsd}\n- {kind: angle, atoms: [1, 2]}\n- {atoms: [1, 99]}")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["cv[1].atoms", "cv[3].atoms"]


def other(folder: Path, positions: Array | None = None) -> Array:
    """Another hexane, in other.xyz."""
    atoms = ase.io.read("hexane.xyz")
    atoms.positions = atoms.positions * [1.1, 0.9, 1.0] if positions is None else positions
    atoms.write("other.xyz")
    return np.array(ase.io.read("other.xyz").positions)


def test_the_reference_of_an_rmsd_is_kept_with_the_run(folder: Path) -> None:
    positions = other(folder)
    text = "cv:\n- {atoms: [1, 6]}\n- {kind: rmsd, atoms: [2, 1, 3], reference: other.xyz}"
    config = read(text)
    rmsd = build_variables(config)[1]
    assert isinstance(rmsd, RMSD)
    assert rmsd.reference == pytest.approx(positions[[1, 0, 2]])
    with RunFolder.open("run", config):
        pass
    os.remove("other.xyz")
    kept = load(Path("run") / "config.yaml")
    assert build_variables(kept)[1].colvars() == rmsd.colvars()
    # another structure under the same name is another run
    other(folder, positions + np.linspace(0, 1, 60).reshape(20, 3))
    with pytest.raises(RunFolderError, match="made from another configuration"):
        RunFolder.open("run", read(text))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n", "it has 3 atoms, the structure 20"),
        (None, "its atom 1 is H, in the structure it is C"),
        ("nonsense\n", "ASE cannot read"),
    ],
)
def test_a_reference_of_other_atoms_is_refused(folder: Path, content: str | None, says: str) -> None:
    if content is None:
        atoms = ase.io.read("hexane.xyz")
        atoms[::-1].write("other.xyz")
    else:
        Path("other.xyz").write_text(content)
    with pytest.raises(ConfigError, match=r"case\.yaml:2: cv\.reference: 'other\.xyz'") as caught:
        read("cv: {kind: rmsd, reference: other.xyz}")
    assert says in str(caught.value)


BLOCK = """\
cv:
  - {{atoms: [1, 6]}}
  - kind: colvars
    unit: {unit}
    text: |
      colvar {{
        name {name}   # the chain
        {component} {{
          atoms {{
            atomNumbers 1 2 3 {last}
          }}
        }}
      }}
"""


def test_any_block_of_colvars(folder: Path) -> None:
    config = read(BLOCK.format(unit="Å", name="size", component="gyration", last=4))
    chain = build_variables(config)[1]
    assert (chain.name, chain.axis, chain.period) == ("size", "size (Å)", None)
    frames = np.stack([config.frame.positions, config.frame.positions * 1.5])
    carbons = frames[:, :4] - frames[:, :4].mean(axis=1, keepdims=True)
    assert chain.value(frames) == pytest.approx(np.sqrt((carbons**2).sum(axis=2).mean(axis=1)))
    Path("again.yaml").write_text(config.resolved_yaml())
    assert load("again.yaml").resolved() == config.resolved()


@pytest.mark.parametrize(
    ("component", "last", "says"),
    [
        ("gyratoin", 4, "Colvars does not take it (Error: "),
        ("gyration", 44, "there is no atom 44 in the structure; number the atoms 1 to 20"),
    ],
)
def test_what_colvars_does_not_take_is_refused_before_anything_runs(
    folder: Path, component: str, last: int, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(BLOCK.format(unit="Å", name="size", component=component, last=last))
    assert str(caught.value).startswith("case.yaml:6: cv[2].text: ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


OWN = """
from typing import Literal
from rareal.cv import Variable
from rareal.schema import Section

class Config(Section):
    kind: Literal["height"] = "height"
    atom: int = 1

class Height(Variable):
    unit, label = "Å", "height"
    def __init__(self, atom, name):
        self.atom, self.name = atom, name
    def value(self, positions):
        return positions[..., self.atom - 1, 2]
    def colvars(self):
        return f"colvar {{\\n  name {self.name}\\n}}"

def build(config, start, name):
    return Height(config.atom, name)
"""


def test_a_kind_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine_cv").mkdir()
    (folder / "mine_cv" / "__init__.py").write_text("")
    (folder / "mine_cv" / "height.py").write_text(OWN)
    monkeypatch.syspath_prepend(folder)
    config = read("cv:\n- {kind: mine_cv.height, atom: 3}\n- mine_cv.height")
    variables = build_variables(config)
    assert [item.name for item in variables] == ["cv1", "cv2"]
    assert variables[0].value(config.frame.positions) == config.frame.positions[2, 2]
    assert variables[0].ends is None
    assert config.resolved()["cv"][0] == {"kind": "mine_cv.height", "atom": 3}
    Path("again.yaml").write_text(config.resolved_yaml())
    assert load("again.yaml").resolved() == config.resolved()


def test_steered_md_pulls_at_any_variable(folder: Path) -> None:
    assert read("cv: {kind: angle, atoms: [1, 2, 3]}").sampler.kind == "steered"


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"kind": "distance", "atoms": [1, 6]}, "Distance between atoms 1 and 6 (Å)"),
        ([{"kind": "dihedral", "atoms": [1, 2, 3, 4]}, {}], "Dihedral angle of atoms 1, 2, 3 and 4 (°)"),
        ({"kind": "coordination", "groups": [[1], [2]], "r0": 2}, "Coordination number between atom 1 and atom 2"),
        ({"kind": "their.own"}, "Collective variable"),
        ({"kind": "distance", "atoms": [1]}, "Collective variable"),
        (None, "Collective variable"),
        ([], "Collective variable"),
    ],
)
def test_axis_of_a_plot(tree: object, text: str) -> None:
    assert cv.axis(tree) == text
