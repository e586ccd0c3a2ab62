"""Every mistake is one clear LAMMPS error that names the file and both values."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms
from toys import ManyBody, save_committee

from rareal.testing.lammps import Lammps


def message(lammps: Lammps, script: str, ranks: int = 1) -> str:
    output = lammps.run(script, ranks, check=False)
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1, output
    return errors[0]


@pytest.mark.parametrize(
    ("style", "coeff", "expected"),
    [
        ("mlensemble", "* * {model} C", r"names 1 elements, but there are 2 atom types"),
        ("mlensemble", "* * {model} C H H", r"names 3 elements, but there are 2 atom types"),
        ("mlensemble", "* * {model} C Xe", r"Element 'Xe' of atom type 2 .*float64\.pt.* knows: C H"),
        ("mlensemble", "* * {model} NULL H", r"All pair coeffs are not set"),
        ("mlensemble", "* *", r"pair_coeff for mlensemble is: \* \* <model file>"),
        ("mlensemble", "* * missing.pt C H", r"Cannot open model file 'missing\.pt'"),
        ("mlensemble drive 5", "* * {model} C H", r"drive is 5, but .*float64\.pt' has 4 members"),
        ("mlensemble drive 0", "* * {model} C H", r"drive is 'mean' or the number of a member .* not '0'"),
        ("mlensemble drive best", "* * {model} C H", r"drive is 'mean' or the number of a member .* not 'best'"),
        ("mlensemble drive", "* * {model} C H", r"keyword 'drive' needs a value"),
        ("mlensemble members 2", "* * {model} C H", r"Unknown pair_style mlensemble keyword 'members'; known: drive"),
        ("mlensemble device", "* * {model} C H", r"keyword 'device' needs a value"),
        ("mlensemble device gpu", "* * {model} C H", r"device is 'cpu', 'cuda' or 'auto', not 'gpu'"),
        ("mlensemble ddof 2", "* * {model} C H", r"ddof is 0 or 1, not '2'"),
        ("mlensemble ddof one", "* * {model} C H", r"ddof is 0 or 1, not 'one'"),
        ("mlensemble scale 0", "* * {model} C H", r"scale is a number > 0, not '0'"),
        ("mlensemble scale", "* * {model} C H", r"keyword 'scale' needs a value"),
        ("mlensemble bias", "* * {model} C H", r"keyword 'bias' needs a value"),
        ("mlensemble bias cubic 1", "* * {model} C H", r"bias is 'none', 'linear A' or 'gaussian A B', not 'cubic'"),
        ("mlensemble bias linear -1", "* * {model} C H", r"bias is 'linear A' with a number A > 0, not '-1'"),
        ("mlensemble bias gaussian 1", "* * {model} C H", r"keyword 'bias' needs a value"),
        ("mlensemble bias gaussian 1 0", "* * {model} C H", r"bias is 'gaussian A B' with a number B > 0, not '0'"),
        ("mlensemble halt 1.5", "* * {model} C H", r"halt is 'energy' or 'force' and a number > 0, not '1.5'"),
        ("mlensemble halt force x", "* * {model} C H", r"halt is 'energy' or 'force' and a number > 0, not 'x'"),
        ("mlensemble halt force 1 patience 0", "* * {model} C H", r"patience is a number of steps, not '0'"),
        ("mlensemble patience 3", "* * {model} C H", r"'patience' and 'halt_file' need the keyword 'halt'"),
        ("mlensemble halt_file a.dump", "* * {model} C H", r"'patience' and 'halt_file' need the keyword 'halt'"),
        ("mlensemble out_freq -1", "* * {model} C H", r"out_freq is a number of steps, not '-1'"),
        ("mlensemble out_freq 1.5", "* * {model} C H", r"out_freq is a number of steps, not '1.5'"),
        ("mlensemble out_energy maybe", "* * {model} C H", r"out_energy is 'yes' or 'no', not 'maybe'"),
        ("mlensemble relative -1", "* * {model} C H", r"relative is a force >= 0, not '-1'"),
        ("mlensemble relative_v", "* * {model} C H", r"keyword 'relative_v' needs a value"),
        (
            "mlensemble atomic yes",
            "* * {model} C H",
            r"Unknown pair_style mlensemble keyword 'yes'; known: drive .*out_file",
        ),
        (
            "mlensemble out_file missing/md.out",
            "* * {model} C H",
            r"Cannot write out_file 'missing/md.out' of pair_style mlensemble: No such file",
        ),
    ],
)
def test_input(
    style: str, coeff: str, expected: str, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms
) -> None:
    model = models("float64")
    line = "pair_coeff " + coeff.format(model=model)
    script = lammps.script(cluster, model, style=style, coeff=line)
    assert re.search(expected, message(lammps, script + "run 0\n"))


@pytest.mark.parametrize("units", ["lj", "electron", "si"])
def test_units(units: str, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    script = lammps.script(cluster, models("float64"), units=units)
    assert f"metal or real, but this input has units {units}" in message(lammps, script + "run 0\n")


def test_excluded_pairs(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    script = lammps.script(cluster, models("float64")).replace("atom_style atomic", "atom_style bond")
    data = lammps.folder / "system.data"
    text = data.read_text().replace("atom types", "atom types\n1 bonds\n1 bond types")
    head, rows = text.split("Atoms\n")
    table = [row.split() for row in rows.split("\n") if row]
    bonded = "\n".join(" ".join([row[0], "1", *row[1:]]) for row in table)
    data.write_text(f"{head}Atoms\n\n{bonded}\n\nBonds\n\n1 1 1 2\n")
    script = script.replace("read_data system.data", "bond_style zero\nread_data system.data") + "bond_coeff *\n"
    assert "special_bonds scales 1-2 neighbors by 0" in message(lammps, script + "run 0\n")
    assert "ERROR" not in lammps.run(script + "special_bonds lj/coul 1 1 1\nrun 0\n")


def test_one_member_is_warned_about(lammps: Lammps, cluster: Atoms) -> None:
    path = save_committee(lammps.folder / "single.pt", ManyBody(1, seed=1, spread=0.1))
    output = lammps.run(lammps.script(cluster, path) + "run 0\n")
    assert re.search(r"WARNING: .*single\.pt' has one member", output)


def test_degrees_of_freedom_of_one_member(lammps: Lammps, cluster: Atoms) -> None:
    path = save_committee(lammps.folder / "single.pt", ManyBody(1, seed=1, spread=0.1))
    script = lammps.script(cluster, path, style="mlensemble ddof 1")
    assert re.search(r"ddof is 1, but .*single\.pt' has 1 member", message(lammps, script + "run 0\n"))


def test_style_that_comes_again_is_checked_again(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    script = lammps.script(cluster, models("float64")) + "run 0\npair_style mlensemble drive 5\nrun 0\n"
    assert re.search(r"drive is 5, but .*float64\.pt' has 4 members", message(lammps, script))


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("messages", "neighbor 1.0 multi\ncomm_modify mode multi", "",
         r"message-passing model needs comm_modify mode single"),
        ("float64", "", "compute c all centroid/stress/atom NULL\ndump d all custom 1 x.dump id c_c[1]",
         r"does not support compute centroid/stress/atom"),
    ],
)  # fmt: skip
def test_refused(
    name: str, before: str, after: str, expected: str, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    script = lammps.script(crystal, models(name), before_data=before) + f"{after}\nrun 0\n"
    assert re.search(expected, message(lammps, script, ranks=2))


def test_excluded_atoms_are_warned_about(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    script = lammps.script(cluster, models("float64")) + "neigh_modify exclude type 1 2\nrun 0\n"
    assert re.search(r"WARNING: neigh_modify exclude hides pairs", lammps.run(script))
