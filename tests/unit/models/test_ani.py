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


class TestANIOfOtherDescriptors(ModelContract):
    """Numbers of terms that are no whole vectors of the native operators."""

    @pytest.fixture
    def build(self) -> Build:
        config = ani.Config(
            hidden=dict.fromkeys(self.elements, (16, 16)),
            radial=ani.Radial(cutoff=4.6, eta=16.0, shifts=11),
            angular=ani.Angular(cutoff=3.2, eta=8.0, zeta=32.0, shifts=3, sections=7),
        )
        return lambda elements, seeds: ani.build(config, elements, seeds)
