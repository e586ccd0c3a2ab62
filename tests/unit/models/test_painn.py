"""PaiNN keeps the contract of a model; tests/physics/test_painn.py compares it with SchNetPack."""

from __future__ import annotations

import pytest

from rareal.models import painn
from rareal.testing.models import Build, ModelContract


class TestPaiNN(ModelContract):
    rounding = (1e-6, 1e-14)

    @pytest.fixture
    def build(self) -> Build:
        config = painn.Config(features=16, layers=2, basis_functions=8, cutoff=4.0)
        return lambda elements, seeds: painn.build(config, elements, seeds)
