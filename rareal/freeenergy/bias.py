"""The bias of metadynamics: hills, their sum on a grid, and how one round's bias starts the next.

Every walker has a bias of its own. The next round starts all walkers with the mean of the last round's biases: what
they had in common to begin with, and the hills of all walkers, each divided by the number of walkers. The sum itself
would overfill the wells by that number, since each walker alone has filled them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rareal.errors import SamplingError
from rareal.freeenergy.grid import Axis, flat_index, shape
from rareal.records import Array
from rareal.units import KB


@dataclass(frozen=True, eq=False)
class Hills:
    """Gaussian hills in the order in which they were laid.

    Attributes
    ----------
    steps : [H] the time step from which on each acts.
    centres : [H, V] in the variables' units.
    widths : [H, V] standard deviations.
    heights : [H] eV, as laid: well-tempered ones shrink.
    """

    steps: NDArray[np.int64]
    centres: Array
    widths: Array
    heights: Array

    def __len__(self) -> int:
        return len(self.steps)

    def until(self, step: int) -> Hills:
        """Those laid up to a step."""
        return self.part(slice(0, int(np.searchsorted(self.steps, step, side="right"))))

    def part(self, rows: slice) -> Hills:
        """Some of them."""
        return Hills(self.steps[rows], self.centres[rows], self.widths[rows], self.heights[rows])


def joined(first: Hills, second: Hills) -> Hills:
    """One after the other."""
    return Hills(*(np.concatenate([getattr(hills, item.name) for hills in (first, second)]) for item in fields(Hills)))


def no_hills(variables: int) -> Hills:
    """None at all."""
    return Hills(np.empty(0, dtype=np.int64), np.empty((0, variables)), np.empty((0, variables)), np.empty(0))


def read_hills(path: Path, variables: int) -> Hills:
    """The hills in a file ``*.hills.traj`` of Colvars; a last line that is incomplete is left out.

    Raises
    ------
    SamplingError
        If the file is of another number of variables.
    """
    text = path.read_bytes()
    lines = text[: text.rfind(b"\n") + 1].split(b"\n")
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith(b"#")]
    columns = 2 * variables + 2
    if any(len(row) != columns for row in rows):
        raise SamplingError(f"{path} holds no hills of {variables} collective variables, one per line")
    table = np.array(rows, dtype=np.float64).reshape(-1, columns)
    centres, widths = table[:, 1 : variables + 1], table[:, variables + 1 : -1]
    return Hills(table[:, 0].astype(np.int64), centres, widths, table[:, -1])


@dataclass(frozen=True, eq=False)
class Bias:
    """A bias on a grid: the same numbers that Colvars holds.

    Attributes
    ----------
    axes : the grid.
    energy : [bins, ...] eV, at the middle of every bin.
    gradient : [bins, ..., V] its derivatives there, eV per unit of the variable.
    """

    axes: tuple[Axis, ...]
    energy: Array
    gradient: Array

    def at(self, values: Array) -> Array:
        """Energy [T] at points [T, V]: that of the bin they lie in, as in Colvars; nan outside of the grid."""
        place = flat_index(self.axes, values)
        energy: Array = np.where(place >= 0, self.energy.ravel()[place], np.nan)
        return energy

    def plus(self, hills: Hills) -> Bias:
        """This bias and ``hills`` on top."""
        energy, gradient = self.energy.copy(), self.gradient.copy()
        for k in range(len(hills)):
            hill = self._hill(hills, k)
            energy += hill
            for axis, along in enumerate(_separations(self.axes, hills, k)):
                gradient[..., axis] -= hill * along / hills.widths[k, axis] ** 2
        return Bias(self.axes, energy, gradient)

    def levels(self, hills: Hills, counts: Sequence[int], places: NDArray[np.int64]) -> Array:
        """[K, S] energy at bins ``places`` [S] of the flattened grid with the first ``counts`` [K] hills on top.

        ``counts`` must not fall.
        """
        energy = self.energy.ravel()[places].copy()
        found = np.empty((len(counts), len(places)))
        done = 0
        for k, count in enumerate(counts):
            for hill in range(done, count):
                energy += self._hill(hills, hill).ravel()[places]
            done = max(done, count)
            found[k] = energy
        return found

    def along(self, hills: Hills, steps: NDArray[np.int64], values: Array) -> Array:
        """[T] energy at points [T, V] at their time steps: ``hills`` are on top from their own steps on."""
        places = flat_index(self.axes, values)
        count = np.searchsorted(hills.steps, steps, side="right")
        grown, found = self.energy.copy(), np.full(len(steps), np.nan)
        for laid in range(len(hills) + 1):
            if laid:
                grown += self._hill(hills, laid - 1)
            rows = np.flatnonzero((count == laid) & (places >= 0))
            found[rows] = grown.ravel()[places[rows]]
        return found

    def _hill(self, hills: Hills, k: int) -> Array:
        product = np.array(hills.heights[k])
        for axis, along in enumerate(_separations(self.axes, hills, k)):
            product = product * np.exp(-0.5 * (along / hills.widths[k, axis]) ** 2)
        return product


def _separations(axes: Sequence[Axis], hills: Hills, k: int) -> list[Array]:
    """The distance of every bin from a hill's centre, along each axis, shaped to be multiplied over the grid."""
    apart = []
    for axis, each in enumerate(axes):
        form = [1] * len(axes)
        form[axis] = each.bins
        apart.append(each.difference(each.centres, hills.centres[k, axis]).reshape(form))
    return apart


