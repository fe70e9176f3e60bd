"""Where the parts of the engine meet: live edits while a backlog is half admitted, and while work is under way."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from icestream.flow import Context, step
from icestream.flow.commands.requests import Apply, Command, Override, Restart, Retry, Set, ask
from icestream.flow.runner import backlog, engine
from icestream.flow.runner.answering import submit
from icestream.flow.runner.status import RunStatus
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import DOCUMENT, Session, open_session
from icestream.settings import Settings
from toys.session import TOYS, arrive, make_toy_session, outcomes_of, read_rows
from toys.steps import Number, WaitParams, wait_for_file

HERE = __name__
LIMIT_S = 60.0


@step.map("wait_for_all", version=1, memory_gb=0.1)
def wait_for_all(numbers: list[Number], params: WaitParams, ctx: Context) -> Number:
    """Wait with any number of numbers."""
    return wait_for_file(numbers[0], params, ctx)


@pytest.fixture(autouse=True)
def _workers_find_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admit two earlier exposures at a time, and only when nothing is ready."""
    monkeypatch.setattr(backlog, "PAGE", 2)
    monkeypatch.setattr(engine, "LOW_WATER", 1)


Act = Callable[[RunStatus], bool]
"""Acts on what a runner tells of itself; True once it has acted."""


def run(session: Session, *acts: Act, **settings: Any) -> Any:
    """Run a session; after a cycle of the runner the next act looks whether its time has come."""
    left, deadline = list(acts), time.monotonic() + LIMIT_S

    def on_change(status: RunStatus) -> None:
        assert time.monotonic() < deadline, f"it hangs: {len(left)} acts are left, {answers(session)}, {status}"
        if left and left[0](status):
            left.pop(0)

    report = run_session(session, Settings(**({"cores": 2, "cancel_grace_s": 1.0} | settings)), on_change=on_change)
    assert not left
    return report


def numbers(count: int, folder: str = "numbers") -> dict[str, Any]:
    return {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count, "folder": folder}}


def waits(source: str, **params: Any) -> dict[str, Any]:
    return {"use": f"{TOYS}:wait_for_file", "in": {"number": source}, "params": params}


def doubled(source: str, **params: Any) -> dict[str, Any]:
    return {"use": f"{TOYS}:multiply", "in": {"number": source}, "params": params}


def statuses(session: Session, name: str) -> dict[str, str]:
    found = outcomes_of(open_session(session.folder))
    return {unit: row["status"] for (of, unit), row in found.items() if of == name}


def told(session: Session, *commands: Command) -> list[int]:
    return [ask(session, command, author="eva") for command in commands]


def answers(session: Session) -> list[tuple[str, str]]:
    return [(row["state"], row["answer"]) for row in read_rows(session, schema.command)]


def of(status: RunStatus, name: str) -> Any:
    return next(one for one in status.steps if one.name == name)


def go(session: Session) -> bool:
    (session.folder / "go").touch()
    return True


