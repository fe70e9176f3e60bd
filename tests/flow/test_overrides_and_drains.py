"""Where the parts of the engine meet: decisions by hand, drained steps, disks that are away, and a store that was away."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from icestream.errors import SessionBusy, StoreUnavailable
from icestream.flow import Verdict, keep, step
from icestream.flow.commands import editing
from icestream.flow.commands.requests import Close, Override, Reopen, Set
from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.runner import supervisor
from icestream.flow.runner.answering import submit
from icestream.flow.runner.health import Health
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.supervisor import run_session
from icestream.flow.scheduling.joins import first_weight
from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.session import Session, open_session
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import StepSpec, Workflow
from icestream.settings import Settings
from toys.session import TOYS, active_steps, make_toy_session, outcomes_of, read_rows
from toys.steps import Number

SETTINGS = Settings(cores=2, rebuild_fraction=0.1)


@step.filter("keep_all", version=1)
def keep_all(numbers: list[Number]) -> Verdict:
    """Keep what any stream has."""
    return keep()


def numbers(count: int) -> dict[str, Any]:
    return {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}}


def steps_for(count: int) -> dict[str, Any]:
    return {
        "n": numbers(count),
        "f": {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}},
        "total": {"use": f"{TOYS}:AddUp", "in": {"number": "f"}},
    }


def ran(tmp_path: Path, steps: dict[str, Any], count: int) -> Session:
    session = make_toy_session(tmp_path, steps, numbers=range(count))
    run_session(session, SETTINGS)
    return session


def told(session: Session, *commands: Any) -> list[str]:
    given = [submit(open_session(session.folder), command, author="eva", settings=SETTINGS) for command in commands]
    return [f"{answer.state}: {answer.text}" for answer in given]


def statuses(session: Session, name: str) -> dict[str, str]:
    found = outcomes_of(open_session(session.folder))
    return {unit: row["status"] for (of, unit), row in found.items() if of == name}


def consumed(session: Session) -> int:
    mine = active_steps(session)
    rows = [row for row in read_rows(session, schema.accumulator_log) if row["revision"] in mine]
    return sum(int(row["weight"]) for row in rows)


def test_a_decision_that_nobody_made_cannot_be_taken_back(tmp_path: Path) -> None:
    session = ran(tmp_path, steps_for(4), 4)
    assert consumed(session) == 2
    (said,) = told(session, Override(unit="2", verdict="lift", step="total"))
    assert said == "refused: there is no override for 2 at total: nothing to withdraw"
    run_session(session, SETTINGS)
    assert consumed(session) == 2


def test_an_accumulator_that_was_closed_by_hand_is_not_emptied_by_a_rejection(tmp_path: Path) -> None:
    session = ran(tmp_path, steps_for(6), 6)
    told(session, Close(step="total"), Override(unit="2", verdict="reject", step="f"))
    run_session(session, SETTINGS)
    assert statuses(session, "total")["4"] == "item"
    told(session, Reopen(step="total"))
    run_session(session, SETTINGS)
    assert {unit for unit, status in statuses(session, "total").items() if status == "item"} == {"0", "4"}
    assert consumed(session) == 2


def test_what_people_decide_at_a_filter_that_was_closed_by_hand_counts(tmp_path: Path) -> None:
    session = ran(tmp_path, steps_for(4), 4)
    told(session, Close(step="f"))
    told(session, Override(unit="1", verdict="accept", step="f"), Override(unit="2", verdict="reject", step="f"))
    assert statuses(session, "f") == {"0": "item", "1": "item", "2": "rejected", "3": "rejected"}


def test_a_document_that_cannot_be_written_refuses_the_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ran(tmp_path, steps_for(2), 2)

    def full(_path: Path, _text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(editing, "publish_text", full)
    (said,) = told(session, Set(step="f", params={"divisor": 3}))
    assert said.startswith("refused: ")
    assert "cannot be written, so nothing changes: " in said
    assert statuses(session, "f") == {"0": "item", "1": "rejected"}


def test_raw_data_may_come_from_another_file_system_after_an_edit(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, steps_for(0), numbers=range(0))
    look = Health(session, 0.0)
    assert look.trouble() is None
    roots = {"numbers": "/proc"}
    assert os.stat("/proc").st_dev != tmp_path.stat().st_dev  # noqa: PTH116
    look.session = replace(session, document=session.document.model_copy(update={"roots": roots}))
    assert look.trouble() is None


def test_a_disk_that_fills_further_is_the_same_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Health(make_toy_session(tmp_path, steps_for(0), numbers=range(0)), 1.0)
    told = []
    for free in (2**29, 2**28, 2**31):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr("icestream.flow.runner.health.shutil.disk_usage", lambda _folder, usage=usage: usage)
        told.append(look.trouble())
    assert told == [f"{look.session.folder}: less than 1 GB free (setting min_free_gb)"] * 2 + [None]


def test_a_trouble_that_ended_while_no_runner_was_there_is_not_told_any_more(tmp_path: Path) -> None:
    session = ran(tmp_path, steps_for(2), 2)
    engine = engine_for(session.store_at)
    with engine.begin() as connection:
        connection.execute(update(schema.runner).values(hold='{"kind": "surroundings", "reason": "full", "since": 0.0}'))
    engine.dispose()
    run_session(session, SETTINGS)
    assert [row["hold"] for row in read_rows(session, schema.runner)] == [None]


def test_a_weight_is_known_while_one_of_several_streams_is_decided_again() -> None:
    steps = {"n": numbers(1), "a": {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}}}
    steps["c"] = {"use": f"{__name__}:keep_all", "in": {"numbers": ["n", "a"]}, "min_inputs": 1}
    graph = build_graph(Workflow(steps={name: StepSpec.model_validate(spec) for name, spec in steps.items()}))
    assert first_weight(graph.nodes["c"], {"a": Outcome(Status.ITEM, {"out": "k"}, 7)}) == 7


class Away:
    """A runner whose store goes away in its first cycle, and what happens while nobody is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
        self.meanwhile, self.cycle, self.cycles = meanwhile, Runner._cycle, 0  # noqa: SLF001
        monkeypatch.setattr(Runner, "_cycle", lambda runner: self.once(runner))  # noqa: PLW0108 - a bound method would not get the runner

    def once(self, runner: Runner) -> None:
        self.cycles += 1
        if self.cycles == 1:
            runner.store.give_back("away")
            self.meanwhile()
            raise StoreUnavailable("away")
        self.cycle(runner)


