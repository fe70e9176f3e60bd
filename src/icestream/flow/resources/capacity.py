"""What one runner may use, and what all runners of the machine may use together."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from icestream.account import user_name
from icestream.flow.resources.broker import Broker
from icestream.flow.resources.devices import find_gpus
from icestream.flow.resources.fairness import Tokens
from icestream.flow.resources.ledger import Ledger
from icestream.settings import Settings


@dataclass(frozen=True)
class Machine:
    """What one runner may use of its machine: GPUs by index with their memory in GB, and all of it as tokens."""

    gpus: Mapping[int, float]
    limits: Tokens


def machine_for(settings: Settings) -> Machine:
    """Return what a runner may use at most; also GPUs that no step uses yet, for the workflow may be edited."""
    gpus = find_gpus(settings.gpus)
    on_gpus = {f"gpu{index}": amount for index, amount in gpus.items()}
    own = {"cores": settings.cores, "memory_gb": settings.usable_memory_gb, "gpu_gb": sum(gpus.values())}
    return Machine(gpus, {**own, **on_gpus})


def machine_capacity(machine: Machine) -> dict[str, float]:
    """Return what all runners of the machine may use together: what it has, or more if one runner alone is allowed more."""
    limits = dict(machine.limits)
    cores = max(limits["cores"], os.cpu_count() or 1)
    memory_gb = max(limits["memory_gb"], 0.9 * psutil.virtual_memory().total / 2**30)
    return limits | {"cores": cores, "memory_gb": memory_gb}


def machine_broker(settings: Settings, machine: Machine, describe: Callable[[], tuple[str, Mapping[str, int]]]) -> Broker:
    """Return the broker of a runner of this machine; ``describe`` tells who looks at the ledger its session and what runs."""
    setting = settings.ledger
    table = None if setting == "" else Ledger(Path(setting) if setting else None)
    return Broker(table, machine_capacity(machine), describe, user=user_name())
