"""The same drives with the label engine instead of a committee: the numbers to compare with.

LAMMPS runs the very script of the sampler, from the same velocities; only its potential block differs:
`fix external` asks the engine for the forces at every step. Run as ``python -m rareal.sampling.reference SCRIPT`` with
the pickled engine and frame on standard input, which is what `EngineSampler` does.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rareal.errors import LabelError, RunFolderError, SamplingError
from rareal.execution.processes import cores
from rareal.files import read_json, write_json
from rareal.plugin import load_mpi
from rareal.protocols import Engine, Progress
from rareal.records import Frame, Trajectory, Walker
from rareal.sampling import lammps
from rareal.sampling.base import LammpsSampler
from rareal.sampling.trajectory import ARCHIVE, load, save

FIX = "engine"
END = "# --- end of potential"
POTENTIAL = f"""\
# The label engine, called through the LAMMPS library (python -m rareal.sampling.reference); not by plain lmp.
pair_style      zero 5.0
pair_coeff      * *
fix             {FIX} all external pf/callback 1 1
fix_modify      {FIX} energy yes
variable        energy_std equal 0.0
variable        force_std_max equal 0.0
variable        force_std_mean equal 0.0
variable        committee_bias equal 0.0"""


class EngineSampler:
    """Drives the event with the engine, several walkers at a time, resumable walker by walker.

    Parameters
    ----------
    sampler : writes the scripts, as for the committee.
    engine : the level of theory; it is sent to the processes by pickle.
    workers : walkers at the same time; the cores this program may use where not given.
    """

    def __init__(self, sampler: LammpsSampler, engine: Engine, workers: int | None = None) -> None:
        self.sampler = sampler
        self.engine = engine
        self.workers = workers or cores()

    def sample(self, folder: Path, walkers: Sequence[Walker], progress: Progress | None = None) -> list[Trajectory]:
        """One trajectory per walker; those already in ``folder`` are read.

        Raises
        ------
        RunFolderError
            If ``folder`` is of another engine or protocol.
        SamplingError
            If a drive fails: a reference with holes is none.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._claim(folder)
        missing = [walker for walker in walkers if not archive(folder, walker.seed).exists()]
        runs = {self._run(archive(folder, walker.seed).parent, walker): walker for walker in missing}
        lammps.run_all(
            list(runs), self.workers, self.sampler.config.patience, progress, lambda run: self._keep(run, runs[run])
        )
        return [replace(load(archive(folder, walker.seed))[0], walker=walker.number) for walker in walkers]

    def _run(self, place: Path, walker: Walker) -> lammps.Run:
        self.sampler.prepare(place, walker, POTENTIAL)
        job = pickle.dumps((self.engine, walker.start))
        return self.sampler.run(place, walker, [sys.executable, "-P", "-m", "rareal.sampling.reference"], job)

    def _keep(self, run: lammps.Run, walker: Walker) -> None:
        trajectory = self.sampler.collect(run, walker)
        if trajectory.note or not len(trajectory):
            reason = trajectory.note or "no output"
            raise SamplingError(f"the engine's drive failed: {reason}. Read {run.folder / lammps.SCREEN}")
        save(run.folder / ARCHIVE, [trajectory])
        (run.folder / lammps.DUMP).unlink(missing_ok=True)

    def _claim(self, folder: Path) -> None:
        """A folder holds one engine and one protocol."""
        unrelated = {"walkers", "patience", "keep_dumps", "driver", "uncertainty_bias"}
        start, config = self.sampler.start, self.sampler.config
        own = config.model_dump(mode="json")["walkers"] if isinstance(config.walkers, tuple) else None
        identity = {
            "engine": self.engine.hash,
            "protocol": config.model_dump(mode="json", exclude=unrelated),
            "walkers": own,
            "variables": [variable.colvars() for variable in self.sampler.variables],
            "numbers": start.numbers.tolist(),
            "positions": start.positions.tolist(),
        }
        path = folder / "protocol.json"
        if path.exists() and read_json(path) != identity:
            raise RunFolderError(
                f"{folder} holds a reference of another engine, protocol or structure; use another folder"
            )
        write_json(path, identity)


def archive(folder: Path, seed: int) -> Path:
    """Where the trajectory of a seed is kept."""
    return folder / f"seed-{seed}" / ARCHIVE


def drive(script: Path, engine: Engine, start: Frame) -> None:
    """Run ``script`` in LAMMPS with the engine's energy and forces.

    Raises
    ------
    LabelError
        If the engine fails at a step.
    """
    load_mpi()
    import lammps as library

    head, tail = script.read_text(encoding="utf-8").split(END, 1)
    program = library.lammps(cmdargs=["-log", lammps.LOG])
    failure: list[BaseException] = []

    def forces(_: Any, step: int, count: int, tags: Any, positions: Any, out: Any) -> None:
        if failure:
            return
        order = np.asarray(tags).ravel() - 1
        where = np.empty((count, 3))
        # LAMMPS orders its atoms as it likes
        where[order] = positions
        try:
            energy, values = engine.calculate(replace(start, positions=where))[:2]
        except Exception as error:  # an exception cannot cross LAMMPS: it is raised again below
            failure.append(LabelError(f"the engine failed at step {step}: {error}"))
            out[:] = 0.0
            program.force_timeout()
            return
        out[:] = values[order]
        program.fix_external_set_energy_global(FIX, energy)

    program.commands_string(head)
    program.set_fix_external_callback(FIX, forces)
    program.commands_string(tail)
    if failure:
        raise failure[0]
    program.close()


def main(script: Path) -> None:
    """Read engine and frame from standard input and run."""
    engine, start = pickle.load(sys.stdin.buffer)
    try:
        drive(script, engine, start)
    except (LabelError, SamplingError) as error:
        sys.exit(f"Error: {error}")
    finally:
        getattr(engine, "close", lambda: None)()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
