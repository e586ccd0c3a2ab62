"""What the work of pulls says, and what it does not.

The work of a pull is an upper bound, on average, of the free energy it takes: some of it is lost as heat, and the
maximum on the way contains the energy of the spring besides. It is reported as work. What is lost shows in three ways:

- Pulls there and back lose (W_there + W_back)/2 on average, W_back being negative where energy is given back.
- Close to equilibrium the loss is proportional to the velocity v: W(v) = W(0) + a v (linear response; J. Hermans,
  J. Phys. Chem. 1991, 95, 9029). Pulls at several velocities are extrapolated to v = 0 by a straight line. A bond that
  breaks at random does so at a force that goes with ln v (G. I. Bell, Science 1978, 200, 618; E. Evans, K. Ritchie,
  Biophys. J. 1997, 72, 1541), and then a line is wrong; how badly it fits is said.
- If both ways begin in equilibrium, at a temperature that a canonical thermostat holds, G. E. Crooks's theorem (Phys.
  Rev. E 1999, 60, 2721) holds, and C. H. Bennett's ratio (J. Comput. Phys. 1976, 22, 245) gives the difference of free
  energy between the ends of the way; C. Jarzynski's equality (Phys. Rev. Lett. 1997, 78, 2690) needs the way there
  alone. Both hang on the rarest pulls as soon as more than a few kT are lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rareal.records import Array, Profile, Trajectory
from rareal.units import KB, KCAL_MOL

TRUSTED_LOSS = 3.0
"""kT that may be lost before estimates of free energies from a few pulls count as unreliable."""


@dataclass(frozen=True, eq=False)
class Ways:
    """The work of one pull.

    Attributes
    ----------
    trajectory : of the pull, to and fro.
    velocity : of the spring, without its sign, units of the variable per fs; 0 for a constant force.
    turn : step at which the way there ends.
    back : step at which the way back begins; None where there is none.
    temperature : K.
    canonical : whether the thermostat gives a canonical ensemble.
    """

    trajectory: Trajectory
    velocity: float
    turn: int
    back: int | None
    temperature: float
    canonical: bool

    @property
    def there(self) -> Trajectory:
        """The way there alone."""
        return self.trajectory.rows(self.trajectory.steps <= self.turn)

    @property
    def whole(self) -> bool:
        """Whether the pull went to its end."""
        return len(self.there) > 0 and not self.trajectory.note

    @property
    def works(self) -> tuple[float, float]:
        """Work of the whole way there and of the whole way back, eV; nan for a way there is not."""
        there = float(self.there.work[-1])
        return there, math.nan if self.back is None else float(self.trajectory.work[-1]) - there


@dataclass(frozen=True)
class Work:
    """A work over several pulls, eV.

    Attributes
    ----------
    values : one per pull.
    mean : their mean; nan for none.
    error : standard error of the mean; nan for fewer than two.
    """

    values: tuple[float, ...]
    mean: float
    error: float


def statistics(values: Sequence[float]) -> Work:
    """Mean and standard error."""
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    error = float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Work(tuple(values), mean, error)


def largest_work(trajectories: Sequence[Trajectory]) -> Work:
    """W_max of complete pulls; those that were cut short (``note``) have no maximum and are left out."""
    return statistics([float(t.work.max()) for t in trajectories if len(t) and not t.note])


def work_profile(pulls: Sequence[Ways]) -> Profile:
    """The work along the slowest pulls, its maximum at the velocity or extrapolated to none, and what is lost.

    The profile's error is the standard error over pulls of the same velocity.
    """
    whole = [pull for pull in pulls if pull.whole]
    speeds = sorted({pull.velocity for pull in whole})
    at = {v: largest_work([p.there for p in whole if p.velocity == v]) for v in speeds}
    notes: list[str] = []
    barrier, error = (at[speeds[0]].mean, at[speeds[0]].error) if speeds else (math.nan, math.nan)
    if len(speeds) > 1:
        barrier, error, text = extrapolate(speeds, [at[v] for v in speeds])
        notes.append(text)
    if any(pull.back is not None for pull in whole):
        notes += [_to_and_fro([p for p in whole if p.velocity == v], len(speeds) > 1) for v in speeds]
    chosen = [p.there for p in whole if p.velocity == speeds[0]] or [max((p.there for p in pulls), key=len)]
    length = min(map(len, chosen))
    works = np.array([t.work[:length] for t in chosen])
    spread = works.std(axis=0, ddof=1) / math.sqrt(len(works)) if len(works) > 1 else np.full(length, math.nan)
    coordinate = np.mean([t.cv[:length] for t in chosen], axis=0)
    return Profile("work", coordinate, works.mean(axis=0), spread, barrier, error, " ".join(notes))


def extrapolate(speeds: Sequence[float], works: Sequence[Work]) -> tuple[float, float, str]:
    """Work at velocity 0 by a straight line, its standard error, and a sentence about it.

    Points are weighted by their errors where all have one. Otherwise the error is that of the scatter about the line,
    which two points do not have.
    """
    x, y = np.array(speeds), np.array([work.mean for work in works])
    errors = np.array([work.error for work in works])
    known = bool(np.all(errors > 0))
    weights = 1.0 / errors if known else np.ones(len(x))
    design = np.stack([np.ones(len(x)), x], axis=1) * weights[:, None]
    covariance = np.linalg.inv(design.T @ design)
    intercept, slope = covariance @ design.T @ (y * weights)
    scatter = float(np.sum(((y - intercept - slope * x) * weights) ** 2))
    free = len(x) - 2
    error = math.sqrt(covariance[0, 0])
    text = (
        f"W_max at velocity 0 is a straight line's through {len(x)} velocities, "
        + ", ".join(f"{work.mean:.3f} eV at {v:.3g}/fs" for v, work in zip(speeds, works, strict=True))
        + "."
    )
    if not known:
        error = error * math.sqrt(scatter / free) if free else math.nan
    elif free and scatter / free > 4.0:
        error *= math.sqrt(scatter / free)
        text += f" The line does not fit (chi-squared per degree of freedom {scatter / free:.1f}): do not rely on it."
    return float(intercept), error, text


def _to_and_fro(pulls: Sequence[Ways], several: bool) -> str:
    """A sentence on what is lost at one velocity."""
    there, back = (np.array(values) for values in zip(*(pull.works for pull in pulls), strict=True))
    lost = statistics(list((there + back) / 2))
    thermal = KB * pulls[0].temperature
    at = f" at {pulls[0].velocity:.3g}/fs" if several else ""
    text = (
        f"Pulled there and back{at}: work {_said(statistics(list(there)))} there and "
        f"{_said(statistics(list(back)))} back; "
        f"{_said(lost)} ({lost.mean / KCAL_MOL:.1f} kcal/mol, {lost.mean / thermal:.1f} kT) of it lost each way."
    )
    if not pulls[0].canonical:
        return f"{text} No equilibrium estimate: the thermostat is not canonical."
    if len(pulls) < 2:
        return f"{text} No equilibrium estimate from one pull."
    difference, error = bennett(there, back, thermal)
    text += (
        f" Free energy between the ends of the way: {difference:.3f} ± {error:.3f} eV by Bennett's ratio, "
        f"{jarzynski(there, thermal):.3f} by Jarzynski's equality"
    )
    if lost.mean > TRUSTED_LOSS * thermal:
        return f"{text}; too much is lost for {len(pulls)} pulls to be believed: pull slower."
    return f"{text}."


def _said(work: Work) -> str:
    return f"{work.mean:.3f} ± {work.error:.3f} eV" if math.isfinite(work.error) else f"{work.mean:.3f} eV"


def jarzynski(works: Array, thermal: float) -> float:
    """-kT ln <exp(-W/kT)> of works [K] eV at kT = ``thermal`` eV."""
    from scipy.special import logsumexp

    return float(-thermal * (logsumexp(-works / thermal) - math.log(len(works))))


def bennett(there: Array, back: Array, thermal: float) -> tuple[float, float]:
    """Difference of free energy between the ends, eV, and its standard error.

    Parameters
    ----------
    there, back : [K] works of both ways, the same pull at the same place, eV; a way back that gives energy is negative.
    thermal : kT, eV.

    Notes
    -----
    The maximum-likelihood form (M. R. Shirts, E. Bair, G. Hooker, V. S. Pande, Phys. Rev. Lett. 2003, 91, 140601): as
    many pulls go there as back. The error is the jackknife's over pulls.
    """
    from scipy.optimize import brentq  # scipy takes half a second to import: nobody waits for it who only validates
    from scipy.special import expit

    def solve(forth: Array, reverse: Array) -> float:
        def excess(difference: float) -> float:
            return float(
                np.sum(expit(-(forth - difference) / thermal)) - np.sum(expit(-(reverse + difference) / thermal))
            )

        low, high = min(forth.min(), -reverse.max()), max(forth.max(), -reverse.min())
        margin = 10 * thermal + 1e-9
        return float(brentq(excess, low - margin, high + margin))

    count = len(there)
    rest = [solve(np.delete(there, k), np.delete(back, k)) for k in range(count)]
    error = math.sqrt((count - 1) * float(np.var(rest)))
    return solve(there, back), error
