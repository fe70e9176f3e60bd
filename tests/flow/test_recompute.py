"""One exposure computed again with parameters of its own, in whole sessions: it holds through whatever happens."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from icestream.errors import WorkflowError
from icestream.flow.commands.client import Answer, read_answer
from icestream.flow.commands.editing import plan_edit
from icestream.flow.commands.requests import Apply, Branch, Clean, Close, Command, Override, Recompute, Restart, Retry, Set, ask
from icestream.flow.planning.plans import plan_recompute
from icestream.flow.runner.answering import recompute_exposures
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.life import Life
from toys.model import read_rows
from toys.session import TOYS, active_steps, make_toy_session, outcomes_of, replay_log, toy_steps
from virtual.machine import VirtualMachine, quiet_settings

SETTINGS = Settings(cores=2)
ROOM = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session that has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    run(make_toy_session(folder, toy_steps(8), numbers=range(8)))
    return folder


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Session:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "copy")
    return open_session(tmp_path / "copy" / "session")


@pytest.fixture
def life() -> Iterator[Life]:
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        yield Life(Path(folder))


def value(session: Session, step: str, number: str) -> int:
    key = outcomes_of(session)[step, number]["keys"]["out"]
    record = next(row["record"] for row in read_rows(session, schema.result) if row["key"] == key)
    return int(json.loads(record)["value"])


def made(session: Session) -> set[str]:
    return {row["key"] for row in read_rows(session, schema.result)}


def made_by(session: Session, *steps: str, beside: set[str]) -> list[str]:
    """Return the results of some steps that are not in ``beside``."""
    step_of = {row["id"]: row["step"] for row in read_rows(session, schema.revision)}
    rows = read_rows(session, schema.result)
    return [row["key"] for row in rows if row["key"] not in beside and step_of[row["revision"]] in steps]


def run(session: Session, *, rebuild_fraction: float = 1.0) -> Session:
    """Run a session to its end, on a virtual machine: it takes no process."""
    VirtualMachine(session, settings=quiet_settings(rebuild_fraction=rebuild_fraction)).run_out()
    return open_session(session.folder)


def answered(session: Session, command: Command) -> Answer:
    machine = VirtualMachine(session, settings=quiet_settings(rebuild_fraction=1.0))
    number = machine.ask(command)
    machine.answer_here()
    return read_answer(session, number)


def done(session: Session, command: Command) -> Session:
    answer = answered(session, command)
    assert answer.state == "done", answer.text
    return run(session)


def test_one_exposure_is_computed_again_with_what_descends_from_it(session: Session) -> None:
    before, known = outcomes_of(session), made(session)
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}, reason="thick ice"))
    after = outcomes_of(session)
    assert [value(session, step, "2") for step in ("triple", "even", "both", "any")] == [16, 16, 18, 16]
    others = {where for where in before if where[1] != "2"}
    assert {where: after[where]["keys"] for where in others} == {where: before[where]["keys"] for where in others}
    assert len(made(session) - known) == 3
    new = next(row for row in read_rows(session, schema.result) if row["key"] == after["triple", "2"]["keys"]["out"])
    assert json.loads(new["params"])["factor"] == 8
    (row,) = read_rows(session, schema.recompute)
    assert (row["author"], row["reason"], row["step"], json.loads(row["params"])) == ("eva", "thick ice", "triple", {"factor": 8})


def test_taking_it_back_uses_the_results_that_were_there(session: Session) -> None:
    before = outcomes_of(session)
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    known = made(session)
    done(session, Recompute(unit="2", step="triple", lift=True))
    after = outcomes_of(session)
    for step in ("triple", "even", "both", "any"):
        assert after[step, "2"]["keys"] == before[step, "2"]["keys"], step
    assert made(session) == known
    assert read_rows(session, schema.stale) == []
    assert answered(session, Recompute(unit="2", step="triple", lift=True)).text == (
        "2 has no parameters of its own at triple: nothing to withdraw"
    )


def test_it_holds_through_set_restart_and_another_run(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    session = done(session, Set(step="triple", params={"fail_on": [5]}))
    assert (value(session, "triple", "2"), value(session, "triple", "4")) == (16, 12)
    session = done(session, Set(step="triple", params={"factor": 4}))
    assert (value(session, "triple", "2"), value(session, "triple", "4")) == (16, 16)
    key = outcomes_of(session)["triple", "2"]["keys"]["out"]
    newest = next(row for row in read_rows(session, schema.result) if row["key"] == key)
    assert json.loads(newest["params"])["fail_on"] == [5]
    session = done(session, Restart(step="triple"))
    assert (value(session, "triple", "2"), value(session, "any", "2")) == (16, 16)
    shutil.move(session.folder, session.folder.with_name("elsewhere"))
    moved = open_session(session.folder.with_name("elsewhere"))
    moved = done(moved, Restart(step="triple"))
    assert (value(moved, "triple", "2"), value(moved, "triple", "4")) == (16, 16)
    moved = done(moved, Recompute(unit="2", step="triple", lift=True))
    assert value(moved, "triple", "2") == 8


def test_a_branch_begins_without_it_and_shares_what_is_above(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    answer = answered(session, Branch(step="triple", name="tripled", params={"factor": 3}))
    assert answer.text.endswith("; the branch does not include the 1 recomputed by hand")
    session = run(session)
    assert (value(session, "triple", "2"), value(session, "tripled", "2"), value(session, "any_tripled", "2")) == (16, 6, 6)
    answer = answered(session, Branch(step="any", name="any_more", params={}))
    assert (answer.state, "recomputed" in answer.text) == ("done", False)
    session = run(session)
    assert value(session, "any_more", "2") == 16


def test_identical_work_is_found_by_its_key(session: Session) -> None:
    session = done(session, Set(step="odd", params={"factor": 7}))
    session = done(session, Set(step="odd", params={"factor": 5}))
    known = made(session)
    done(session, Recompute(unit="3", step="odd", params={"factor": 7}))
    assert value(session, "odd", "3") == 63
    assert made_by(session, "odd", "any", beside=known) == []  # `late` is bound to another total


def test_a_second_recomputation_takes_the_place_of_the_first(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    assert "nothing changes" in answered(session, Recompute(unit="2", step="triple", params={"factor": 8})).text
    done(session, Recompute(unit="2", step="triple", params={"factor": 9}))
    assert value(session, "triple", "2") == 18
    rows = read_rows(session, schema.recompute)
    assert [bool(row["active"]) for row in rows] == [False, True]
    done(session, Recompute(unit="2", step="triple", lift=True))
    assert value(session, "triple", "2") == 6


def test_what_failed_with_the_common_parameters_may_do_with_its_own(session: Session) -> None:
    session = done(session, Set(step="triple", params={"fail_on": [4]}))
    assert outcomes_of(session)["triple", "4"]["status"] == "failed"
    done(session, Recompute(unit="4", step="triple", params={"fail_on": []}))
    assert outcomes_of(session)["any", "4"]["status"] == "item"
    done(session, Recompute(unit="3", step="triple", params={"fail_on": [3]}))
    assert outcomes_of(session)["triple", "3"]["status"] == "failed"
    assert outcomes_of(session)["any", "3"]["status"] == "skipped"
    done(session, Retry())
    assert outcomes_of(session)["triple", "3"]["status"] == "failed"
    done(session, Recompute(unit="3", step="triple", lift=True))
    assert value(session, "any", "3") == 45


def test_what_cannot_be_is_refused_and_nothing_changes(session: Session) -> None:
    before = outcomes_of(session)
    refused = [
        (Recompute(unit="2", step="triple", params={"factr": 7}), "has no parameter 'factr'"),
        (Recompute(unit="2", step="triple", params={"factor": "many"}), "parameter 'factor' is 'many'"),
        (Recompute(unit="2", step="triple"), "no parameter was given"),
        (Recompute(unit="77", step="triple", params={"factor": 7}), "no exposure is called '77'"),
        (Recompute(unit="2", step="tripel", params={"factor": 7}), "no step is called 'tripel'"),
        (Recompute(unit="2", step="total", params={"fail_on": [7]}), "takes many exposures together"),
        (Recompute(unit="2", step="sums", params={}), "works on the batches of batch"),
    ]
    for command, told in refused:
        answer = answered(session, command)
        assert (answer.state, told in answer.text) == ("refused", True), answer
    with pytest.raises(WorkflowError, match="has no parameter 'factr'"):
        recompute_exposures(session, "triple", ["2", "3"], {"factr": 7}, author="eva", settings=SETTINGS)
    assert answered(session, Close(step="triple")).state == "done"
    answer = answered(session, Recompute(unit="2", step="triple", params={"factor": 7}))
    assert (answer.state, "reopen it first" in answer.text) == ("refused", True)
    assert outcomes_of(session) == before
    assert read_rows(session, schema.recompute) == []


def test_an_edit_that_does_not_go_with_it_is_refused(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    machine = VirtualMachine(session, settings=quiet_settings())
    machine.start()
    path = session.folder / "session.yaml"
    document = yaml.safe_load(path.read_text())
    document["steps"]["triple"] = {"use": f"{TOYS}:add", "in": {"left": "numbers", "right": "numbers"}}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(WorkflowError, match="2 has factor=8 of its own at triple"):
        plan_edit(session, Apply(), cores=2)
    number = machine.ask(Apply())
    machine.turn()
    answer = read_answer(session, number)
    assert (answer.state, "2 has factor=8 of its own at triple" in answer.text) == ("refused", True), answer
    assert "toy_add has no parameter 'factor'" in answer.text


def test_a_document_that_was_edited_while_nobody_looked_is_warned_about(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    path = session.folder / "session.yaml"
    document = yaml.safe_load(path.read_text())
    document["steps"]["triple"] = {"use": f"{TOYS}:add", "in": {"left": "numbers", "right": "numbers"}}
    path.write_text(yaml.safe_dump(document))
    session = run(open_session(session.folder))
    assert value(session, "triple", "2") == 4
    warnings = [row["message"] for row in read_rows(session, schema.notice) if row["level"] == "warning"]
    assert any(text.startswith("2 has factor=8 of its own at triple, which is incompatible with it") for text in warnings)
    session = done(session, Recompute(unit="2", step="triple", lift=True))
    assert value(session, "triple", "2") == 4


def test_values_that_a_step_cannot_have_any_more_fail_that_exposure_alone(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    with closing(sqlite3.connect(session.store_path)) as store, store:
        store.execute("UPDATE recompute SET params = ?", ('{"factor": "many"}',))
    session = done(session, Restart(step="triple"))
    outcome = outcomes_of(session)["triple", "2"]
    assert (outcome["status"], "valid integer" in outcome["reason"]) == ("failed", True)
    assert value(session, "triple", "4") == 12


def test_an_accumulator_marks_what_it_took_and_takes_it_back(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    marked = {active_steps(session)[row["revision"]]: row["reason"] for row in read_rows(session, schema.stale)}
    assert marked["total"] == "has another result now (number)"
    assert outcomes_of(session)["any", "2"]["keys"]["out"] != outcomes_of(session)["total", "2"]["keys"]["taken.number"]


def test_an_accumulator_of_which_much_has_changed_is_built_anew(session: Session, tmp_path: Path) -> None:
    assert all(
        answer.state == "done"
        for answer in recompute_exposures(session, "triple", ["2", "4", "6"], {"factor": 8}, author="eva", settings=SETTINGS)
    )
    run(session, rebuild_fraction=0.2)
    built = [row for row in read_rows(session, schema.revision) if row["step"] == "total"]
    assert [row["state"] for row in built][-2:] == ["frozen", "active"]
    state, members = replay_log(session, "total", tmp_path / "replay")
    assert len(members) == 8
    assert json.loads(state)["value"] == sum(value(session, "any", str(number)) for number in range(8))
    assert not [row for row in read_rows(session, schema.stale) if row["revision"] == built[-1]["id"]]


def test_cleaning_keeps_the_results_whose_place_is_taken(session: Session) -> None:
    before = outcomes_of(session)
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    done(session, Recompute(unit="2", step="triple", params={"factor": 9}))
    done(session, Clean())
    known = made(session)
    assert {key for step in ("triple", "both", "any") for key in before[step, "2"]["keys"].values()} <= known
    done(session, Recompute(unit="2", step="triple", lift=True))
    assert made(session) == known
    assert outcomes_of(session)["any", "2"]["keys"] == before["any", "2"]["keys"]


def test_a_dry_run_says_what_is_computed_and_changes_nothing(session: Session) -> None:
    before, known = outcomes_of(session), made(session)
    plan = plan_recompute(session, "triple", ["2", "4"], {"factor": 8}, cores=2, rebuild_fraction=1.0)
    lines = {line.step: line for line in plan.steps}
    assert lines["triple"].computed == 2
    assert lines["both"].computed + lines["both"].at_most == 2
    assert "total" not in lines
    assert plan.seconds is not None
    rebuilt = plan_recompute(session, "triple", ["2", "4"], {"factor": 8}, cores=2, rebuild_fraction=0.2)
    assert {line.step: (line.change, line.computed) for line in rebuilt.steps}["total"] == ("rebuilt", 8)
    assert plan_recompute(session, "triple", ["2"], {"factor": 3}, cores=2, rebuild_fraction=1.0).computed == 0
    assert (outcomes_of(session), made(session)) == (before, known)
    recompute_exposures(session, "triple", ["2", "4"], {"factor": 8}, author="eva", settings=SETTINGS)
    run(session)
    assert len(made_by(session, "triple", beside=known)) == 2
    new = made(session) - known
    assert plan.computed <= len(new) <= plan.computed + plan.at_most


def test_dry_runs_of_edits_know_of_it(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 4}))
    lines = {line.step: line for line in plan_edit(session, Set(step="triple", params={"factor": 4}), cores=2).steps}
    assert (lines["triple"].computed, lines["triple"].reused) == (7, 1)


def test_a_rejection_by_hand_wins_over_it(session: Session) -> None:
    done(session, Recompute(unit="2", step="triple", params={"factor": 8}))
    done(session, Override(unit="2", step="triple", verdict="reject"))
    assert outcomes_of(session)["triple", "2"]["status"] == "rejected"
    done(session, Override(unit="2", step="triple", verdict="lift"))
    assert value(session, "triple", "2") == 16


@pytest.mark.parametrize("point", range(1, 25, 2))
def test_it_is_carried_out_once_wherever_the_runner_dies(life: Life, point: int) -> None:
    life.machine.settings = quiet_settings(rebuild_fraction=0.9)
    life.arrive(["1", "2", "8"])
    life.machine.start()
    life.machine.turn(12)
    life.ask(Recompute(unit="2", step="triple", params={"factor": 8}))
    life.ask(Recompute(unit="1", step="odd", params={"factor": 9}))
    life.ask(Recompute(unit="1", step="odd", lift=True))
    life.machine.kill_in = point
    life.machine.turn(8)
    life.end()
    assert [row["state"] for row in read_rows(life.session, schema.command)] == ["done"] * 4
    assert value(life.session, "triple", "2") == 16


@pytest.mark.parametrize("turns", range(4, 40, 6))
def test_whatever_an_accumulator_is_doing_it_knows_what_has_changed(life: Life, turns: int) -> None:
    life.machine.settings = quiet_settings(rebuild_fraction=1.0)
    life.arrive([str(number) for number in range(6)])
    life.machine.start()
    life.machine.turn(turns)
    for number in ("0", "2", "3"):
        life.ask(Recompute(unit=number, step="triple", params={"factor": 8}))
    life.ask(Override(unit="4", verdict="reject", step="numbers"))
    life.end()


def test_it_is_asked_of_a_session_that_nobody_runs(session: Session) -> None:
    ask(session, Recompute(unit="2", step="triple", params={"factor": 8}), author="eva")
    run(session)
    assert value(session, "triple", "2") == 16


@pytest.mark.parametrize(
    "command",
    [
        Recompute(unit="1", step="triple", params={"factor": 9}),
        Recompute(unit="1", step="triple", params={"factor": 2}),
        Override(unit="1", verdict="reject", step="numbers"),
        Override(unit="1", verdict="accept", step="even"),
    ],
)
@pytest.mark.parametrize("closed", ["odd", "both", "any", "late"])
def test_what_takes_nothing_new_decides_again_when_it_goes_on(life: Life, closed: str, command: Command) -> None:
    life.arrive(["0", "1", "2", "3", "8", "10"])
    life.machine.run_out()
    life.ask(Close(step=closed))
    life.machine.answer_here()
    life.ask(command)
    life.machine.run_out()
    life.end()


def test_a_gate_that_has_passed_all_it_was_to_pass_passes_on_the_new_result(tmp_path: Path) -> None:
    steps = {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 4}},
        "triple": {"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"factor": 3}},
        "gate": {"use": "trigger", "in": {"items": "triple"}, "params": {"mode": "static", "count": 3}},
        "double": {"use": f"{TOYS}:multiply", "in": {"number": "gate"}, "params": {"factor": 2}},
    }
    session = run(make_toy_session(tmp_path, steps, numbers=range(4)))
    passed = next(unit for (step, unit), row in outcomes_of(session).items() if step == "gate" and row["status"] == "item")
    session = done(session, Recompute(unit=passed, step="triple", params={"factor": 8}))
    assert value(session, "double", passed) == 16 * int(passed)
    session = done(session, Recompute(unit=passed, step="triple", lift=True))
    assert value(session, "double", passed) == 6 * int(passed)
