"""Dry runs against what really happens afterwards."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from icestream.errors import SessionError, WorkflowError
from icestream.flow.commands.editing import Edit, plan_edit
from icestream.flow.commands.requests import Apply, Branch, Close, Continue, Override, Reset, Restart, Set
from icestream.flow.planning.plans import Plan, StepPlan
from icestream.flow.runner.answering import submit
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import TOYS, make_toy_session, outcomes_of, read_rows, start_runner, toy_steps

SETTINGS = Settings(cores=2)
ON_EXPOSURES = ("triple", "odd", "both", "any")
"""Maps whose results can be counted beforehand."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a session that has run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    run_session(make_toy_session(folder, toy_steps(8), numbers=range(8)), SETTINGS)
    return folder


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Session:
    """A copy of it."""
    shutil.copytree(finished, tmp_path / "copy")
    return open_session(tmp_path / "copy" / "session")


def edit_document(session: Session, edit: Callable[[dict[str, Any]], None]) -> None:
    data = yaml.safe_load((session.folder / "session.yaml").read_text())
    edit(data["steps"])
    (session.folder / "session.yaml").write_text(yaml.safe_dump(data))


def carry_out(session: Session, command: Edit) -> dict[str, int]:
    """Do it for real; return how many results each step has made."""
    before = {row["key"] for row in read_rows(session, schema.result)}
    answer = submit(session, command, author="eva", settings=SETTINGS)
    assert answer.state == "done", answer.text
    if isinstance(command, Reset):  # the plan tells what going on will cost
        assert submit(session, Continue(), author="eva", settings=SETTINGS).state == "done"
    run_session(open_session(session.folder), SETTINGS)
    steps = {row["id"]: row["step"] for row in read_rows(session, schema.revision)}
    made: dict[str, int] = {}
    for row in read_rows(session, schema.result):
        if row["key"] not in before:
            step = steps[row["revision"]]
            made[step] = made.get(step, 0) + 1
    return made


def lines(plan: Plan) -> dict[str, StepPlan]:
    return {step.step: step for step in plan.steps}


def check(session: Session, command: Edit, steps: tuple[str, ...] = ON_EXPOSURES) -> dict[str, StepPlan]:
    """Compare a plan with what happens."""
    planned = lines(plan_edit(session, command, cores=2))
    made = carry_out(session, command)
    for step in steps:
        line = planned.get(step, StepPlan(step, "map", "revised"))
        assert line.computed <= made.get(step, 0) <= line.computed + line.at_most, (step, line, made)
        if not line.at_most:
            assert line.computed == made.get(step, 0), (step, line, made)
    return planned


def test_a_changed_map_is_counted_with_all_below_it(session: Session) -> None:
    planned = check(session, Set(step="odd", params={"factor": 7}))
    assert set(planned) == {"odd", "any", "total", "late", "newest"}
    assert (planned["odd"].computed, planned["odd"].reused) == (4, 0)
    assert (planned["any"].computed, planned["any"].reused) == (4, 4)
    assert (planned["odd"].at_most, planned["any"].at_most, planned["odd"].exact) == (0, 0, True)
    assert (planned["total"].computed, planned["total"].exact) == (8, False)
    assert planned["late"].computed == 4


def test_going_back_costs_nothing(session: Session) -> None:
    check(session, Set(step="triple", params={"factor": 5}))
    session = open_session(session.folder)
    planned = check(session, Set(step="triple", params={"factor": 3}))
    for step in ON_EXPOSURES:
        assert (planned[step].computed, planned[step].at_most, planned[step].new_bytes) == (0, 0, 0), step
    assert planned["triple"].reused == 8
    assert planned["triple"].seconds == 0


def test_below_a_changed_filter_counts_are_upper_bounds_until_it_goes_back(session: Session) -> None:
    planned = check(session, Set(step="even", params={"divisor": 9}))
    assert (planned["even"].decided, planned["even"].computed) == (8, 0)
    assert (planned["odd"].computed, planned["odd"].at_most, planned["odd"].reused) == (0, 4, 4)
    planned = check(open_session(session.folder), Set(step="even", params={"divisor": None}))
    assert [(planned[step].computed, planned[step].at_most) for step in ("odd", "both", "any")] == [(0, 0)] * 3


