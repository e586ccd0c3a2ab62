"""The loop, as in Figure 1 of the rare-events paper: train, drive, check, select, label, until nothing moves.

Every stage writes into a folder of its own and is marked as finished; one that is marked is read back instead of done
again. What a stage does with random numbers comes from the run's root seed, the round and the stage's name alone, so
an interrupted run and an undisturbed one give the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rareal.check import Check, Findings, figures, meets
from rareal.data import dataset
from rareal.files import write_csv
from rareal.progress import Display
from rareal.protocols import Labeler, Progress, Sampler, Selector, Trainer
from rareal.records import FailedLabel, Frame, Label, LabeledFrame, Trained, Trajectory
from rareal.reference import Reference
from rareal.rundir import RunFolder
from rareal.sampling import trajectory

Split = Callable[[int, NDArray[np.bool_] | None, int | None, np.random.Generator], NDArray[np.bool_]]
"""(frames, last mask, last best member, random stream) -> training mask [M, F]."""

DATA, TRAJECTORIES = "data.h5", "trajectories.npz"
LABEL_COLUMNS = ("origin", "walker", "step", "cv", "energy_eV", "largest_force_eV_A", "seconds", "failed")
PATH_ORIGIN, SELECTED_ORIGIN = "path", "selected"


@dataclass(frozen=True)
class Stages:
    """The stages, built from the configuration by `rareal.build`.

    initial : (seed, progress) -> labelled frames to begin with, and how many engine calls they took.
    threshold : the energy std [eV] above which a frame is new to the committee.
    augment : noise copies of frames.
    reference : the engine's own figures, None where there are none yet.
    velocity_seeds : one pull per seed, the same in every round.
    """

    initial: Callable[[int, Progress], tuple[list[LabeledFrame], int]]
    split: Split
    trainer: Trainer
    sampler: Sampler
    check: Check
    threshold: Callable[[Sequence[Trajectory]], float]
    selector: Selector
    augment: Callable[[Sequence[Frame], np.random.Generator], list[Frame]]
    labeler: Labeler
    reference: Reference | None
    velocity_seeds: Sequence[int]


class Loop:
    """One run: its folder, its stages, and what has been learnt so far."""

    def __init__(self, config: Any, run: RunFolder, stages: Stages, display: Display) -> None:
        self.config = config
        self.run = run
        self.stages = stages
        self.display = display
        self.data: list[LabeledFrame] = []
        self.labels = 0
        self.trained: Trained | None = None
        self.believed = False
        self.rows: list[dict[str, Any]] = []

    def go(self) -> list[dict[str, Any]]:
        """Run to convergence, to the last round or to the end of the label budget; returns the rows of rounds.csv."""
        self.begin()
        for number in range(self.config.rounds):
            self.display.round(number, self.config.rounds)
            trained, train_s = self.train(number)
            trajectories, sample_s = self.drive(number, trained.model)
            findings, label_s = self.check(number, trained.model, trajectories)
            row = {"round": number, **figures(findings, trajectories, self.stages.reference)}
            row["training_overlap"] = trained.training_overlap
            converged = self.converged(row)
            last = converged or number + 1 == self.config.rounds or self.budget < self.config.check.path_frames
            if not last:
                label_s += self.extend(number, trajectories)
            self.report({**row, "labels": self.labels, "train_s": train_s, "sample_s": sample_s, "label_s": label_s})
            if last:
                break
        self.run.finish(converged=converged, rounds=len(self.rows), labels=self.labels)
        return self.rows

    @property
    def budget(self) -> int:
        """Labels that may still be bought."""
        return int(self.config.labels.budget) - self.labels

    def begin(self) -> None:
        """The first data: dynamics with the label engine."""
        stage = self.run.stage(-1, "data")
        if not stage.done:
            with self.display.stage("initial data") as progress:
                frames, calls = self.stages.initial(self.run.seed(-1, "initial"), progress)
            dataset.write(stage.folder / DATA, frames)
            stage.finish(labels=len(frames), engine_calls=calls)
        self.take(stage.folder / DATA, stage.summary["labels"])

    def train(self, number: int) -> tuple[Trained, float]:
        """Fit the committee to all labels, starting from the last one."""
        stage = self.run.stage(number, "train", keep=True)  # a training goes on where it was
        previous = self.trained
        if not stage.done:
            best = previous.best if previous else None
            mask = previous.mask if previous else None
            mask = self.stages.split(len(self.data), mask, best, self.run.rng(number, "split"))
            seeds = [self.run.seed(0, "member", m) for m in range(len(mask))] + [self.run.seed(number, "batches")]
            with self.display.stage("train") as progress:
                self.stages.trainer.train(
                    self.data, mask, previous.model.parent if previous else None, stage.folder, seeds,
                    dataset.content_hash(self.data), progress,
                )  # fmt: skip
            stage.finish(frames=len(self.data))
        self.trained = self.stages.trainer.load(stage.folder)
        for note in self.trained.notes:
            self.display.note(note)
        return self.trained, stage.seconds

    def drive(self, number: int, model: Path) -> tuple[list[Trajectory], float]:
        """LAMMPS drives the event with the committee; with few walkers as long as the path is known to be wrong."""
        stage = self.run.stage(number, "sample")
        if not stage.done:
            with self.display.stage("drive") as progress:
                seeds = self.stages.velocity_seeds
                if not self.believed:
                    seeds = seeds[: self.config.check.scout_walkers]
                trajectories = self.stages.sampler.sample(model, stage.folder, seeds, progress)
            trajectory.save(stage.folder / TRAJECTORIES, trajectories)
            stage.finish(notes=[f"walker {t.walker}: {t.note}" for t in trajectories if t.note])
        trajectories = trajectory.load(stage.folder / TRAJECTORIES)
        for note in stage.summary["notes"]:
            self.display.note(note)
        return trajectories, stage.seconds

    def check(self, number: int, model: Path, trajectories: Sequence[Trajectory]) -> tuple[Findings, float]:
        """Compare committee and engine along this round's own path; the labels may join the data.

        A few frames go first: a path that they show to be wrong is not worth more labels.
        """
        stage = self.run.stage(number, "check")
        check = self.stages.check
        if not stage.done:
            walker = number % len(trajectories)
            rows = check.path_rows(trajectories[walker], self.budget)
            scouts = check.scouts(rows)
            with self.display.stage("rupture"):
                telling = [replace(frame, round=number) for frame in check.pull_apart(stage.folder, model)]
            with self.display.stage("check") as progress:
                frames = [self.frame(number, trajectories, walker, row, PATH_ORIGIN) for row in scouts]
                labels = self.stages.labeler.label(frames, progress)
                believed = check.believed(model, labelled(frames, labels))
                if believed:
                    rest = [row for row in rows if row not in scouts]
                    more = [self.frame(number, trajectories, walker, row, PATH_ORIGIN) for row in rest]
                    more = (more + telling)[: self.budget - len(frames)]
                    labels += self.stages.labeler.label(more, progress) if more else []
                    frames += more
                kept = self.keep(stage.folder, frames, labels)
                on_path = [f for f in kept if f.frame.origin == PATH_ORIGIN]
                check.compare(stage.folder, model, on_path, trajectories[walker])
            stage.finish(labels=len(frames), failed=len(frames) - len(kept), believed=believed)
        self.believed = stage.summary["believed"]
        self.take(stage.folder / DATA, stage.summary["labels"], join=self.config.check.join)
        return check.load(stage.folder), stage.seconds

    def extend(self, number: int, trajectories: Sequence[Trajectory]) -> float:
        """Choose new frames, copy them with noise, label them."""
        stage = self.run.stage(number, "select")
        if not stage.done:
            limit = self.stages.threshold(trajectories)
            rng = self.run.rng(number, "select")
            # what the next round's check costs is not for sale
            room = max(0, self.budget - self.config.check.path_frames)
            chosen = self.stages.selector.select(trajectories, limit, room, rng)
            rows = [selection_row(trajectories[k], row, limit) for k, row in chosen]
            write_csv(stage.folder / "selection.csv", rows)
            frames = [self.frame(number, trajectories, k, row, SELECTED_ORIGIN) for k, row in chosen]
            frames += self.stages.augment(frames, self.run.rng(number, "noise"))
            frames = frames[:room]
            with self.display.stage("label") as progress:
                kept = self.keep(stage.folder, frames, self.stages.labeler.label(frames, progress) if frames else [])
            stage.finish(
                threshold=limit,
                chosen=[list(pair) for pair in chosen],
                labels=len(frames),
                failed=len(frames) - len(kept),
            )
        if not stage.summary["chosen"]:
            self.display.note("no frame above the threshold; the committee is at home all the way")
        self.take(stage.folder / DATA, stage.summary["labels"])
        return stage.seconds

    def frame(self, number: int, trajectories: Sequence[Trajectory], walker: int, row: int, origin: str) -> Frame:
        """A row of a trajectory as a frame with its provenance."""
        source = trajectories[walker]
        start: Frame = self.config.frame
        return replace(
            start,
            positions=source.positions[row],
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
        dataset.write(folder / DATA, kept)
        return kept

    def take(self, path: Path, labels: int, join: bool = True) -> None:
        """Add a finished data delta to what is known; ``labels`` bought, failed ones included."""
        if join:
            self.data = [*self.data, *dataset.read(path)]
        dataset.refuse_mixture(self.data)
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
    return {**row, "energy_eV": label.energy, "largest_force_eV_A": largest, "seconds": label.seconds}


def selection_row(source: Trajectory, row: int, threshold: float) -> dict[str, Any]:
    """A row of ``selection.csv``: which frame was chosen, and the disagreement that spoke for it."""
    return {
        "walker": source.walker,
        "step": int(source.steps[row]),
        "cv": float(source.cv[row]),
        "energy_eV": float(source.energy[row]),
        "energy_std_eV": float(source.energy_std[row]),
        "threshold_eV": threshold,
        "largest_force_std_eV_A": float(source.force_std[row]),
    }


def run_loop(config: Any, run: RunFolder, stages: Stages, display: Display) -> list[dict[str, Any]]:
    """Learn the event; see `Loop.go`."""
    return Loop(config, run, stages, display).go()
