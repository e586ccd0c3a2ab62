"""Exploration on the fly: walkers halt where the committee does not know, and go on when it has learnt.

As in aims-PAX (section A 3 of its paper). In a round, after the training, the walkers are driven in *stretches*:

1. Every walker goes on from where it stands, with the newest committee. LAMMPS itself stops it where the uncertainty is
   above the threshold for ``patience`` steps in a row; else it pauses after ``stretch`` steps.
2. As soon as one halts, the frame at which it did is labelled, while the others are still driven.
3. Once all have stopped and all labels are there, the committee is trained for a few epochs from its current weights.
   Walkers that have halted go on from their last trusted frame, with its velocities; the others from where they paused.

So it goes until every walker has done its steps or the round's labels are spent; then the walkers are driven to
their end without halting, and the round is checked and reported like any other. What was driven beyond a trusted frame
is left out of a walker's trajectory.

**The same results every time.** The threshold is computed at the beginning of a stretch, and fixed during it, from all
scores seen so far in the round; the committee changes only when everybody has stopped; frames are sorted by walker. So
nothing depends on which walker is faster, and a run that is killed goes on from its finished stretches to the same
results. aims-PAX itself, whose walkers wait for nobody, cannot promise that. The price is that walkers which halt early
wait for the end of the stretch: shorter stretches cost less of that, and more starts of LAMMPS.

A halted frame without a label is lost, its labels counted; the walker waits until the others have brought the committee
something new. While there is no threshold yet (its window is not full) walkers only pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rareal.errors import LabelError
from rareal.protocols import Labels, RunningUncertainty, Trainer
from rareal.records import Array, Evidence, FailedLabel, Frame, Label, Part, Snapshot, Trajectory, Walker
from rareal.rundir import MARKER, Stage
from rareal.sampling import resume, trajectory
from rareal.schema import Section

if TYPE_CHECKING:
    from rareal.loop import Loop

DATA = "data.h5"
HALTED_ORIGIN = "halted"

FEW = 10
"""Labels of a round before which their failures are too few to be a share."""


class BatchConfig(Section):
    """The paper's way: whole drives, then labels of what was new in them, then training."""

    kind: Literal["batch"] = "batch"


class Config(Section):
    """Walkers halt where the committee does not know, and go on when it has learnt."""

    kind: Literal["on_the_fly"] = "on_the_fly"
    patience: int = Field(
        5, ge=1, description="steps in a row with the uncertainty above the threshold after which a walker halts"
    )
    stretch: int = Field(
        1000,
        ge=1,
        description="steps after which a walker that has not halted pauses, to go on with the newest committee and "
        "threshold; all wait for the last one",
    )
    frames: int = Field(
        1, ge=1, description="frames labelled per halt: the one at which it halts, and others evenly back to the "
        "last trusted one"
    )  # fmt: skip
    labels: int = Field(40, ge=1, description="most labels per round, failed ones included")
    labels_per_update: int = Field(
        1, ge=1, description="new labels for which the committee is trained, unless no walker can go on without"
    )
    epochs: int = Field(10, ge=1, description="epochs of such a training, from the current weights")
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate of such a training; that of the section `training` if not given"
    )
    steps: int | None = Field(
        None, ge=1, description="most steps that a walker is driven in a round before it no longer halts, those that "
        "are repeated after a halt included; no limit if not given"
    )  # fmt: skip


@dataclass(frozen=True)
class OnTheFly:
    """What the loop needs to explore on the fly.

    Attributes
    ----------
    settings : of the exploration.
    uncertainty : the stage that has the threshold.
    trainer : trains for a few epochs.
    """

    settings: Config
    uncertainty: RunningUncertainty
    trainer: Trainer


