"""While a run goes on and after it: how far it is, its model and its data for others, whom to cite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rareal.commands.options import RunArgument

app = typer.Typer()


@app.command()
def status(
    run_folder: RunArgument,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: a JSON object; with --watch one a line.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until the run ends; Ctrl-C ends the watching only.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Say how far a run is; a file STOP in its folder ends it after the round."""
    from rareal.status import follow, summary
    from rareal.status import status as read_status

    if not watch:
        state = read_status(run_folder)
        typer.echo(json.dumps(state, indent=1) if as_json else summary(state))
        return
    try:
        _watch(follow(run_folder, interval), as_json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _watch(states: Iterator[Mapping[str, Any]], as_json: bool) -> None:
    """Show one state after the other: in place on a terminal, elsewhere what has changed."""
    from rareal.status import summary

    if as_json:
        for state in states:
            typer.echo(json.dumps(state))
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as screen:
            for state in states:
                screen.update(Text(summary(state)), refresh=True)
        return
    shown: list[str] = []
    for state in states:
        lines = summary(state).splitlines()
        for line in lines:
            if line not in shown:
                typer.echo(line)
        shown = lines


EXPORT_HELP = """Take model or data out of a run, compile a model file for LAMMPS, or write an untrained one.

SOURCE is a run folder, whose last trained committee is taken (or that of --round), or a model file. FILE ends in .pt \
for TorchScript, or in .pt2 for an AOTInductor package: the same committee as machine code, for this version of torch \
and this kind of processor; that takes a C++ compiler and a minute or two. --member takes one member alone, without a \
committee's std.

--data writes the labelled frames of a run, or of a data set, with all that is known of them: .extxyz, .h5 (ANI \
layout) or .db (ASE's data base). With --random an untrained committee is written, for tests and benchmarks.

\b
    rareal export runs/hexane -o hexane.pt
    rareal export runs/hexane -o best.pt --member best
    rareal export runs/hexane --data frames.extxyz
    rareal export hexane.pt -o hexane.pt2
    rareal export --random --model painn -o random.pt
"""


@app.command(help=EXPORT_HELP)
def export(
    source: Annotated[
        Path | None, typer.Argument(metavar="[SOURCE]", help="A run folder or a model file.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The model file: .pt2 a package, else TorchScript."),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FILE", help="The data set: .extxyz, .h5 or .db.")] = None,
    member: Annotated[str | None, typer.Option(metavar="K", help="Member K, from 1, or `best`.")] = None,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Of a run: the committee of this round.")
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights instead of SOURCE.")] = False,
    model: Annotated[
        str, typer.Option(help="With --random: ani, painn or schnet, its settings at their defaults.")
    ] = "ani",
    members: Annotated[int, typer.Option(min=1, help="With --random: members of the committee.")] = 4,
    elements: Annotated[str, typer.Option(help="With --random: chemical symbols, in the order of the file.")] = "C,H",
    dtype: Annotated[str, typer.Option(help="With --random: float32 or float64.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="With --random: root of the weights.")] = 1,
    device: Annotated[str, typer.Option(help="What a package is compiled for, cpu or cuda.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE of --data.")] = False,
) -> None:
    """Take the model or the data out of a run, compile a model file, or write an untrained one."""
    from rareal.errors import ConfigError

    if random == (source is not None):
        raise ConfigError(
            "name a run or a model file, or say --random for a committee without training; one of the two"
        )
    if output is None and data is None:
        raise ConfigError("what is to be written? -o FILE for the model, --data FILE for the labelled frames")
    if data is not None:
        if source is None:
            raise ConfigError("--data: an untrained committee has no data; name a run or a data set")
        from rareal.results import write_data

        typer.echo(f"{write_data(source, data, force)} labelled frames in {data}")
    if output is None:
        return
    if source is not None:
        from rareal.results import write_model

        typer.echo(write_model(source, output, member, round_number, device))
        return
    from rareal.results import write_random

    symbols = [e.strip() for e in elements.split(",") if e.strip()]
    write_random(output, model, symbols, members, dtype, seed, device)
    typer.echo(f"{members} untrained members of {model} for {elements} in {output}")


@app.command()
def cite(
    run_folder: RunArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The BibTeX file; RUN/citations.bib if not given."),
    ] = None,
) -> None:
    """Name the papers that a run rests on, and write them as BibTeX."""
    from rareal.cite import cite as find
    from rareal.files import write_text

    found = find(run_folder)
    typer.echo(found.describe())
    file = output or run_folder / "citations.bib"
    write_text(file, found.bibtex())
    typer.echo(f"\nBibTeX in {file}")
