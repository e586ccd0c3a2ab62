"""`rareal train` and `rareal evaluate` from end to end, on a molecule of springs, and what they refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from rareal import cli
from rareal.config import load_training
from rareal.data import dataset
from rareal.export.modelfile import Committee
from rareal.files import read_csv, read_json, write_json
from rareal.lock import NAME
from rareal.records import Frame, Label, LabeledFrame

REST = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
YAML = """
seed: 3
model: {kind: ani, hidden: {O: [24, 16], H: [24, 16]}}
training: {members: 2, epochs: 40, batch_size: 8, threads: 1}
split: {kind: random, train_fraction: 0.8}
"""


def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
    energy, forces = -140.0, np.zeros((3, 3))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        bond = positions[j] - positions[i]
        length, rest = np.linalg.norm(bond), np.linalg.norm(REST[j] - REST[i])
        energy += 10.0 * (length - rest) ** 2
        forces[i] += 20.0 * (length - rest) * bond / length
        forces[j] -= 20.0 * (length - rest) * bond / length
    return float(energy), forces


def shaken(count: int, seed: int) -> list[LabeledFrame]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        positions = REST + rng.uniform(-0.1, 0.1, (3, 3))
        energy, forces = springs(positions)
        frames.append(LabeledFrame(Frame(np.array([8, 1, 1]), positions), Label(energy, forces, "springs")))
    return frames


def write_xyz(path: Path, frames: list[LabeledFrame]) -> None:
    images = []
    for item in frames:
        atoms = Atoms(item.frame.numbers, item.frame.positions)
        atoms.calc = SinglePointCalculator(atoms, energy=item.label.energy, forces=item.label.forces)
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a YAML and 60 frames in it."""
    (tmp_path / "train.yaml").write_text(YAML)
    dataset.write(tmp_path / "data.h5", shaken(60, 0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Command:
    """Runs `rareal` in this process, as the entry point does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["rareal", *arguments])
        self._capsys.readouterr()
        threads = torch.get_num_threads()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        torch.set_num_threads(threads)
        out, error = self._capsys.readouterr()
        return int(caught.value.code or 0), out, error


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_train_then_evaluate(case: Path, command: Command) -> None:
    code, out, error = command("train", "train.yaml", "data.h5", "-o", "springs.pt")
    assert (code, error) == (0, "")
    for part in ("member 2", "kcal/mol/Å", "60 frames", "Model in springs.pt"):
        assert part in out
    committee = Committee.load(case / "springs.pt")
    assert (committee.metadata.elements, committee.metadata.members) == (("O", "H"), 2)
    assert committee.metadata.dataset_hash == dataset.content_hash(dataset.read(case / "data.h5"))
    assert read_csv(case / "springs.training" / "learning_curve.csv")[-1]["epoch"] == 40
    mask = np.load(case / "springs.training" / "split.npz")["train"]
    assert mask.sum(1).tolist() == [48, 48]
    assert not np.array_equal(mask[0], mask[1])

    write_xyz(case / "others.xyz", shaken(40, 9))
    code, out, error = command("evaluate", "springs.pt", "others.xyz", "--json", "--plots", "figures")
    assert (code, error) == (0, "")
    numbers = json.loads(out)
    assert (numbers["model"], numbers["dataset"], numbers["frames"]) == ("springs.pt", "others.xyz", 40)
    assert len(numbers["members"]) == 2
    # it has learnt: the labels of these frames spread by 5 kcal/mol and 20 kcal/mol/Å
    assert numbers["energy_mae_kcal_mol"] < 1.5
    assert numbers["forces_mae_kcal_mol_A"] < 6
    assert numbers["energy_mae_kcal_mol"] <= numbers["energy_rmse_kcal_mol"] <= numbers["energy_max_kcal_mol"]
    assert (case / "figures" / "parity.png").is_file()
    assert (case / "figures" / "calibration.png").is_file()
    code, out, _ = command("evaluate", "springs.pt", "others.xyz", "--quiet")
    assert code == 0
    assert f"{numbers['energy_mae_kcal_mol']:.4g}" in out
    assert "springs.pt on others.xyz: 40 frames, 120 atoms" in out


def quick(case: Path) -> None:
    (case / "train.yaml").write_text(YAML.replace("epochs: 40", "epochs: 2"))


def weights(path: Path) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in Committee.load(path).model.state_dict().values()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_seed_dtype_and_elements(case: Path, command: Command) -> None:
    quick(case)
    assert command("train", "train.yaml", "data.h5", "-o", "a.pt", "--quiet") == (0, "", "")
    command("train", "train.yaml", "data.h5", "-o", "b.pt", "--quiet")
    command("train", "train.yaml", "data.h5", "-o", "c.pt", "--quiet", "--seed", "4")
    assert same(weights(case / "a.pt"), weights(case / "b.pt"))
    assert not same(weights(case / "a.pt"), weights(case / "c.pt"))
    with (case / "train.yaml").open("a") as stream:
        stream.write("dtype: float64\nelements: [C, O, H]\n")
    assert command("train", "train.yaml", "data.h5", "-o", "d.pt")[0] == 0
    metadata = Committee.load(case / "d.pt").metadata
    assert (metadata.dtype, metadata.elements) == ("float64", ("C", "O", "H"))


def test_a_finished_model_is_kept_unless_forced(case: Path, command: Command) -> None:
    quick(case)
    assert command("train", "train.yaml", "data.h5", "-o", "a.pt")[0] == 0
    before = (case / "a.pt").read_bytes()
    code, out, error = command("train", "train.yaml", "data.h5", "-o", "a.pt", "--seed", "8")
    assert (code, out) == (1, "")
    assert "a.pt exists already; train anew with --force" in error
    assert (case / "a.pt").read_bytes() == before
    assert command("train", "train.yaml", "data.h5", "-o", "a.pt", "--seed", "8", "--force")[0] == 0
    assert (case / "a.pt").read_bytes() != before


def test_an_unfinished_training_goes_on_and_no_other_does(case: Path, command: Command) -> None:
    quick(case)
    assert command("train", "train.yaml", "data.h5", "-o", "a.pt")[0] == 0
    expected = weights(case / "a.pt")
    (case / "a.pt").unlink()
    code, _, error = command("train", "train.yaml", "data.h5", "-o", "a.pt", "--seed", "8")
    assert code == 1
    assert "a.training holds an unfinished training with other data or another configuration" in error
    assert command("train", "train.yaml", "data.h5", "-o", "a.pt")[0] == 0
    assert same(weights(case / "a.pt"), expected)
    (case / "a.pt").unlink()
    write_json(case / "a.training" / NAME, {"pid": 1, "host": "elsewhere"})
    code, _, error = command("train", "train.yaml", "data.h5", "-o", "a.pt")
    assert code == 1
    assert "process 1 on elsewhere is working in this" in error


def test_ctrl_c_is_no_traceback(case: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rareal.training.trainer.CommitteeTrainer.train", stop)
    code, _, error = command("train", "train.yaml", "data.h5", "-o", "a.pt")
    assert code == 130
    assert error.strip() == "Stopped. The same command goes on from here."
    assert read_json(case / "a.training" / "task.json")["config"]["seed"] == 3


def test_a_folder_of_something_else_is_left_alone(case: Path, command: Command) -> None:
    (case / "a.training").mkdir()
    (case / "a.training" / "precious.txt").write_text("x")
    for force in ([], ["--force"]):
        code, _, error = command("train", "train.yaml", "data.h5", "-o", "a.pt", *force)
        assert code == 1
        assert "a.training holds other files" in error
    assert (case / "a.training" / "precious.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.yaml", "data.h5", "-o", "a.pt"], 2, "none.yaml: there is no such file"),
        (["train", "wrong.yaml", "data.h5", "-o", "a.pt"], 2, "wrong.yaml:2: training.membrs: 3: unknown key, did you"),
        (["train", "train.yaml", "none.h5", "-o", "a.pt"], 1, "none.h5: there is no such file"),
        (["train", "train.yaml", "data.h5", "-o", "no/where/a.pt"], 1, "there is no such folder for a.pt"),
        (["train", "train.yaml", "data.h5", "-o", "."], 1, "is a folder; give the name of a file"),
        (["train", "few.yaml", "data.h5", "-o", "a.pt"], 1, "the data hold O, which the YAML's `elements` do not name"),
        (["train", "train.yaml", "train.yaml", "-o", "a.pt"], 1, "ASE cannot read train.yaml"),
        (["train", "train.yaml", "data.h5", "-o", "a.pt", "--units", "eV"], 1, "the file states its own units"),
        (["evaluate", "none.pt", "data.h5"], 1, "none.pt: no such model file"),
        (["evaluate", "train.yaml", "data.h5"], 1, "train.yaml is no archive of PyTorch"),
        (["evaluate", "train.yaml", "none.h5"], 1, "none.h5: there is no such file"),
    ],
)
def test_bad_input_is_one_message(case: Path, command: Command, arguments: list[str], code: int, message: str) -> None:
    (case / "wrong.yaml").write_text("seed: 1\ntraining: {membrs: 3}\n")
    (case / "few.yaml").write_text(YAML + "elements: [H]\n")
    before = sorted(case.rglob("*"))
    found, _, error = command(*arguments)
    assert found == code
    assert error.startswith("Error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(case.rglob("*")) == before


def test_training_on_top_of_a_repulsive_core(case: Path, command: Command) -> None:
    quick(case)
    with (case / "train.yaml").open("a") as stream:
        stream.write("repulsion: zbl\n")
    assert command("train", "train.yaml", "data.h5", "-o", "core.pt", "--quiet") == (0, "", "")
    committee = Committee.load(case / "core.pt")
    squeezed = Frame(np.array([8, 1, 1]), REST * 0.2)
    # tens of eV above the molecule at rest: nothing but the core knows so after two epochs
    assert (
        committee.energies_forces(squeezed)[0] - committee.energies_forces(Frame(np.array([8, 1, 1]), REST))[0] > 30
    ).all()


@pytest.mark.parametrize("name", ["train-ani.yaml", "train-painn.yaml", "hexane.yaml", "paper.yaml", "schnet.yaml"])
def test_examples_are_configurations_of_a_training(name: str) -> None:
    config = load_training(Path(__file__).parents[2] / "examples" / "hexane" / name)
    assert config.module("model").__name__ in ("rareal.models.ani", "rareal.models.painn", "rareal.models.schnet")


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on(case: Path) -> None:
    """It ends with the weights of an undisturbed one."""
    text = YAML.replace("epochs: 40", "epochs: 60, checkpoint_every: 0 s")
    (case / "train.yaml").write_text(text)
    arguments = [sys.executable, "-m", "rareal", "train", "train.yaml", "data.h5", "--quiet", "-o"]
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    process = subprocess.Popen([*arguments, "killed.pt"], env=environment)
    curve = case / "killed.training" / "learning_curve.csv"
    deadline = time.monotonic() + 60
    while not (curve.is_file() and len(curve.read_text().splitlines()) > 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (case / "killed.pt").exists()
    assert 10 <= read_csv(curve)[-1]["epoch"] < 60
    assert (case / "killed.training" / "progress.pt").is_file()
    subprocess.run([*arguments, "killed.pt"], env=environment, check=True)
    subprocess.run([*arguments, "whole.pt"], env=environment, check=True)
    assert same(weights(case / "killed.pt"), weights(case / "whole.pt"))
    assert [row["epoch"] for row in read_csv(curve)] == list(range(5, 61, 5))
