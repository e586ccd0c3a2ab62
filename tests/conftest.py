"""For all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def label_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test finds labels of another session, or leaves any."""
    before = os.environ.get("RAREAL_CACHE")
    os.environ["RAREAL_CACHE"] = str(tmp_path_factory.mktemp("labels"))
    yield
    if before is None:
        del os.environ["RAREAL_CACHE"]
    else:
        os.environ["RAREAL_CACHE"] = before
