"""What is made of a run afterwards: its page, its plots with their numbers, its comparison with others.

`rareal.report` draws from the run folder alone; what has to be computed anew, the last committee's errors, is computed
here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rareal.errors import ConfigError, DatasetError, ModelFileError, RunFolderError
from rareal.files import read_json, write_text
from rareal.protocols import Progress
from rareal.records import LabeledFrame
from rareal.report.plots import KINDS, NAMES, SETS, Judgement, judged_kinds, write_plots
from rareal.report.reading import LeftOut, left_out
from rareal.report.rundata import RoundData, RunData
from rareal.rundir import PROVENANCE
from rareal.status import status

PAGE = "report.html"
MODEL, DELTA, CHECK = "model.pt", "data.h5", "check"
MOST_FRAMES = 2000
"""The last committee is judged on at most so many frames of a set, evenly taken."""

ALL = "all"


def write_report(folder: Path, output: Path | None = None, progress: Progress | None = None) -> Path:
    """Write the page of a run; return the file.

    Parameters
    ----------
    folder : the run folder, finished or not.
    output : the file; ``RUN/report.html`` if not given.

    Raises
    ------
    RunFolderError
        If the folder is no run folder, or what says what the run is cannot be read.
    """
    from rareal.report.page import page

    state, provenance = _state(folder)
    with left_out() as notes:
        run = RunData(folder)
        kinds = {**KINDS, **judged_kinds(judge(run, progress))}
    return write_text(output or folder / PAGE, page(run, state, provenance, kinds, notes))


def write_kinds(
    folder: Path, wanted: Sequence[str] = (ALL,), output: Path | None = None, progress: Progress | None = None
) -> list[Path]:
    """Write ``KIND.png`` and ``KIND.csv`` into ``RUN/plots`` or ``output``; return the files.

    Raises
    ------
    ConfigError
        If a kind is none of `NAMES`.
    RunFolderError
        If the folder is no run folder, or has nothing of what is wanted.
    """
    unknown = [name for name in wanted if name not in (ALL, *NAMES)]
    if unknown:
        raise ConfigError(f"there is no plot '{unknown[0]}'; there are {ALL}, {', '.join(NAMES)}")
    _state(folder)
    run = RunData(folder)
    everything = ALL in wanted
    judged = everything or any(name not in KINDS for name in wanted)
    kinds = {**KINDS, **(judged_kinds(judge(run, progress)) if judged else {})}
    return write_plots(run, kinds, () if everything else wanted, output)


def write_comparison(folders: Sequence[Path], output: Path) -> list[Path]:
    """Write ``comparison.png`` and ``comparison.csv`` of several runs into ``output``; return them.

    Raises
    ------
    RunFolderError
        If one is no run folder or has no finished round, or they cannot be compared.
    """
    from rareal.report.compare import write_comparison as write

    for folder in folders:
        _state(folder)
    return write(folders, output)


def _state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the run folder says of itself, and its provenance."""
    try:
        state = status(folder)
        provenance = read_json(folder / PROVENANCE)
        if not isinstance(provenance, dict):
            raise ValueError(f"{PROVENANCE} is no mapping")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise RunFolderError(
            f"{folder}: this run folder is damaged ({reason}); name one made by `rareal run`, or restore its files"
        ) from error
    return state, provenance


def judge(run: RunData, progress: Progress | None = None) -> dict[str, Judgement]:
    """The last committee on the frames that it learnt from, and on those that were labelled afterwards.

    Keys are those of `rareal.report.plots.SETS`; a set without frames is not there. What cannot be read is named in a
    warning.
    """
    trained = [item for item in run.rounds if "train" in item.stages and (item.folder / "train" / MODEL).is_file()]
    if not trained:
        return {}
    from rareal.evaluate import evaluate, panels
    from rareal.export.modelfile import Committee

    last = trained[-1]
    found: dict[str, Judgement] = {}
    try:
        sets = dict(zip(SETS, _sets(run, last.number), strict=True))
        import torch

        torch.set_num_threads(1)  # single frames of a molecule are fastest so
        committee = Committee.load(last.folder / "train" / MODEL)
        total, done = sum(map(len, sets.values())), 0
        for suffix, frames in sets.items():
            if frames:
                parity, reliability = panels(evaluate(committee, frames, _part(progress, done, total)))
                found[suffix] = Judgement(len(frames), parity, reliability)
                done += len(frames)
    except (DatasetError, ModelFileError) as error:
        warnings.warn(f"the last committee cannot be judged: {error}", LeftOut, stacklevel=2)
    return found


def _sets(run: RunData, last: int) -> tuple[list[LabeledFrame], list[LabeledFrame]]:
    """The frames from which the committee of round ``last`` has learnt, and those it has not."""
    section = run.config.get("check")
    joins = bool(section.get("join", True)) if isinstance(section, Mapping) else True
    learnt: list[LabeledFrame] = []
    unseen: list[LabeledFrame] = []
    for item in (run.initial, *run.rounds):
        for name in item.stages:
            known = item.number < last and (joins or name != CHECK)
            (learnt if known else unseen).extend(_frames(item, name))
    return _some(learnt), _some(unseen)


def _frames(item: RoundData, stage: str) -> list[LabeledFrame]:
    from rareal.data import dataset

    file = item.folder / stage / DELTA
    return dataset.read(file) if file.is_file() else []


def _some(frames: list[LabeledFrame]) -> list[LabeledFrame]:
    if len(frames) <= MOST_FRAMES:
        return frames
    return [frames[k] for k in np.linspace(0, len(frames) - 1, MOST_FRAMES).round().astype(int)]


def _part(progress: Progress | None, done: int, total: int) -> Callable[[int, int], None] | None:
    """Progress of one set as that of all."""
    return None if progress is None else lambda step, _: progress(done + step, total)
