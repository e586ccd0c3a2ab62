"""What the pair style reports of the members' disagreement: compute pair, fix pair, model_devi.out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from toys import Expected, evaluate

from rareal.testing.lammps import Lammps

POINT = """
compute spread all pair mlensemble
fix deviation all pair 1 mlensemble {fields}
thermo_style custom step pe c_spread[*]
run 0
print "vector $(c_spread[1]:%20.15g) $(c_spread[2]:%20.15g) $(c_spread[3]:%20.15g) $(c_spread[4]:%20.15g) &
$(c_spread[5]) $(c_spread[6]:%20.15g) $(c_spread[7]:%20.15g)"
write_dump all custom deviation.dump id f_deviation[*] modify sort id format float %20.15g
"""

DYNAMICS = """
velocity all create 900 4711 mom yes
timestep 0.0005
fix integrate all nve
dump frames all custom 2 frames.dump id xu yu zu
dump_modify frames sort id format float %20.15g
run 4
run 3
run 5
"""


def numbers(output: str, word: str) -> np.ndarray:
    rows = [line.split()[1:] for line in output.splitlines() if line.startswith(f"{word} ")]
    return np.array(rows, dtype=float).squeeze()


def check_vector(vector: np.ndarray, expected: Expected, factor: float = 1.0) -> None:
    std = factor * expected.force_std
    wanted = [factor * expected.energy_std, std.max(), std.mean(), std.min()]
    np.testing.assert_allclose(vector[:4], wanted, rtol=0, atol=1e-8)
    assert vector[4] == std.argmax() + 1
    assert vector[5] == pytest.approx(factor * np.sqrt((expected.virial_std**2).mean()), abs=1e-8)
    assert min(wanted) > 1e-4
    assert vector[6] == 0.0  # no bias


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", ["float64", "messages"])
def test_vector_and_atoms(
    name: str, ranks: int, newton: str, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    expected = evaluate(models(name), crystal)
    script = lammps.script(crystal, models(name), newton=newton)
    output = lammps.run(script + POINT.format(fields="fstd 1 fstd3 1 estd 1"), ranks)
    check_vector(numbers(output, "vector"), expected)
    table = np.loadtxt(lammps.folder / "deviation.dump", skiprows=9)[:, 1:]
    wanted = np.column_stack([expected.force_std, expected.forces.std(axis=0), expected.atomic.std(axis=0)])
    np.testing.assert_allclose(table, wanted, rtol=0, atol=1e-8)
    assert wanted.max(axis=0).min() > 1e-3


def test_fields_without_trigger(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    lammps.run(lammps.script(tilted, models("float64")) + POINT.format(fields="fstd3 0"), ranks=2)
    table = np.loadtxt(lammps.folder / "deviation.dump", skiprows=9)[:, 1:]
    expected = evaluate(models("float64"), tilted).forces.std(axis=0)
    np.testing.assert_allclose(table, expected, rtol=0, atol=1e-8)


def test_fields_at_intervals_and_after_deletion(lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    """Values belong to the step at which the fix reads them; atoms that are gone leave nothing behind."""
    more = """
