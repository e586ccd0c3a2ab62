"""Quasi-static rupture (CoGEF): the ends pulled apart step by step, the rest relaxed at every step.

M. K. Beyer, J. Chem. Phys. 2000, 112, 7307. Where several bonds are equivalent, as the two terminal ones of an alkane,
all stretch alike and a relaxation started from a symmetric structure stays symmetric beyond the point where that is
a minimum: it then balances on a ridge, and how far depends on the optimiser. So a rupture is located by the barrier
that still keeps the molecule together at a given distance, from the intact to the broken minimum:

- the *rupture* is where that barrier has sunk to ``residual_barrier``, which is how bonds go at any temperature;
- the *limit of stability* is where it vanishes, and with it the curvature of the softest mode. A curvature wrong by
  0.02 eV/Å² moves this limit by 0.02 Å and the energy there by 2 kcal/mol, for energy follows distance with the slope
  F_max: it is as ill-conditioned as W_max, and is given beside the rupture, not instead of it;
- the *crossing* is where intact and broken molecule have the same energy.

In a short or stiff molecule nothing snaps: the bond gives way gradually, one branch leads from the intact to the broken
molecule, and there is neither a barrier nor a limit of stability. The rupture is then where the force has sunk to
``residual_force`` of its maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from rareal.bonds import Pairs, bond_class, bonds, stretches
from rareal.branches import force_sunk_to, hermite, largest, meeting_point, sunk_to
from rareal.files import write_npz
from rareal.protocols import EnergyForces
from rareal.records import Array, Frame
from rareal.relaxation import RelaxationError, Stretched, relax, softest_mode
from rareal.schema import Section
from rareal.units import KCAL_MOL, Energy, Force, Length

BROKEN = 1.7
"""Times the sum of the covalent radii: a relaxed bond that long is gone."""

GIVEN_WAY = 1.4
"""The same of a bond that hardly pulls back any more."""

SNAP = 0.3
"""The same that a bond lengthens by at once when it snaps; in a step of a bond that gives way gradually it is less."""

HELD = 0.5
"""Share of the largest force that a bond must still bear to snap: beyond, only what is left of the molecule turns."""

GAIN = 0.1
"""eV beyond the work of the pull, by which no relaxed molecule gains: it has been lost among atoms that overlap."""

BEYOND_CROSSING = 3
"""Steps by which the broken branch is followed to where it costs more than the intact one: barriers end there too."""


class Config(Section):
    """How finely the molecule is pulled."""

    step: Length = Field(0.05, gt=0, description="step of the distance, Å")
    fmax: Force = Field(0.002, gt=0, description="largest force on a relaxed atom, eV/Å")
    resolution: Length = Field(0.005, gt=0, description="the distance of rupture is bisected to this, Å")
    residual_barrier: Energy = Field(
        KCAL_MOL, ge=0, description="the bond counts as broken when the barrier left is this low, eV; 1 kcal/mol"
    )
    residual_force: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="a bond that gives way gradually, without snapping, counts as broken where the force has sunk to "
        "this share of its maximum",
    )
    max_calls: int = Field(8000, ge=1, description="evaluations of the potential after which the pull is given up")
    max_stretch: Length = Field(4.0, gt=0, description="give up when the ends are this much farther apart, Å")


@dataclass(frozen=True, eq=False)
class Rupture:
    """A quasi-static pull. Energies are relative to the relaxed start, eV; distances Å; forces eV/Å.

    Attributes
    ----------
    distances, energies, forces : [S] the intact molecule's branch, the last within ``resolution`` of the rupture.
    positions : [S, N, 3] its structures.
    break_distance : where the barrier left has sunk to the residual one, or the force of a bond that gives way
        gradually to the residual one; nan if that was not reached.
    energy_max : energy of the intact molecule there (E_max).
    stability_distance, stability_energy : where the intact molecule loses its stability, and its energy there; nan if
        it gives way gradually.
    force_max : largest force up to the rupture (F_max).
    barrier_distances, barriers : [A] barriers left, eV, at some distances.
    saddle_positions : [7 A, N, 3] the paths over these barriers, from intact to broken.
    broken_bond : the bond that goes, atoms counted from 1; (0, 0) if none.
    broken_class : name shared by equivalent bonds.
    crossing_distance, crossing_energy : where intact and broken molecule have the same energy; nan if not found.
    broken_distances, broken_energies, broken_positions : [B] and [B, N, 3] the relaxed broken molecule.
    fall_positions : [F, N, 3] from the intact molecule that has lost its stability to the broken one, at one distance.
    start_energy : energy of the relaxed start, eV.
    calls : evaluations of the potential.
    note : empty, or why the pull ended without a rupture.
    """

    distances: Array
    energies: Array
    forces: Array
    positions: Array
    break_distance: float
    energy_max: float
    stability_distance: float
    stability_energy: float
    force_max: float
    broken_bond: tuple[int, int]
    broken_class: str
    crossing_distance: float
    crossing_energy: float
    barrier_distances: Array
    barriers: Array
    saddle_positions: Array
    broken_distances: Array
    broken_energies: Array
    broken_positions: Array
    fall_positions: Array
    start_energy: float
    calls: int
    note: str = ""

    @property
    def broke(self) -> bool:
        """Whether a rupture was found."""
        return not self.note

    @property
    def gradual(self) -> bool:
        """Whether the bond gave way without snapping."""
        return self.broke and math.isnan(self.stability_distance)

    def energy_at(self, distance: float) -> float:
        """Energy of the intact branch at ``distance`` (cubic through energies and forces), eV."""
        return hermite(distance, self.distances, self.energies, self.forces)


@dataclass(frozen=True)
class RuptureError:
    """A committee's rupture against the engine's.

    Attributes
    ----------
    energy : difference of the energies at the smaller of the two rupture distances, eV.
    energy_max : difference of the energies each at its own rupture distance, eV.
    force_percent : difference of F_max, %.
    distance : difference of the rupture distances, Å.
    crossing_energy : difference of the energies at the crossings of intact and broken branch, eV.
    same_bond : whether the bonds that go are equivalent.
    """

    energy: float
    energy_max: float
    force_percent: float
    distance: float
    crossing_energy: float
    same_bond: bool


def compare(committee: Rupture, engine: Rupture) -> RuptureError:
    """Committee minus engine; nan where one of them did not break."""
    common = min(committee.break_distance, engine.break_distance)
    both = committee.broke and engine.broke
    return RuptureError(
        energy=committee.energy_at(common) - engine.energy_at(common) if both else math.nan,
        energy_max=committee.energy_max - engine.energy_max,
        force_percent=100.0 * (committee.force_max / engine.force_max - 1.0) if both else math.nan,
        distance=committee.break_distance - engine.break_distance,
        crossing_energy=committee.crossing_energy - engine.crossing_energy,
        same_bond=both and committee.broken_class == engine.broken_class,
    )


def rupture(potential: EnergyForces, start: Frame, ends: tuple[int, int], config: Config) -> Rupture:
    """Pull ``start`` apart at its two ``ends`` (atoms counted from 0) until a bond breaks.

    Whatever a poor surface does, a record comes back; its ``note`` says what went wrong.

    Raises
    ------
    LabelError
        If the potential is an engine that fails.
    """
    return _Pull(potential, start, ends, config).run()


@dataclass
class _State:
    """A relaxed structure of the intact molecule."""

    distance: float
    positions: Array
    energy: float
    force: float
    curvature: float = math.nan
    mode: Array | None = field(default=None, repr=False)


class _Pull:
    """The pull in progress."""

    def __init__(self, potential: EnergyForces, start: Frame, ends: tuple[int, int], config: Config) -> None:
        self.config = config
        self.start = start
        self.system = Stretched(potential, start, ends, config.max_calls)
        self.bonded: Pairs = bonds(start.numbers, start.positions)
        self.hessian = np.empty((0, 0))
        self.states: list[_State] = []
        self.fall: list[Array] = []
        self.barriers: dict[float, tuple[float, Array]] = {}

    def run(self) -> Rupture:
        try:
            self.hessian = self.system.hessian(self.start.positions)
            distance = float(np.linalg.norm(np.subtract(*self.start.positions[list(self.system.ends)])))
            self.states.append(self._relaxed(self.start.positions, distance))
            broken = self._climb()
        except RelaxationError as error:
            return self._record(note=str(error))
        if broken is None and not self._given_way():
            return self._record(note=f"no bond broke within {self.config.max_stretch:g} Å")
        try:
            return self._let_go() if broken is None else self._conclude(broken)
        except RelaxationError as error:
            return self._record(note=str(error))

    def _climb(self) -> Array | None:
        """Step until a bond has given way, or the molecule has fallen apart: then the structure that it fell to."""
        while self.states[-1].distance < self.states[0].distance + self.config.max_stretch - 1e-9:
            reached = self._next(self.states[-1].distance + self.config.step)
            if not isinstance(reached, _State):
                return reached
            self.states.append(reached)
            if self._given_way():
                return None
            if self._suspicious() and (broken := self._fall(reached)) is not None:
                return broken
        return self._fall(self.states[-1])

    def _given_way(self) -> bool:
        """Whether a long bond hardly pulls back any more."""
        peak, last = self._peak(), self.states[-1]
        # a surface that runs downhill from the start holds nothing that could give way
        sunk = peak is not self.states[0] and last.force <= self.config.residual_force * peak.force
        return peak.force > 0 and sunk and self._stretched_bond(last.positions, GIVEN_WAY) is not None

    def _suspicious(self) -> bool:
        """Whether a bond may be about to snap: every third step from the largest force on."""
        since = len(self.states) - 1 - int(np.argmax([state.force for state in self.states]))
        return since > 0 and since % 3 == 0

    def _next(self, distance: float) -> _State | Array:
        """Relax at ``distance``, extrapolating from the states before; a broken structure if it falls to one."""
        below = [state for state in self.states if state.distance < distance][-2:]
        guess = below[-1].positions
        if len(below) == 2:
            share = (distance - below[1].distance) / (below[1].distance - below[0].distance)
            guess = guess + min(share, 1.0) * (guess - below[0].positions)
        trail = [self.system.stretched(guess, distance)]
        state = self._relaxed(trail[0], distance, trail)
        if state.energy - below[-1].energy > max(below[-1].force, state.force) * (distance - below[-1].distance) + GAIN:
            raise RelaxationError(f"the molecule was lost at {distance:.2f} Å; the surface is too rough")
        if self._snapped(below[-1], state.positions):
            self.fall = trail
            return state.positions
        return state

    def _relaxed(self, positions: Array, distance: float, trail: list[Array] | None = None) -> _State:
        trail = [positions] if trail is None else trail
        try:
            relaxed = relax(self.system, positions, self.hessian, self.config.fmax, trail=trail)
        except RelaxationError:
            # on a flat surface the Hessian may have gone astray
            hessian = self.system.hessian(trail[-1])
            relaxed = relax(self.system, trail[-1], hessian, self.config.fmax, trail=trail)
        positions, energy, forces, self.hessian = relaxed
        return _State(distance, positions, energy, self.system.pull(positions, forces))

    def _soften(self, state: _State) -> _State:
        """Fill in the state's lowest curvature."""
        if state.mode is None:
            state.curvature, state.mode = softest_mode(self.system, state.positions, self.hessian)
        return state

    def _fall(self, state: _State) -> Array | None:
        """Let go along the softest mode of a state that is no minimum; a broken structure if it leads to one."""
        self.hessian = self.system.hessian(state.positions)
        mode = self._soften(state).mode
        if state.curvature >= 0 or mode is None:
            return None
        mode = mode / np.abs(mode).max() * np.sign(mode[np.argmax(np.abs(mode))])
        for sign in (1.0, -1.0):
            positions = self.system.moved(state.positions, sign * self.config.step * mode)
            trail = [state.positions, positions]
            positions = relax(self.system, positions, self.hessian, self.config.fmax, trail=trail)[0]
            if self._snapped(state, positions):
                self.fall = trail
                return positions
        return None

    def _snapped(self, before: _State, after: Array) -> bool:
        """Whether a bond that held has broken at once."""
        old, new = (stretches(self.start.numbers, p, self.bonded).max(initial=0.0) for p in (before.positions, after))
        held = before.force > HELD * max(state.force for state in self.states)
        return bool(held and new >= BROKEN and new - old > SNAP)

    def _stretched_bond(self, positions: Array, least: float = BROKEN) -> tuple[int, int] | None:
        """The bond of the start that is most stretched, if it is to ``least`` times the sum of the radii."""
        lengths = stretches(self.start.numbers, positions, self.bonded)
        if not len(lengths) or lengths.max() < least:
            return None
        first, second = self.bonded[int(np.argmax(lengths))]
        return int(first), int(second)

    def _let_go(self) -> Rupture:
        """From a bond that has given way: where exactly its force was largest, and where it has sunk."""
        peak = self._peak()
        width = self.config.step
        while width > self.config.resolution:
            width /= 2
            for side in (-width, width):
                self._refine(peak.distance + side)
            peak = self._peak()
        target = self.config.residual_force * peak.force
        while True:
            low = max(k for k, state in enumerate(self.states) if state.force > target)
            below, above = self.states[low].distance, self.states[low + 1].distance
            if above - below <= self.config.resolution or not self._refine((below + above) / 2):
                return self._record(bond=self._stretched_bond(self.states[-1].positions, GIVEN_WAY))

    def _peak(self) -> _State:
        return max(self.states, key=lambda state: state.force)

    def _refine(self, distance: float) -> bool:
        """Add the state at ``distance``, unless the molecule falls there."""
        state = self._next(distance)
        if not isinstance(state, _State):
            return False
        self.states = sorted([*self.states, state], key=lambda state: state.distance)
        return True

    def _conclude(self, broken: Array) -> Rupture:
        """From a broken structure: where exactly the intact branch ends, and where the broken one meets it."""
        self.hessian = self.system.hessian(self.states[-1].positions)
        unstable = self._bisect()
        branch = self._broken_branch(broken)
        self._bracket_residual(branch)
        return self._record(unstable, branch, self._stretched_bond(broken))

    def _bracket_residual(self, branch: list[_State]) -> None:
        """Barriers at neighbouring distances of the grid, between which the residual one lies.

        A distance at which no path is found is left out: the barrier is smooth, so the next ones will do.
        """
        from rareal.saddle import barrier  # ASE's optimizers take their time to load

        intact = {state.distance: state for state in self.states}
        common = [state for state in branch if state.distance in intact]
        low, high, missing = -1, len(common), None
        while high - low > 1:
            middle = (low + high) // 2
            state = common[middle]
            ends = intact[state.distance].positions, state.positions
            try:
                left, path = barrier(self.system, *ends, lambda positions: bool(self._stretched_bond(positions)))
            except RelaxationError as error:
                missing, high = error, high - 1
                del common[middle]
                continue
            self.barriers[state.distance] = (left, path)
            low, high = (middle, high) if left > self.config.residual_barrier else (low, middle)
        if missing and low < 0:
            raise missing

    def _bisect(self) -> _State | None:
        """Cut ``states`` back to the stable ones and refine; return the unstable state just above, if there is one."""
        low, high = 0, len(self.states)
        # states[low] is stable, states[high] is not (or has broken)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._soften(self.states[middle]).curvature > 0 else (low, middle)
        above = self.states[high] if high < len(self.states) else None
        self.states = self.states[:high]
        top = above.distance if above is not None else self.states[-1].distance + self.config.step
        while top - self.states[-1].distance > self.config.resolution:
            reached = self._next((self.states[-1].distance + top) / 2)
            if isinstance(reached, _State) and self._soften(reached).curvature > 0:
                self.states.append(reached)
                continue
            above = reached if isinstance(reached, _State) else None
            top = (self.states[-1].distance + top) / 2
        return above if above is not None else None

    def _broken_branch(self, broken: Array) -> list[_State]:
        """The broken molecule, from where it was found back to where it costs more than the intact one."""
        grid = [state.distance for state in self.states]
        distance = float(np.linalg.norm(np.subtract(*broken[list(self.system.ends)])))
        hessian = self.hessian
        self.hessian = self.system.hessian(broken)
        costly = 0
        branch = [self._relaxed(broken, distance)]
        for distance in reversed([value for value in grid if value < distance]):
            positions = self.system.stretched(branch[-1].positions, distance)
            try:
                state = self._relaxed(positions, distance)
            except RelaxationError:
                break
            if self._stretched_bond(state.positions) is None:
                break
            branch.append(state)
            costly += state.energy > self.states[grid.index(distance)].energy
            if costly == BEYOND_CROSSING:
                break
        self.hessian = hessian
        return branch[::-1]

    def _record(
        self,
        above: _State | None = None,
        branch: list[_State] | None = None,
        bond: tuple[int, int] | None = None,
        note: str = "",
    ) -> Rupture:
        """Everything in one record; a bond without ``branch`` has given way gradually."""
        states, branch = self.states, branch or []
        start = states[0].energy if states else math.nan
        distances, forces = _array(s.distance for s in states), _array(s.force for s in states)
        energies = _array(s.energy - start for s in states)
        lower = _array(s.energy - start for s in branch)
        below = (_array(s.distance for s in branch), lower, _array(s.force for s in branch))
        crossing = meeting_point((distances, energies, forces), below)
        barriers = sorted((distance, *value) for distance, value in self.barriers.items())
        end = gone = force = math.nan
        known = [*states, above] if above else states
        if bond and branch:
            end = _end_of_stability(states[-1], above, self.config)
            gone = sunk_to(self.config.residual_barrier, barriers, crossing, end)
            force = largest(_array(s.distance for s in known), _array(s.force for s in known), end)
        elif bond:
            force = float(forces.max())
            gone = force_sunk_to(self.config.residual_force * force, distances, forces)
        shape = (-1, len(self.start.numbers), 3)
        return Rupture(
            distances=distances,
            energies=energies,
            forces=forces,
            positions=_array(s.positions for s in states).reshape(shape),
            break_distance=gone,
            energy_max=hermite(gone, distances, energies, forces),
            stability_distance=end,
            stability_energy=hermite(end, distances, energies, forces),
            force_max=force,
            broken_bond=(bond[0] + 1, bond[1] + 1) if bond is not None else (0, 0),
            broken_class=bond_class(self.start.numbers, self.bonded, bond) if bond is not None else "",
            crossing_distance=crossing,
            crossing_energy=hermite(crossing, distances, energies, forces),
            barrier_distances=_array(distance for distance, _, _ in barriers),
            barriers=_array(height for _, height, _ in barriers),
            saddle_positions=_array(image for _, _, path in barriers for image in path).reshape(shape),
            broken_distances=below[0],
            broken_energies=lower,
            broken_positions=_array(s.positions for s in branch).reshape(shape),
            fall_positions=_array(self.fall).reshape(shape),
            start_energy=start,
            calls=self.system.calls,
            note=note,
        )


def _array(values: Any) -> Array:
    return np.array(list(values), dtype=np.float64)


def _end_of_stability(below: _State, above: _State | None, config: Config) -> float:
    """Where the curvature is zero, between the last stable state and the unstable or broken one above it."""
    if above is None:
        return below.distance + config.resolution / 2
    share = below.curvature / (below.curvature - above.curvature)
    return below.distance + float(np.clip(share, 0.0, 1.0)) * (above.distance - below.distance)


def save(path: Path, record: Rupture) -> Path:
    """Write a rupture to an ``.npz``."""
    return write_npz(path, **{item.name: getattr(record, item.name) for item in fields(Rupture)})


def load(path: Path) -> Rupture:
    """Read what `save` wrote."""
    with np.load(path) as archive:
        values: dict[str, Any] = {item.name: archive[item.name] for item in fields(Rupture)}
    first, second = values["broken_bond"]
    return Rupture(
        **{name: value.item() if value.ndim == 0 else value for name, value in values.items() if name != "broken_bond"},
        broken_bond=(int(first), int(second)),
    )
