"""Putting a runner together: each part is given what it needs, and knows nothing of the others."""

from collections.abc import Mapping
from dataclasses import dataclass

from icestream.flow.execution.executor import Executor
from icestream.flow.execution.pool import Pool
from icestream.flow.resources.broker import Broker
from icestream.flow.resources.capacity import Machine, machine_broker
from icestream.flow.runner.build import build_workflow
from icestream.flow.runner.edits import Edits
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.health import Health
from icestream.flow.runner.pausing import Clock, SelfPausing
from icestream.flow.runner.ready_queue import ReadyQueue
from icestream.flow.runner.restoring import Restoring
from icestream.flow.runner.results import ResultHandler
from icestream.flow.runner.source_messages import SourceMessages
from icestream.flow.runner.sources import Sources
from icestream.flow.runner.stopping import RunnerStop
from icestream.flow.runner.trash_sweep import TrashSweep
from icestream.flow.runner.work import Work
from icestream.flow.scheduling import Notify
from icestream.flow.storage import Pauses, Session, Store
from icestream.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a session is processed: the store that was claimed, its machine, and what runs steps and sources there."""

    store: Store
    settings: Settings
    machine: Machine
    health: Health
    pool: Pool
    cluster: Executor | None = None

    @property
    def executor(self) -> Executor:
        """What runs steps; sources are always processes of this machine."""
        return self.cluster or self.pool


@dataclass(frozen=True)
class Parts:
    """The parts of one runner."""

    place: Place
    engine: Engine
    edits: Edits
    pausing: SelfPausing
    clock: Clock
    stop: RunnerStop
    results: ResultHandler
    source_messages: SourceMessages
    broker: Broker
    trash: TrashSweep


def assemble(place: Place, session: Session) -> tuple[Parts, list[Notify]]:
    """Return the parts of a runner, with the workflow of the session as it is now, and what people should know about it."""
    pauses, clock, stop = Pauses(), Clock(place.store), RunnerStop()
    work, broker = _make_work(place, session)
    sources = Sources(place.pool, place.store, pauses)
    with place.store.transaction(durable=True) as connection:
        pauses.load(connection)
        workflow, notices = build_workflow(
            connection, session, settings=place.settings, machine=place.machine, uptime_s=clock.uptime_s
        )
    engine = Engine(place.store, workflow, work, sources)
    pausing = SelfPausing(pauses, place.health)
    restoring, source_messages = Restoring(engine), SourceMessages(engine, stop)
    results = ResultHandler(engine, pausing, stop, restoring)
    parts = Parts(place, engine, Edits(session), pausing, clock, stop, results, source_messages, broker, TrashSweep(place.store))
    return parts, notices


def _make_work(place: Place, session: Session) -> tuple[Work, Broker]:
    """Return the work of a runner, and its broker: who looks at the ledger sees the session and the steps that run."""
    settings = place.settings

    def describe() -> tuple[str, Mapping[str, int]]:
        return str(session.folder), work.count_running()

    if place.cluster is None:
        broker = machine_broker(settings, place.machine, describe)
    else:
        there = place.cluster.capacity()
        broker = Broker(None, {"cores": there.cores, "memory_gb": there.memory_gb})
    ready = ReadyQueue(settings.cores, settings.usable_memory_gb, settings.newest_first, place.machine.gpus, broker)
    work = Work(ready)
    return work, broker
