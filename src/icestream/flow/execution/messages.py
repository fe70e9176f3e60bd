"""The messages between the runner and its workers: a frozen type for each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from icestream.flow.declaration import Exposure, FailureKind, InputNames, SeenFile

JsonObject = Mapping[str, JsonValue]
"""Parameters and acquisition values, as they are written in a workflow: the engine passes them on unread."""


@dataclass(frozen=True)
class StoredRecord:
    """A record as the store keeps it: its JSON and its block pass through the engine unread."""

    type: str
    version: int
    json: str
    block: bytes | None
    weight: int


# To a worker -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What every call of a step is given."""

    attempt: str
    use: str
    step: str
    key: str
    seed: int
    cores: int
    folder: str
    """Where its results go, relative to the session."""
    roots: dict[str, str]
    exposure: Exposure
    """The exposure, batch or version that it works on."""
    params: JsonObject
    gpu: int | None = None
    reduced: bool = False
    contents: dict[str, str] = field(default_factory=dict)
    """Digests that the files named by parameters must have."""
    removed: tuple[str, ...] = ()
    """Files named by its inputs that were removed: it ends where it asks for one, which is then computed again first."""
    programs: Mapping[str, JsonObject] = field(default_factory=dict)
    """What the facility says about each program that the step runs."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Stored name → ``module:name``, of the types of its inputs that plugins declare: the worker may not have loaded them."""


@dataclass(frozen=True, kw_only=True)
class StepCall(_Call):
    """Run a map or filter on the items of one unit."""

    inputs: Mapping[str, tuple[StoredRecord, ...]]
    acquisition: JsonObject
    names: InputNames | None = None
    """Where its inputs come from, if the step asks."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Parameter → the field of another step's record that it is taken from."""
    records: Mapping[str, str] = field(default_factory=dict)
    """Port that takes any record → the type that it is linked to."""


@dataclass(frozen=True, kw_only=True)
class AbsorbCall(_Call):
    """Let an accumulator take one entry of its log; members, exposures and acquisitions go side by side."""

    members: Mapping[str, tuple[StoredRecord | None, ...]]
    exposures: tuple[Exposure, ...]
    acquisitions: tuple[JsonObject, ...]
    state: str | None
    """The state before, as JSON; unset: it starts."""
    state_version: int | None
    position: int
    closing: bool


Call = StepCall | AbsorbCall


@dataclass(frozen=True)
class WatchOrder:
    """Run a source until it ends or is told to stop; files in ``set_aside`` killed their reader so often."""

    use: str
    params: JsonObject
    roots: dict[str, str]
    seen: tuple[SeenFile, ...] = ()
    set_aside: tuple[tuple[SeenFile, int], ...] = ()


@dataclass(frozen=True)
class CancelOrder:
    """End an attempt."""

    attempt: str


@dataclass(frozen=True)
class StopOrder:
    """The runner stops: a source ends without closing its stream."""


ToWorker = StepCall | AbsorbCall | WatchOrder | CancelOrder | StopOrder

# From a worker, about a call ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CallProgress:
    """How far a call has come."""

    attempt: str
    fraction: float
    text: str


@dataclass(frozen=True)
class CallCost:
    """What a call took, and where it ran; ``version`` is that of the step type there, ``plugin`` where the type comes from.

    ``programs`` are those of other people that it ran, in words.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    host: str = ""
    version: int | None = None
    plugin: str = ""
    programs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ItemMade:
    """A map made a record."""

    attempt: str
    record: StoredRecord
    cost: CallCost = CallCost()


@dataclass(frozen=True)
class ItemJudged:
    """A filter kept or rejected its item."""

    attempt: str
    accepted: bool
    reason: str | None
    cost: CallCost = CallCost()


@dataclass(frozen=True)
class EntryAbsorbed:
    """An accumulator took an entry: its state after that as JSON, the snapshot it publishes, and assignments by exposure.

    Without a snapshot there is nothing to publish yet, for ``reason``.
    """

    attempt: str
    state: str
    state_version: int
    record: StoredRecord | None
    assignments: Mapping[str, StoredRecord] = field(default_factory=dict)
    cost: CallCost = CallCost()
    reason: str | None = None


@dataclass(frozen=True)
class CallFailed:
    """A step raised."""

    attempt: str
    kind: FailureKind
    error_type: str
    message: str
    traceback: str
    cost: CallCost = CallCost()


@dataclass(frozen=True)
class CallEnded:
    """An attempt ended without an answer of its step: its executor says why."""

    attempt: str
    kind: FailureKind
    message: str


CallAnswer = ItemMade | ItemJudged | EntryAbsorbed | CallFailed | CallEnded

# From a source -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ItemArrived:
    """A source found an item; with ``error`` it arrived broken."""

    identity: str
    name: str
    record: StoredRecord | None
    error: str | None
    acquisition: JsonObject
    file: SeenFile | None
    plugin: str = ""
    """Where the source comes from."""
    beside: tuple[SeenFile, ...] = ()
    """Other files that the record was read from."""
    warnings: tuple[str, ...] = ()
    """What people should know about these files."""


@dataclass(frozen=True)
class SourceWaits:
    """A source has nothing new: what it waits for."""

    note: str


@dataclass(frozen=True)
class SourceTroubles:
    """All that a source cannot take at present, each with the reason."""

    reasons: Mapping[str, str]


@dataclass(frozen=True)
class SourceEnded:
    """A source ended by itself, and its stream closes; or it was ``stopped``, and nothing closes."""

    reason: str
    stopped: bool = False


@dataclass(frozen=True)
class SourceFailed:
    """A source raised."""

    message: str
    traceback: str


@dataclass(frozen=True)
class SourceDied:
    """The process of a source died, while it was reading a file perhaps."""

    message: str
    reading: SeenFile | None


SourceAnswer = ItemArrived | SourceWaits | SourceTroubles | SourceEnded | SourceFailed | SourceDied

# About workers -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExecutorNotice:
    """Something that people should see about an executor itself, which concerns ``subject`` (a worker, a scheduler)."""

    level: str
    subject: str
    message: str


@dataclass(frozen=True)
class WorkerLog:
    """A line for the log of the session."""

    level: int
    logger: str
    message: str
    fields: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerJoined:
    """A dask worker is there, of this size; ``job`` is its Slurm job."""

    address: str
    cores: int
    memory_gb: float
    version: str
    job: str | None
    pid: int


@dataclass(frozen=True)
class WorkerLeaving:
    """A dask worker closes, as it was asked to."""

    address: str


FromWorker = CallAnswer | CallProgress | SourceAnswer | ExecutorNotice | WorkerLog
FromCluster = CallAnswer | CallProgress | WorkerLog | WorkerJoined | WorkerLeaving
