"""Writing the report: the page, its JSON and its references, each replaced whole, again and again at the same cost."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from icestream.files import folder_in_session, publish_text
from icestream.flow.storage import Session
from icestream.observe.queries import open_view
from icestream.observe.report.content import Gathering, gather, see_alarms
from icestream.observe.report.customising import Customised, read_customised
from icestream.observe.report.data_file import write_data
from icestream.observe.report.layers import SESSION_TEMPLATES, make_layers
from icestream.observe.report.problems import Problem
from icestream.observe.report.rendering import Page

REFRESH_S = 30
_MOST_FILES = 200


@dataclass(frozen=True)
class Written:
    """What was written, what is wrong with the templates it was made by, and how it is published."""

    page: Path
    data: Path
    references: Path
    customised: Customised
    digest: str
    """Changes when what is shown does, not when only its time does."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with templates and settings."""
        return self.customised.problems.found


class ReportWriter:
    """Writes the report of a session as often as is asked; what can be kept from one to the next is."""

    def __init__(
        self,
        session: Session,
        target: Path | None = None,
        *,
        template_folder: Path | None = None,
        session_templates: bool = False,
    ) -> None:
        self.session = session
        self.page = _file_for(session, target)
        self._layers = make_layers(session.folder if session_templates else None, template_folder)
        self._unused = None if session_templates else session.folder / SESSION_TEMPLATES
        self._open = ExitStack()
        self._view = self._open.enter_context(open_view(session))
        self._gathering = Gathering()
        self._page = Page(self._layers, self._newest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the store go."""
        self._open.close()

    def is_over(self) -> bool:
        """Tell whether the session has ended, so that nothing more will change by itself."""
        return self._view.overview().runner.state not in ("not started", "running")

    def seen(self) -> object:
        """Return what differs when the report would: what the store says, and the files of templates and settings."""
        files = [path for layer in self._layers[:-1] for path in sorted(layer.folder.glob("*"))[:_MOST_FILES] if path.is_file()]
        stamps = [(str(path), path.stat().st_mtime_ns) for path in files]
        return self._view.pulse().token, stamps, see_alarms(self._view)

    def write(self, *, refresh_s: float | None = None, troubles: tuple[str, ...] = ()) -> Written:
        """Write everything once; ``troubles`` are told on the page. See `write_report`."""
        how = self._gathering
        how.customised = read_customised(self._layers)
        if self._unused is not None and self._unused.is_dir():
            said = "what a session brings for its report is not used here (setting ICESTREAM_SESSION_REPORT_TEMPLATES)"
            how.customised.problems.note(self._unused, said, "the report is as the facility has it")
        data = gather(self._view, refresh_s=REFRESH_S if refresh_s is None else refresh_s, how=how)
        html = self._page.render(data, how.customised, troubles=troubles)
        text, digest = write_data(data, [one.data for one in how.customised.problems.found])
        beside = self.page.with_name("report.json" if self.page.stem == "index" else f"{self.page.stem}.json")
        references = beside.with_suffix(".bib")
        publish_text(self.page, html)
        publish_text(beside, text)
        publish_text(references, data.methods.bibtex)
        return Written(self.page, beside, references, how.customised, digest)

    def _newest(self, record: str, count: int) -> list[dict[str, Any]]:
        """Return the newest records of a type, of every step that makes it, for a section of somebody's own."""
        found: list[dict[str, Any]] = []
        for step in self._view.steps():
            if step.records.get("out") != record:
                continue
            stored = list(self._view.records(step.name, newest_first=True, limit=count))
            found += [_told(step.name, one.name, one.at, one.record) for one in stored]
            versions = [] if stored else self._view.snapshots(step.name, limit=count)
            found += [_told(step.name, f"version {one.version}", one.at, one.record or {}) for one in versions]
        return sorted(found, key=lambda one: -one["at"])[:count]


def _told(step: str, name: str, at: float, record: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": step, "name": name, "at": at, "record": dict(record)}


def write_report(
    session: Session,
    target: Path | None = None,
    refresh_s: float | None = None,
    *,
    template_folder: Path | None = None,
) -> Path:
    """Write the report of a session and return its path.

    It is ``report/index.html`` in the session, with ``report.json`` and ``report.bib`` beside it, unless ``target`` is another
    file or folder. The page loads itself again every ``refresh_s`` seconds (30 unless told otherwise; 0 is never) while a
    runner is alive, and not at all afterwards. Readers see the old page or the new one, never half of one.

    Raises
    ------
    SessionError
        The store cannot be read; or the folder ``report`` is a link that leads out of the session.
    """
    with ReportWriter(session, target, template_folder=template_folder) as writer:
        return writer.write(refresh_s=refresh_s).page


def _file_for(session: Session, target: Path | None) -> Path:
    folder = folder_in_session(session.folder, "report") if target is None else target
    return folder if folder.suffix in (".html", ".htm") else folder / "index.html"
