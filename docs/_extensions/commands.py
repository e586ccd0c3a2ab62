"""The commands as they describe themselves: ``{commands}`` in a page is what `rareal COMMAND --help` knows."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from options import Generated


def commands(group: Any = None, prefix: str = "rareal") -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    import typer

    from rareal.cli import app

    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def describe(name: str, command: Any) -> str:
    """One command in Markdown: usage, help, options."""
    context = command.make_context(name, [], resilient_parsing=True)
    lines = [f"**`{name} {' '.join(command.collect_usage_pieces(context))}`**", ""]
    blocks = inspect.cleandoc(command.help or "").split("\n\n")
    for block in blocks:
        if block.startswith("\b"):  # click's mark of lines that are kept as they are
            lines += ["```text", *block.splitlines()[1:], "```", ""]
        else:
            lines += [" ".join(block.split()), ""]
    rows = []
    for parameter in command.params:
        about = " ".join((getattr(parameter, "help", "") or "").split())
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        names = ", ".join([*parameter.opts, *parameter.secondary_opts])
        shown = (parameter.metavar or str(parameter.name).upper()) if parameter.param_type_name == "argument" else names
        rows.append(f"| `{shown}` | {about.replace('|', chr(92) + '|')} |")
    return "\n".join([*lines, *(["| | |", "|---|---|", *rows, ""] if rows else [])])


class Commands(Generated):
    """``{commands} all``, or the name of one."""

    def text(self, argument: str) -> str:
        known = dict(commands())
        chosen = known if argument == "all" else {f"rareal {argument}": known[f"rareal {argument}"]}
        return "\n".join(describe(name, command) for name, command in chosen.items())


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