def test_an_edit_while_the_store_was_away_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ran(tmp_path, steps_for(4), 4)
    away = Away(monkeypatch, lambda: told(session, Set(step="f", params={"divisor": 3})))
    run_session(session, SETTINGS)
    assert away.cycles > 1
    assert statuses(session, "f") == {"0": "item", "1": "rejected", "2": "rejected", "3": "item"}


def test_a_runner_that_comes_back_lets_a_command_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ran(tmp_path, steps_for(2), 2)
    Away(monkeypatch, lambda: None)
    tries: list[int] = []

    class Late(Runner):
        def __post_init__(self) -> None:
            tries.append(1)
            if len(tries) == 2:
                raise SessionBusy("is processed already")
            super().__post_init__()

    monkeypatch.setattr(supervisor, "Runner", Late)
    assert run_session(session, SETTINGS).finished
    assert len(tries) == 3


def test_a_runner_waits_for_a_store_that_was_moved_and_makes_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ran(tmp_path, steps_for(2), 2)
    elsewhere = tmp_path / "elsewhere"
    told_of: list[str] = []
    files = ("icestream.db", "icestream.db-wal", "icestream.db-shm")

    def move(source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name in files:
            if (source / name).exists():
                (source / name).rename(target / name)

    def on_change(status: Any) -> None:
        if status.pause is not None and re.search("not found|is missing", status.pause.reason) and not told_of:
            told_of.append(status.pause.reason)
            move(elsewhere, session.folder)

    Away(monkeypatch, lambda: move(session.folder, elsewhere))
    assert run_session(session, SETTINGS, on_change=on_change).finished
    assert told_of
    assert len(read_rows(session, schema.revision)) == 3


def test_a_step_that_a_trigger_drained_is_computed_with_other_parameters(tmp_path: Path) -> None:
    steps = {
        "n": numbers(12),
        "p": {"use": f"{TOYS}:multiply", "in": {"number": "n"}},
        "g": {"use": "trigger", "in": {"items": "p"}, "params": {"count": 4, "counted": "exposures", "closes": ["p"]}},
        "q": {"use": f"{TOYS}:multiply", "in": {"number": "g"}},
    }
    session = ran(tmp_path, steps, 12)
    assert list(statuses(session, "p").values()).count("absent") > 0
    told(session, Set(step="p", params={"factor": 3}))
    run_session(open_session(session.folder), SETTINGS)
    assert list(statuses(session, "p").values()).count("item") >= 4
    assert list(statuses(session, "q").values()).count("item") >= 4
    assert [row["state"] for row in read_rows(session, schema.drain)] == ["drained", "resumed", "drained"]
