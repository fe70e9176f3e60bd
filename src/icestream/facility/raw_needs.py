"""Who still needs a raw file: steps, failed exposures that may be retried, removed files, exports, and other sessions."""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from icestream.errors import IcestreamError
from icestream.facility.raw_copies import RawFile
from icestream.flow.commands.rejected import find_rejected
from icestream.flow.commands.removable import exported_targets, settled_units
from icestream.flow.declaration import Status
from icestream.flow.storage import Session, open_session, reading, schema
from icestream.transfer.ends import sessions_near

PROCESSED = "its exposure is still being processed"
NOT_REJECTED = "its exposure was not rejected"
FAILED = "its exposure has failed, and can only be retried with it"
ONLY_SOURCE = "files that were removed can only be computed again from it"
EXPORTED = "an export leads to it"
SHARED = "another session has the same folder of raw data"
UNKNOWN = "a session beside this one cannot be read, and may have the same raw data"
OUTSIDE_EVERY_S = 60.0
"""Exports and other sessions are looked at again so often while raw data are deleted; the session itself for each file."""


@dataclass
class RawNeeds:
    """What needs the raw files of a session now; ``rejected``: only those of rejected exposures are not needed."""

    session: Session
    rejected: bool = False
    _settled: set[str] = field(default_factory=set, init=False)
    _chosen: set[str] | None = field(default=None, init=False)
    _failed: set[str] = field(default_factory=set, init=False)
    _removed: set[str] = field(default_factory=set, init=False)
    _exported: set[str] = field(default_factory=set, init=False)
    _shared: list[Path] = field(default_factory=list, init=False)
    _unknown: bool = field(default=False, init=False)
    _looked_s: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self.look()

    def look(self) -> None:
        """Look again.

        Raises
        ------
        SessionError
            The store cannot be read.
        """
        graph, revision = self.session.graph(), schema.revision
        with reading(self.session) as connection:
            if connection is not None:
                rows = connection.execute(select(revision.c.step, revision.c.id).where(revision.c.state == "active"))
                active = {row.step: row.id for row in rows if row.step in graph.nodes}
                self._settled = settled_units(connection, active)
                self._chosen = find_rejected(connection, graph, active) if self.rejected else None
                self._failed = _failed_units(connection, active)
                self._removed = _units_with_removed_files(connection)
        if time.monotonic() - self._looked_s > OUTSIDE_EVERY_S:
            self._look_outside()
            self._looked_s = time.monotonic()

    def why_kept(self, one: RawFile) -> str | None:
        """Return why a raw file stays, or None where nothing needs it."""
        if self._chosen is not None and one.unit not in self._chosen:
            return NOT_REJECTED
        if one.unit not in self._settled:
            return PROCESSED
        if one.unit in self._failed:
            return FAILED
        if one.unit in self._removed:
            return ONLY_SOURCE
        return self._needed_outside(Path(os.path.realpath(one.path)))

    def _needed_outside(self, real: Path) -> str | None:
        if any(str(path) in self._exported for path in (real, *real.parents)):
            return EXPORTED
        if any(real.is_relative_to(root) for root in self._shared):
            return SHARED
        return UNKNOWN if self._unknown else None

    def _look_outside(self) -> None:
        here = self.session.folder.resolve()
        self._exported, self._shared, self._unknown = set(exported_targets(self.session.folder)), [], False
        raw = [Path(self.session.roots[name]).resolve() for name in self.session.document.roots]
        for folder in sessions_near(here, *raw):
            if folder == here:
                continue
            try:
                other = open_session(folder)
                self._shared += [Path(other.roots[name]).resolve() for name in other.document.roots]
            except (IcestreamError, OSError):
                self._unknown |= folder.parent == here.parent


def _failed_units(connection: Connection, active: dict[str, int]) -> set[str]:
    outcome = schema.outcome
    failed = outcome.c.revision.in_(active.values()) & (outcome.c.status == Status.FAILED.value)
    return set(connection.execute(select(outcome.c.unit).where(failed)).scalars())


def _units_with_removed_files(connection: Connection) -> set[str]:
    """Return the exposures of which files were removed, unless who removed them said that they may be lost."""
    removal, removed, result = schema.removal, schema.removed_file, schema.result
    asked = connection.execute(select(removal.c.id, removal.c.what))
    wanted = [row.id for row in asked if not json.loads(row.what).get("even_if_lost")]
    joined = removed.join(result, result.c.key == removed.c.key)
    return set(
        connection.execute(select(result.c.unit).select_from(joined).where(removed.c.removal.in_(wanted)).distinct()).scalars()
    )
