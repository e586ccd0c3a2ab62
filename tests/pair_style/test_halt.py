"""The end of a run whose members disagree: the step, all processes alike, and the last good frame."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from toys import ManyBody, Undefined, evaluate, save_committee

from rareal.testing.lammps import Lammps

HOT = """
velocity all create 3000 99 mom yes
timestep 0.0005
fix integrate all nve
dump frames all custom 1 frames.dump id type xu yu zu
dump_modify frames sort id format float %20.15g
"""

WATCH = """
compute spread all pair mlensemble
variable energy equal c_spread[1]
variable force equal c_spread[2]
fix log all print 1 "std $(step) ${energy} ${force}" screen yes
"""

RUN = """
run 300
print "stopped $(step)"
run 100
print "then $(step)"
timer timeout off
run 1
print "again $(step)"
"""


def deviations(lammps: Lammps, atoms: Atoms, model: Path) -> np.ndarray:
    """Step, energy and force deviation of the undisturbed run, from Python."""
    lammps.run(lammps.script(atoms, model) + HOT + "run 60\n")
    image, rows = atoms.copy(), []
    for step, places in enumerate(positions(lammps.folder / "frames.dump", len(atoms))):
        image.positions = places
        expected = evaluate(model, image)
        rows.append((step, expected.energy_std, expected.force_std.max()))
    return np.array(rows)


def positions(path: Path, count: int) -> list[np.ndarray]:
    lines = path.read_text().splitlines()
    starts = [k for k, line in enumerate(lines) if line == "ITEM: TIMESTEP"]
    return [np.array([line.split()[2:5] for line in lines[k + 9 : k + 9 + count]], dtype=float) for k in starts]


def first_above(values: np.ndarray, threshold: float, patience: int) -> int:
    """The step at which the last ``patience`` values were above the threshold."""
    streak = 0
    for step, value in enumerate(values):
        streak = streak + 1 if value > threshold else 0
        if streak == patience:
            return step
    raise AssertionError("never above")


@pytest.mark.parametrize(("ranks", "newton"), [(1, "on"), (2, "off"), (4, "on")])
@pytest.mark.parametrize("patience", [1, 4])
@pytest.mark.parametrize("quantity", ["energy", "force"])
def test_halts_in_the_offending_step(
    quantity: str,
    patience: int,
    ranks: int,
    newton: str,
    lammps: Lammps,
    models: Callable[[str], Path],
    cluster: Atoms,
) -> None:
    table = deviations(lammps, cluster, models("float64"))
    values = table[:, 1 if quantity == "energy" else 2]
    threshold = float(np.sort(values)[-12]) + 1e-6  # eleven steps are above
    step = first_above(values, threshold, patience)
    assert 0 < step < 60
    good = max(k for k in range(step) if values[k] <= threshold)
    assert patience == 1 or step - good >= patience

    style = f"mlensemble halt {quantity} {threshold:.12g} patience {patience} halt_file good.dump"
    script = lammps.script(cluster, models("float64"), style=style, newton=newton)
    output = lammps.run(script + HOT + RUN, ranks)
    assert f"stopped {step}\n" in output
    assert f"then {step}\n" in output  # runs that follow end at once, until the timer is reset
    assert f"again {step + 1}\n" in output
    message = (
        rf"halts the run at step {step}: {quantity} standard deviation (\S+) is above (\S+)( for {patience} steps)?"
    )
    found = re.search(message + rf"; the last good frame, of step {good}, is in 'good.dump'", output)
    assert found, output
    assert float(found[1]) == pytest.approx(values[step], rel=1e-6)
    assert float(found[2]) == pytest.approx(threshold, rel=1e-6)

    frame = ase.io.read(lammps.folder / "good.dump", format="lammps-dump-text")
    assert frame.get_chemical_symbols() == cluster.get_chemical_symbols()
    np.testing.assert_array_equal(frame.get_cell().array, cluster.get_cell().array)
    expected = positions(lammps.folder / "frames.dump", len(cluster))[good]
    np.testing.assert_allclose(frame.positions, expected, rtol=0, atol=1e-12)
    assert int((lammps.folder / "good.dump").read_text().split()[2]) == good


def test_frame_of_a_crystal_goes_back_into_lammps(lammps: Lammps, models: Callable[[str], Path], tilted: Atoms) -> None:
    """Triclinic, wrapped atoms, ids with gaps: read_dump restores the frame, and with it the deviation."""
    ids = [3 * k + 2 for k in range(len(tilted))][::-1]
    std = evaluate(models("float64"), tilted).force_std.max()
    style = f"mlensemble halt force {1.02 * std:.12g} halt_file good.dump"
    script = lammps.script(tilted, models("float64"), ids=ids, style=style)
    hot = HOT.replace("mom yes", "mom yes loop geom")  # the other loops want ids without gaps
    output = lammps.run(script + WATCH + hot + "run 300\n", ranks=2)
    steps = np.array([line.split()[1:] for line in output.splitlines() if line.startswith("std ")], dtype=float)
    good = int((lammps.folder / "good.dump").read_text().split()[2])
    last = int(re.search(r"halts the run at step (\d+)", output)[1])
    assert good == last - 1
    assert good > 0
    back = f"read_dump good.dump {good} x y z wrapped no box yes\nrun 0\n" + 'print "back $(c_spread[2]:%20.15g)"\n'
    script = lammps.script(tilted, models("float64"), ids=ids)
    output = lammps.run(script + WATCH + back, ranks=2)
    value = float(output.split("back ")[-1].split()[0])
    assert value == pytest.approx(steps[steps[:, 0] == good][0, 2], rel=1e-5)


def test_first_frame_is_bad(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    style = "mlensemble halt energy 1e-6 halt_file good.dump"
    output = lammps.run(lammps.script(cluster, models("float64"), style=style) + HOT + RUN, ranks=2)
    assert "halts the run at step 0" in output
    assert "there was no good frame to keep" in output
    assert "stopped 0\n" in output
    assert not (lammps.folder / "good.dump").exists()


@pytest.mark.parametrize("quantity", ["energy", "force"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_value_that_is_no_number(quantity: str, ranks: int, lammps: Lammps, cluster: Atoms) -> None:
    path = save_committee(lammps.folder / "nan.pt", Undefined(ManyBody(3, seed=1, spread=0.1)))
    script = lammps.script(cluster, path, style=f"mlensemble halt {quantity} 1e6")
    output = lammps.run(script + "fix integrate all nve\nrun 5\n" + 'print "stopped $(step)"\n', ranks)
    assert f"halts the run at step 0: {quantity} standard deviation" in output
    assert "stopped 0\n" in output


def test_patience_goes_on_over_runs(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    """The step that two runs share counts once."""
    style = "mlensemble halt energy 1e-6 patience 6"
    output = lammps.run(lammps.script(cluster, models("float64"), style=style) + HOT + "run 2\nrun 2\nrun 10\n")
    assert "halts the run at step 5: " in output
    assert " for 6 steps" in output


def test_calm_run_is_left_alone(lammps: Lammps, models: Callable[[str], Path], cluster: Atoms) -> None:
    style = "mlensemble halt energy 1e3 halt force 1e3 halt_file good.dump"
    output = lammps.run(
        lammps.script(cluster, models("float64"), style=style) + HOT + "run 20\n" + 'print "at $(step)"'
    )
    assert "at 20\n" in output
    assert "halts" not in output
    assert not (lammps.folder / "good.dump").exists()
