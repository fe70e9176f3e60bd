"""An alarm as it is told: a heading and a few lines for people, and the same as fields for programs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from icestream.alarms.state import Alarm, Event

_WORDS = {"raised": "", "reminder": "still: ", "ended": "over: ", "refresh": "", "test": "test: "}


@dataclass(frozen=True)
class Message:
    """What is sent of one alarm to one channel; ``id`` is the same whenever the same is sent again."""

    id: str
    event: Event
    session: str
    folder: str
    alarm: Alarm
    link: str | None

    @property
    def heading(self) -> str:
        """One line."""
        grave = "CRITICAL " if self.alarm.severity == "critical" and self.event != "ended" else ""
        return plain_line(f"[icestream] {grave}{_WORDS[self.event]}{self.session}: {self.alarm.what}")

    @property
    def lines(self) -> tuple[str, ...]:
        """What, since when, how many exposures, which first, and what to look at."""
        alarm = self.alarm
        told = [f"{alarm.what} ({alarm.subject}): {alarm.detail}", f"since {moment_text(alarm.since)}"]
        if alarm.ended_at is not None:
            told.append(f"over at {moment_text(alarm.ended_at)}: {alarm.ended_because}")
        if alarm.exposures is not None:
            told.append(f"exposures affected: {alarm.exposures}")
        if alarm.first is not None:
            told.append(f"first: {alarm.first}" + (f"; newest: {alarm.newest}" if alarm.newest != alarm.first else ""))
        told.append(f"look at {alarm.look_at}")
        told.append(f"session {self.session} in {self.folder}; rule {alarm.rule}, alarm {alarm.number}")
        told += [self.link] if self.link is not None else []
        return tuple(plain_line(line) for line in told)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    @property
    def fields(self) -> dict[str, str | int | float | None]:
        """The same for programs."""
        own: dict[str, str | int | float | None] = self.alarm.model_dump(mode="json", exclude={"counted_to"})
        return {"id": self.id, "event": self.event, "session": self.session, "folder": self.folder, "link": self.link} | own


def make_message(
    alarm: Alarm, *, event: Event, session: str, folder: str, served_as: str, address: str | None, delivery: int
) -> Message:
    """Return the message of a delivery; ``served_as`` is what `icestream serve` calls the session; empty: it is of none."""
    link = None
    if address is not None:
        page = "/".join(quote(part, safe="") for part in alarm.page.split("/") if part)
        place = f"s/{quote(served_as, safe='')}/{page or 'alarms'}" if served_as else page
        link = f"{address.rstrip('/')}/{place}"
    return Message(f"{served_as or 'account'}-{alarm.number}-{delivery}", event, session, folder, alarm, link)


def make_test_alarm(now: float) -> Alarm:
    """Return what a test message tells."""
    return Alarm(
        number=0,
        rule="test",
        kind="test",
        subject="this channel",
        severity="warning",
        what="This is a test",
        detail="nothing is wrong",
        look_at="nothing: whoever reads this gets the alarms of this session",
        page="alarms",
        since=now,
        opened_at=now,
        newest_at=now,
    )


def plain_line(text: str) -> str:
    """Return a text as one line without what would steer a terminal or a mail: names of files are data."""
    return "".join(char if char.isprintable() or char == "\N{NO-BREAK SPACE}" else " " for char in text)


def moment_text(seconds: float) -> str:
    """Write a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
