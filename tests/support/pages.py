"""What is in the documentation's pages: blocks of code, with the page and the line that they begin at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)

FENCE = re.compile(
    r"^```(?:\{code-block\} )?(?P<language>[\w{}-]+)[^\n]*\n(?::caption: (?P<caption>\S+)\n)?(?P<text>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; ``caption`` is the file that it stands for, empty where it is none."""

    page: Path
    line: int
    language: str
    caption: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> Iterator[Block]:
    """All blocks of some languages, page by page; of all where none is named."""
    for page in [*PAGES, ROOT / "README.md"]:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            if not languages or found["language"] in languages:
                line = text.count("\n", 0, found.start()) + 1
                yield Block(page, line, found["language"], found["caption"] or "", found["text"])
    if not languages or "yaml" in languages:
        yield from indented(ROOT / "README.md")


def indented(page: Path) -> Iterator[Block]:
    """YAML that stands indented in a page: blocks whose first line is a key at the top of a run's YAML."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"(?<=\n\n)((?: {4}.*\n)+)", text):
        lines = [line[4:] for line in found[1].splitlines()]
        if re.match(r"\w+:( |$)", lines[0]):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page, line, "yaml", "", "\n".join(lines) + "\n")


def shell_lines() -> Iterator[tuple[str, str]]:
    """Every command in the pages' shell blocks and in the README's indented ones, with where it stands."""
    for block in blocks("bash"):
        yield from ((str(block), line) for line in joined(block.text))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r" {4}\.venv/bin/|    python3? ", line):
            yield f"README.md:{number}", line.strip().partition("   #")[0]


def joined(text: str) -> list[str]:
    """Lines of a shell, those that end in a backslash with the next one, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [bare for line in lines if (bare := re.sub(r"(^|\s)# .*", "", line).strip())]
