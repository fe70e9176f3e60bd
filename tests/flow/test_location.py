"""Where a store is, and that no password is written anywhere."""

import getpass
from pathlib import Path

import pytest

from icestream.errors import SessionError
from icestream.flow.storage.location import Server, find_password, hide_passwords, locate_server
from icestream.flow.storage.session import SessionDocument, create_session, open_session

FOLDER = Path("/data/session")
SECRET = "hunter2-hunter2"  # noqa: S105 - what must not appear


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGPASSWORD", "PGPASSFILE", "PGSERVICEFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def locate(url: str) -> Server:
    return locate_server(url, session="Lysozyme, grid 3", folder=FOLDER)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("postgresql://me@db:5433/em?schema=lyso", Server("db", 5433, "me", "em", "lyso")),
        ("postgres://me@db/em?schema=lyso", Server("db", 5432, "me", "em", "lyso")),
        ("postgresql://m%40e@[::1]/em?schema=lyso&sslmode=verify-full", Server("::1", 5432, "m@e", "em", "lyso", "verify-full")),
        ("postgresql://me@/em?schema=lyso&host=/run/postgresql", Server("/run/postgresql", 5432, "me", "em", "lyso")),
        ("postgresql://me@:5433/em?schema=lyso&host=/run/postgresql", Server("/run/postgresql", 5433, "me", "em", "lyso")),
    ],
)
def test_a_url_is_read_and_written(url: str, server: Server) -> None:
    assert locate(url) == server
    assert locate(str(server)) == server


def test_what_a_url_leaves_out_is_filled_in() -> None:
    me = getpass.getuser()
    server = locate("postgresql://")
    assert (server.host, server.port, server.user, server.database) == ("localhost", 5432, me, me)
    assert server.schema.startswith("icestream_lysozyme_grid_3_")
    assert server.derived_for == FOLDER
    assert locate("postgresql://").schema == server.schema
    assert locate_server("postgresql://", session="Lysozyme, grid 3", folder=Path("/data/other")).schema != server.schema
    strange = locate_server("postgresql://", session="Ω" * 200, folder=FOLDER)
    assert strange.schema.startswith("icestream_session_")
    long = locate_server("postgresql://", session="a" * 200, folder=FOLDER)
    assert len(long.schema) <= 63


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://me@db/em", "begins with postgresql://"),
        ("postgresql://me@db/em?schema=public", "schema 'public'"),
        ("postgresql://me@db/em?schema=pg_temp", "schema 'pg_temp'"),
        ('postgresql://me@db/em?schema=a"b', "schema 'a\"b'"),
        ("postgresql://me@db/em?schema=", "schema ''"),
        ("postgresql://me@db/em?schema=" + "a" * 64, "at most 63"),
        ("postgresql://me@db:99999/em", "is not a URL of the form"),
        ("postgresql://me@db/em?sslmode=maybe", "must be one of disable, prefer, require, verify-full"),
        ("postgresql://me@db/em?options=-cfsync", "options: not known; must be one of schema, host, service, sslmode"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_what_is_allowed(url: str, message: str) -> None:
    with pytest.raises(SessionError) as refused:
        locate(url)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@db/em",
        f"postgresql://me:{SECRET}/@db/em",
        f"postgresql://me:{SECRET}",
        f"postgresql://me@db/em?password={SECRET}",
        f"postgresql://me:1?{SECRET}@db/em",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    with pytest.raises(SessionError) as refused:
        locate(url)
    assert SECRET not in str(refused.value)
    document = SessionDocument.model_validate({"name": "x", "steps": {}, "store": url})
    with pytest.raises(SessionError) as refused:
        create_session(tmp_path / "s", document)
    assert SECRET not in str(refused.value)
    assert not (tmp_path / "s").exists()
    (tmp_path / "session.yaml").write_text(f"name: x\nsteps: {{}}\nstore: {url}\n")
    with pytest.raises(SessionError) as refused:
        open_session(tmp_path)
    assert SECRET not in str(refused.value)


def test_a_document_with_another_fault_does_not_repeat_a_password_either(tmp_path: Path) -> None:
    (tmp_path / "session.yaml").write_text(f"name: x\nstore: postgresql://me:{SECRET}@db/em\n")  # no steps: shows all it got
    with pytest.raises(SessionError, match="steps: Field required") as refused:
        open_session(tmp_path)
    assert SECRET not in str(refused.value)
    assert hide_passwords(f"see postgresql://me:{SECRET}@db and so on") == "see postgresql://me:***@db and so on"


def test_a_new_session_on_a_server_keeps_its_schema_when_it_is_moved(tmp_path: Path) -> None:
    document = SessionDocument.model_validate(
        {"name": "x", "steps": {"movies": {"use": "import_movies"}}, "store": "postgresql://me@db/em"}
    )
    session = create_session(tmp_path / "here", document)
    (tmp_path / "here").rename(tmp_path / "there")
    assert open_session(tmp_path / "there").store_at == session.store_at
    with pytest.raises(SessionError, match="its store is not a file but postgresql://me@db:5432/em"):
        _ = session.store_path


def test_a_service_gives_what_the_url_leaves_out(tmp_path: Path) -> None:
    (tmp_path / ".pg_service.conf").write_text(f"[em]\nhost=db.lab\nport=5433\nuser=us\ndbname=em\npassword={SECRET}\n")
    server = locate("postgresql://?service=em&schema=lyso")
    assert (server.host, server.port, server.user, server.database) == ("db.lab", 5433, "us", "em")
    assert find_password(server) == SECRET
    assert SECRET not in str(server) + repr(server)
    assert locate(str(server)) == server
    with pytest.raises(SessionError, match="has no service 'other'; it has em"):
        locate("postgresql://?service=other")
    (tmp_path / ".pg_service.conf").write_text(f"password={SECRET}\n")
    with pytest.raises(SessionError, match="is not a connection service file") as refused:
        locate("postgresql://?service=em")
    assert SECRET not in str(refused.value)
    (tmp_path / ".pg_service.conf").unlink()
    with pytest.raises(SessionError, match="cannot be read, and the store names the service 'em'"):
        locate("postgresql://?service=em")


def test_a_password_is_found_where_postgresql_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server("db", 5432, "me", "em", "lyso")
    assert find_password(server) is None
    path = tmp_path / ".pgpass"
    path.write_text("# mine\ndb:5433:*:me:wrong port\ndb:*:em:me:with\\:colon and \\\\\n*:*:*:*:too late\n")
    path.chmod(0o600)
    assert find_password(server) == "with:colon and \\"
    assert find_password(Server("other", 1, "x", "y", "z")) == "too late"
    monkeypatch.setenv("PGPASSWORD", "first")
    assert find_password(server) == "first"
    monkeypatch.delenv("PGPASSWORD")
    path.chmod(0o644)
    with pytest.raises(SessionError, match=r"can be read by others.*chmod 600"):
        find_password(server)
