"""The tables between the runner and people: what they ask for and decide by hand, and what it tells them."""

from sqlalchemy import Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

command = Table(  # what people asked for; other processes only append here
    "command",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String, nullable=False),
    Column("arguments", Text, nullable=False),
    Column("author", String, nullable=False),
    Column("state", String, nullable=False),  # 'asked' -> 'done' | 'refused'
    Column("answer", Text),
    Column("at", Float, nullable=False),
    Column("done_at", Float),
)

notice = Table(  # things people should see: alerts, changed source files, unreadable folders
    "notice",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("level", String, nullable=False),  # info | warning | alert
    Column("step", String),
    Column("unit", String),
    Column("message", Text, nullable=False),
    Column("cause", String),  # a NoticeCause; unset in rows of older versions
    Column("subject", String),  # what it is about within its cause: two with the same cause, step and subject say the same
    Column("by", String),  # the person behind it
    Column("at", Float, nullable=False),
)

override = Table(  # what people decided by hand; the newest active row for a unit and step holds, through re-runs
    "override",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("unit", String, nullable=False),
    Column("step", String, nullable=False),
    Column("verdict", String, nullable=False),  # accept | reject
    Column("author", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("at", Float, nullable=False),
    Column("seq", Integer, nullable=False, unique=True),
)
Index("override_by_unit", override.c.unit, override.c.step)

recompute = Table(  # parameters that an exposure has of its own at a step; the active row holds, through re-runs
    "recompute",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("unit", String, nullable=False),
    Column("step", String, nullable=False),
    Column("params", Text, nullable=False),  # what is laid over the step's own, as JSON
    Column("replaced", Text, nullable=False),  # keys of the results whose place is taken: kept while the row is active
    Column("author", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("at", Float, nullable=False),
    Column("seq", Integer, nullable=False, unique=True),
)
Index("recompute_by_unit", recompute.c.unit, recompute.c.step)

drain = Table(  # steps that take nothing new; the newest row of a step is its state
    "drain",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("step", String, nullable=False),
    Column("state", String, nullable=False),  # drained | resumed
    Column("cause", String),  # person | reset | gate; unset when it goes on
    Column("by", String, nullable=False),  # the person, or the gate
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)

document = Table(  # every edit of the session's document
    "document",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("author", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)

board = Table(  # what the runner knows of each step at this moment, for people who ask why nothing happens
    "board",
    metadata,
    Column("step", String, primary_key=True),
    Column("waiting", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
)
