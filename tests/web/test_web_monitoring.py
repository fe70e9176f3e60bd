"""Real monitoring servers follow sessions that `icestream serve` shows: every query of every dashboard has an answer on both."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_every_record import write_every_record
from test_observe_grafana import ALERTS, CASES, queries_of, shipped_dashboards

from icestream.flow.storage.session import DOCUMENT, dump_document, open_session
from services.monitoring import Follower, influxdb, prometheus, pushgateway, victoria_metrics
from toys.session import arrive, make_toy_session, start_runner, toy_steps

pytestmark = pytest.mark.services

ANSWERED_WITHIN_S = 120.0
GPU = "#!/bin/sh\necho '0, 35, 2048, 24576, 61'\n"
FIRST, ALL = 12, 24
PROMTOOL = "promtool"


@contextmanager
def served(folder: Path, tmp: Path) -> Iterator[str]:
    """Serve sessions as people do, on a machine that has a GPU, and give HOST:PORT."""
    smi = tmp / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(GPU, encoding="utf-8")
    smi.chmod(0o755)
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200", "ICESTREAM_STATE": str(tmp / "state")}
    environment["PATH"] = f"{smi.parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "icestream", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"http://(127\.0\.0\.1:\d+)/", server.stdout.readline())
            assert address is not None
            yield address.group(1)
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sessions with every type of record, and one that has not run yet."""
    folder = tmp_path_factory.mktemp("sessions")
    for paper in (write_every_record(folder / "every"), write_acquisition(folder / "acquisition", 24)):
        (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
        paper.notify("warning", "something to look at")
    make_toy_session(folder, toy_steps(ALL, sleep_s=0.2, fail_on=[3, 8]), numbers=range(FIRST))
    return folder


def filled_in(query: str) -> str:
    """Return a query as Grafana sends it."""
    for name, value in {"$session": ".*", "$__rate_interval": "10s", "${icestream}": "http://icestream"}.items():
        query = query.replace(name, value)
    return query


def wait_for_answers(followers: dict[str, Follower], queries: set[str]) -> dict[tuple[str, str], list]:
    """Ask until every query has an answer everywhere, and return the answers; fail with those that have none."""
    missing = {(name, query) for name in followers for query in queries}
    answers: dict[tuple[str, str], list] = {}
    deadline = time.monotonic() + ANSWERED_WITHIN_S
    while missing and time.monotonic() < deadline:
        for name, query in sorted(missing):
            found = followers[name].ask(filled_in(query))
            if found:
                answers[name, query] = found
                missing.discard((name, query))
        time.sleep(0.5)
    assert missing == set()
    return answers


def test_every_panel_has_data_on_prometheus_and_victoria_metrics_while_a_session_runs(folder, tmp_path):
    queries = {query for dashboard in shipped_dashboards().values() for query in queries_of(dashboard)}
    assert len(queries) > 50
    with served(folder, tmp_path) as address, prometheus(address, ALERTS) as first, victoria_metrics(address) as second:
        followers = {"prometheus": first, "victoria": second}
        runner = start_runner(open_session(folder / "session"))
        try:
            running = 'icestream_session_state{session="session", state="running"} == 1'
            half = f'icestream_step_outcomes_total{{session="session", step="numbers", outcome="item"}} >= {FIRST}'
            wait_for_answers(followers, {running, half})
            arrive(folder, range(FIRST, ALL))
            answers = wait_for_answers(followers, queries)
            done = f'icestream_step_outcomes_total{{session="session", step="numbers", outcome="item"}} == {ALL}'
            failed = 'icestream_step_failures_total{session="session", step="triple"} >= 2'
            grew = 'rate(icestream_step_outcomes_total{session="session", step="numbers"}[2m]) > 0'
            wait_for_answers(followers, {done, failed, grew, 'icestream_session_state{session="session", state="finished"} == 1'})
            assert runner.wait(60) == 0
        finally:
            runner.kill()
            runner.wait()
    pictures = next(found for (_, query), found in answers.items() if "icestream_picture_info" in query)
    assert all(one["metric"]["picture"].startswith("http://icestream/api/v1/sessions/") for one in pictures)


def test_promtool_finds_nothing_wrong_with_names_and_rules(folder, tmp_path):
    assert promtool("check", "metrics", given=icestream("metrics", str(folder / "every"))) == ""
    for path in (ALERTS, CASES):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("check", "config", str(ALERTS.with_name("prometheus.yml")))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / CASES.name))


def promtool(*words: str, given: str = "") -> str:
    done = subprocess.run([PROMTOOL, *words], input=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_prometheus_evaluates_our_rules(folder, tmp_path):
    with served(folder, tmp_path) as address, prometheus(address, ALERTS) as follower:
        wait_for_answers({"prometheus": follower}, {'ALERTS{alertname="IcestreamAcquisitionStalled", session="acquisition"}'})
        assert '"health":"err"' not in follower.get("/api/v1/rules")


def icestream(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "icestream", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_are_pushed_to_a_pushgateway_and_to_victoria_metrics(folder, tmp_path):
    session = str(folder / "every")
    with pushgateway() as gateway:
        for _ in range(2):  # what was there is replaced
            icestream("metrics", session, "--push", f"{gateway.address}/metrics/job/icestream/session/every")
        told = gateway.get("/metrics")
        assert re.search(r'^icestream_exposures_total\{.*session="every".*\} 8$', told, re.MULTILINE)
        assert "icestream_ctf_resolution_angstroms{" in told
    with victoria_metrics("127.0.0.1:1") as follower:
        icestream("metrics", session, "--push", f"{follower.address}/api/v1/import/prometheus")
        found = wait_for_answers({"victoria": follower}, {'icestream_exposures_total{session="every"}'})
        assert [one["value"][1] for answer in found.values() for one in answer] == ["8"]


def test_lines_of_influx_are_read_by_influxdb(folder):
    session = str(folder / "every")
    lines = icestream("metrics", session, "--influx").splitlines()
    with influxdb("icestream") as follower:
        icestream("metrics", session, "--influx", "--push", f"{follower.address}/write?db=icestream")
        (series,) = follower.select("icestream", "SELECT value, session FROM icestream_exposures_total")
        assert [row[1:] for row in series["values"]] == [[8, "every"]]
        (listed,) = follower.select("icestream", "SHOW MEASUREMENTS")
        assert {row[0] for row in listed["values"]} == {line.partition(",")[0] for line in lines}
        labels = 'SELECT last(value) FROM icestream_step_units WHERE "step" = \'ctf_a\' AND "state" = \'item\' GROUP BY "session"'
        (units,) = follower.select("icestream", labels)
        assert units["tags"] == {"session": "every"}
