"""Streams that are divided, held, drained and released in real runs, across restarts and kills."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from icestream.flow.runner.fault_points import POINTS
from icestream.flow.runner.loop import Runner
from icestream.flow.runner.reopening import release_gate, resume_step
from icestream.flow.runner.status import RunReport
from icestream.flow.runner.supervisor import run_session
from icestream.flow.scheduling import events, instructions
from icestream.flow.scheduling.batch import Batch
from icestream.flow.scheduling.collecting import Timed
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.gate import Gate
from icestream.flow.scheduling.stage import Stage
from icestream.flow.storage import resuming, schema
from icestream.flow.storage.session import Session
from icestream.flow.storage.writing import Writing, needs_durability
from icestream.flow.workflow.graph import StepSpec
from icestream.settings import Settings
from toys.session import TOYS, active_steps, arrive, let_runner_die, make_toy_session, outcomes_of, read_rows, toy_steps

MULTIPLY = f"{TOYS}:multiply"
ANN = DrainReason(Cause.PERSON, "ann", "enough")


def numbers(count: int) -> dict[str, Any]:
    return {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}}


def doubled(source: str = "n", **more: Any) -> dict[str, Any]:
    return {"use": MULTIPLY, "in": {"number": source}, **more}


def run(session: Session) -> RunReport:
    return run_session(session, Settings(cores=2))


def edited(session: Session, **steps: Any) -> Session:
    specs = {name: StepSpec.model_validate(spec) for name, spec in steps.items()}
    return replace(session, document=session.document.model_copy(update={"steps": {**session.document.steps, **specs}}))


def statuses(session: Session, step: str) -> dict[str, str]:
    return {unit: row["status"] for (name, unit), row in outcomes_of(session).items() if name == step}


def reasons(session: Session, step: str) -> set[str | None]:
    return {row["reason"] for (name, _), row in outcomes_of(session).items() if name == step}


def ask(runner: Runner, question: Callable[[Writing], object]) -> None:
    """Do what a command does, in a transaction of its own."""
    with runner.store.transaction() as connection:
        writing = runner.engine.writing(connection)
        question(writing)
        writing.flush()


def run_with(session: Session, when: Callable[[Runner], bool], then: Callable[[Runner], None], *, cores: int = 2) -> RunReport:
    """Run a session; do ``then`` once, as soon as ``when`` holds."""
    runner = Runner(session, Settings(cores=cores))
    done: list[bool] = []

    def look(_status: object) -> None:
        if not done and when(runner):
            done.append(True)
            then(runner)

    runner.on_change = look
    report = runner.run()
    assert done
    return report


def stage(runner: Runner, step: str) -> Stage:
    return runner.engine.workflow.scheduler.stages[step]


def n_done(runner: Runner, step: str) -> int:
    return runner.engine.workflow.board.counts.get(step, Counter()).get("item", 0)


# Membership --------------------------------------------------------------------------------------------------------------------


def test_membership_steps_forward_keys_so_a_moved_threshold_recomputes_nothing(tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "n": numbers(8),
        "d": doubled(),
        "k": {"use": "keep_if", "in": {"item": "d", "other": "n"}, "params": {"where": "value >= 8 and other.value != 6"}},
        "s": {"use": "subset", "in": {"item": "n", "not_in": ["k"]}},
        "u": {"use": "union", "in": {"items": ["k", "s"]}},
        "p": {"use": "split", "in": {"item": "u"}, "params": {"part": 1}},
        "q": {"use": "split", "in": {"item": "u"}, "params": {"part": 2}},
        "e": doubled("u"),
    }
    session = make_toy_session(tmp_path, steps, numbers=range(8))
    assert run(session).n_failed == 0
    outcomes = outcomes_of(session)
    kept = {"4", "5", "7"}
    assert {unit for unit, status in statuses(session, "k").items() if status == "item"} == kept
    assert outcomes["k", "6"]["reason"] == "other.value = 6, wanted other.value != 6"
    assert outcomes["k", "1"]["reason"] == "value = 2, wanted value >= 8"
    for unit in map(str, range(8)):
        source = "d" if unit in kept else "n"
        assert outcomes["u", unit]["keys"]["out"] == outcomes[source, unit]["keys"]["out"]
        assert {outcomes["p", unit]["status"], outcomes["q", unit]["status"]} == {"item", "rejected"}
    before = {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}
    moved = edited(session, k={**steps["k"], "params": {"where": "value >= 8"}})
    run(moved)
    after = {row["key"]: row["created_at"] for row in read_rows(moved, schema.result)}
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 1  # exposure 6 goes another way now
    assert statuses(moved, "k")["6"] == "item"


def test_a_subset_by_number_follows_the_order_of_arrival_after_a_restart(tmp_path: Path) -> None:
    steps = {"n": numbers(4), "s": {"use": "subset", "in": {"item": "n"}, "params": {"first": 5, "every": 2}}}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    run(session)
    arrive(tmp_path, range(4, 8))
    run(edited(session, n=numbers(8)))
    order = {row["name"]: row["ordinal"] for row in read_rows(session, schema.exposure)}
    kept = {order[unit] for unit, status in statuses(session, "s").items() if status == "item"}
    assert kept == {1, 3, 5}


def test_what_is_passed_on_weighs_what_it_weighs(tmp_path: Path) -> None:
    steps = {
        "n": numbers(5),
        "c": {"use": f"{TOYS}:gather_crowd", "in": {"number": "n"}},
        "k": {"use": "keep_if", "in": {"item": "c"}, "params": {"where": "count != 20"}},
        "s": {"use": "subset", "in": {"item": "n", "also_in": ["c"]}},
        "b": {"use": "batches", "in": {"items": "k"}, "params": {"count": 1000, "counted": "particles"}},
        "m": {"use": f"{TOYS}:count_crowds", "in": {"crowds": "b"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(5))
    assert run(session).n_failed == 0
    (batch,) = read_rows(session, schema.batch)
    assert (batch["weight"], batch["remainder"]) == (80, True)
    assert {row["weight"] for (step, _), row in outcomes_of(session).items() if step == "s"} == {1}


# Gates -------------------------------------------------------------------------------------------------------------------------


def test_a_static_trigger_that_passed_stays_passed_when_the_stream_is_open_again(tmp_path: Path) -> None:
    steps = {
        "n": numbers(5),
        "g": {"use": "trigger", "in": {"items": "n"}, "params": {"count": 3, "mode": "static"}},
        "d": doubled("g"),
        "b": {"use": "batches", "in": {"items": "g"}, "params": {"count": 2}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(5))
    run(session)
    (opening,) = read_rows(session, schema.gate_opening)
    assert (opening["reason"], opening["last"]) == ("3 of 3 exposures", True)
    assert sorted(statuses(session, "d").values()) == ["item"] * 3 + ["skipped"] * 2
    batches = read_rows(session, schema.batch)
    assert [len(json.loads(row["members"])) for row in batches] == [2, 1]
    streams = [row for row in read_rows(session, schema.stream) if active_steps(session)[row["revision"]] in ("g", "d", "b")]
    arrive(tmp_path, range(5, 8))
    run(edited(session, n=numbers(8)))
    assert statuses(session, "g")["7"] == "absent"
    assert statuses(session, "d")["7"] == "skipped"
    assert read_rows(session, schema.batch) == batches
    assert read_rows(session, schema.gate_opening) == [opening]
    after = [row for row in read_rows(session, schema.stream) if active_steps(session)[row["revision"]] in ("g", "d", "b")]
    assert after == streams  # nothing below was opened again


def test_a_clock_goes_on_after_a_restart(tmp_path: Path) -> None:
    steps = {
        "n": numbers(99),
        "g": {"use": "trigger", "in": {"items": "n"}, "params": {"count": 50, "after_h": 2}},
        "b": {"use": "batches", "in": {"items": "n"}, "params": {"count": 50, "after_h": 2}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run_with(session, lambda runner: stage(runner, "g").n_waiting == 3, lambda runner: runner.stop())
    clocks = {row["revision"]: row["started_uptime_s"] for row in read_rows(session, schema.gate_clock)}
    (row,) = read_rows(session, schema.runner)
    assert len(clocks) == 2
    assert 0 <= max(clocks.values()) <= row["uptime_s"] < 600
    assert read_rows(session, schema.gate_opening) == []

    def let_time_pass(runner: Runner) -> None:
        runner.store.uptime_s += 2 * 3600

    def opened_and_closed(runner: Runner) -> bool:
        gate, batch = stage(runner, "g"), stage(runner, "b")
        return isinstance(gate, Gate) and isinstance(batch, Batch) and gate.opened and batch.n_batches == 1

    runner = Runner(session, Settings(cores=2))
    seen: list[Any] = []

    def look(_status: object) -> None:
        if stage(runner, "g").n_waiting == 3 and not seen:
            stages = runner.engine.workflow.scheduler.stages.values()
            seen.append({one.name: one.clock_s for one in stages if isinstance(one, Timed)})
            let_time_pass(runner)
        elif opened_and_closed(runner):
            runner.stop()

    runner.on_change = look
    runner.run()
    revisions = {step: revision for revision, step in active_steps(session).items()}
    assert seen == [{step: clocks[revisions[step]] for step in "gb"}]
    assert statuses(session, "g") == {"0": "item", "1": "item", "2": "item"}
    (row,) = read_rows(session, schema.runner)
    assert row["uptime_s"] > 2 * 3600
    assert [row["revision"] for row in read_rows(session, schema.gate_clock)] == [revisions["g"]]  # that of the batch is over


def test_a_person_releases_a_manual_trigger(tmp_path: Path) -> None:
    steps = {
        "n": numbers(3),
        "g": {"use": "trigger", "in": {"items": "n"}, "params": {"manual": True}},
        "d": doubled("g"),
    }
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run_with(
        session,
        lambda runner: stage(runner, "n").closed and stage(runner, "g").n_waiting == 3,
        lambda runner: ask(runner, lambda writing: release_gate(runner.engine, writing, "g")),
    )
    assert set(statuses(session, "d").values()) == {"item"}
    (opening,) = read_rows(session, schema.gate_opening)
    assert (opening["reason"], opening["last"]) == ("released by a person", False)


def test_releasing_a_gate_that_closed_unopened_brings_back_what_it_left_out(tmp_path: Path) -> None:
    steps = {
        "n": numbers(2),
        "g": {"use": "trigger", "in": {"items": "n"}, "params": {"count": 9, "if_short": "hold"}},
        "d": doubled("g"),
    }
    session = make_toy_session(tmp_path, steps, numbers=range(2))
    run(session)
    assert statuses(session, "g") == {"0": "absent", "1": "absent"}
    run_with(session, lambda _runner: True, lambda runner: ask(runner, lambda writing: release_gate(runner.engine, writing, "g")))
    assert statuses(session, "d") == {"0": "item", "1": "item"}


# Milestones --------------------------------------------------------------------------------------------------------------------


def milestones(count: int) -> dict[str, Any]:
    return {
        "n": numbers(count),
        "c": {"use": f"{TOYS}:gather_crowd", "in": {"number": "n"}},
        "b": {"use": "milestones", "in": {"items": "c"}, "params": {"at": [30, 60]}},
        "s": {"use": f"{TOYS}:count_crowds", "in": {"crowds": "b"}},
    }


def test_milestones_hold_everything_so_far_also_after_a_restart(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, milestones(4), numbers=[str(number) for number in range(1, 5)])
    run(session)
    members = [json.loads(row["members"]) for row in read_rows(session, schema.batch)]
    units = [unit for row in members for unit, _ in row]
    assert len(units) == len(set(units)) == 4  # nothing is stored twice
    arrive(tmp_path, [str(number) for number in range(5, 9)])
    run(edited(session, n=numbers(8)))
    batches = read_rows(session, schema.batch)
    assert [json.loads(row["members"]) for row in batches][: len(members)] == members
    weights = [row["weight"] for row in batches]
    records = {
        row["key"]: json.loads(row["record"])["value"] for row in read_rows(session, schema.result) if row["unit"][:2] == "b:"
    }
    outcomes = outcomes_of(session)
    totals = [records[outcomes["s", f"b:{number:06d}"]["keys"]["out"]] for number in range(1, len(batches) + 1)]
    assert totals == [sum(weights[: index + 1]) for index in range(len(weights))]
    assert totals[-1] == 360
    inputs = sorted(row["inputs"] for row in read_rows(session, schema.result) if row["unit"][:2] == "b:")  # two at a time
    assert inputs == [json.dumps({"crowds": [f"b:{number:06d}"]}) for number in range(1, len(batches) + 1)]
    assert all(total >= 30 for total in totals)


def test_a_failed_milestone_is_retried_with_all_its_members(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, milestones(6), numbers=[str(number) for number in range(1, 7)])
    run(session)
    runner = Runner(session, Settings(cores=1))
    try:
        with runner.store.transaction() as connection:
            last = len(read_rows(session, schema.batch))
            unit = resuming.load_unit(connection, runner.engine.workflow.revisions, f"b:{last:06d}", domain="batch:b")
    finally:
        runner.store.close("looked")
    assert len(unit.outcomes["b"].keys) == 6
    assert unit.outcomes["b"].weight == 210


# Drained steps ---------------------------------------------------------------------------------------------------------------


def test_draining_withdraws_what_has_not_begun_and_outlasts_a_restart(tmp_path: Path) -> None:
    steps = {"n": numbers(30), "d": doubled(params={"sleep_s": 0.05}), "e": doubled("d")}
    session = make_toy_session(tmp_path, steps, numbers=range(30))
    run_with(
        session,
        lambda runner: n_done(runner, "n") == 30 and n_done(runner, "d") >= 2,
        lambda runner: ask(runner, lambda writing: runner.engine.handle(writing, events.Drained("d", ANN))),
        cores=1,
    )
    first = statuses(session, "d")
    assert set(first.values()) == {"item", "absent"}
    assert statuses(session, "e") == {unit: "item" if status == "item" else "skipped" for unit, status in first.items()}
    assert read_rows(session, schema.lease) == []
    run(session)
    assert statuses(session, "d") == first
    assert [(row["step"], row["state"]) for row in read_rows(session, schema.drain)] == [("d", "drained")]
    run_with(session, lambda _runner: True, lambda runner: ask(runner, lambda writing: resume_step(runner.engine, writing, "d")))
    assert set(statuses(session, "e").values()) == {"item"}
    assert [(row["step"], row["state"]) for row in read_rows(session, schema.drain)] == [("d", "drained"), ("d", "resumed")]


def test_a_drained_source_takes_nothing_until_it_goes_on(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(6), "d": doubled()}, numbers=range(3))
    run_with(
        session,
        lambda runner: n_done(runner, "n") == 3,
        lambda runner: ask(runner, lambda writing: runner.engine.handle(writing, events.Drained("n", ANN))),
    )
    arrive(tmp_path, range(3, 6))
    run(session)
    assert len(statuses(session, "n")) == 3
    run_with(session, lambda _runner: True, lambda runner: ask(runner, lambda writing: resume_step(runner.engine, writing, "n")))
    assert statuses(session, "d") == {str(number): "item" for number in range(6)}


def test_a_trigger_stops_a_step_above_for_good(tmp_path: Path) -> None:
    steps = {
        "n": numbers(12),
        "p": doubled(),
        "c": {"use": f"{TOYS}:gather_crowd", "in": {"number": "p"}},
        "g": {"use": "trigger", "in": {"items": "c"}, "params": {"count": 100, "counted": "particles", "closes": ["p"]}},
        "b": {"use": "batches", "in": {"items": "g"}, "params": {"count": 9999}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(12))
    run(session)
    (drain,) = read_rows(session, schema.drain)
    assert (drain["step"], drain["state"], drain["cause"], drain["by"]) == ("p", "drained", "gate", "g")
    assert drain["reason"].endswith("of 100 particles")
    (batch,) = read_rows(session, schema.batch)
    assert batch["remainder"]
    assert batch["weight"] >= 100
    before = outcomes_of(session)
    run(session)
    assert outcomes_of(session) == before


# After -------------------------------------------------------------------------------------------------------------------------


def made_by(session: Session) -> dict[str, list[float]]:
    """Return step → when its results were committed."""
    found: dict[str, list[float]] = {}
    for row in read_rows(session, schema.result):
        found.setdefault(active_steps(session)[row["revision"]], []).append(row["created_at"])
    return found


def test_a_step_waits_for_a_stream_and_changing_that_recomputes_nothing(tmp_path: Path) -> None:
    steps = {"n": numbers(6), "d": doubled(params={"sleep_s": 0.02}), "e": doubled("n", params={"factor": 7}, after=["d"])}
    session = make_toy_session(tmp_path, steps, numbers=range(6))
    run(session)
    made = made_by(session)
    assert len(made["d"]) == len(made["e"]) == 6
    assert max(made["d"]) < min(made["e"])
    rows = read_rows(session, schema.revision), read_rows(session, schema.result)
    run(edited(session, e=doubled("n", params={"factor": 7})))
    assert (read_rows(session, schema.revision), read_rows(session, schema.result)) == rows


def test_what_waits_for_a_stream_waits_again_after_a_restart(tmp_path: Path) -> None:
    steps = {"n": numbers(99), "d": doubled(), "e": doubled("n", params={"factor": 7}, after=["d"])}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    run_with(session, lambda runner: n_done(runner, "d") == 4, lambda runner: runner.stop())
    assert statuses(session, "e") == {}
    arrive(tmp_path, range(4, 6))
    run(edited(session, n=numbers(6)))
    made = made_by(session)
    assert len(made["d"]) == len(made["e"]) == 6
    assert max(made["d"]) < min(made["e"])


# Kills -------------------------------------------------------------------------------------------------------------------------


def flow_steps(count: int) -> dict[str, Any]:
    """Return a workflow with a row of every kind that decides about streams."""
    return {
        "n": numbers(count),
        "p": doubled(params={"sleep_s": 0.01}),
        "g": {"use": "trigger", "in": {"items": "n"}, "params": {"count": 6, "mode": "static", "closes": ["p"], "after_h": 9}},
        "b": {"use": "batches", "in": {"items": "g"}, "params": {"count": 4, "after_h": 9}},
        "m": {"use": "milestones", "in": {"items": "n"}, "params": {"at": [3], "counted": "exposures"}},
        "s": {"use": f"{TOYS}:add_all", "in": {"numbers": "m"}},
        "a": {"use": f"{TOYS}:add_all", "in": {"numbers": "b"}, "after": ["p"]},
    }


def decided_by_order(session: Session) -> dict[str, Any]:
    """Return what depends on the order of arrival alone."""
    steps = active_steps(session)
    return {
        "gate": [(row["reason"], row["last"]) for row in read_rows(session, schema.gate_opening)],
        "batches": [
            (steps[row["revision"]], row["number"], row["members"], row["weight"]) for row in read_rows(session, schema.batch)
        ],
        "drains": [(row["step"], row["state"], row["by"], row["reason"]) for row in read_rows(session, schema.drain)],
        "outcomes": {
            name: (row["status"], row["reason"], row["keys"]) for name, row in outcomes_of(session).items() if name[0] in "gbmsa"
        },
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = make_toy_session(tmp_path_factory.mktemp("calm"), flow_steps(10), numbers=range(10))
    assert run(session).finished
    return session


KILLS = [(point, 3) for point in POINTS if point not in ("claimed", "source_started", "before_drop_files", "before_close")]


@pytest.mark.parametrize(("point", "count"), [*KILLS, ("before_close", 1), ("before_commit", 7)])
def test_a_runner_that_dies_decides_about_streams_as_one_that_does_not(
    point: str, count: int, tmp_path: Path, undisturbed: Session
) -> None:
    def make(number: int) -> Session:
        return make_toy_session(tmp_path / str(number), flow_steps(10), numbers=range(10))

    session = let_runner_die(make, point, count)
    assert run(session).finished
    mine, calm = decided_by_order(session), decided_by_order(undisturbed)
    assert sorted(mine.pop("batches")) == sorted(calm.pop("batches"))
    assert mine == calm
    assert set(statuses(session, "p").values()) <= {"item", "absent"}
    assert len(statuses(session, "p")) == 10
    assert read_rows(session, schema.lease) == []


@pytest.mark.parametrize(
    "instruction",
    [
        instructions.Drain("p", ANN),
        instructions.OpenGate("g", "x", last=True),
        instructions.StartClock("g", 1.0),
        instructions.CloseBatch("b", 1, (), 0, remainder=False),
    ],
)
def test_decisions_about_streams_are_committed_durably(instruction: instructions.Instruction) -> None:
    assert needs_durability(instruction)


def test_what_an_entry_took_is_counted_once(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(4), numbers=range(4))
    run_session(session, Settings(cores=2))
    mine = _revision_of(session, "total")
    entries = sum(row["revision"] == mine for row in read_rows(session, schema.snapshot))
    rows = [row for row in read_rows(session, schema.result) if row["revision"] == mine]
    timed = [row for row in rows if row["wall_s"] > 0]
    assert (len(timed), len(rows)) == (entries, entries + 4)
    assert all(row["cpu_s"] == 0 for row in rows if row not in timed)


def _revision_of(session: Session, step: str) -> int:
    return next(number for number, name in active_steps(session).items() if name == step)