def rewrite(session: Session, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    path = session.folder / DOCUMENT
    document = yaml.safe_load(path.read_text())
    change(document["steps"], document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


@pytest.mark.usefixtures("small_pages")
def test_an_entry_under_way_is_absorbed_though_its_exposures_are_late_in_the_backlog(tmp_path: Path) -> None:
    steps = {
        "n": numbers(6),
        "w": {**waits("n"), "resources": {"max_parallel": 1}},
        "d": doubled("n"),
        "total": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}, "params": {"sleep_s": 0.4}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(6))

    def edit(status: RunStatus) -> bool:
        started = of(status, "total").done >= 1 and of(status, "total").running == 1
        return started and bool(told(session, Set(step="d", params={"factor": 9})))

    def release(_: RunStatus) -> bool:
        return answers(session)[0][0] == "done" and go(session)

    run(session, edit, release)
    assert set(statuses(session, "total").values()) == {"item"}
    log = [row for row in read_rows(session, schema.accumulator_log) if row["absorbed"]]
    assert len({row["revision"] for row in log}) == 1


@pytest.mark.usefixtures("small_pages")
def test_what_runs_goes_on_after_an_edit_though_its_exposure_is_late_in_the_backlog(tmp_path: Path) -> None:
    steps = {"n": numbers(8), "w": waits("n"), "d": doubled("n")}
    session = make_toy_session(tmp_path, steps, numbers=range(2))

    def more(status: RunStatus) -> bool:
        begun = bool(of(status, "w").running == 2)
        arrive(tmp_path, range(2, 8) if begun else [])
        return begun

    def edit(status: RunStatus) -> bool:
        return of(status, "n").done == 8 and bool(told(session, Set(step="d", params={"factor": 9})))

    def release(_: RunStatus) -> bool:
        return answers(session)[0][0] == "done" and not (session.folder / "told").exists() and go(session)

    run(session, more, edit, release, newest_first=True)
    assert not (session.folder / "told").exists()
    assert set(statuses(session, "w").values()) == {"item"}


@pytest.mark.usefixtures("small_pages")
def test_a_retry_of_an_exposure_that_the_backlog_still_holds_leaves_nothing_undecided(tmp_path: Path) -> None:
    steps = {"n": numbers(8), "a": doubled("n", fail_on=[7], heal_file="session:healed")}
    session = make_toy_session(tmp_path, steps, numbers=range(8))
    run(session)
    rewrite(session, lambda steps, _: steps.update(w=waits("n")))
    (session.folder / "healed").touch()

    def again(status: RunStatus) -> bool:
        return of(status, "w").running == 2 and bool(told(session, Retry(step="a")))

    run(open_session(session.folder), again, lambda _: answers(session)[0][0] == "done" and go(session))
    assert statuses(session, "a") == dict.fromkeys(map(str, range(8)), "item")
    assert statuses(session, "w") == dict.fromkeys(map(str, range(8)), "item")
    assert all(row["settled_by"] for row in read_rows(session, schema.exposure))


def test_a_step_that_is_renamed_takes_over_what_is_running(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, {"n": numbers(2), "w": waits("n")}, numbers=range(2))

    def rename(status: RunStatus) -> bool:
        if of(status, "w").running < 2:
            return False
        rewrite(session, lambda steps, _: steps.update(anew=steps.pop("w")))
        return bool(told(session, Apply()))

    run(session, rename, lambda _: answers(session)[0][0] == "done" and go(session))
    assert statuses(session, "anew") == {"0": "item", "1": "item"}
    assert not (session.folder / "told").exists()


def test_inputs_that_changed_just_before_an_edit_do_not_end_the_runner(tmp_path: Path) -> None:
    keep = {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}, "params": {"divisor": 1}}
    union = {"use": f"{HERE}:wait_for_all", "in": {"numbers": ["a", "b"]}, "params": {"stubborn": True}, "min_inputs": 1}
    other = {**keep, "use": f"{TOYS}:keep_multiples", "in": {"number": "d"}}
    steps = {"n": numbers(1), "d": doubled("n", factor=1), "a": keep, "b": other, "u": union, "e": doubled("n")}
    session = make_toy_session(tmp_path, steps, numbers=range(1))

    def both(status: RunStatus) -> bool:
        reject = Override(unit="0", verdict="reject", step="a")
        return of(status, "u").running == 1 and bool(told(session, reject, Set(step="e", params={"factor": 7})))

    def release(status: RunStatus) -> bool:
        return [state for state, _ in answers(session)] == ["done", "done"] and of(status, "u").running == 2 and go(session)

    run(session, both, release)
    assert statuses(session, "u") == {"0": "item"}
    assert not read_rows(session, schema.lease)


def test_an_exposure_that_waits_for_its_turn_comes_from_one_source_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_UNITS", 1)
    monkeypatch.setattr(engine, "LOW_WATER", 1)
    steps = {"n": numbers(6), "w": waits("n")}
    session = make_toy_session(tmp_path, steps, numbers=range(6))
    (tmp_path / "again").mkdir()

    def add(steps: dict[str, Any], document: dict[str, Any]) -> None:
        document["roots"]["again"] = "../again"
        steps.update(again=numbers(6, "again"), v=waits("again"))

    rewrite(session, add)

    def once_more(status: RunStatus) -> bool:
        came = of(status, "n").closed
        for number in map(str, range(6) if came else ()):
            (tmp_path / "again" / number).touch()
        return bool(came)

    run(open_session(session.folder), once_more, lambda status: of(status, "again").closed and go(session))
    came = {source: statuses(session, source) for source in ("n", "again")}
    for number in map(str, range(6)):
        assert sorted(came[source][number] for source in came) == ["absent", "item"]


def test_a_source_that_brings_everything_again_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MOST_UNITS", 2)
    monkeypatch.setattr(backlog, "PAGE", 1)
    monkeypatch.setattr(engine, "LOW_WATER", 1)
    session = make_toy_session(tmp_path, {"n": numbers(8), "d": doubled("n")}, numbers=range(8))
    run(session)
    rewrite(session, lambda steps, _: steps.update(w=waits("n")))
    most: list[int] = []

    def watch(status: RunStatus) -> bool:
        most.append(of(status, "w").waiting + of(status, "w").running)
        return of(status, "n").closed and of(status, "n").done == 8 and of(status, "w").running == 2 and go(session)

    submit(session, Restart(step="n"), author="eva", settings=Settings(cores=2))
    run(open_session(session.folder), watch)
    assert max(most) <= 4
    assert statuses(session, "d") == statuses(session, "w") == dict.fromkeys(map(str, range(8)), "item")
