"""Read-only views of a session's store, for the command line and the report.

Every method reads in one short transaction, so a view never holds up the runner. A store that is not there yet is an empty
session. Questions about recent work use the change sequence (rows are inserted in its order) and the index on
``(revision, status)``, so their cost does not grow with the session.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionError
from icestream.flow.storage import Session, engine_for, explain, schema
from icestream.observe import activity, failures, people, revisions, stored, summary, tracing
from icestream.observe.activity import Pulse
from icestream.observe.answers import (
    Arrivals,
    Change,
    Counts,
    FailedItem,
    Marks,
    NoticeRow,
    Overview,
    ReasonCount,
    RejectedItem,
    StepSummary,
    StoredRecord,
    StoredSnapshot,
)
from icestream.observe.catalog import Catalog, read_catalog
from icestream.observe.lineage import Lineage, read_lineage
from icestream.observe.order import ActiveRevision, active_revisions, inputs_of, workflow_order
from icestream.observe.people import AuditEntry, Decision
from icestream.observe.tracing import Trace
from icestream.records import unpack_tables

__all__ = [
    "Arrivals",
    "AuditEntry",
    "Change",
    "Counts",
    "Decision",
    "FailedItem",
    "Marks",
    "NoticeRow",
    "Overview",
    "Pulse",
    "ReasonCount",
    "RejectedItem",
    "SessionView",
    "StepSummary",
    "StoredRecord",
    "StoredSnapshot",
    "open_view",
]
"""Views, and what they answer with: nobody need know where that is declared."""

RECENT_MINUTES = 10.0
"""A step's rate is taken over so many minutes."""


