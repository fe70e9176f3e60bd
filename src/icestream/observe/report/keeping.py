"""Keeping a report up to date: written again when something has changed, published as the facility says."""

import time
from pathlib import Path

from icestream.flow.storage import Session
from icestream.observe.report.publishing import Publisher
from icestream.observe.report.writing import ReportWriter, Written

OLDEST_S = 60.0
"""A report that has not changed is written again after so long, for rates and for a runner that died without a word."""


class ReportKeeper:
    """Writes and publishes the report of one session, turn by turn; the caller waits in between."""

    def __init__(
        self,
        session: Session,
        target: Path | None,
        *,
        template_folder: Path | None,
        publish: bool,
        session_templates: bool = False,
    ) -> None:
        self.writer = ReportWriter(session, target, template_folder=template_folder, session_templates=session_templates)
        self.publisher = Publisher(session)
        self._publish = publish
        self._seen: object = None
        self._written: Written | None = None
        self._at = 0.0

    def turn(self, *, refresh_s: float | None) -> Written | None:
        """Write the report if it has changed, and offer it for publishing; return what was written, if it was."""
        self.publisher.look()
        seen, fresh = (self.writer.seen(), self.publisher.state.trouble), None
        if seen != self._seen or time.monotonic() - self._at > OLDEST_S:
            trouble = self.publisher.state.trouble if self._publish else None
            fresh = self._written = self.writer.write(refresh_s=refresh_s, troubles=() if trouble is None else (trouble,))
            self._seen, self._at = seen, time.monotonic()
        asked = None if self._written is None else self._written.customised.settings.publish
        if self._publish and asked is not None and self._written is not None:
            self.publisher.offer(asked, self._written.page.parent, self._written.digest)
        return fresh

    def publish_now(self, written: Written) -> str | None:
        """Publish what was written and wait for it; return why it failed, if it did."""
        asked = written.customised.settings.publish
        if asked is None:
            return "no command is said: give `publish` in the facility's report.yaml (setting ICESTREAM_REPORT_TEMPLATES)"
        self.publisher.wait()
        self.publisher.start(asked, written.page.parent, written.digest)
        if not self.publisher.busy and self.publisher.state.trouble is None:
            return "another process is publishing it now"
        self.publisher.wait()
        return self.publisher.state.trouble

    def close(self) -> None:
        """Let a command that runs end, publish what was written last if that is still to be done, and let the store go."""
        self.publisher.wait()
        asked = None if self._written is None else self._written.customised.settings.publish
        if self._publish and asked is not None and self._written is not None:
            self.publisher.offer(
                asked.model_copy(update={"at_least_every_s": 0}), self._written.page.parent, self._written.digest
            )
            self.publisher.wait()
        self.writer.close()
