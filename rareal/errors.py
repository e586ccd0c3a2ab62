"""The errors rareal raises on purpose: one base class, subclasses named by cause.

A message says what was wrong, where, and what to do about it. The command line prints the message alone and
exits with ``exit_code``; anything that is not a `RarealError` is a bug and keeps its traceback.
"""


class RarealError(Exception):
    """Base class of every error a user can cause or cure."""

    exit_code = 1


class ConfigError(RarealError):
    """The YAML, or a file it names, cannot be used; nothing has been run or written."""

    exit_code = 2


class DatasetError(RarealError):
    """A data set is damaged, of another label engine, or lacks what was asked of it."""


class LabelError(RarealError):
    """The label engine failed on too many frames, or on one that cannot be done without."""


class WorkerLost(RarealError):
    """The process, or the machine, that a task ran on ended before the task did."""


class SamplingError(RarealError):
    """LAMMPS could not be started, or no part of its trajectory is usable."""


class TrainingError(RarealError):
    """Training cannot start, or diverged beyond recovery."""


class ModelFileError(RarealError):
    """A model file is missing, damaged, of another format, or fails its parity check."""


class RunFolderError(RarealError):
    """A run folder belongs to another configuration, is locked, or lacks a stage."""


class InstallationError(RarealError):
    """A compiled part of rareal, LAMMPS or MPI is missing, or does not fit the rest."""
