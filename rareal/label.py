"""Labels without a run: for a file of geometries, and for whoever else has frames and the settings of an engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.symbols import Symbols

from rareal.build import build_executor, make
from rareal.data import formats
from rareal.errors import LabelError
from rareal.files import write_csv
from rareal.labelconfig import LabelConfig
from rareal.labeling.cache import Cache, open_cache
from rareal.labeling.runner import FAILED, Labeler
from rareal.progress import Display
from rareal.protocols import Engine
from rareal.records import FailedLabel, Frame, Label, LabeledFrame

SOME_FAILED = 3
"""Exit code where some frames got a label and others did not."""

SHOWN = 10
"""Failures that are told one by one; a file has them all."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What became of the frames.

    Attributes
    ----------
    frames, results : in the same order.
    engine, settings : the hash of the level of theory, and what it is of.
    where : the name of a frame, by its index.
    """

    frames: Sequence[Frame]
    results: Sequence[Label | FailedLabel]
    engine: str
    settings: dict[str, Any]
    where: Callable[[int], str]

    @property
    def computed(self) -> int:
        """Labels that the engine has computed just now; the cache, or an equal frame, had the others."""
        return sum(isinstance(found, Label) and not found.cached for found in self.results)

    @property
    def failed(self) -> dict[int, str]:
        """Why a frame has no label, by its index."""
        return {k: found.reason for k, found in enumerate(self.results) if isinstance(found, FailedLabel)}

    def describe(self) -> str:
        """How many frames got a label, how many the cache knew, the time of the others; the failures with reasons."""
        failed = self.failed
        done = [found for found in self.results if isinstance(found, Label)]
        seconds = [found.seconds for found in done]
        median = f"; a label takes {np.median(seconds):.2g} s (median)" if seconds else ""
        lines = [f"{len(done)} of {len(self.results)} frames labelled, {self.computed} of them computed now{median}"]
        for k in list(failed)[:SHOWN]:
            lines.append(f"no label: {self.where(k)} ({formula(self.frames[k])}): {failed[k]}")
        if len(failed) > SHOWN:
            lines.append(f"no label: {len(failed) - SHOWN} more")
        return "\n".join(lines)

    @staticmethod
    def failures_file(output: Path) -> Path:
        """``<output>.failed.csv``."""
        return output.with_name(output.name + ".failed.csv")

    def write_failures(self, output: Path) -> None:
        """Write the table of all frames without a label, and where the engine's files are; none where all have one."""
        table = self.failures_file(output)
        table.unlink(missing_ok=True)
        if self.failed:
            rows = [
                {
                    "frame": self.where(k),
                    "formula": formula(self.frames[k]),
                    "reason": reason,
                    "files": files_of(output) / FAILED / f"{k:05d}",
                }
                for k, reason in self.failed.items()
            ]
            write_csv(table, rows)


def formula(frame: Frame) -> str:
    """``C6H14``."""
    return str(Symbols(frame.numbers).get_chemical_formula())


def compute(
    config: LabelConfig, frames: Sequence[Frame], output: Path, display: Display, where: Callable[[int], str]
) -> Labels:
    """Label ``frames``.

    Labels are kept one by one as they come: in the cache of the YAML or, if that is turned off, in a folder beside
    ``output`` (see `forget`). So whoever is interrupted starts the same command again and has lost nothing.

    Parameters
    ----------
    output : the file that the labels are for; it is not written here.
    where : the name of a frame, by its index, for messages.

    Raises
    ------
    ConfigError
        If the engine's settings do not go with a frame.
    LabelError
        If no frame gets a label.
    """
    check(config, frames, where)
    engine = engine_of(config, frames[0])
    settings = dict(getattr(engine, "settings", {}))
    labels = config.labels
    cache = open_cache(labels.cache) or Cache(partial(output))
    cache.describe(engine.hash, settings)
    files = files_of(output)
    shutil.rmtree(files / FAILED, ignore_errors=True)  # of an earlier attempt
    executor = build_executor(config, "label", partial(output))
    try:
        with (
            # whatever fails is left out, and told
            Labeler(engine, executor, 1.0, labels.timeout, labels.scratch, cache) as labeler,
            display.stage("label") as progress,
        ):
            results = labeler.label(frames, progress, files)
    finally:
        executor.shutdown(cancel_futures=True)
    found = Labels(frames, results, engine.hash, settings, where)
    if len(found.failed) == len(frames):
        found.write_failures(output)
        table = found.failures_file(output)
        raise LabelError(f"no frame got a label, {output} is not written; {table} has all\n{found.describe()}")
    return found


def files_of(output: Path) -> Path:
    """``<output>.files``: what the engine leaves of frames, with and without a label."""
    return output.with_name(output.name + ".files")


def engine_of(config: LabelConfig, frame: Frame) -> Engine:
    """The engine that the YAML names, for geometries such as ``frame``."""
    engine: Engine = make(config, "engine", start=frame)
    return engine


def check(config: LabelConfig, frames: Sequence[Frame], where: Callable[[int], str]) -> None:
    """Refuse frames that the engine's settings do not go with, one of every composition.

    Raises
    ------
    ConfigError
        With the key of the YAML, and the frame.
    """
    seen = set()
    for k, frame in enumerate(frames):
        composition = (np.sort(frame.numbers).tobytes(), frame.pbc)
        if composition not in seen:
            seen.add(composition)
            config.check_frame(frame, where(k))


def partial(output: Path) -> Path:
    """Where labels are kept until ``output`` is written, if there is no cache."""
    return output.with_name(output.name + ".partial")


def forget(output: Path) -> None:
    """Remove what `compute` has kept for ``output``, which has been written."""
    shutil.rmtree(partial(output), ignore_errors=True)


def label_file(config: LabelConfig, source: Path, output: Path, force: bool, display: Display) -> Labels:
    """Label the geometries in ``source`` and write those that got a label to ``output``.

    Raises
    ------
    DatasetError
        If ``source`` cannot be read or ``output`` cannot be written.
    ConfigError, LabelError
        As `compute` does.
    """
    formats.refuse_output(output, force)
    frames = formats.read_frames(source)
    found = compute(config, frames, output, display, lambda k: f"{source}, frame {k}")
    rows = [
        LabeledFrame(frame, label)
        for frame, label in zip(frames, found.results, strict=True)
        if isinstance(label, Label)
    ]
    formats.write(output, rows, {found.engine: found.settings})
    found.write_failures(output)
    forget(output)
    return found
