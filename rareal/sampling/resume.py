"""Drives that stop on the way and go on: where they stand, and what is different in a script that goes on.

A drive that goes on starts from positions and velocities of an instant that was kept, without relaxation and without
new velocities, and its step counter goes on. Everything without memory continues as if nothing had been: the same
potential gives the same trajectory. What has a memory of its own is the sampler's business: a spring goes on where it
stood, hills stay. Random numbers of a thermostat do not repeat themselves: their seed is another one after every stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rareal.files import write_npz
from rareal.protocols import Progress, Sampler
from rareal.records import TIME_SERIES, Frame, Part, Snapshot, Trajectory, Walker
from rareal.sampling import lammps
from rareal.sampling.trajectory import ARCHIVE, load, read_velocities, save

SEGMENT = "segment.npz"
"""How a part of a drive ended, in its folder."""

HALTED = "pair_style mlensemble halts the run"
"""What the pair style says in the log."""

LARGEST_SEED = 899_999_999
"""Of LAMMPS's random numbers of any kind."""

Ending = Literal["halted", "paused", "finished", "failed"]


@dataclass(frozen=True, eq=False)
class Segment:
    """How a part of a drive ended.

    Attributes
    ----------
    ending : the committee's disagreement stopped it; it came to the step that was asked for; to its end; it broke down.
    snapshot : the last instant that can be gone on from: where the committee's disagreement was not above what stops
        the drive; None where there is none in this part.
    """

    ending: Ending
    snapshot: Snapshot | None


def seed(walker: Walker) -> int:
    """Of velocities and thermostat; another one for every part of a drive."""
    if walker.resume is None:
        return walker.seed
    return 1 + (walker.seed + 1_000_003 * (walker.resume.step + 1)) % LARGEST_SEED


def placed(walker: Walker) -> Frame:
    """The structure that a drive, or the next part of it, begins with."""
    resume = walker.resume
    if resume is None:
        return walker.start
    return replace(
        walker.start, positions=resume.positions, cell=walker.start.cell if resume.cell is None else resume.cell
    )


def last_step(walker: Walker, steps: int, interval: int) -> int:
    """The step at which a part of a drive of ``steps`` steps ends if nothing stops it: one with a frame, or the end."""
    if walker.until is None:
        return steps
    return min(steps, -(-walker.until // interval) * interval)


def frame_interval(walker: Walker, interval: int) -> int:
    """Steps between kept frames: one at least among those for which a drive that halts is patient."""
    if walker.halt is None:
        return interval
    return max(step for step in range(1, walker.halt.patience + 1) if interval % step == 0)


def script_values(walker: Walker, steps: int, interval: int) -> dict[str, object]:
    """What fills a template, by whether the drive begins or goes on.

    ``fresh`` stands before lines that only a drive which begins has, and makes comments of them else; ``first_step`` is
    what the step counter is set to, ``velocity_columns`` comes after the columns of the dump, whose numbers are written
    in ``dump_format``: with all digits where something may go on from them.
    """
    first = 0 if walker.resume is None else walker.resume.step
    return {
        "seed": seed(walker),
        "frame_interval": frame_interval(walker, interval),
        "steps": max(0, last_step(walker, steps, interval) - first),
        "first_step": first,
        "fresh": "" if walker.resume is None else "# it goes on: ",
        "velocity_columns": " vx vy vz" if stops(walker) else "",
        "dump_format": "%.16g" if stops(walker) else "%.10f",
    }


def stops(walker: Walker) -> bool:
    """Whether this part of a drive may end before the drive does."""
    return walker.halt is not None or walker.until is not None


def keep_segment(folder: Path, walker: Walker, trajectory: Trajectory, steps: int, interval: int) -> None:
    """Note in ``folder`` how the part of a drive that is in it ended."""
    ending = how_it_ended(folder, walker, trajectory, steps, interval)
    row = trusted(walker, trajectory, ending)
    arrays: dict[str, Any] = {"ending": ending}
    if row is not None:
        kept, velocities = read_velocities(folder / lammps.DUMP, len(walker.start.numbers))
        step = int(trajectory.steps[row])
        arrays |= {
            "positions": trajectory.positions[row],
            "velocities": velocities[int(np.searchsorted(kept, step))],
            "step": step,
            "interval": interval,
        }
        if len(trajectory.cells[row]):
            arrays["cell"] = trajectory.cells[row]
    write_npz(folder / SEGMENT, **arrays)


def how_it_ended(folder: Path, walker: Walker, trajectory: Trajectory, steps: int, interval: int) -> Ending:
    """See `Segment`."""
    log = folder / lammps.LOG
    if log.exists() and HALTED in log.read_text(encoding="utf-8", errors="replace"):
        return "halted"
    if trajectory.note:
        return "failed"
    return "finished" if last_step(walker, steps, interval) == steps else "paused"


def trusted(walker: Walker, trajectory: Trajectory, ending: Ending) -> int | None:
    """The last row that may be gone on from."""
    if ending in ("paused", "finished"):
        return len(trajectory) - 1
    if walker.halt is None or not len(trajectory):
        return None
    score = trajectory.energy_std if walker.halt.score == "energy" else trajectory.force_std
    good = np.flatnonzero(score <= walker.halt.above)
    return int(good[-1]) if len(good) else None


def load_segment(folder: Path) -> Segment:
    """What `keep_segment` noted; a part without anything has failed."""
    if not (folder / SEGMENT).exists():
        return Segment("failed", None)
    with np.load(folder / SEGMENT) as archive:
        ending = str(archive["ending"])
        known: Ending = next(name for name in get_args(Ending) if name == ending)
        if "step" not in archive:
            return Segment(known, None)
        cell = archive.get("cell")
        where = archive["positions"], archive["velocities"], int(archive["step"])
        return Segment(known, Snapshot(*where, cell, int(archive["interval"])))


def drive(sampler: Sampler, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Path:
    """A walker's drive as a task: its trajectory goes into its folder, or is there already; returns the file.

    It is the trajectory of the whole drive, unless this is a part of one that may stop on the way.
    """
    archive = folder / ARCHIVE
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        found = sampler.sample(model, folder, walker, progress)
        if walker.resume is not None and not stops(walker):
            found = joined(walker.resume, found)
        save(archive, [found])
    return archive


def read_parts(parts: Sequence[Part]) -> list[Trajectory]:
    """What counts of the parts of a drive, one after the other."""
    found, after = [], -1
    for part in parts:
        trajectory = load(part.folder / ARCHIVE)[0]
        found.append(trajectory.rows((trajectory.steps > after) & (trajectory.steps <= part.last)))
        after = part.last
    return found


def joined(resume: Snapshot, last: Trajectory) -> Trajectory:
    """The whole drive: its parts up to where each was gone on from, and the last one after that.

    What a part saw after the instant at which it was gone on from is left out, and of the frames that were kept while
    it could have halted those that the drive would not have kept otherwise.
    """
    rest = last.rows(last.steps > resume.step) if resume.parts else last
    parts = [part.rows(part.steps % resume.interval == 0, note="") for part in read_parts(resume.parts)]
    every: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in (*parts, rest)]) for name in TIME_SERIES
    }
    return replace(rest, **every)
