"""What a strict reader found: ways to hang a stream, to end the runner, or to lose work, each shut and kept shut."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from icestream.errors import WorkflowError
from icestream.flow import Context, Params, Progress, Verdict, keep, step
from icestream.flow.declaration.outcomes import FailureKind, Outcome, Status
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.ready_queue import ReadyQueue
from icestream.flow.runner.supervisor import run_session
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling.batch import Batch
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.event_types import Absorbed, Arrived, Decided, Failed, Retried, SourceClosed
from icestream.flow.scheduling.gate import Gate
from icestream.flow.scheduling.instruction_types import Dispatch
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.storage import schema
from icestream.flow.storage.revisions import Revision
from icestream.flow.storage.session import Session
from icestream.flow.storage.store import append_command
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import StepSpec, Workflow
from icestream.records import Record
from icestream.settings import Settings
from toys.session import TOYS, active_steps, arrive, make_toy_session, outcomes_of, read_rows, toy_steps
from toys.steps import Number, Share

MULTIPLY = f"{TOYS}:multiply"
HERE = __name__


class Ratio(Record):
    """A number that may be none."""

    stored_name: ClassVar[str] = "test.Ratio"

    value: float


@step.map("bad_verdict", version=1)
def map_that_gives_a_verdict(number: Number) -> Number:
    """Return what a filter returns."""
    return cast("Number", keep())


@step.filter("bad_record", version=1)
def filter_that_gives_a_record(number: Number) -> Verdict:
    """Return what a map returns."""
    return cast("Verdict", number)


@step.map("bad_progress", version=1)
def map_that_reports_nonsense(number: Number, ctx: Context) -> Number:
    """Report a fraction that is no number."""
    ctx.progress(cast("float", "half"))
    return number


@step.map("bad_number", version=1)
def map_that_divides_by_zero(number: Number) -> Ratio:
    """Return NaN."""
    return Ratio(value=float("nan"))


@step.gate("bad_gate", version=1)
def gate_without_an_answer(progress: Progress) -> Verdict:
    """Return nothing."""
    return cast("Verdict", None)


@step.map("bad_parent", version=1, memory_gb=0.1)
def map_that_leaves_a_program_behind(number: Number) -> Number:
    """Start a program and die."""
    os.system("sleep 30 &")  # noqa: S605, S607 - what a careless step does
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@step.map("weigh", version=1)
def weigh(share: Share, number: Number) -> Number:
    """Join what an accumulator said of an exposure with something else."""
    return Number(value=share.value + number.value)


class HealParams(Params):
    """When the step works."""

    heal_file: str = "session:healed"


@step.map("sum_once_healed", version=1, memory_gb=0.1)
def sum_once_healed(numbers: list[Number], params: HealParams, ctx: Context) -> Number:
    """Add the numbers of a batch once a file is there."""
    if not ctx.path(params.heal_file).exists():
        raise ValueError("not yet")
    return Number(value=sum(number.value for number in numbers))


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


def run(session: Session) -> Any:
    return run_session(session, Settings(cores=2))


def numbers(count: int, folder: str = "numbers") -> dict[str, Any]:
    return {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count, "folder": folder}}


def doubled(source: str, **params: Any) -> dict[str, Any]:
    return {"use": MULTIPLY, "in": {"number": source}, "params": params}


def with_steps(session: Session, steps: dict[str, Any]) -> Session:
    specs = {name: StepSpec.model_validate(spec) for name, spec in steps.items()}
    roots = {"numbers": "../numbers", "more": "../more", "again": "../numbers"}
    return replace(session, document=session.document.model_copy(update={"steps": specs, "roots": roots}))


def statuses(session: Session, name: str) -> dict[str, str]:
    return {unit: row["status"] for (of, unit), row in outcomes_of(session).items() if of == name}


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("map_that_gives_a_verdict", "a map like it must return Number"),
        ("filter_that_gives_a_record", "a filter like it must return Verdict"),
        ("map_that_reports_nonsense", "could not convert string to float"),
        ("map_that_divides_by_zero", "valid number"),
    ],
)
def test_a_step_that_breaks_its_promise_fails_by_item(use: str, reason: str, tmp_path: Path) -> None:
    steps = {"n": numbers(2), "d": {"use": f"{HERE}:{use}", "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(2))
    report = run(session)
    assert report.finished, report.reason  # a run that was stopped from outside says so
    assert report.n_failed == 2
    assert all(reason in row["reason"] for (name, _), row in outcomes_of(session).items() if name == "d")


def test_a_rule_that_gives_no_verdict_holds_and_says_so() -> None:
    workflow = {"steps": {"n": numbers(2), "g": {"use": f"{HERE}:gate_without_an_answer", "in": {"items": "n"}}}}
    judge, _ = judge_for(build_graph(Workflow.model_validate(workflow)).nodes["g"])
    verdict = judge(Progress(1, 1, 0, 0, stream_closed=False))
    assert (verdict.accepted, verdict.reason) == (False, "its rule gave None, which is not a verdict")


def test_a_program_left_behind_does_not_hide_the_death_of_its_worker(tmp_path: Path) -> None:
    steps = {"n": numbers(1), "d": {"use": f"{HERE}:map_that_leaves_a_program_behind", "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(1))
    run(session)
    assert statuses(session, "d") == {"0": "failed"}


def test_a_step_that_a_worker_cannot_import_fails_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    monkeypatch.chdir(tmp_path)
    steps = {"n": numbers(1), "d": {"use": f"{HERE}:map_that_divides_by_zero", "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(1))
    run(session)
    assert f"module {HERE!r} cannot be imported" in outcomes_of(session)["d", "0"]["reason"]


def test_a_file_name_that_is_no_text_arrives_under_a_written_out_name(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(2)}, numbers=range(1))
    Path(os.fsdecode(os.fsencode(tmp_path / "numbers" / "broken") + b"\xff")).touch()
    run(session)
    assert statuses(session, "n") == {"0": "item", "broken\\udcff": "failed"}


def test_a_source_can_be_added_to_a_session_that_has_data(tmp_path: Path) -> None:
    steps = {"n": numbers(3), "d": doubled("n")}
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run(session)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "77").touch()
    wider = with_steps(session, {**steps, "m": numbers(1, "more"), "e": doubled("m")})
    assert run(wider).finished
    assert statuses(wider, "m") == {"0": "absent", "1": "absent", "2": "absent", "77": "item"}
    assert statuses(wider, "e") == {"0": "skipped", "1": "skipped", "2": "skipped", "77": "item"}


def test_one_of_two_sources_can_be_edited(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "77").touch()
    steps = {"n": numbers(3), "d": doubled("n"), "m": numbers(1, "more"), "e": doubled("m")}
    session = with_steps(make_toy_session(tmp_path, steps, numbers=range(3)), steps)
    run(session)
    edited = with_steps(session, {**steps, "n": numbers(3, "again")})
    assert run(edited).finished
    assert statuses(edited, "d") == {"0": "item", "1": "item", "2": "item", "77": "skipped"}
    assert statuses(edited, "e") == {"0": "skipped", "1": "skipped", "2": "skipped", "77": "item"}


def test_nothing_is_lost_when_a_source_is_renamed_and_the_run_interrupted(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(6), "d": doubled("n")}, numbers=range(6))
    run(session)
    renamed = with_steps(session, {"m": numbers(6), "d": doubled("m", factor=9, sleep_s=0.2)})
    runner = Runner(renamed, Settings(cores=1))

    def stop_early(_status: object) -> None:
        if len(statuses(renamed, "m")) == 6:
            runner.stop()

    runner.on_change = stop_early
    runner.run()
    assert len(statuses(renamed, "d")) < 6
    for name in (tmp_path / "numbers").iterdir():
        name.unlink()  # the source itself cannot bring them again
    run(with_steps(session, {"m": numbers(0), "d": doubled("m", factor=9)}))
    assert set(statuses(renamed, "d").values()) == {"item"}
    assert len(statuses(renamed, "d")) == 6


def test_a_failed_batch_can_be_retried(tmp_path: Path) -> None:
    steps = {
        "n": numbers(4),
        "b": {"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 2}},
        "s": {"use": f"{HERE}:sum_once_healed", "in": {"numbers": "b"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    assert run(session).n_failed == 2
    (session.folder / "healed").touch()
    append_command(session.store_path, "retry", {"step": "s", "unit": None}, author="operator")
    assert run(session).n_failed == 0
    assert set(statuses(session, "s").values()) == {"item"}


def test_a_malformed_command_is_refused(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(1)}, numbers=range(1))
    run(session)
    append_command(session.store_path, "retry", {"step": ["n"]}, author="nobody")
    run(session)
    assert [row["state"] for row in read_rows(session, schema.command)] == ["refused"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"use": f"{TOYS}:enough", "in": {"items": "t"}, "params": {"count": 1}}, "not only versions of a snapshot"),
        ({"use": f"{TOYS}:keep_multiples", "in": {"number": "b"}}, "takes one item, but b gives batches"),
        ({"use": f"{TOYS}:AddUp", "in": {"number": "b"}}, "takes one item, but b gives batches"),
        ({"use": f"{TOYS}:enough", "in": {"items": "n"}, "params": {"count": {"from": "n.value"}}}, "cannot take a value from"),
    ],
)
def test_what_the_engine_cannot_do_is_refused_before_the_start(spec: dict[str, Any], message: str) -> None:
    steps = {
        "n": numbers(3),
        "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
        "b": {"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 2}},
        "x": spec,
    }
    with pytest.raises(WorkflowError, match=message):
        build_graph(Workflow.model_validate({"steps": steps}))


def test_who_was_missing_is_told_also_when_the_result_was_there(tmp_path: Path) -> None:
    steps = toy_steps(4)
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    run(session)
    run(with_steps(session, {**steps, "even": {**steps["even"], "params": {"divisor": 3}}}))
    run(session)
    assert json.loads(outcomes_of(session)["any", "1"]["missing"]) == ["even"]


def test_going_back_to_an_earlier_accumulator_never_names_pruned_files(tmp_path: Path) -> None:
    steps = {"n": numbers(100), "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(100))
    run(session)
    run(with_steps(session, {**steps, "t": {**steps["t"], "params": {"fail_on": [1000]}}}))
    run(session)
    records = {row["key"]: json.loads(row["record"]) for row in read_rows(session, schema.result)}
    active = active_steps(session)
    kept = [row for row in read_rows(session, schema.snapshot) if row["revision"] in active and not row["pruned"]]
    files = [records[row["key"]]["file"] for row in kept]
    assert len(files) >= 10
    assert all(name.startswith("session:steps/t/3/") for name in files)
    assert all((session.folder / name.removeprefix("session:")).exists() for name in files)


def test_failures_of_an_entry_that_was_halved_do_not_count_against_the_next(tmp_path: Path) -> None:
    steps = {"n": numbers(8), "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}, "params": {"fail_on": [5]}}}
    session = make_toy_session(tmp_path, steps, numbers=range(8))
    run(session)
    failures = read_rows(session, schema.failure)
    assert failures
    assert all(row["cleared"] for row in failures)


def test_a_batch_rule_sees_after_a_restart_what_has_passed(tmp_path: Path) -> None:
    steps = {"n": numbers(4), "b": {"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 2}}}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    run(session)
    arrive(tmp_path, range(4, 5))
    runner = Runner(with_steps(session, {**steps, "n": numbers(5)}), Settings(cores=2))
    runner.run()
    stage = runner.engine.workflow.scheduler.stages["b"]
    assert isinstance(stage, Batch)
    assert (stage.passed, stage.passed_weight) == (5, 5)


NEWER = """
from icestream.flow import Params, step
from toys.steps import Number
class P(Params):
    "How."
    factor: int = 2
    {more}
