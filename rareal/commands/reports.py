"""A run afterwards: its page, its plots, its comparison with others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rareal.commands.options import Quiet, RunArgument

app = typer.Typer()

REPORT_HELP = """Make one HTML page of a run, finished or not: RUN/report.html.

Barrier, curves, uncertainty, errors of the last committee, training, labels, cost, versions and configuration, with a \
caption to each figure that says how to read it, and the molecule to turn. The page needs no network and no other \
file: mail it, print it.

\b
    rareal report runs/hexane
    rareal report runs/hexane -o hexane.html
"""

PLOT_HELP = """Draw a run: PNG, and the numbers as CSV, into RUN/plots.

KIND, one or several: barrier_convergence, work (of the drive), profile (free or potential energy along the \
coordinate), free_energy (the last round's surface), barrier_time (free-energy barrier and sampling time), path \
(committee and engine along the checked path), rupture (quasi-static), uncertainty_cv and uncertainty (disagreement \
along the coordinate and in time), learning, labels (where they were spent), cost (time by stage), parity and \
calibration (of the last committee on what it learnt from), parity_unseen and calibration_unseen (on frames labelled \
afterwards), or all, which it is if not given.

The names of the columns end in their units.

\b
    rareal plot runs/hexane
    rareal plot runs/hexane work labels -o figures
"""

COMPARE_HELP = """Overlay the convergence of several runs: barrier and error, against labels bought and against time.

Writes comparison.png and comparison.csv.

\b
    rareal compare runs/hexane-1 runs/hexane-2 runs/paper -o figures
"""


@app.command(help=REPORT_HELP)
def report(
    run_folder: RunArgument,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The page, instead of RUN/report.html.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make one HTML page of a run."""
    from rareal.progress import display
    from rareal.reporting import write_report

    with display(quiet) as shown, shown.stage("report") as progress:
        written = write_report(run_folder, output, progress)
    typer.echo(f"Report in {written} ({written.stat().st_size / 1e6:.1f} MB)")


@app.command(help=PLOT_HELP)
def plot(
    run_folder: RunArgument,
    kinds: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND", help="What to draw; all if not given.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FOLDER", help="Where to, instead of RUN/plots.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Draw a run: PNG and CSV."""
    from rareal.progress import display
    from rareal.reporting import ALL, write_kinds

    with display(quiet) as shown, shown.stage("plot") as progress:
        written = write_kinds(run_folder, kinds or (ALL,), output, progress)
    names = ", ".join(path.stem for path in written if path.suffix == ".png")
    typer.echo(f"{names} (.png and .csv) in {written[0].parent}")


@app.command(help=COMPARE_HELP)
def compare(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where to.")] = Path("."),
) -> None:
    """Overlay the convergence of several runs."""
    from rareal.reporting import write_comparison

    written = write_comparison(run_folders, output)
    typer.echo(f"{' and '.join(path.name for path in written)} in {output}")
