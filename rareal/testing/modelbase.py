"""What the contract tests of a model share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rareal.export import modelfile
from rareal.protocols import Targets
from rareal.records import Array, Frame
from rareal.testing.lammps import Lammps
from rareal.testing.systems import (
    Graph,
    cluster,
    predict,
    shaken,
)

Build = Callable[[Sequence[str], Sequence[int]], Any]

SEEDS = (11, 12, 13)


class ModelBase:
    """Fixtures and attributes; `rareal.testing.models.ModelContract` says what the attributes mean."""

    elements: tuple[str, ...] = ("C", "O", "H")
    training_dtype: torch.dtype = torch.float64
    single_precision: float = 1e-4
    rounding: tuple[float, float] = (0.0, 0.0)
    _made: dict[str, Any]

    def __init_subclass__(cls) -> None:
        cls._made = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, made once for all tests of the class."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @pytest.fixture
    def build(self) -> Build:
        """A function of (elements, seeds) that returns an untrained committee of one member per seed."""
        raise NotImplementedError("give your test class a fixture `build`, see rareal.testing.models")

    @pytest.fixture
    def model(self, build: Build) -> Any:
        """A committee of three that tests must leave as it is."""
        return self.once("model", lambda: build(self.elements, SEEDS).to(self.training_dtype))

    @pytest.fixture
    def script(self, model: Any) -> Any:
        """The exported committee in double precision."""
        return self.once("script", lambda: model.export(torch.float64))

    def frame(self) -> Frame:
        """A small molecule-like cluster."""
        return cluster(self.elements)

    def predict(self, script: Any, frame: Frame, model: Any) -> Any:
        """The exported committee on a frame without ghosts."""
        return predict(script, Graph.of(frame, self.elements, float(model.cutoff)))

    def train_forward(self, model: Any, frames: Sequence[Frame]) -> tuple[Array, Array]:
        """Energies [M, F] and forces [M, F, N, 3] as training sees them."""
        with torch.no_grad():
            energies, forces = model(model.features(frames))
        return energies.double().numpy(), forces.double().numpy()

    def targets(self, frames: Sequence[Frame], seed: int = 3) -> Targets:
        """Labels that mean nothing."""
        rng = np.random.default_rng(seed)
        shape = (len(frames), *frames[0].positions.shape)
        return Targets(
            energies=torch.from_numpy(rng.normal(size=len(frames))).to(self.training_dtype),
            forces=torch.from_numpy(rng.normal(size=shape)).to(self.training_dtype),
            weights=torch.ones(len(frames), dtype=self.training_dtype),
        )

    @pytest.fixture
    def paths(self, model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
        """Model files by precision."""

        def write() -> dict[str, Path]:
            folder = tmp_path_factory.mktemp("model")
            selves = [-10.0 * k for k in range(len(self.elements))]
            found = {dtype: folder / f"{dtype}.pt" for dtype in ("float64", "float32")}
            for dtype, path in found.items():
                modelfile.write(model, path, selves, dtype=dtype, check=shaken(self.frame(), 2))
            return found

        files: dict[str, Path] = self.once("paths", write)
        return files

    @pytest.fixture
    def lammps(self, tmp_path: Path) -> Lammps:
        """LAMMPS with this model's elements."""
        return Lammps(tmp_path, self.elements)