def no_bias(axes: Sequence[Axis]) -> Bias:
    """Zero everywhere."""
    return Bias(tuple(axes), np.zeros(shape(axes)), np.zeros((*shape(axes), len(axes))))


def mean(biases: Sequence[Bias], share: float = 1.0) -> Bias:
    """The mean of the walkers' biases, times ``share``: what the next round starts with.

    Raises
    ------
    SamplingError
        If they are on different grids.
    """
    axes = biases[0].axes
    if any(each.axes != axes for each in biases):
        raise SamplingError("the walkers' biases are on different grids, so there is no mean of them")
    energy = share * np.mean([each.energy for each in biases], axis=0)
    return Bias(axes, energy, share * np.mean([each.gradient for each in biases], axis=0))


def free_energy(bias: Bias, factor: float) -> Array:
    """[bins, ...] eV: what well-tempered hills say of the free energy, lowest value zero.

    F = -γ/(γ-1) V, equation 6 of A. Barducci, G. Bussi and M. Parrinello, Phys. Rev. Lett. 2008, 100, 020603, where
    γ = 1 + ΔT/T is the bias ``factor``.
    """
    surface: Array = (bias.energy.max() - bias.energy) * factor / (factor - 1.0)
    return surface


def bias_temperature(factor: float, temperature: float) -> float:
    """ΔT of Colvars and of the paper, K."""
    return (factor - 1.0) * temperature


def tempered(height: float, energy: float, factor: float, temperature: float) -> float:
    """The height of a hill laid where the bias is ``energy`` already (equation 5 there), eV."""
    return float(height * np.exp(-energy / (KB * bias_temperature(factor, temperature))))


def state(bias: Bias, name: str, step: int = 0) -> str:
    """A state file with which Colvars starts the metadynamics ``name`` from ``bias`` at a time step."""
    gradient = bias.gradient.reshape(-1)
    return "\n".join(
        [
            "configuration {",
            f"  step {step}",
            "}",
            "",
            "metadynamics {",
            "  configuration {",
            f"    step {step}",
            f"    name {name}",
            "  }",
            "",
            *_grid_text("hills_energy", bias.axes, bias.energy.reshape(-1)),
            *_grid_text("hills_energy_gradients", bias.axes, gradient),
            "}",
            "",
        ]
    )


def _grid_text(name: str, axes: Sequence[Axis], values: Array) -> list[str]:
    def row(numbers: Sequence[float | int]) -> str:
        return " ".join(f"{number:.16g}" for number in numbers)

    return [
        name,
        "grid_parameters {",
        f"  n_colvars {len(axes)}",
        f"  lower_boundaries {row([each.low for each in axes])}",
        f"  upper_boundaries {row([each.high for each in axes])}",
        f"  widths {row([each.width for each in axes])}",
        f"  sizes {row([each.bins for each in axes])}",
        "}",
        *(" " + " ".join(f"{value:.14e}" for value in values[k : k + 3]) for k in range(0, len(values), 3)),
        "",
    ]
