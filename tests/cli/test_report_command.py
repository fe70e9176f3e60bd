"""``icestream report`` from the command line: checking templates, publishing, and what it says when something is wrong."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.flow.runner.supervisor import run_session
from icestream.settings import Settings
from toys.session import make_toy_session, toy_steps


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_toy_session(tmp_path_factory.mktemp("reported"), toy_steps(4), numbers=range(4))
    run_session(made, Settings(cores=2))
    return made.folder


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    monkeypatch.setenv("ICESTREAM_REPORT_TEMPLATES", str(folder))
    return folder


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def publish_with(folder: Path, *command: str) -> None:
    (folder / "report.yaml").write_text(f"publish: {{command: {json.dumps(command)}}}\n")


def test_a_mistake_is_told_and_the_report_is_written(session: Path, templates: Path, tmp_path: Path) -> None:
    (templates / "steps.html").write_text("\n{{ nothing }}\n")
    told = call("report", session, "--to", tmp_path / "out.html")
    assert told.exit_code == 0
    assert f"{templates / 'steps.html'}:2: 'nothing' is undefined; the one below it is used" in told.stderr
    assert "<h2>Steps</h2>" in (tmp_path / "out.html").read_text()
    assert json.loads((tmp_path / "out.json").read_text())["problems"][0]["line"] == 2


def test_check_writes_nothing_and_says_by_its_status_whether_all_is_well(session: Path, templates: Path, tmp_path: Path) -> None:
    before = sorted(session.rglob("report*"))
    assert "nothing is wrong" in call("report", session, "--check").stdout
    (templates / "report.yaml").write_text("plots:\n- {step: double, field: value, kind: pie}\n")
    told = call("report", session, "--check")
    assert told.exit_code == 1
    assert f"{templates / 'report.yaml'}:2: plots[1].kind: input should be 'series', 'histogram' or 'both'" in told.stderr
    assert sorted(session.rglob("report*")) == before
    other = tmp_path / "other"
    other.mkdir()
    assert call("report", session, "--check", "--templates", other).exit_code == 0
    gone = call("report", session, "--check", "--templates", tmp_path / "gone")
    assert (gone.exit_code, "is no folder" in gone.output) == (1, True)


def test_a_dry_run_shows_the_command_and_runs_nothing(session: Path, templates: Path, tmp_path: Path) -> None:
    assert "no command that publishes the report is said" in call("report", session, "--publish", "--dry-run").output
    mark = tmp_path / "ran"
    publish_with(templates, "touch", str(mark), "{folder}")
    told = call("report", session, "--publish", "--dry-run")
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, f"would publish with: touch {mark} {session / 'report'}")
    publish_with(templates, "no-such-program-7", "{folder}")
    told = call("report", session, "--publish", "--dry-run")
    assert (told.exit_code, "no-such-program-7: there is no such program" in told.stderr) == (1, True)
    assert not mark.exists()


def test_publishing_says_what_failed_and_status_keeps_saying_it(session: Path, templates: Path, tmp_path: Path) -> None:
    publish_with(templates, sys.executable, "-c", "raise SystemExit('the web server is full')")
    told = call("report", session, "--publish")
    assert told.exit_code == 1
    assert "the web server is full" in told.output
    assert "the report could not be published (once)" in call("status", session).stdout
    assert json.loads(call("status", session, "--json").stdout)["report"]["failures"] == 1
    publish_with(templates, "cp", "-r", "{folder}", str(tmp_path / "{session}"))
    assert "published" in call("report", session, "--publish").stdout
    assert (tmp_path / "toys" / "index.html").is_file() or next(tmp_path.glob("*/index.html"), None) is not None
    assert "could not be published" not in call("status", session).stdout


def test_watching_a_session_that_has_ended_publishes_it_once(session: Path, templates: Path, tmp_path: Path) -> None:
    (session / "logs" / "report-published.json").unlink(missing_ok=True)  # what another test has published
    target = tmp_path / "ran"
    code = f"open({str(target)!r}, 'a').write('x')"
    publish_with(templates, sys.executable, "-c", code)
    assert call("report", session, "--watch", "--every", "1", "--to", tmp_path / "out").exit_code == 0
    assert target.read_text() == "x"
    assert call("report", session, "--watch", "--no-publish", "--to", tmp_path / "out").exit_code == 0
    assert target.read_text() == "x"
