"""The free energy along a collective variable from umbrella windows, by MBAR.

M. R. Shirts and J. D. Chodera, J. Chem. Phys. 2008, 129, 124105; the solver is theirs (`pymbar`). The profile is
F(x) = -kT ln p(x) of the variable itself: for a distance in space it contains -2 kT ln r, which is geometry and no
force between the atoms. Metadynamics (Colvars) gives the same F, so the two can be compared as they are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.errors import InstallationError, SamplingError
from rareal.records import Array
from rareal.units import KB

OVERLAP = 0.03
"""Share of a window's samples that its neighbour should claim. P. V. Klimovich, M. R. Shirts and D. L. Mobley,
J. Comput.-Aided Mol. Des. 2015, 29, 397: below 0.03 a free-energy difference and its error cannot be relied on."""

SEVERED = 1e-4
"""Below this overlap two windows have nothing in common: what MBAR puts between them is made up."""

CURE = "put the windows closer, or take a smaller force constant, or sample longer"

MOST = 200
"""Iterations of the solver, which needs about ten where windows overlap."""

FEWEST = 10
"""Uncorrelated samples that a window should have."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Harmonic restraints ½ k (x - c)² on one variable and what was sampled under them.

    Attributes
    ----------
    centers : [W] c, in the variable's unit, from the event's start to its end.
    constants : [W] k, eV per unit².
    samples : per window [S] values of the variable in the order of time, equilibration left out.
    temperature : K.
    period : of the variable, or None.
    """

    centers: Array
    constants: Array
    samples: Sequence[Array]
    temperature: float
    period: float | None = None

    def energies(self, values: Array) -> Array:
        """Of all restraints at the values [S], [W, S] in kT."""
        away = wrapped(values[None, :] - self.centers[:, None], self.period)
        energies: Array = 0.5 * self.constants[:, None] * away**2 / (KB * self.temperature)
        return energies


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    """A profile joined from windows.

    Attributes
    ----------
    coordinate : [K] centres of the bins, rising.
    energy : [K] eV, zero in the basin that the event starts from; nan where a bin is empty.
    error : [K] standard error of ``energy``, by bootstrap.
    barrier, barrier_error : from that basin to the top, eV. These and the energies are nan where windows do not join.
    overlap : [W, W] share of the samples of each window (row) that belong as well to each other (column).
    inefficiency : [W] time steps of the samples per uncorrelated one; nan for an empty window.
    note : empty, or what is wrong.
    """

    coordinate: Array
    energy: Array
    error: Array
    barrier: float
    barrier_error: float
    overlap: Array
    inefficiency: Array
    note: str


def wrapped(difference: Array, period: float | None) -> Array:
    """A difference of the variable, the shortest way round where it is periodic."""
    return difference if period is None else difference - period * np.round(difference / period)


def free_energy(windows: Windows, bin_width: float, rng: np.random.Generator, resamples: int = 50) -> FreeEnergy:
    """Join the windows.

    Parameters
    ----------
    windows : restraints and samples.
    bin_width : of the profile, in the variable's unit.
    rng : of the bootstrap, which draws anew within each window.
    resamples : draws of the bootstrap.

    Raises
    ------
    SamplingError
        If no window has samples.
    InstallationError
        If pymbar is missing.
    """
    notes = []
    kept = [k for k, values in enumerate(windows.samples) if len(values) > 1]
    if not kept:
        raise SamplingError("no window of the umbrella sampling has samples; see why the walkers ended early")
    if len(kept) < len(windows.samples):
        empty = [k + 1 for k in range(len(windows.samples)) if k not in kept]
        notes.append(f"no samples in window {_listed(empty)}")
    thinned, inefficiency = [], np.full(len(windows.samples), math.nan)
    for k in kept:
        inefficiency[k] = _inefficiency(windows, k)
        rows = np.arange(0, len(windows.samples[k]), inefficiency[k]).astype(np.int64)
        thinned.append(np.asarray(windows.samples[k], dtype=np.float64)[rows])
    short = [k + 1 for k, values in zip(kept, thinned, strict=True) if len(values) < FEWEST]
    if short:
        notes.append(f"fewer than {FEWEST} uncorrelated samples in window {_listed(short)}: sample longer")
    part = replace(windows, centers=windows.centers[kept], constants=windows.constants[kept], samples=thinned)
    edges = _edges(part, bin_width)
    joined = np.full((len(windows.samples),) * 2, math.nan)
    gaps, severed = _apart(part), True
    if not gaps:  # else a solver would look for a very long time for what ties the windows together
        energies, overlap = _solve(part)
        joined[np.ix_(kept, kept)] = overlap
        gaps, severed = _gaps(part, overlap)
    if gaps:
        notes += [*gaps, CURE]
    if severed:
        none = np.full(len(edges) - 1, math.nan)
        return FreeEnergy(_middles(edges), none, none, math.nan, math.nan, joined, inefficiency, "; ".join(notes))
    profile = _profile(part, energies, edges)
    again = np.array([_resampled(part, energies, edges, rng) for _ in range(resamples)])
    bottom, top, hindered = _ends(windows, profile, again)
    error = np.sqrt(_variance(again - again[:, [bottom]]))
    holes = edges[:-1][~np.isfinite(profile)]
    if len(holes):
        notes.append(f"nothing was sampled at {holes[0]:.4g}" + (" and elsewhere" if len(holes) > 1 else ""))
    drift = _drift(replace(part, samples=[windows.samples[k] for k in kept]), edges, top, bottom)
    if abs(drift) > 3 * 2 * error[top]:  # each half has twice the variance, their difference four times
        notes.append(
            f"the second half of the samples gives a barrier {drift:+.3f} eV away from the first: sample longer"
        )
    if not hindered:
        notes.append("no basin behind the top: the barrier is the rise to the highest point of the profile")
    return FreeEnergy(
        coordinate=_middles(edges),
        energy=profile - profile[bottom],
        error=error,
        barrier=float(profile[top] - profile[bottom]),
        barrier_error=float(error[top]),
        overlap=joined,
        inefficiency=inefficiency,
        note="; ".join(notes),
    )


def _ends(windows: Windows, profile: Array, again: Array) -> tuple[int, int, bool]:
    """`summit` on the way from the first window to the last; a basin is deeper than the noise, and than kT/2."""
    noise = 2 * float(np.nanmedian(np.sqrt(_variance(again - again[:, [np.nanargmin(profile)]]))))
    least = max(noise, 0.5 * KB * windows.temperature)
    if windows.centers[-1] >= windows.centers[0]:
        return summit(profile, least)
    bottom, top, hindered = summit(profile[::-1], least)
    return len(profile) - 1 - bottom, len(profile) - 1 - top, hindered


def summit(profile: Array, least: float) -> tuple[int, int, bool]:
    """Bottom of the first basin and top of the barrier behind it, and whether there is another basin behind the top.

    A basin is at least ``least`` deep; what is less is noise.

    The top is the point that lies highest above the lower of the lowest points before and behind it, so walls at both
    ends of the profile are none. Without a basin behind any point it is the largest rise above what lies before.
    """
    filled = np.where(np.isfinite(profile), profile, -np.inf)  # an empty bin is no top, ...
    low = np.where(np.isfinite(profile), profile, np.inf)  # ... and no bottom
    before = np.minimum.accumulate(low)
    behind = np.minimum.accumulate(low[::-1])[::-1]
    rise, fall = filled - before, filled - behind
    heights = np.minimum(rise, fall)
    hindered = bool(heights.max() > least)
    top = int(np.argmax(heights if hindered else rise))
    return int(np.argmin(low[: top + 1])), top, hindered


def pymbar() -> Any:
    """The package, without its advice about an accelerator.

    Raises
    ------
    InstallationError
        If it is not there.
    """
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    try:
        import pymbar as package
        from pymbar import timeseries  # noqa: F401
    except ImportError as error:
        raise InstallationError(f"umbrella sampling needs pymbar: pip install 'pymbar>=4' ({error})") from error
    return package


def _inefficiency(windows: Windows, k: int) -> float:
    """Samples per uncorrelated one, 1 + 2 τ; all of them for a variable that does not move."""
    away = wrapped(np.asarray(windows.samples[k]) - windows.centers[k], windows.period)
    if np.ptp(away) < 1e-12:
        return float(len(away))
    return float(pymbar().timeseries.statistical_inefficiency(away))


def _solve(windows: Windows, guess: Array | None = None) -> tuple[Array, Array]:
    """Free energies of the windows [W], kT, and their overlap [W, W]."""
    from scipy.special import logsumexp

    values = np.concatenate(list(windows.samples))
    counts = np.array([len(samples) for samples in windows.samples])
    reduced = windows.energies(values)
    solver = pymbar().MBAR(reduced, counts, initial_f_k=guess, maximum_iterations=MOST)
    energies = np.asarray(solver.f_k, dtype=np.float64)
    log = energies[:, None] - reduced
    weights = np.exp(log - logsumexp(log, axis=0, b=counts[:, None]))
    return energies, (weights @ weights.T) * counts


def _profile(windows: Windows, energies: Array, edges: Array) -> Array:
    """Free energy of the bins, eV: equation 9 of Shirts and Chodera for the state without restraint."""
    from scipy.special import logsumexp

    values = np.concatenate(list(windows.samples))
    counts = np.array([len(samples) for samples in windows.samples])
    log = -logsumexp(energies[:, None] - windows.energies(values), axis=0, b=counts[:, None])
    which = np.digitize(_unrolled(windows, values), edges) - 1
    sums = [logsumexp(log[which == b]) if np.any(which == b) else -math.inf for b in range(len(edges) - 1)]
    found = np.array(sums)
    found[~np.isfinite(found)] = math.nan
    result: Array = -KB * windows.temperature * found
    return result


def _resampled(windows: Windows, energies: Array, edges: Array, rng: np.random.Generator) -> Array:
    drawn = [rng.choice(samples, len(samples)) for samples in windows.samples]
    again = replace(windows, samples=drawn)
    return _profile(again, _solve(again, energies)[0], edges)


def _drift(windows: Windows, edges: Array, top: int, bottom: int) -> float:
    """Barrier of the later halves of all windows less that of the earlier ones, eV; 0 where a half lacks samples."""
    heights = []
    for late in (False, True):
        halves = [values[len(values) // 2 :] if late else values[: len(values) // 2] for values in windows.samples]
        if min(map(len, halves)) < FEWEST:
            return 0.0
        half = replace(windows, samples=halves)
        profile = _profile(half, _solve(half)[0], edges)
        heights.append(profile[top] - profile[bottom])
    return float(np.nan_to_num(heights[1] - heights[0]))


def _variance(draws: Array) -> Array:
    """Over the draws [B, K]; nan for a bin that most of them miss."""
    known = np.isfinite(draws)
    counts = known.sum(axis=0)
    filled = np.where(known, draws, 0.0)
    mean = filled.sum(axis=0) / np.maximum(counts, 1)
    total = (np.where(known, draws - mean, 0.0) ** 2).sum(axis=0)
    variance: Array = np.where(counts > max(1, len(draws) // 2), total / np.maximum(counts - 1, 1), math.nan)
    return variance


def _unrolled(windows: Windows, values: Array) -> Array:
    """Values within half a period of the middle of the windows; as they are where there is no period."""
    middle = 0.5 * (windows.centers[0] + windows.centers[-1])
    unrolled: Array = middle + wrapped(values - middle, windows.period)
    return unrolled


def _edges(windows: Windows, width: float) -> Array:
    """Edges of bins that cover the windows, outside of which nothing is sampled evenly."""
    low, high = float(windows.centers.min()), float(windows.centers.max())
    count = max(2, round((high - low) / width))
    return np.linspace(low, high, count + 1)


def _middles(edges: Array) -> Array:
    middles: Array = 0.5 * (edges[1:] + edges[:-1])
    return middles


def _apart(windows: Windows) -> list[str]:
    """Neighbouring windows that have nothing in common, by the Bhattacharyya coefficient of two normal distributions.

    Eight standard deviations between them are 3e-4.
    """
    order: NDArray[np.int64] = np.argsort(windows.centers)
    means, widths = [], []
    for k in order:
        away = wrapped(windows.samples[k] - windows.centers[k], windows.period)
        means.append(float(windows.centers[k] + away.mean()))
        # a few samples of a stiff window may lie closer together than they would in the end
        widths.append(max(float(away.std()), 0.2 * math.sqrt(KB * windows.temperature / windows.constants[k])))
    notes = []
    for k in range(len(order) - 1):
        square = widths[k] ** 2 + widths[k + 1] ** 2
        common = math.sqrt(2 * widths[k] * widths[k + 1] / square) * math.exp(
            -((means[k + 1] - means[k]) ** 2) / (4 * square)
        )
        if common < 3e-4:
            left, right = windows.centers[order[k]], windows.centers[order[k + 1]]
            notes.append(f"windows at {left:.4g} and {right:.4g} do not overlap")
    return notes


def _gaps(windows: Windows, overlap: Array) -> tuple[list[str], bool]:
    """Where neighbouring windows do not overlap, and whether somewhere not at all."""
    order: NDArray[np.int64] = np.argsort(windows.centers)
    notes, worst = [], 1.0
    for left, right in zip(order[:-1], order[1:], strict=True):
        shared = float(min(overlap[left, right], overlap[right, left]))
        worst = min(worst, shared)
        if shared < OVERLAP:
            places = f"{windows.centers[left]:.4g} and {windows.centers[right]:.4g}"
            notes.append(f"windows at {places} overlap by {shared:.2g}, less than {OVERLAP}")
    return notes, worst < SEVERED


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
