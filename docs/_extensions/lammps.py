"""LAMMPS in these pages: colours for its scripts, and links into its manual."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, Name, Number, String, Text

MANUAL = "https://docs.lammps.org"


class LammpsLexer(RegexLexer):
    """Commands, variables, numbers, comments."""

    name = "LAMMPS"
    aliases = ["lammps", "LAMMPS"]
    tokens = {
        "root": [
            (r"#.*", Comment.Single),
            (r'"[^"\n]*"', String),
            (r"\$\{\w+\}|\$\([^)\n]*\)|[cfv]_\w+(\[\d+\])?", Name.Variable),
            (r"(?m)^\s*[a-z_]+(?=[ \t]|$)", Keyword),
            (r"[-+]?\d+\.?\d*([eE][-+]?\d+)?\b", Number),
            (r"[^\s#\"$]+|\s|[\"$]", Text),
        ]
    }


def link_manual(app: Any, relative: Path, parent: str, content: list[str]) -> None:
    """``:doc:`fix halt <fix_halt>``` as a link to LAMMPS's manual, of which the page is written to be a part."""
    if relative.name == "pair_mlensemble.rst":
        content[0] = re.sub(r":doc:`([^`<]*?)\s*<(\w+)>`", rf"`\1 <{MANUAL}/\2.html>`__", content[0])


def setup(app: Any) -> dict[str, bool]:
    app.add_lexer("LAMMPS", LammpsLexer)
    app.connect("include-read", link_manual)
    return {"parallel_read_safe": True}
