"""What a run folder says about its run, read from the folder alone: by `rareal status`, and by the live view."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rareal.errors import RunFolderError
from rareal.files import read_csv, read_json
from rareal.lock import owner
from rareal.progress import describe
from rareal.rundir import CONFIG, FINISHED, MARKER, PROVENANCE, ROUNDS, STOP
from rareal.units import KCAL_MOL

SELECT = "select"


def status(folder: Path) -> dict[str, Any]:
    """The state of a run, in plain types.

    Returns
    -------
    dict
        ``folder, name, seed, state`` (``running``, ``finished`` or ``stopped``), ``pid`` (of the running process),
        ``rounds`` (wanted), ``rounds_done``, ``round`` and ``stage`` (in progress or interrupted, else null),
        ``stages`` (all that are: ``round, stage, done, total``, of time steps, epochs or labels, null where not known),
        ``labels, budget``, ``bought, refused`` (labels of all finished stages, and those of them that failed),
        ``barrier`` (``eV, error_eV, change_kcal_mol`` of the last round), ``selection`` (of the last round that
        selected: ``round, threshold`` of each walker, ``frames`` and how many of them are ``above``),
        ``stop_requested``, ``table`` (the rows of rounds.csv), ``end`` (what the run said when it finished).

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
    end = read_json(folder / FINISHED) if (folder / FINISHED).is_file() else None
    stopped = bool(end and end.get("stopped"))
    stages = list(unfinished(folder))
    last = stages[-1] if stages else {"round": None, "stage": None}
    markers = [json.loads(marker.read_text(encoding="utf-8"))["summary"] for marker in _markers(folder)]
    return {
        "folder": str(folder),
        "name": config["name"],
        "seed": config["seed"],
        "state": "running" if process else "finished" if end and not stopped else "stopped",
        "pid": process["pid"] if process else None,
        "rounds": config["rounds"],
        "rounds_done": len(table),
        "round": last["round"],
        "stage": last["stage"],
        "stages": stages,
        "labels": table[-1].get("labels") if table else None,
        "budget": config["labels"]["budget"],
        "bought": sum(summary.get("labels", 0) for summary in markers),
        "refused": sum(summary.get("failed", 0) for summary in markers),
        "barrier": barrier(table),
        "selection": selection(folder),
        "stop_requested": (folder / STOP).exists(),
        "started": [session["started"] for session in read_json(folder / PROVENANCE)["sessions"]],
        "end": end,
        "table": table,
    }


def _markers(folder: Path) -> list[Path]:
    """Of all finished stages, those within others (exploration on the fly) among them."""
    return [*folder.glob(f"initial/*/{MARKER}"), *sorted(folder.glob(f"round-*/**/{MARKER}"))]


def unfinished(folder: Path) -> Iterator[dict[str, Any]]:
    """The stages that have begun and not ended, with how far they are; the last one in time at the end."""
    begun = [
        stage
        for stage in [*folder.glob("round-*/*"), *folder.glob("initial/*")]
        if stage.is_dir() and not (stage / MARKER).is_file()
    ]
    for stage in sorted(begun, key=lambda stage: stage.stat().st_mtime):
        done, total = _progress(stage)
        parent = stage.parent.name
        number = int(parent.removeprefix("round-")) if parent != "initial" else -1
        yield {"round": number, "stage": stage.name, "done": done, "total": total}


def _progress(stage: Path) -> tuple[int | None, int | None]:
    """What the tasks of a stage have noted of themselves, summed up."""
    found = []
    for file in stage.rglob(".*progress"):
        try:
            done, total = file.read_text(encoding="utf-8").split()
            found.append((int(done), int(total)))
        except (OSError, ValueError):  # it is being replaced, or the task has just ended
            continue
    return (sum(done for done, _ in found), sum(total for _, total in found)) if found else (None, None)


