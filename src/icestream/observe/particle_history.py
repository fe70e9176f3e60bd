"""What became of one particle: which pick it was, in which streams it is, why it was set aside, its classes and its poses.

A particle is an exposure, a numbering of its picks, and a number. Steps that pick give numbers, all steps below keep them.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from icestream.errors import IcestreamError, SessionError
from icestream.flow.declaration import resolve_ref
from icestream.io.blocks import from_block
from icestream.observe.queries import SessionView, StoredSnapshot
from icestream.observe.tracing import Trace, TracedStep
from icestream.records import Picks, same_picks

MOST_VERSIONS = 50
"""So many of the newest versions of each whole are looked at."""

Fate = Literal["in", "removed", "not in", "unknown", "exposure"]
"""The step has the particle; removed it; does not have it; cannot say; or has decided against the whole exposure."""


@dataclass(frozen=True)
class ParticleEvent:
    """What one result, or one version of a whole, says of a particle."""

    step: str
    output: str
    fate: Fate
    reason: str | None = None
    version: int | None = None
    values: Mapping[str, float] | None = None
    """Its row of the table, by column; unset where an earlier event tells the same result."""


@dataclass(frozen=True)
class ParentPick:
    """A pick that a consensus made the particle of."""

    step: str
    pid: int
    score: float


@dataclass(frozen=True)
class ParticleHistory:
    """Everything that is known about one particle."""

    unit: str
    exposure: str
    pid: int
    numbered_by: str
    """The step whose picks gave it its number."""
    other_numberings: tuple[str, ...]
    """Steps that call another particle of this exposure so."""
    parents: tuple[ParentPick, ...]
    events: tuple[ParticleEvent, ...]


@dataclass(frozen=True)
class _Table:
    """A table of particles that a step stored of the exposure."""

    step: str
    output: str
    key: str
    record: Mapping[str, Any]
    numbering: str | None
    rows: Mapping[str, Any]

    def has(self, pid: int) -> bool:
        return any(len(self.row(name, pid)) for name in ("block", "rejected") if name in self.rows)

    def row(self, name: str, pid: int) -> Any:
        table = self.rows.get(name)
        return () if table is None else table[table["pid"] == pid]


def read_particle(view: SessionView, exposure: str, pid: int, *, step: str | None = None) -> ParticleHistory:
    """Return the history of a particle, by the name or id of its exposure and its number.

    Where several steps number the picks of the exposure anew, the numbers are those of the last, as of a consensus of pickers,
    or those that ``step`` uses.

    Raises
    ------
    SessionError
        There is no such exposure, or no step (or not this one) knows this number on it.
    """
    trace = view.trace(exposure)
    tables = [one for traced in trace.steps for one in _tables(view, traced)]
    known = [one for one in tables if one.has(pid) and step in (None, one.step)]
    numbering = next((one.numbering for one in reversed(known) if one.numbering is not None), None)
    if not known:
        raise SessionError(f"{trace.name}: {step or 'no step'} knows {'no' if step else 'a'} particle {pid}")
    mine = [one for one in tables if same_picks(one.numbering, numbering)]
    events = [*_events(view, mine, pid), *_refusals(trace)]
    for name in view.order:
        for snapshot in reversed(view.snapshots(name, limit=MOST_VERSIONS)):
            events += _of_version(view, snapshot, trace.unit, numbering, pid)
    first = next(one.step for one in mine if one.has(pid))
    others = [one.step for one in tables if one.has(pid) and not same_picks(one.numbering, numbering)]
    order = {name: place for place, name in enumerate(view.order)}
    return ParticleHistory(
        unit=trace.unit,
        exposure=trace.name,
        pid=pid,
        numbered_by=first,
        other_numberings=tuple(dict.fromkeys(others)),
        parents=tuple(parent for one in mine if one.step == first for parent in _parents(one, pid)),
        events=tuple(sorted(events, key=lambda one: order.get(one.step, len(order)))),
    )


def _tables(view: SessionView, traced: TracedStep) -> Iterator[_Table]:
    """Give the tables with numbers of particles that a step stored of the exposure."""
    for result in traced.results:
        stored = view.tables(result.key)
        rows = {name: from_block(block) for name, block in stored.items()}
        if "pid" not in (rows["block"].dtype.names or () if "block" in rows else ()):
            continue
        numbering = result.record.get("picks_key")
        if numbering is None and result.record_type == Picks.stored_name:
            numbering = hashlib.blake2b(stored["block"], digest_size=16).hexdigest()  # as Picks.numbered_by
        yield _Table(traced.step, result.output, result.key, result.record, numbering, rows)


def _events(view: SessionView, tables: list[_Table], pid: int) -> Iterator[ParticleEvent]:
    told, having = set[str](), set[str]()
    for one in tables:
        row, removed = one.row("block", pid), one.row("rejected", pid)
        version = one.record.get("version")
        if len(row):
            having.add(one.step)
            values = None if one.key in told else _values(row[0])
            yield ParticleEvent(one.step, one.output, "in", version=version, values=values)
        elif len(removed):
            reasons = one.record.get("removed") or ()
            at = int(removed[0]["reason"])
            reason = str(reasons[at]["reason"]) if 0 <= at < len(reasons) else None
            yield ParticleEvent(one.step, one.output, "removed", reason, version)
        elif having.intersection(view.inputs(one.step)):
            yield ParticleEvent(one.step, one.output, "not in", _left_out(one.record), version)
        told.add(one.key)


def _left_out(record: Mapping[str, Any]) -> str | None:
    """Return why a particle may have no image; a step that leaves some out keeps only how many."""
    count = record.get("n_left_out") or 0
    return f"{count} without an image, because their box leaves the micrograph" if count else None


def _refusals(trace: Trace) -> Iterator[ParticleEvent]:
    """Give the steps that decided against the exposure as a whole; a skipped one names the step where that began."""
    for step in trace.steps:
        if step.status in ("rejected", "failed", "absent"):
            yield ParticleEvent(step.step, "out", "exposure", f"{step.status}: {step.reason or 'no reason was given'}")
        elif step.status == "skipped":
            yield ParticleEvent(step.step, "out", "exposure", f"skipped because of {step.root}")


def _parents(table: _Table, pid: int) -> Iterator[ParentPick]:
    names = table.record.get("pickers") or ()
    for row in table.row("parents", pid):
        picker = int(row["picker"])
        yield ParentPick(names[picker] if picker < len(names) else str(picker), int(row["parent_pid"]), float(row["score"]))


def _of_version(
    view: SessionView, snapshot: StoredSnapshot, unit: str, numbering: str | None, pid: int
) -> Iterator[ParticleEvent]:
    """Give what a version of classes or of a map says of the particle, whose files are kept in part only."""
    record = snapshot.record or {}
    if not record.get("index") or not record.get("tables") or numbering is None:
        return
    step, version = snapshot.step, snapshot.version
    if snapshot.pruned:
        yield ParticleEvent(step, "out", "unknown", "its table was removed; newer versions have replaced it", version)
        return
    try:
        row = _find_row(view, record, hashlib.blake2b(f"{unit}/{numbering}".encode(), digest_size=16).hexdigest().encode(), pid)
    except (OSError, ValueError, IndexError, KeyError, IcestreamError) as error:
        yield ParticleEvent(step, "out", "unknown", f"its table cannot be read: {error}", version)
        return
    if row is not None:
        yield ParticleEvent(step, "out", "in", version=version, values=_with_class(_values(row), record))


def _find_row(view: SessionView, record: Mapping[str, Any], micrograph: bytes, pid: int) -> Any:
    """Return the row of a particle in the tables of a whole; None where it is not among its particles."""
    index = np.load(resolve_ref(view.session.roots, record["index"]), mmap_mode="r", allow_pickle=False)
    for part in index[index["micrograph"] == micrograph]:
        place = int(part["table"]) if "table" in index.dtype.names else 0
        rows = np.load(resolve_ref(view.session.roots, record["tables"][place]), mmap_mode="r", allow_pickle=False)
        mine = rows[int(part["start"]) : int(part["start"] + part["count"])]
        found = mine[mine["pid"] == pid]
        if len(found):
            return np.array(found)[0]
    return None


def _with_class(values: dict[str, float], record: Mapping[str, Any]) -> dict[str, float]:
    """Return values with the id of the class that has the place which tables keep."""
    classes, place = record.get("classes") or (), values.get("class_id")
    if place is None or not 0 <= int(place) < len(classes):
        return values
    return values | {"class_id": classes[int(place)]["id"]}


def _values(row: Any) -> dict[str, float]:
    names = row.dtype.names or ()
    return {name: row[name].item() for name in names if name not in ("pid", "slice") and row.dtype[name].kind in "iufb"}
