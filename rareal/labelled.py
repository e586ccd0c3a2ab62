"""A labelled data set by its name: a file, or all that a run has labelled."""

from __future__ import annotations

from pathlib import Path

from rareal.data import dataset, formats
from rareal.data.dataset import Settings
from rareal.errors import DatasetError
from rareal.records import LabeledFrame
from rareal.rundir import CONFIG, MARKER

DELTA = "data.h5"


def read(source: Path, units: str | None = None, mixed: bool = False) -> tuple[list[LabeledFrame], Settings]:
    """The frames of a data set, and the settings of their engines as far as they are known.

    Parameters
    ----------
    source : a file as in `rareal.data.formats.read_set`, or a run folder: then all frames of its finished stages, in
        the order in which they were labelled; those that check the committee are among them, learnt from or not.
    units : as in `rareal.data.formats.read_set`.
    mixed : let labels of different engines pass.

    Raises
    ------
    DatasetError
        If there is nothing to read, or labels are of different engines and ``mixed`` is not given.
    """
    frames, settings = _read_run(source) if source.is_dir() else formats.read_set(source, units)
    if not mixed:
        try:
            dataset.refuse_mixture(frames, settings)
        except DatasetError as error:
            raise DatasetError(f"{source}: {error}") from None
    return frames, settings


def _read_run(folder: Path) -> tuple[list[LabeledFrame], Settings]:
    if not (folder / CONFIG).is_file():
        raise DatasetError(f"{folder}: this is no run folder (it has no {CONFIG}); name one, or a file with labels")
    deltas = list(folder.glob(f"initial/*/{DELTA}"))
    for place in sorted(folder.glob("round-*")):
        # what was labelled on the fly came first
        deltas += [*sorted(place.glob(f"fly/*/{DELTA}")), *sorted(place.glob(f"*/{DELTA}"))]
    frames: list[LabeledFrame] = []
    settings: dict[str, dict[str, object]] = {}
    for delta in deltas:
        if (delta.parent / MARKER).is_file():  # else the stage was interrupted, and will be done anew
            frames += dataset.read(delta)
            settings |= {engine: dict(known) for engine, known in dataset.settings(delta).items()}
    if not frames:
        raise DatasetError(f"{folder}: the run has no labels yet; go on with it, or name another data set")
    return frames, settings
