"""A store of version 1, made of that version's own statements: views read it, a runner migrates it after a backup."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, inspect, select, text, update
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionError, StoreUnavailable
from icestream.flow.commands.requests import Recompute
from icestream.flow.runner.answering import submit
from icestream.flow.runner.contradictions import warn_of_contradictions
from icestream.flow.runner.supervisor import run_session
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.storage import migrating, schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.drains import load_drains
from icestream.flow.storage.location import Server
from icestream.flow.storage.session import Session
from icestream.flow.storage.store import Store, append_command
from icestream.flow.storage.store_schema import SCHEMA_VERSION
from icestream.flow.storage.writing import Writing
from icestream.observe.queries import open_view
from icestream.records import Acquisition
from icestream.settings import Settings
from services.postgres import ThrowawayServer
from toys.session import active_steps, make_toy_session, outcomes_of, read_rows, toy_steps

TABLES = (Path(__file__).parent / "schema_v1.sql").read_text(encoding="utf-8")
NEW_IN_2 = {"override", "document", "board", "gate_clock", "stale"}
NEW_IN_3 = {"recompute"}
NEW_IN_5 = {"drain"}
NEW_IN_7 = {"removal", "removed_file"}
NEW_NOTICE_COLUMNS = ("cause", "subject", "by")


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Session:
    session = make_toy_session(tmp_path_factory.mktemp("whole"), toy_steps(7, fail_on=[4]), numbers=range(7))
    run_session(session, Settings(cores=2))
    write_as_version_1(session.store_path)
    return session


@pytest.fixture
def old(processed: Session, tmp_path: Path) -> Session:
    shutil.copytree(processed.folder.parent, tmp_path / "copy")
    return Session(tmp_path / "copy" / "session", processed.document)


def write_as_version_1(path: Path) -> None:
    """Put the rows of a store into the tables of version 1."""
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.rename(path.with_name("new.db"))
    with closing(sqlite3.connect(path)) as store:
        store.executescript(TABLES)
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("ATTACH ? AS new", (str(path.with_name("new.db")),))
        for (table,) in store.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            columns = ", ".join(f'"{row[1]}"' for row in store.execute(f"PRAGMA main.table_info('{table}')"))
            store.execute(f'INSERT INTO main."{table}" ({columns}) SELECT {columns} FROM new."{table}"')  # noqa: S608
        store.execute("UPDATE main.runner SET schema_version = 1")
        store.commit()
    for leftover in path.parent.glob("new.db*"):
        leftover.unlink()


def content_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        names = [row[0] for row in store.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: store.execute(f'SELECT * FROM "{name}"').fetchall() for name in names}  # noqa: S608


def test_the_old_store_is_one_of_version_1(old: Session) -> None:
    content = content_of(old.store_path)
    assert not (NEW_IN_2 | NEW_IN_3 | NEW_IN_5 | NEW_IN_7) & set(content)
    assert len(content["outcome"]) > 50
    assert len(content["runner"][0]) == 10


def test_views_read_the_old_store_and_leave_it_as_it_is(old: Session) -> None:
    before = content_of(old.store_path)
    with open_view(old) as view:
        assert view.overview().exposures == 7
        assert {step.name: step.counts.item for step in view.steps()}["triple"] == 6
        assert view.trace("3").steps[0].status == "item"
        assert [item.exposure for item in view.failed("triple")] == ["4"]
        assert view.changes_since(0)
        assert len(list(view.records("triple"))) == 6
        assert view.snapshots("total")
        assert view.notices() == []
    assert content_of(old.store_path) == before


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("trace", "3"), ("failed",), ("report",)])
def test_commands_that_look_work_on_the_old_store(old: Session, command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [command[0], str(old.folder), *command[1:]])
    assert answer.exit_code == 0, answer.output
    assert read_version(old.store_path) == 1


def read_version(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        return int(store.execute("SELECT schema_version FROM runner").fetchone()[0])


def test_a_runner_migrates_after_a_backup_and_computes_nothing_again(old: Session) -> None:
    before = content_of(old.store_path)
    made = {row["key"]: row["created_at"] for row in _results(old.store_path)}
    append_command(old.store_path, "retry", {"step": "triple", "unit": None}, author="old")
    assert run_session(old, Settings(cores=2)).finished
    assert read_version(old.store_path) == SCHEMA_VERSION
    assert {row["key"]: row["created_at"] for row in read_rows(old, schema.result)} == made
    assert outcomes_of(old)["triple", "4"]["status"] == "failed"
    backup = content_of(old.store_path.with_name("icestream.db.v1.bak"))
    assert {name: rows for name, rows in backup.items() if name not in ("command", "runner", "lease")} == {
        name: rows for name, rows in before.items() if name not in ("command", "runner", "lease")
    }


def _results(path: Path) -> list[dict[str, object]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        return [dict(zip(("key", "created_at"), row, strict=True)) for row in store.execute("SELECT key, created_at FROM result")]


def test_a_migrated_store_has_the_tables_of_a_new_one(old: Session, tmp_path: Path) -> None:
    new = Store(tmp_path / "new.db")
    shapes = []
    for store in (Store(old.store_path), new):
        store.claim()
        store.close("done")
        engine = engine_for(store.location, read_only=True)
        shapes.append(_shape(inspect(engine)))
        engine.dispose()
    assert shapes[0] == shapes[1]


def _shape(seen: Inspector) -> dict[str, object]:
    shapes: dict[str, object] = {}
    for table in seen.get_table_names():
        columns = {
            column["name"]: (str(column["type"]).replace("BIGINT", "INTEGER"), column["nullable"], column.get("primary_key"))
            for column in seen.get_columns(table)
        }
        indexes = sorted((index["name"], tuple(index["column_names"]), index["unique"]) for index in seen.get_indexes(table))
        unique = sorted(tuple(one["column_names"]) for one in seen.get_unique_constraints(table))
        keys = sorted((tuple(one["constrained_columns"]), one["referred_table"]) for one in seen.get_foreign_keys(table))
        shapes[table] = (columns, indexes, unique, keys)
    return shapes


def test_the_newest_migration_leads_to_the_version_of_the_schema() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrating.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == str(SCHEMA_VERSION)


def test_without_room_for_the_backup_nothing_is_migrated(old: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_of(old.store_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: _Usage)
    with pytest.raises(StoreUnavailable, match=r"v1\.bak: a copy of the store needs \d+ MiB, and 1 MiB are free there"):
        run_session(old, Settings(cores=1))
    after = content_of(old.store_path)
    assert {name: rows for name, rows in after.items() if name != "runner"} == {
        name: rows for name, rows in before.items() if name != "runner"
    }
    assert after["runner"][0][8:] == ("stopped", "could not be migrated from schema 1")
    monkeypatch.undo()
    assert run_session(old, Settings(cores=2)).finished


class _Usage:
    free = 2**20


def test_a_migration_that_fails_half_way_leaves_the_old_tables(old: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = migrating.upgrade_tables

    def fail(connection: object, version: int) -> None:
        upgrade(connection, version)  # type: ignore[arg-type]
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr(migrating, "upgrade_tables", fail)
    with pytest.raises(ZeroDivisionError):
        Store(old.store_path).claim()
    assert read_version(old.store_path) == 1
    assert not NEW_IN_2 & set(content_of(old.store_path))
    monkeypatch.undo()
    assert run_session(old, Settings(cores=2)).finished


@pytest.fixture
def of_version_2(processed: Session, tmp_path: Path) -> Session:
    """A store as the version before the present one left it: no table for recomputing, and nothing said of what was taken."""
    shutil.copytree(processed.folder.parent, tmp_path / "second")
    session = Session(tmp_path / "second" / "session", processed.document)
    store = Store(session.store_path)
    store.claim()
    store.close("made")
    back_to_version_2(session)
    session.store_path.with_name("icestream.db.v1.bak").unlink()
    return session


def back_to_halts(connection: Connection) -> None:
    """Say of drained steps what versions 2 and 3 said: a sentence."""
    connection.execute(text("CREATE TABLE halt (seq INTEGER PRIMARY KEY, step VARCHAR, state VARCHAR, reason TEXT, at FLOAT)"))
    for row in connection.execute(select(schema.drain)).mappings().all():
        drained = row["state"] == "drained"
        reason = DrainReason(Cause(row["cause"]), row["by"], row["reason"]).sentence if drained else "it goes on"
        values = {"seq": row["seq"], "step": row["step"], "state": "halted" if drained else "lifted", "reason": reason, "at": 0.0}
        connection.execute(text("INSERT INTO halt VALUES (:seq, :step, :state, :reason, :at)"), values)
    for table in ("drain", "removed_file", "removal"):
        connection.execute(text(f"DROP TABLE {table}"))


def back_to_version_2(session: Session) -> None:
    engine, outcome = engine_for(session.store_at, durable=True), schema.outcome
    with engine.begin() as connection:
        for row in connection.execute(select(outcome.c.seq, outcome.c["keys"])).all():
            keys = {name: key for name, key in json.loads(row[1]).items() if not name.startswith("taken.")}
            connection.execute(update(outcome).where(outcome.c.seq == row[0]).values(keys=json.dumps(keys)))
        connection.execute(text("DROP TABLE recompute"))
        back_to_halts(connection)
        for column in NEW_NOTICE_COLUMNS:
            connection.execute(text(f'ALTER TABLE notice DROP COLUMN "{column}"'))
        connection.execute(text("DROP TABLE description"))
        connection.execute(update(schema.runner).values(schema_version=2))
    engine.dispose()


@pytest.mark.parametrize("command", [("status",), ("trace", "3"), ("why", "3"), ("history",), ("revisions",), ("report",)])
def test_commands_that_look_work_on_a_store_of_version_2(of_version_2: Session, command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [command[0], str(of_version_2.folder), *command[1:]])
    assert answer.exit_code == 0, answer.output
    assert read_version(of_version_2.store_path) == 2


@pytest.mark.parametrize(
    "command",
    [("set", "odd", "factor=7", "--dry-run"), ("recompute", "triple", "2", "factor=8", "--dry-run"), ("clean", "--dry-run")],
)
def test_dry_runs_work_on_a_store_of_version_2(of_version_2: Session, command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [command[0], str(of_version_2.folder), *command[1:]])
    assert answer.exit_code == 0, answer.output
    assert read_version(of_version_2.store_path) == 2


def test_a_session_of_version_2_goes_on_and_knows_what_its_accumulators_took(of_version_2: Session) -> None:
    made = {row["key"] for row in _results(of_version_2.store_path)}
    patient = Settings(cores=2, rebuild_fraction=1.0)
    assert (
        submit(of_version_2, Recompute(unit="2", step="triple", params={"factor": 8}), author="eva", settings=patient).state
        == "done"
    )
    assert run_session(of_version_2, patient).finished
    assert read_version(of_version_2.store_path) == SCHEMA_VERSION
    assert made < {row["key"] for row in read_rows(of_version_2, schema.result)}
    names = {row["unit"]: row["name"] for row in read_rows(of_version_2, schema.exposure)}
    steps = active_steps(of_version_2)
    assert ("total", "2") in {(steps[row["revision"]], names[row["unit"]]) for row in read_rows(of_version_2, schema.stale)}
    (log,) = [row for row in read_rows(of_version_2, schema.accumulator_log) if row["position"] == 1 and row["revision"] in steps]
    for unit, keys in json.loads(log["members"]):
        outcome = outcomes_of(of_version_2)[steps[log["revision"]], names[unit]]
        assert outcome["keys"]["taken.number"] == keys["number"]


@pytest.mark.services
def test_a_store_of_version_2_on_a_server_is_migrated_in_one_transaction(
    postgres_server: ThrowawayServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_toy_session(tmp_path, toy_steps(5), numbers=range(5), store=postgres_server.url)
    assert run_session(session, Settings(cores=2)).finished
    before = {where: row["keys"] for where, row in outcomes_of(session).items()}
    back_to_version_2(session)
    upgrade = migrating.upgrade_tables

    def fail(connection: object, version: int) -> None:
        upgrade(connection, version)  # type: ignore[arg-type]
        raise ZeroDivisionError("in the middle")

    monkeypatch.setattr(migrating, "upgrade_tables", fail)
    with pytest.raises(ZeroDivisionError):
        Store(session.store_at).claim()
    monkeypatch.undo()
    engine = engine_for(session.store_at, read_only=True)
    assert not inspect(engine).has_table("recompute")
    engine.dispose()
    with open_view(session) as view:
        assert view.decisions() == []
    assert run_session(session, Settings(cores=2)).finished
    assert {where: row["keys"] for where, row in outcomes_of(session).items()} == before
    assert read_rows(session, schema.recompute) == []
    (row,) = read_rows(session, schema.runner)
    assert row["schema_version"] == SCHEMA_VERSION


DRAINS = {
    "triple": ("halted", "closed by hand, by eva", DrainReason(Cause.PERSON, "eva")),
    "odd": ("halted", "reset by hand, by a person: of many names", DrainReason(Cause.RESET, "a person: of many names")),
    "even": ("halted", "gate opened: 3 of 3 exposures", DrainReason(Cause.GATE, "gate", "3 of 3 exposures")),
    "both": ("halted", "said otherwise", DrainReason(Cause.PERSON, "", "said otherwise")),
    "any": ("lifted", "it goes on", None),
}
"""Step → the newest row of schema 3, and what it means."""


@pytest.fixture
def of_version_3(processed: Session, tmp_path: Path) -> Session:
    """A store of version 3 in which steps are drained, for every cause."""
    shutil.copytree(processed.folder.parent, tmp_path / "third")
    session = Session(tmp_path / "third" / "session", processed.document)
    store = Store(session.store_path)
    store.claim()
    store.close("made")
    engine = engine_for(session.store_at, durable=True)
    with engine.begin() as connection:
        back_to_halts(connection)
        for number, (step, (state, reason, _)) in enumerate([("any", ("halted", "x opened: y", None)), *DRAINS.items()]):
            row = {"seq": 10_000 + number, "step": step, "state": state, "reason": reason}
            connection.execute(text("INSERT INTO halt VALUES (:seq, :step, :state, :reason, 0.0)"), row)
        for column in NEW_NOTICE_COLUMNS:
            connection.execute(text(f'ALTER TABLE notice DROP COLUMN "{column}"'))
        connection.execute(text("DROP TABLE description"))
        connection.execute(update(schema.runner).values(schema_version=3, last_seq=20_000))
    engine.dispose()
    return session


def test_who_drained_a_step_is_read_from_the_sentences_of_version_3_and_kept_as_fields(of_version_3: Session) -> None:
    wanted = {step: why for step, (_, _, why) in DRAINS.items() if why is not None}
    with open_view(of_version_3) as view:
        before = {step.name: step.marks.drained for step in view.steps()}
    assert {step: said for step, said in before.items() if said} == {step: why.sentence for step, why in wanted.items()}
    Store(of_version_3.store_path).claim()
    assert read_version(of_version_3.store_path) == SCHEMA_VERSION
    engine = engine_for(of_version_3.store_at, read_only=True)
    with engine.connect() as connection:
        assert load_drains(connection) == wanted
        assert not inspect(connection).has_table("halt")
    engine.dispose()
    assert len(read_rows(of_version_3, schema.drain)) == len(DRAINS) + 1
    with open_view(of_version_3) as view:
        assert {step.name: step.marks.drained for step in view.steps()} == before


def test_a_store_of_the_first_version_on_a_server_is_refused() -> None:
    server = Server("localhost", 5432, "user", "database", "schema")
    with pytest.raises(SessionError, match="has schema 1, which icestream never wrote to a server"):
        migrating.migrate_store(server, None, 1)  # type: ignore[arg-type]


def test_a_contradiction_that_an_old_store_told_is_not_told_again(of_version_2: Session) -> None:
    told = "Pixel size of the raw movie: the session says 1.5 Å, but 1 says 0.66 Å; the session's value is used for all movies"
    other = "the pixel size: the session says little, but much is used"
    with engine_for(of_version_2.store_at, durable=True).begin() as connection:
        for seq, message in enumerate((told, other), start=10**6):
            row = {"seq": seq, "level": "warning", "message": message}
            connection.execute(text("INSERT INTO notice (seq, level, message, at) VALUES (:seq, :level, :message, 0)"), row)
    store = Store(of_version_2.store_path)
    store.claim()
    with store.transaction() as connection:
        writing = Writing(store, connection, {}, "")
        warn_of_contradictions(writing, Acquisition(pixel_size_ang=1.5), {"pixel_size_ang": 0.66}, "2")
        warn_of_contradictions(writing, Acquisition(pixel_size_ang=1.6), {"pixel_size_ang": 0.66}, "2")
        writing.flush()
    store.close("looked")
    rows = {row["seq"]: row for row in read_rows(of_version_2, schema.notice) if row["seq"] >= 10**6}
    assert (rows[10**6]["cause"], rows[10**6]["subject"]) == ("acquisition", "pixel_size_ang=1.5")
    assert rows[10**6 + 1]["cause"] is None
    assert [notice.subject for notice in writing.told] == ["pixel_size_ang=1.6"]
