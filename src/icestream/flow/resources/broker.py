"""One runner's dealings with the ledger of its machine: it claims for many tasks at once, and keeps a claim for a moment."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from icestream.errors import LedgerBusy, LedgerError
from icestream.flow.resources.fairness import Claim, Grant, Tokens, beyond, dominant_part, grant, plus
from icestream.flow.resources.ledger import Entry, Slots

RETRY_S = 0.1
"""How long a runner that was refused waits before it asks again."""
_REFRESH_S = 0.25
_RETURN_S = 0.02
_AFTER_TROUBLE_S = 10.0
_BUSY_TIMES = 5


class Table(Protocol):
    """Where claims are written down: `icestream.flow.resources.ledger.Ledger`, or a stand-in."""

    damaged: list[int]

    def exchange(self, change: Callable[[int, Slots], Entry]) -> None:
        """Show the entries of all other runners to ``change``, and write what it returns."""

    def close(self) -> None:
        """Give everything back."""


@dataclass
class Broker:
    """What this runner may hold. Without a ledger, or while the ledger cannot be used, that is everything.

    ``describe`` returns the session and how many tasks of each step run, for people who look at the ledger.
    """

    table: Table | None
    capacity: Tokens
    describe: Callable[[], tuple[str, Mapping[str, int]]] = lambda: ("", {})
    clock: Callable[[], float] = time.monotonic
    user: str = ""
    notices: list[tuple[str, str]] = field(default_factory=list)
    """Notices (level, text) for the runner to store."""
    refused: bool = False
    """Something was refused: ask again after `RETRY_S`."""
    runners: int = 1
    """How many runners of this machine have work, this one among them."""
    taken: dict[str, float] = field(default_factory=dict)
    """What the other runners held when the ledger was last read."""

    def __post_init__(self) -> None:
        self._limit: dict[str, float] = {}
        self._published: dict[str, float] = {}
        self._need: dict[str, float] = {}
        self._due: tuple[tuple[str, float], ...] | None = None
        self._served_s = 0.0
        self._counted_at = self._asked_at = self.clock()
        self._refused_asks: dict[tuple[tuple[str, float], ...], tuple[float, frozenset[str]]] = {}
        self._trouble: str | None = None
        self._trouble_until = 0.0
        self._damage_told = False
        self._worked = False
        self._busy = 0

    def begin(self) -> None:
        """Begin a round of handing out tasks; the others are asked to leave room for the first task that is refused in it."""
        self.refused = False
        self._due = None

    def glance(self, running: Tokens, wanted: Callable[[], Tokens]) -> None:
        """Read what others hold, unless that was done a moment ago."""
        if not self._alone() and self.clock() - self._asked_at >= RETRY_S:
            self._exchange(running, wanted(), {})

    def lacking(self, ask: Tokens, running: Tokens, wanted: Callable[[], Tokens]) -> frozenset[str]:
        """Return what of ``ask`` there is no room for beside ``running``; nothing if the task may start.

        ``wanted`` tells what running and waiting tasks would hold within the limits of the runner itself.
        """
        if self._alone():
            return frozenset()
        if not beyond(plus(running, ask), self._limit) and not ask.get("gpu_gb"):  # a GPU is asked for again each time
            return frozenset()
        kind = tuple(sorted(ask.items()))
        asked_at, short = self._refused_asks.pop(kind, (-RETRY_S, frozenset()))
        if self.clock() - asked_at >= RETRY_S:
            asked_at, short = self.clock(), self._exchange(running, wanted(), ask)
        if short:
            self._refused_asks[kind] = (asked_at, short)
            self.refused = True
            self._due = self._due or kind
        return short

    def end(self, running: Tokens, wanted: Callable[[], Tokens]) -> None:
        """End a round: now and then tell the ledger what is not used any more, and hear what others want."""
        if not self.refused:
            self._need = {}
            self._refused_asks.clear()
        if self._alone():
            return
        unused = self.runners > 1 and any(
            amount > max(self._limit.get(name, 0.0), running.get(name, 0.0)) for name, amount in self._published.items()
        )
        if self.clock() - self._asked_at < (_RETURN_S if unused else _REFRESH_S):
            return
        if self._published or self._worked or any(running.values()):
            self._exchange(running, wanted(), {})

    @property
    def memory_share_gb(self) -> float:
        """An equal part of the machine's memory, for each runner that works."""
        return self.capacity["memory_gb"] / self.runners

    def close(self) -> None:
        """Give everything back."""
        if self.table is not None:
            self.table.close()

    def _alone(self) -> bool:
        return self.table is None or (self._trouble is not None and self.clock() < self._trouble_until)

    def _exchange(self, running: Tokens, wanted: Tokens, ask: Tokens) -> frozenset[str]:
        """Write down what we hold and want; return what ``ask`` lacks."""
        self._asked_at = self.clock()
        lacking: frozenset[str] = frozenset()

        def change(slot: int, others: Slots) -> Entry:
            nonlocal lacking
            claims = [Claim(e.held, e.wanted, e.need, e.served_s, other) for other, e in others.items()]
            self._count_served([claim for claim in claims if any(claim.wanted.values())])
            me = Claim({}, wanted, {}, self._served_s, slot)
            given = grant(self.capacity, me, claims, running=running, ask=ask, bulk=not self.refused)
            lacking = given.lacking
            if ask and self._due in (None, tuple(sorted(ask.items()))):
                self._need = dict(given.need)
            self.taken = {name: sum(claim.held.get(name, 0.0) for claim in claims) for name in self.capacity}
            self.runners = 1 + sum(any(claim.wanted.values()) for claim in claims)
            return self._entry(given, wanted, running)

        try:
            if self.table is not None:
                self.table.exchange(change)
        except LedgerError as error:
            self._busy += 1
            if isinstance(error, LedgerBusy) and self._busy < _BUSY_TIMES:  # a loaded machine may stop whoever holds the lock
                return frozenset({"cores"}) if ask else frozenset()
            self._go_on_without(str(error))
            return frozenset()
        self._busy = 0
        if self._trouble is not None:
            self._trouble = None
            self.notices.append(("info", "the ledger of the machine's resources can be used again"))
        self._tell_damage()
        return lacking

    def _entry(self, given: Grant, wanted: Tokens, running: Tokens) -> Entry:
        self._limit = dict(given.limit)
        held = {name: max(amount, running.get(name, 0.0)) for name, amount in given.limit.items()}
        self._published = {name: amount for name, amount in held.items() if amount}
        session, steps = self.describe()
        positive = {name: amount for name, amount in wanted.items() if amount}
        self._worked = bool(positive)
        return Entry(
            pid=os.getpid(),
            user=self.user,
            session=session,
            steps=dict(steps),
            held=self._published,
            wanted=positive,
            need=self._need,
            served_s=self._served_s,
        )

    def _count_served(self, working: list[Claim]) -> None:
        """Count what was held since the last time; who comes, or comes back, starts where the others are."""
        now = self.clock()
        self._served_s += dominant_part(self._published, self.capacity) * (now - self._counted_at)
        self._counted_at = now
        if working and not self._worked:
            self._served_s = max(self._served_s, min(claim.served_s for claim in working))

    def _go_on_without(self, reason: str) -> None:
        if self._trouble is None:
            text = f"{reason}; this runner keeps to its own limits and knows nothing of others on this machine"
            self.notices.append(("warning", text))
        self._trouble, self._trouble_until = reason, self.clock() + _AFTER_TROUBLE_S
        self._limit, self._published = {}, {}
        self.close()

    def _tell_damage(self) -> None:
        damaged = self.table.damaged if self.table is not None else []
        if damaged and not self._damage_told:
            slots = ", ".join(map(str, damaged))
            self.notices.append(("warning", f"the ledger of the machine's resources has damaged records in slots {slots}"))
        self._damage_told = bool(damaged)
