"""Notices: which of them still hold."""

import json
import time
from pathlib import Path

import pytest
from paper_session import PaperSession, new_session
from sqlalchemy import update

from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.observe.queries import open_view
from icestream.observe.why import why_step
from icestream.records import Record


class Thing(Record):
    """Anything."""


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    written = PaperSession(new_session(tmp_path, {"movies": {"use": "movies"}, "ctf": {"use": "ctf", "in": {"movie": "movies"}}}))
    written.revise("movies", "source")
    written.revise("ctf", "map", links={"movie": ["movies"]})
    return written


def notify(paper: PaperSession, level: str, cause: str, *, step: str | None = None, subject: str | None = None) -> None:
    values = {"level": level, "step": step, "message": f"{cause}!", "at": paper.now, "cause": cause, "subject": subject}
    paper.add(schema.notice, seq=paper.store.next_seq(), **values)


def over(paper: PaperSession) -> list[bool]:
    """Tell of each notice, oldest first, whether it is over."""
    with open_view(paper.session) as view:
        return [notice.over for notice in reversed(view.notices())]


def change_runner(paper: PaperSession, **values: object) -> None:
    engine = engine_for(paper.session.store_at)
    with engine.begin() as connection:
        connection.execute(update(schema.runner).values(**values))
    engine.dispose()


def pause(paper: PaperSession, kind: str | None) -> None:
    text = None if kind is None else json.dumps({"kind": kind, "reason": "", "author": None, "since": 0.0})
    change_runner(paper, hold=text)


def test_the_alert_of_a_full_disk_is_over_when_the_session_is_not_paused_for_it(paper: PaperSession) -> None:
    notify(paper, "alert", "surroundings")
    pause(paper, "surroundings")
    assert over(paper) == [False]
    pause(paper, "person")
    assert over(paper) == [True]
    pause(paper, None)
    notify(paper, "info", "surroundings")
    assert over(paper) == [True, False]


def test_a_step_that_works_again_is_no_alert(paper: PaperSession) -> None:
    unit = paper.expose("mic_1", 1)
    notify(paper, "alert", "step_failing", step="ctf")
    notify(paper, "alert", "step_failing", step="movies")
    paper.fail("ctf", unit, "broken")
    assert over(paper) == [False, False]
    paper.make("ctf", paper.expose("mic_2", 2), Thing())
    assert over(paper) == [True, False]


def test_a_source_that_finds_files_again_is_no_alert(paper: PaperSession) -> None:
    notify(paper, "warning", "source", step="movies")
    assert over(paper) == [False]
    paper.expose("mic_1", 1)
    assert over(paper) == [True]


def test_what_was_told_again_is_told_once(paper: PaperSession) -> None:
    for subject in ("a", "b", "a"):
        notify(paper, "warning", "given_file", step="ctf", subject=subject)
    assert over(paper) == [True, False, False]


def test_two_programs_of_one_step_are_two_matters(paper: PaperSession) -> None:
    paper.now = time.time() + 60  # after this process, which plays the runner, began
    for subject in ("ctffind", "gctf"):
        notify(paper, "warning", "program", step="ctf", subject=subject)
    notify(paper, "warning", "resources")
    notify(paper, "warning", "resources")
    assert over(paper) == [False] * 4


def test_the_version_of_a_program_is_told_again_by_each_runner(paper: PaperSession) -> None:
    paper.now = time.time() + 60  # after this process, which plays the runner, began
    notify(paper, "warning", "program", step="ctf", subject="ctffind")
    with open_view(paper.session) as view:
        assert [one.sentence for one in why_step(view, "ctf") if one.step == "ctf"][1:] == ["program!"]
    change_runner(paper, pid_started=time.time() + 120)
    assert over(paper) == [True]
    with open_view(paper.session) as view:
        assert [one.sentence for one in why_step(view, "ctf") if one.step == "ctf"][1:] == []


def test_a_notice_without_a_cause_stays(paper: PaperSession) -> None:
    paper.notify("alert", "of an older version")
    paper.notify("alert", "of an older version")
    assert over(paper) == [False, False]
