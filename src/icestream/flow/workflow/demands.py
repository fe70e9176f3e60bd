"""What a step asks of the machine: declared by its type, pinned by the workflow, checked against what there is."""

from collections.abc import Mapping
from dataclasses import dataclass

from icestream.errors import WorkflowError
from icestream.flow.resources.fairness import Tokens
from icestream.flow.workflow.graph import Graph, Node


@dataclass(frozen=True)
class Demand:
    """What one call of a step asks for. ``whole`` asks for all that this runner may have, and one core: after out-of-memory."""

    cores: int = 1
    memory_gb: float = 1.0
    gpu_gb: float = 0.0
    gpus: tuple[int, ...] = ()
    max_parallel: int | None = None
    whole: bool = False


def request_of(node: Node) -> Demand:
    """Return what a call of ``node`` asks for."""
    declared, pinned = node.type, node.resources
    return Demand(
        cores=pinned.cores or declared.cores,
        memory_gb=pinned.memory_gb or declared.memory_gb,
        gpu_gb=declared.gpu_gb if pinned.gpu_gb is None else pinned.gpu_gb,
        gpus=pinned.gpus or (),
        max_parallel=pinned.max_parallel,
    )


def tokens_of(demand: Demand, gpu: int | None, *, limits: Tokens) -> dict[str, float]:
    """Return the tokens that a call holds on ``gpu``: never more than there are."""
    tokens = {"cores": float(demand.cores), "memory_gb": demand.memory_gb}
    if gpu is not None:
        device = f"gpu{gpu}"
        on_device = limits[device] if demand.whole else min(demand.gpu_gb, limits[device])
        tokens |= {"gpu_gb": on_device, device: on_device}
    return {name: min(amount, limits[name]) for name, amount in tokens.items()}


def check_requests(graph: Graph, limits: Tokens, gpus: Mapping[int, float]) -> list[str]:
    """Return a notice for every step that asks for more than there is: it runs alone rather than never.

    Raises
    ------
    WorkflowError
        A step needs a GPU, or one that this machine does not have.
    """
    notices, problems = [], []
    for node in graph.nodes.values():
        demand = request_of(node)
        if demand.gpu_gb > 0:
            problems += _missing_gpus(node, demand, gpus)
        elif demand.gpus:
            problems.append(
                f"step {node.name!r}: is pinned to GPUs {list(demand.gpus)} but asks for no memory on them; set gpu_gb"
            )
        most_gpu_gb = max((gpus[index] for index in usable_gpus(demand, gpus)), default=demand.gpu_gb)
        wanted = {"cores": demand.cores, "memory_gb": demand.memory_gb, "gpu_gb": demand.gpu_gb}
        there = {"cores": limits["cores"], "memory_gb": limits["memory_gb"], "gpu_gb": most_gpu_gb}
        units = {"cores": "cores", "memory_gb": "GB of memory", "gpu_gb": "GB on one GPU"}
        notices += [
            f"step {node.name!r} asks for {wanted[name]:g} {units[name]}, but only {there[name]:g} are available: it runs alone"
            for name in wanted
            if wanted[name] > there[name]
        ]
    if problems:
        raise WorkflowError("\n".join(problems))
    return notices


def usable_gpus(demand: Demand, gpus: Mapping[int, float]) -> list[int]:
    """Return the GPUs that a call may run on."""
    if demand.gpu_gb <= 0:
        return []
    return [index for index in sorted(gpus) if not demand.gpus or index in demand.gpus]


def _missing_gpus(node: Node, demand: Demand, gpus: Mapping[int, float]) -> list[str]:
    if not gpus and node.type.gpu == "required":
        return [
            f"step {node.name!r}: {node.type.name} needs a GPU with {demand.gpu_gb:g} GB, and this machine has none "
            "(ICESTREAM_GPUS can name them)"
        ]
    unknown = sorted(set(demand.gpus) - set(gpus)) if gpus else []
    return [f"step {node.name!r}: is pinned to GPUs {unknown}; this machine has {sorted(gpus)}"] if unknown else []
