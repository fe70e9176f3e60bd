"""Why nothing happens: every cause has its sentence."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from paper_session import PaperSession, new_session
from sqlalchemy import update

from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.observe.queries import open_view
from icestream.observe.why import why_exposure, why_session, why_step
from icestream.records import Record

KINDS = {
    "movies": ("source", {}),
    "align": ("map", {"movie": ["movies"]}),
    "ctf": ("map", {"micrograph": ["align"]}),
    "good": ("filter", {"ctf": ["ctf"]}),
    "enough": ("gate", {"items": ["good"]}),
    "both": ("map", {"ctf": ["ctf"], "good": ["good"]}),
    "classes": ("accumulate", {"picks": ["enough"]}),
    "last": ("map", {"picks": ["good"], "classes": ["classes"]}),
}


class Thing(Record):
    """Anything."""

    value: int = 1


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    """Five exposures: the first is through, then each is one step further behind."""
    steps = {name: {"use": name, "in": {port: links[0] for port, links in ports.items()}} for name, (_, ports) in KINDS.items()}
    written = PaperSession(new_session(tmp_path, steps))
    for name, (kind, links) in KINDS.items():
        written.revise(name, kind, links=links)
        written.stream(name, "open", "new data")
    for ordinal, done in enumerate((4, 3, 2, 1, 1), 1):
        unit = written.expose(f"mic_{ordinal}", ordinal)
        for step in list(KINDS)[:done]:
            written.make(step, unit, Thing(value=ordinal))
    board(written, movies="5 files so far; gain.mrc is still written", enough="1 of 3", classes="0 of 7")
    return written


def board(paper: PaperSession, **notes: str) -> None:
    for step, note in notes.items():
        paper.add(schema.board, step=step, waiting=0, running=0, note=note, at=paper.now)


def unit_of(paper: PaperSession, name: str) -> str:
    with open_view(paper.session) as view:
        return view.trace(name).unit


def lease(paper: PaperSession, step: str, unit: str) -> None:
    values = {"attempt": step + unit, "fence": 1, "worker": "worker 2", "started_at": time.time() - 90}
    paper.add(schema.lease, revision=paper.revisions[step], unit=unit, **values)


def runner(paper: PaperSession, **values: Any) -> None:
    engine = engine_for(paper.session.store_path)  # a transaction of the store would renew the heartbeat
    with engine.begin() as connection:
        connection.execute(update(schema.runner).values(**values))
    engine.dispose()


def of_step(paper: PaperSession, step: str) -> list[str]:
    with open_view(paper.session) as view:
        return [f"{one.step}: {one.sentence}" for one in why_step(view, step)]


def of_exposure(paper: PaperSession, name: str) -> dict[str | None, str]:
    with open_view(paper.session) as view:
        return {one.step: one.sentence for one in why_exposure(view, name)}


def whole(paper: PaperSession) -> list[str]:
    with open_view(paper.session) as view:
        return [one.sentence for one in why_session(view) if one.step is None]


def test_a_session_that_was_never_run(tmp_path: Path) -> None:
    with open_view(new_session(tmp_path, {"movies": {"use": "movies"}})) as view:
        said = why_session(view)
    assert [one.sentence for one in said] == [
        "it has not been run yet: start it with `icestream run`",
        "no runner has seen this step yet",
    ]


def test_a_live_runner_needs_no_word(paper: PaperSession) -> None:
    assert whole(paper) == []


def test_who_paused_it_and_why(paper: PaperSession) -> None:
    runner(paper, hold=json.dumps({"kind": "person", "reason": "lunch", "author": "eva", "since": 0.0}))
    assert whole(paper) == ["paused by eva: lunch"]
    assert of_exposure(paper, "mic_5")[None] == "has a result of movies"
    trouble = {"kind": "surroundings", "reason": "/data: only 0.10 GB free", "author": None, "since": 0.0}
    runner(paper, hold=json.dumps(trouble))
    assert whole(paper) == ["paused by itself: /data: only 0.10 GB free; resumes as soon as that is fixed"]


def test_no_runner_or_one_elsewhere(paper: PaperSession) -> None:
    runner(paper, state="stopped", note="stopped by eva")
    assert whole(paper) == ["no runner is running (stopped by eva): continue with `icestream run`"]
    runner(paper, state="running", host="node7", heartbeat_at=time.time())
    assert whole(paper) == [f"it is being processed on node7, not here, by process {psutil.Process().pid}"]
    runner(paper, host="node7", heartbeat_at=time.time() - 3600)
    (sentence,) = whole(paper)
    assert sentence.startswith(f"its runner on node7 (process {psutil.Process().pid}) has died; its last sign of life was")
    assert socket.gethostname() not in sentence


def test_a_runner_that_gives_no_sign_of_life_is_named(paper: PaperSession) -> None:
    runner(paper, state="running", heartbeat_at=time.time() - 120)
    (sentence,) = whole(paper)
    assert f"(process {psutil.Process().pid}) has given no sign of life for 2" in sentence
    assert sentence.endswith("its disk or machine may be stuck")
    runner(paper, heartbeat_at=time.time())
    assert whole(paper) == []


def test_a_suspended_runner_is_named_with_the_remedy(paper: PaperSession) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            started = psutil.Process(process.pid).create_time()
            runner(paper, state="running", pid=process.pid, pid_started=started, heartbeat_at=time.time() - 120)
            (sentence,) = whole(paper)
            assert sentence.endswith(f"it is suspended; `kill -CONT {process.pid}` resumes it")
        finally:
            process.kill()


def test_what_a_dead_runner_computed_is_not_at_work(paper: PaperSession) -> None:
    lease(paper, "align", unit_of(paper, "mic_4"))
    assert "on mic_4 in worker 2" in of_step(paper, "align")[0]
    runner(paper, host="node7", heartbeat_at=time.time() - 3600)
    assert "working" not in " ".join(of_step(paper, "align"))
    assert "working" not in str(of_exposure(paper, "mic_4"))


def test_a_source_says_what_it_looks_for(paper: PaperSession) -> None:
    assert of_step(paper, "movies") == ["movies: is waiting for new files: 5 files so far; gain.mrc is still written"]


def test_a_queue_tells_who_holds_the_cores(paper: PaperSession) -> None:
    assert of_step(paper, "align")[0] == "align: 2 are queued"
    lease(paper, "ctf", "u1")
    lease(paper, "ctf", "u2")
    assert of_step(paper, "align")[0] == "align: 2 are queued for free cores, which are held by ctf (2)"
    assert of_step(paper, "ctf")[0].startswith("ctf: has been working for 1")
    assert "on u1 in worker 2 and 1 more" in of_step(paper, "ctf")[0]


def test_a_step_names_what_it_waits_for_to_the_root(paper: PaperSession) -> None:
    said = of_step(paper, "classes")
    assert [line.partition(":")[0] for line in said] == ["classes", "enough", "good", "ctf", "align", "movies"]
    assert said[0] == "classes: 5 are waiting for enough"
    assert said[1] == "enough: is holding 1: 1 of 3; 4 are waiting for good"
    assert said[3] == "ctf: 1 is queued; 2 are waiting for align"


def test_a_step_waits_for_the_first_version(paper: PaperSession) -> None:
    assert of_step(paper, "last")[0] == "last: is waiting for the first version of classes; 4 are waiting for good"
    paper.publish("classes", 1, Thing())
    assert of_step(paper, "last")[0] == "last: 1 is queued; 4 are waiting for good"


def test_a_step_that_was_closed_by_hand(paper: PaperSession) -> None:
    why = {"cause": "person", "by": "eva", "reason": "the grid is finished"}
    paper.add(schema.drain, seq=paper.store.next_seq(), step="ctf", state="drained", at=paper.now, **why)
    assert of_step(paper, "ctf")[0] == "ctf: takes nothing new: closed by hand, by eva: the grid is finished"
    assert of_exposure(paper, "mic_3")["ctf"] == "takes nothing new: closed by hand, by eva: the grid is finished"
    paper.add(schema.drain, seq=paper.store.next_seq(), step="ctf", state="resumed", by="", reason="", at=paper.now)
    assert of_step(paper, "ctf")[0] == "ctf: 1 is queued; 2 are waiting for align"


def test_a_finished_step(paper: PaperSession) -> None:
    for ordinal, name in enumerate(("mic_4", "mic_5")):
        with open_view(paper.session) as view:
            unit = view.trace(name).unit
        if ordinal:
            paper.fail("align", unit, "broken")
        else:
            paper.make("align", unit, Thing(value=9))
    paper.stream("align", "closed", "its inputs closed and everything was decided")
    assert of_step(paper, "align") == ["align: has finished (its inputs closed and everything was decided); 4 done, 1 failed"]


def test_an_exposure_and_each_of_its_steps(paper: PaperSession) -> None:
    said = of_exposure(paper, "mic_1")
    assert said["enough"] == "is holding it: 1 of 3"
    assert said["both"] == "is queued and is next"
    assert said["classes"] == "is waiting for enough"
    assert said["last"] == "is waiting for the first version of classes"
    said = of_exposure(paper, "mic_4")
    assert (said["align"], said["ctf"], said["both"]) == (
        "is queued and is next",
        "is waiting for align",
        "is waiting for ctf and good",
    )
    assert of_exposure(paper, "mic_5")["align"] == "is queued behind 1 other"


def test_an_exposure_at_work_and_one_that_is_tried_again(paper: PaperSession) -> None:
    with open_view(paper.session) as view:
        at_work, failed = (view.trace(name).unit for name in ("mic_4", "mic_5"))
    lease(paper, "align", at_work)
    assert of_exposure(paper, "mic_4")["align"].startswith("has been working on it for 1")
    values = {"error_type": "OSError", "traceback": "", "cleared": False, "at": paper.now, "message": "no space"}
    for attempt in range(2):
        paper.add(
            schema.failure,
            seq=paper.store.next_seq(),
            revision=paper.revisions["align"],
            unit=failed,
            attempt=str(attempt),
            kind="transient",
            **values,
        )
    assert of_exposure(paper, "mic_5")["align"] == "failed 2 times (no space) and is retried after 4 s"


def test_how_an_exposure_ended(paper: PaperSession) -> None:
    with open_view(paper.session) as view:
        unit = view.trace("mic_5").unit
    paper.fail("align", unit, "frame 7 is broken")
    for step in ("ctf", "good", "enough", "both", "classes", "last"):
        paper.settle(step, unit, "skipped", weight=0, root="align", reason="frame 7 is broken")
    said = of_exposure(paper, "mic_5")
    assert said[None] == "has been decided by every step, with a result of movies"
    assert said["align"] == "failed: frame 7 is broken"
    assert said["last"] == "skipped because of align: frame 7 is broken"


def test_a_gate_that_let_nobody_pass_says_how_many_it_left_out(paper: PaperSession) -> None:
    for name in ("mic_1", "mic_2"):
        with open_view(paper.session) as view:
            unit = view.trace(name).unit
        paper.settle("enough", unit, "absent", weight=0, reason="the gate did not open")
    paper.settle("enough", unit_of(paper, "mic_3"), "skipped", weight=0, reason="broken")
    paper.settle("enough", unit_of(paper, "mic_4"), "rejected", weight=0, reason="ice")
    paper.settle("enough", unit_of(paper, "mic_5"), "absent", weight=0, reason="the gate did not open")
    paper.stream("enough", "closed", "the gate did not open")
    assert of_step(paper, "enough") == [
        "enough: has finished (the gate did not open); 1 set aside, 1 skipped, 3 left out when it closed"
    ]


def test_a_session_whose_streams_have_all_closed_is_finished(paper: PaperSession) -> None:
    runner(paper, state="stopped", note="every stream has closed")
    for step in KINDS:
        assert whole(paper) == ["no runner is running (every stream has closed): continue with `icestream run`"]
        paper.stream(step, "closed", "its inputs closed")
    assert whole(paper) == ["it is finished: every stream has closed; `icestream run` takes what arrives later"]
    with open_view(paper.session) as view:
        assert view.overview().runner.state == "finished"
