"""Attempts: what a stop, a late answer, the number of workers and a power cut may and may not change."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from icestream.flow.declaration import outcomes
from icestream.flow.execution.messages import ItemMade, StoredRecord
from icestream.flow.runner.loop import Runner
from icestream.flow.scheduling import instructions
from icestream.flow.storage import schema
from icestream.flow.storage.writing import needs_durability
from icestream.settings import Settings
from toys.session import make_toy_session, outcomes_of, read_rows, results_of, start_runner, toy_steps

RUN = (
    "import sys; from pathlib import Path; from icestream.flow.runner.supervisor import run_session; "
    "from icestream.flow.storage.session import open_session; from icestream.settings import Settings; "
    "run_session(open_session(Path(sys.argv[1])), Settings(cores=2))"
)


def test_stopping_the_whole_process_group_counts_against_no_item(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(12, sleep_s=0.5), numbers=range(12))
    for _ in range(4):  # more often than an item may kill its worker
        runner = subprocess.Popen([sys.executable, "-c", RUN, str(session.folder)], start_new_session=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _works(session):
            time.sleep(0.02)
        os.killpg(runner.pid, signal.SIGTERM)
        runner.wait(60)
    assert read_rows(session, schema.failure) == []
    assert start_runner(session).wait(120) == 0
    assert {row["status"] for (step, _), row in outcomes_of(session).items() if step == "triple"} == {"item"}


def _works(session: Any) -> bool:
    if not session.store_path.exists():
        return False
    try:
        return bool(read_rows(session, schema.lease))
    except OperationalError:  # the tables are being made
        return False


def test_a_late_answer_of_another_attempt_is_discarded(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    assert start_runner(session).wait(120) == 0
    before = read_rows(session, schema.result), read_rows(session, schema.outcome)
    runner = Runner(session, Settings(cores=1))
    try:
        worker = runner.parts.place.pool.start(1)
        record = StoredRecord("Number", 1, '{"value": 666}', None, 1)
        late = ItemMade("of a runner that died", record)
        with runner.store.transaction() as connection:
            writing = runner.engine.writing(connection)
            runner.parts.results.hear(writing, late, worker.name)
            writing.flush()
    finally:
        runner.parts.place.pool.shut_down()
        runner.store.dispose()
    assert (read_rows(session, schema.result), read_rows(session, schema.outcome)) == before


def test_results_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    found = []
    for cores in (1, 3):
        session = make_toy_session(tmp_path / str(cores), toy_steps(10), numbers=range(10))
        assert start_runner(session, cores=cores).wait(120) == 0
        found.append(results_of(session))
    assert found[0] == found[1] != {}


@pytest.mark.parametrize(
    ("instruction", "durable"),
    [
        (instructions.OpenGate("g", "enough"), True),
        (instructions.CloseBatch("b", 1, (), 0, remainder=False), True),
        (instructions.Consume("a", 1, (), 0, closing=False), True),
        (instructions.DropEntry("a", 1), True),
        (instructions.Settle("d", "u", outcomes.Outcome(outcomes.Status.ITEM)), False),
        (instructions.MarkStream("d", "open", "new data"), False),
    ],
)
def test_what_a_power_cut_must_not_undo_is_synced(instruction: instructions.Instruction, durable: bool) -> None:
    assert needs_durability(instruction) is durable