fix deviation all pair 3 mlensemble fstd 1
velocity all create 900 4711 mom yes
timestep 0.0005
fix integrate all nve
run 6
write_dump all custom six.dump id xu yu zu f_deviation modify sort id format float %20.15g
run 2
write_dump all custom eight.dump id f_deviation modify sort id format float %20.15g
group few id > 40
delete_atoms group few compress no
fix again all pair 1 mlensemble fstd 0
run 0
write_dump all custom left.dump id xu yu zu f_again modify sort id format float %20.15g
"""
    lammps.run(lammps.script(crystal, models("float64")) + more, ranks=2)
    six, eight, left = (np.loadtxt(lammps.folder / f"{n}.dump", skiprows=9) for n in ("six", "eight", "left"))
    crystal.positions = six[:, 1:4]
    np.testing.assert_allclose(six[:, 4], evaluate(models("float64"), crystal).force_std, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(eight[:, 1], six[:, 4])
    fewer = crystal[:40]
    fewer.positions = left[:, 1:4]
    np.testing.assert_allclose(left[:, 4], evaluate(models("float64"), fewer).force_std, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ranks", [1, 2])
def test_degrees_of_freedom_and_scale(
    ranks: int, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    script = lammps.script(crystal, models("float64"), style="mlensemble scale 2.5 ddof 1")
    output = lammps.run(script + POINT.format(fields="estd 1 fstd 1"), ranks)
    expected, factor = evaluate(models("float64"), crystal), 2.5 * np.sqrt(4 / 3)
    check_vector(numbers(output, "vector"), expected, factor)
    table = np.loadtxt(lammps.folder / "deviation.dump", skiprows=9)[:, 1:]
    wanted = np.column_stack([expected.atomic.std(axis=0, ddof=1), np.sqrt(expected.forces.var(axis=0, ddof=1).sum(1))])
    np.testing.assert_allclose(table, 2.5 * wanted, rtol=0, atol=1e-8)


def frames(path: Path, count: int) -> dict[int, np.ndarray]:
    """Positions by step of a dump with columns id xu yu zu."""
    lines = path.read_text().splitlines()
    starts = [k for k, line in enumerate(lines) if line == "ITEM: TIMESTEP"]
    return {
        int(lines[k + 1]): np.array([line.split()[1:4] for line in lines[k + 9 : k + 9 + count]], dtype=float)
        for k in starts
    }


COLUMNS = ["step", "max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"]


def deviations(expected: Expected, factor: float = 1.0, level: float | None = None, level_v: float | None = None):
    """The columns after the step, and those of the atoms, by DeePMD-kit's definitions."""
    count = expected.forces.shape[1]
    force, virial = factor * expected.force_std, factor * expected.virial_std / count
    if level is not None:
        force = force / (np.linalg.norm(expected.forces.mean(axis=0), axis=1) + level)
    if level_v is not None:
        virial = virial / (np.abs(expected.virials.mean(axis=0)) / count + level_v)
    rms = np.sqrt((virial**2).mean())
    return [virial.max(), virial.min(), rms, force.max(), force.min(), force.mean()], force


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_file_has_the_columns_of_deepmd(
    ranks: int, newton: str, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    script = lammps.script(crystal, models("float64"), newton=newton, style="mlensemble out_file md.out out_freq 2")
    lammps.run(script + DYNAMICS, ranks)
    lines = (lammps.folder / "md.out").read_text().splitlines()
    assert lines[0] == "#" + "step".rjust(11) + "".join(name.rjust(19) for name in COLUMNS[1:])
    assert all(len(line) == 12 + 6 * 19 for line in lines)
    rows = np.loadtxt(lammps.folder / "md.out")
    assert rows[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 12]  # three runs, no step twice
    places = frames(lammps.folder / "frames.dump", len(crystal))
    for row in rows:
        crystal.positions = places[int(row[0])]
        np.testing.assert_allclose(row[1:], deviations(evaluate(models("float64"), crystal))[0], rtol=2e-6)


@pytest.mark.parametrize("ranks", [1, 2])
def test_file_with_all_options(ranks: int, lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    style = "mlensemble out_freq 4 atomic relative 0.5 relative_v 0.1 out_energy yes ddof 1 scale 1.5"
    lammps.run(lammps.script(tilted, models("float64"), style=style) + DYNAMICS, ranks)
    lines = (lammps.folder / "model_devi.out").read_text().splitlines()
    assert lines[0].split() == ["#", *COLUMNS, "atm_devi_f(N)", "devi_e", "avg_e"]
    assert lines[1] == "# pair_style mlensemble: ddof 1 scale 1.5 relative 0.5 relative_v 0.1"
    places, count = frames(lammps.folder / "frames.dump", len(tilted)), len(tilted)
    rows = np.loadtxt(lammps.folder / "model_devi.out")
    assert rows[:, 0].tolist() == [0, 4, 8, 12]
    factor = 1.5 * np.sqrt(4 / 3)
    for row in rows:
        tilted.positions = places[int(row[0])]
        expected = evaluate(models("float64"), tilted)
        columns, atoms = deviations(expected, factor, 0.5, 0.1)
        np.testing.assert_allclose(row[1:7], columns, rtol=2e-6)
        np.testing.assert_allclose(row[7:-2], atoms, rtol=2e-6)
        assert row[-2] == pytest.approx(factor * expected.energy_std / count, rel=2e-6)
        assert row[-1] == pytest.approx(expected.energies.mean(), abs=1e-8)


@pytest.mark.parametrize("name", ["float64", "messages"])
def test_processes_without_atoms(name: str, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    cluster.positions[:, 0] -= 5  # all on the first of four processes
    style = "mlensemble out_freq 1 atomic bias linear 0.1 halt force 1e3 halt_file good.dump"
    script = lammps.script(cluster, models(name), style=style, before_data="processors 4 1 1")
    output = lammps.run(script + POINT.format(fields="fstd 1 fstd3 1 estd 1"), ranks=4)
    expected = evaluate(models(name), cluster)
    assert numbers(output, "vector")[6] == pytest.approx(-0.1 * expected.energy_std**2, abs=1e-9)
    table = np.loadtxt(lammps.folder / "deviation.dump", skiprows=9)[:, 1:]
    wanted = np.column_stack([expected.force_std, expected.forces.std(axis=0), expected.atomic.std(axis=0)])
    np.testing.assert_allclose(table, wanted, rtol=0, atol=1e-8)
    columns, atoms = deviations(expected)
    np.testing.assert_allclose(np.loadtxt(lammps.folder / "model_devi.out")[1:], [*columns, *atoms], rtol=2e-6)


def test_units_real(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    kcal_mol = 23.060549  # LAMMPS's own number
    script = lammps.script(tilted, models("float64"), units="real", style="mlensemble out_file md.out bias linear 1e-6")
    output = lammps.run(script + POINT.format(fields="fstd3 1 estd 0"))
    expected = evaluate(models("float64"), tilted)
    vector = numbers(output, "vector")
    assert vector[0] == pytest.approx(kcal_mol * expected.energy_std, rel=1e-7)
    assert vector[3] == pytest.approx(kcal_mol * expected.force_std.min(), rel=1e-7)
    assert vector[6] == pytest.approx(-1e-6 * (kcal_mol * expected.energy_std) ** 2, rel=1e-7)
    table = np.loadtxt(lammps.folder / "deviation.dump", skiprows=9)[:, 1:]
    wanted = np.column_stack([expected.forces.std(axis=0), expected.atomic.std(axis=0)])
    np.testing.assert_allclose(table, kcal_mol * wanted, rtol=1e-6)
    assert (lammps.folder / "md.out").read_text().splitlines()[1] == "# pair_style mlensemble: units real"
    row = np.loadtxt(lammps.folder / "md.out")
    np.testing.assert_allclose(row[1:], kcal_mol * np.array(deviations(expected)[0]), rtol=2e-6)


def test_file_goes_on_where_asked(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    for append, steps in (("no", [0, 2]), ("no", [0, 2]), ("yes", [0, 2, 0, 2])):
        style = f"mlensemble out_freq 2 out_append {append}"
        again = "run 2\npair_style " + style + f"\npair_coeff * * {models('float64')} C H\nrun 0\n"
        lammps.run(lammps.script(tilted, models("float64"), style=style) + again)
        text = (lammps.folder / "model_devi.out").read_text()
        assert text.count("#") == 1
        assert np.loadtxt(text.splitlines())[:, 0].tolist() == steps


def test_no_file_without_a_keyword(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    lammps.run(lammps.script(tilted, models("float64")) + "run 0\n")
    assert not list(lammps.folder.glob("*.out"))


def test_atoms_of_other_styles_do_not_count(lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    types = [1 if symbol == "C" else 2 for symbol in crystal.symbols]
    types[4] = types[17] = 3
    inside = [k for k, kind in enumerate(types) if kind != 3]
    coeff = f"pair_coeff * * mlensemble {models('float64')} C H NULL\npair_coeff * * lj/cut 0.01 0.8"
    style = "hybrid/overlay mlensemble out_file md.out lj/cut 3.0"
    script = lammps.script(crystal, models("float64"), types=types, style=style, coeff=coeff)
    script = script.replace("mass 2 1.008", "mass 2 1.008\nmass 3 4.0")
    lammps.run(script + POINT.format(fields="fstd 1 estd 1"), ranks=2)
    expected = evaluate(models("float64"), crystal[inside])
    table = np.loadtxt(lammps.folder / "deviation.dump", skiprows=9)[:, 1:]
    np.testing.assert_allclose(table[inside, 0], expected.force_std, rtol=0, atol=1e-8)
    assert not table[[4, 17]].any()
    np.testing.assert_allclose(np.loadtxt(lammps.folder / "md.out")[1:], deviations(expected)[0], rtol=2e-6)
