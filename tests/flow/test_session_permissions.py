"""The group and the permissions of new sessions, and of everything that is made in them."""

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionError
from icestream.flow.runner.supervisor import run_session
from icestream.settings import Settings
from toys.session import make_toy_session, toy_steps


@pytest.fixture
def another_group() -> grp.struct_group:
    """A group that this account may give a folder to, and that is not its own if there is one."""
    mine = [one.gr_gid for one in grp.getgrall()] if os.geteuid() == 0 else os.getgroups()
    return grp.getgrgid(next((number for number in mine if number != os.getegid()), os.getegid()))


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_all_that_is_made_in_a_session_belongs_to_the_group_and_nobody_else_reads_it(tmp_path, monkeypatch, another_group):
    monkeypatch.setenv("ICESTREAM_SESSION_GROUP", another_group.gr_name)
    monkeypatch.setenv("ICESTREAM_SESSION_MODE", "770")
    os.umask(0o007)
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    assert permissions(session.folder) == 0o2770
    run_session(session, Settings(min_free_gb=0, cores=1))
    made = [path for path in session.folder.rglob("*") if session.folder / "work" not in (path, *path.parents)]
    assert {"session.yaml", "icestream.db", "steps", "logs"} <= {path.name for path in made}
    for path in made:
        assert path.stat().st_gid == another_group.gr_gid, path
        assert permissions(path) & 0o7 == 0, path
        assert permissions(path) & 0o060 == 0o060, path  # somebody else of the group pauses it, too
        assert not path.is_dir() or permissions(path) & stat.S_ISGID, path


@pytest.mark.usefixtures("umask")
def test_a_group_alone_or_permissions_alone(tmp_path, monkeypatch, another_group):
    monkeypatch.setenv("ICESTREAM_SESSION_GROUP", another_group.gr_name)
    (tmp_path / "a" / "session").mkdir(parents=True)  # it may exist
    session = make_toy_session(tmp_path / "a", toy_steps(2), numbers=range(2))
    assert (session.folder.stat().st_gid, permissions(session.folder)) == (another_group.gr_gid, 0o2755)
    monkeypatch.delenv("ICESTREAM_SESSION_GROUP")
    monkeypatch.setenv("ICESTREAM_SESSION_MODE", "0700")
    session = make_toy_session(tmp_path / "b", toy_steps(2), numbers=range(2))
    assert permissions(session.folder) & 0o777 == 0o700


def test_what_cannot_be_is_said_and_nothing_is_left(tmp_path, monkeypatch, another_group):
    monkeypatch.setenv("ICESTREAM_SESSION_GROUP", "no-such-group")
    with pytest.raises(SessionError, match="has no such group"):
        make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    monkeypatch.setenv("ICESTREAM_SESSION_GROUP", another_group.gr_name)
    with monkeypatch.context() as others:
        others.setattr(os, "geteuid", lambda: 12345)
        others.setattr(os, "getegid", lambda: 12345)
        others.setattr(os, "getgroups", lambda: [12345])
        with pytest.raises(SessionError, match="must be in this group"):
            make_toy_session(tmp_path, toy_steps(2), numbers=range(2))

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    with pytest.raises(SessionError, match=rf"cannot have group '{another_group.gr_name}' .*Operation not permitted"):
        make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)  # a file system that takes it and does nothing
    with pytest.raises(SessionError, match="does not keep it"):
        make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    assert not (tmp_path / "session").exists()


@pytest.mark.usefixtures("umask")
def test_every_command_follows_the_umask_of_the_settings(monkeypatch):
    monkeypatch.setenv("ICESTREAM_UMASK", "007")
    assert CliRunner().invoke(app, ["templates"]).exit_code == 0
    assert os.umask(0o022) == 0o007
    monkeypatch.setenv("ICESTREAM_UMASK", "999")
    result = CliRunner().invoke(app, ["templates"])
    assert (result.exit_code, "ICESTREAM_UMASK is '999'" in result.output) == (1, True)
