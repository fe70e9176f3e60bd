"""Publishing the report: a list of arguments, when something has changed, tried again after a failure, told until it succeeds."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paper_session import HOSTILE, PaperSession, new_session

from icestream.errors import SessionError
from icestream.facility.runners import last_log_line, launch_runner
from icestream.logs import LOG_FILE, log_event, session_log
from icestream.observe.report import ReportKeeper, check_command, read_publication, write_pdf, write_report
from icestream.observe.report.customising import Publishing
from icestream.observe.report.publishing import FIRST_PAUSE_S, LONGEST_PAUSE_S, Publication, Publisher, publish_command


@pytest.fixture
def paper(tmp_path) -> PaperSession:
    written = PaperSession(new_session(tmp_path / "s", {"movies": {"use": "import_movies"}}, name="Grid 3; rm -rf $HOME"))
    written.revise("movies", "source")
    written.expose("m1", 1)
    return written


def say(folder: Path, *command: str, **more: float) -> Path:
    """Write a facility's file with a command, and return its folder."""
    folder.mkdir(exist_ok=True)
    words = ", ".join(f"'{word}'" for word in command)
    settings = "".join(f", {name}: {value}" for name, value in more.items())
    (folder / "report.yaml").write_text(f"publish: {{command: [{words}]{settings}}}\n", encoding="utf-8")
    return folder


def copier(folder: Path, target: Path, *, status: int = 0) -> list[str]:
    """Return a command that notes its arguments in ``target``, prints a line and ends with ``status``."""
    script = folder / "copy.py"
    script.write_text(
        "import sys, json, pathlib\n"
        f"with open({str(target)!r}, 'a') as out: out.write(json.dumps(sys.argv[1:]) + chr(10))\n"
        f"print('host is down'); sys.exit({status})\n"
    )
    return [sys.executable, str(script)]


def test_the_command_gets_folder_and_session_and_no_shell(paper, tmp_path):
    asked = Publishing(command=("copy", "{folder}/", "host:/srv/{session}/", "{folder.__class__}", "$HOME", "{session}{folder}"))
    folder = paper.session.folder / "report"
    assert publish_command(asked, paper.session, folder) == [
        "copy",
        f"{folder}/",
        "host:/srv/Grid_3_rm_-rf_HOME/",
        "{folder.__class__}",
        "$HOME",
        f"Grid_3_rm_-rf_HOME{folder}",
    ]
    named = {}
    for index, name in enumerate(("--delete", "../../etc", HOSTILE, "…", "{folder}")):
        session = new_session(tmp_path / str(index), {"movies": {"use": "import_movies"}}, name=name)
        named[name] = publish_command(Publishing(command=("{session}",)), session, folder)[0]
    assert list(named.values()) == ["delete", "etc", "script_alert_x_script_amp", "session", "folder"]


def test_it_is_published_when_it_has_changed_and_not_again(paper, tmp_path):
    target = tmp_path / "copied"
    templates = say(tmp_path / "ours", *copier(tmp_path, target), "{folder}", at_least_every_s=0)
    keeper = ReportKeeper(paper.session, None, template_folder=templates, publish=True)
    assert keeper.turn(refresh_s=5) is not None
    keeper.publisher.wait()
    assert keeper.turn(refresh_s=5) is None  # nothing has changed, so nothing is written and nothing run
    assert not keeper.publisher.busy
    assert target.read_text() == f'["{paper.session.folder / "report"}"]\n'
    paper.expose("m2", 2)
    assert keeper.turn(refresh_s=5) is not None
    keeper.publisher.wait()
    keeper.close()
    assert len(target.read_text().splitlines()) == 2
    assert read_publication(paper.session).trouble is None
    again = ReportKeeper(paper.session, None, template_folder=templates, publish=True)  # another process, later
    again.turn(refresh_s=5)
    again.close()
    assert len(target.read_text().splitlines()) == 2


def test_what_was_written_last_is_published_though_it_changed_at_once(paper, tmp_path):
    target = tmp_path / "copied"
    templates = say(tmp_path / "ours", *copier(tmp_path, target), at_least_every_s=3600)
    keeper = ReportKeeper(paper.session, None, template_folder=templates, publish=True)
    keeper.turn(refresh_s=5)
    keeper.publisher.wait()
    paper.expose("m2", 2)
    keeper.turn(refresh_s=5)
    assert len(target.read_text().splitlines()) == 1  # an hour has not passed
    keeper.close()
    assert len(target.read_text().splitlines()) == 2


