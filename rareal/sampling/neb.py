"""The minimum-energy path of the event on the committee's surface: a nudged elastic band with a climbing image.

G. Henkelman, B. P. Uberuaga and H. Jónsson, J. Chem. Phys. 2000, 113, 9901; the band is ASE's. Its barrier knows no
temperature, no velocity and no noise: beside the work of a pull or a free energy it shows what of a round's change is
the potential's and what is the sampling's. As a check (`minimum_energy_path`) it starts from the frames of a round's
own trajectory; as a sampler its images are the trajectory, so that frames along the path are screened and labelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from rareal.cv import Variable
from rareal.files import write_npz
from rareal.protocols import Members, Progress
from rareal.records import Array, Frame, Profile, Trajectory, Walker
from rareal.sampling.bands import between, chained, distances, through_frames
from rareal.sampling.trajectory import ARCHIVE, load
from rareal.schema import Misfit, Section
from rareal.structure import read_structure
from rareal.units import Force, SpringConstant

SAME = 0.2
"""Å, `rareal.sampling.bands.distances` below which two relaxed structures are one minimum."""

DIP = 0.02
"""eV, by which an image must lie below both its neighbours' sides to count as a minimum on the way."""

UNEVENTFUL = "both ends relax to the same minimum: there is no event between them"

PATH = "neb.npz"


class PathConfig(Section):
    """How the band is relaxed."""

    images: int = Field(9, ge=3, description="images between the two ends")
    fmax: Force = Field(0.05, gt=0, description="largest force across the band at which it has converged, eV/Å")
    end_fmax: Force = Field(0.01, gt=0, description="largest force on a relaxed end, eV/Å")
    spring: SpringConstant = Field(1.0, gt=0, description="springs along the band, eV/Å²")
    max_steps: int = Field(500, ge=1, description="steps after which an end, or the band, is given up")


@dataclass(frozen=True, eq=False)
class MinimumEnergyPath:
    """A band of K images from the one end to the other.

    Attributes
    ----------
    positions : [K, N, 3] Å.
    members : [M, K] energies of the members, eV, as they are.
    force_std : [K] largest std of the force on an atom, eV/Å.
    residual : largest force across the band, eV/Å; nan where there is no band.
    converged : whether that is small enough, and both ends are minima.
    guess : what the band began from: ``frames``, ``idpp``, or nothing.
    calls : evaluations of the committee.
    note : empty, or what is wrong, or what there is to know of the path.
    """

    positions: Array
    members: Array
    force_std: Array
    residual: float
    converged: bool
    guess: str
    calls: int
    note: str = ""

    @property
    def energies(self) -> Array:
        """[K] of the committee mean above the first image, eV."""
        mean = self.members.mean(axis=0)
        relative: Array = mean - mean[:1]
        return relative

    @property
    def energy_std(self) -> Array:
        """[K] std over the members of their energies above the first image, eV."""
        spread: Array = (self.members - self.members[:, :1]).std(axis=0)
        return spread

    @property
    def top(self) -> int:
        """The highest image."""
        return int(np.argmax(self.energies))

    @property
    def barrier(self) -> float:
        """From the first end to the top, eV; nan where the band has not converged."""
        return float(self.energies[self.top]) if self.converged else math.nan

    @property
    def barrier_back(self) -> float:
        """From the last end to the top, eV; nan where the band has not converged."""
        return float(self.energies[self.top] - self.energies[-1]) if self.converged else math.nan

    @property
    def barrier_std(self) -> float:
        """Std of the barrier over the members, at the mean's images, eV."""
        return float(self.energy_std[self.top]) if self.converged else math.nan

    def profile(self, variable: Variable) -> Profile:
        """The path's energy along a collective variable."""
        return Profile(
            "potential energy", variable.value(self.positions), self.energies, self.energy_std, self.barrier,
            self.barrier_std, self.note,
        )  # fmt: skip


