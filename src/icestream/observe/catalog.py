"""What the records of a session are and what is shown of them: from the types that are installed, else from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import loads
from typing import Any

from sqlalchemy import Connection, inspect, select

from icestream.errors import DeclarationError, WorkflowError
from icestream.flow.declaration import find_step
from icestream.flow.storage import schema
from icestream.observe.answers import StepSummary
from icestream.records import (
    Comparison,
    Description,
    Headline,
    Method,
    Record,
    Shown,
    describe_record,
    read_comparison,
    read_description,
    read_method,
    record_named,
)


@dataclass
class Catalog:
    """The types of record of one session, by any name that a store has given them."""

    descriptions: dict[tuple[str, int], Description] = field(default_factory=dict)
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    methods: dict[tuple[str, int], Method] = field(default_factory=dict)
    uses: tuple[str, ...] = ()
    """What the workflow calls its step types."""
    kept: bool = False
    """The session keeps descriptions; an older one does not."""

    def description(self, name: str) -> Description | None:
        """Return what is known of a type of record; None if nothing is.

        A type that is installed is described as it is now, unless the session holds records of a newer version.
        """
        installed = record_named(name)
        stored = self._newest(name)
        if installed is not None and (stored is None or stored.version <= installed.schema_version):
            return describe_record(installed)
        return stored

    def _newest(self, name: str) -> Description | None:
        mine = [one for one in self.descriptions.values() if name == one.name or name in one.former_names]
        return max(mine, key=lambda one: one.version, default=None)

    def name_of(self, stored: str) -> str:
        """Return today's name of a type that may be stored under an older one."""
        known = self.description(stored)
        return stored if known is None else known.name

    def shown(self, name: str | None) -> Shown:
        """Return what is shown of records of a type; nothing of an unknown one."""
        known = None if name is None else self.description(name)
        return Shown() if known is None else known.shown

    def headlines(self, steps: Sequence[StepSummary]) -> list[tuple[Headline, StepSummary]]:
        """Return the figures for the top of a page, with their steps; of those with one label, one of the highest rank."""
        chosen: dict[str, tuple[Headline, StepSummary]] = {}
        for step in steps:
            for one in self.shown(step.records.get("out")).headlines:
                known = chosen.get(one.label)
                first_stays = one.of == "median" and known is not None and one.rank <= known[0].rank
                if not first_stays and (known is None or one.rank >= known[0].rank):
                    chosen[one.label] = (one, step)
        return sorted(chosen.values(), key=lambda pair: pair[0].place)

    def comparison(self, use: str) -> Comparison | None:
        """Return what a step type shows of the two streams that it joins."""
        if self.kept:
            return self.comparisons.get(use)
        try:
            return find_step(use).compares
        except (WorkflowError, DeclarationError):
            return None

    def method(self, use: str, version: int | None) -> Method | None:
        """Return what a step type does in words, as the session keeps it of a version; else as it is installed."""
        known = None if version is None else self.methods.get((use, version))
        if known is not None:
            return known
        try:
            return find_step(use).method
        except (WorkflowError, DeclarationError):
            return None

    def fields(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        """Return the fields of a stored record, through its upcasters if it is older; of an unknown type, as they are."""
        fields: dict[str, Any] = loads(row["record"])
        name, version = row["record_type"], row["record_version"]
        known = record_named(name) or self._import_if_newer(name, version)
        return known.upcast(fields, version) if known is not None and version < known.schema_version else fields

    def _import_if_newer(self, name: str, version: int) -> type[Record] | None:
        """Look for a plugin's type where the session has records of a newer version beside this one."""
        newest = self._newest(name)
        if newest is None or newest.version <= version:
            return None
        for use in self.uses:
            try:
                find_step(use)
            except (WorkflowError, DeclarationError):
                continue
        return record_named(name)


def read_catalog(connection: Connection) -> Catalog:
    """Read what the session keeps; a store of an earlier schema keeps nothing."""
    table, revision = schema.description, schema.revision
    uses = tuple(connection.execute(select(revision.c.use).where(revision.c.state == "active").order_by(revision.c.id)).scalars())
    if not inspect(connection).has_table(table.name):
        return Catalog(uses=uses)
    rows = connection.execute(select(table).order_by(table.c.version)).all()
    described = [read_description(row.content) for row in rows if row.subject == "record"]
    return Catalog(
        {(one.name, one.version): one for one in described},
        {row.name: read_comparison(row.content) for row in rows if row.subject == "step"},
        {(row.name, row.version): read_method(row.content) for row in rows if row.subject == "method"},
        uses,
        kept=bool(rows),
    )
