"""From an instruction to a task that a worker can do on its own: records, blocks, parameters, acquisition values, seed."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cachetools import FIFOCache
from sqlalchemy import Connection, select

from icestream.flow.declaration import Exposure, FailureKind, InputNames, files_named_in
from icestream.flow.execution.messages import AbsorbCall, Call, StepCall, StoredRecord
from icestream.flow.runner.record_cache import RecordCache
from icestream.flow.scheduling import Consume, Dispatch
from icestream.flow.storage import Effective, Owned, Revision, Session, find_removed, lay_over, schema
from icestream.flow.workflow import Demand, Graph, Node, digest, expected_contents, request_of, result_key, seed_of, state_key
from icestream.records import record_named

_KNOWN_MAKERS = 4000


@dataclass
class Task:
    """One call of a step, ready to be given to a worker."""

    step: str
    unit: str
    key: str
    inputs: Mapping[str, tuple[str, ...]]
    acquisition: dict[str, Any]
    cores: int
    memory_gb: float
    revision: Revision  # whose result it will be, even if the workflow is edited meanwhile
    time_limit_s: float | None = None
    entry: Consume | None = None
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    waiters: list[tuple[str, str]] = field(default_factory=list)
    """``(step, unit)`` that take what comes of it: identical steps share one computation."""
    asks: Demand | None = None  # unset: for its cores and memory
    gpu: int | None = None  # chosen when it starts
    effective: Effective | None = None  # unset: made with the parameters of its step
    folder: str | None = None  # set: its result is there and is computed again, into the folder of the revision that made it
    exposure: Exposure | None = None  # set: the unit, which nobody else knows at the moment
    names: InputNames | None = None  # set: the step asks where its inputs come from

    @property
    def demand(self) -> Demand:
        """What it asks of the machine."""
        return self.asks or Demand(self.cores, self.memory_gb)

    @property
    def lease_unit(self) -> str:
        """What its lease says it works on: what is computed again may be worked on otherwise, too."""
        return self.unit if self.folder is None else f"again:{self.key}"

    @property
    def reduced(self) -> bool:
        """It ran out of memory and is tried with fewer resources."""
        return self.demand.whole

    def reduce_after(self, failures: Mapping[str, int]) -> None:
        """Run alone and on one core if it ran out of memory once; the store remembers what failed, also after a restart."""
        if failures.get(FailureKind.OUT_OF_MEMORY, 0):
            self.asks = replace(self.demand, cores=1, whole=True)

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters that make a difference to its result."""
        return self.revision.params if self.effective is None else self.effective.identity


