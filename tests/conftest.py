"""What all tests share: a label cache of their own, and a summary of what was not there to be tested."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from commandline import Command


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


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`rareal` as the entry point runs it: exit code, output, errors."""
    return Command(monkeypatch, capsys)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every reason of skipped tests, once, and how to get what was not there."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} tests: {reason}")
