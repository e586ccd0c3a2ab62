"""The training section of the YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from rareal.config import load
from rareal.errors import ConfigError
from rareal.training.config import Config, Cosine, Huber, Plateau, RareEvents, Soften, TrustAll

EXAMPLES = Path(__file__).parents[3] / "examples" / "hexane"


def test_defaults() -> None:
    config = Config()
    assert isinstance(config.loss, RareEvents)
    assert isinstance(config.schedule, Cosine)
    assert isinstance(config.outliers, Soften)


def test_kinds_by_name_by_keys_and_by_default() -> None:
    config = Config.model_validate(
        {"loss": "huber", "schedule": {"kind": "plateau", "patience": 2}, "outliers": {"force": "50 eV/angstrom"}}
    )
    assert config.loss == Huber()
    assert config.schedule == Plateau(patience=2)
    assert config.outliers == Soften(force=50.0)
    assert Config.model_validate({"outliers": False}).outliers == TrustAll()
    assert Config.model_validate(config.model_dump(mode="json")) == config
    assert Config.model_validate({"memory": "2 GB"}).memory == 2e9


def test_optimizer_without_the_weights_it_moved_is_refused() -> None:
    with pytest.raises(ValidationError, match="keep_optimizer needs warm_start"):
        Config(keep_optimizer=True, warm_start=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{loss: {kind: schnet, energy_weight: 3}}",
            r"loss\.energy_weight: 3: unknown key; valid here: kind, rho$",
        ),
        ("{schedule: sawtooth}", "there is no kind 'sawtooth'; use cosine, onecycle, plateau, constant"),
        ("{loss: {kind: huber, force_delta: 0}}", r"training\.loss\.force_delta: 0: out of range"),
        ("{device: gpu}", r"training\.device: 'gpu'"),
    ],
)
def test_mistakes_are_named_with_the_keys_of_the_kind(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hexane.xyz").write_bytes((EXAMPLES / "hexane.xyz").read_bytes())
    path = tmp_path / "wrong.yaml"
    path.write_text(f"structure: hexane.xyz\ncv: {{kind: distance, atoms: [1, 6]}}\ntraining: {text}\n")
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_off_in_yaml_is_off(tmp_path: Path) -> None:
    (tmp_path / "hexane.xyz").write_bytes((EXAMPLES / "hexane.xyz").read_bytes())
    path = tmp_path / "off.yaml"
    path.write_text("structure: hexane.xyz\ncv: {kind: distance, atoms: [1, 6]}\ntraining: {outliers: off}\n")
    config = load(path)
    assert config.training.outliers == TrustAll()  # type: ignore[attr-defined]


def test_reading_a_configuration_needs_no_torch() -> None:
    code = "import sys, rareal.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
