"""What sources say beside what arrives: files that were broken and are written again, and what they cannot take."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icestream.errors import SessionError
from icestream.flow import Arrival, Params, Pulse, SeenFile, SourceContext, Troubles, Watch, step
from icestream.flow.commands.requests import Override
from icestream.flow.declaration.registry import find_step
from icestream.flow.execution.messages import SourceFailed, WatchOrder
from icestream.flow.execution.pool import Pool
from icestream.flow.storage import schema
from icestream.flow.storage.relinking import relink_root
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.observe.queries import open_view
from icestream.observe.why import why_session
from toys.session import TOYS, outcomes_of, read_rows
from toys.steps import Number, Total
from virtual.machine import VirtualMachine
from virtual.pool import Misfortunes

HERE = __name__


def _say(ctx: SourceContext, make: Any) -> Iterator[Any]:
    for line in json.loads(ctx.path("script:script.json").read_text()):
        if "raise" in line:
            raise RuntimeError(line["raise"])
        if "troubles" in line:
            yield Troubles(line["troubles"])
        elif "note" in line:
            yield Pulse(line["note"])
        else:
            name, content, error = line["file"], line.get("content", ""), line.get("error")
            file = SeenFile(f"script:{name}", len(content), line.get("at", 0))
            yield Arrival(f"{name}|{content}", name, None if error else make(int(content)), file, None, error)


@step.source("scripted", version=1, output=Number)
def say_numbers(params: Params, ctx: SourceContext) -> Watch:
    """Say what a script says."""
    yield from _say(ctx, lambda value: Number(value=value))
    return "the script is over"


@step.source("scripted_total", version=1, output=Total)
def say_totals(params: Params, ctx: SourceContext) -> Watch:
    """Say what a script says, of versions of a whole."""
    yield from _say(ctx, lambda value: Total(value=value, count=1, file="script:total"))
    return "the script is over"


def make_session(folder: Path, use: str = "say_numbers") -> Session:
    (folder / "script").mkdir(parents=True)
    steps: dict[str, Any] = {"source": {"use": f"{HERE}:{use}"}}
    if use == "say_numbers":
        steps["triple"] = {"use": f"{TOYS}:multiply", "in": {"number": "source"}, "params": {"factor": 3}}
    return create_session(
        folder / "session", SessionDocument.model_validate({"name": "x", "roots": {"script": "../script"}, "steps": steps})
    )


def run(session: Session, *script: dict[str, Any]) -> Any:
    (session.folder.parent / "script" / "script.json").write_text(json.dumps(script))
    return VirtualMachine(session).run_out()


GOOD = {"file": "b", "content": "7"}
BROKEN = {"file": "a", "error": "is cut off", "at": 1}
WHOLE = {"file": "a", "content": "5", "at": 2}


def test_an_exposure_that_arrived_broken_gets_what_is_written_in_its_place(tmp_path: Path) -> None:
    session = make_session(tmp_path / "one")
    report = run(session, GOOD, BROKEN)
    assert (report.n_exposures, report.n_failed) == (2, 1)
    assert outcomes_of(session)["triple", "a"]["status"] == "skipped"
    report = run(session, WHOLE)
    assert (report.n_exposures, report.n_failed) == (2, 0)
    assert [row["name"] for row in read_rows(session, schema.exposure)] == ["b", "a"]
    again = run(session, {**WHOLE, "at": 3})  # touched: the same content
    assert (again.n_exposures, again.n_failed) == (2, 0)
    straight = make_session(tmp_path / "two")
    run(straight, GOOD, WHOLE)
    for name in "ab":
        ours, theirs = (outcomes_of(one)["triple", name] for one in (session, straight))
        assert (ours["status"], ours["keys"]) == ("item", theirs["keys"])


def test_a_broken_file_has_the_newest_reason_and_a_good_one_that_changes_is_another_exposure(
    tmp_path: Path,
) -> None:
    session = make_session(tmp_path)
    report = run(session, BROKEN, {**BROKEN, "content": "x", "error": "is empty", "at": 2})
    assert (report.n_exposures, report.n_failed) == (1, 1)
    with open_view(session) as view:
        (failed,) = view.failed()
        assert (failed.reason, failed.kind, failed.attempts) == ("is empty", "item", 2)
    assert run(session, WHOLE, {**WHOLE, "content": "6", "at": 4}).n_exposures == 2


def test_what_arrived_broken_can_be_set_aside_and_that_taken_back(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    run(session, BROKEN)

    def answer(verdict: Any) -> tuple[str, str]:
        machine = VirtualMachine(session)
        machine.ask(Override(unit="a", verdict=verdict, step="source"))
        machine.answer_here()
        row = outcomes_of(session)["source", "a"]
        return row["status"], row["reason"]

    assert answer("reject") == ("rejected", "rejected by hand by eva")
    assert answer("accept") == ("rejected", "rejected by hand by eva")  # refused: there is nothing to accept
    assert "nothing to accept" in read_rows(session, schema.command)[-1]["answer"]
    assert answer("lift") == ("failed", "is cut off")


def test_what_cannot_be_taken_is_listed_as_failed_until_it_can(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    troubles = {"troubles": {"script:c": "Permission denied", "script:folder": "Permission denied"}}
    for _ in range(2):  # the second run is told nothing new
        report = run(session, troubles, GOOD)
        assert (report.n_exposures, report.n_failed) == (1, 2)
    with open_view(session) as view:
        assert [(item.exposure, item.reason) for item in view.failed()] == [
            ("script:folder", "Permission denied"),
            ("script:c", "Permission denied"),
        ]
        source, triple = view.steps()
        assert (source.counts.decided, source.counts.failed, triple.counts.waiting) == (1, 2, 0)
        assert [notice.message for notice in view.notices()] == ["source: script:c: Permission denied (and 1 more)"]
        assert "2 cannot be taken: script:c: Permission denied …" in why_session(view)[1].sentence
    report = run(session, {"troubles": {}})
    assert (report.n_exposures, report.n_failed) == (1, 0)


def test_a_whole_that_is_refused_is_a_failure_until_a_good_one_comes(tmp_path: Path) -> None:
    session = make_session(tmp_path, "say_totals")
    assert run(session, {"file": "gain", "error": "has values that are not finite"}).n_failed == 1
    with open_view(session) as view:
        (notice,) = view.notices()
        assert (notice.level, notice.message) == ("alert", "source: script:gain: has values that are not finite")
        assert view.failed()[0].exposure == "script:gain"
    assert run(session, {"file": "gain", "content": "4", "at": 2}).n_failed == 0


def test_a_source_that_fails_again_and_again_is_listed_until_it_works(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    script = tmp_path / "script" / "script.json"
    script.write_text(json.dumps([{"raise": "no luck"}]))
    machine = VirtualMachine(session)
    machine.start()
    machine.turn(60)
    with open_view(session) as view:
        (failed,) = view.failed()
        assert failed.exposure == "source"
        assert "no luck" in failed.reason
    assert machine.pool is not None
    assert all(worker.idle for worker in machine.pool.workers)
    script.write_text(json.dumps([{"note": "all is well"}]))
    report = machine.run_out()
    assert report.n_failed == 0


def test_a_session_with_nothing_left_to_do_ends_though_its_disk_is_full(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    (tmp_path / "script" / "script.json").write_text("[]")
    machine = VirtualMachine(session, misfortunes=Misfortunes(full_until_s=1e9))
    machine.start()
    machine.turn(50)
    assert machine.report is not None
    assert machine.report.finished


def test_the_process_of_a_source_ends_with_it() -> None:
    assert find_step(f"{HERE}:say_numbers").is_source
    pool = Pool()
    pool.watch("source", WatchOrder("no_such_step", {}, {}))
    try:
        heard: list[Any] = []
        for _ in range(600):
            heard += [answer.message for answer in pool.answers()]
            if any(isinstance(message, SourceFailed) for message in heard):
                break
            time.sleep(0.05)
        assert isinstance(heard[-1], SourceFailed)
        assert pool.workers == []
    finally:
        pool.shut_down()


@pytest.mark.parametrize("own", ["steps", "exports/relion", "report"])
def test_a_session_is_not_made_to_read_what_it_writes(tmp_path: Path, own: str) -> None:
    document = {"name": "x", "steps": {"source": {"use": f"{HERE}:say_numbers"}}}
    (tmp_path / "session").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "session" / own)
    for root in (str(tmp_path / "session" / own), str(tmp_path / "link")):
        with pytest.raises(SessionError, match="is a folder into which the session"):
            create_session(tmp_path / "session", SessionDocument.model_validate({**document, "roots": {"movies": root}}))
    whole = SessionDocument.model_validate({**document, "roots": {"movies": str(tmp_path)}})
    session = create_session(tmp_path / "session", whole)
    (tmp_path / "session" / own).mkdir(parents=True)
    with pytest.raises(SessionError, match="is a folder into which the session"):
        relink_root(session, "movies", tmp_path / "session" / own, force=True)
