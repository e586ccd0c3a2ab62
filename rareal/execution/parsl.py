"""Tasks wherever Parsl has workers: blocks of a batch system, or of this machine.

Y. Babuji et al., HPDC 2019, 25. Blocks (jobs of the batch system) are requested and given back between bounds, by how
many tasks there are, as aims-PAX does it (section II B of its paper). All machines must see the run folder, and this
Python environment, under the same path.
"""

from __future__ import annotations

import re
import shlex
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from rareal.errors import InstallationError, WorkerLost
from rareal.execution.child import THREADS, environment
from rareal.schema import Section

if TYPE_CHECKING:
    from parsl import DataFlowKernel
    from parsl.config import Config as ParslConfig
    from parsl.providers.base import ExecutionProvider

SLURM = ("partition", "account", "qos", "constraint", "gres", "gpus_per_node", "mem_per_node", "scheduler_options")
"""Keys that only a batch system understands."""


class Config(Section):
    """Tasks run on workers that Parsl starts."""

    kind: Literal["parsl"] = "parsl"
    provider: Literal["local", "slurm"] = Field("local", description="where blocks come from: this machine, or Slurm")
    min_blocks: int = Field(0, ge=0, description="blocks that are kept even when idle; for Slurm a block is a job")
    max_blocks: int = Field(1, ge=1, description="most blocks at the same time")
    nodes_per_block: int = Field(1, ge=1, description="nodes of a block")
    workers_per_node: int = Field(1, ge=1, description="tasks that a node runs at the same time")
    cores_per_worker: int = Field(1, ge=1, description="cores, and OpenMP threads, of a worker")
    idle_time: float = Field(120.0, gt=0, description="seconds without a task after which a block is given back")
    heartbeat: int = Field(30, ge=1, description="a node that is silent for three times as many seconds is lost")
    walltime: str = Field("01:00:00", description="longest life of a block, HH:MM:SS")
    worker_init: str = Field("", description="shell commands before the workers start, e.g. 'module load gpaw'")
    address: str | None = Field(None, description="this machine as the nodes see it; found by trying where not given")
    partition: str | None = Field(None, description="Slurm partition, the queue")
    account: str | None = Field(None, description="Slurm account")
    qos: str | None = Field(None, description="Slurm quality of service")
    constraint: str | None = Field(None, description="Slurm constraint, e.g. a type of node")
    gres: str | None = Field(None, description="Slurm generic resources, e.g. gpu:1")
    gpus_per_node: int | None = Field(None, ge=1, description="GPUs of a node")
    mem_per_node: int | None = Field(None, ge=1, description="memory of a node, GB")
    exclusive: bool = Field(False, description="whole nodes, shared with nobody")
    scheduler_options: str = Field("", description="further lines '#SBATCH ...' of the job script")

    @field_validator("walltime")
    @classmethod
    def _hours(cls, value: str) -> str:
        if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", value):
            raise ValueError("give hours, minutes and seconds in quotes, e.g. '12:00:00'")
        return value

    @field_validator("scheduler_options")
    @classmethod
    def _directives(cls, value: str) -> str:
        wrong = [line for line in value.splitlines() if line.strip() and not line.startswith("#SBATCH ")]
        if wrong:
            raise ValueError(f"'{wrong[0]}' is no line for Slurm; begin it with '#SBATCH '")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.min_blocks > self.max_blocks:
            raise ValueError(f"min_blocks ({self.min_blocks}) exceeds max_blocks ({self.max_blocks})")
        given = [name for name in SLURM if getattr(self, name)]
        if self.provider == "local" and given:
            raise ValueError(f"{', '.join(given)} is for 'provider: slurm'; this is 'provider: local'")
        return self


class ParslExecutor(Executor):
    """Runs tasks on Parsl's workers, which are started with the first task.

    Parameters
    ----------
    config : what to start.
    folder : for Parsl's scripts and logs; seen by all machines.
    label : the name of the stage, in Parsl's logs and Slurm's job names.
    """

    def __init__(self, config: Config, folder: Path, label: str) -> None:
        self.config = config
        self.folder = folder
        self.label = label
        self.workers = config.max_blocks * config.nodes_per_block * config.workers_per_node
        self._lock = threading.Lock()
        self._kernel: DataFlowKernel | None = None
        self._app: Callable[..., Future[Any]] | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future of ``fn(*args, **kwargs)``; `WorkerLost` is its exception if worker or node are lost."""
        with self._lock:
            app = self._app or self._start()
        result: Future[Any] = Future()
        result.set_running_or_notify_cancel()
        app(fn, args, kwargs).add_done_callback(lambda theirs: _hand_over(theirs, result))
        return result

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Give all blocks back: after all tasks, or at once where they are cancelled."""
        kernel, self._kernel, self._app = self._kernel, None, None
        if kernel is None:
            return
        if wait and not cancel_futures:
            kernel.wait_for_current_tasks()
        kernel.cleanup()

    def _start(self) -> Callable[..., Future[Any]]:
        from parsl import DataFlowKernel
        from parsl.app.python import PythonApp

        self.folder.mkdir(parents=True, exist_ok=True)
        self._kernel = DataFlowKernel(parsl_config(self.config, self.folder, self.label))
        self._app = PythonApp(call, data_flow_kernel=self._kernel)
        return self._app


