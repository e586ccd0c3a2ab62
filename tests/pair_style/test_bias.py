"""Uncertainty-driven dynamics: the bias against the members' energies and forces, its differences, and NVE."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from toys import Expected, evaluate

from rareal.testing.lammps import Lammps

VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])

BIAS = """
print "bias $(c_spread[7]:%20.15g)"
"""

# The potential energy leaves the bias out, so that atoms are moved by hand and both are read.
DIFFERENCES = """
compute spread all pair mlensemble
thermo_style custom step pe c_spread[7]
run 0
print "force $(fx[{atom}]:%20.15g) $(fy[{atom}]:%20.15g) $(fz[{atom}]:%20.15g)"
group moved id {atom}
"""

NVE = """
velocity all create 600 4711 mom yes
timestep {timestep}
fix integrate all nve
compute spread all pair mlensemble
variable total equal etotal
variable bias equal c_spread[7]
variable std equal c_spread[1]
thermo_style custom step etotal c_spread[7]
fix log all print 1 "total $(v_total:%20.15g) $(v_bias:%20.15g) $(v_std:%20.15g)" screen yes
run {steps}
"""


def numbers(output: str, word: str) -> np.ndarray:
    rows = [line.split()[1:] for line in output.splitlines() if line.startswith(f"{word} ")]
    return np.array(rows, dtype=float).squeeze()


def bias_of(style: str, expected: Expected, ddof: int = 0) -> tuple[float, np.ndarray]:
    """Energy, and the weight of every member's force, by equations 18 and 19 of the review and the chain rule."""
    form, *values = style.split()
    members = len(expected.energies)
    variance = expected.energies.var(ddof=ddof)
    if form == "linear":
        energy, slope = -float(values[0]) * variance, -float(values[0])
    else:
        strength, width = map(float, values)
        energy = strength * np.exp(-variance / width**2)
        slope = -energy / width**2
    return energy, slope * 2 / (members - ddof) * (expected.energies - expected.energies.mean())


@pytest.mark.parametrize("form", ["gaussian", "linear"])
@pytest.mark.parametrize(("name", "ranks", "newton"), [
    ("float64", 1, "on"), ("float64", 2, "off"), ("float64", 4, "on"), ("messages", 2, "on"), ("messages", 4, "off"),
])  # fmt: skip
def test_bias_follows_from_energies_and_forces(
    form: str,
    name: str,
    ranks: int,
    newton: str,
    lammps: Lammps,
    models: Callable[[str], Path],
    crystal: Atoms,
) -> None:
    """The potential energy is the committee's; forces, virial and the entry of compute pair have the bias."""
    expected = evaluate(models(name), crystal)
    form += f" 2.5 {expected.energy_std:.3f}" if form == "gaussian" else " 0.3"
    energy, weights = bias_of(form, expected)
    script = lammps.single_point_script(crystal, models(name), newton=newton, style=f"mlensemble bias {form}")
    output = lammps.run(script + BIAS, ranks)
    result = lammps.parse(crystal, output)
    assert result.energy == pytest.approx(expected.energies.mean(), abs=1e-9)
    assert numbers(output, "bias") == pytest.approx(energy, abs=1e-9)
    added = np.einsum("m,mia->ia", weights, expected.forces)
    assert np.abs(added).max() > 0.05
    np.testing.assert_allclose(result.forces, expected.forces.mean(axis=0) + added, rtol=0, atol=1e-8)
    virial = expected.virials.mean(axis=0) + np.einsum("m,mab->ab", weights, expected.virials)
    np.testing.assert_allclose(result.virial, virial[VOIGT], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.atomic_virial_sum, virial[VOIGT], rtol=0, atol=1e-7)


def test_bias_of_the_reported_deviation(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    """With ddof and scale the bias is that of the deviation which compute pair shows; one member may drive."""
    expected = evaluate(models("float64"), tilted)
    width = round(expected.energy_std, 3)
    energy, weights = bias_of(f"gaussian 2.0 {width}", expected, ddof=1)
    style = f"mlensemble bias gaussian 2.0 {2 * width} scale 2.0 ddof 1 drive 3"
    output = lammps.run(lammps.single_point_script(tilted, models("float64"), style=style) + BIAS)
    result = lammps.parse(tilted, output)
    assert numbers(output, "bias") == pytest.approx(energy, abs=1e-9)
    assert numbers(output, "bias") == pytest.approx(2.0 * np.exp(-((result.spread[0] / width / 2) ** 2)), abs=1e-9)
    forces = expected.forces[2] + np.einsum("m,mia->ia", weights, expected.forces)
    np.testing.assert_allclose(result.forces, forces, rtol=0, atol=1e-8)
    assert result.energy == pytest.approx(expected.energies[2], abs=1e-9)


@pytest.mark.parametrize("form", ["gaussian 2.0 0.8", "linear 2.0"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_biased_forces_are_differences(
    form: str, ranks: int, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms
) -> None:
    script = lammps.script(cluster, models("float64"), style=f"mlensemble bias {form}") + DIFFERENCES.format(atom=4)
    h = 1e-4
    for axis in range(3):
        for shift in (h, -2 * h, h):
            step = ["0.0"] * 3
            step[axis] = f"{shift:g}"
            script += f"displace_atoms moved move {' '.join(step)}\nrun 0\n"
            script += 'print "sum $(pe+c_spread[7]:%20.15g) $(c_spread[7]:%20.15g)"\n'
    output = lammps.run(script, ranks)
    total, bias = numbers(output, "sum").T.reshape(2, 3, 3)
    force, share = (-(part[:, 0] - part[:, 1]) / (2 * h) for part in (total, bias))
    np.testing.assert_allclose(numbers(output, "force"), force, rtol=0, atol=1e-5 * np.abs(force).max())
    assert np.abs(share).max() > 0.05


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("form", ["gaussian 3.0 0.5", "linear 2.0"])
def test_total_and_bias_energy_are_conserved(
    form: str, ranks: int, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms
) -> None:
    fluctuation = []
    for timestep, steps in ((0.0002, 200), (0.0001, 400)):
        script = lammps.script(cluster, models("float64"), style=f"mlensemble bias {form}")
        rows = numbers(lammps.run(script + NVE.format(timestep=timestep, steps=steps), ranks), "total")
        total, bias, _ = rows.T
        assert np.ptp(bias) > 0.05
        fluctuation.append(np.ptp(total + bias))
        assert np.ptp(total) > 5 * fluctuation[-1]  # without the bias it would not be
    assert fluctuation[0] < 0.01
    assert fluctuation[1] < fluctuation[0] / 3


def test_identical_members_have_no_bias_force(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    expected = evaluate(models("identical"), cluster)
    result = lammps.single_point(cluster, models("identical"), style="mlensemble bias gaussian 2 1")
    np.testing.assert_allclose(result.forces, expected.forces[0], rtol=0, atol=1e-10)


def test_minimizer_is_refused(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    script = lammps.script(cluster, models("float64"), style="mlensemble bias linear 1")
    output = lammps.run(script + "minimize 0 1e-3 10 100\n", check=False)
    assert "a minimizer does not see the energy of the bias" in output
