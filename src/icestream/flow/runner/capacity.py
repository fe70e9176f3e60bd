"""How a runner is set up to share its machine."""

import getpass
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.resources.broker import Broker
from icestream.flow.resources.devices import find_gpus
from icestream.flow.resources.ledger import Ledger
from icestream.flow.runner.ready_queue import ReadyQueue
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling.instructions import Notify
from icestream.flow.scheduling.stage import Stage
from icestream.flow.storage.writing import Writing
from icestream.settings import Settings

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def gpus_for(settings: Settings) -> dict[int, float]:
    """Return the GPUs, by index, with their memory in GB; also those that no step uses yet, for the workflow may be edited."""
    return find_gpus(settings.gpus)


def own_limits(settings: Settings, gpus: Mapping[int, float]) -> dict[str, float]:
    """Return what one runner may use at most."""
    on_gpus = {f"gpu{index}": amount for index, amount in gpus.items()}
    return {"cores": settings.cores, "memory_gb": settings.usable_memory_gb, "gpu_gb": sum(gpus.values()), **on_gpus}


def machine_capacity(settings: Settings, gpus: Mapping[int, float]) -> dict[str, float]:
    """Return what all runners of the machine may use together: what it has, or more if one runner alone is allowed more."""
    limits = own_limits(settings, gpus)
    cores = max(settings.cores, os.cpu_count() or 1)
    memory_gb = max(settings.usable_memory_gb, 0.9 * psutil.virtual_memory().total / 2**30)
    return limits | {"cores": cores, "memory_gb": memory_gb}


def broker_for(runner: "Runner") -> Broker:
    """Return the broker of a runner; who looks at the ledger sees its session and the steps that run."""

    def describe() -> tuple[str, Mapping[str, int]]:
        return str(runner.session.folder), Counter(task.step for task, _ in runner.running.values())

    if runner.cluster is not None:
        there = runner.cluster.capacity()
        return Broker(None, {"cores": there.cores, "memory_gb": there.memory_gb})
    setting = runner.settings.ledger
    table = None if setting == "" else Ledger(Path(setting) if setting else None)
    return Broker(table, machine_capacity(runner.settings, runner.gpus), describe, user=_user_name())


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return str(os.getuid())


def ready_queue_for(runner: "Runner") -> ReadyQueue:
    """Return the queue of a runner."""
    settings = runner.settings
    return ReadyQueue(settings.cores, settings.usable_memory_gb, settings.newest_first, runner.gpus, runner.broker)


def reduce_after_exhaustion(task: Task, stage: Stage) -> None:
    """Let a task that ran out of memory once run alone and on one core; the store remembers what failed, also after a restart."""
    if stage.failures.get(task.unit, {}).get(FailureKind.OUT_OF_MEMORY, 0):
        task.asks = replace(task.demand, cores=1, whole=True)


def tell_notices(broker: Broker, writing: Writing) -> None:
    """Store what the broker has to say."""
    for level, text in broker.said:
        writing.notify(Notify(level, text))
    broker.said.clear()
