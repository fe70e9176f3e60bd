"""What is ready to run, best first; cores, memory and GPU memory are handed out as tokens."""

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from icestream.flow.execution.executor import Capacity
from icestream.flow.resources.broker import Broker
from icestream.flow.resources.fairness import beyond, plus
from icestream.flow.runner.tasks import Task
from icestream.flow.workflow import Demand, tokens_of, usable_gpus

Heap = list[tuple[int, int, int, Task]]


@dataclass
class ReadyQueue:
    """Closest to the screen first; within a step the oldest (or newest) exposure first."""

    cores: int
    memory_gb: float
    newest_first: bool = False
    gpus: Mapping[int, float] = field(default_factory=dict)
    broker: Broker | None = None
    widest: int | None = None  # the cores of the widest worker, where that is not all of them
    _held: dict[str, dict[str, float]] = field(default_factory=dict)  # by attempt
    _heaps: dict[tuple[str, Demand], Heap] = field(default_factory=dict)  # by what tasks ask for
    _overtaken: int = 0
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _parallel: dict[str, int] = field(default_factory=dict)  # running calls of each step
    _alone: bool = False  # a task runs that must be alone

    def __post_init__(self) -> None:
        if self.broker is None:
            self.broker = Broker(None, {"cores": self.cores, "memory_gb": self.memory_gb})
        on_gpus = {f"gpu{index}": amount for index, amount in self.gpus.items()}
        self.limits = {"cores": self.cores, "memory_gb": self.memory_gb, "gpu_gb": sum(self.gpus.values()), **on_gpus}
        self.running: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())

    def resize(self, capacity: Capacity) -> None:
        """Take note of what a cluster may run at this moment."""
        self.cores, self.memory_gb, self.widest = capacity.cores, capacity.memory_gb, capacity.widest
        self.limits |= {"cores": capacity.cores, "memory_gb": capacity.memory_gb}
        self._broker.capacity = dict(self.limits)

    def put(self, task: Task, *, depth: int) -> None:
        """Add a task of a step at ``depth`` in the workflow."""
        order = next(self._order)
        limited = task.step if task.demand.max_parallel is not None else ""
        heap = self._heaps.setdefault((limited, task.demand), [])
        heapq.heappush(heap, (-depth, -order if self.newest_first else order, order, task))

    def clear(self) -> None:
        """Forget what waits; what runs keeps its tokens."""
        self._heaps.clear()

    def begin(self) -> None:
        """Begin a round of `take`."""
        self._broker.begin()

    def end(self, *, leaving: bool = False) -> None:
        """End a round: what is not used goes back to the machine in a moment; who is ``leaving`` starts nothing more."""
        self._broker.end(self.running, (lambda: self.running) if leaving else self.wanted)

    def take(self) -> Task | None:
        """Return the best task that the free tokens allow, and hold its tokens; None if there is none.

        A task that needs more than is free is overtaken a few times by others that want what it lacks, then room is kept for it.
        """
        if self.cores < 1:
            return None
        waiting = sorted(filter(self._may_run, self._heaps.values()), key=lambda heap: heap[0][:3])
        lacked: set[str] = set()
        for heap in waiting:
            task = heap[0][3]
            gpu, lacking = self._place(task.demand)
            if lacking:
                lacked |= lacking
                continue
            tokens = self._tokens(task.demand, gpu)
            overtakes = any(tokens.get(name) for name in lacked)
            if overtakes and self._overtaken >= self.cores:
                continue
            self._overtaken = self._overtaken + 1 if overtakes else 0
            heapq.heappop(heap)
            task.gpu = gpu
            task.cores = int(tokens["cores"])
            self._hold(task, tokens)
            return task
        return None

    def withdraw(self, attempts: set[str]) -> None:
        """Take back tasks that nobody waits for any more."""
        for heap in self._heaps.values():
            heap[:] = [entry for entry in heap if entry[3].attempt not in attempts]
            heapq.heapify(heap)

    def give_back(self, task: Task) -> None:
        """Free the tokens of a task that ended."""
        for name, amount in self._held.pop(task.attempt).items():
            self.running[name] -= amount
        self._parallel[task.step] -= 1
        self._alone = False
        if not self._held:
            self.running.clear()  # no rounding errors stay behind

    def wanted(self) -> dict[str, float]:
        """Return what would be held if only the limits of this runner counted."""
        total = dict(self.running)
        for heap in sorted(filter(self._may_run, self._heaps.values()), key=lambda heap: heap[0][:3]):
            places = usable_gpus(heap[0][3].demand, self.gpus)
            one = self._tokens(heap[0][3].demand, places[0] if places else None)
            one = {name: amount for name, amount in one.items() if name in ("cores", "memory_gb", "gpu_gb")}
            room = min((self.limits[name] - total.get(name, 0.0)) / amount for name, amount in one.items() if amount)
            count = min(len(heap), max(int(room), 0 if total.get("cores") else 1))
            total = plus(total, {name: amount * count for name, amount in one.items()})
        return {name: min(amount, self.limits[name]) for name, amount in total.items()}

    @property
    def _broker(self) -> Broker:
        assert self.broker is not None  # noqa: S101 - set in __post_init__
        return self.broker

    def _may_run(self, heap: Heap) -> bool:
        if not heap:
            return False
        task = heap[0][3]
        most = task.demand.max_parallel
        return most is None or self._parallel.get(task.step, 0) < most

    def _tokens(self, demand: Demand, gpu: int | None) -> dict[str, float]:
        if demand.whole:
            share_gb = max(demand.memory_gb, min(self.memory_gb, self._broker.memory_share_gb))
            demand = replace(demand, cores=1, memory_gb=share_gb)
        limits = self.limits | {"cores": min(self.limits["cores"], self.widest or self.limits["cores"])}
        return tokens_of(demand, gpu, limits=limits)

    def _place(self, demand: Demand) -> tuple[int | None, frozenset[str]]:
        """Return the GPU to run on, the one with most room first, and what there is no room for."""
        places = usable_gpus(demand, self.gpus)
        if self._alone or (demand.whole and self._held):
            return None, frozenset({"memory_gb"})
        if len(places) > 1:
            self._broker.glance(self.running, self.wanted)
        lacked: frozenset[str] = frozenset()
        devices: list[int | None] = [*sorted(places, key=self._room_on, reverse=True)] or [None]
        for gpu in devices:
            tokens = self._tokens(demand, gpu)
            short = beyond(plus(self.running, tokens), self.limits) if self._held else frozenset()
            short = short or self._broker.lacking(tokens, self.running, self.wanted)
            if not short:
                return gpu, short
            lacked |= short
        return None, frozenset("gpu_gb" if name.startswith("gpu") else name for name in lacked)

    def _room_on(self, gpu: int) -> float:
        name = f"gpu{gpu}"
        return self.gpus[gpu] - self.running.get(name, 0.0) - self._broker.taken.get(name, 0.0)

    def _hold(self, task: Task, tokens: dict[str, float]) -> None:
        self._held[task.attempt] = tokens
        self._alone = task.demand.whole
        self.running = plus(self.running, tokens)
        self._parallel[task.step] = self._parallel.get(task.step, 0) + 1
