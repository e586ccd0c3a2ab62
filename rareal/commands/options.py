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
def resumable() -> Iterator[None]:
    """Says on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nStopped. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None
