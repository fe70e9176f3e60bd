"""Steps on a Slurm cluster: the scheduler lives in the runner, jobs come and go with the work there is."""

import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
from dask_jobqueue import SLURMCluster
from distributed import Adaptive, Client

from icestream.errors import SessionError
from icestream.flow.declaration import FailureKind
from icestream.flow.execution.cluster_keys import ClusterKeys, make_keys
from icestream.flow.execution.cluster_settings import ClusterSettings
from icestream.flow.execution.dask_executor import DaskExecutor
from icestream.flow.execution.dask_link import CONNECT_S, LOST_ERRORS, Link
from icestream.flow.execution.executor import Answer, Capacity
from icestream.flow.execution.messages import WorkerJoined

_ENDED_BY_ITSELF = ("FAILED", "OUT_OF_MEMORY")
_GOODBYE_S = 120  # how long before its wall time a worker leaves by itself
_ASK_S = 10.0


class SlurmExecutor(DaskExecutor):
    """Runs attempts on dask workers in Slurm jobs; the number of jobs follows the work."""

    def __init__(self, settings: ClusterSettings, *, log_folder: Path) -> None:
        self.settings = settings
        folder = settings.log_folder or log_folder
        folder.mkdir(parents=True, exist_ok=True)
        self._keys = make_keys(folder) if settings.encrypt else None
        self._cluster = _start_cluster(settings, folder, self._keys)
        self._jobs: dict[str, str] = {}  # dask worker → Slurm job
        address = str(self._cluster.scheduler_address)
        client = lambda: Client(self._cluster, timeout=CONNECT_S, set_as_default=False, name="icestream")  # noqa: E731
        try:
            super().__init__(Link(address, client))
        except SessionError:
            self._cluster.close()
            raise
        self._cluster.adapt(
            Adaptive=_follow(self._wanted_jobs),
            minimum=settings.minimum_jobs,
            maximum=settings.maximum_jobs,
            interval="1s",
            wait_count=10,
        )

    def _wanted_jobs(self) -> int:
        return math.ceil(self.demand_cores() / self.settings.cores)

    def capacity(self) -> Capacity:
        """Return what all jobs may run that Slurm may be asked for."""
        jobs, cores = self.settings.maximum_jobs, self.settings.cores
        return Capacity(jobs * cores, jobs * self.settings.memory_gb, cores)

    def _joined(self, worker: WorkerJoined) -> Iterator[Answer]:
        if worker.job is not None:
            self._jobs[worker.address] = worker.job
        return super()._joined(worker)

    def kind_of_loss(self, address: str) -> FailureKind:
        """Ask Slurm: only a job that ended by itself speaks against what ran in it."""
        job = self._jobs.get(address)
        state = None if job is None else job_state(job)
        if state is None or state in (*_ENDED_BY_ITSELF, "RUNNING"):
            return FailureKind.WORKER_DIED
        return FailureKind.PREEMPTED

    def shut_down(self) -> None:
        """Take back what is running and end all jobs."""
        super().shut_down()
        try:
            self._cluster.close(timeout=30)
        except LOST_ERRORS as error:
            raise SessionError(f"the Slurm jobs of this run could not be ended; see squeue: {error}") from error
        finally:
            if self._keys is not None:
                self._keys.remove()


def job_state(job: str) -> str | None:
    """Return what Slurm says of a job, ``CANCELLED`` for one; None if it does not answer."""
    try:
        command = [shutil.which("scontrol") or "scontrol", "show", "job", "--oneliner", job]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    facts = dict(word.partition("=")[::2] for word in asked.stdout.split())
    return facts.get("JobState")


def _follow(wanted: Callable[[], int]) -> type[Adaptive]:
    class FollowWork(Adaptive):
        """As many jobs as the work asks for: attempts are bound to workers, so dask itself sees no backlog."""

        async def target(self) -> int:
            """Return the number of jobs that are wanted."""
            return wanted()

    return FollowWork


def _start_cluster(settings: ClusterSettings, folder: Path, keys: ClusterKeys | None) -> SLURMCluster:
    missing = [program for program in ("sbatch", "scancel", "scontrol") if shutil.which(program) is None]
    if missing:
        raise SessionError(f"--executor slurm needs the programs of Slurm on this machine; not found: {', '.join(missing)}")
    dask.config.set({"distributed.deploy.lost-worker-timeout": "5s"})  # then a lost job is replaced
    gpus = (f"--gres=gpu:{settings.gpus}",) if settings.gpus else ()
    lifetime = ["--lifetime", f"{settings.walltime_s - _GOODBYE_S}s"] if settings.walltime_s > 5 * _GOODBYE_S else []
    try:
        return SLURMCluster(
            queue=settings.partition,
            account=settings.account,
            cores=settings.cores,
            processes=1,
            memory=f"{settings.memory_gb}GiB",
            walltime=settings.walltime,
            interface=settings.interface,
            death_timeout=settings.orphan_s,
            local_directory=None if settings.scratch_folder is None else str(settings.scratch_folder),
            log_directory=str(folder),
            job_extra_directives=[*gpus, *settings.directives],
            job_script_prologue=list(settings.setup),
            worker_extra_args=lifetime,
            python=None if settings.python is None else str(settings.python),
            job_name="icestream",
            security=None if keys is None else keys.security(),
            scheduler_options={"dashboard_address": ":0"},
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SessionError(f"the dask scheduler for Slurm could not start: {error}") from error
