"""The loop's own decisions, with stages that answer at once: budget, scouts, failures, convergence, resuming."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from rareal.barrier import Config as CheckConfig
from rareal.check import Check
from rareal.data import dataset
from rareal.data.augment import Config as NoiseConfig
from rareal.data.augment import noise_copies
from rareal.errors import DatasetError, SamplingError
from rareal.execution.serial import SerialExecutor
from rareal.files import read_csv, read_json
from rareal.loop import Executors, Loop, Stages
from rareal.progress import Silent
from rareal.protocols import Progress
from rareal.records import (
    Array,
    Evidence,
    FailedLabel,
    Frame,
    Judged,
    Label,
    LabeledFrame,
    Profile,
    Trained,
    Trajectory,
    Walker,
)
from rareal.rundir import RunFolder
from rareal.sampling import steered
from rareal.selection.paper import Config as PaperConfig
from rareal.selection.paper import PaperSelector
from rareal.testing.engines import Bond, MorseChain
from rareal.units import KCAL_MOL

NUMBERS = np.array([6, 6, 6])
START = Frame(NUMBERS, np.array([[0.0, 0.0, 0.0], [1.5, 0.05, 0.0], [3.0, 0.0, 0.0]]))
CHAIN = MorseChain((Bond(0, 1, 4.0, 1.9, 1.5), Bond(1, 2, 3.5, 1.9, 1.5)))


def pull(walker: int, seed: int, std: float, note: str) -> Trajectory:
    t = np.arange(1200)
    second = 1.5 + 3e-4 * t + 2.5 / (1 + np.exp(-(t - 800) / 12))
    positions = np.zeros((len(t), 3, 3))
    positions[:, 1, 0], positions[:, 2, 0] = 1.5, 1.5 + second
    energy = np.array([CHAIN.calculate(replace(START, positions=p))[0] for p in positions])
    disagreement = np.where(t < 1000, 0.001, 0.0) + np.where(t > 700, std, 0.0)
    zeros = np.zeros(len(t))
    return Trajectory(walker, seed, t, 1.5 + second, t / 200.0, energy, disagreement, zeros, positions, note)


def cut(trajectory: Trajectory) -> Trajectory:
    """Nothing of it is usable."""
    return trajectory.rows(slice(0), "crashed")


class Finished:
    """Labels that are there at once."""

    def __init__(self, labels: list[Label | FailedLabel]) -> None:
        self.future: Future[list[Label | FailedLabel]] = Future()
        self.future.set_result(labels)

    def progress(self) -> tuple[int, int]:
        return len(self.future.result()), len(self.future.result())


@dataclass
class World:
    """Stages whose behaviour a test sets, and what they were asked."""

    std: float = 0.1
    committee_error: list[float] = field(default_factory=lambda: [0.0])
    note: str = ""
    training_notes: tuple[str, ...] = ()
    failing: float = 0.0
    labelled: int = 0
    trained: int = 0
    seeds: list[Sequence[int]] = field(default_factory=list)
    frames: list[list[str]] = field(default_factory=list)
    lost: tuple[int, ...] = ()
    previous: list[tuple[Path, ...]] = field(default_factory=list)
    place: Path = Path()

    # trainer
    def train(self, data: Any, mask: Any, previous: Any, folder: Path, *rest: Any) -> Trained:
        self.trained += 1
        (folder / "model.pt").write_text(str(int(folder.parent.name[-3:])))
        return self.load(folder)

    def load(self, folder: Path) -> Trained:
        mask = np.array([[True, True, False, True], [True, False, True, True]])
        return Trained(folder / "model.pt", mask, 0, (0.0, 0.0), (0.0, 0.0), self.training_notes)

    # committee: wrong by so much per Å of the second bond, round by round
    def committee(self, model: Path) -> Any:
        number = int(model.read_text())
        error = self.committee_error[min(number, len(self.committee_error) - 1)]

        def energies_forces(frame: Frame) -> tuple[Array, Array]:
            energy, forces = CHAIN.calculate(frame)
            energy += error * float(np.linalg.norm(frame.positions[2] - frame.positions[1]))
            return np.array([energy, energy]), np.stack([forces, forces])

        return energies_forces

    # sampler
    thermal = False

    def barrier(self, folders: Sequence[Path], trajectories: Sequence[Trajectory]) -> Profile:
        assert [folder.name for folder in folders] == [f"walker-{t.walker:02d}" for t in trajectories]
        return steered.SteeredMD(steered.Config(), (), START).barrier(folders, trajectories)

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        # a round's walkers come one after the other
        if not self.seeds or folder.parent != self.place:
            self.seeds.append([])
        self.place = folder.parent
        self.seeds[-1].append(walker.seed)
        self.previous.append(walker.previous)
        found = pull(walker.number, walker.seed, self.std, self.note)
        return found if walker.number not in self.lost else cut(found)

    # uncertainty
    def judge(self, trajectories: Sequence[Trajectory], evidence: Evidence | None = None) -> list[Judged]:
        assert evidence is not None
        assert len(evidence.energy_error) == len(evidence.energy_std)
        return [Judged(t, t.energy_std, 0.05) for t in trajectories]

    # labeler
    hash = "morse"
    settings: ClassVar[dict[str, Any]] = {"bonds": 2}

    def submit(self, frames: Sequence[Frame], folder: Path, first: int = 0, may_fail: float | None = None) -> Any:
        return Finished(self.label(frames))

    def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
        self.labelled += len(frames)
        self.frames.append([f.origin for f in frames])
        every = round(1 / self.failing) if self.failing else 0
        return [
            FailedLabel("SCF did not converge") if every and k % every == 1 else Label(*CHAIN.calculate(f), "morse")
            for k, f in enumerate(frames)
        ]

    def close(self) -> None:
        """Nothing to close."""

    def initial(self, seed: int, progress: Progress) -> tuple[list[LabeledFrame], int]:
        self.labelled += 10
        return [LabeledFrame(replace(START, origin="initial"), Label(*CHAIN.calculate(START), "morse"))] * 10, 100


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def loop(world: World, folder: Path, **settings: Any) -> tuple[Loop, Notes]:
    values = {"rounds": 4, "budget": 400, "limit": 0.5 * KCAL_MOL, "join": True, "met": 2, **settings}
    check = CheckConfig.model_validate(
        {"path_frames": 24, "break_frames": 8, "scout_frames": 8, "rupture_frames": 4, "join": values["join"]}
    )
    config = SimpleNamespace(
        rounds=values["rounds"],
        frame=START,
        labels=SimpleNamespace(budget=values["budget"]),
        check=check,
        convergence=SimpleNamespace(path_error=values["limit"], barrier=10.0, rounds=values["met"]),
    )
    stages = Stages(
        initial=world.initial,
        split=lambda count, mask, best, rng: np.ones((2, count), dtype=bool),
        trainer=world,  # type: ignore[arg-type]
        sampler=world,
        check=Check(check, START, (0, 2), world.committee),
        uncertainty=world,
        selector=PaperSelector(PaperConfig(count=6, cv_spacing=0.0, energy_spacing=0.0)),
        augment=lambda frames, rng: noise_copies(frames, NoiseConfig(copies=1), rng),
        labeler=world,
        reference=None,
        walkers=[Walker(k, k + 1, START) for k in range(5)],
        executors=Executors(SerialExecutor(), SerialExecutor(), SerialExecutor()),
    )
    folder.mkdir(exist_ok=True)
    shown = Notes()
    run = RunFolder(folder, 1, SimpleNamespace(release=lambda: None))  # type: ignore[arg-type]
    return Loop(config, run, stages, shown), shown


def test_a_good_committee_converges(tmp_path: Path) -> None:
    world = World()
    run, _ = loop(world, tmp_path)
    rows = run.go()
    # the first round has no rupture to be compared with, so the second and the third are the two in a row
    assert [row["met"] for row in rows] == [False, True, True]
    assert rows[-1]["labels"] == world.labelled
    assert (tmp_path / "run.done").read_text().count("true") == 1
    with open(tmp_path / "rounds.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [int(row["labels"]) for row in table] == [row["labels"] for row in rows]


def test_a_wrong_path_gets_scouts_and_few_walkers_until_it_is_right(tmp_path: Path) -> None:
    world = World(committee_error=[5.0, 5.0, 0.0])
    run, _ = loop(world, tmp_path, rounds=4)
    run.go()
    assert [len(seeds) for seeds in world.seeds] == [2, 2, 2, 5]
    checks = [origins for origins in world.frames if "path" in origins or "rupture" in origins]
    assert [len(origins) for origins in checks[:3]] == [8, 8, 8]
    assert checks[3].count("path") == 16
    assert 1 <= checks[3].count("rupture") <= 4


def test_the_budget_is_never_passed_and_the_last_check_is_kept_for(tmp_path: Path) -> None:
    world = World()
    run, _ = loop(world, tmp_path, rounds=9, budget=100, limit=1e-9)
    rows = run.go()
    assert world.labelled == rows[-1]["labels"] <= 100
    assert rows[-1]["path_frames"] == 24
    assert len(rows) >= 2


def test_a_stop_file_ends_the_run_after_the_round_and_the_same_command_goes_on(tmp_path: Path) -> None:
    undisturbed = loop(World(), tmp_path / "undisturbed", limit=1e-9, rounds=3)[0].go()
    world = World()
    run, shown = loop(world, tmp_path / "stopped", limit=1e-9, rounds=3)
    (tmp_path / "stopped" / "STOP").touch()
    assert len(run.go()) == 1
    # the round is whole, its selection labelled
    assert (tmp_path / "stopped" / "round-000" / "select" / "stage.done").is_file()
    end = read_json(tmp_path / "stopped" / "run.done")
    assert (end["stopped"], end["converged"], end["rounds"]) == (True, False, 1)
    (tmp_path / "stopped" / "STOP").unlink()  # as opening the run folder does
    rows = loop(world, tmp_path / "stopped", limit=1e-9, rounds=3)[0].go()
    assert [row["labels"] for row in rows] == [row["labels"] for row in undisturbed]
    assert not read_json(tmp_path / "stopped" / "run.done")["stopped"]


def test_no_candidate_is_noted_and_survived(tmp_path: Path) -> None:
    world = World(std=0.0)
    run, shown = loop(world, tmp_path, limit=1e-9, rounds=3)
    rows = run.go()
    assert len(rows) == 3
    assert any("no frame above the threshold" in note for note in shown.notes)
    assert dataset.read(tmp_path / "round-000" / "select" / "data.h5") == []


def test_frames_above_the_threshold_that_nobody_takes_are_told(tmp_path: Path) -> None:
    run, shown = loop(World(), tmp_path, limit=1e-9, rounds=2)
    run.stages = replace(run.stages, selector=SimpleNamespace(select=lambda judged, count, rng: []))
    run.go()
    assert any(re.match(r"none of the \d+ frames above the threshold was chosen", note) for note in shown.notes)
    assert not any("at home" in note for note in shown.notes)


def test_failed_labels_are_counted_recorded_and_left_out(tmp_path: Path) -> None:
    world = World(failing=0.25)
    run, shown = loop(world, tmp_path, rounds=2, limit=1e-9)
    rows = run.go()
    assert rows[-1]["labels"] == world.labelled
    with open(tmp_path / "round-000" / "check" / "labels.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    failed = [row for row in table if row["failed"]]
    assert failed
    assert failed[0]["failed"] == "SCF did not converge"
    assert failed[0]["energy_eV"] == ""
    assert len(dataset.read(tmp_path / "round-000" / "check" / "data.h5")) == len(table) - len(failed)
    assert any("got no label: SCF did not converge" in note for note in shown.notes)
    assert np.isfinite(rows[-1]["path_error_kcal_mol"])


def test_every_label_failing_is_survived(tmp_path: Path) -> None:
    class Dead(World):
        def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
            self.labelled += len(frames)
            return [FailedLabel("no engine today")] * len(frames)

    rows = loop(Dead(), tmp_path, rounds=2)[0].go()
    assert len(rows) == 2
    assert np.isnan(rows[0]["path_error_kcal_mol"])
    assert not rows[1]["met"]


def test_a_trajectory_cut_short_is_noted_and_has_no_barrier(tmp_path: Path) -> None:
    run, shown = loop(World(note="lost atoms"), tmp_path, rounds=1)
    rows = run.go()
    assert any("walker 0: lost atoms" in note for note in shown.notes)
    assert np.isnan(rows[0]["barrier_eV"])


def test_checked_frames_stay_out_of_the_data_if_asked_to(tmp_path: Path) -> None:
    run, _ = loop(World(), tmp_path, rounds=2, join=False)
    run.go()
    assert {f.frame.origin for f in run.data} == {"initial", "selected", "noise"}


def test_training_notes_are_shown_and_the_overlap_of_the_training_sets_is_recorded(tmp_path: Path) -> None:
    run, shown = loop(World(training_notes=("2 of 9 labels cannot be right",)), tmp_path, rounds=1)
    run.go()
    assert "2 of 9 labels cannot be right" in shown.notes
    with open(tmp_path / "rounds.csv", newline="") as stream:
        assert [float(row["training_overlap"]) for row in csv.DictReader(stream)] == [0.5]


def test_an_unfinished_training_keeps_its_folder_and_other_stages_do_not(tmp_path: Path) -> None:
    for stage in ("train", "check"):
        (tmp_path / "round-000" / stage).mkdir(parents=True)
        (tmp_path / "round-000" / stage / "left").touch()
    loop(World(), tmp_path, rounds=1)[0].go()
    assert (tmp_path / "round-000" / "train" / "left").exists()
    assert not (tmp_path / "round-000" / "check" / "left").exists()


def test_selection_is_tabled(tmp_path: Path) -> None:
    loop(World(), tmp_path, rounds=2, limit=1e-9)[0].go()
    with open(tmp_path / "round-000" / "select" / "selection.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6
    assert all(float(row["energy_std_eV"]) > float(row["threshold"]) == 0.05 for row in rows)


@pytest.mark.parametrize("stage", ["train", "sample", "check", "select"])
def test_a_finished_stage_is_not_done_again(tmp_path: Path, stage: str) -> None:
    first = World()
    rows = loop(first, tmp_path, limit=1e-9, rounds=2)[0].go()
    # what an interruption in this stage of the last round leaves
    victim = tmp_path / ("round-001" if stage != "select" else "round-000") / stage
    (victim / "stage.done").unlink()
    again = World()
    repeated = loop(again, tmp_path, limit=1e-9, rounds=2)[0].go()
    assert again.trained == (stage == "train")
    assert len(again.seeds) == (stage == "sample")
    for before, after in zip(rows, repeated, strict=True):
        assert before["labels"] == after["labels"]
        assert before["path_error_kcal_mol"] == pytest.approx(after["path_error_kcal_mol"], nan_ok=True)


def test_an_engine_that_has_changed_is_told_by_rounds_and_settings(tmp_path: Path) -> None:
    loop(World(), tmp_path, rounds=1)[0].go()
    # as if the program behind the engine had been updated between two rounds
    stage = tmp_path / "round-000" / "check"
    rows = [replace(row, label=replace(row.label, engine="other")) for row in dataset.read(stage / "data.h5")]
    (stage / "data.h5").unlink()
    dataset.write(stage / "data.h5", rows, {"other": {"bonds": 3}})
    with pytest.raises(DatasetError) as caught:
        loop(World(), tmp_path, rounds=2)[0].go()
    assert "engine morse (bonds 2): 10 frames, of the initial data\n" in str(caught.value)
    assert f"engine other (bonds 3): {len(rows)} frames, of round 0\n" in str(caught.value)


def test_the_engine_s_settings_are_recorded(tmp_path: Path) -> None:
    loop(World(), tmp_path, rounds=1)[0].go()
    assert read_json(tmp_path / "engine.json") == {"hash": "morse", "settings": {"bonds": 2}}


def test_every_round_checks_another_walker_s_path_or_the_next_usable_one(tmp_path: Path) -> None:
    def checked(folder: Path, rounds: int) -> list[int]:
        tables = [folder / f"round-{number:03d}" / "check" / "labels.csv" for number in range(rounds)]
        return [next(row["walker"] for row in read_csv(table) if row["origin"] == "path") for table in tables]

    loop(World(), tmp_path / "all", rounds=3, limit=1e-9)[0].go()
    assert checked(tmp_path / "all", 3) == [0, 1, 2]
    run, shown = loop(World(lost=(1, 2)), tmp_path / "some", rounds=3, limit=1e-9)
    rows = run.go()
    assert checked(tmp_path / "some", 3) == [0, 3, 3]
    assert "walker 1: crashed" in shown.notes
    # as it does when the walkers are there already
    (tmp_path / "some" / "round-002" / "check" / "stage.done").unlink()
    again = loop(World(lost=(1, 2)), tmp_path / "some", rounds=3, limit=1e-9)[0].go()
    assert drop_times(again) == [pytest.approx(row, nan_ok=True) for row in drop_times(rows)]


def test_a_drive_without_any_usable_trajectory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="no drive left a usable trajectory; the first: crashed"):
        loop(World(lost=(0, 1, 2, 3, 4)), tmp_path)[0].go()


class Rendezvous(World):
    """The second walker arrives only after the first one's path has been labelled."""

    def meet(self) -> Rendezvous:
        self.labelling = threading.Event()
        self.pulling = threading.Event()
        return self

    def sample(self, model: Path, folder: Path, walker: Walker, progress: Progress | None = None) -> Trajectory:
        if walker.number:
            assert self.labelling.wait(30), "nothing was labelled while a walker was under way"
        return pull(walker.number, walker.seed, self.std, self.note)

    def label(self, frames: Sequence[Frame]) -> list[Label | FailedLabel]:
        self.labelling.set()
        return super().label(frames)


