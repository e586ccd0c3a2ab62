"""The loop, as in Figure 1 of the rare-events paper: train, drive, check, select, label, until nothing moves.

Every stage writes into a folder of its own and is marked as finished; one that is marked is read back instead of done
again. What a stage does with random numbers comes from the run's root seed, the round and the stage's name alone, so
an interrupted run and an undisturbed one give the same results.

The loop itself computes nothing: trainings, walkers and labels are tasks of executors, which may be other machines.
Labels of the first walker's path are computed while the others are driven. What depends on what is fixed, so that the
results do not depend on which task ends first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.check import Check, Findings, figures, meets
from rareal.data import dataset
from rareal.errors import SamplingError
from rareal.files import write_csv, write_json
from rareal.onthefly import OnTheFly, fly
from rareal.progress import Display
from rareal.protocols import Labeler, Progress, Sampler, Selector, Trainer, Uncertainty
from rareal.records import (
    Evidence,
    FailedLabel,
    Frame,
    Judged,
    Label,
    LabeledFrame,
    Snapshot,
    Trained,
    Trajectory,
    Walker,
)
from rareal.reference import Reference
from rareal.rundir import RunFolder, Stage
from rareal.sampling import resume, trajectory
from rareal.watch import Pending, Task, Watch

Split = Callable[[int, NDArray[np.bool_] | None, int | None, np.random.Generator], NDArray[np.bool_]]
"""(frames, last mask, last best member, random stream) -> training mask [M, F]."""

DATA, TRAJECTORIES, PROFILE = "data.h5", "trajectories.npz", "profile.npz"
ENGINE = "engine.json"
LABEL_COLUMNS = (
    "origin", "walker", "step", "cv", "energy_eV", "largest_force_eV_A", "seconds", "cached", "note", "failed",
)  # fmt: skip
PATH_ORIGIN, SELECTED_ORIGIN = "path", "selected"


@dataclass(frozen=True)
class Executors:
    """Where labels are computed, walkers driven and committees trained."""

    label: Executor
    sample: Executor
    train: Executor

    def close(self) -> None:
        """End all that runs."""
        for executor in (self.label, self.sample, self.train):
            executor.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Stages:
    """The stages, built from the configuration by `rareal.build`.

    ``initial``, ``trainer``, ``sampler`` and ``check`` are sent to the executors, by pickle.

    initial : (seed, progress) -> labelled frames to begin with, and how many engine calls they took.
    uncertainty : says which frames are new to the committee.
    augment : noise copies of frames.
    reference : the engine's own figures, None where there are none yet.
    walkers : the drives of a round, the same in every round.
    on_the_fly : how walkers halt and go on within a round; None where every round is one batch.
    """

    initial: Callable[[int, Progress], tuple[list[LabeledFrame], int]]
    split: Split
    trainer: Trainer
    sampler: Sampler
    check: Check
    uncertainty: Uncertainty
    selector: Selector
    augment: Callable[[Sequence[Frame], np.random.Generator], list[Frame]]
    labeler: Labeler
    reference: Reference | None
    walkers: Sequence[Walker]
    executors: Executors
    on_the_fly: OnTheFly | None = None

    def close(self) -> None:
        """End all that is under way."""
        self.labeler.close()
        self.executors.close()


@dataclass(frozen=True)
class Drive:
    """A round's exploration, under way or done: the walkers by number, and the quasi-static pull."""

    sample: Stage
    check: Stage
    walkers: dict[int, Task]
    pull: Task | None

    def path(self, walker: int) -> Trajectory | None:
        """A walker's trajectory once it is there; None if nothing of it is usable."""
        found = trajectory.load(self.walkers[walker].future.result())[0]
        return found if len(found) > 1 else None