def figures(path: MinimumEnergyPath) -> dict[str, Any]:
    """The columns of a round's table; nan where the band has not converged."""
    return {
        "mep_barrier_eV": path.barrier,
        "mep_barrier_std_eV": path.barrier_std,
        "mep_barrier_back_eV": path.barrier_back,
        "mep_note": path.note,
    }


def save(file: Path, path: MinimumEnergyPath) -> Path:
    """Write a path to an ``.npz``."""
    return write_npz(file, **{item.name: getattr(path, item.name) for item in fields(MinimumEnergyPath)})


def read(file: Path) -> MinimumEnergyPath:
    """Read what `save` wrote."""
    with np.load(file) as archive:
        values: dict[str, Any] = {item.name: archive[item.name] for item in fields(MinimumEnergyPath)}
    return MinimumEnergyPath(**{name: v.item() if v.ndim == 0 else v for name, v in values.items()})


def minimum_energy_path(
    committee: Members, frame: Frame, trajectory: Trajectory, config: PathConfig, progress: Progress | None = None
) -> MinimumEnergyPath:
    """The path between the minima before and after a trajectory's event.

    The ends are relaxed from the first and from the last frame; where both come to the same minimum, the event has
    gone back, and the frame farthest from the first along the collective variable is taken for the last.

    Parameters
    ----------
    committee : a model file's members; one member, e.g. the engine itself, will do.
    frame : elements and cell.
    trajectory : the usable part of a drive.
    config : how the band is relaxed.
    """
    if len(trajectory) < 2:
        return _nothing(frame, 0, "the trajectory has no two frames")
    far = int(np.argmax(np.abs(trajectory.cv - trajectory.cv[0])))
    ends = dict.fromkeys([len(trajectory) - 1, far])
    system = _System(committee, frame)
    frames = trajectory.positions
    try:
        first = system.relaxed(frames[0], config)
        for row in ends:
            last = system.relaxed(frames[row], config)
            if distances(last, first, system.free) > SAME:
                return _band(system, first, last, frames[1:row], config, progress)
    except PathError as error:
        return _nothing(frame, system.calls, str(error))
    return _nothing(frame, system.calls, UNEVENTFUL)


def path_between(
    committee: Members,
    first: Frame,
    last: Array,
    frames: Array,
    config: PathConfig,
    progress: Progress | None = None,
) -> MinimumEnergyPath:
    """The path from ``first`` to ``last`` [N, 3], both relaxed, by way of ``frames`` [T, N, 3] if there are any.

    Where the committee has no such path, the guess between the ends as they were given, with the reason in ``note``:
    labels along it are what the committee lacks.
    """
    system = _System(committee, first)
    try:
        begin, end = system.relaxed(first.positions, config), system.relaxed(last, config)
        if distances(end, begin, system.free) > SAME:
            return _band(system, begin, end, frames, config, progress)
        note = UNEVENTFUL
    except PathError as error:
        note = str(error)
    try:
        return _unrelaxed(system, last, frames, config, note)
    except PathError as error:
        return _nothing(first, system.calls, str(error))


class PathError(Exception):
    """There is no path to be found here: no convergence of an end, or numbers that are not finite."""


class _System:
    """A committee's mean surface for ASE, counting."""

    def __init__(self, committee: Members, frame: Frame) -> None:
        self.committee = committee
        self.frame = frame
        self.free = not any(frame.pbc)
        self.calls = 0

    def members(self, positions: Array) -> tuple[Array, Array]:
        """Energies [M] and forces [M, N, 3]."""
        self.calls += 1
        energies, forces = self.committee(replace(self.frame, positions=np.array(positions, dtype=np.float64)))
        if not (np.isfinite(energies).all() and np.isfinite(forces).all()):
            raise PathError("the potential is not finite")
        return energies, forces

    def atoms(self, positions: Array) -> Any:
        """For ASE, with a calculator of its own."""
        from ase import Atoms

        atoms = Atoms(self.frame.numbers, positions, cell=self.frame.cell, pbc=self.frame.pbc)
        atoms.calc = _calculator(self)
        return atoms

    def relaxed(self, positions: Array, config: PathConfig) -> Array:
        """The minimum that belongs to a frame.

        Raises
        ------
        PathError
            If there is none within reach.
        """
        from ase.optimize import BFGS

        atoms = self.atoms(positions)
        if not BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=config.end_fmax, steps=config.max_steps):
            force = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            raise PathError(
                f"an end does not relax to a minimum in {config.max_steps} steps: {force:.2g} eV/Å are left, "
                f"end_fmax is {config.end_fmax:g}"
            )
        found: Array = atoms.positions.copy()
        return found


