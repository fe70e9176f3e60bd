"""What a closing left out waits again when the stream is open again."""

from pathlib import Path
from typing import Any

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.settings import Settings
from toys.session import TOYS, arrive, make_toy_session, outcomes_of, read_rows


def run(session: Session) -> None:
    assert run_session(session, Settings(cores=2)).finished


def statuses(session: Session, step: str) -> dict[str, str]:
    return {unit: row["status"] for (name, unit), row in outcomes_of(session).items() if name == step}


def wait_for(session: Session, count: int) -> Session:
    text = (session.folder / "session.yaml").read_text()
    old = next(line for line in text.splitlines() if "stop_after" in line)
    (session.folder / "session.yaml").write_text(text.replace(old, f"      stop_after: {count}"))
    return open_session(session.folder)


def workflow(**more: Any) -> dict[str, Any]:
    return {"n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 2}}, **more}


def test_a_gate_that_closed_too_early_counts_what_it_left_out(tmp_path: Path) -> None:
    steps = workflow(
        g={"use": f"{TOYS}:enough", "in": {"items": "n"}, "params": {"count": 3}},
        d={"use": f"{TOYS}:multiply", "in": {"number": "g"}},
    )
    session = make_toy_session(tmp_path, steps, numbers=range(2))
    run(session)
    assert statuses(session, "g") == {"0": "absent", "1": "absent"}
    before = read_rows(session, schema.outcome)
    run(session)
    assert read_rows(session, schema.outcome) == before  # nothing new came: nothing is touched
    arrive(tmp_path, range(2, 3))
    run(wait_for(session, 3))
    assert statuses(session, "g") == statuses(session, "d") == {"0": "item", "1": "item", "2": "item"}


def test_a_snapshot_that_comes_after_a_closing_is_used(tmp_path: Path) -> None:
    steps = workflow(
        f={"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}, "params": {"divisor": 7}},
        t={"use": f"{TOYS}:AddUp", "in": {"number": "f"}},
        late={"use": f"{TOYS}:less_total", "in": {"number": "n", "total": "t"}},
    )
    session = make_toy_session(tmp_path, steps, numbers=["1", "2"])
    run(session)
    assert statuses(session, "late") == {"1": "skipped", "2": "skipped"}
    arrive(tmp_path, ["7"])
    run(wait_for(session, 3))
    assert statuses(session, "late") == {"1": "item", "2": "item", "7": "item"}


def test_that_a_step_failed_for_all_it_had_is_told_once_for_each_closing(tmp_path: Path) -> None:
    session = make_toy_session(
        tmp_path, workflow(d={"use": f"{TOYS}:multiply", "in": {"number": "n"}, "params": {"fail_on": [0, 1]}}), numbers=range(2)
    )
    run(session)
    run(session)
    told = [row["message"] for row in read_rows(session, schema.notice)]
    assert told == ["d failed for all 2 exposures it had"]
    arrive(tmp_path, range(2, 3))
    run(wait_for(session, 3))
    assert [row["message"] for row in read_rows(session, schema.notice)] == told
    assert statuses(session, "d") == {"0": "failed", "1": "failed", "2": "item"}
