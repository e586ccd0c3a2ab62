"""Labels without a run, change of level, and the cache of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rareal.commands.options import Quiet, Units, resumable

if TYPE_CHECKING:
    from rareal.label import Labels

app = typer.Typer()

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

    with resumable(), display(quiet) as shown:
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

    with resumable(), display(quiet or as_json) as shown:
        found = change_level(dataset, config, output, select or (), seed, shown, units, mixed, force)
    if as_json:
        typer.echo(json.dumps(plain(found.numbers()), indent=1))
    elif not quiet:
        typer.echo("\n".join(shift.describe() for shift in found.shifts))
    _tell_labels(found.labels, output, quiet or as_json)


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