def test_a_failure_is_told_and_tried_again_after_pauses_that_double(paper, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("icestream.observe.report.publishing.time.time", lambda: now[0])
    target = tmp_path / "copied"
    templates = say(tmp_path / "ours", *copier(tmp_path, target, status=23), at_least_every_s=0)
    keeper = ReportKeeper(paper.session, None, template_folder=templates, publish=True)
    pauses = []
    for _ in range(3):
        keeper.turn(refresh_s=5)
        keeper.publisher.wait()
        pauses.append(keeper.publisher.state.next_try_at - now[0])
        keeper.turn(refresh_s=5)
        assert not keeper.publisher.busy  # not before the pause is over
        now[0] = keeper.publisher.state.next_try_at
    assert pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert len(target.read_text().splitlines()) == 3
    told = read_publication(paper.session).trouble
    assert "(3 times in a row)" in told
    assert "exited with status 23: host is down" in told
    page = (paper.session.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "the report could not be published (3 times in a row)" in page
    say(tmp_path / "ours", *copier(tmp_path, target), at_least_every_s=0)
    keeper.turn(refresh_s=5)
    keeper.close()
    assert read_publication(paper.session).trouble is None
    assert Publisher(paper.session).state.failures == 0


def test_pauses_end_growing():
    assert Publication(failures=40).trouble
    assert min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**40) == LONGEST_PAUSE_S


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(paper, tmp_path):
    child = tmp_path / "child"
    program = (
        f"import subprocess, sys; p = subprocess.Popen(['sleep', '60']); open({str(child)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    asked = Publishing(command=(sys.executable, "-c", program), timeout_s=2.0)
    publisher = Publisher(paper.session)
    publisher.start(asked, tmp_path, "digest")
    publisher.wait()
    assert "was ended after 2 s" in publisher.state.message
    pid = int(child.read_text())
    status = Path(f"/proc/{pid}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_two_never_publish_at_once(paper, tmp_path):
    asked = Publishing(command=(sys.executable, "-c", "input()"))
    first, second = Publisher(paper.session), Publisher(paper.session)
    first.start(Publishing(command=(sys.executable, "-c", "import time; time.sleep(60)"), timeout_s=1), tmp_path, "a")
    second.start(asked, tmp_path, "b")
    assert (first.busy, second.busy) == (True, False)
    first.wait()
    assert first.state.failures == 1


def test_a_program_that_is_not_there_is_told_without_running_anything(paper, tmp_path):
    assert check_command(["no-such-program-7", "x"]) == ["no-such-program-7: there is no such program, or it cannot be executed"]
    assert check_command([sys.executable]) == []
    publisher = Publisher(paper.session)
    publisher.start(Publishing(command=("no-such-program-7",)), tmp_path, "a")
    assert "no-such-program-7: cannot be run" in publisher.state.trouble


@pytest.mark.parametrize("name", ["report-published.lock", "report-published.json", ".report-published.part~0.json"])
def test_a_link_that_came_with_a_session_is_not_followed(paper, tmp_path, name):
    (tmp_path / "keys").write_text("mine")
    logs = paper.session.folder / "logs"
    logs.mkdir(exist_ok=True)
    (logs / name).symlink_to(tmp_path / "keys")
    publisher = Publisher(paper.session)
    asked = Publishing(command=(sys.executable, "-c", ""))
    if name.endswith("lock"):
        with pytest.raises(SessionError, match=r"report-published\.lock: is a link"):
            publisher.start(asked, tmp_path, "a")
    else:
        publisher.start(asked, tmp_path, "a")
        publisher.wait()
        assert publisher.state.digest == "a"
    assert (tmp_path / "keys").read_text() == "mine"


def test_nothing_is_written_where_a_folder_of_the_session_leads_out(paper, tmp_path):
    (tmp_path / "home").mkdir()
    for name in ("logs", "report"):
        shutil.rmtree(paper.session.folder / name, ignore_errors=True)
        (paper.session.folder / name).symlink_to(tmp_path / "home")
    with pytest.raises(SessionError, match="logs: is a link that leads out of the session"):
        Publisher(paper.session).start(Publishing(command=(sys.executable,)), tmp_path, "a")
    with pytest.raises(SessionError, match="report: is a link that leads out of the session"):
        write_report(paper.session)
    with pytest.raises(SessionError, match="logs: is a link that leads out of the session"):
        launch_runner(paper.session.folder, ["--help"])
    assert list((tmp_path / "home").iterdir()) == []


def test_what_the_runner_says_follows_no_link(paper, tmp_path):
    (tmp_path / "keys").write_text("mine")
    logs = paper.session.folder / "logs"
    logs.mkdir(exist_ok=True)
    (logs / "runner.log").symlink_to(tmp_path / "keys")
    (logs / LOG_FILE).symlink_to(tmp_path / "keys")
    with pytest.raises(SessionError, match=r"runner\.log: is a link"):
        launch_runner(paper.session.folder, ["--help"])
    with session_log(paper.session.folder, "info"):
        log_event(logging.getLogger("icestream.test"), logging.INFO, "began")
    assert ((tmp_path / "keys").read_text(), last_log_line(paper.session.folder)) == ("mine", "its log is empty")
    (logs / LOG_FILE).unlink()
    with session_log(paper.session.folder, "info"):
        log_event(logging.getLogger("icestream.test"), logging.INFO, "began")
    assert '"began"' in (logs / LOG_FILE).read_text()


@pytest.mark.parametrize(
    "said", ['"next_try_at": 1e300', '"published_at": 1e300', '"next_try_at": Infinity', '"failures": 100000', '"failures": -1']
)
def test_a_state_that_came_with_a_session_does_not_stop_publishing(paper, tmp_path, monkeypatch, said):
    now = [1000.0]
    monkeypatch.setattr("icestream.observe.report.publishing.time.time", lambda: now[0])
    (paper.session.folder / "logs").mkdir(exist_ok=True)
    (paper.session.folder / "logs" / "report-published.json").write_text(f"{{{said}}}")
    publisher = Publisher(paper.session)
    now[0] += LONGEST_PAUSE_S + 1
    publisher.offer(Publishing(command=(sys.executable, "-c", "raise SystemExit(1)"), at_least_every_s=60), tmp_path, "a")
    publisher.wait()
    assert publisher.state.failed_at == now[0]
    assert now[0] < publisher.state.next_try_at <= now[0] + LONGEST_PAUSE_S


def test_a_pdf_needs_a_browser_and_says_which(paper, tmp_path, monkeypatch):
    page = write_report(paper.session, tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SessionError, match="no browser that could print the PDF was found"):
        write_pdf(page, tmp_path / "report.pdf")
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\ncase "$1" in --version) echo "Chromium 150.0.1";; *) echo "no display" >&2; exit 3;; esac\n')
    fake.chmod(0o755)
    programs = tmp_path / "programs.yaml"
    programs.write_text(f"chromium: {{path: {fake}}}\n")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(SessionError, match=r"made no PDF \(status 3\): no display"):
        write_pdf(page, tmp_path / "report.pdf", programs=programs)
    assert not (tmp_path / "report.pdf").exists()


@pytest.mark.services
def test_chromium_prints_the_report(paper, tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("chromium is missing (Debian: chromium)")
    page = write_report(paper.session, tmp_path / "out")
    target = write_pdf(page, tmp_path / "report.pdf")
    assert target.read_bytes().startswith(b"%PDF-")
    assert target.stat().st_size > 5_000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "report.bib", "report.json"]


@pytest.mark.services
def test_a_script_that_a_template_writes_does_not_run(paper, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is missing (Debian: chromium)")
    templates = tmp_path / "ours"
    templates.mkdir()
    owned = "document.body.dataset.owned = 'yes'"
    (templates / "people.html").write_text(f'<script>{owned}</script><img src="x" onerror="{owned}"><p id="there">hello</p>')
    (templates / "script.js").write_text("document.body.dataset.ours = 'yes'")
    page = write_report(paper.session, tmp_path / "out", template_folder=templates)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([chromium, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert '<p id="there">hello</p>' in done.stdout
    assert ('data-ours="yes"' in done.stdout, 'data-owned="yes"' in done.stdout) == (True, False)
