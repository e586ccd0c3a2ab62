"""Forces and virial are derivatives of the energy; dynamics conserves the total energy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from rareal.testing.lammps import Lammps

# fix numdiff moves atoms one by one, fix numdiff/virial strains the box, and both ask the pair style for energies.
FORCE_ERROR = """
fix difference all numdiff 1 1e-4
variable ex atom fx-f_difference[1]
variable ey atom fy-f_difference[2]
variable ez atom fz-f_difference[3]
compute error all reduce maxabs v_ex v_ey v_ez
compute largest all reduce maxabs fx fy fz
thermo_style custom step pe c_error[*] c_largest[*]
run 0
print "error $(c_error[1]:%20.15g) $(c_error[2]:%20.15g) $(c_error[3]:%20.15g)"
print "largest $(c_largest[1]:%20.15g) $(c_largest[2]:%20.15g) $(c_largest[3]:%20.15g)"
"""

VIRIAL_ERROR = """
compute stress all pressure NULL virial
fix difference all numdiff/virial 1 1e-5
thermo_style custom step pe c_stress[*] f_difference[*]
run 0
print "analytic $(c_stress[1]:%20.15g) $(c_stress[2]:%20.15g) $(c_stress[3]:%20.15g) &
$(c_stress[6]:%20.15g) $(c_stress[5]:%20.15g) $(c_stress[4]:%20.15g)"
print "numeric $(f_difference[1]:%20.15g) $(f_difference[2]:%20.15g) $(f_difference[3]:%20.15g) &
$(f_difference[4]:%20.15g) $(f_difference[5]:%20.15g) $(f_difference[6]:%20.15g)"
"""

NVE = """
velocity all create 600 4711 mom yes
timestep {timestep}
fix integrate all nve
thermo_style custom step etotal ke
variable step equal step
variable total equal etotal
variable kinetic equal ke
fix log all print 1 "total $(v_total:%20.15g) $(v_kinetic:%20.15g)" screen yes
run {steps}
"""


def numbers(output: str, word: str) -> np.ndarray:
    rows = [line.split()[1:] for line in output.splitlines() if line.startswith(f"{word} ")]
    return np.array(rows, dtype=float).squeeze()


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("style", ["mlensemble", "mlensemble drive 2"])
@pytest.mark.parametrize(("name", "system"), [("float64", "tilted"), ("messages", "tiny")])
def test_forces_are_differences_of_the_energy(
    name: str,
    system: str,
    style: str,
    ranks: int,
    lammps: Lammps,
    models: Callable[[str], Path],
    request: pytest.FixtureRequest,
) -> None:
    script = lammps.script(request.getfixturevalue(system), models(name), style=style)
    output = lammps.run(script + FORCE_ERROR, ranks)
    assert numbers(output, "largest").min() > 0.1
    assert numbers(output, "error").max() < 1e-6 * max(1.0, numbers(output, "largest").max())


@pytest.mark.parametrize("name", ["float64", "messages"])
@pytest.mark.parametrize("system", ["crystal", "tiny"])
def test_virial_is_the_difference_under_strain(
    name: str, system: str, lammps: Lammps, models: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    script = lammps.script(request.getfixturevalue(system), models(name))
    output = lammps.run(script + VIRIAL_ERROR)
    analytic, numeric = numbers(output, "analytic"), numbers(output, "numeric")
    # order of fix numdiff/virial: xx yy zz yz xz xy
    np.testing.assert_allclose(analytic, numeric, rtol=0, atol=1e-5 * np.abs(analytic).max())
    assert np.abs(analytic).min() > 1.0


@pytest.mark.parametrize("ranks", [1, 2])
def test_total_energy_is_conserved(ranks: int, lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    # Halving the time step must quarter the fluctuation: a wrong force would leave a drift that stays.
    fluctuation = []
    for timestep, steps in ((0.0002, 200), (0.0001, 400)):
        script = lammps.script(cluster, models("float64"))
        total, kinetic = numbers(lammps.run(script + NVE.format(timestep=timestep, steps=steps), ranks), "total").T
        assert np.ptp(kinetic) > 0.5
        fluctuation.append(np.ptp(total))
    assert fluctuation[0] < 0.01
    assert fluctuation[1] < fluctuation[0] / 3
