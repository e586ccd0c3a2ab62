"""What a run folder says about its run, read from the folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rareal.errors import RunFolderError
from rareal.files import read_csv, read_json
from rareal.lock import owner
from rareal.progress import describe
from rareal.rundir import CONFIG, FINISHED, MARKER, PROVENANCE, ROUNDS


def status(folder: Path) -> dict[str, Any]:
    """The state of a run, in plain types.

    Returns
    -------
    dict
        ``folder, name, seed, state`` (``running``, ``finished`` or ``stopped``), ``pid`` (of the running process),
        ``rounds`` (wanted), ``rounds_done``, ``round`` and ``stage`` (in progress or interrupted, else null),
        ``labels, budget``, ``table`` (the rows of rounds.csv), ``end`` (what the run said when it finished).

    Raises
    ------
    RunFolderError
        If the folder is none that `rareal run` has made.
    """
    if not (folder / CONFIG).is_file():
        raise RunFolderError(f"{folder}: this is no run folder (it has no {CONFIG}); name one made by `rareal run`")
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    table = read_csv(folder / ROUNDS) if (folder / ROUNDS).is_file() else []
    process = owner(folder)
    finished = (folder / FINISHED).is_file()
    number, stage = _unfinished(folder)
    return {
        "folder": str(folder),
        "name": config["name"],
        "seed": config["seed"],
        "state": "running" if process else "finished" if finished else "stopped",
        "pid": process["pid"] if process else None,
        "rounds": config["rounds"],
        "rounds_done": len(table),
        "round": number,
        "stage": stage,
        "labels": table[-1].get("labels") if table else None,
        "budget": config["labels"]["budget"],
        "started": [session["started"] for session in read_json(folder / PROVENANCE)["sessions"]],
        "end": read_json(folder / FINISHED) if finished else None,
        "table": table,
    }


def _unfinished(folder: Path) -> tuple[int | None, str | None]:
    """The round and the stage that has begun and not ended; the last one in time, should there be several."""
    begun = [
        stage
        for stage in [*folder.glob("round-*/*"), *folder.glob("initial/*")]
        if stage.is_dir() and not (stage / MARKER).is_file()
    ]
    if not begun:
        return None, None
    last = max(begun, key=lambda stage: stage.stat().st_mtime)
    parent = last.parent.name
    return (int(parent.removeprefix("round-")) if parent != "initial" else -1), last.name


def summary(state: dict[str, Any]) -> str:
    """`status` in words."""
    head = f"{state['name']} (seed {state['seed']}) in {state['folder']}: {state['state']}"
    if state["pid"]:
        head += f", process {state['pid']}"
    lines = [head, f"{state['rounds_done']} of {state['rounds']} rounds done, budget {state['budget']} labels"]
    if state["stage"]:
        place = "before the first round" if state["round"] < 0 else f"of round {state['round']}"
        verb = "in" if state["state"] == "running" else "stopped in"
        lines.append(f"{verb} stage '{state['stage']}' {place}")
    lines += [f"  round {row['round']}: {describe(row)}" for row in state["table"]]
    if state["end"]:
        lines.append("converged" if state["end"].get("converged") else "ended before it converged")
    elif state["state"] == "stopped":
        lines.append("the command that started it goes on from here")
    return "\n".join(lines)
