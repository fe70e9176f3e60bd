"""Alarms as the report and `icestream status` tell them: raised, since, for how long, in how many exposures, who knows."""

import json
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_session import HOSTILE, PaperSession
from typer.testing import CliRunner

from icestream.alarms.notify import Plan
from icestream.alarms.state import Alarm, AlarmState, Evaluated
from icestream.cli import app
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.observe.report import ReportWriter
from icestream.observe.session_alarms import AlarmsSeen, alarm_store_of, read_alarms

T = 1_700_000_000.0


def alarm(number: int, **changes: object) -> Alarm:
    told: dict[str, object] = {
        "number": number, "rule": f"rule{number}", "kind": "measure", "subject": f"ctf {HOSTILE}", "severity": "warning",
        "what": f"Defocus {number} is outside its limits", "detail": "4.1 µm, at most 3 µm", "look_at": "the exposure",
        "page": "series", "since": T - 600, "opened_at": T - 300, "newest_at": T, "exposures": 12, "first": "mic_0003",
        "newest": "mic_0019",
    }  # fmt: skip
    return Alarm.model_validate(told | changes)


OPEN = alarm(1)
WORST = alarm(2, severity="critical", what="The acquisition has stopped", since=T - 60, exposures=None, first=None, newest=None)
OVER = alarm(3, ended_at=T - 100, ended_because="it is well again")


def raise_alarms(paper: PaperSession, *open_alarms: Alarm, ended: tuple[Alarm, ...] = (), now: float = T) -> None:
    store = alarm_store_of(paper.session)
    assert store.take_turn("a", now=now, lasting_s=60)
    state = AlarmState(next_number=9, open={one.key: one for one in open_alarms}, at=now)
    assert store.commit("a", Evaluated(state, ended=ended), None, lambda *_: Plan((), ()))


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    written = write_acquisition(tmp_path / "sessions" / "watched", 4, name="Watched")
    (written.session.folder / DOCUMENT).write_text(dump_document(written.session.document), encoding="utf-8")
    return written


def test_the_worst_open_alarm_is_told_and_those_over_are_kept(paper):
    assert read_alarms(paper.session, now=T) == AlarmsSeen()
    assert read_alarms(paper.session, now=T).sentence is None
    raise_alarms(paper, OPEN, WORST, ended=(OVER,))
    alarm_store_of(paper.session).acknowledge([1], by="anna", note="being mended", now=T)
    seen = read_alarms(paper.session, now=T + 40)
    assert [one.number for one in seen.open] == [2, 1]
    assert [(one.number, one.lasting_s, one.ended_because) for one in seen.over] == [(3, 500.0, "it is well again")]
    assert [one.lasting_s for one in seen.open] == [100.0, 640.0]
    assert seen.sentence == (
        "2\N{NO-BREAK SPACE}open alarms, 1 acknowledged; the worst (critical) since 2023-11-14 22:12:20 UTC: "
        f"The acquisition has stopped (ctf {HOSTILE})"
    )


def test_the_report_has_a_section_of_alarms_that_overriding_and_leaving_out_know(paper, tmp_path):
    raise_alarms(paper, OPEN, WORST, ended=(OVER,))
    alarm_store_of(paper.session).acknowledge([1], by="anna", note="being <i>mended", now=T)
    with ReportWriter(paper.session) as writer:
        first = writer.write()
    html, told = first.page.read_text(encoding="utf-8"), json.loads(first.data.read_text(encoding="utf-8"))
    assert "<h2>Alarms <small>2 open</small></h2>" in html
    for words in (
        "The acquisition has stopped",
        "first <bdi>mic_0003</bdi>",
        "<bdi>anna</bdi>, 2023-11-14",
        "being &lt;i&gt;mended",
    ):
        assert words in html
    assert (
        html.index("The acquisition has stopped")
        < html.index("Defocus 1 is")
        < html.index("Defocus 3 is")
        < html.index("<h2>Steps")
    )
    assert [one["number"] for one in told["alarms"]["open"]] == [2, 1]
    assert told["alarms"]["over"][0]["exposures"] == 12
    facility = tmp_path / "facility"
    facility.mkdir()
    (facility / "report.yaml").write_text("leave_out: [alarms]\n", encoding="utf-8")
    with ReportWriter(paper.session, template_folder=facility) as writer:
        assert "The acquisition has stopped" not in writer.write().page.read_text(encoding="utf-8")


def test_a_report_is_made_again_when_an_alarm_changes_and_not_because_time_passes(paper):
    raise_alarms(paper, OPEN)
    with ReportWriter(paper.session) as writer:
        seen, digest = writer.seen(), writer.write().digest
        assert (writer.seen(), writer.write().digest) == (seen, digest)  # it has lasted longer meanwhile
        alarm_store_of(paper.session).acknowledge([1], by="anna", note="", now=T)
        assert writer.seen() != seen
        assert writer.write().digest != digest


def test_status_has_a_line_of_open_alarms(paper):
    folder = str(paper.session.folder)
    assert "alarm" not in CliRunner().invoke(app, ["status", folder]).output
    raise_alarms(paper, WORST)
    assert "1\N{NO-BREAK SPACE}open alarm; the worst (critical) since" in CliRunner().invoke(app, ["status", folder]).output
    told = json.loads(CliRunner().invoke(app, ["status", folder, "--json"]).output)
    assert [one["what"] for one in told["alarms"]["open"]] == ["The acquisition has stopped"]


def test_a_database_of_alarms_that_is_broken_costs_its_own_section_only(paper):
    alarm_store_of(paper.session).path.write_text("this is no database, " * 500, encoding="utf-8")
    seen = read_alarms(paper.session, now=T)
    assert seen.sentence is not None and "is no database of alarms" in seen.sentence
    with ReportWriter(paper.session) as writer:
        html = writer.write().page.read_text(encoding="utf-8")
    assert "is no database of alarms" in html and "<h2>Steps" in html
