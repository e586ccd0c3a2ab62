"""Runs LAMMPS with ``pair_style mlensemble`` as users do: a script, the ``lmp`` program, text output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from rareal.plugin import lmp_command, lmp_environment
from rareal.records import Array

ELEMENTS = ("C", "H")

SETUP = """
units {units}
atom_style atomic
atom_modify map array
newton {newton}
boundary {boundary}
{before_data}
read_data system.data
{masses}
"""

STYLE = """
pair_style {style}
{coeff}
"""

REPORT = """
compute spread all pair mlensemble
compute atomic all pe/atom
compute stress all stress/atom NULL
compute virial all reduce sum c_stress[1] c_stress[2] c_stress[3] c_stress[4] c_stress[5] c_stress[6]
thermo_style custom step pe c_spread[1] c_spread[2] c_spread[3] c_virial[1] pxx pyy pzz pxy pxz pyz
run 0
print "energy $(pe:%20.15g)"
print "spread $(c_spread[1]:%20.15g) $(c_spread[2]:%20.15g) $(c_spread[3]:%20.15g)"
print "pressure $(pxx:%20.15g) $(pyy:%20.15g) $(pzz:%20.15g) $(pxy:%20.15g) $(pxz:%20.15g) $(pyz:%20.15g)"
print "stresses $(c_virial[1]:%20.15g) $(c_virial[2]:%20.15g) $(c_virial[3]:%20.15g) $(c_virial[4]:%20.15g) &
$(c_virial[5]:%20.15g) $(c_virial[6]:%20.15g)"
write_dump all custom forces.dump id fx fy fz c_atomic modify sort id format float %20.15g
"""

BAR = 1.6021765e6
"""One eV/Å³ in bar, to the digits that LAMMPS has in units metal."""


@dataclass(frozen=True, eq=False)
class Result:
    """What LAMMPS says of one configuration; rows in the order of the atoms given."""

    energy: float
    spread: Array
    virial: Array
    atomic_virial_sum: Array
    forces: Array
    atomic: Array


def write_data(path: Path, atoms: Atoms, ids: Sequence[int], types: Sequence[int], count: int) -> None:
    """Write a LAMMPS data file with at least ``count`` atom types."""
    (ax, _, _), (bx, by, _), (cx, cy, cz) = atoms.cell.array
    rows = [f"{k} {t} {x:.16g} {y:.16g} {z:.16g}" for k, t, (x, y, z) in zip(ids, types, atoms.positions, strict=True)]
    head = [
        "test\n",
        f"{len(atoms)} atoms",
        f"{max(count, *types)} atom types",
        f"0 {ax:.16g} xlo xhi",
        f"0 {by:.16g} ylo yhi",
        f"0 {cz:.16g} zlo zhi",
        f"{bx:.16g} {cx:.16g} {cy:.16g} xy xz yz" if any((bx, cx, cy)) else "",
        "\nAtoms\n",
    ]
    path.write_text("\n".join(head + rows) + "\n")


def parse(folder: Path, output: str, ids: Sequence[int], volume: float) -> Result:
    """Read what `REPORT` printed and dumped."""
    values = {}
    for line in output.splitlines():
        word, *numbers = line.split()[:7] or [""]
        if word in ("energy", "spread", "pressure", "stresses"):
            values[word] = np.array([float(number) for number in numbers])
    table = np.loadtxt(folder / "forces.dump", skiprows=9, ndmin=2)
    rows = {int(row[0]): row for row in table}
    table = np.array([rows[k] for k in ids])
    return Result(
        energy=float(values["energy"][0]),
        spread=values["spread"],
        virial=values["pressure"] * volume / BAR,
        atomic_virial_sum=-values["stresses"] / BAR,
        forces=table[:, 1:4],
        atomic=table[:, 4],
    )


class Lammps:
    """A folder in which LAMMPS runs; atom types are the ``elements`` in this order."""

    def __init__(self, folder: Path, elements: Sequence[str] = ELEMENTS) -> None:
        self.folder = folder
        self.elements = list(elements)

    def run(self, script: str, ranks: int = 1, check: bool = True) -> str:
        """Run a script and return all output; with ``check`` a failure of LAMMPS fails the test."""
        (self.folder / "in.test").write_text(script)
        done = subprocess.run(
            [*lmp_command(ranks), "-in", "in.test", "-log", "none"],
            cwd=self.folder,
            env=lmp_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        output = done.stdout + done.stderr
        assert not check or done.returncode == 0, output
        return output

    def script(
        self,
        atoms: Atoms,
        model: Path,
        *,
        ids: Sequence[int] | None = None,
        types: Sequence[int] | None = None,
        style: str = "mlensemble",
        coeff: str | None = None,
        units: str = "metal",
        newton: str = "on",
        before_data: str = "",
    ) -> str:
        """Write the data file; return the script up to the pair style."""
        kinds = types or [self.elements.index(symbol) + 1 for symbol in atoms.symbols]
        write_data(self.folder / "system.data", atoms, ids or range(1, len(atoms) + 1), kinds, len(self.elements))
        boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
        masses = "\n".join(
            f"mass {k} {atomic_masses[atomic_numbers[element]]:.3f}" for k, element in enumerate(self.elements, start=1)
        )
        setup = SETUP.format(units=units, newton=newton, boundary=boundary, before_data=before_data, masses=masses)
        return setup + STYLE.format(style=style, coeff=coeff or f"pair_coeff * * {model} {' '.join(self.elements)}")

    def single_point_script(
        self, atoms: Atoms, model: Path, *, ids: Sequence[int] | None = None, **options: str
    ) -> str:
        """The script of `single_point`, to which more may be appended; `parse` reads its output."""
        return self.script(atoms, model, ids=ids, **options) + REPORT  # type: ignore[arg-type]

    def parse(self, atoms: Atoms, output: str, ids: Sequence[int] | None = None) -> Result:
        """What a run of `single_point_script` says."""
        return parse(self.folder, output, ids or range(1, len(atoms) + 1), atoms.get_volume())

    def single_point(
        self, atoms: Atoms, model: Path, *, ids: Sequence[int] | None = None, ranks: int = 1, **options: str
    ) -> Result:
        """Energy, forces, virial and spread of one configuration; ``options`` as those of `script`."""
        return self.parse(atoms, self.run(self.single_point_script(atoms, model, ids=ids, **options), ranks), ids)


def random_atoms(count: int, cell: object, periodic: bool, seed: int = 7) -> Atoms:
    """Atoms of both elements at random places, none closer than 0.7 Å to another."""
    rng = np.random.default_rng(seed)
    box = Atoms(cell=cell, pbc=periodic)
    places: list[NDArray[np.float64]] = []
    while len(places) < count:
        place = rng.uniform(0.05, 0.95, 3) @ box.cell.array
        trial = Atoms("H" * (len(places) + 1), [*places, place], cell=cell, pbc=periodic)
        if not places or trial.get_distances(len(places), range(len(places)), mic=periodic).min() > 0.7:
            places.append(place)
    symbols = "".join(rng.choice(ELEMENTS, count))
    return Atoms(list(symbols), places, cell=cell, pbc=periodic)