class SessionView:
    """A session as others see it; made by `open_view`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.order = workflow_order(session.document)
        self._engine: Engine | None = None

    def overview(self) -> Overview:
        """Return the session at a glance."""
        with self.reading() as connection:
            if connection is None:
                return summary.empty_overview(self.session)
            return summary.read_overview(connection, self.session, self.revisions(connection))

    def arrivals(self) -> Arrivals:
        """Return the newest exposure, and how fast they come."""
        with self.reading() as connection:
            return Arrivals() if connection is None else summary.read_arrivals(connection)

    def steps(self, *, recent_minutes: float = RECENT_MINUTES) -> list[StepSummary]:
        """Return all steps in workflow order, with counts, pace and the state of their streams."""
        with self.reading() as connection:
            if connection is None:
                return [summary.unseen_step(self.session, name) for name in self.order]
            revisions = self.revisions(connection)
            return summary.read_steps(connection, self.session, self.order, revisions, recent_minutes=recent_minutes)

    def failed(self, step: str | None = None, *, limit: int | None = None) -> list[FailedItem]:
        """Return the units whose outcome is failed, newest first; a skipped unit is not a failure."""
        with self.reading() as connection:
            return [] if connection is None else failures.read_failed(connection, self._chosen(connection, step), limit=limit)

    def rejected(self, step: str | None = None, *, limit: int | None = None) -> list[RejectedItem]:
        """Return the units that filters set aside, newest first."""
        with self.reading() as connection:
            return [] if connection is None else failures.read_rejected(connection, self._chosen(connection, step), limit=limit)

    def reasons(self, status: str) -> list[ReasonCount]:
        """Return how often each step failed (or rejected) for which reason, the most frequent first."""
        with self.reading() as connection:
            return [] if connection is None else failures.count_reasons(connection, self._chosen(connection, None), status)

    def grouped_reasons(self, status: str) -> list[ReasonCount]:
        """Return the same, those of a step together that differ in numbers alone."""
        return failures.group_reasons(self.reasons(status))

    def trace(self, name_or_unit: str) -> Trace:
        """Return everything that is known about one exposure.

        Raises
        ------
        SessionError
            Nothing has this id, name or key, or several have.
        """
        with self.reading() as connection:
            if connection is None:
                raise SessionError(f"{name_or_unit!r}: is unknown; the session {self.session.document.name!r} has not started")
            unit = tracing.find_unit(connection, name_or_unit)
            return tracing.read_trace(connection, self.session, unit, self.order, self.revisions(connection))

    def records(
        self,
        step: str,
        *,
        output: str = "out",
        since_seq: int = 0,
        limit: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[StoredRecord]:
        """Return the records behind one output of a step, in the order of the change sequence; read page by page."""
        return stored.read_records(
            self.reading, self._known(step), output=output, since_seq=since_seq, limit=limit, newest_first=newest_first
        )

    def records_of(self, step: str, units: Sequence[str], *, output: str = "out") -> dict[str, StoredRecord]:
        """Return unit → record for some units of a step; those without a record are left out."""
        with self.reading() as connection:
            revision = None if connection is None else self._chosen(connection, step).get(step)
            if connection is None or revision is None:
                return {}
            return stored.read_records_of(connection, revision, units, output=output, reading=self.reading)

    def snapshots(self, step: str, *, limit: int | None = None) -> list[StoredSnapshot]:
        """Return the versions that a step has published, newest first."""
        with self.reading() as connection:
            return [] if connection is None else stored.read_snapshots(connection, self._chosen(connection, step), limit=limit)

    def lineage(self, wanted: str) -> Lineage | None:
        """Return where a version of a whole comes from, by step, ``step:3`` or key; None if nothing of that kind is meant."""
        with self.reading() as connection:
            return None if connection is None else read_lineage(connection, wanted, self.order)

    def history(self, *, limit: int | None = None) -> list[people.AuditEntry]:
        """Return what people asked for and what came of it, oldest first."""
        with self.reading() as connection:
            return [] if connection is None else people.read_history(connection, limit=limit)

    def decisions(self, units: Sequence[str] | None = None) -> list[people.Decision]:
        """Return what is accepted, rejected or recomputed by hand now, of some exposures or all."""
        with self.reading() as connection:
            return [] if connection is None else people.read_decisions(connection, units)

    def choose(self, wanted: Sequence[str]) -> list[str]:
        """Return the ids of exposures by name, id, file or pattern; see `people.choose_exposures`."""
        with self.reading() as connection:
            if connection is None:
                raise SessionError(f"{self.session.folder}: has not been run yet, so it has no exposures")
            return people.choose_exposures(connection, wanted)

    def step_revisions(self, step: str | None = None) -> list[revisions.RevisionRow]:
        """Return the revisions of one step or all, oldest first."""
        with self.reading() as connection:
            return [] if connection is None else revisions.read_revisions(connection, step)

    def compare(self, step: str, first: int, second: int) -> revisions.Comparison:
        """Compare two revisions of a step."""
        with self.reading() as connection:
            if connection is None:
                raise SessionError(f"{self.session.folder}: has not been run yet, so {step} has no revisions")
            return revisions.compare_revisions(connection, step, (first, second))

    def notices(self, *, limit: int | None = 200) -> list[NoticeRow]:
        """Return what people should see, newest first."""
        with self.reading() as connection:
            return [] if connection is None else activity.read_notices(connection, limit=limit)

    def changes_since(self, seq: int, *, limit: int = 1000) -> list[Change]:
        """Return what changed after number ``seq``, in order; ask again from the last number for more."""
        with self.reading() as connection:
            return [] if connection is None else activity.read_changes(connection, seq, limit=limit)

    def pulse(self) -> activity.Pulse:
        """Return by what a watcher sees that the session has changed."""
        with self.reading() as connection:
            return activity.Pulse() if connection is None else activity.read_pulse(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection | None]:
        """Give a connection for one short transaction, or None while there is no store yet.

        Raises
        ------
        StoreUnavailable
            The store cannot be reached at this moment.
        SessionError
            The store cannot be read, or a newer version of icestream wrote it.
        """
        location = self.session.store_at
        if self._engine is None:
            if isinstance(location, Path) and not location.is_file():
                yield None
                return
            self._engine = engine_for(location, read_only=True)
        try:
            with self._engine.begin() as connection:
                yield connection if _is_ready(connection, str(location)) else None
        except DBAPIError as error:
            raise explain(location, error, "cannot be read as a store") from error

    def inputs(self, step: str) -> list[str]:
        """Return the steps that a step reads from, each once."""
        return list(dict.fromkeys(above for above, _ in inputs_of(self.session.document, step)))

    def result(self, key: str) -> tuple[str, dict[str, Any]] | None:
        """Return the type and the fields of the record that a key stands for."""
        with self.reading() as connection:
            return None if connection is None else stored.read_result(connection, key)

    def tables(self, key: str) -> dict[str, bytes]:
        """Return the tables of the record that a key stands for, by the fields that hold them."""
        return unpack_tables(stored.load_tables(self.reading, key))

    def close(self) -> None:
        """Let the store go."""
        if self._engine is not None:
            self._engine.dispose()

    def catalog(self) -> Catalog:
        """Return the types of record of the session."""
        with self.reading() as connection:
            return Catalog() if connection is None else read_catalog(connection)

    def revisions(self, connection: Connection) -> dict[str, ActiveRevision]:
        """Return the active revisions, in workflow order."""
        return active_revisions(connection, self.order)

    def _known(self, step: str) -> str:
        if step not in self.order:
            raise SessionError(f"{step!r}: is not a step of this session; its steps are {', '.join(self.order)}")
        return step

    def _chosen(self, connection: Connection, step: str | None) -> dict[str, ActiveRevision]:
        revisions = self.revisions(connection)
        if step is None:
            return revisions
        return {name: revision for name, revision in revisions.items() if name == self._known(step)}


@contextmanager
def open_view(session: Session) -> Iterator[SessionView]:
    """Open a session for looking; works while it runs, after it, and before it has started."""
    view = SessionView(session)
    try:
        yield view
    finally:
        view.close()


def _is_ready(connection: Connection, name: str) -> bool:
    if not inspect(connection).has_table("runner"):
        return False
    version = connection.execute(select(schema.runner.c.schema_version)).scalar()
    if version is not None and version > schema.SCHEMA_VERSION:
        raise SessionError(
            f"{name}: has schema {version}, this version of icestream reads up to {schema.SCHEMA_VERSION}; use a newer icestream"
        )
    return version is not None
