"""What people do through the application, written down in the database of the facility: every change, and every sign-in.

Of strangers, and of guests who came in through a link, only that they tried to sign in or opened a link is written down, and only
where that was looked at: each row costs a write to the disk.
"""

import json
import logging
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from starlette.types import Scope

from icestream.errors import SessionError
from icestream.facility.database import FacilityDatabase
from icestream.logs import log_event
from icestream.web.callers import Caller

LONGEST_DETAIL = 1000
_LOG = logging.getLogger(__name__)
_SECRET = frozenset({"/api/v1/sign-in", "/api/v1/open-share"})
_WRITING_AT_ONCE = 4
"""A database that is locked must not use up the threads of requests."""
_LIMITER: RunVar[CapacityLimiter] = RunVar("_LIMITER")


@dataclass(frozen=True)
class Audit:
    """Writes down who did what."""

    database: FacilityDatabase

    async def write(self, scope: Scope, caller: Caller | None, body: bytes, status: int) -> None:
        """Write down one change, or the refusal of it; that this cannot be done is logged and stops nobody."""
        path, state = str(scope["path"]), scope["state"]
        if not (state.get("tried", False) if path in _SECRET else state.get("noted", True)):
            return
        if path not in _SECRET and (caller is None or caller.share is not None):
            return
        parts = path.split("/", 5)
        client = scope.get("client")
        try:
            note = partial(
                self.database.note,
                who=_name_in(body) if path == "/api/v1/sign-in" else None if caller is None else caller.person.name,
                address=None if not client else str(client[0]),
                action=path.removeprefix("/api/v1/")[:300],
                session=parts[4][:255] if len(parts) > 4 and parts[3] == "sessions" else None,
                detail="" if path in _SECRET else body[:LONGEST_DETAIL].decode(errors="replace"),
                status=status,
            )
            await to_thread.run_sync(note, limiter=_writing())
        except SessionError as error:
            log_event(_LOG, logging.ERROR, "audit", trouble=str(error))


def _writing() -> CapacityLimiter:
    """Return the limiter of this event loop."""
    try:
        return _LIMITER.get()
    except LookupError:
        _LIMITER.set(CapacityLimiter(_WRITING_AT_ONCE))
        return _LIMITER.get()


def _name_in(body: bytes) -> str | None:
    """Return the name that somebody signs in with; never the password."""
    try:
        given = json.loads(body)
    except ValueError:
        return None
    name = given.get("name") if isinstance(given, dict) else None
    return name[:80] if isinstance(name, str) else None
