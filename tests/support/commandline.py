"""`rareal` as its entry point runs it, in the process of the test."""

from __future__ import annotations

import sys

import pytest

from rareal import cli


class Command:
    """Runs `rareal` in this process, as the entry point does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["rareal", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, error = self._capsys.readouterr()
        code = caught.value.code
        return code if isinstance(code, int) else 0, out, error
