"""The pair style says what Python says: energies, forces, virials and their spread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from toys import Expected, evaluate

from rareal.testing.lammps import Lammps, Result

VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])


def check(result: Result, expected: Expected, tolerance: float) -> None:
    scale = max(1.0, float(np.abs(expected.forces).max()))
    assert result.energy == pytest.approx(expected.energies.mean(), abs=tolerance)
    np.testing.assert_allclose(result.forces, expected.forces.mean(axis=0), rtol=0, atol=tolerance * scale)
    np.testing.assert_allclose(result.atomic, expected.atomic.mean(axis=0), rtol=0, atol=tolerance)
    spread = [expected.energy_std, expected.force_std.max(), expected.force_std.mean()]
    np.testing.assert_allclose(result.spread, spread, rtol=0, atol=tolerance * scale)
    assert min(spread) > 1e-3
    virial = expected.virials.mean(axis=0)[VOIGT]
    np.testing.assert_allclose(result.virial, virial, rtol=0, atol=10 * tolerance * scale)
    np.testing.assert_allclose(result.atomic_virial_sum, virial, rtol=0, atol=10 * tolerance * scale)


@pytest.mark.parametrize("system", ["cluster", "crystal", "tilted", "tiny"])
@pytest.mark.parametrize("name", ["float64", "messages"])
def test_equals_python(
    system: str, name: str, lammps: Lammps, models: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    atoms: Atoms = request.getfixturevalue(system)
    check(lammps.single_point(atoms, models(name)), evaluate(models(name), atoms), 1e-10)


@pytest.mark.parametrize("name", ["float64", "messages"])
@pytest.mark.parametrize("newton", ["on", "off"])
def test_two_ranks_equal_python(
    name: str, newton: str, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms
) -> None:
    result = lammps.single_point(crystal, models(name), ranks=2, newton=newton)
    check(result, evaluate(models(name), crystal), 1e-10)


@pytest.mark.parametrize("name", ["float64", "messages"])
def test_newton_off(name: str, lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    check(lammps.single_point(tilted, models(name), newton="off"), evaluate(models(name), tilted), 1e-10)


def test_single_precision(lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    check(lammps.single_point(crystal, models("float32")), evaluate(models("float64"), crystal), 1e-5)


def test_more_members_than_one_communication_carries(
    lammps: Lammps, models: Callable[[str], Path], tiny: Atoms
) -> None:
    check(lammps.single_point(tiny, models("large"), ranks=2), evaluate(models("large"), tiny), 1e-10)


def test_rank_without_atoms(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    cluster.positions[:, 0] -= 5  # all on the first of two processes
    result = lammps.single_point(cluster, models("float64"), ranks=2, before_data="processors 2 1 1")
    check(result, evaluate(models("float64"), cluster), 1e-10)


def test_ids_need_not_be_consecutive(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    ids = [7 * k + 5 for k in range(len(cluster))][::-1]
    check(lammps.single_point(cluster, models("float64"), ids=ids), evaluate(models("float64"), cluster), 1e-10)


def test_identical_members_have_no_spread(lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    result = lammps.single_point(crystal, models("identical"), ranks=2)
    assert result.spread.tolist() == [0.0, 0.0, 0.0]
    expected = evaluate(models("identical"), crystal)
    assert result.energy == pytest.approx(expected.energies[0], abs=1e-10)


@pytest.mark.parametrize("member", [1, 4])
def test_one_member_drives(member: int, lammps: Lammps, models: Callable[[str], Path], crystal: Atoms) -> None:
    expected = evaluate(models("float64"), crystal)
    result = lammps.single_point(crystal, models("float64"), style=f"mlensemble drive {member}")
    assert result.energy == pytest.approx(expected.energies[member - 1], abs=1e-10)
    np.testing.assert_allclose(result.forces, expected.forces[member - 1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.atomic, expected.atomic[member - 1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.virial, expected.virials[member - 1][VOIGT], rtol=0, atol=1e-8)
    assert result.spread[0] == pytest.approx(expected.energy_std, abs=1e-10)


def test_units_real(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    expected = evaluate(models("float64"), cluster)
    result = lammps.single_point(cluster, models("float64"), units="real")
    kcal_mol = 23.060549  # LAMMPS's own number
    assert result.energy == pytest.approx(kcal_mol * expected.energies.mean(), rel=1e-7)
    np.testing.assert_allclose(result.forces, kcal_mol * expected.forces.mean(axis=0), rtol=1e-6, atol=1e-9)
    assert result.spread[1] == pytest.approx(kcal_mol * expected.force_std.max(), rel=1e-6)


def test_atoms_without_neighbours(lammps: Lammps, models: Callable[[str], Path]) -> None:
    atoms = Atoms("CH", [[2, 2, 2], [9, 9, 9]], cell=[14, 14, 14])
    result = lammps.single_point(atoms, models("float64"))
    assert result.energy == pytest.approx(-53.5, abs=1e-12)
    assert not result.forces.any()