def call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a task; on the worker."""
    return function(*args, **kwargs)


def _hand_over(theirs: Future[Any], ours: Future[Any]) -> None:
    """What became of Parsl's future, with its losses named as everybody's are."""
    from parsl.executors.high_throughput.errors import ManagerLost
    from parsl.executors.high_throughput.errors import WorkerLost as ParslWorkerLost

    error = theirs.exception()
    if isinstance(error, ManagerLost | ParslWorkerLost):
        lost = WorkerLost(str(error))
        lost.__cause__ = error
        ours.set_exception(lost)
    elif error is not None:
        ours.set_exception(error)
    else:
        ours.set_result(theirs.result())


def parsl_config(config: Config, folder: Path, label: str) -> ParslConfig:
    """Parsl's own configuration: one executor whose blocks scale between the bounds."""
    from parsl.config import Config as ParslConfig
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD

    scripts = Path(sys.executable).parent
    python = shlex.quote(sys.executable)
    # `rareal` may be called by its path, in an environment that has not been activated
    launch = DEFAULT_LAUNCH_CMD.replace(
        "process_worker_pool.py", f"{python} {shlex.quote(str(scripts / 'process_worker_pool.py'))}", 1
    )
    executor = HighThroughputExecutor(
        label=label,
        provider=provider(config),
        launch_cmd=launch,
        interchange_launch_cmd=[sys.executable, str(scripts / "interchange.py")],
        address=config.address or ("127.0.0.1" if config.provider == "local" else None),
        max_workers_per_node=config.workers_per_node,
        cores_per_worker=config.cores_per_worker,
        heartbeat_period=config.heartbeat,
        heartbeat_threshold=3 * config.heartbeat,
    )
    return ParslConfig(
        executors=[executor],
        run_dir=str(folder.absolute()),
        # not htex_auto_scale: it ends blocks that still wait in the queue where there are fewer tasks than workers
        strategy="simple",
        strategy_period=2.0,
        max_idletime=config.idle_time,
        initialize_logging=False,
        usage_tracking=0,
    )


def provider(config: Config) -> ExecutionProvider:
    """Parsl's provider of blocks."""
    from parsl.launchers import SingleNodeLauncher, SrunLauncher
    from parsl.providers import LocalProvider, SlurmProvider

    surroundings = environment(config.cores_per_worker)
    exports = {name: surroundings[name] for name in (*THREADS, "PYTHONPATH")}
    start = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in exports.items())
    common = {
        "init_blocks": max(1, config.min_blocks),
        "min_blocks": config.min_blocks,
        "max_blocks": config.max_blocks,
        "nodes_per_block": config.nodes_per_block,
        "worker_init": f"{start}\n{config.worker_init}",
    }
    if config.provider == "local":
        return LocalProvider(**common)
    return SlurmProvider(
        **common,
        launcher=SrunLauncher() if config.nodes_per_block > 1 else SingleNodeLauncher(),
        walltime=config.walltime,
        partition=config.partition,
        account=config.account,
        qos=config.qos,
        constraint=config.constraint,
        gres=config.gres,
        gpus_per_node=config.gpus_per_node,
        mem_per_node=config.mem_per_node,
        cores_per_node=config.workers_per_node * config.cores_per_worker,
        exclusive=config.exclusive,
        scheduler_options=config.scheduler_options,
    )


def build(config: Config, stage: str = "tasks", folder: Path | None = None) -> ParslExecutor:
    """The executor that ``config`` describes.

    Raises
    ------
    InstallationError
        If Parsl is not installed.
    """
    from importlib.util import find_spec

    if find_spec("parsl") is None:
        raise InstallationError("executor 'parsl' needs Parsl: pip install parsl")
    return ParslExecutor(config, (folder or Path("rareal-parsl")) / stage, f"rareal-{stage}")