def barrier(table: list[dict[str, Any]]) -> dict[str, float | None] | None:
    """The barrier of the last round, and how much it has changed since the round before."""
    known = [row for row in table if row.get("barrier_eV") is not None]
    if not known or known[-1] is not table[-1]:
        return None
    change = None
    if len(known) > 1 and known[-2] is table[-2]:
        change = (known[-1]["barrier_eV"] - known[-2]["barrier_eV"]) / KCAL_MOL
    return {"eV": known[-1]["barrier_eV"], "error_eV": known[-1].get("barrier_se_eV"), "change_kcal_mol": change}


def selection(folder: Path, number: int | None = None) -> dict[str, Any] | None:
    """Threshold and frames above it in round ``number``, or in the last one that selected; None where there is none."""
    pattern = "*" if number is None else f"{number:03d}"
    markers = sorted(folder.glob(f"round-{pattern}/{SELECT}/{MARKER}"))
    if not markers:
        return None
    summary = read_json(markers[-1])["summary"]
    threshold = summary.get("threshold")
    if threshold is None:
        return None
    return {
        "round": int(markers[-1].parents[1].name.removeprefix("round-")),
        "threshold": threshold if isinstance(threshold, list) else [threshold],
        "above": sum(summary.get("worthwhile", ())) if "worthwhile" in summary else None,
        "frames": sum(summary.get("rows", ())) if "rows" in summary else None,
        "labels": summary.get("labels"),
        "refused": summary.get("failed"),
    }


def facts(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is worth a line of the live view: name and text."""
    found = [("labels", f"{state['bought']} of {state['budget']} bought, {state['refused']} refused")]
    if (now := state["barrier"]) is not None:
        error = f" ± {now['error_eV']:.3f}" if now["error_eV"] is not None else ""
        change = now["change_kcal_mol"]
        moved = f", {change:+.2f} kcal/mol since the round before" if change is not None else ""
        found.append(("barrier", f"{now['eV']:.3f}{error} eV{moved}"))
    if state["selection"] is not None:
        found.append((f"selection {state['selection']['round']}", tell_selection(state["selection"])))
    if state["stop_requested"]:
        found.append(("STOP", "the run ends after this round"))
    return found


def tell_selection(found: Mapping[str, Any]) -> str:
    """``threshold 0.021 to 0.034, 812 of 6501 frames above it; 36 labels bought, 1 refused``."""
    low, high = min(found["threshold"]), max(found["threshold"])
    text = f"threshold {low:.3g}" + (f" to {high:.3g}" if f"{low:.3g}" != f"{high:.3g}" else "")
    if found["above"] is not None:
        text += f", {found['above']} of {found['frames']} frames above it"
    if found["labels"] is not None:
        text += f"; {found['labels']} labels bought, {found['refused'] or 0} refused"
    return text


def summary(state: Mapping[str, Any]) -> str:
    """`status` in words."""
    head = f"{state['name']} (seed {state['seed']}) in {state['folder']}: {state['state']}"
    if state["pid"]:
        head += f", process {state['pid']}"
    lines = [head, f"{state['rounds_done']} of {state['rounds']} rounds done, budget {state['budget']} labels"]
    lines += [_tell_stage(item, state["state"]) for item in state["stages"]]
    before: Mapping[str, Any] | None = None
    for row in state["table"]:
        lines.append(f"  round {row['round']}: {describe(row, before)}")
        before = row
    lines += [f"  {name}: {text}" for name, text in facts(state)]
    if state["state"] == "finished":
        lines.append("converged" if state["end"].get("converged") else "ended before it converged")
    elif state["state"] == "stopped":
        lines.append("the command that started it goes on from here")
    return "\n".join(lines)


def _tell_stage(item: Mapping[str, Any], state: str) -> str:
    place = "before the first round" if item["round"] < 0 else f"of round {item['round']}"
    verb = "in" if state == "running" else "stopped in"
    count = f" ({item['done']} of {item['total']})" if item["total"] else ""
    return f"{verb} stage '{item['stage']}' {place}{count}"


def follow(folder: Path, interval: float) -> Iterator[dict[str, Any]]:
    """The state of a run, again and again as long as it runs; the last one is of the run that has ended."""
    while True:
        state = status(folder)
        yield state
        if state["state"] != "running":
            return
        time.sleep(interval)
