"""The log of a session: a JSON line for each event, also of what steps log in their workers; it stays small and stops nothing."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icestream import logs
from icestream.flow import Field, Params, step
from icestream.flow.commands.requests import Pause, Resume
from icestream.flow.declaration.context import Exposure
from icestream.flow.execution.messages import WorkerLog
from icestream.flow.execution.worker_log import CarryingHandler
from icestream.flow.runner.answering import submit
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import Session
from icestream.logs import JsonLines, LogLevel, log_event, session_log
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session
from toys.steps import Number

HERE = Path(__file__).stem
LOG = logging.getLogger("a_plugin.step")


class TalkParams(Params):
    """How much is said."""

    times: int = Field(1, description="So often")


@step.map("talk", version=1, memory_gb=0.1)
def talk(number: Number, params: TalkParams) -> Number:
    """Say something, and return what came."""
    for _ in range(params.times):
        LOG.warning("it is %d", number.value)
    LOG.debug("not heard at info")
    return number


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")


def lines(session: Session) -> list[dict[str, Any]]:
    text = (session.folder / "logs" / logs.LOG_FILE).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def run(tmp_path: Path, steps: dict[str, Any], count: int, *, level: LogLevel = "info", **settings: Any) -> Session:
    numbered = {"n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}}, **steps}
    session = make_toy_session(tmp_path, numbered, numbers=range(count))
    run_session(session, Settings(cores=1, log_level=level, **settings))
    return session


def test_a_run_is_told_from_start_to_stop_and_no_item_at_info(tmp_path: Path) -> None:
    steps = {"d": {"use": f"{TOYS}:multiply", "in": {"number": "n"}}}
    found = lines(run(tmp_path, steps, 3))
    assert [line["event"] for line in found if line["event"].startswith("runner")] == ["runner started", "runner stopped"]
    assert (found[-1]["exposures"], found[-1]["failed"], found[-1]["level"]) == (3, 0, "info")
    assert [line for line in found if line.get("step") == "d"] == []
    assert all({"time", "level", "event", "logger"} <= line.keys() for line in found)


def test_at_debug_each_attempt_is_followed(tmp_path: Path) -> None:
    steps = {"d": {"use": f"{TOYS}:multiply", "in": {"number": "n"}}}
    found = [line for line in lines(run(tmp_path, steps, 2, level="debug")) if line.get("step") == "d"]
    by_exposure = {line["exposure"]: line["attempt"] for line in found if line["event"] == "dispatched"}
    assert sorted(by_exposure) == ["0", "1"]
    assert {line["exposure"]: line["attempt"] for line in found if line["event"] == "finished"} == by_exposure


def test_a_failure_names_the_attempt_whose_traceback_is_stored(tmp_path: Path) -> None:
    steps = {"d": {"use": f"{TOYS}:multiply", "in": {"number": "n"}, "params": {"fail_on": [1]}}}
    session = run(tmp_path, steps, 2)
    failed = [line for line in lines(session) if line["event"] == "failed"]
    assert {(line["step"], line["exposure"], line["level"]) for line in failed} == {("d", "1", "warning")}
    assert all(line["traceback_of"] == line["attempt"] and line["error"] for line in failed)


def test_commands_are_logged_with_their_answers(tmp_path: Path) -> None:
    session = run(tmp_path, {}, 1)
    for command in (Pause(reason="lunch"), Resume()):
        submit(session, command, author="eva", settings=Settings())
    told = [(line["command"], line["by"], line["state"]) for line in lines(session) if line["event"] == "command"]
    assert told == [("pause", "eva", "done"), ("resume", "eva", "done")]


def test_what_a_step_logs_is_carried_with_what_it_worked_on(tmp_path: Path) -> None:
    session = run(tmp_path, {"t": {"use": f"{HERE}:talk", "in": {"number": "n"}}}, 2)
    said = {line["exposure"]: line for line in lines(session) if line["event"] == "step log"}
    assert {name: (line["step"], line["level"], line["message"]) for name, line in said.items()} == {
        name: ("t", "warning", f"it is {name}") for name in ("0", "1")
    }
    assert said["0"]["logger"] == "icestream.worker.a_plugin.step"


def test_a_step_that_logs_in_a_loop_is_cut_short(tmp_path: Path) -> None:
    session = run(tmp_path, {"t": {"use": f"{HERE}:talk", "in": {"number": "n"}, "params": {"times": 250}}}, 1)
    said = [line["message"] for line in lines(session) if line["event"] == "step log"]
    assert said == ["it is 0"] * 100 + ["more records of this call are left out"]


def test_the_log_is_put_aside_when_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    with session_log(tmp_path, "info"):
        for number in range(500):
            log_event(logging.getLogger("icestream.test"), logging.INFO, "told", number=number)
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) == 1 + logs.N_OLD
    assert all(file.stat().st_size <= 2000 for file in files)
    assert json.loads((tmp_path / "logs" / logs.LOG_FILE).read_text().splitlines()[-1])["number"] == 499


def test_a_log_that_cannot_be_written_stops_nothing_and_makes_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with session_log(tmp_path / "gone", "info"):
        log_event(logging.getLogger("icestream.test"), logging.INFO, "told")
    assert not (tmp_path / "gone").exists()
    assert capsys.readouterr().err == ""


def test_a_long_text_is_cut_and_an_error_brings_its_traceback() -> None:
    try:
        raise ValueError("x" * 10_000)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("icestream.test", logging.ERROR, "", 0, "runner ended", None, info)
    line = json.loads(JsonLines().format(record))
    assert line["event"] == "runner ended"
    assert len(line["traceback"]) == 4000


def test_a_field_never_hides_what_every_line_has(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"time": "noon", "level": 7, "event": "party", "logger": "axe", "traceback": "mine", "size": 3}
    with session_log(tmp_path, "info"):
        log_event(logging.getLogger("icestream.test"), logging.WARNING, "told", **fields)
    (line,) = map(json.loads, (tmp_path / "logs" / logs.LOG_FILE).read_text().splitlines())
    assert (line["level"], line["event"], line["logger"], line["size"]) == ("warning", "told", "icestream.test", 3)
    assert line["time"] != "noon"
    assert {name: line[f"{name}_"] for name in ("time", "level", "event", "logger")} == {
        name: fields[name] for name in ("time", "level", "event", "logger")
    }
    assert line["traceback"] == "mine"


def test_a_field_of_a_step_never_hides_what_the_line_is_about() -> None:
    said: list[WorkerLog] = []
    handler = CarryingHandler(said.append)
    call: Any = SimpleNamespace(step="ctf", exposure=Exposure("id", "mic_1", 1), attempt="a1")
    record = logging.makeLogRecord({"name": "a_plugin", "msg": "hot", "fields": {"step": "17 of 20", "temperature": 90}})
    with handler.during(call):
        handler.emit(record)
    about = {"step": "ctf", "exposure": "mic_1", "unit": "id", "attempt": "a1"}
    assert said[0].fields == about | {"step_": "17 of 20", "temperature": "90"}