@step.map("up", version=1)
def up(number: Number, params: P) -> Number:
    "Multiply."
    return Number(value=number.value * params.factor)
"""

RUN = """
import sys
from pathlib import Path
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
run_session(open_session(Path(sys.argv[1])), Settings(cores=2))
"""


def test_software_that_adds_a_parameter_recomputes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plugin_that_grows.py").write_text(NEWER.format(more=""))
    session = make_toy_session(
        tmp_path, {"n": numbers(2), "d": {"use": "plugin_that_grows:up", "in": {"number": "n"}}}, numbers=range(2)
    )
    for more in ("", "newer: int = 0"):
        (tmp_path / "plugin_that_grows.py").write_text(NEWER.format(more=more))
        subprocess.run([sys.executable, "-c", RUN, str(session.folder)], check=True)
    assert [(row["step"], row["number"]) for row in read_rows(session, schema.revision)] == [("n", 1), ("d", 1)]
    assert len(read_rows(session, schema.result)) == 4


def test_a_wide_task_is_not_overtaken_for_ever() -> None:
    queue = ReadyQueue(4, 100.0)
    revision = Revision(1, "motion", 1, "motion", 1, 0, {})
    wide = Task("classes", "w", "k", {}, {}, 4, 1.0, revision)
    for number in range(100):
        queue.put(Task("motion", str(number), "k", {}, {}, 1, 1.0, revision), depth=1)
    running = list(_take_all(queue))
    queue.put(wide, depth=9)
    finished = 0
    while wide not in running:
        queue.give_back(running.pop(0))
        finished += 1
        running += _take_all(queue)
    assert finished <= 8
    assert [task.unit for task in running] == ["w"]


def _take_all(queue: ReadyQueue) -> Iterator[Task]:
    while (task := queue.take()) is not None:
        yield task


def scheduler_for(steps: dict[str, Any]) -> Scheduler:
    return Scheduler(build_graph(Workflow.model_validate({"steps": {"n": numbers(9), **steps}})), judge_for)


def dispatched(instructions: list[Any]) -> list[Any]:
    return [one for one in instructions if isinstance(one, Dispatch)]


def item(name: str) -> Outcome:
    return Outcome(Status.ITEM, {"out": name})


def test_a_step_that_ran_on_inputs_that_changed_runs_again() -> None:
    scheduler = scheduler_for(
        {"d": doubled("n"), "e": doubled("n"), "s": {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}}}
    )
    scheduler.handle(Arrived("n", "u", "key"))
    scheduler.handle(Decided("e", "u", item("e1")))
    assert dispatched(scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))) == [
        Dispatch("s", "u", {"numbers": ("e1",)})
    ]
    scheduler.handle(Retried("d", "u"))
    assert dispatched(scheduler.handle(Decided("d", "u", item("d1")))) == []  # s is still at work on what it had
    assert dispatched(scheduler.handle(Decided("s", "u", item("old")))) == [Dispatch("s", "u", {"numbers": ("d1", "e1")})]
    scheduler.handle(Decided("s", "u", item("new")))
    assert scheduler.units == {}


def test_a_held_item_is_passed_on_as_it_is_when_the_gate_opens() -> None:
    steps = {
        "d": doubled("n"),
        "e": doubled("n"),
        "s": {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}},
        "g": {"use": f"{TOYS}:enough", "in": {"items": "s"}, "params": {"count": 2}},
    }
    scheduler = scheduler_for(steps)
    scheduler.handle(Arrived("n", "u", "key"))
    scheduler.handle(Decided("e", "u", item("e1")))
    scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))
    scheduler.handle(Decided("s", "u", item("old")))
    scheduler.handle(Retried("d", "u"))
    scheduler.handle(Decided("d", "u", item("d1")))
    scheduler.handle(Decided("s", "u", item("new")))
    gate = scheduler.stages["g"]
    assert isinstance(gate, Gate)
    assert [keys for keys, _ in gate.waiting.values()] == [{"items": "new"}]


def test_a_retry_decides_also_what_was_skipped_behind_a_frozen_step() -> None:
    steps = {
        "d": doubled("n"),
        "e": doubled("n"),
        "f": {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}},
        "any": {"use": f"{TOYS}:add_all", "in": {"numbers": ["d", "e"]}},
        "t": {"use": f"{TOYS}:AddUp", "in": {"number": "any"}},
        "j": {"use": f"{HERE}:weigh", "in": {"share": "t.assignments", "number": "f"}},
        "k": doubled("j"),
    }
    scheduler = scheduler_for(steps)
    scheduler.handle(Arrived("n", "u", "key"))
    scheduler.handle(Decided("f", "u", Outcome(Status.REJECTED, {"rejected": "r"}, reason="odd")))
    scheduler.handle(Decided("e", "u", item("e1")))
    scheduler.handle(Failed("d", "u", FailureKind.ITEM, "bad", 0.0))
    unit = scheduler.units["u"]
    scheduler.handle(Decided("any", "u", item("a1")))
    scheduler.handle(Absorbed("t", 1, "s1", {"u": "share"}))
    assert unit.outcomes["j"].status is Status.SKIPPED
    scheduler.readmit(unit)
    scheduler.handle(Retried("d", "u"))
    scheduler.handle(Decided("d", "u", item("d1")))
    scheduler.handle(Decided("any", "u", item("a2")))
    scheduler.handle(SourceClosed("n", "end"))
    scheduler.handle(Absorbed("t", 2, "s2", {}))
    assert [name for name, stage in scheduler.stages.items() if not stage.closed] == []
