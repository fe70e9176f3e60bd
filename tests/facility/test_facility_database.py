"""The facility's database: backed up while it is used, restored whole, and nothing but a backup is taken for one."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.facility import database as module
from icestream.facility.database import FacilityDatabase
from icestream.facility.drafts import DraftChanged, Drafts, NewDraft
from icestream.web.access import AccessFile
from icestream.web.server import ACCESS_FILE, DATABASE


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands keep their state."""
    monkeypatch.setenv("ICESTREAM_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def say(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


def note(database: FacilityDatabase, who: str) -> None:
    database.note(who=who, address="10.0.0.1", action="sessions", session="s", detail="{}", status=200)


def test_everything_comes_back_from_a_backup(state: Path, tmp_path: Path):
    database, access = FacilityDatabase(state / DATABASE), AccessFile(state / ACCESS_FILE)
    token = access.add_token("script", "operate", sessions=["ribo*"])
    secret, made = database.share("ribosome", author="anna", note="for Ruth", hours=24)
    note(database, "anna")
    say("backup", tmp_path / "kept.db")
    assert (tmp_path / "kept.db").stat().st_mode & 0o777 == 0o600
    access.remove("script")
    database.withdraw_share("ribosome", made.id)
    note(database, "berta")
    assert "restored" in say("restore", tmp_path / "kept.db")
    again = AccessFile(state / ACCESS_FILE).by_token(token)
    assert again is not None and again.role_in("ribosome") == "operate"
    assert database.share_behind(secret) == made
    assert [one.who for one in database.audit(limit=9)] == ["anna"]
    kept = FacilityDatabase(state / f"{DATABASE}.before-restore")
    assert [one.who for one in kept.audit(limit=9)] == ["berta", "anna"]
    note(database, "carla")  # it is a whole database, not a backup
    with closing(sqlite3.connect(database.path)) as connection, connection:
        assert "kept_file" not in {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}


def test_what_strangers_cause_pushes_out_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("MOST_AUDITED", 3), ("MOST_REFUSED", 2), ("_PRUNE_EVERY", 1)):
        monkeypatch.setattr(module, name, value)
    database = FacilityDatabase(tmp_path / DATABASE)
    for who in "abcd":
        note(database, who)
    for action, status in [("sign-in", 401), ("open-share", 401), ("open-share", 200), ("sessions/s/actions", 403)] * 5:
        database.note(who="z", address="1", action=action, session=None, detail="", status=status)
    assert [one.who for one in database.audit(limit=99)] == ["z", "z", "d", "c", "b"]


def test_a_backup_replaces_nothing_and_is_made_of_nothing_too(state: Path, tmp_path: Path):
    say("backup", tmp_path / "kept.db")
    assert "never replaces another" in say("backup", tmp_path / "kept.db", code=1)
    say("restore", tmp_path / "kept.db")
    assert FacilityDatabase(state / DATABASE).audit(limit=1) == []


def test_what_is_no_backup_changes_nothing(state: Path, tmp_path: Path):
    database = FacilityDatabase(state / DATABASE)
    note(database, "anna")
    before = database.path.read_bytes()
    (tmp_path / "text.db").write_text("not a database at all, but long enough to be looked at " * 40, encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE x (y)")
    (tmp_path / "short.db").write_bytes(before[: len(before) // 2])
    assert "cannot be used" in say("restore", tmp_path / "text.db", code=1)
    assert "is no database of a facility" in say("restore", tmp_path / "other.db", code=1)
    assert say("restore", tmp_path / "short.db", code=1)
    assert "is no backup" in say("restore", database.path, code=1)
    assert "is no file" in say("restore", tmp_path / "nothing.db", code=1)
    assert database.path.read_bytes() == before
    assert list(state.glob("*.before-restore")) == []


def test_a_newer_database_is_left_alone(state: Path):
    database = FacilityDatabase(state / DATABASE)
    note(database, "anna")
    with closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    assert "use a newer icestream" in say("backup", state / "kept.db", code=1)
    assert not (state / "kept.db").exists()


def test_the_audit_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_AUDITED", 10)
    monkeypatch.setattr(module, "_PRUNE_EVERY", 5)
    database = FacilityDatabase(tmp_path / "facility.db")
    for number in range(25):
        note(database, str(number))
    assert [one.who for one in database.audit(limit=100)] == [str(number) for number in range(24, 14, -1)]


def test_a_database_of_the_first_schema_gets_drafts_and_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / DATABASE
    with monkeypatch.context() as older:
        older.setattr(module, "_TABLES", module._TABLES[:1])  # noqa: SLF001 - what the first version made
        older.setattr(module, "SCHEMA", 1)
        note(FacilityDatabase(path), "anna")
    drafts = Drafts(FacilityDatabase(path))
    made = drafts.add(NewDraft("Ours", {"steps": {}}), author="berta")
    (entry,) = drafts.entries()
    assert (entry.id, entry.title, hasattr(entry, "document")) == (made.id, "Ours", False)
    assert (
        drafts.save(made.id, version=1, title="Ours", summary="x", document={"steps": {}}, author="carla").changed_by == "carla"
    )
    with pytest.raises(DraftChanged, match="by carla"):
        drafts.delete(made.id, version=1)
    drafts.delete(made.id, version=2)
    with pytest.raises(DraftChanged, match="deleted"):
        drafts.save(made.id, version=2, title="", summary="", document={}, author="x")
    assert [one.who for one in FacilityDatabase(path).audit(limit=9)] == ["anna"]


def test_a_draft_of_the_second_schema_has_no_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    database = FacilityDatabase(tmp_path / DATABASE)
    with monkeypatch.context() as older:
        older.setattr(module, "_TABLES", module._TABLES[:2])  # noqa: SLF001 - what the second version made
        older.setattr(module, "SCHEMA", 2)
        columns = "version, title, summary, document, base, trusted, told, author, changed_by, created_at, changed_at"
        values = "1, 'Ours', '', '{\"steps\": {}}', 'null', '{}', '[]', 'anna', 'anna', 0, 0"
        with database.writing() as connection:
            connection.execute(f"INSERT INTO draft ({columns}) VALUES ({values})")  # noqa: S608
    (entry,) = Drafts(database).entries()
    assert (entry.author, entry.origin) == ("anna", None)


def test_a_name_belongs_to_the_account_that_had_it_first(tmp_path: Path):
    database = FacilityDatabase(tmp_path / DATABASE)
    assert database.name_of_account("lab 1", "anna") == "anna"
    other = database.name_of_account("lab 2", "anna")
    assert other.startswith("anna #")
    third = database.name_of_account("lab 3", other)
    assert third.startswith(f"{other} #")
    known = [database.name_of_account(account, "anna") for account in ("lab 1", "lab 2")]
    assert known == ["anna", other]
