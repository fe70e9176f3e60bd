"""What rules of alarms are judged by, as the store has it: the newest values, outcomes, arrivals and deaths of workers."""

import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from sqlalchemy import Connection, select

from icestream.alarms.observations import (
    ArrivalsSeen,
    LostWorker,
    Measured,
    Observations,
    RecentOutcome,
    RunnerSeen,
    Sample,
    StepSeen,
    Totals,
    TransferSeen,
    Value,
)
from icestream.alarms.rules import MOST_VALUES, AgeingRule, AnyRule, DriftRule, MeasureRule
from icestream.errors import SessionError
from icestream.flow.declaration import FailureKind
from icestream.flow.storage import Session, json_number, json_text, outcome_rowid, read_runner_row, schema
from icestream.observe.measured import MOST_VERSIONS, MeasureOfStep, list_measures, pixel_size_of
from icestream.observe.pace import WORK
from icestream.observe.queries import Overview, SessionView, StepSummary, StoredSnapshot
from icestream.observe.summary import MOST_ARRIVALS, recent_of
from icestream.observe.values import WEIGHT, combine, paths_of, value_of
from icestream.settings import Settings
from icestream.transfer.ledger import Ledger, account_ledger, session_ledger

MOST_OUTCOMES = 100
"""So many of the newest outcomes of a step that has failures are looked at."""
MOST_LOST = 100
MOST_FAILED = 1000
"""So many files that a transfer of the account fails for are looked through for those of the session."""
INTERVALS = 50


def watch_session(view: SessionView, rules: Sequence[AnyRule], samples: tuple[Sample, ...]) -> Observations:
    """Return what is seen of a session now; its cost does not grow with the session beyond counting outcomes."""
    overview = view.overview()
    runner = read_runner_seen(overview)
    if not runner.at_work:
        return Observations(runner=runner)
    steps = view.steps()
    with view.reading() as connection:
        if connection is None:
            return Observations(runner=runner)
        return Observations(
            runner=replace(runner, started_at=read_runner_row(connection).pid_started),
            arrivals=_read_arrivals(connection, steps),
            totals=Totals(overview.exposures, overview.failed, overview.rejected),
            steps=tuple(_read_step(connection, step) for step in steps),
            measured=_read_measured(connection, view, steps, wanted_by(rules)),
            lost_workers=_read_lost(connection, steps),
            samples=samples,
            transfers=_read_transfers(view.session, time.time()),
        )


def read_transfers_seen(ledger: Ledger, now: float, raw: Sequence[Path] | None = None) -> tuple[TransferSeen, ...]:
    """Return the transfers of a ledger; with ``raw``, only those that fill these folders, with the files that fail there."""
    found = []
    try:
        rows = ledger.transfers()
    except SessionError:  # it is damaged, as its page says; all else is judged
        return ()
    for row in rows:
        target = Path(row.target).resolve()
        within = None if raw is None else [one for one in raw if fills(target, one)]
        if within == []:
            continue
        doing = row.doing(now)
        if within is None:
            failed = sum(one.files for one in ledger.counts(row.id) if one.state == "failed")
        else:
            files = [target / (one.target_name or one.name) for one in ledger.files(row.id, ("failed",), limit=MOST_FAILED)]
            failed = sum(any(path.is_relative_to(one) for one in within) for path in files)
        since = row.seen_at if doing == "interrupted" else row.since
        found.append(TransferSeen(row.source, row.target, doing, row.note, since, failed))
    return tuple(found)


def fills(target: Path, raw: Path) -> bool:
    """Tell whether a transfer to a folder brings raw data of a folder; both are free of links.

    Either may contain the other: a copy of a whole disk, or of one square of a grid.
    """
    return raw.is_relative_to(target) or target.is_relative_to(raw)


def _read_transfers(session: Session, now: float) -> tuple[TransferSeen, ...]:
    """Return the transfers of a session, and those of the account that fill its raw data, such as a copy of a whole disk."""
    raw = [Path(path).resolve() for name, path in session.roots.items() if name != "session"]
    of_account = read_transfers_seen(account_ledger(Settings().state), now, raw)
    return read_transfers_seen(session_ledger(session), now) + of_account


def read_runner_seen(overview: Overview) -> RunnerSeen:
    """Return who processes the session."""
    runner = overview.runner
    paused = overview.pause is not None
    return RunnerSeen(runner.state, runner.host, runner.heartbeat_age_s, paused, note=runner.note)


def wanted_by(rules: Sequence[AnyRule]) -> frozenset[str]:
    """Return the measures that rules are about, by metric or id."""
    return frozenset(rule.measure for rule in rules if isinstance(rule, MeasureRule | DriftRule | AgeingRule))


def _read_arrivals(connection: Connection, steps: Sequence[StepSummary]) -> ArrivalsSeen:
    table = schema.exposure
    newest = connection.execute(
        select(table.c.name, table.c.arrived_at, table.c.source).order_by(table.c.ordinal.desc()).limit(MOST_ARRIVALS)
    ).all()
    if not newest:
        return ArrivalsSeen(expected=any(step.kind == "source" and step.stream != "closed" for step in steps))
    times = sorted(row.arrived_at for row in newest[:INTERVALS])
    recent = recent_of([row.arrived_at for row in newest])
    gaps = [later - earlier for earlier, later in pairwise(times)]
    open_sources = {step.name for step in steps if step.kind == "source" and step.stream != "closed"}
    return ArrivalsSeen(
        expected=newest[0].source in open_sources,
        newest=newest[0].name,
        newest_at=times[-1],
        usual_s=statistics.median(gaps) if gaps else None,
        recent=len(recent),
        recent_from=min(recent),
    )


