"""What the user sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from rareal.protocols import Progress
from rareal.units import KCAL_MOL

GLANCE = 1.0
"""Seconds between two looks at the run folder."""

FACTS = (
    ("labels", "labels", "{:d}"),
    ("barrier_eV", "barrier", "{:.3f} eV"),
    ("error_kcal_mol", "off reference", "{:+.2f} kcal/mol"),
    ("path_error_kcal_mol", "path error", "{:.2f} kcal/mol"),
    ("rupture_energy_eV", "rupture", "{:.3f} eV"),
    ("rupture_energy_error_kcal_mol", "rupture off reference", "{:+.2f} kcal/mol"),
    ("rupture_force_error_percent", "rupture force off reference", "{:+.1f} %"),
)
"""Columns of a row of rounds.csv worth showing: key, name, format."""

FOLLOWED = ("barrier_eV", "rupture_energy_eV")
"""Those whose change from round to round tells whether a run converges."""


class Display(Protocol):
    """What the loop tells about its progress."""

    def round(self, number: int, total: int) -> None:
        """Round ``number`` (from 0) of ``total`` begins."""
        ...

    def stage(self, name: str) -> Any:
        """A context in which a stage runs; entering it gives the `Progress` to call with (done, total)."""
        ...

    def row(self, row: Mapping[str, Any]) -> None:
        """A round has ended with this row of rounds.csv."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...


def describe(row: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """``labels 240 · barrier 7.681 ± 0.012 eV · path error 0.42 kcal/mol`` from a row of rounds.csv.

    With the row of the round ``before`` barrier and rupture energy are followed by their changes.
    """
    parts = []
    for key, name, form in FACTS:
        value = row.get(key)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            if key == "rupture_energy_eV" and row.get("rupture_bond") == "none":
                parts.append("no rupture found")
            continue
        text = form.format(value)
        error = row.get("barrier_se_eV") if key == "barrier_eV" else None
        if error is not None and math.isfinite(error):
            text = f"{value:.3f} ± {error:.3f} eV"
        earlier = before.get(key) if before is not None and key in FOLLOWED else None
        if earlier is not None and math.isfinite(earlier):
            text += f" ({(value - earlier) / KCAL_MOL:+.2f} kcal/mol)"
        parts.append(f"{name} {text}")
    return " · ".join(parts)


class Silent:
    """Says nothing."""

    def round(self, number: int, total: int) -> None:
        """See `Display`."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """See `Display`."""
        yield lambda done, total: None

    def row(self, row: Mapping[str, Any]) -> None:
        """See `Display`."""

    def note(self, text: str) -> None:
        """See `Display`."""


class Lines:
    """A line per event, for logs; of a run, whose folder is given, also what was selected."""

    def __init__(self, stream: IO[str] | None = None, folder: Path | None = None) -> None:
        self._stream = stream or sys.stdout
        self._folder = folder
        self._head = ""
        self._before: Mapping[str, Any] | None = None

    def round(self, number: int, total: int) -> None:
        """See `Display`."""
        self._head = f"round {number}/{total - 1}: " if number >= 0 else ""

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """See `Display`; the stage gets its line when it has ended."""
        started = time.monotonic()
        last = (0, 0)

        def progress(done: int, total: int) -> None:
            nonlocal last
            last = (done, total)

        yield progress
        count = f" {last[0]}/{last[1]}" if last[1] else ""
        self._print(f"{self._head}{name}{count} ({clock(time.monotonic() - started)})")

    def row(self, row: Mapping[str, Any]) -> None:
        """See `Display`."""
        self._print(f"{self._head}{describe(row, self._before)}")
        self._before = row
        if self._folder is not None:
            from rareal.status import selection, tell_selection

            if (found := selection(self._folder, int(row["round"]))) is not None:
                self._print(f"{self._head}{tell_selection(found)}")

    def note(self, text: str) -> None:
        """See `Display`."""
        self._print(f"{self._head}{text}")

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Live:
    """Bars for the rounds and for all that is under way, with the time left; above them what the run has come to.

    Lines of the rounds so far scroll away above all that.

    Parameters
    ----------
    console : of rich, standard output if None.
    folder : of the run, which is looked at for labels, barrier and threshold; None where there is no run.
    """

    def __init__(self, console: Any = None, folder: Path | None = None) -> None:
        from rich.console import Console
        from rich.live import Live as Screen
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = console or Console()
        self._bars = Bars(
            TextColumn("{task.description:<22}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=self._console,
        )
        # not every command has rounds
        self._rounds = self._bars.add_task("rounds", total=None, visible=False, left="")
        self._folder = folder
        self._facts: list[tuple[str, str]] = []
        self._looked = -math.inf
        self._before: Mapping[str, Any] | None = None
        self._begun: list[float] = []
        self._number = 0
        self._screen = Screen(console=self._console, get_renderable=self._view, refresh_per_second=4)

    def __enter__(self) -> Live:
        self._screen.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._screen.stop()

    def _view(self) -> Any:
        from rich.console import Group

        self._look()
        return Group(grid(self._facts), self._bars) if self._facts else self._bars

    def _look(self) -> None:
        """Read the run folder, at most once in `GLANCE` seconds."""
        if self._folder is None or time.monotonic() - self._looked < GLANCE:
            return
        from rareal.errors import RunFolderError
        from rareal.status import facts, status

        self._looked = time.monotonic()
        try:
            self._facts = facts(status(self._folder))
        except (RunFolderError, OSError, ValueError):  # it is being made, or a file is being replaced
            return

    def round(self, number: int, total: int) -> None:
        """See `Display`."""
        self._number = number
        self._begun.append(time.monotonic())
        done = max(number, 0)
        self._bars.update(self._rounds, description=f"round {number}" if number >= 0 else "initial data")
        self._bars.update(self._rounds, visible=True, total=total, completed=done, left=self._left(total - done))

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """See `Display`."""
        task = self._bars.add_task(f"  {name}", total=None, left="")
        started = time.monotonic()

        def progress(done: int, total: int) -> None:
            seconds = (time.monotonic() - started) * (total - done) / done if done else math.nan
            self._bars.update(task, completed=done, total=total, left=_remaining(seconds))

        try:
            yield progress
        finally:
            self._bars.remove_task(task)

    def row(self, row: Mapping[str, Any]) -> None:
        """See `Display`."""
        self.note(describe(row, self._before))
        self._before = row
        self._looked = -math.inf
        self._bars.update(self._rounds, advance=1, left="")

    def note(self, text: str) -> None:
        """See `Display`."""
        self._console.print(f"round {self._number}: {text}", markup=False, highlight=False)

    def _left(self, rounds: int) -> str:
        """Time left, if the rounds to come take as long as the last one did."""
        seconds = (self._begun[-1] - self._begun[-2]) * rounds if len(self._begun) > 1 else math.nan
        return _remaining(seconds)


def clock(seconds: float) -> str:
    """``5.2 s``, ``3:07`` or ``1:02:03``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _remaining(seconds: float) -> str:
    return f"{clock(seconds)} left" if math.isfinite(seconds) else ""


def grid(facts: Sequence[tuple[str, str]]) -> Any:
    """Names and texts in two columns, for rich."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, text in facts:
        table.add_row(Text(name, style="bold"), Text(text))
    return table


@contextmanager
def display(quiet: bool = False, folder: Path | None = None) -> Iterator[Display]:
    """The display that suits standard output; ``folder`` is that of a run, of which it then says more."""
    if quiet:
        yield Silent()
    elif sys.stdout.isatty():
        with Live(folder=folder) as live:
            yield live
    else:
        yield Lines(folder=folder)
