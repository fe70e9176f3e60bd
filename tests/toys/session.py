"""A session of small number steps that uses every kind of step, and a look at what came out of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from icestream.flow.declaration.registry import find_step
from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.session import Session, SessionDocument, create_session
from icestream.testing.context import StepBench

TOYS = "toys.steps"


def toy_steps(count: int, *, sleep_s: float = 0.0, **multiply: Any) -> dict[str, Any]:
    """Return a workflow with every kind of step: source, maps with joins, filter, gate, batches, accumulator, bound snapshot."""
    return {
        "numbers": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": count}},
        "triple": {
            "use": f"{TOYS}:multiply",
            "in": {"number": "numbers"},
            "params": {"factor": 3, "sleep_s": sleep_s, **multiply},
        },
        "even": {"use": f"{TOYS}:keep_multiples", "in": {"number": "triple"}},
        "odd": {"use": f"{TOYS}:multiply", "in": {"number": "even.rejected"}, "params": {"factor": 5}},
        "both": {"use": f"{TOYS}:add", "in": {"left": "numbers", "right": "even"}},
        "any": {"use": f"{TOYS}:add_all", "in": {"numbers": ["even", "odd"]}},
        "gate": {"use": f"{TOYS}:enough", "in": {"items": "both"}, "params": {"count": 3}},
        "batch": {"use": f"{TOYS}:batches", "in": {"items": "gate"}, "params": {"count": 4}},
        "sums": {"use": f"{TOYS}:add_all", "in": {"numbers": "batch"}},
        "total": {"use": f"{TOYS}:AddUp", "in": {"number": "any"}, "params": {"sleep_s": sleep_s}},
        "late": {"use": f"{TOYS}:less_total", "in": {"number": "odd", "total": "total"}},
        "newest": {"use": f"{TOYS}:report_total", "in": {"total": "total"}},
    }


ORDER_FREE = ("numbers", "triple", "even", "odd", "both", "any")
"""The steps whose results cannot depend on the order in which things happen."""


def make_toy_session(folder: Path, steps: Mapping[str, Any], *, numbers: range | list[str], store: str | None = None) -> Session:
    """Create a session in ``folder/session`` whose numbers are the files in ``folder/numbers``."""
    arrive(folder, numbers)
    document = {"name": "toy", "roots": {"numbers": "../numbers"}, "acquisition": {"pixel_size_ang": 1.5}, "steps": steps}
    return create_session(folder / "session", SessionDocument.model_validate(document | {"store": store}))


def arrive(folder: Path, numbers: range | list[str]) -> None:
    """Let numbers arrive."""
    (folder / "numbers").mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / "numbers" / str(number)).touch()


_RUN = """
import json, sys
from pathlib import Path
from icestream.flow.execution.executors import open_executor
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.settings import Settings

session = open_session(Path(sys.argv[1]))
where = json.loads(sys.argv[3])
settings = Path(where["cluster_settings"]) if "cluster_settings" in where else None
cluster = open_executor(where["executor"], session, scheduler=where.get("scheduler"), cluster_settings=settings)
run_session(session, Settings(cores=int(sys.argv[2]), cancel_grace_s=1.0), cluster=cluster)
"""


def start_runner(
    session: Session, *, die_at: str | None = None, cores: int = 2, where: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Run a session in a process of its own; ``die_at`` names a fault point.

    ``where`` names an executor and what it needs: ``executor`` with ``scheduler`` or ``cluster_settings``.
    """
    environment = dict(os.environ)
    environment.pop("ICESTREAM_DIE_AT", None)
    if die_at is not None:
        environment["ICESTREAM_DIE_AT"] = die_at
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(session.folder), str(cores), json.dumps(where or {"executor": "local"})], env=environment
    )


def let_runner_die(make: Callable[[int], Session], point: str, count: int, **how: Any) -> Session:
    """Return a session whose runner died when it came to a fault point the ``count``-th time, or as often as it gets there.

    A fast machine commits more together and so comes to some points less often. Each try has a session of its own: ``make`` gets
    the count. ``how`` is handed to `start_runner`.

    Raises
    ------
    AssertionError
        The runner never came to that point.
    """
    for number in range(count, 0, -1):
        session = make(number)
        code = start_runner(session, die_at=f"{point}:{number}", **how).wait(180)
        if code == -signal.SIGKILL:
            return session
        if code != 0:
            raise AssertionError(f"the runner ended with {code} on its way to {point}:{number}")
    raise AssertionError(f"the runner never came to {point}")


def read_rows(session: Session, table: Any) -> list[dict[str, Any]]:
    """Return all rows of a table of the store."""
    engine = engine_for(session.store_at, read_only=True)
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]
    finally:
        engine.dispose()


def active_steps(session: Session) -> dict[int, str]:
    """Return revision id → step of the active revisions."""
    return {row["id"]: row["step"] for row in read_rows(session, schema.revision) if row["state"] == "active"}


def outcomes_of(session: Session) -> dict[tuple[str, str], dict[str, Any]]:
    """Return ``(step, unit) → outcome row`` under the active revisions; units of exposures are given by name."""
    steps = active_steps(session)
    names = {row["unit"]: row["name"] for row in read_rows(session, schema.exposure)}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_rows(session, schema.outcome):
        if row["revision"] in steps:
            found[steps[row["revision"]], names.get(row["unit"], row["unit"])] = row | {"keys": json.loads(row["keys"])}
    return found


def results_of(session: Session, steps: tuple[str, ...] = ORDER_FREE) -> dict[str, tuple[str, bytes | None]]:
    """Return ``key → (record, bytes of its file)`` of the results of some steps."""
    wanted = {revision: step for revision, step in active_steps(session).items() if step in steps}
    found = {}
    for row in read_rows(session, schema.result):
        if row["revision"] in wanted:
            ref = json.loads(row["record"]).get("file")
            content = (session.folder / ref.removeprefix("session:")).read_bytes() if ref else None
            found[row["key"]] = (row["record"], content)
    return found


def replay_log(session: Session, step: str, folder: Path) -> tuple[str, list[str]]:
    """Compute an accumulator again from its own log; return the last state and the members in order."""
    revisions = {name: revision for revision, name in active_steps(session).items()}
    revision = next(row for row in read_rows(session, schema.revision) if row["id"] == revisions[step])
    declared = find_step(revision["use"])
    params = declared.params.model_validate(json.loads(revision["params"]))
    records = {row["key"]: row["record"] for row in read_rows(session, schema.result)}
    accumulator, bench = declared.call(), StepBench(folder)
    state, members = accumulator.start(params, bench), []
    log = [row for row in read_rows(session, schema.accumulator_log) if row["revision"] == revision["id"]]
    for row in sorted(log, key=lambda entry: int(entry["position"])):
        entry = json.loads(row["members"])
        items = [declared.ports[0].record.restore(records[keys["number"]], version=1, block=None) for _, keys in entry]
        exposures = [bench.exposure.__class__(unit, unit) for unit, _ in entry]
        state = accumulator.add(state, exposures, items, params, bench).state
        members += [unit for unit, _ in entry]
    return state.model_dump_json(exclude={"file"}), members
