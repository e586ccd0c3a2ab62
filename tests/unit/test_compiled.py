"""`rareal export MODEL -o MODEL.pt2`: what it refuses. What it makes is tested in tests/pair_style/test_package.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rareal.cli import app
from rareal.compiled import compile_file
from rareal.errors import ConfigError, InstallationError, ModelFileError
from rareal.export.modelfile import Committee, write
from rareal.models import ani, restored, script
from rareal.untrained import write_untrained


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    write_untrained(path, "ani", ["C", "H"], 2, "float64", 1)
    return path


@pytest.mark.parametrize("kind", ["ani", "painn", "schnet"])
def test_restored_module_is_the_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    write_untrained(path, kind, ["C", "H"], 3, "float64", 5)
    loaded = Committee.load(path).model
    module = restored.restore(kind, loaded)
    species, edges = torch.tensor([0, 1, 1, 0]), torch.tensor([[0, 0, 1, 2], [1, 2, 0, 0]])
    vectors = torch.tensor([[1.0, 0.2, 0.1], [-0.3, 0.9, 0.2], [-1.0, -0.2, -0.1], [0.3, -0.9, -0.2]]).double()
    for found, expected in zip(module(species, edges, vectors, 3), loaded(species, edges, vectors, 3), strict=True):
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_without_a_compiler(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(InstallationError, match=r"there is no C\+\+ compiler '/nowhere/g\+\+'.*install g\+\+"):
        compile_file(model, model.with_suffix(".pt2"))
    assert not model.with_suffix(".pt2").exists()


def test_random_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--random` with a .pt2 name compiles an untrained committee of these settings."""
    compiled = []

    def note(source: Path, target: Path, device: str) -> None:
        compiled.append((Committee.load(source).metadata, target, device))

    monkeypatch.setattr("rareal.compiled.compile_file", note)
    arguments = ["--random", "--model", "schnet", "--members", "3", "--elements", "H,O", "--dtype", "float64"]
    found = CliRunner().invoke(app, ["export", *arguments, "-o", str(tmp_path / "new.pt2")])
    assert found.exit_code == 0, found.output
    ((metadata, target, device),) = compiled
    assert (metadata.architecture, metadata.members, metadata.elements) == ("schnet", 3, ("H", "O"))
    assert (metadata.dtype, target, device) == ("float64", tmp_path / "new.pt2", "cpu")


def test_models_of_others(tmp_path: Path) -> None:
    config = script.Config(module="rareal.testing.morse:build", cutoff=4.0)
    write(script.build(config, ("C", "H"), [1, 2]), tmp_path / "morse.pt", [0.0, 0.0], dtype="float32")
    with pytest.raises(ModelFileError, match=r"'script' models, .* torch\.export needs their Python code.*ani, painn"):
        compile_file(tmp_path / "morse.pt", tmp_path / "morse.pt2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_for_a_gpu_that_is_not_there(model: Path) -> None:
    with pytest.raises(InstallationError, match="--device cuda needs a GPU"):
        compile_file(model, model.with_suffix(".pt2"), "cuda")


def test_arguments(model: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken.pt2"
    taken.write_text("mine")
    with pytest.raises(ConfigError, match="taken.pt2 exists already"):
        compile_file(model, taken)
    with pytest.raises(ConfigError, match="--device tpu: use cpu or cuda"):
        compile_file(model, tmp_path / "new.pt2", "tpu")
    for arguments, message in (
        ([str(model), "-o", "new.pt"], "whose name ends in .pt2"),
        (["-o", "new.pt2"], "name a run or a model file, or say --random"),
        ([str(model), "--random", "-o", "new.pt2"], "one of the two"),
    ):
        found = CliRunner().invoke(app, ["export", *arguments])
        assert isinstance(found.exception, ConfigError)
        assert message in str(found.exception)


def test_ani_is_what_the_trained_model_says(tmp_path: Path) -> None:
    """Standardisation is folded into the weights before anything is compiled."""
    model = ani.build(ani.Config(hidden={"C": (8,), "H": (8,)}), ("C", "H"), [1, 2])
    model.mean += 0.1
    model.scale *= 3.0
    write(model, tmp_path / "model.pt", [0.0, 0.0], dtype="float64")
    module = restored.restore("ani", Committee.load(tmp_path / "model.pt").model)
    species, edges = torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 0]])
    vectors = torch.tensor([[1.1, 0.0, 0.0], [-1.1, 0.0, 0.0]]).double()
    expected = model.export(torch.float64)(species, edges, vectors, 2)
    torch.testing.assert_close(module(species, edges, vectors, 2), expected, rtol=0, atol=1e-12)
