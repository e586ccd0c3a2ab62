"""What several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML of the run.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
DatasetArgument = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Labelled frames: HDF5, extended XYZ, or a run folder.")
]
Units = Annotated[
    str | None, typer.Option(help="Energy unit of an HDF5 file that does not say it, e.g. hartree or eV.")
]


@contextmanager
def resumable(folder: Path | None = None) -> Iterator[None]:
    """Says on Ctrl-C, and where the machine or the queue asks to end (SIGTERM), that nothing is lost.

    Parameters
    ----------
    folder : of the run, which says where it has been stopped; None where there is no run.
    """
    import signal

    code = 128 + signal.SIGINT  # as shells have it

    def interrupt(number: int, frame: object) -> None:
        nonlocal code
        code = 128 + number
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"\nStopped{_place(folder)}. The same command goes on from here.", err=True)
        raise typer.Exit(code) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _place(folder: Path | None) -> str:
    """`` in round 2, stage 'sample'``, where the run folder says so."""
    if folder is None or not folder.is_dir():
        return ""
    from rareal.errors import RunFolderError
    from rareal.status import status

    try:
        state = status(folder)
    except RunFolderError:  # it had not even been made
        return ""
    if state["stage"] is None:
        return ""
    place = "before the first round" if state["round"] < 0 else f"in round {state['round']}"
    return f" {place}, stage '{state['stage']}'"