def _read_step(connection: Connection, step: StepSummary) -> StepSeen:
    if not step.counts.failed or step.revision_id is None:
        return StepSeen(step.name, step.label, step.counts.waiting)
    outcome, exposure = schema.outcome, schema.exposure
    rows = connection.execute(
        select(outcome.c.seq, outcome.c.at, outcome.c.status, outcome.c.reason, exposure.c.name, exposure.c.unit)
        .select_from(outcome.join(exposure, exposure.c.unit == outcome.c.unit))
        .where((outcome.c.revision == step.revision_id) & outcome.c.status.in_(WORK))
        .order_by(outcome.c.seq.desc())
        .limit(MOST_OUTCOMES)
    )
    recent = tuple(RecentOutcome(row.seq, row.at, row.name, row.status, row.reason or "", row.unit) for row in rows)
    return StepSeen(step.name, step.label, step.counts.waiting, recent)


def _read_lost(connection: Connection, steps: Sequence[StepSummary]) -> tuple[LostWorker, ...]:
    failure, exposure = schema.failure, schema.exposure
    names = {step.revision_id: step.label for step in steps}
    rows = connection.execute(
        select(failure.c.seq, failure.c.at, failure.c.revision, failure.c.unit, exposure.c.name)
        .select_from(failure.outerjoin(exposure, exposure.c.unit == failure.c.unit))
        .where(failure.c.kind == FailureKind.WORKER_DIED)
        .order_by(failure.c.seq.desc())
        .limit(MOST_LOST)
    ).all()
    return tuple(
        LostWorker(row.seq, row.at, names.get(row.revision, "an earlier revision"), row.name or row.unit[:12], row.unit)
        for row in reversed(rows)
    )


def _read_measured(
    connection: Connection, view: SessionView, steps: Sequence[StepSummary], wanted: Collection[str]
) -> tuple[Measured, ...]:
    size = pixel_size_of(view)
    chosen = [one for one in list_measures(view, steps) if one.id in wanted or one.declared.metric in wanted]
    found = []
    for step in steps:
        mine = [one for one in chosen if one.step == step.name]
        if not mine:
            continue
        if mine[0].whole:
            versions = [one for one in reversed(view.snapshots(step.name, limit=MOST_VERSIONS)) if one.record is not None]
            found += [_measured(one, _of_versions(one, versions, size)) for one in mine]
        elif step.revision_id is not None:
            found += _of_exposures(connection, step.revision_id, mine, size)
    return tuple(one for one in found if one.values)


def _of_versions(one: MeasureOfStep, versions: Sequence[StoredSnapshot], size: float | None) -> list[Value]:
    told = [(version, value_of(one.declared, version.record or {}, pixel_size_ang=size)) for version in versions]
    return [Value(each.version, each.at, f"version {each.version}", value) for each, value in told if value is not None]


def _of_exposures(connection: Connection, revision: int, measures: Sequence[MeasureOfStep], size: float | None) -> list[Measured]:
    """Return the newest values of measures of one step; the store picks the exposures before it looks into records."""
    outcome, exposure, result = schema.outcome, schema.exposure, schema.result
    paths = list(dict.fromkeys(path for one in measures for path in paths_of(one.declared)))
    newest = (
        select(outcome.c.unit, outcome.c.seq, outcome.c.at, outcome.c.weight, json_text(outcome.c["keys"], "out").label("out"))
        .where((outcome.c.revision == revision) & (outcome.c.status == "item"))
        .order_by(outcome_rowid().desc())
        .limit(MOST_VALUES)
        .subquery()
    )
    columns = [newest.c.weight if path == WEIGHT else json_number(result.c.record, path) for path in paths]
    rows = connection.execute(
        select(newest.c.seq, newest.c.at, exposure.c.name, newest.c.unit, *columns)
        .select_from(newest.join(exposure, exposure.c.unit == newest.c.unit).join(result, result.c.key == newest.c.out))
        .order_by(newest.c.seq)
    ).all()
    found = []
    for one in measures:
        places = [4 + paths.index(path) for path in paths_of(one.declared)]
        told = [(row, [row[place] for place in places]) for row in rows]
        values = [
            Value(row[0], row[1], row[2], combine(one.declared, [float(number) for number in numbers], size), row[3])
            for row, numbers in told
            if all(number is not None for number in numbers)
        ]
        found.append(_measured(one, values))
    return found


def _measured(one: MeasureOfStep, values: Sequence[Value]) -> Measured:
    return Measured(
        id=one.id,
        step=one.step,
        label=one.label,
        step_label=one.step_label,
        unit=one.unit,
        metric=one.declared.metric,
        better=one.declared.better,
        whole=one.whole,
        values=tuple(values),
    )