def _calculator(system: _System) -> Any:
    from ase.calculators.calculator import Calculator, all_changes

    class Mean(Calculator):
        implemented_properties = ["energy", "forces"]  # noqa: RUF012  (ASE's own form)

        def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            energies, forces = system.members(atoms.positions)
            self.results = {"energy": float(energies.mean()), "forces": forces.mean(axis=0)}

    return Mean()  # type: ignore[no-untyped-call]


def _band(
    system: _System, first: Array, last: Array, frames: Array, config: PathConfig, progress: Progress | None
) -> MinimumEnergyPath:
    """The relaxed band: from the frames if they lead to one, else from interpolation."""
    count = config.images + 2
    found = None
    guesses: dict[str, Callable[[], Array | None]] = {
        "frames": lambda: through_frames(first, last, frames, count, system.free) if len(frames) else None,
        "idpp": lambda: between(system.frame, first, last, count),
    }
    for name, guess in guesses.items():
        path = guess()
        if path is None:
            continue
        other = _relaxed_band(system, path, name, config, progress)
        if found is None or other.converged or other.residual < found.residual:
            found = other
        if found.converged:
            break
    assert found is not None  # interpolation always gives a band
    return replace(found, calls=system.calls, note=_remarks(found, config))


def _relaxed_band(
    system: _System, path: Array, guess: str, config: PathConfig, progress: Progress | None
) -> MinimumEnergyPath:
    """Relax a band [K, N, 3], first as it is, then with its highest image climbing."""
    from ase.mep import NEB
    from ase.optimize import FIRE

    images = [system.atoms(positions) for positions in path]
    band = NEB(images, k=config.spring, climb=False, method="improvedtangent")
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        if progress is not None:
            progress(min(steps, config.max_steps), config.max_steps)

    optimiser = FIRE(band, logfile=None, dt=0.05, maxstep=0.1)
    optimiser.attach(count)
    optimiser.run(fmax=max(0.3, 4 * config.fmax), steps=config.max_steps // 2)
    band.climb = True
    optimiser = FIRE(band, logfile=None, dt=0.05, maxstep=0.1)
    optimiser.attach(count)
    converged = optimiser.run(fmax=config.fmax, steps=config.max_steps - config.max_steps // 2)
    residual = float(np.linalg.norm(band.get_forces().reshape(-1, 3), axis=1).max())
    positions = chained([image.positions for image in images], system.free)
    return _evaluated(system, positions, residual, bool(converged), guess)


def _evaluated(
    system: _System, positions: Array, residual: float, converged: bool, guess: str, note: str = ""
) -> MinimumEnergyPath:
    """The record of a band [K, N, 3]."""
    found = [system.members(image) for image in positions]
    return MinimumEnergyPath(
        positions=positions,
        members=np.array([energies for energies, _ in found]).T,
        force_std=np.array([np.sqrt(forces.var(axis=0).sum(axis=1)).max() for _, forces in found]),
        residual=residual,
        converged=converged,
        guess=guess,
        calls=system.calls,
        note=note,
    )


def _unrelaxed(system: _System, last: Array, frames: Array, config: PathConfig, note: str) -> MinimumEnergyPath:
    """The guess between the ends as they were given."""
    count, first = config.images + 2, system.frame.positions
    path = through_frames(first, last, frames, count, system.free) if len(frames) else None
    guess = "frames" if path is not None else "idpp"
    return _evaluated(
        system, between(system.frame, first, last, count) if path is None else path, math.nan, False, guess, note
    )


def _remarks(path: MinimumEnergyPath, config: PathConfig) -> str:
    """What the user should know of a band."""
    energies, notes = path.energies, []
    if not path.converged:
        notes.append(
            f"the minimum-energy path has not converged in {config.max_steps} steps: {path.residual:.2g} eV/Å are "
            f"left, fmax is {config.fmax:g}; there is no barrier. Take more steps or images"
        )
    if path.top in (0, len(energies) - 1):
        notes.append("there is no saddle between the ends: the energy is highest at one of them")
    for k in range(1, len(energies) - 1):
        if min(energies[:k].max(), energies[k + 1 :].max()) > energies[k] + DIP and energies[k] == min(
            energies[k - 1 : k + 2]
        ):
            notes.append(f"the path goes through another minimum, {energies[k]:.3f} eV above its beginning")
    return "; ".join(notes)


def _nothing(frame: Frame, calls: int, note: str) -> MinimumEnergyPath:
    none = np.empty((0, len(frame.numbers), 3))
    return MinimumEnergyPath(none, np.empty((1, 0)), np.empty(0), math.nan, False, "", calls, note)


class Config(PathConfig):
    """The images of a minimum-energy path as a round's trajectory."""

    kind: Literal["neb"] = "neb"
    product: Path = Field(
        description="structure after the event, relative to the YAML; the same atoms in the same order"
    )
    count: ClassVar[int] = 1
    walkers: ClassVar[int] = 1
    _product: Frame = PrivateAttr()

    def of(self, number: int) -> Self:
        """The settings of a walker; there is one."""
        return self

    def check_against(self, config: Any) -> None:
        """Read the product, and refuse one of other atoms."""
        try:
            found = read_structure(config.source.parent / self.product)
        except Misfit as misfit:
            raise Misfit("product", str(misfit)) from misfit
        if found.numbers.tolist() != config.frame.numbers.tolist():
            raise Misfit("product", f"{self.product} must hold the atoms of {config.structure}, in the same order")
        self._product = found


class ElasticBand:
    """Relaxes a band between two structures with a committee; a `Sampler`.

    Parameters
    ----------
    config : the settings.
    variables : the collective variables, the event's first.
    product : [N, 3] the structure after the event.
    committee : reads a model file.
    """

    thermal = False

    def __init__(
        self, config: PathConfig, variables: Sequence[Variable], product: Array, committee: Callable[[Path], Members]
    ) -> None:
        self.config = config
        self.variables = tuple(variables)
        self.product = product
        self.committee = committee

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        """The images as a trajectory, ``steps`` counting them; from the images of the last round where there are any.

        A band that has not converged is a trajectory all the same: its frames are where labels are wanted.
        """
        folder.mkdir(parents=True, exist_ok=True)
        frames = np.empty((0, *self.product.shape))
        for previous in walker.previous:
            if (previous / ARCHIVE).is_file():
                frames = np.concatenate([frames, *(t.positions for t in load(previous / ARCHIVE))])
        path = path_between(self.committee(model), walker.start, self.product, frames, self.config, progress)
        save(folder / PATH, path)
        cvs = np.stack([variable.value(path.positions) for variable in self.variables], axis=1)
        count = len(path.positions)
        return Trajectory(
            walker=walker.number,
            seed=walker.seed,
            steps=np.arange(count, dtype=np.int64),
            cv=cvs[:, 0],
            cvs=cvs,
            work=np.zeros(count),
            energy=path.members.mean(axis=0),
            energy_std=path.members.std(axis=0),
            force_std=path.force_std,
            positions=path.positions,
            note="" if count else path.note,
        )

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        """The potential energy along the path; its barrier is nan where the band has not converged."""
        return read(folders[0] / PATH).profile(self.variables[0])


def build(config: Config, variables: Sequence[Variable], committee: Callable[[Path], Members]) -> ElasticBand:
    """The sampler that ``config`` describes."""
    return ElasticBand(config, variables, config._product.positions, committee)