def test_a_changed_map_above_a_filter_leaves_upper_bounds(session: Session) -> None:
    planned = check(session, Set(step="triple", params={"factor": 4}))
    assert planned["triple"].computed == 8
    assert (planned["odd"].computed, planned["odd"].at_most) == (0, 8)
    assert (planned["any"].computed, planned["any"].at_most) == (0, 8)


def test_a_branch_computes_what_it_does_not_share(session: Session) -> None:
    steps = ("odder", "any_odder")
    planned = check(session, Branch(step="odd", name="odder", params={"factor": 50}), steps)
    assert (planned["odder"].change, planned["odder"].computed, planned["any_odder"].computed) == ("new", 4, 4)
    session = open_session(session.folder)
    planned = check(session, Branch(step="odd", name="same"), ("same", "any_same"))
    assert (planned["same"].computed, planned["same"].reused, planned["any_same"].computed) == (0, 4, 0)


def test_two_new_steps_that_are_the_same_share_one_computation(session: Session) -> None:
    def edit(steps: dict[str, Any]) -> None:
        for name in ("one", "two"):
            steps[name] = {"use": f"{TOYS}:multiply", "in": {"number": "triple"}, "params": {"factor": 31}}
        del steps["newest"]

    edit_document(session, edit)
    planned = lines(plan_edit(session, Apply(), cores=2))
    made = carry_out(session, Apply())
    assert planned["newest"].change == "gone"
    assert planned["one"].computed + planned["two"].computed == made.get("one", 0) + made.get("two", 0) == 8


@pytest.mark.parametrize("command", [Restart(step="triple"), Reset(step="triple"), Restart(step="numbers")])
def test_starting_afresh_computes_everything_below(session: Session, command: Edit) -> None:
    planned = check(session, command)
    assert planned["triple"].computed == 8
    assert planned["triple"].reused == 0


def test_a_batch_is_computed_again_from_the_batches_that_are_closed(session: Session) -> None:
    planned = check(session, Restart(step="sums"), ("sums",))
    assert (planned["sums"].computed, planned["sums"].exact) == (len(read_rows(session, schema.batch)), True)


def test_a_step_fed_by_versions_runs_once_on_the_newest(session: Session) -> None:
    planned = check(session, Restart(step="newest"), ("newest",))
    assert (planned["newest"].computed, planned["newest"].exact) == (1, True)


def test_what_people_decided_by_hand_is_foreseen(session: Session) -> None:
    for unit, step in (("2", None), ("4", "triple")):
        command = Override(unit=unit, step=step, verdict="reject")
        assert submit(session, command, author="eva", settings=SETTINGS).state == "done"
    run_session(session, SETTINGS)
    planned = check(session, Restart(step="triple"))
    assert planned["triple"].computed == 6


def test_time_and_bytes_come_from_earlier_results(session: Session, tmp_path: Path) -> None:
    line = lines(plan_edit(session, Set(step="triple", params={"factor": 4}), cores=2))["triple"]
    costs = sorted(row["wall_s"] for row in read_rows(session, schema.result) if _made_by(session, row) == "triple")
    assert line.seconds == pytest.approx(8 * (costs[3] + costs[4]) / 2 / 2)
    files = [path.stat().st_size for path in (session.folder / "steps" / "triple").rglob("*.txt")]
    assert (line.new_bytes, line.old_bytes) == (sum(files), sum(files))
    fresh = make_toy_session(tmp_path / "fresh", toy_steps(3), numbers=range(3))
    assert plan_edit(fresh, Set(step="triple", params={"factor": 4}), cores=2).steps == ()


def _made_by(session: Session, row: dict[str, Any]) -> str:
    return next(one["step"] for one in read_rows(session, schema.revision) if one["id"] == row["revision"])


def test_a_step_that_never_ran_has_an_unknown_price(session: Session) -> None:
    edit_document(session, lambda steps: steps.update(scaled={"use": f"{TOYS}:scale", "in": {"number": "triple"}}))
    plan = plan_edit(session, Apply(), cores=2)
    (line,) = plan.steps
    assert (line.step, line.computed, line.seconds, line.new_bytes) == ("scaled", 8, None, None)
    assert plan.seconds is None


