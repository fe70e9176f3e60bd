"""Where steps of a test run: this machine, a dask cluster of its processes, or jobs of a real Slurm."""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster

from icestream.flow.execution.cluster_settings import read_cluster_settings
from icestream.flow.execution.dask_executor import DaskExecutor
from icestream.flow.execution.dask_link import Link, connect_to
from icestream.flow.execution.executor import Executor
from icestream.flow.execution.pool import Pool
from icestream.flow.execution.slurm import SlurmExecutor
from services.slurm import missing_for_slurm, running_jobs, single_node_slurm


@dataclass
class Site:
    """Somewhere to run: an executor for a test, what a runner is told, and a way to kill one of its workers."""

    name: str
    where: dict[str, str]
    open: Callable[[Path], Executor]
    kill_one: Callable[[Any], None]
    slots: int  # how many steps run at a time
    counted: set[str]  # the failures that a killed worker counts as


def local_site(stack: ExitStack, folder: Path) -> Site:
    return Site("local", {"executor": "local"}, lambda _: Pool(2, 4.0), kill_child, 2, {"worker_died"})


def kill_child(runner: Any) -> None:
    processes = [child for child in psutil.Process(runner.pid).children() if len(child.cmdline()) == 5]  # the source has 6
    random.Random(7).choice(processes).kill()


def dask_site(stack: ExitStack, folder: Path) -> Site:
    cluster = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=2, memory_limit="2GiB", dashboard_address=":0"))

    def kill_one(_: Any) -> None:
        nanny = random.Random(7).choice(list(cluster.workers.values()))
        os.kill(nanny.pid, signal.SIGKILL)

    address = cluster.scheduler_address
    where = {"executor": "dask", "scheduler": address}
    return Site("dask", where, lambda _: DaskExecutor(Link(address, connect_to(address))), kill_one, 4, {"worker_died"})


def slurm_site(stack: ExitStack, folder: Path) -> Site:
    missing = missing_for_slurm()
    if missing is not None:
        pytest.skip(f"Slurm: {missing}")
    environment = stack.enter_context(single_node_slurm(folder / "slurm", cores=8, memory_mb=8000))
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
    settings = folder / "cluster.yaml"
    settings.write_text("partition: main\ncores: 2\nmemory_gb: 1\nwalltime: '00:30:00'\nmaximum_jobs: 2\norphan_s: 5\n")

    def cancel_one(_: Any) -> None:
        newest = max(running_jobs(environment), key=int)
        subprocess.run([shutil.which("scancel") or "scancel", newest], check=True)

    def open_executor(log_folder: Path) -> Executor:
        return SlurmExecutor(read_cluster_settings(settings), log_folder=log_folder)

    return Site("slurm", {"executor": "slurm", "cluster_settings": str(settings)}, open_executor, cancel_one, 4, set())


SITES = {"local": local_site, "dask": dask_site, "slurm": slurm_site}