@dataclass(eq=False)
class Standing:
    """A walker in a round: where it stands, and what it has seen.

    Attributes
    ----------
    walker : as the round begins.
    snapshot : what it goes on from; None from its beginning.
    steps : driven so far, repeated ones included.
    waiting : whether it has halted and must not go on before the committee has learnt.
    finished : whether it has come to its end.
    """

    walker: Walker
    snapshot: Snapshot | None = None
    steps: int = 0
    waiting: bool = False
    finished: bool = False

    @property
    def step(self) -> int:
        """Of the drive, from which it goes on."""
        return self.snapshot.step if self.snapshot is not None else 0


@dataclass(frozen=True, eq=False)
class Seen:
    """Scores of a part of a drive, one per time step, by steps since the part began."""

    walker: int
    since: Array
    score: Array


@dataclass(eq=False)
class Flight:
    """The stretches of one round."""

    loop: Loop
    number: int
    settings: Config
    uncertainty: RunningUncertainty
    trainer: Trainer
    team: list[Standing]
    seen: list[list[Seen]] = field(default_factory=list)
    learnt: int = 0
    bought: int = 0
    failed: int = 0
    halts: int = 0
    updates: int = 0
    seconds: float = 0.0

    def go(self, known: int | None) -> int:
        """Drive, label and train until nobody is left who may halt; returns the number of stretches.

        ``known`` is that number where the flight has been finished before: what there is is read, even if a budget that
        has been changed since would have led elsewhere.
        """
        index = 0
        while self.ready() if known is None else index < known:
            self.stretch(index)
            fresh = len(self.loop.data) - self.learnt
            enough = known is None and (fresh >= self.settings.labels_per_update or not self.ready())
            if fresh and (enough or (self.folder(index) / "train" / MARKER).is_file()):
                self.update(index)
            index += 1
        return index

    def folder(self, index: int) -> Path:
        """Of a stretch."""
        return self.loop.run.round_folder(self.number) / "fly" / f"update-{index:03d}"

    @property
    def room(self) -> int:
        """Labels that may still be bought; what the round's check costs is not for sale."""
        reserve = self.loop.config.check.path_frames
        return max(0, int(min(self.settings.labels - self.bought, self.loop.budget - reserve)))

    def ready(self) -> list[Standing]:
        """The walkers of the next stretch, at most as many as could halt with the labels that are left."""
        limit = self.settings.steps
        able = [w for w in self.team if not (w.waiting or w.finished or (limit is not None and w.steps >= limit))]
        return able[: self.room // self.settings.frames]

    def stretch(self, index: int) -> None:
        """Drive walkers until they halt or pause, and label where they have halted."""
        stage = self.loop.run.stage(self.number, f"fly/{self.folder(index).name}", keep=True)
        if not stage.done:
            self.drive(stage, index, self.ready())
        rows = stage.summary["walkers"]
        thresholds = {row["walker"]: row["threshold"] for row in rows if row["threshold"] is not None}
        self.loop.thresholds |= thresholds
        team = {standing.walker.number: standing for standing in self.team}
        self.seen.append([self.take(stage, team[row["walker"]], row) for row in rows])
        self.loop.take(stage.folder / DATA, stage.summary["labels"])
        self.bought += stage.summary["labels"]
        self.failed += stage.summary["failed"]
        self.seconds += stage.seconds
        self.refuse_failures()
        halted = [f"{row['walker']} at step {row['step']}" for row in rows if row["labels"]]
        self.halts += len(halted)
        if halted:
            text = f"stretch {index}: walker {', '.join(halted)} halted; {stage.summary['labels']} labels"
            self.loop.display.note(f"{text}, threshold {', '.join(f'{x:.3g}' for x in sorted({*thresholds.values()}))}")

    def drive(self, stage: Stage, index: int, team: Sequence[Standing]) -> None:
        """The stretch itself."""
        loop = self.loop
        assert loop.trained is not None
        (stage.folder / DATA).unlink(missing_ok=True)  # of an attempt that was killed before it was marked as done
        above = {standing.walker.number: self.threshold(standing.walker.number) for standing in team}
        flying = {}
        bar = loop.watch.stage("fly")
        for standing in team:
            k = standing.walker.number
            place, report = folder_of(stage, k), stage.folder / f".walker-{k:02d}.progress"
            flying[k] = bar.start(
                loop.stages.executors.sample, resume.drive, loop.stages.sampler, loop.trained.model, place,
                self.next_part(standing, above[k]), report=report,
            )  # fmt: skip
        chosen: dict[int, list[Frame]] = {}
        batches: dict[int, Labels] = {}
        shown = loop.watch.stage("label")
        for k, task in loop.watch.ended(flying):
            task.future.result()
            chosen[k] = self.telling(folder_of(stage, k), above[k])
            if chosen[k]:
                # a batch of one frame that fails is no reason to stop; see `refuse_failures`
                first = (index * len(self.team) + k) * self.settings.frames
                batches[k] = loop.stages.labeler.submit(chosen[k], stage.folder, first, may_fail=1.0)
                shown.add(batches[k])
        results = dict(zip(batches, loop.watch.wait(*batches.values()), strict=True))
        frames = [frame for k in sorted(chosen) for frame in chosen[k]]
        labels = [label for k in sorted(results) for label in results[k]]
        kept = loop.keep(stage.folder, frames, labels)
        stage.finish(
            walkers=[self.row(stage, k, above[k], results.get(k, [])) for k in above],
            labels=len(frames),
            failed=len(frames) - len(kept),
        )

    def next_part(self, standing: Standing, above: float) -> Walker:
        """What a walker is asked to do next."""
        settings = self.settings
        until = standing.step + settings.stretch
        if settings.steps is not None:
            until = min(until, standing.step + settings.steps - standing.steps)
        halt = self.uncertainty.halt(above, settings.patience)
        return replace(standing.walker, resume=standing.snapshot, halt=halt, until=until)

    def threshold(self, walker: int) -> float:
        """What the uncertainty must exceed for a walker to halt; infinite while there is none.

        The evidence is that of the last round's check: labelled frames as the committee of then saw them.
        """
        loop = self.loop
        nothing = np.empty(0)
        evidence = loop.evidence or Evidence(nothing, nothing, nothing, nothing)
        evidence = replace(evidence, frames=len(loop.data), thresholds=loop.thresholds)
        own = None if self.uncertainty.shared else walker
        return float(self.uncertainty.running(history(self.seen, own), evidence))

    def telling(self, folder: Path, above: float) -> list[Frame]:
        """The frames of a part of a drive that are worth a label: where it halted, and some before."""
        segment, found = resume.load_segment(folder), trajectory.load(folder / trajectory.ARCHIVE)[0]
        if segment.ending in ("paused", "finished") or not len(found):
            return []
        score = self.uncertainty.score(found)
        known = np.flatnonzero(np.isfinite(score) & (score <= self.uncertainty.limit(above)))
        trusted = segment.snapshot.step if segment.snapshot is not None else -1
        # if it has broken down without a doubt, its last frame is all there is to say
        rows = known[found.steps[known] > trusted] if segment.ending == "halted" else known[-1:]
        if not len(rows):
            return []
        picked = np.unique(np.linspace(len(rows) - 1, 0, self.settings.frames + 1)[:-1].round().astype(int))
        return [self.loop.frame(self.number, found, int(rows[k]), HALTED_ORIGIN) for k in picked]

    def row(self, stage: Stage, k: int, above: float, labels: Sequence[Label | FailedLabel]) -> dict[str, Any]:
        """What is kept of a walker's part in the stage's marker."""
        place = folder_of(stage, k)
        found = trajectory.load(place / trajectory.ARCHIVE)[0]
        return {
            "walker": k,
            "threshold": above if np.isfinite(above) else None,
            "ending": resume.load_segment(place).ending,
            "step": int(found.steps[-1]) if len(found) else -1,
            "labels": len(labels),
        }

    def take(self, stage: Stage, standing: Standing, row: dict[str, Any]) -> Seen:
        """Bring a walker to where its part has led."""
        place = folder_of(stage, standing.walker.number)
        segment, found = resume.load_segment(place), trajectory.load(place / trajectory.ARCHIVE)[0]
        standing.steps += max(0, row["step"] - standing.step)
        standing.finished = row["ending"] == "finished"
        standing.waiting = row["ending"] in ("halted", "failed")
        if segment.snapshot is not None:
            before = standing.snapshot.parts if standing.snapshot is not None else ()
            standing.snapshot = replace(segment.snapshot, parts=(*before, Part(place, segment.snapshot.step)))
        return per_step(standing.walker.number, found, self.uncertainty.score(found))

    def update(self, index: int) -> None:
        """Train the committee for a few epochs, and let those go on who have waited for it."""
        stage = self.loop.run.stage(self.number, f"fly/{self.folder(index).name}/train", keep=True)
        self.seconds += self.loop.fit(stage, self.trainer, self.number, index)[1]
        self.learnt = len(self.loop.data)
        self.updates += 1
        for standing in self.team:
            standing.waiting = False

    def refuse_failures(self) -> None:
        """Stop where so many labels of the round have failed that the rest would be a biased set.

        Raises
        ------
        LabelError
            See ``labels.max_failed_fraction``.
        """
        allowed = self.loop.config.labels.max_failed_fraction
        if self.failed > allowed * max(self.bought, FEW):
            raise LabelError(
                f"{self.failed} of {self.bought} frames at which walkers halted in round {self.number} got no label, "
                f"more than labels.max_failed_fraction ({allowed:g}) allows; the reasons are in labels.csv of "
                f"{self.loop.run.round_folder(self.number) / 'fly'}"
            )


def fly(loop: Loop, number: int, ways: OnTheFly) -> tuple[dict[int, Snapshot], dict[str, Any]]:
    """Explore on the fly in a round, after its training.

    ``loop.trained`` is the newest committee afterwards, ``loop.data`` holds all labels.

    Returns
    -------
    Where every walker stands that has got anywhere, by its number; and what the round's report says of it.
    """
    previous = tuple(loop.walker_folders(number - 1))
    team = [Standing(replace(walker, previous=previous)) for walker in loop.team]
    flight = Flight(loop, number, ways.settings, ways.uncertainty, ways.trainer, team, learnt=len(loop.data))
    stage = loop.run.stage(number, "fly", keep=True)
    stretches = flight.go(stage.summary["stretches"] if stage.done else None)
    counts = {"halts": flight.halts, "updates": flight.updates, "halted_labels": flight.bought}
    if not stage.done:
        stage.finish(flight.seconds, stretches=stretches, **counts)
    loop.display.note("on the fly: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))
    stand = {s.walker.number: s.snapshot for s in team if s.snapshot is not None}
    return stand, {**counts, "fly_s": stage.seconds}


def history(seen: Sequence[Sequence[Seen]], walker: int | None = None) -> Array:
    """All scores of a round [H] in the order of time, one per walker and time step; those of one walker alone.

    Within a stretch they are sorted by the steps since it began, whatever the steps of the drives.
    """
    parts = [np.empty(0)]
    for stretch in seen:
        of = [part for part in stretch if walker is None or part.walker == walker]
        since = np.concatenate([np.empty(0), *(part.since for part in of)])
        score = np.concatenate([np.empty(0), *(part.score for part in of)])
        parts.append(score[np.argsort(since, kind="stable")])
    found: Array = np.concatenate(parts)
    return found


def per_step(walker: int, found: Trajectory, score: Array) -> Seen:
    """Scores [T] of a part of a drive, of which every so many steps are kept, at every time step."""
    if not len(found):
        return Seen(walker, np.empty(0), np.empty(0))
    since = found.steps - found.steps[0]
    repeats = np.diff(since, append=since[-1] + 1)
    return Seen(walker, np.arange(repeats.sum(), dtype=np.float64), np.repeat(score, repeats))


def folder_of(stage: Stage, walker: int) -> Path:
    """Where a walker leaves the files of its part of a stretch."""
    return stage.folder / f"walker-{walker:02d}"
