"""What comes out of a run: its model as a file, whole or one member of it, and its data in the formats of others."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rareal.errors import ConfigError, RunFolderError
from rareal.rundir import CONFIG, MARKER

PACKAGE = ".pt2"
TRAIN, MODEL = "train", "model.pt"


def models(run: Path) -> dict[int, Path]:
    """The model files of a run whose training has finished, by round.

    Raises
    ------
    RunFolderError
        If the folder is no run.
    """
    if not (run / CONFIG).is_file():
        raise RunFolderError(f"{run}: this is no run folder (it has no {CONFIG}); name one made by `rareal run`")
    found = sorted(run.glob(f"round-*/{TRAIN}/{MARKER}"))
    return {int(marker.parents[1].name.removeprefix("round-")): marker.with_name(MODEL) for marker in found}


def model_of(source: Path, round_number: int | None = None) -> Path:
    """The model file that ``source`` is, or has: a run's last one, or that of a round.

    Raises
    ------
    RunFolderError
        If the run has no such model.
    ConfigError
        If a round is asked of a file.
    """
    if not source.is_dir():
        if round_number is not None:
            raise ConfigError(f"--round {round_number}: {source} is no run folder; a file has one committee")
        return source
    found = models(source)
    if not found:
        raise RunFolderError(f"{source}: no training has finished yet; go on with the run")
    if round_number is not None and round_number not in found:
        raise RunFolderError(f"{source}: no training of round {round_number} has finished; there are {list(found)}")
    return found[max(found) if round_number is None else round_number]


def write_model(
    source: Path, output: Path, member: str | None = None, round_number: int | None = None, device: str = "cpu"
) -> str:
    """Write the committee of a run or a model file to ``output``, or one member; returns what has been done, in words.

    Parameters
    ----------
    member : a number from 1, ``best`` for the one that the file calls so, None for the whole committee.
    device : what a package (``.pt2``) is compiled for.

    Raises
    ------
    ConfigError
        If ``output`` exists, or would be a mere copy of the model file ``source``.
    """
    model = model_of(source, round_number)
    if output.exists():
        raise ConfigError(f"{output} exists already; nothing was written")
    package = output.suffix == PACKAGE
    what = f"{model}" if member is None else f"member {member} of {model}"
    if member is None:
        if package:
            _compile(model, output, device)
            return f"{what} compiled for {device} in {output}"
        if not source.is_dir():
            raise ConfigError(f"-o {output}: a model file is compiled to a package, whose name ends in {PACKAGE}")
        _copy(model, output)
        return f"{what} in {output}"
    number = _number(model, member)
    from rareal.compiled import write_member

    if not package:
        write_member(model, output, number)
        return f"{what} in {output}"
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "member.pt"
        write_member(model, alone, number)
        _compile(alone, output, device)
    return f"{what} compiled for {device} in {output}"


def _number(model: Path, member: str) -> int:
    from rareal.export import archive

    if member == "best":
        return archive.read(model)[0].best_member + 1
    if not member.isdecimal():
        raise ConfigError(f"--member {member}: give a number from 1, or best")
    return int(member)


def _compile(model: Path, output: Path, device: str) -> None:
    from rareal.compiled import compile_file

    compile_file(model, output, device)


def _copy(model: Path, output: Path) -> None:
    from rareal.export import archive
    from rareal.files import write_atomically

    archive.read(model)  # not damaged
    with model.open("rb") as source:
        write_atomically(output, lambda stream: shutil.copyfileobj(source, stream))


def write_random(
    output: Path, model: str, elements: Sequence[str], members: int, dtype: str, seed: int, device: str
) -> None:
    """Write an untrained committee; see `rareal.untrained`."""
    from rareal.untrained import write_untrained

    if output.suffix != PACKAGE:
        write_untrained(output, model, elements, members, dtype, seed)
        return
    from rareal.compiled import compile_file  # refuses early where there is no compiler

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "random.pt"
        write_untrained(plain, model, elements, members, dtype, seed)
        compile_file(plain, output, device)


def write_data(source: Path, output: Path, force: bool = False) -> int:
    """Write the labelled frames of a run or a data set; returns how many.

    Raises
    ------
    DatasetError
        If there are none, or ``output`` exists or is of no known format.
    """
    from rareal import labelled
    from rareal.data import formats

    formats.refuse_output(output, force)
    frames, settings = labelled.read(source)
    formats.write(output, frames, settings)
    return len(frames)
