"""The tables of a session's store.

Times (``…_at``) are seconds since 1970, for people to read; nothing is decided by them. ``seq`` is the session's one monotone
change sequence: a reader asks for what came after the last number it saw.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from icestream.flow.storage.schema_people import board, command, document, drain, metadata, notice, override, recompute
from icestream.flow.storage.schema_removed import removal, removed_file

__all__ = [
    "board",
    "command",
    "document",
    "drain",
    "metadata",
    "notice",
    "override",
    "recompute",
    "removal",
    "removed_file",
]

SCHEMA_VERSION = 7

runner = Table(  # one row: who writes
    "runner",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("fence", Integer, nullable=False),  # grows with every runner; a commit with an older number is refused
    Column("host", String),
    Column("pid", Integer),
    Column("pid_started", Float),  # start time of the process, so that a recycled pid is not taken for the runner
    Column("heartbeat_at", Float),
    Column("last_seq", Integer, nullable=False),
    Column("state", String, nullable=False),  # 'stopped' -> 'running' -> 'stopped'
    Column("note", Text),
    Column("uptime_s", Float, nullable=False, server_default="0"),  # while a runner was up and not paused, on a monotonic clock
    Column("hold", Text),  # why nothing is dispatched, as JSON {kind, reason, author, since}; NULL while it runs
)

revision = Table(  # a step with one set of parameters
    "revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("step", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("use", String, nullable=False),
    Column("type", String, nullable=False),
    Column("type_version", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("params", Text, nullable=False),
    Column("links", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("definition", String, nullable=False),
    Column("software", String, nullable=False),
    Column("state", String, nullable=False),  # 'active' -> 'frozen'
    Column("created_at", Float, nullable=False),
    UniqueConstraint("step", "number"),
)
Index(
    "one_active_revision",
    revision.c.step,
    unique=True,
    sqlite_where=text("state = 'active'"),
    postgresql_where=text("state = 'active'"),
)

exposure = Table(
    "exposure",
    metadata,
    Column("unit", String, primary_key=True),  # the origin
    Column("ordinal", Integer, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("identity", Text, nullable=False),
    Column("source", String, nullable=False),
    Column("acquisition", Text, nullable=False),  # what the file itself says
    Column("arrived_at", Float, nullable=False),
    Column("settled_by", String),  # fingerprint of the graph under which every step had its outcome
    Column("seq", Integer, nullable=False),
)
Index("unsettled", exposure.c.settled_by)

source_file = Table(  # files a source has taken, so that a restart does not read them again
    "source_file",
    metadata,
    Column("step", String, nullable=False),
    Column("ref", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("modified_ns", BigInteger, nullable=False),
    Column("unit", String, nullable=False),
    PrimaryKeyConstraint("step", "ref", "size_bytes", "modified_ns"),
)

result = Table(  # what a key stands for; shared by branches, revisions and identical steps
    "result",
    metadata,
    Column("key", String, primary_key=True),
    Column("revision", ForeignKey("revision.id"), nullable=False),  # the one that made it first
    Column("unit", String, nullable=False),
    Column("record_type", String, nullable=False),
    Column("record_version", Integer, nullable=False),
    Column("record", Text, nullable=False),
    Column("block", LargeBinary),
    Column("weight", Integer, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("acquisition", Text, nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("cpu_s", Float, nullable=False),
    Column("host", String, nullable=False),
    Column("software", String, nullable=False),
    Column("created_at", Float, nullable=False),
)

description = Table(  # what people see of records, as the software that made them declares it
    "description",
    metadata,
    Column("subject", String, nullable=False),  # record | step (what it compares) | method (of a step)
    Column("name", String, nullable=False),  # the stored name of the record, or what the workflow calls the step type
    Column("version", Integer, nullable=False),  # of the record's schema, or of the step type
    Column("content", Text, nullable=False),
    PrimaryKeyConstraint("subject", "name", "version"),
)

outcome = Table(  # what a step says about a unit
    "outcome",
    metadata,
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("unit", String, nullable=False),
    Column("status", String, nullable=False),  # item | rejected | failed | skipped | absent
    Column("keys", Text, nullable=False),  # output -> result key
    Column("weight", Integer, nullable=False),
    Column("reason", Text),
    Column("root", String),  # skipped: the step that is the cause
    Column("missing", Text),  # list inputs that had no item
    Column("at", Float, nullable=False),
    Column("seq", Integer, nullable=False, unique=True),
    PrimaryKeyConstraint("revision", "unit"),
)
Index("outcome_by_unit", outcome.c.unit)
Index("outcome_by_status", outcome.c.revision, outcome.c.status, outcome.c.weight)

lease = Table(  # work in progress; deleted in the transaction that commits its outcome
    "lease",
    metadata,
    Column("revision", Integer, nullable=False),
    Column("unit", String, nullable=False),
    Column("attempt", String, nullable=False, unique=True),
    Column("fence", Integer, nullable=False),
    Column("worker", String, nullable=False),
    Column("started_at", Float, nullable=False),
    PrimaryKeyConstraint("revision", "unit"),
)

failure = Table(  # every attempt that ended badly, whatever became of the item later
    "failure",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("unit", String, nullable=False),
    Column("attempt", String, nullable=False),
    Column("kind", String, nullable=False),  # a FailureKind
    Column("error_type", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("cleared", Boolean, nullable=False),  # tried again at a person's wish, or of an entry that was halved: counts no more
    Column("at", Float, nullable=False),
)
Index("failure_by_unit", failure.c.revision, failure.c.unit)

binding = Table(  # the version of a snapshot that a unit used, made at first dispatch
    "binding",
    metadata,
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("unit", String, nullable=False),
    Column("port", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("key", String, nullable=False),
    PrimaryKeyConstraint("revision", "unit", "port"),
)
Index("binding_by_key", binding.c.key)

snapshot = Table(
    "snapshot",
    metadata,
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("key", String, nullable=False),
    Column("pruned", Boolean, nullable=False),
    Column("at", Float, nullable=False),
    Column("seq", Integer, nullable=False, unique=True),
    PrimaryKeyConstraint("revision", "version"),
)

stream = Table(  # openings and closings, never undone; the newest row is the state
    "stream",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("state", String, nullable=False),  # open | closed
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)

gate_opening = Table(
    "gate_opening",
    metadata,
    Column("revision", ForeignKey("revision.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("last", Boolean, nullable=False, server_default=false()),  # what waited has passed and nothing follows
    Column("at", Float, nullable=False),
    Column("seq", Integer, nullable=False, unique=True),
)

batch = Table(
    "batch",
    metadata,
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("members", Text, nullable=False),  # [[unit, {output: key}], …]
    Column("weight", Integer, nullable=False),
    Column("remainder", Boolean, nullable=False),
    Column("at", Float, nullable=False),
    Column("seq", Integer, nullable=False, unique=True),
    PrimaryKeyConstraint("revision", "number"),
)

accumulator_log = Table(  # what was consumed, in which order and in which portions: committed before it is computed
    "accumulator_log",
    metadata,
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("members", Text, nullable=False),  # [[unit, {port: key}], …]
    Column("weight", Integer, nullable=False),
    Column("closing", Boolean, nullable=False),
    Column("state_key", String, nullable=False),
    Column("state", Text),  # the state after this position; NULL until it was computed, or after it was pruned
    Column("state_version", Integer),
    Column("absorbed", Boolean, nullable=False),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("revision", "position"),
)

gate_clock = Table(  # when a gate or batch began to wait, in the session's uptime
    "gate_clock",
    metadata,
    Column("revision", ForeignKey("revision.id"), primary_key=True),
    Column("started_uptime_s", Float, nullable=False),
)

stale = Table(  # what an accumulator consumed and what is no item any more
    "stale",
    metadata,
    Column("revision", ForeignKey("revision.id"), nullable=False),
    Column("unit", String, nullable=False),
    Column("reason", Text),
    Column("at", Float, nullable=False),
    PrimaryKeyConstraint("revision", "unit"),
)
