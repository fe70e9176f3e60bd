"""What is not there yet: a version to publish, a file of another program, the end of another stream."""

import re
from pathlib import Path
from typing import Any

import pytest

from icestream.errors import NotYet
from icestream.flow import Context, Params, step
from icestream.flow.scheduling import NoticeCause
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session
from toys.session import TOYS, active_steps, make_toy_session, outcomes_of, read_rows, replay_log
from toys.steps import Number
from virtual.machine import VirtualMachine

N = 30


def make(folder: Path, at_least: int) -> Session:
    steps: dict[str, Any] = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
        "total": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}, "params": {"at_least": at_least}},
        "late": {"use": f"{TOYS}:less_total", "in": {"number": "n", "total": "total"}},
    }
    return make_toy_session(folder, steps, numbers=range(N))


def run(session: Session, gaps: tuple[int, ...]) -> VirtualMachine:
    machine = VirtualMachine(session, seed=len(gaps))
    for gap in gaps:
        machine.start()
        machine.kill_in = gap
        machine.turn(60)
    assert machine.run_out().finished
    return machine


def versions_of(session: Session, step: str) -> list[int]:
    mine = {number for number, name in active_steps(session).items() if name == step}
    return sorted(int(row["version"]) for row in read_rows(session, schema.snapshot) if row["revision"] in mine)


def statuses(session: Session, step: str) -> set[str]:
    return {row["status"] for (name, _), row in outcomes_of(session).items() if name == step}


@pytest.mark.parametrize("gaps", [(), (9, 17, 5, 31, 12, 7), (23, 3, 3, 41, 19)], ids=["calm", "killed", "killed elsewhere"])
def test_what_has_nothing_to_publish_yet_fails_nothing_and_counts_everything(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    session = make(tmp_path, at_least=12)
    machine = run(session, gaps)
    assert machine.counts.kills == len(gaps)
    log = read_rows(session, schema.accumulator_log)
    silent = [int(row["position"]) for row in log if int(row["position"]) not in versions_of(session, "total")]
    assert silent[:1] == [1]  # the first entry is too small to be published, and is in the sum
    assert (statuses(session, "total"), statuses(session, "late")) == ({"item"}, {"item"})
    state, members = replay_log(session, "total", tmp_path / "replay")
    assert len(members) == len(set(members)) == N
    assert f'"value":{sum(range(N))}' in state
    assert NoticeCause.NOTHING_FOUND not in {row["cause"] for row in read_rows(session, schema.notice)}


def test_what_never_publishes_anything_says_so_once_and_fails_nothing(tmp_path: Path) -> None:
    session = make(tmp_path, at_least=N + 1)
    run(session, ())
    assert versions_of(session, "total") == []
    assert statuses(session, "total") == {"item"}
    assert {(row["status"], row["root"]) for (step, _), row in outcomes_of(session).items() if step == "late"} == {
        ("skipped", "total")
    }
    (told,) = [row for row in read_rows(session, schema.notice) if row["cause"] == NoticeCause.NOTHING_FOUND]
    assert (told["step"], told["level"]) == ("total", "warning")
    assert told["message"] == f"total closed without publishing anything: {N} of {N + 1} numbers"
    run(session, ())
    assert len([row for row in read_rows(session, schema.notice) if row["cause"] == NoticeCause.NOTHING_FOUND]) == 1


def test_what_another_program_has_not_made_yet_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    steps: dict[str, Any] = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 2}},
        "found": {"use": f"{__name__}:look_for", "in": {"number": "n"}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(2))
    (session.folder / "exports").mkdir(exist_ok=True)
    machine = VirtualMachine(session)
    begun_s = machine.clock.now_s
    machine.start()
    machine.turn(100)
    assert statuses(session, "found") == set()  # both wait, and what for is told at once
    (note,) = [row["note"] for row in read_rows(session, schema.board) if row["step"] == "found"]
    assert re.fullmatch(r"waiting for what is not there yet: [01] is not there \(yet\)", note)
    (session.folder / "exports" / "1").touch()
    assert machine.run_out().finished
    found = outcomes_of(session)
    assert (found["found", "1"]["status"], found["found", "0"]["status"]) == ("item", "failed")
    assert found["found", "0"]["reason"] == "0 is not there (yet)"
    assert all(not row["note"] for row in read_rows(session, schema.board) if row["step"] == "found")  # it has given up
    assert 600 <= machine.clock.now_s - begun_s < 700


class LookForParams(Params):
    """Nothing."""


@step.map("toy_look_for", version=1)
def look_for(number: Number, params: LookForParams, ctx: Context) -> Number:
    """Pass a number on when a file that is called so is in the session."""
    if not ctx.path(f"session:exports/{number.value}").exists():
        raise NotYet(f"{number.value} is not there (yet)")
    return number


@pytest.mark.parametrize("gaps", [(), (9, 17, 5, 31, 12, 7)], ids=["calm", "killed"])
def test_a_step_waits_until_a_snapshot_step_has_ended(tmp_path: Path, gaps: tuple[int, ...]) -> None:
    """As good_classes waits for select_classes, which is fed by versions alone."""
    steps: dict[str, Any] = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": N}},
        "total": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
        "chosen": {"use": f"{TOYS}:report_total", "in": {"total": "total"}},
        "late": {"use": f"{TOYS}:less_total", "in": {"number": "n", "total": "total"}, "after": ["chosen"]},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(N))
    run(session, gaps)
    assert statuses(session, "late") == {"item"}
    names = {name: number for number, name in active_steps(session).items()}
    bound = {row["version"] for row in read_rows(session, schema.binding) if row["revision"] == names["late"]}
    assert bound == {max(versions_of(session, "total"))}  # not those that there were when the exposures came
    closed = max(int(row["seq"]) for row in read_rows(session, schema.stream) if row["revision"] == names["chosen"])
    assert min(int(row["seq"]) for (step, _), row in outcomes_of(session).items() if step == "late") > closed
