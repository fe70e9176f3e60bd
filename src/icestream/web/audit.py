"""What people do through the application, written down in the database of the facility: every change, and every sign-in."""

import json
import logging
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from icestream.errors import SessionError
from icestream.facility.database import FacilityDatabase
from icestream.logs import log_event
from icestream.web.callers import Caller

LONGEST_DETAIL = 1000
_LOG = logging.getLogger(__name__)
_SECRET = frozenset({"/api/v1/sign-in", "/api/v1/open-share"})
_BRAKED = frozenset({429, 503})
"""What was turned away before anything was looked at; noting each would let a stranger fill the disk."""


@dataclass(frozen=True)
class Audit:
    """Writes down who did what."""

    database: FacilityDatabase

    async def write(self, scope: Scope, caller: Caller | None, body: bytes, status: int) -> None:
        """Write down one change, or the refusal of it; that this cannot be done is logged and stops nobody."""
        path = str(scope["path"])
        if status in _BRAKED or (caller is None and path not in _SECRET):
            return
        parts = path.split("/", 5)
        client = scope.get("client")
        try:
            await run_in_threadpool(
                self.database.note,
                who=_name_in(body) if path == "/api/v1/sign-in" else None if caller is None else caller.person.name,
                address=None if not client else str(client[0]),
                action=path.removeprefix("/api/v1/")[:300],
                session=parts[4][:255] if len(parts) > 4 and parts[3] == "sessions" else None,
                detail="" if path in _SECRET else body[:LONGEST_DETAIL].decode(errors="replace"),
                status=status,
            )
        except SessionError as error:
            log_event(_LOG, logging.ERROR, "audit", trouble=str(error))


def _name_in(body: bytes) -> str | None:
    """Return the name that somebody signs in with; never the password."""
    try:
        given = json.loads(body)
    except ValueError:
        return None
    name = given.get("name") if isinstance(given, dict) else None
    return name[:80] if isinstance(name, str) else None
