"""Before the first run: the YAML, what it means and costs, and whether all is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rareal.commands.options import ConfigFile

app = typer.Typer()

INIT_HELP = """Write a commented YAML for a structure and an event.

OUTPUT is STRUCTURE.yaml if not given; it must not exist. The engine is the first one that is installed and goes \
with the structure. Every key of the configuration is in the file with what it means; those that are not set \
stand behind a #. Editors that know the YAML language server complete and check it by rareal.schema.json, which is \
written beside it.

The event is --pull A B or --push A B, which drives two atoms (numbered from 1) apart or together, or what a sampler \
does along one or more --cv: a kind, its atoms, and key=value.

\b
    rareal init --structure mol.xyz --pull 1 6
    rareal init --structure mol.xyz --sampler metadynamics --cv "distance 1 5" --cv "distance 5 9"
    rareal init my.yaml --structure mol.xyz --pull 1 6 --engine gpaw --set labels.budget=200 --set model=painn
"""


@app.command(help=INIT_HELP)
def init(
    structure: Annotated[Path, typer.Option(metavar="FILE", help="The structure, in any format that ASE reads.")],
    output: Annotated[Path | None, typer.Argument(metavar="[OUTPUT]", help="The YAML.", show_default=False)] = None,
    pull: Annotated[tuple[int, int] | None, typer.Option(metavar="A B", help="Pull two atoms apart.")] = None,
    push: Annotated[tuple[int, int] | None, typer.Option(metavar="A B", help="Push two atoms together.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="KIND", help="How the event is driven.")] = None,
    cv: Annotated[list[str] | None, typer.Option(metavar="CV", help="A collective variable: 'distance 1 6'.")] = None,
    engine: Annotated[str | None, typer.Option(metavar="KIND", help="What computes the labels.")] = None,
    charge: Annotated[int | None, typer.Option(help="Total charge.")] = None,
    multiplicity: Annotated[int | None, typer.Option(help="Spin multiplicity 2S+1.")] = None,
    values: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key.")] = None,
    schema: Annotated[bool, typer.Option(help="Write the schema for editors beside the YAML.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the YAML.")] = False,
) -> None:
    """Write a commented YAML for a structure and an event."""
    from rareal import starter

    wish = starter.wish(structure, pull, push, sampler, cv or (), engine, charge, multiplicity, values or ())
    written = starter.write(wish, output or Path(f"{structure.stem}.yaml"), force, schema)
    for note in written.notes:
        typer.echo(note)
    typer.echo(
        f"{written.path} written, labels by {written.engine}. Next:\n"
        f"    rareal validate {written.path}\n    rareal run {written.path}"
    )


@app.command()
def validate(
    config_file: ConfigFile,
    measured: Annotated[bool, typer.Option("--measure/--no-measure", help="Time one label of the structure.")] = True,
    limit: Annotated[float, typer.Option(min=0.01, help="Seconds that the label may take.")] = 1.0,
) -> None:
    """Read and check a YAML, and everything it names, and estimate what the run costs; write nothing."""
    from rareal.config import load

    config = load(config_file)
    from rareal.estimate import estimate, measure

    typer.echo(f"{config_file} is valid. All values, defaults included:\n")
    typer.echo(config.resolved_yaml().rstrip())
    found = estimate(config, measure(config, limit) if measured else None)
    # as comments, so that the whole is a YAML still
    typer.echo("\n# What it costs" + "".join(f"\n#   {line}" for line in found.describe().splitlines()))


@app.command()
def schema(
    command: Annotated[
        str, typer.Argument(metavar="[COMMAND]", help="What the YAML is for: run, train or label.")
    ] = "run",
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it to a file.")] = None,
) -> None:
    """Print the JSON schema of the YAML, by which editors complete and check it."""
    from rareal.complaints import closest, join
    from rareal.errors import ConfigError
    from rareal.jsonschema import COMMANDS, json_schema, write

    if command not in COMMANDS:
        raise ConfigError(f"{command}: there is no such command{closest(command, COMMANDS)}; use {join(COMMANDS)}")
    if output is None:
        typer.echo(json.dumps(json_schema(command), indent=1, ensure_ascii=False))
    else:
        typer.echo(f"Schema in {write(output, command)}; editors find it by a first line of the YAML:")
        typer.echo(f"# yaml-language-server: $schema={output.name}")


@app.command()
def doctor(
    engine: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Try the label engine of this YAML on its structure.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a list of JSON objects.")] = False,
) -> None:
    """Check the installation, or a label engine; for what is broken, say the cure. Exit code 1 if anything is."""
    from dataclasses import asdict

    from rareal import doctor as checks

    found = []
    for finding in checks.engine(engine) if engine else checks.installation(Path.cwd()):
        found.append(finding)
        if not as_json:
            typer.echo(finding)
    broken = sum(finding.state == "broken" for finding in found)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=1))
    elif not broken:
        typer.echo(checks.Finding("all", "ok", "nothing is broken"))
    if broken:
        typer.echo(f"{broken} broken", err=True)
        raise typer.Exit(1)
