"""Records docs/first-hour.md: a first hour done by the README, in a fresh clone and a fresh environment.

    python docs/first_hour.py               # everything, and as long as it takes
    python docs/first_hour.py --rounds 2    # a shorter run; the page says so

Commands, output and times are what they are; long outputs are cut where a line says so, and the folder's name is
replaced. Beside the page the report of the run and its figure are written into docs/first-hour/.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "first-hour.md"
ASSETS = ROOT / "docs" / "first-hour"
HOME = "/home/you"
"""What the temporary folder is called in the page."""


@dataclass(frozen=True)
class Step:
    """A command with what is said about it; of its output the first and the last lines are shown."""

    text: str
    command: str
    first: int = 40
    last: int = 20


STEPS = (
    Step("## Install\n\nA clone of the repository, and an environment of its own.", "git clone REPOSITORY rareal"),
    Step("", "python3 -m venv .venv && .venv/bin/pip install .", 0, 2),
    Step("Does all of it fit together?", ".venv/bin/rareal doctor"),
    Step(
        "## Pull a hexane molecule apart\n\nOn a terminal the run shows bars and a table; into a file it writes plain "
        "lines.",
        ".venv/bin/rareal run examples/hexane/hexane.yaml",
        30,
        30,
    ),
    Step("How far is it? From another shell, or afterwards:", ".venv/bin/rareal status runs/hexane"),
    Step(
        "Is that right? The label engine itself, driven by the same script from the same velocities, takes longer than "
        "the run did. Made before the run, it is compared with in every round; made now, in the report.",
        ".venv/bin/rareal reference examples/hexane/hexane.yaml",
        6,
        12,
    ),
    Step(
        "One page with everything: [the report of this run](first-hour/hexane-report.html).",
        ".venv/bin/rareal report runs/hexane",
    ),
    Step("One plot, with its numbers as CSV:", ".venv/bin/rareal plot runs/hexane work"),
    Step(
        "## Using it\n\nThe committee for LAMMPS and ASE, the data for anything, and whom to cite.",
        ".venv/bin/rareal export runs/hexane -o hexane.pt",
    ),
    Step("", ".venv/bin/rareal export runs/hexane --data hexane.extxyz"),
    Step("", ".venv/bin/rareal cite runs/hexane", 14, 4),
    Step(
        "## Your own event\n\nDimethyl disulfide stands for your molecule. It is pulled apart at its carbons.",
        "cp examples/disulfide/disulfide.xyz mol.xyz",
    ),
    Step("", ".venv/bin/rareal init my.yaml --structure mol.xyz --pull 1 4"),
    Step("", "head -30 my.yaml"),
    Step("What does it mean, and what will it cost?", ".venv/bin/rareal validate my.yaml", 12, 14),
    Step("The LAMMPS scripts of a round, to look at:", ".venv/bin/rareal run my.yaml --dry-run", 8, 2),
    Step("And it runs; two rounds are enough to see that.", ".venv/bin/rareal run my.yaml --rounds 2", 20, 20),
)

HEAD = """\
# The first hour, recorded

A first hour done by the README: a fresh clone, a fresh environment, then its commands one after the other with what
they really said. `python docs/first_hour.py` writes this page.

Recorded on {date} with version {version} on {machine}; load average {load} when it began.{shortened}
The folder of the recording is called `{home}` here, and packages came from a cache on the machine.
"""

FIGURE = """
Since `git clone`: {time}.

![Convergence of the barrier](first-hour/barrier_convergence.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="rounds of the hexane run, fewer than the example has")
    parser.add_argument("--folder", type=Path, help="work there, and leave it; a temporary folder if not given")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="first-hour-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        record(folder, arguments.rounds)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)


def record(folder: Path, rounds: int | None) -> None:
    """Do all steps in ``folder`` and write the page.

    Raises
    ------
    SystemExit
        If a command fails; nothing is written then.
    """
    load = os.getloadavg()[0]
    parts, times = [], []
    place = folder
    for step in STEPS:
        command = step.command
        if rounds and command.endswith("run examples/hexane/hexane.yaml"):
            command += f" --rounds {rounds}"
        began = time.monotonic()
        done = run(command, place, folder)
        seconds = time.monotonic() - began
        print(f"{seconds:8.1f} s  {command}", flush=True)
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}")
        if command.startswith("git clone"):
            place = folder / "rareal"
        times.append((command, seconds))
        output = cut(done.stdout.replace(str(folder), HOME).splitlines(), step)
        parts.append("\n".join([*([step.text, ""] if step.text else []), block(command, output, seconds)]))
        if " run examples/hexane" in command:
            shutil.copy(place / "runs/hexane/plots/barrier_convergence.png", folder)
            parts.append(FIGURE.format(time=clock(sum(seconds for _, seconds in times))).strip())
    ASSETS.mkdir(exist_ok=True)
    shutil.copy(place / "runs/hexane/report.html", ASSETS / "hexane-report.html")
    shutil.copy(folder / "barrier_convergence.png", ASSETS)
    PAGE.write_text("\n\n".join([head(place, load, rounds), *parts, table(times)]) + "\n", encoding="utf-8")
    print(f"{PAGE} written")


def run(command: str, place: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a shell, as a user who has nothing of rareal's yet."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "RAREAL_LMP", "RAREAL_LIBRARY_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"RAREAL_CACHE": str(folder / "cache"), "COLUMNS": "120", "PIP_PROGRESS_BAR": "off"}
    return subprocess.run(
        command.replace("REPOSITORY", str(ROOT)),
        shell=True, cwd=place, env=environment, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def cut(lines: list[str], step: Step) -> list[str]:
    """The first and the last lines, with a word on what is left out."""
    left = len(lines) - step.first - step.last
    if left <= 1:
        return lines
    return [*lines[: step.first], f"[... {left} lines ...]", *lines[len(lines) - step.last :]]


def block(command: str, output: list[str], seconds: float) -> str:
    """Command, output and time as they stand in the page."""
    text = "\n".join(line.rstrip() for line in [f"$ {command}", *output])
    return f"```console\n{text}\n```\n\n*{clock(seconds)}*"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def head(place: Path, load: float, rounds: int | None) -> str:
    """Title, and where and when it was."""
    version = subprocess.run(
        [place / ".venv/bin/python", "-c", "import rareal; print(rareal.__version__)"],
        capture_output=True, text=True, check=True, cwd=place.parent,
    ).stdout.strip()  # fmt: skip
    shortened = f" The hexane run was stopped after {rounds} rounds, to keep the recording short." if rounds else ""
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return HEAD.format(
        date=date, version=version, machine=machine(), load=f"{load:.1f}", shortened=shortened, home=HOME
    ).strip()


def machine() -> str:
    """``2 cores, AMD EPYC, Python 3.11.7``."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
    ] if info.exists() else []  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({names[0] if names else platform.machine()}) with Python {platform.python_version()}"


def table(times: list[tuple[str, float]]) -> str:
    """How long everything took."""
    rows = [f"| `{command}` | {clock(seconds)} |" for command, seconds in times]
    total = sum(seconds for _, seconds in times)
    return "\n".join(["## Times", "", "| command | took |", "|---|---|", *rows, f"| all | {clock(total)} |"])


if __name__ == "__main__":
    main()
