"""Every architecture, precision, number of processes, newton and box: all that the pair style says, against Python.

One process of LAMMPS takes all boxes with newton on and off in turn, with `clear` between them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from committees import BUILD, SELF_ENERGIES, compare, in_python

from rareal.export.modelfile import write
from rareal.records import Array
from rareal.testing.lammps import BAR, Lammps, Result, random_atoms

STRESSES = """
write_dump all custom stress.dump id c_stress[1] c_stress[2] c_stress[3] c_stress[4] c_stress[5] c_stress[6] &
modify sort id format float %20.15g
"""


def corner() -> Atoms:
    """A cluster in one corner of a wide box: most processes have nothing."""
    atoms = random_atoms(9, [3.5, 3.5, 3.5], periodic=False, seed=3)
    atoms.set_cell([20, 18, 16])
    atoms.positions += 0.5
    return atoms


BOXES: dict[str, Callable[[], Atoms]] = {
    "triclinic": lambda: random_atoms(24, [[6.5, 0, 0], [2.0, 6, 0], [-1.2, 1.6, 6]], periodic=True),
    "narrow": lambda: random_atoms(20, [5.6, 5.2, 5.9], periodic=True, seed=5),  # between one cutoff and two
    "tiny": lambda: random_atoms(4, [2.2, 2.6, 2.9], periodic=True, seed=6),  # narrower than any cutoff
    "corner": corner,
}


def ids_of(box: str, atoms: Atoms) -> list[int]:
    """Out of order and with gaps in one of the boxes."""
    count = len(atoms)
    return [7 * k + 5 for k in range(count)][::-1] if box == "corner" else list(range(1, count + 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    folder = tmp_path_factory.mktemp("matrix")

    def get(name: str, dtype: str) -> Path:
        path = folder / f"{name}-{dtype}.pt"
        if not path.exists():
            write(BUILD[name](), path, list(SELF_ENERGIES.values()), dtype=dtype)
        return path

    return get


@pytest.fixture(scope="module")
def in_lammps(
    tmp_path_factory: pytest.TempPathFactory, model: Callable[[str, str], Path]
) -> Callable[[str, str, int], dict[tuple[str, str], tuple[Result, Array]]]:
    """All boxes with newton on and off: results and per-atom virials, rows in the order of the atoms."""
    done: dict[Any, dict[tuple[str, str], tuple[Result, Array]]] = {}

    def get(name: str, dtype: str, ranks: int) -> dict[tuple[str, str], tuple[Result, Array]]:
        if (name, dtype, ranks) in done:
            return done[name, dtype, ranks]
        root = tmp_path_factory.mktemp("runs")
        runs, script = {}, ""
        for box, atoms_of in BOXES.items():
            for newton in ("on", "off"):
                folder = Lammps(root / f"{box}-{newton}")
                folder.folder.mkdir()
                atoms = atoms_of()
                part = folder.single_point_script(atoms, model(name, dtype), ids=ids_of(box, atoms), newton=newton)
                script += f"clear\nprint NEXT\nshell cd {folder.folder}\n{part}{STRESSES}"
                runs[box, newton] = (folder, atoms)
        output = Lammps(root).run(script, ranks).split("\nNEXT")[1:]
        found = {}
        for ((box, newton), (folder, atoms)), text in zip(runs.items(), output, strict=True):
            rows = {int(row[0]): row[1:] for row in np.loadtxt(folder.folder / "stress.dump", skiprows=9)}
            stress = np.array([rows[k] for k in ids_of(box, atoms)])
            found[box, newton] = (folder.parse(atoms, text, ids_of(box, atoms)), -stress / BAR)
        return done.setdefault((name, dtype, ranks), found)

    return get


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize(("dtype", "ranks"), [("float64", 1), ("float64", 2), ("float64", 4), ("float32", 2)])
@pytest.mark.parametrize("name", BUILD)
def test_equals_python(
    name: str, dtype: str, ranks: int, newton: str, box: str, model: Callable[[str, str], Path], in_lammps: Any
) -> None:
    result, atomic_virials = in_lammps(name, dtype, ranks)[box, newton]
    atoms = BOXES[box]()
    expected, virials = in_python(model(name, dtype), atoms)
    tolerance = compare(result, atoms, expected, virials, dtype)
    digits = 1e-6 * float(np.abs(virials).max())
    np.testing.assert_allclose(atomic_virials, virials, rtol=0, atol=10 * tolerance + digits)


def test_the_boxes_are_what_they_are_called() -> None:
    reach = {name: float(build().cutoff) for name, build in BUILD.items()}
    widths = {name: min(1 / np.linalg.norm(np.linalg.inv(box().cell.array), axis=0)) for name, box in BOXES.items()}
    assert widths["tiny"] < min(reach.values())
    assert max(reach.values()) < widths["narrow"] < 2 * min(reach.values())