class Loop:
    """One run: its folder, its stages, and what has been learnt so far."""

    def __init__(self, config: Any, run: RunFolder, stages: Stages, display: Display) -> None:
        self.config = config
        self.run = run
        self.stages = stages
        self.display = display
        self.watch = Watch(display)
        self.data: list[LabeledFrame] = []
        self.settings: dict[str, Mapping[str, Any]] = {}
        self.labels = 0
        self.trained: Trained | None = None
        self.believed = False
        self.thresholds: dict[int, float] = {}
        self.evidence: Evidence | None = None
        self.standing: dict[int, Snapshot] = {}
        self.rows: list[dict[str, Any]] = []

    def go(self) -> list[dict[str, Any]]:
        """Run to convergence, to the last round or to the end of the label budget; returns the rows of rounds.csv."""
        self.begin()
        for number in range(self.config.rounds):
            self.display.round(number, self.config.rounds)
            trained, train_s = self.train(number)
            trained, flown = self.fly(number, trained)
            drive = self.drive(number, trained.model)
            findings, label_s = self.check(number, trained.model, drive)
            self.evidence = findings.evidence
            trajectories, sample_s = self.driven(drive)
            row = {"round": number, **self.figures(number, findings, trajectories), **flown}
            row["training_overlap"] = trained.training_overlap
            converged = self.converged(row)
            last = converged or number + 1 == self.config.rounds or self.budget < self.config.check.path_frames
            if not last and self.stages.on_the_fly is None:
                label_s += self.extend(number, trajectories, findings)
            self.report({**row, "labels": self.labels, "train_s": train_s, "sample_s": sample_s, "label_s": label_s})
            if last or self.run.stop_requested:
                break
        self.run.finish(converged=converged, rounds=len(self.rows), labels=self.labels)
        return self.rows

    @property
    def budget(self) -> int:
        """Labels that may still be bought."""
        return int(self.config.labels.budget) - self.labels

    def begin(self) -> None:
        """The first data: dynamics with the label engine."""
        labeler = self.stages.labeler
        write_json(self.run.path / ENGINE, {"hash": labeler.hash, "settings": labeler.settings})
        stage = self.run.stage(-1, "data")
        if not stage.done:
            label = self.stages.executors.label
            frames, calls = self.do("initial data", stage, label, self.stages.initial, self.run.seed(-1, "initial"))
            dataset.write(stage.folder / DATA, frames, {labeler.hash: labeler.settings})
            stage.finish(labels=len(frames), engine_calls=calls)
        self.take(stage.folder / DATA, stage.summary["labels"])

    def train(self, number: int) -> tuple[Trained, float]:
        """Fit the committee to all labels, starting from the last one."""
        return self.fit(self.run.stage(number, "train", keep=True), self.stages.trainer, number)

    def fit(self, stage: Stage, trainer: Trainer, number: int, *update: int) -> tuple[Trained, float]:
        """A training of a round, or of an ``update`` within it, in a stage that goes on where it was."""
        previous = self.trained
        if not stage.done:
            best = previous.best if previous else None
            mask = previous.mask if previous else None
            mask = self.stages.split(len(self.data), mask, best, self.run.rng(number, "split", *update))
            seeds = [self.run.seed(0, "member", m) for m in range(len(mask))]
            seeds.append(self.run.seed(number, "batches", *update))
            self.do(
                "train", stage, self.stages.executors.train, trainer.train,
                self.data, mask, previous.model.parent if previous else None, stage.folder, seeds,
                dataset.content_hash(self.data),
            )  # fmt: skip
            stage.finish(frames=len(self.data))
        self.trained = trainer.load(stage.folder)
        for note in self.trained.notes:
            self.display.note(note)
        return self.trained, stage.seconds

    def fly(self, number: int, trained: Trained) -> tuple[Trained, dict[str, Any]]:
        """Drive and train by turns, if asked to: the newest committee, and the columns of rounds.csv."""
        self.standing, report = {}, dict[str, Any]()
        if self.stages.on_the_fly is not None:
            self.standing, report = fly(self, number, self.stages.on_the_fly)
        return self.trained or trained, report

    def drive(self, number: int, model: Path) -> Drive:
        """LAMMPS drives the event with the committee; with few walkers as long as the path is known to be wrong.

        The walker whose path is checked goes first, and the committee's quasi-static pull with it.
        """
        sample, check = self.run.stage(number, "sample", keep=True), self.run.stage(number, "check")
        executor, pull, walkers = self.stages.executors.sample, None, dict[int, Task]()
        if not check.done and self.stages.check.ends is not None:
            pull = self.watch.stage("rupture").start(executor, self.stages.check.pull_apart, check.folder, model)
        if not sample.done:
            team, bar = self.team, self.watch.stage("drive")
            previous = tuple(self.walker_folders(number - 1))
            for k in turned(len(team), number):
                place, report = walker_folder(sample, k), sample.folder / f".walker-{k:02d}.progress"
                walker = replace(team[k], previous=previous, resume=self.standing.get(k))
                walkers[k] = bar.start(executor, resume.drive, self.stages.sampler, model, place, walker, report=report)
        return Drive(sample, check, walkers, pull)

    @property
    def team(self) -> Sequence[Walker]:
        """The walkers of the round."""
        walkers = self.stages.walkers
        return walkers if self.believed else walkers[: self.config.check.scout_walkers]

    def walker_folders(self, number: int) -> list[Path]:
        """The folders that the walkers of a round have left, in their order; none before the first round."""
        return sorted((self.run.round_folder(number) / "sample").glob("walker-*")) if number >= 0 else []

    def driven(self, drive: Drive) -> tuple[list[Trajectory], float]:
        """All that the walkers saw, once they have all arrived."""
        stage = drive.sample
        if not stage.done:
            files = dict(zip(drive.walkers, self.watch.wait(*drive.walkers.values()), strict=True))
            found = [trajectory.load(files[k])[0] for k in sorted(files)]
            usable = [t for t in found if len(t) > 1]
            if not usable:
                raise SamplingError(f"no drive left a usable trajectory; the first: {found[0].note}")
            trajectory.save(stage.folder / TRAJECTORIES, usable)
            folders = [walker_folder(stage, t.walker) for t in usable]
            trajectory.save_profile(stage.folder / PROFILE, self.stages.sampler.barrier(folders, usable))
            for file in files.values():
                file.unlink()
            seconds = max(task.seconds for task in drive.walkers.values())
            stage.finish(seconds, notes=[f"walker {t.walker}: {t.note}" for t in found if t.note])
        for note in stage.summary["notes"]:
            self.display.note(note)
        return trajectory.load(stage.folder / TRAJECTORIES), stage.seconds

    def path(self, number: int, drive: Drive) -> Trajectory:
        """The trajectory that is checked: another walker's in every round, the next one's where it is not usable."""
        if drive.sample.done:
            there = {t.walker: t for t in trajectory.load(drive.sample.folder / TRAJECTORIES)}
            return there[next(k for k in turned(len(self.stages.walkers), number) if k in there)]
        for walker, task in drive.walkers.items():
            self.watch.wait(task)
            if (found := drive.path(walker)) is not None:
                return found
        return self.driven(drive)[0][0]  # which says that there is none

    def check(self, number: int, model: Path, drive: Drive) -> tuple[Findings, float]:
        """Compare committee and engine along this round's own path; the labels may join the data.

        A few frames go first: a path that they show to be wrong is not worth more labels.
        """
        stage, check = drive.check, self.stages.check
        if not stage.done:
            path = self.path(number, drive)
            began = time.monotonic()
            rows = check.path_rows(path, self.budget)
            scouts = check.scouts(rows)
            frames = [self.frame(number, path, row, PATH_ORIGIN) for row in scouts]
            labels = self.label("check", stage, frames)
            # these are evaluated where labels are computed, which is idle now
            at = self.stages.executors.label
            (believed,) = self.watch.wait(Task(at, check.believed, model, labelled(frames, labels)))
            telling = [] if drive.pull is None else self.watch.wait(drive.pull)[0]
            if believed:
                rest = [row for row in rows if row not in scouts]
                more = [self.frame(number, path, row, PATH_ORIGIN) for row in rest]
                more += [replace(frame, round=number) for frame in telling]
                more = more[: self.budget - len(frames)]
                labels += self.label("check", stage, more, len(frames))
                frames += more
            kept = self.keep(stage.folder, frames, labels)
            on_path = [f for f in kept if f.frame.origin == PATH_ORIGIN]
            self.watch.wait(Task(at, check.compare, stage.folder, model, on_path, path))
            seconds = time.monotonic() - began
            stage.finish(seconds, labels=len(frames), failed=len(frames) - len(kept), believed=believed)
        self.believed = stage.summary["believed"]
        self.take(stage.folder / DATA, stage.summary["labels"], join=self.config.check.join)
        return check.load(stage.folder), stage.seconds

    def figures(self, number: int, findings: Findings, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """The round's columns of rounds.csv."""
        profile = trajectory.load_profile(self.run.round_folder(number) / "sample" / PROFILE)
        if profile.note:
            self.display.note(profile.note)
        reference = self.stages.reference
        if reference is None:
            return figures(findings, profile)
        seeds = [t.seed for t in trajectories if not t.note]
        return figures(findings, profile, reference.barrier(self.stages.sampler, seeds), reference.rupture)

    def extend(self, number: int, trajectories: Sequence[Trajectory], findings: Findings) -> float:
        """Choose new frames, copy them with noise, label them."""
        stage = self.run.stage(number, "select")
        if not stage.done:
            learnt = 0 if self.trained is None else self.trained.mask.shape[1]
            evidence = replace(findings.evidence, frames=learnt, thresholds=self.thresholds)
            judged = self.stages.uncertainty.judge(trajectories, evidence)
            rng = self.run.rng(number, "select")
            # what the next round's check costs is not for sale
            room = max(0, self.budget - self.config.check.path_frames)
            chosen = self.stages.selector.select(judged, room, rng)
            rows = [selection_row(judged[k], row) for k, row in chosen]
            write_csv(stage.folder / "selection.csv", rows)
            frames = [self.frame(number, judged[k].trajectory, row, SELECTED_ORIGIN) for k, row in chosen]
            frames += self.stages.augment(frames, self.run.rng(number, "noise"))
            frames = frames[:room]
            kept = self.keep(stage.folder, frames, self.label("label", stage, frames))
            stage.finish(
                walkers=[item.trajectory.walker for item in judged],
                threshold=[item.threshold for item in judged],
                notes=list(dict.fromkeys(item.note for item in judged if item.note)),
                worthwhile=[int(item.worthwhile.sum()) for item in judged],
                rows=[len(item.trajectory) for item in judged],
                chosen=[list(pair) for pair in chosen],
                labels=len(frames),
                failed=len(frames) - len(kept),
            )
        self.thresholds = dict(zip(stage.summary["walkers"], stage.summary["threshold"], strict=True))
        for note in stage.summary["notes"]:
            self.display.note(note)
        if not stage.summary["chosen"]:
            self.display.note(nothing_chosen(sum(stage.summary["worthwhile"])))
        self.take(stage.folder / DATA, stage.summary["labels"])
        return stage.seconds

    def do(self, name: str, stage: Stage, executor: Executor, task: Callable[..., Any], *args: Any) -> Any:
        """Have something done by an executor that can say how far it is, and wait for it."""
        bar = self.watch.stage(name)
        return self.watch.wait(bar.start(executor, task, *args, report=stage.folder / ".progress"))[0]

    def label(self, name: str, stage: Stage, frames: Sequence[Frame], first: int = 0) -> list[Label | FailedLabel]:
        """Have frames labelled; what the engine leaves is kept in the stage's folder, numbered from ``first`` on."""
        if not frames:
            return []
        labels: list[Label | FailedLabel]
        batch: Pending = self.watch.stage(name).add(self.stages.labeler.submit(frames, stage.folder, first))
        (labels,) = self.watch.wait(batch)
        return labels

    def frame(self, number: int, source: Trajectory, row: int, origin: str) -> Frame:
        """A row of a trajectory as a frame with its provenance."""
        start: Frame = self.config.frame
        return replace(
            start,
            positions=source.positions[row],
            cell=source.cell(row, start.cell),
            origin=origin,
            round=number,
            walker=source.walker,
            step=int(source.steps[row]),
            cv=float(source.cv[row]),
        )

    def keep(self, folder: Path, frames: Sequence[Frame], labels: Sequence[Label | FailedLabel]) -> list[LabeledFrame]:
        """Write the labelled frames as a data delta, and a table of how every label went."""
        write_csv(
            folder / "labels.csv", [label_row(f, lab) for f, lab in zip(frames, labels, strict=True)], LABEL_COLUMNS
        )
        reasons = [lab.reason for lab in labels if isinstance(lab, FailedLabel)]
        if reasons:
            self.display.note(f"{len(reasons)} of {len(frames)} frames got no label: {reasons[0]}")
        kept = labelled(frames, labels)
        labeler = self.stages.labeler
        dataset.write(folder / DATA, kept, {labeler.hash: labeler.settings})
        return kept

    def take(self, path: Path, labels: int, join: bool = True) -> None:
        """Add a finished data delta to what is known; ``labels`` bought, failed ones included."""
        if join:
            self.data = [*self.data, *dataset.read(path)]
        self.settings |= dataset.settings(path)
        dataset.refuse_mixture(self.data, self.settings)
        self.labels += labels

    def converged(self, row: dict[str, Any]) -> bool:
        """Whether this round and those before it meet the limits often enough in a row."""
        row["met"] = meets(row, self.rows[-1] if self.rows else None, self.config.convergence)
        rounds = self.config.convergence.rounds
        return all(r["met"] for r in [*self.rows, row][-rounds:]) and len(self.rows) + 1 >= rounds

    def report(self, row: dict[str, Any]) -> None:
        """Write the round's row."""
        self.rows.append(row)
        self.run.append_round(row)
        self.display.row(row)


def labelled(frames: Sequence[Frame], labels: Sequence[Label | FailedLabel]) -> list[LabeledFrame]:
    """The frames that got a label."""
    return [LabeledFrame(f, lab) for f, lab in zip(frames, labels, strict=True) if isinstance(lab, Label)]


def label_row(frame: Frame, label: Label | FailedLabel) -> dict[str, Any]:
    """A row of ``labels.csv``."""
    row = {"origin": frame.origin, "walker": frame.walker, "step": frame.step, "cv": frame.cv}
    if isinstance(label, FailedLabel):
        return {**row, "failed": label.reason}
    largest = float(np.linalg.norm(label.forces, axis=1).max())
    how = {"seconds": label.seconds, "cached": label.cached, "note": label.note}
    return {**row, "energy_eV": label.energy, "largest_force_eV_A": largest, **how}


def turned(count: int, first: int) -> list[int]:
    """0 to ``count`` - 1, beginning with ``first`` modulo ``count``."""
    return [(first + k) % count for k in range(count)]


def selection_row(judged: Judged, row: int) -> dict[str, Any]:
    """A row of ``selection.csv``: which frame was chosen, and the disagreement that spoke for it."""
    source = judged.trajectory
    return {
        "walker": source.walker,
        "step": int(source.steps[row]),
        "cv": float(source.cv[row]),
        "energy_eV": float(source.energy[row]),
        "energy_std_eV": float(source.energy_std[row]),
        "score": float(judged.score[row]),
        "threshold": float(judged.thresholds[row]),
        "largest_force_std_eV_A": float(source.force_std[row]),
    }


def nothing_chosen(worthwhile: int) -> str:
    """Why a round has bought no frame, though ``worthwhile`` are above the threshold."""
    if not worthwhile:
        return "no frame above the threshold; the committee is at home all the way"
    return (
        f"none of the {worthwhile} frames above the threshold was chosen: the budget is spent, or they lie where the "
        "selection takes none, such as long after the event"
    )


def walker_folder(stage: Stage, number: int) -> Path:
    """Where a walker of a round's drive leaves its files."""
    return stage.folder / f"walker-{number:02d}"


def run_loop(config: Any, run: RunFolder, stages: Stages, display: Display) -> list[dict[str, Any]]:
    """Learn the event; see `Loop.go`."""
    loop = Loop(config, run, stages, display)
    with loop.watch:
        return loop.go()
