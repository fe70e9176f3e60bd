"""The way in: process a session, and resume by itself after its store or disk was unavailable."""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from icestream.errors import SessionBusy, SessionError, StoreUnavailable
from icestream.flow.execution.executor import Executor
from icestream.flow.runner.health import Health
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.status import RunReport, RunStatus
from icestream.flow.runner.stopping import StopRequests, on_stop_signals
from icestream.flow.storage import ActivePause, Session, open_session, reading, schema
from icestream.logs import log_event, session_log
from icestream.settings import Settings

_LOG = logging.getLogger(__name__)

_LOOK_S = 0.5
_LONGEST_PAUSE_S = 30.0
_PATIENCE = 30
"""How often a runner that is rebuilt lets others finish what they do with the session, as a command takes a moment."""


@dataclass
class Supervisor:
    """Holds a runner up: builds it from the store, and rebuilds it after the store was away."""

    session: Session
    settings: Settings
    on_change: Callable[[RunStatus], None] | None
    cluster: Executor | None = None
    runner: Runner | None = None
    stops: StopRequests = field(default_factory=StopRequests)
    _identity: tuple[int, int] | None = None  # file system and inode of the session's folder

    def __post_init__(self) -> None:
        self._identity = _identity_of(self.session.folder)

    def stop(self) -> None:
        """Stop after what is running; a second call stops at once. A signal may come while another one is being heard."""
        self.stops.ask()
        if self.runner is not None:
            self.runner.stop()

    def run(self) -> RunReport:
        """Run to the end, pausing while the store cannot be used."""
        troubles = busy = 0
        while True:
            try:
                self.runner = self._build()
                busy = 0
                return self._watch_over(self.runner)
            except SessionBusy as error:  # somebody may have changed something while nobody was here: that is soon over
                busy += 1
                if self.stops.count or self.runner is None or busy > _PATIENCE:
                    raise
                self._wait_until_well(str(error), 0)
            except (StoreUnavailable, OSError) as error:
                if self.stops.count or self.runner is None:  # it never worked: the person who starts it should know at once
                    raise
                self.session = self.runner.parts.edits.session
                troubles += 1
                log_event(_LOG, logging.WARNING, "waiting for the store", reason=str(error), times=troubles)
                self._wait_until_well(str(error), troubles)

    def _build(self) -> Runner:
        """Build a runner; what somebody has edited while none was here is taken up, and what is known of the disks is kept."""
        earlier = self.runner
        if earlier is not None:
            with reading(self.session) as connection:
                if connection is None:  # a new, empty one would be made in its place
                    raise StoreUnavailable(f"{self.session.store_at}: not found")
                fence = connection.execute(select(schema.runner.c.fence)).scalar()
            if fence != earlier.store.fence:
                self.session = open_session(self.session.folder)
        runner = Runner(self.session, self.settings, self.on_change, self.cluster)
        if earlier is not None:
            runner.parts.place.health.devices |= earlier.parts.place.health.devices
        return runner

    def _watch_over(self, runner: Runner) -> RunReport:
        for _ in range(self.stops.count):
            runner.stop()
        return runner.run()

    def _wait_until_well(self, reason: str, troubles: int) -> None:
        """Wait until the surroundings are well, at first shortly, then longer: the cause may not be visible from here."""
        until = time.monotonic() + min(_LONGEST_PAUSE_S, _LOOK_S * 2.0**troubles)
        while not self.stops.count:
            self._check_moved()
            trouble = Health(self.session, 0.0).trouble()  # a runner that can write holds by itself, and hears people
            if trouble is None and time.monotonic() >= until:
                return
            self._tell(trouble or reason)
            self.stops.wait(_LOOK_S)
        raise StoreUnavailable(f"{reason}; stopped by its operator while waiting for it")

    def _check_moved(self) -> None:
        """Give up where the folder is gone, or another one is in its place, though its disk is there: waiting mends nothing."""
        folder, known = self.session.folder, self._identity
        found = _identity_of(folder)
        beside = _identity_of(folder.parent) if found is None else found
        if known is not None and found != known and beside is not None and beside[0] == known[0]:
            raise SessionError(f"{folder}: was moved or deleted while it was being processed")

    def _tell(self, reason: str) -> None:
        if self.on_change is not None:
            self.on_change(RunStatus((), pause=ActivePause("surroundings", reason)))


def _identity_of(folder: Path) -> tuple[int, int] | None:
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def run_session(
    session: Session,
    settings: Settings,
    *,
    on_change: Callable[[RunStatus], None] | None = None,
    cluster: Executor | None = None,
) -> RunReport:
    """Process a session until every stream has closed, or until SIGINT or SIGTERM.

    Steps run on ``cluster``, which is shut down at the end; on this machine if it is unset.

    Raises
    ------
    WorkflowError
        The workflow cannot run; nothing was started.
    SessionBusy
        Another runner holds the session.
    SessionError
        The store cannot be used.
    """
    supervisor = Supervisor(session, settings, on_change, cluster)
    try:
        with session_log(session.folder, settings.log_level), closing(supervisor.stops), on_stop_signals(supervisor.stop):
            return supervisor.run()
    except OSError as error:
        raise SessionError(f"{session.folder}: {error}") from error
    finally:
        if cluster is not None:
            cluster.shut_down()
