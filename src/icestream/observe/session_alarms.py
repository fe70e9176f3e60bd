"""The alarms of a session as views tell them: what is wrong, since when, for how long, in how many exposures, and who knows."""

from dataclasses import dataclass
from pathlib import Path

from icestream.alarms.alarm_store import AlarmStore, KeptAlarm
from icestream.errors import SessionError
from icestream.flow.storage import Session
from icestream.observe.wording import counted, moment

ALARMS_SUFFIX = ".alarms.db"
_MOST_OVER = 40


def alarm_store_of(session: Session) -> AlarmStore:
    """Return the database of a session's alarms: beside its store where that is a file, as locks work there."""
    location = session.store_at
    path = location if isinstance(location, Path) else session.folder / "icestream.db"
    return AlarmStore(path.with_name(path.stem + ALARMS_SUFFIX))


@dataclass(frozen=True)
class AlarmLine:
    """One alarm; an open one has no end. Times are in seconds since 1970."""

    number: int
    what: str
    subject: str
    severity: str
    detail: str
    look_at: str
    since: float
    raised_at: float
    ended_at: float | None
    ended_because: str | None
    exposures: int | None
    first: str | None
    newest: str | None
    acknowledged_by: str | None
    acknowledged_at: float | None
    note: str | None
    lasting_s: float
    """For how long it has been wrong, or was."""


@dataclass(frozen=True)
class AlarmsSeen:
    """The alarms of a session: open, the newest that are over, when somebody looked last, and what was in the way."""

    open: tuple[AlarmLine, ...] = ()
    over: tuple[AlarmLine, ...] = ()
    looked_at: float | None = None
    trouble: str | None = None

    @property
    def worst(self) -> AlarmLine | None:
        """The gravest open alarm, of these the one that has been wrong the longest."""
        return min(self.open, key=lambda one: (one.severity != "critical", one.since), default=None)

    @property
    def sentence(self) -> str | None:
        """What a line says of the open alarms; None where there is none and all is known."""
        worst = self.worst
        if self.trouble is not None:
            return f"alarms are not known: {self.trouble}"
        if worst is None:
            return None
        known = sum(one.acknowledged_by is not None for one in self.open)
        said = f", {known} acknowledged" if known else ""
        return (
            f"{counted(len(self.open), 'open alarm')}{said}; the worst ({worst.severity}) since {moment(worst.since)}: "
            f"{worst.what} ({worst.subject})"
        )


def read_alarms(session: Session, *, now: float) -> AlarmsSeen:
    """Return the alarms of a session; a database that cannot be read is told, as it is no part of the session's results."""
    store = alarm_store_of(session)
    try:
        kept, observer = store.alarms(), store.observer()
    except SessionError as error:
        return AlarmsSeen(trouble=str(error))
    lines = [_line(one, now) for one in kept]
    still = tuple(one for one in lines if one.ended_at is None)
    over = tuple(one for one in lines if one.ended_at is not None)[:_MOST_OVER]
    return AlarmsSeen(still, over, observer.looked_at, observer.trouble)


def _line(kept: KeptAlarm, now: float) -> AlarmLine:
    alarm = kept.alarm
    return AlarmLine(
        number=alarm.number,
        what=alarm.what,
        subject=alarm.subject,
        severity=alarm.severity,
        detail=alarm.detail,
        look_at=alarm.look_at,
        since=alarm.since,
        raised_at=alarm.opened_at,
        ended_at=alarm.ended_at,
        ended_because=alarm.ended_because,
        exposures=alarm.exposures,
        first=alarm.first,
        newest=alarm.newest,
        acknowledged_by=kept.acknowledged_by,
        acknowledged_at=kept.acknowledged_at,
        note=kept.note,
        lasting_s=max(0.0, (now if alarm.ended_at is None else alarm.ended_at) - alarm.since),
    )
