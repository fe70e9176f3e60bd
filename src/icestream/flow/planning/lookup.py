"""What a session knows already, asked in pages: exposures, results that exist, verdicts, batches, newest versions."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from icestream.flow.planning.planned_revisions import PlannedRevision
from icestream.flow.scheduling import Unit
from icestream.flow.storage import fingerprint_of, resuming, schema

_CHUNK = 500


@dataclass(frozen=True)
class ExposureRow:
    """One exposure as it arrived."""

    unit: str
    source: str
    acquisition: Mapping[str, Any]


@dataclass
class Lookup:
    """Reads; remembers only what is small."""

    connection: Connection
    steps: Mapping[str, PlannedRevision]
    newest: dict[str, str] = field(default_factory=dict)
    """Step → key of its newest version, of the steps that keep their revision."""

    def __post_init__(self) -> None:
        table = schema.snapshot
        for name, step in self.steps.items():
            if step.kept:
                mine = select(table.c.key).where(table.c.revision == step.revision.id).order_by(table.c.version.desc()).limit(1)
                key = self.connection.execute(mine).scalar()
                if key is not None:
                    self.newest[name] = str(key)
        hands = schema.override
        self._by_hand = {(row.unit, row.step) for row in self.connection.execute(select(hands.c.unit, hands.c.step))}

    def pages(self, size: int, *, unsettled_only: bool, units: Sequence[str] | None = None) -> Iterator[list[ExposureRow]]:
        """Give all exposures in the order of their arrival, those that some step has not decided yet, or those in ``units``."""
        table = schema.exposure
        wanted = select(table.c.unit, table.c.source, table.c.acquisition, table.c.ordinal).order_by(table.c.ordinal).limit(size)
        if unsettled_only:
            fingerprint = fingerprint_of({name: step.revision for name, step in self.steps.items()})
            wanted = wanted.where(table.c.settled_by.is_(None) | (table.c.settled_by != fingerprint))
        if units is not None:
            for start in range(0, len(units), size):
                chunk = self.connection.execute(wanted.where(table.c.unit.in_(units[start : start + size]))).all()
                yield [ExposureRow(row.unit, row.source, json.loads(row.acquisition)) for row in chunk]
            return
        last = 0
        while rows := self.connection.execute(wanted.where(table.c.ordinal > last)).all():
            last = rows[-1].ordinal
            yield [ExposureRow(row.unit, row.source, json.loads(row.acquisition)) for row in rows]

    def existing(self, keys: Sequence[str]) -> set[str]:
        """Return those of ``keys`` that have a result."""
        found: set[str] = set()
        table = schema.result
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            found.update(self.connection.execute(select(table.c.key).where(table.c.key.in_(chunk))).scalars())
        return found

    def verdicts(self, step: PlannedRevision, units: Sequence[str]) -> dict[str, list[tuple[str, dict[str, str]]]]:
        """Return what the same rule has said of units before: unit → (status, the keys it passed on)."""
        found: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
        if not step.alike or any(port.many for port in step.node.type.ports):
            return found
        table = schema.outcome
        asked = [unit for unit in units if (unit, step.node.name) not in self._by_hand]
        for start in range(0, len(asked), _CHUNK):
            mine = table.c.unit.in_(asked[start : start + _CHUNK]) & table.c.revision.in_(step.alike)
            for row in self.connection.execute(select(table.c.unit, table.c.status, table.c["keys"]).where(mine)):
                found[row[0]].append((row[1], json.loads(row[2])))
        return found

    def batches(self, step: str) -> Iterator[Unit]:
        """Give the batches that a step has closed, with what is known of them under the revisions that stay."""
        kept = {name: one.revision for name, one in self.steps.items() if one.kept}
        table = schema.batch
        mine = table.c.revision == kept[step].id
        for number in self.connection.execute(select(table.c.number).where(mine).order_by(table.c.number)).scalars().all():
            yield resuming.load_unit(self.connection, kept, f"{step}:{number:06d}", domain=f"batch:{step}")
