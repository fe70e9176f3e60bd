"""The sentences of the design that the engine holds from its first store on, each shown by a run."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from icestream.errors import SessionBusy, SessionError, StaleRunner
from icestream.flow.declaration.file_refs import resolve_ref
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.database import check_file_system
from icestream.flow.storage.session import Session, SessionDocument, create_session, open_session
from icestream.flow.storage.store import Store, append_command
from icestream.flow.workflow.graph import StepSpec
from icestream.settings import Settings
from toys.session import TOYS, active_steps, arrive, make_toy_session, outcomes_of, read_rows, start_runner, toy_steps

NUMBERS = f"{TOYS}:count_numbers"
MULTIPLY = f"{TOYS}:multiply"


def run(session: Session) -> Any:
    return run_session(session, Settings(cores=2))


def numbers(count: int) -> dict[str, Any]:
    return {"use": NUMBERS, "params": {"stop_after": count}}


def edited(session: Session, **steps: Any) -> Session:
    """Return the session with some steps replaced, as after editing session.yaml."""
    specs = {name: StepSpec.model_validate(spec) for name, spec in steps.items()}
    return replace(session, document=session.document.model_copy(update={"steps": {**session.document.steps, **specs}}))


def made_at(session: Session) -> dict[str, float]:
    return {row["key"]: row["created_at"] for row in read_rows(session, schema.result)}


def test_every_origin_gets_an_outcome_from_every_step(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(9, fail_on=[4]), numbers=[*map(str, range(8)), "broken"])
    report = run(session)
    assert report.finished
    assert report.n_failed == 2
    outcomes = outcomes_of(session)
    exposure_steps = [step for step in active_steps(session).values() if step not in ("sums", "newest")]
    names = {row["name"] for row in read_rows(session, schema.exposure)}
    assert {(step, name) for step in exposure_steps for name in names} <= set(outcomes)
    assert outcomes["numbers", "broken"]["status"] == "failed"
    assert (outcomes["triple", "broken"]["status"], outcomes["triple", "broken"]["root"]) == ("skipped", "numbers")
    assert (outcomes["total", "4"]["status"], outcomes["total", "4"]["root"]) == ("skipped", "triple")
    assert outcomes["total", "4"]["reason"] == "4 is refused"


def test_a_filter_forwards_the_key_so_moving_a_threshold_recomputes_nothing(tmp_path: Path) -> None:
    steps = {
        "n": numbers(8),
        "d": {"use": MULTIPLY, "in": {"number": "n"}},
        "f": {"use": f"{TOYS}:keep_multiples", "in": {"number": "d"}, "params": {"divisor": 4}},
        "e": {"use": MULTIPLY, "in": {"number": "f"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(8))
    run(session)
    before, outcomes = made_at(session), outcomes_of(session)
    assert outcomes["f", "2"]["keys"]["out"] == outcomes["d", "2"]["keys"]["out"]
    assert outcomes["e", "1"]["status"] == "skipped"
    again = edited(session, f={**steps["f"], "params": {"divisor": 2}})
    run(again)
    after = made_at(again)
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 4  # the four multiples of 2 that are not multiples of 4, in e
    assert outcomes_of(again)["e", "1"]["status"] == "item"


def test_identical_steps_share_results_but_never_outcomes(tmp_path: Path) -> None:
    steps = {"n": numbers(4), "d": {"use": MULTIPLY, "in": {"number": "n"}}, "e": {"use": MULTIPLY, "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(4))
    run(session)
    outcomes = outcomes_of(session)
    assert all(outcomes["d", str(i)]["keys"] == outcomes["e", str(i)]["keys"] for i in range(4))
    assert len(read_rows(session, schema.result)) == 8


def test_an_edit_gives_descendants_new_revisions_and_keeps_the_old(tmp_path: Path) -> None:
    steps = {
        "n": numbers(3),
        "d": {"use": MULTIPLY, "in": {"number": "n"}},
        "e": {"use": MULTIPLY, "in": {"number": "d"}},
        "x": {"use": MULTIPLY, "in": {"number": "n"}, "params": {"factor": 7}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run(session)
    old = {row["key"] for row in read_rows(session, schema.result)}
    run(edited(session, d={**steps["d"], "params": {"factor": 11}}))
    revisions = [(row["step"], row["number"], row["state"]) for row in read_rows(session, schema.revision)]
    assert set(revisions) == {
        ("n", 1, "active"),
        ("d", 1, "frozen"),
        ("d", 2, "active"),
        ("e", 1, "frozen"),
        ("e", 2, "active"),
        ("x", 1, "active"),
    }
    assert old < {row["key"] for row in read_rows(session, schema.result)}


def test_going_back_to_earlier_parameters_finds_the_earlier_results(tmp_path: Path) -> None:
    steps = {"n": numbers(3), "d": {"use": MULTIPLY, "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run(session)
    first = made_at(session)
    run(edited(session, d={**steps["d"], "params": {"factor": 9}}))
    run(session)
    assert {key: at for key, at in made_at(session).items() if key in first} == first
    assert len(made_at(session)) == 3 + 3 + 3


def test_operational_parameters_change_nothing(tmp_path: Path) -> None:
    steps = {"n": numbers(3), "d": {"use": MULTIPLY, "in": {"number": "n"}}}
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run(session)
    run(edited(session, d={**steps["d"], "params": {"sleep_s": 0.01}}))
    assert [row["number"] for row in read_rows(session, schema.revision)] == [1, 1]


def test_acquisition_values_enter_only_the_keys_of_steps_that_read_them(tmp_path: Path) -> None:
    steps = {
        "n": numbers(3),
        "d": {"use": MULTIPLY, "in": {"number": "n"}},
        "s": {"use": f"{TOYS}:scale", "in": {"number": "n"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run(session)
    before = outcomes_of(session)
    acquisition = session.document.acquisition.model_copy(update={"pixel_size_ang": 1.7})
    corrected = replace(session, document=session.document.model_copy(update={"acquisition": acquisition}))
    run(corrected)
    after = outcomes_of(corrected)
    assert all(after["d", str(i)]["keys"] == before["d", str(i)]["keys"] for i in range(3))
    assert all(after["s", str(i)]["keys"] != before["s", str(i)]["keys"] for i in range(3))


def test_a_retry_redoes_the_failed_and_what_was_skipped_for_it(tmp_path: Path) -> None:
    steps = toy_steps(8, fail_on=[4], heal_file="session:healed")
    session = make_toy_session(tmp_path, steps, numbers=range(8))
    assert run(session).n_failed == 1
    (session.folder / "healed").touch()
    append_command(session.store_path, "retry", {"step": "triple", "unit": None}, author="operator")
    assert run(session).n_failed == 0
    outcomes = outcomes_of(session)
    assert {outcomes[step, "4"]["status"] for step in ("triple", "even", "both", "any", "gate", "total")} == {"item"}
    (command,) = read_rows(session, schema.command)
    assert (command["state"], command["author"]) == ("done", "operator")
    assert command["answer"].startswith("1 to be retried")


def test_a_broken_arrival_is_not_retried_but_explained(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(2)}, numbers=["1", "broken"])
    run(session)
    append_command(session.store_path, "retry", {"step": None, "unit": None}, author="operator")
    run(session)
    (command,) = read_rows(session, schema.command)
    assert "1 arrived broken" in command["answer"]


def test_an_unknown_command_is_refused_with_an_answer(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(1)}, numbers=range(1))
    run(session)
    append_command(session.store_path, "explode", {}, author="nobody")
    run(session)
    (command,) = read_rows(session, schema.command)
    assert command["state"] == "refused"
    assert command["answer"].startswith("no command is called 'explode'; known: ")
    assert "retry" in command["answer"]


def test_an_unexpected_error_is_stored_with_its_traceback_and_the_stream_goes_on(tmp_path: Path) -> None:
    steps = {"n": numbers(5), "d": {"use": MULTIPLY, "in": {"number": "n"}, "params": {"break_on": [3]}}}
    session = make_toy_session(tmp_path, steps, numbers=range(5))
    assert run(session).n_failed == 1
    failures = read_rows(session, schema.failure)
    assert len(failures) == 2  # tried again once
    assert "ZeroDivisionError" in failures[0]["traceback"]
    assert outcomes_of(session)["d", "3"]["reason"] == "ZeroDivisionError: 3 breaks the step"


def test_a_snapshot_is_bound_at_first_dispatch(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(8), numbers=range(8))
    run(session)
    steps = active_steps(session)
    snapshots = {row["version"]: row["key"] for row in read_rows(session, schema.snapshot) if steps[row["revision"]] == "total"}
    bindings = [row for row in read_rows(session, schema.binding) if steps[row["revision"]] == "late"]
    assert len(bindings) == sum(step == "late" and row["status"] == "item" for (step, _), row in outcomes_of(session).items())
    assert all(snapshots[row["version"]] == row["key"] for row in bindings)
    before = {(row["unit"], row["port"]): row["key"] for row in bindings}
    arrive(tmp_path, range(8, 12))
    run(edited(session, numbers=numbers(12)))
    after = {(row["unit"], row["port"]): row["key"] for row in read_rows(session, schema.binding)}
    assert {slot: after[slot] for slot in before} == before


def test_a_stream_is_reopened_by_running_again_with_new_data(tmp_path: Path) -> None:
    steps = {**toy_steps(6)}
    session = make_toy_session(tmp_path, steps, numbers=range(6))
    run(session)
    batches = [row["members"] for row in read_rows(session, schema.batch)]
    arrive(tmp_path, range(6, 10))
    report = run(edited(session, numbers=numbers(10)))
    assert report.finished
    assert outcomes_of(session)["total", "8"]["status"] == "item"
    assert [row["members"] for row in read_rows(session, schema.batch)][: len(batches)] == batches  # never undone
    steps_of = active_steps(session)
    states = [row["state"] for row in read_rows(session, schema.stream) if steps_of[row["revision"]] == "triple"]
    assert states == ["open", "closed", "open", "closed"]


def test_running_again_with_nothing_new_changes_nothing(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(6))
    of_the_moment = ("runner", "board")
    tables = [table for table in schema.metadata.sorted_tables if table.name not in of_the_moment]
    run(session)
    before = {table.name: read_rows(session, table) for table in tables}
    run(session)
    after = {table.name: read_rows(session, table) for table in tables}
    assert after == before


def test_a_second_runner_is_refused_and_a_stale_one_cannot_commit(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(60), numbers=range(5))
    runner = start_runner(session)
    try:
        _wait_for(lambda: session.store_path.exists() and bool(_tables(session)) and bool(read_rows(session, schema.outcome)))
        with pytest.raises(SessionBusy, match=f"process {runner.pid}"):
            run(session)
    finally:
        runner.kill()
        runner.wait()
    stale, fresh = Store(session.store_path), Store(session.store_path)
    stale.claim()
    with fresh._durable.begin() as connection:  # noqa: SLF001 - plays a takeover by another host
        connection.execute(update(schema.runner).values(fence=stale.fence + 1))
    with pytest.raises(StaleRunner, match="taken over"), stale.transaction() as connection:
        connection.execute(schema.notice.insert().values(seq=10**6, level="info", message="late", at=0.0))
    assert not [row for row in read_rows(session, schema.notice) if row["message"] == "late"]
    stale.dispose()
    fresh.dispose()


def _tables(session: Session) -> list[str]:
    with closing(sqlite3.connect(f"file:{session.store_path}?mode=ro", uri=True)) as connection, connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master where name in ('outcome', 'runner')")]
    connection.close()
    return names if len(names) == 2 else []


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_value_from_another_step_is_a_parameter_and_part_of_the_key(tmp_path: Path) -> None:
    steps = {
        "n": numbers(3),
        "d": {"use": MULTIPLY, "in": {"number": "n"}},
        "e": {"use": MULTIPLY, "in": {"number": "n"}, "params": {"factor": {"from": "d.value"}}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(3))
    run(session)
    results = {row["key"]: json.loads(row["record"])["value"] for row in read_rows(session, schema.result)}
    outcomes = outcomes_of(session)
    assert [results[outcomes["e", str(i)]["keys"]["out"]] for i in range(3)] == [i * 2 * i for i in range(3)]


def test_a_list_input_records_who_was_missing(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(4), numbers=range(4))
    run(session)
    assert json.loads(outcomes_of(session)["any", "1"]["missing"]) == ["even"]
    assert json.loads(outcomes_of(session)["any", "2"]["missing"]) == ["odd"]


def test_a_batch_that_one_item_spoils_sets_that_item_aside(tmp_path: Path) -> None:
    steps = {"n": numbers(12), "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}, "params": {"fail_on": [5]}}}
    session = make_toy_session(tmp_path, steps, numbers=range(12))
    run(session)
    outcomes = outcomes_of(session)
    assert [unit for (step, unit), row in outcomes.items() if step == "t" and row["status"] == "failed"] == ["5"]
    last = max((row for row in read_rows(session, schema.accumulator_log)), key=lambda row: int(row["position"]))
    assert json.loads(last["state"])["value"] == sum(range(12)) - 5


def test_a_session_folder_can_be_moved(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path / "here", toy_steps(5), numbers=range(5))
    run(session)
    before = made_at(session)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = open_session(tmp_path / "there" / "session")
    arrive(tmp_path / "there", range(5, 6))
    run(edited(moved, numbers=numbers(6)))
    assert {key: made_at(moved)[key] for key in before} == before
    assert str(tmp_path) not in json.dumps([str(row) for row in read_rows(moved, schema.result)])


def test_a_store_of_another_schema_is_refused(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(1)}, numbers=range(1))
    run(session)
    store = Store(session.store_path)
    with store._durable.begin() as connection:  # noqa: SLF001 - plays a newer version
        connection.execute(update(schema.runner).values(schema_version=99))
    with pytest.raises(
        SessionError, match=f"has schema 99, but this version of icestream reads {schema.SCHEMA_VERSION} and older"
    ):
        run(session)
    store.dispose()


def test_a_store_that_is_no_database_is_refused(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(1)}, numbers=range(1))
    session.store_path.write_bytes(b"this is not a database, it is a letter to the operator" * 100)
    with pytest.raises(SessionError, match="cannot be used as a store"):
        run(session)


def test_a_network_file_system_is_refused_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    class Part:
        mountpoint, fstype = "/data", "nfs4"

    monkeypatch.setattr("psutil.disk_partitions", lambda **_: [Part])
    with pytest.raises(SessionError, match=r"network file system \(nfs4 at /data\).*set `store:`"):
        check_file_system(Path("/data/session/icestream.db"))
    check_file_system(Path("/local/icestream.db"))


def test_the_session_document_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "session.yaml").write_text("name: x\nsteps: {}\nacquisition: {voltage_kv: -3}\nflavour: sweet\n")
    with pytest.raises(SessionError) as refused:
        open_session(tmp_path)
    assert "voltage_kv" in str(refused.value)
    assert "flavour" in str(refused.value)
    with pytest.raises(SessionError, match="is not a session"):
        open_session(tmp_path / "nothing")


def test_a_reference_cannot_leave_its_root(tmp_path: Path) -> None:
    roots = {"movies": str(tmp_path)}
    assert resolve_ref(roots, "movies:a/b.mrc") == tmp_path / "a" / "b.mrc"
    with pytest.raises(SessionError, match="leads out of its root"):
        resolve_ref(roots, "movies:a/../../secret")
    document = SessionDocument.model_validate({"name": "x", "roots": {"Session": "."}, "steps": {}})
    with pytest.raises(SessionError, match="a root's name"):
        create_session(tmp_path / "s", document)
