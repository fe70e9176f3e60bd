"""Which steps are drained, and why; a store of schema 3 or older says it in a sentence alone."""

import re

from sqlalchemy import Connection, column, inspect, select, table

from icestream.flow.scheduling import Cause, DrainReason
from icestream.flow.storage import store_schema as schema

DRAINED, RESUMED = "drained", "resumed"
"""The states of a row; the newest row of a step is its state."""

_BEFORE = table("halt", column("seq"), column("step"), column("state"), column("reason"))
"""The table as it was; its states are ``halted`` and ``lifted``."""

_BY_HAND = re.compile(r"(closed|reset) by hand, by (.*)", re.DOTALL)
_BY_GATE = re.compile(r"(\w+) opened: (.*)", re.DOTALL)


def load_drains(connection: Connection) -> dict[str, DrainReason]:
    """Return the steps that take nothing new, with the cause."""
    if inspect(connection).has_table(schema.drain.name):
        rows = connection.execute(select(schema.drain).order_by(schema.drain.c.seq)).mappings()
        newest = {row["step"]: row for row in rows}
        return {
            step: DrainReason(Cause(row["cause"]), row["by"], row["reason"])
            for step, row in newest.items()
            if row["state"] == DRAINED
        }
    if not inspect(connection).has_table(_BEFORE.name):
        return {}
    said = {row.step: (row.state, row.reason) for row in connection.execute(select(_BEFORE).order_by(_BEFORE.c.seq))}
    return {step: read_sentence(reason) for step, (state, reason) in said.items() if state == "halted"}


def read_sentence(sentence: str) -> DrainReason:
    """Return what a sentence of schema 3 or older means."""
    if (match := _BY_HAND.fullmatch(sentence)) is not None:
        return DrainReason(Cause.PERSON if match[1] == "closed" else Cause.RESET, match[2])
    if (match := _BY_GATE.fullmatch(sentence)) is not None:
        return DrainReason(Cause.GATE, match[1], match[2])
    return DrainReason(Cause.PERSON, "", sentence)
