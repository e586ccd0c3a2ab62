"""Exploration on the fly with stages that answer at once: order, labels, budget, failures, kills, and determinism."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_loop import CHAIN, START, Finished, World, drop_times, loop, pull

from rareal.check import Check
from rareal.data import dataset
from rareal.errors import LabelError
from rareal.execution.serial import SerialExecutor
from rareal.files import read_csv, read_json, write_npz
from rareal.labelled import read as read_labelled
from rareal.loop import Executors, Loop
from rareal.onthefly import HALTED_ORIGIN, Config, OnTheFly, Seen, history
from rareal.protocols import Progress
from rareal.records import FailedLabel, Frame, Label, Trained, Trajectory, Walker
from rareal.sampling.resume import SEGMENT
from rareal.sampling.trajectory import load
from rareal.uncertainty import fixed, threshold

STEPS = 1200
STRIDE = 200
"""Steps that a committee gets further for every frame at which a walker has halted."""


@cache
def path(walker: int, seed: int) -> Trajectory:
    return pull(walker, seed, 0.0, "")


class Halting(World):
    """Walkers of which walker k halts at step 250 + 10 k + `STRIDE` times the halted frames that were learnt from."""

    def reborn(self) -> Halting:
        self.parts: list[tuple[Any, ...]] = []
        self.updates: list[Path] = []
        self.allowed: list[float | None] = []
        return self

    def known(self, model: Path, walker: Walker) -> int:
        return 250 + 10 * walker.number + STRIDE * int(model.read_text())

    def train(self, data: Any, mask: Any, previous: Any, folder: Path, *rest: Any) -> Trained:
        self.trained += 1
        self.updates.append(folder)
        assert mask.shape[1] == len(data)
        (folder / "model.pt").write_text(str(sum(row.frame.origin == HALTED_ORIGIN for row in data)))
        return self.load(folder)

    def committee(self, model: Path) -> Any:
        return lambda frame: (np.full(2, CHAIN.calculate(frame)[0]), np.stack([CHAIN.calculate(frame)[1]] * 2))

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        whole = path(walker.number, walker.seed)
        whole = replace(whole, energy_std=np.where(whole.steps < self.known(model, walker), 0.001, 0.1))
        first = walker.resume.step if walker.resume is not None else 0
        last = min(STEPS - 1, STEPS if walker.until is None else walker.until)
        ending = "finished" if last == STEPS - 1 else "paused"
        good = last
        if walker.halt is not None:
            over = np.flatnonzero(whole.energy_std > walker.halt.above)
            if len(over) and max(over[0], first) + walker.halt.patience - 1 <= last:
                ending, good = "halted", int(over[0]) - 1
                last = max(int(over[0]), first) + walker.halt.patience - 1
        self.parts.append(
            (folder.parent.name, walker.number, first, last, walker.halt is not None, int(model.read_text()))
        )
        if walker.until is not None:
            where = {"positions": whole.positions[good], "velocities": np.zeros((3, 3)), "step": good, "interval": 1}
            write_npz(folder / SEGMENT, ending=ending, **(where if good >= first else {}))
        return whole.rows(slice(first, last + 1))

    def submit(self, frames: Sequence[Frame], folder: Path, first: int = 0, may_fail: float | None = None) -> Any:
        self.allowed.append(may_fail)
        return Finished(self.label(frames))


def flight(world: Halting, folder: Path, uncertainty: Any = None, **settings: Any) -> tuple[Loop, Any]:
    own = {key: settings.pop(key) for key in list(settings) if key in Config.model_fields}
    values = {"patience": 3, "stretch": 400, "labels": 12, **own}
    rule = uncertainty or fixed.FixedRule(fixed.Config(threshold=0.05), 3)
    run, shown = loop(world, folder, **{"rounds": 1, **settings})
    run.config.labels.max_failed_fraction = 0.2
    check = Check(run.config.check, START, None, world.committee)
    run.stages = replace(
        run.stages, check=check, on_the_fly=OnTheFly(Config.model_validate(values), rule, world), uncertainty=rule
    )  # type: ignore[arg-type]
    return run, shown


def fresh() -> Halting:
    return Halting().reborn()


def test_walkers_halt_are_labelled_and_go_on_with_the_newest_committee(tmp_path: Path) -> None:
    world = fresh()
    run, shown = flight(world, tmp_path, labels=40)
    (row,) = run.go()
    # two walkers, since the path is not believed yet; both halt, two frames are learnt, and so on
    assert world.parts[:4] == [
        ("update-000", 0, 0, 252, True, 0),
        ("update-000", 1, 0, 262, True, 0),
        ("update-001", 0, 249, 649, True, 2),
        ("update-001", 1, 259, 659, True, 2),
    ]
    # what they paused at is what they go on from
    assert world.parts[4:8] == [
        ("update-002", 0, 649, 652, True, 2),
        ("update-002", 1, 659, 662, True, 2),
        ("update-003", 0, 649, 1049, True, 4),
        ("update-003", 1, 659, 1059, True, 4),
    ]
    # in the end all have done their steps, and nobody needs to be driven again but to be put together
    finals = [part for part in world.parts if part[0] == "sample"]
    assert [part[1:] for part in finals] == [(0, 1199, 1199, False, 6), (1, 1199, 1199, False, 6)]
    assert (row["halts"], row["halted_labels"], row["updates"]) == (6, 6, 3)
    assert [folder.parent.name for folder in world.updates] == ["round-000", "update-000", "update-002", "update-004"]
    assert any("walker 0 at step 252, 1 at step 262 halted; 2 labels, threshold 0.05" in note for note in shown.notes)
    for trajectory in load(tmp_path / "round-000" / "sample" / "trajectories.npz"):
        assert trajectory.steps.tolist() == list(range(STEPS))
        np.testing.assert_array_equal(trajectory.positions, pull(0, 1, 0.0, "").positions)
        # what was driven in doubt has been replaced
        assert trajectory.energy_std.max() == 0.001
    # the last committee is the one that is checked, and what the next round goes on from
    assert run.trained is not None
    assert run.trained.model.parent.parent.name == "update-004"


def test_halted_frames_are_labels_like_all_others(tmp_path: Path) -> None:
    world = fresh()
    run, _ = flight(world, tmp_path, frames=2)
    (row,) = run.go()
    folder = tmp_path / "round-000" / "fly" / "update-000"
    frames = [item.frame for item in dataset.read(folder / "data.h5")]
    # the one at which it halted, and one between there and the last trusted one
    assert [(f.walker, f.step, f.origin) for f in frames] == [
        (0, 251, "halted"), (0, 252, "halted"), (1, 261, "halted"), (1, 262, "halted"),
    ]  # fmt: skip
    assert [(int(r["walker"]), int(r["step"])) for r in read_csv(folder / "labels.csv")] == [
        (f.walker, f.step) for f in frames
    ]
    assert row["labels"] == world.labelled
    (tmp_path / "config.yaml").touch()
    everything = read_labelled(tmp_path)[0]
    assert [f.frame.origin for f in everything] == [f.frame.origin for f in run.data]
    np.testing.assert_array_equal([f.frame.step for f in everything], [f.frame.step for f in run.data])


def test_when_the_labels_are_spent_walkers_go_to_their_end_without_halting(tmp_path: Path) -> None:
    world = fresh()
    (row,) = flight(world, tmp_path, labels=3)[0].go()
    assert row["halted_labels"] == 3
    # one label is left for two walkers: one flies
    assert [p[:2] for p in world.parts[2:]] == [("update-001", 0), ("update-002", 0), ("sample", 0), ("sample", 1)]
    assert [part[2:5] for part in world.parts[-2:]] == [(649, 1199, False), (259, 1199, False)]
    assert np.isfinite(row["barrier_eV"])
    assert row["updates"] == 2


def test_the_whole_run_s_budget_is_kept_and_the_check_s_share_of_it(tmp_path: Path) -> None:
    world = fresh()
    rows = flight(world, tmp_path, budget=10 + 24 + 3, labels=40, rounds=3, limit=1e-9)[0].go()
    assert rows[0]["halted_labels"] == 3
    assert world.labelled == rows[-1]["labels"] <= 37
    assert rows[0]["path_frames"] == 24


def test_no_frames_are_selected_beside_those_at_which_walkers_halted(tmp_path: Path) -> None:
    world = fresh()
    run, _ = flight(world, tmp_path, rounds=2, limit=1e-9)
    run.go()
    assert {f.frame.origin for f in run.data} == {"initial", "halted", "path"}
    assert not (tmp_path / "round-000" / "select").exists()


def test_a_limit_on_the_steps(tmp_path: Path) -> None:
    world = fresh()
    flight(world, tmp_path, labels=40, steps=500)[0].go()
    flown = [sum(p[3] - p[2] for p in world.parts if p[1] == k and p[4]) for k in (0, 1)]
    assert flown == [500, 500]
    assert [part[3] for part in world.parts[-2:]] == [1199, 1199]


def test_updates_wait_for_their_labels_but_not_for_ever(tmp_path: Path) -> None:
    world = fresh()
    flight(world, tmp_path, labels_per_update=100, labels=4)[0].go()
    # both have halted and would wait for each other: it is trained all the same
    assert [folder.parent.name for folder in world.updates] == ["round-000", "update-000", "update-002"]


def test_while_there_is_no_threshold_walkers_pause(tmp_path: Path) -> None:
    world = fresh()
    rule = threshold.ThresholdRule(threshold.Config(window=150), 3)
    flight(world, tmp_path, rule, stretch=100)[0].go()
    halting = [part[4] for part in world.parts if part[0] != "sample"]
    # 150 scores are there after the first stretch: 100 of each of two walkers
    assert halting[:4] == [False, False, True, True]
    markers = [read_json(tmp_path / "round-000" / "fly" / f"update-{k:03d}" / "stage.done") for k in range(2)]
    assert [[row["threshold"] for row in m["summary"]["walkers"]] for m in markers] == [
        [None, None], [pytest.approx(0.001)] * 2,
    ]  # fmt: skip


def test_a_threshold_of_one_s_own(tmp_path: Path) -> None:
    world = fresh()
    rule = threshold.ThresholdRule(threshold.Config(window=150, shared=False), 3)
    flight(world, tmp_path, rule, stretch=100)[0].go()
    assert [part[4] for part in world.parts if part[0] != "sample"][:6] == [False, False, False, False, True, True]


def test_scores_are_in_the_order_of_time() -> None:
    first = [Seen(0, np.arange(3.0), np.array([1.0, 2, 3])), Seen(1, np.arange(2.0), np.array([11.0, 12]))]
    second = [Seen(1, np.arange(1.0), np.array([13.0]))]
    assert history([first, second]).tolist() == [1, 11, 2, 12, 3, 13]
    assert history([first, second], 1).tolist() == [11, 12, 13]
    assert history([]).tolist() == []


class Dead(Halting):
    """No label of a frame of walker 1."""

    def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
        self.labelled += len(frames)
        return [
            FailedLabel("SCF did not converge")
            if f.origin == HALTED_ORIGIN and f.walker == 1
            else Label(*CHAIN.calculate(f), "morse")
            for f in frames
        ]


def test_a_halted_frame_without_a_label_is_survived_and_counted(tmp_path: Path) -> None:
    world = Dead().reborn()
    run, shown = flight(world, tmp_path, labels=4)
    (row,) = run.go()
    # a batch of one frame may fail, one of many may not
    assert world.allowed == [1.0, 1.0, 1.0, 1.0, None, None]
    assert row["halted_labels"] == 4
    assert row["labels"] == world.labelled
    assert [f.frame.walker for f in run.data if f.frame.origin == HALTED_ORIGIN] == [0, 0]
    assert any("got no label: SCF did not converge" in note for note in shown.notes)


def test_a_walker_that_brings_nothing_new_does_not_halt_there_again_and_again(tmp_path: Path) -> None:
    class Never(Halting):
        def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
            if frames and frames[0].origin == HALTED_ORIGIN:
                self.labelled += len(frames)
                return [FailedLabel("no engine today")] * len(frames)
            return super().label(frames)

    world = Never().reborn()
    (row,) = flight(world, tmp_path, labels=40)[0].go()
    # nobody has learnt anything: there is no sense in going on
    assert (row["halts"], row["halted_labels"], row["updates"]) == (2, 2, 0)
    assert world.trained == 1


def test_too_many_failures_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="3 of 6 frames at which walkers halted in round 0 got no label.*labels.csv"):
        flight(Dead().reborn(), tmp_path, labels=40)[0].go()


def snapshot(folder: Path) -> dict[str, Any]:
    """What a run has computed."""
    frames = [dataset.read(path) for path in sorted(folder.rglob("data.h5"))]
    return {
        "labels": [(f.frame.origin, f.frame.walker, f.frame.step, f.label.energy) for delta in frames for f in delta],
        "tables": {str(p.relative_to(folder)): read_csv(p) for p in sorted(folder.rglob("labels.csv"))},
    }


@pytest.mark.parametrize("event", range(0, 12, 2))
def test_killed_anywhere_it_goes_on_to_the_same_results(tmp_path: Path, event: int) -> None:
    """At the n-th thing that is asked of any stage the run is killed."""

    class Killed(Halting):
        def count(self) -> None:
            self.events = getattr(self, "events", 0) + 1
            if self.events > event + 3:  # the initial data and the first training are tested elsewhere
                raise KeyboardInterrupt

        def train(self, *args: Any) -> Trained:
            self.count()
            return super().train(*args)

        def sample(self, *args: Any, **more: Any) -> Trajectory:
            self.count()
            return super().sample(*args, **more)

        def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
            self.count()
            return super().label(frames)

    expected = flight(fresh(), tmp_path / "whole")[0].go()
    with pytest.raises(KeyboardInterrupt):
        flight(Killed().reborn(), tmp_path / "killed")[0].go()
    again = fresh()
    rows = flight(again, tmp_path / "killed")[0].go()
    assert drop(rows) == [pytest.approx(row, nan_ok=True) for row in drop(expected)]
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")
    whole, killed = (
        load(tmp_path / name / "round-000" / "sample" / "trajectories.npz") for name in ("whole", "killed")
    )
    for one, other in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(one.steps, other.steps)
        np.testing.assert_array_equal(one.energy_std, other.energy_std)


def drop(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return drop_times(rows)


def test_finished_stretches_are_not_driven_again_even_with_another_budget(tmp_path: Path) -> None:
    expected = flight(fresh(), tmp_path, labels=3, labels_per_update=2, budget=200)[0].go()
    again = fresh()
    rows = flight(again, tmp_path, labels=3, labels_per_update=2, budget=400)[0].go()
    assert (again.parts, again.trained, again.labelled) == ([], 0, 0)
    assert drop(rows) == [pytest.approx(row, nan_ok=True) for row in drop(expected)]


class Meeting(Halting):
    """Walker 1 arrives only after a label of walker 0 has been asked for."""

    def reborn(self) -> Meeting:
        super().reborn()
        self.asked = threading.Event()
        return self

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        if walker.number == 1:
            assert self.asked.wait(30), "nothing was labelled while a walker was under way"
        return super().sample(model, folder, walker, progress)

    def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
        self.asked.set()
        return super().label(frames)


class Racing(Halting):
    """The first walker is always the last one to arrive."""

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        found = super().sample(model, folder, walker, progress)
        if walker.number == 0:
            threading.Event().wait(0.05)
        return found


@pytest.mark.parametrize("kind", [Meeting, Racing])
def test_labels_are_computed_while_others_fly_and_the_order_of_arrival_does_not_matter(
    tmp_path: Path, kind: type[Halting]
) -> None:
    expected = flight(fresh(), tmp_path / "serial")[0].go()
    run, _ = flight(kind().reborn(), tmp_path / "parallel")
    with ThreadPoolExecutor(1) as label, ThreadPoolExecutor(3) as sample:
        run.stages = replace(run.stages, executors=Executors(label, sample, SerialExecutor()))
        rows = run.go()
    assert drop(rows) == [pytest.approx(row, nan_ok=True) for row in drop(expected)]
    assert snapshot(tmp_path / "parallel") == snapshot(tmp_path / "serial")
