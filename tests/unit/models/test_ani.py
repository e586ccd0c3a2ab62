"""ANI keeps the contract of a model; tests/physics/test_ani.py compares it with TorchANI."""

from __future__ import annotations

import pytest

from rareal.models import ani
from rareal.testing.models import Build, ModelContract


class TestANI(ModelContract):
    @pytest.fixture
    def build(self) -> Build:
        config = ani.Config(hidden=dict.fromkeys(self.elements, (16, 16)))
        return lambda elements, seeds: ani.build(config, elements, seeds)
