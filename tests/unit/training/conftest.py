"""Small trainings are fastest on one thread, and their tests must not hang on what else the machine does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rareal.training.trainer import threads


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threads(1):
        yield