def test_labels_are_computed_while_walkers_are_driven(tmp_path: Path) -> None:
    expected = loop(World(), tmp_path / "serial", rounds=1)[0].go()
    run, _ = loop(Rendezvous().meet(), tmp_path / "parallel", rounds=1)
    with ThreadPoolExecutor(1) as label, ThreadPoolExecutor(3) as sample:
        executors = Executors(label, sample, SerialExecutor())
        run.stages = replace(run.stages, executors=executors)
        # the results are those of one after the other
        assert drop_times(run.go()) == [pytest.approx(row, nan_ok=True) for row in drop_times(expected)]


def drop_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]


def test_walkers_that_have_arrived_are_not_driven_again(tmp_path: Path) -> None:
    class Killed(World):
        def sample(self, model: Path, folder: Path, walker: Walker, *rest: Any) -> Trajectory:
            if walker.number == 1:
                raise KeyboardInterrupt
            return super().sample(model, folder, walker, *rest)

    expected = loop(World(), tmp_path / "whole", rounds=1)[0].go()
    with pytest.raises(KeyboardInterrupt):
        loop(Killed(), tmp_path / "killed", rounds=1)[0].go()
    again = World()
    rows = loop(again, tmp_path / "killed", rounds=1)[0].go()
    assert again.seeds == [[2]]
    assert drop_times(rows) == [pytest.approx(row, nan_ok=True) for row in drop_times(expected)]
    assert not list((tmp_path / "killed").rglob("walker-*/trajectory.npz")), "the round's archive holds them all"


def test_walkers_get_the_folders_of_the_round_before(tmp_path: Path) -> None:
    world = World()
    loop(world, tmp_path, rounds=2, limit=1e-9)[0].go()
    first, second = world.previous[:2], world.previous[-5:]
    assert set(first) == {()}
    assert {tuple(folder.name for folder in folders) for folders in second} == {("walker-00", "walker-01")}
    assert {folder.parent.parent.name for folder in second[0]} == {"round-000"}