def test_what_cannot_run_is_told_and_nothing_is_written(session: Session) -> None:
    with pytest.raises(WorkflowError, match="no parameter 'factr'"):
        plan_edit(session, Set(step="triple", params={"factr": 4}), cores=2)
    with pytest.raises(SessionError, match="no step is called 'tripel'"):
        plan_edit(session, Restart(step="tripel"), cores=2)
    assert read_rows(session, schema.command) == []
    assert open_session(session.folder).document == session.document


def test_a_plan_is_made_while_a_runner_lives(session: Session) -> None:
    edit_document(session, lambda steps: steps["numbers"]["params"].update(stop_after=99))
    runner = start_runner(session)
    try:
        while read_rows(session, schema.runner)[0]["state"] != "running":
            assert runner.poll() is None
        planned = lines(plan_edit(session, Set(step="triple", params={"factor": 4}), cores=2))
        assert planned["triple"].computed == 8
    finally:
        runner.kill()
        runner.wait()


def test_a_step_that_was_closed_by_hand_computes_nothing(session: Session) -> None:
    assert submit(session, Close(step="odd"), author="eva", settings=SETTINGS).state == "done"
    check(session, Set(step="triple", params={"factor": 5}))
    assert lines(plan_edit(open_session(session.folder), Set(step="triple", params={"factor": 6}), cores=2))["odd"].computed == 0


@pytest.fixture
def drained(tmp_path: Path) -> Session:
    """A session in which a trigger has drained a step that the edit of the trigger lets go on."""
    steps = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 12}},
        "p": {"use": f"{TOYS}:multiply", "in": {"number": "n"}, "params": {"sleep_s": 0.1}},
        "r": {"use": f"{TOYS}:multiply", "in": {"number": "p"}, "params": {"factor": 7}},
        "g": {"use": "trigger", "in": {"items": "p"}, "params": {"count": 3, "counted": "exposures", "closes": ["p"]}},
        "q": {"use": f"{TOYS}:multiply", "in": {"number": "g"}, "params": {"factor": 5}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(12))
    run_session(session, Settings(cores=1))
    return session


def left_out(session: Session, step: str) -> int:
    return [row["status"] for (name, _), row in outcomes_of(session).items() if name == step].count("absent")


def test_what_an_edited_trigger_sets_free_is_an_upper_bound_where_it_may_drain_again(drained: Session) -> None:
    free = left_out(drained, "p")
    assert free > 0
    found = lines(plan_edit(drained, Set(step="g", params={"count": 5}), cores=1))
    assert [(found[name].change, found[name].computed, found[name].at_most) for name in ("p", "r")] == [("again", 0, free)] * 2
    assert found["q"].at_most > 0
    made = carry_out(drained, Set(step="g", params={"count": 5}))
    assert 0 < made["p"] <= free
    assert 0 < made["r"] <= free


def test_what_an_edited_trigger_sets_free_for_good_is_counted(drained: Session) -> None:
    free = left_out(drained, "p")

    def let_go(steps: dict[str, Any]) -> None:
        steps["g"]["params"] = {"count": 5, "counted": "exposures"}

    edit_document(drained, let_go)
    session = open_session(drained.folder)
    found = lines(plan_edit(session, Apply(), cores=1))
    assert [(found[name].change, found[name].computed, found[name].at_most) for name in ("p", "r")] == [("again", free, 0)] * 2
    made = carry_out(session, Apply())
    assert (made["p"], made["r"]) == (free, free)
    assert made["q"] <= found["q"].computed + found["q"].at_most


def test_the_sample_of_a_trigger_is_counted_beforehand(tmp_path: Path) -> None:
    steps = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 30}},
        "g": {"use": "trigger", "in": {"items": "n"}, "params": {"count": 3, "sample_fraction": 0.4}},
        "q": {"use": f"{TOYS}:multiply", "in": {"number": "g"}, "params": {"factor": 5}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(30))
    run_session(session, SETTINGS)
    sampled = [row["status"] for (name, _), row in outcomes_of(session).items() if name == "q"].count("item")
    assert 0 < sampled < 30
    planned = check(session, Set(step="q", params={"factor": 7}), ("q",))
    assert (planned["q"].computed, planned["q"].at_most) == (sampled, 0)
    planned = check(open_session(session.folder), Set(step="g", params={"sample_fraction": 0.8}), ("q",))
    assert 0 < planned["q"].at_most < 30 - planned["q"].reused, "those that the sample leaves out are not counted"
