"""The commands `metrics` and `grafana`: what they print, write, send and refuse."""

import json
import threading
import time
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from icestream.cli import app
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.observe.grafana.writing_out import shipped_files


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Path:
    paper = write_acquisition(tmp_path_factory.mktemp("sessions") / "lysozyme", 8)
    paper.store.close("enough")
    (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    return paper.session.folder


def say(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["metrics", *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else " ".join(result.output.split())


class Receiver(ThreadingHTTPServer):
    """A server that keeps what it is sent, and answers what a test wants."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, dict, str]] = []
        self.answers = [204]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.got.append((self.path, dict(self.headers.items()), body))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(answer)
        if answer == 302:
            self.send_header("location", f"{self.server.address}/elsewhere")
        self.end_headers()
        if answer >= 400:
            self.wfile.write(b"no such database")

    do_GET = do_POST  # noqa: N815 - a redirect that is followed would come as this

    def log_message(self, *_) -> None:
        """Say nothing."""


@pytest.fixture
def receiver():
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def names_in(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_metrics_are_printed_or_put_into_a_file_whole(session, tmp_path):
    printed = say(str(session))
    assert 'icestream_exposures_total{session="lysozyme"} 8.0' in printed
    target = tmp_path / "collector" / "icestream.prom"
    say(str(session), "--to", str(target))
    assert names_in(target.read_text(encoding="utf-8")) == names_in(printed)
    assert [path.name for path in target.parent.iterdir()] == ["icestream.prom"]


def test_metrics_are_printed_as_lines_of_influx(session):
    lines = say(str(session), "--influx").splitlines()
    assert any(line.startswith("icestream_exposures_total,session=lysozyme value=8.0 ") for line in lines)
    assert len({line.rsplit(" ", 1)[1] for line in lines}) == 1


def test_metrics_are_sent_with_the_authorization_of_a_file(session, receiver, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(f"Basic {b64encode(b'me:secret').decode()}\n", encoding="ascii")
    say(str(session), "--push", f"{receiver.address}/metrics/job/icestream", "--authorization", str(secret))
    ((path, headers, body),) = receiver.got
    assert (path, headers["Authorization"]) == ("/metrics/job/icestream", "Basic bWU6c2VjcmV0")
    assert "icestream_step_units" in names_in(body)


def test_what_a_server_does_not_take_is_said(session, receiver):
    receiver.answers = [404]
    assert "answers 404 Not Found: no such database" in say(str(session), "--push", receiver.address, code=1)
    receiver.answers = [302]
    assert "answers 302" in say(str(session), "--push", receiver.address, code=1)
    assert len(receiver.got) == 2  # a redirect is not followed: the authorization is for one server alone
    receiver.server_close()
    assert "cannot be reached" in say(str(session), "--push", receiver.address, code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--push", "ftp://a/b"), "must begin with http:// or https://"),
        (("--push", "http://"), "must begin with http:// or https://"),
        (("--push", "http://[a/"), "is no address"),
        (("--push", "http://me:secret@a/b"), "http://a/b: has a password in it"),
        (("--push", "http://a/", "--to", "x.prom"), "give either --to or --push"),
        (("--authorization", "nothing"), "--authorization needs --push"),
        (("--push", "http://a/", "--authorization", "/nothing/here"), "cannot be read"),
    ],
)
def test_mistakes_are_said_before_anything_is_sent(session, words, said):
    told = say(str(session), *words, code=1)
    assert said in told
    assert "secret" not in told


def test_a_folder_that_is_no_session_is_said_once_also_where_it_would_be_repeated(tmp_path):
    assert "session.yaml" in say(str(tmp_path), "--every", "5", code=1)


def test_an_authorization_of_several_lines_is_refused(session, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("Bearer a\nX-Other: b\n", encoding="ascii")
    assert "must be one line" in say(str(session), "--push", "http://a/", "--authorization", str(secret), code=1)


def test_repeating_says_a_trouble_once_and_goes_on(session, receiver, monkeypatch):
    receiver.answers = [500, 500, 204, 500, 204]
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    told = say(str(session), "--push", receiver.address, "--every", "7", code=130)
    assert (told.count("answers 500"), len(receiver.got), waited) == (2, 5, [7] * 5)


def test_dashboards_are_written_out_and_what_a_facility_changed_stays(tmp_path):
    def write() -> str:
        result = CliRunner().invoke(app, ["grafana", str(tmp_path / "monitoring")])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert write().count("written: ") == len(list(shipped_files()))
    rules, dashboard = (tmp_path / "monitoring" / name for name in ("prometheus/alerts.yml", "dashboards/summary.json"))
    assert json.loads(dashboard.read_text(encoding="utf-8"))["uid"] == "icestream-summary"
    shipped = rules.read_text(encoding="utf-8")
    rules.write_text("groups: []\n", encoding="utf-8")
    assert "left as you changed it" in write()
    assert rules.read_text(encoding="utf-8") == "groups: []\n"
    beside = rules.with_name("alerts.yml.new")
    assert beside.read_text(encoding="utf-8") == shipped
    rules.write_text(shipped, encoding="utf-8")
    assert "left as" not in write()
    assert not beside.exists()