@dataclass
class TaskBuilder:
    """Builds tasks; remembers recent records so that they are not read again."""

    session: Session
    graph: Graph
    revisions: Mapping[str, Revision]
    owned: Owned = field(default_factory=dict)
    record_limit_bytes: int = 256 * 2**20
    names: dict[str, str] = field(default_factory=dict)
    acquisitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    ordinals: dict[str, int] = field(default_factory=dict)
    makers: FIFOCache[str, str] = field(default_factory=lambda: FIFOCache(_KNOWN_MAKERS))

    def __post_init__(self) -> None:
        self.records = RecordCache(self.record_limit_bytes)
        self._roots = self.session.roots
        self._demands = {node.name: request_of(node) for node in self.graph.nodes.values()}

    def know_unit(self, unit: str, name: str, acquisition: Mapping[str, Any], ordinal: int) -> None:
        """Remember the name of an exposure, what its file says about the acquisition (the session's values win), its number."""
        self.names[unit] = name
        self.ordinals[unit] = ordinal
        self.acquisitions[unit] = {**acquisition, **self._session_acquisition()}

    def know_row(self, row: Mapping[Any, Any]) -> None:
        """Remember an exposure as the store has it."""
        self.know_unit(row["unit"], row["name"], json.loads(row["acquisition"]), row["ordinal"])

    def forget_unit(self, unit: str) -> None:
        """Forget a settled exposure."""
        self.names.pop(unit, None)
        self.acquisitions.pop(unit, None)
        self.ordinals.pop(unit, None)

    def name_of(self, unit: str) -> str:
        """Return what people call an exposure; a batch or version is called by its id."""
        return self.names.get(unit, unit.replace(":", "_"))

    def identity_of(self, unit: str) -> Exposure:
        """Return the identity of a unit, as a step is given it."""
        return Exposure(unit, self.name_of(unit), self.ordinals.get(unit, 0))

    def _session_acquisition(self) -> dict[str, Any]:
        return self.session.document.acquisition.model_dump(exclude_none=True)

    def _values_read(self, node: Node, unit: str) -> dict[str, Any]:
        known = self.acquisitions.get(unit) or self._session_acquisition()
        return {name: value for name, value in known.items() if name in node.type.reads}

    def task_for(self, dispatch: Dispatch) -> Task:
        """Return the task for one unit at a map or filter."""
        node, revision = self.graph.nodes[dispatch.step], self.revisions[dispatch.step]
        acquisition = self._values_read(node, dispatch.unit)
        own = self.owned.get((dispatch.unit, dispatch.step))
        effective = None if own is None else lay_over(node, revision.params, own.params, own.contents)
        key = result_key(
            node.type.name,
            revision.type_version,
            params=revision.params if effective is None else effective.identity,
            epoch=revision.epoch,
            inputs=dispatch.inputs,
            acquisition=acquisition,
            names=dispatch.names,
        )
        task = self._task(node, dispatch.unit, key, dispatch.inputs, acquisition, entry=None)
        task.effective, task.names = effective, dispatch.names
        return task

    def _task(
        self,
        node: Node,
        unit: str,
        key: str,
        inputs: Mapping[str, tuple[str, ...]],
        acquisition: dict[str, Any],
        *,
        entry: Consume | None,
    ) -> Task:
        asks = self._demands[node.name]
        return Task(
            node.name,
            unit,
            key,
            inputs,
            acquisition,
            asks.cores,
            asks.memory_gb,
            self.revisions[node.name],
            time_limit_s=node.type.time_limit_s,
            entry=entry,
            asks=asks,
        )

    def task_for_entry(self, connection: Connection, consume: Consume) -> Task:
        """Return the task for one entry of an accumulator's log."""
        node, revision = self.graph.nodes[consume.step], self.revisions[consume.step]
        table = schema.accumulator_log
        before = (table.c.revision == revision.id) & (table.c.position == consume.position - 1)
        previous = connection.execute(select(table.c.state_key).where(before)).scalar()
        session_values = {name: value for name, value in self._session_acquisition().items() if name in node.type.reads}
        own = (node.name, revision.number)  # a log belongs to one revision; another one's files may be pruned already
        base = previous or digest(
            "start", own, node.type.name, revision.type_version, dict(revision.params), revision.epoch, session_values
        )
        key = state_key(base, consume.members, closing=consume.closing)
        return self._task(node, str(consume.position), key, {}, {}, entry=consume)

    def call_for(self, connection: Connection, task: Task) -> Call:
        """Return the message that gives ``task`` to a worker."""
        node, revision = self.graph.nodes[task.step], self.revisions[task.step]
        params = node.params if task.effective is None else dict(task.effective.complete)
        common: dict[str, Any] = {
            "attempt": task.attempt,
            "use": node.use,
            "step": task.step,
            "key": task.key,
            "seed": seed_of(task.key),
            "cores": task.cores,
            "folder": task.folder or f"steps/{task.step}/{revision.number}",
            "removed": self._removed_for(connection, task),
            "roots": self._roots,
            "params": params,
            "gpu": task.gpu,
            "reduced": task.reduced,
            "contents": expected_contents(node.type, task.params),
            "programs": {found.name: found.settings.model_dump(mode="json") for found in node.programs.values()},
        }
        if task.entry is not None:
            return self._absorb_call(connection, node, revision, task.entry, common)
        inputs = {port: tuple([self._stored(connection, key) for key in keys]) for port, keys in task.inputs.items()}
        return StepCall(
            **common,
            exposure=task.exposure or self.identity_of(task.unit),
            inputs=inputs,
            types=_foreign_types(inputs),
            acquisition=task.acquisition,
            names=task.names,
            values={parameter: path for parameter, (_, path) in node.values.items() if parameter not in params},
            records={port: f"{record.__module__}:{record.__qualname__}" for port, record in node.records.items()},
        )

    def _absorb_call(
        self, connection: Connection, node: Node, revision: Revision, entry: Consume, common: dict[str, Any]
    ) -> AbsorbCall:
        table = schema.accumulator_log
        before = (table.c.revision == revision.id) & (table.c.position == entry.position - 1)
        previous = connection.execute(select(table.c.state, table.c.state_version).where(before)).first()
        ports = [port.name for port in node.type.ports]
        members = {
            port: tuple([self._stored(connection, keys[port]) if port in keys else None for _, keys in entry.members])
            for port in ports
        }
        return AbsorbCall(
            **common,
            exposure=Exposure(f"{node.name}:{entry.position}", f"{node.name}_{entry.position:06d}"),
            members=members,
            types=_foreign_types(members),
            exposures=tuple(self.identity_of(unit) for unit, _ in entry.members),
            acquisitions=tuple(self._values_read(node, unit) for unit, _ in entry.members),
            state=previous.state if previous else None,
            state_version=previous.state_version if previous else None,
            position=entry.position,
            closing=entry.closing,
        )

    def files_read_by(self, connection: Connection, task: Task) -> list[str]:
        """Return the session's own files that the inputs of a task name."""
        members = [] if task.entry is None else [key for _, named in task.entry.members for key in named.values()]
        keys = [*members, *(key for group in task.inputs.values() for key in group)]
        return list(dict.fromkeys(ref for key in keys for ref in files_named_in(self._stored(connection, key).json)))

    def _removed_for(self, connection: Connection, task: Task) -> tuple[str, ...]:
        if connection.execute(select(schema.removed_file.c.ref).limit(1)).first() is None:
            return ()
        return tuple(one.ref for one in find_removed(connection, self.files_read_by(connection, task)))

    def _stored(self, connection: Connection, key: str) -> StoredRecord:
        stored = self.records.get(key)
        if stored is None:
            table = schema.result
            columns = (table.c.record_type, table.c.record_version, table.c.record, table.c.block, table.c.weight)
            stored = StoredRecord(*connection.execute(select(*columns).where(table.c.key == key)).one())
            self.records.put(key, stored)
        return stored

    def inputs_to_store(self, task: Task) -> dict[str, list[str]]:
        """Return port → input keys; a cumulative batch is named by its unit, whose members are in the store once already."""
        if task.entry is not None:
            return {"members": [unit for unit, _ in task.entry.members]}
        steps = [task.step, *(step for step, _ in task.waiters)]  # an edit may have removed the one that began
        links = next((self.graph.nodes[step].links for step in steps if step in self.graph.nodes), {})
        whole = {port for port, group in links.items() if any(self.graph.nodes[link.step].type.cumulative for link in group)}
        return {port: [task.unit] if port in whole else list(keys) for port, keys in task.inputs.items()}

    def note_maker(self, key: str, worker: str) -> None:
        """Remember which worker made a result: it still has the images at hand."""
        self.makers[key] = worker

    def maker_of(self, task: Task) -> str | None:
        """Return the worker that made an input of ``task``."""
        keys = (key for group in task.inputs.values() for key in group)
        return next((self.makers[key] for key in keys if key in self.makers), None)


def _foreign_types(given: Mapping[str, tuple[StoredRecord | None, ...]]) -> dict[str, str]:
    """Return where the types of records are declared that do not come with icestream."""
    types = {one.type: record_named(one.type) for some in given.values() for one in some if one is not None}
    own = __package__.partition(".")[0] + "."
    return {
        name: f"{record.__module__}:{record.__qualname__}"
        for name, record in types.items()
        if record is not None and not record.__module__.startswith(own)
    }
