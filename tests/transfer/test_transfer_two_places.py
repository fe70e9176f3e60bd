"""A folder that two paths lead to is no place for a copy: nothing counts as verified there, and nothing is removed for it."""

import os
from pathlib import Path

import pytest

from icestream.errors import SessionError
from icestream.transfer import copying
from icestream.transfer.anchored import AnchoredFolder, FileRefused
from icestream.transfer.copies import remove_source, verified_copy
from icestream.transfer.copying import FileCopy
from icestream.transfer.throttle import Throttle
from icestream.transfer.two_places import are_one_folder, is_same_file
from transfer.transferring import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def lead_to_one_place(bench: Bench) -> None:
    """Let both paths lead to one folder, as two mounts of a disk do; neither path says so."""
    bench.target.rmdir()
    bench.target.symlink_to(bench.source)


def test_a_transfer_to_the_source_itself_by_another_path_copies_and_removes_nothing(bench: Bench) -> None:
    path = bench.write("a.dm4", b"the only one")
    bench.target.mkdir()
    made = bench.transfer(remove_after_s=0.0)
    lead_to_one_place(bench)
    with pytest.raises(SessionError, match="is the same folder as"):
        made.run(once=True)
    assert path.read_bytes() == b"the only one"
    assert bench.states() == {}
    assert list(bench.source.glob(".icestream-*.part")) == []


def test_the_file_itself_is_no_copy(bench: Bench) -> None:
    path = bench.write("a.dm4", b"the only one")
    bench.run()
    (row,) = bench.ledger.versions(1, "a.dm4")
    (bench.target / "a.dm4").unlink()
    os.link(path, bench.target / "a.dm4")
    source, target = AnchoredFolder(bench.source), AnchoredFolder(bench.target)
    assert verified_copy(bench.ledger, path) is None
    with pytest.raises(FileRefused, match="is the file itself"):
        remove_source(source, target, row, Throttle())
    with pytest.raises(FileRefused, match="is the file itself"):
        FileCopy(source, target, "a.dm4", row.stamp, Throttle()).run()
    assert path.exists()


def test_one_folder_with_two_devices_is_known_by_a_file_that_is_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.write("a.dm4", b"the only one")
    bench.run()
    (row,) = bench.ledger.versions(1, "a.dm4")
    for one in bench.target.iterdir():
        one.unlink()
    lead_to_one_place(bench)
    monkeypatch.setattr("icestream.transfer.two_places.is_same_file", lambda _one, _other: False)
    monkeypatch.setattr("icestream.transfer.copies.is_same_file", lambda _one, _other: False)
    monkeypatch.setattr(copying, "is_same_file", lambda _one, _other: False)
    assert are_one_folder(bench.target, bench.source)
    source, target = AnchoredFolder(bench.source), AnchoredFolder(bench.target)
    with pytest.raises(FileRefused, match="is the file itself"):
        remove_source(source, target, row, Throttle())
    with pytest.raises(FileRefused, match="is the file itself"):
        FileCopy(source, target, "a.dm4", row.stamp, Throttle()).run()
    assert [one.name for one in bench.source.iterdir()] == [path.name]


def test_two_mounts_with_devices_of_their_own_are_told_by_the_moment_of_change(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a")
    seen = path.stat()
    fields = {name: getattr(seen, name) for name in ("st_ino", "st_size", "st_ctime_ns")}

    def status(**changes: int) -> os.stat_result:
        return type("Status", (), {**fields, "st_dev": seen.st_dev + 1, **changes})()

    assert is_same_file(seen, status())
    assert not is_same_file(seen, status(st_ino=seen.st_ino + 1))
    assert not is_same_file(seen, status(st_ctime_ns=seen.st_ctime_ns + 1)), "an inode of that number on another disk"


def test_what_another_program_puts_under_the_name_meanwhile_is_not_overwritten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write("a.dm4", b"from the microscope")
    free_name = FileCopy._free_name  # noqa: SLF001

    def choose(self: FileCopy, here: int, last: str) -> str:
        chosen = free_name(self, here, last)
        if not (bench.target / "a.dm4").exists():
            (bench.target / "a.dm4").write_bytes(b"somebody else's")
        return chosen

    monkeypatch.setattr(FileCopy, "_free_name", choose)
    bench.run()
    assert bench.at_target() == {"a.dm4": b"somebody else's", "a_v2.dm4": b"from the microscope"}
    assert bench.unfinished() == []


def test_a_file_system_without_hard_links_gets_its_copies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a.dm4", b"from the microscope")

    def refuse(*_given: object, **_named: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    bench.run()
    assert bench.at_target() == {"a.dm4": b"from the microscope"}


def test_a_copy_that_is_adopted_is_synced_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a.dm4", b"the same")
    bench.target.mkdir()
    (bench.target / "a.dm4").write_bytes(b"the same")
    synced: list[int] = []
    real = os.fsync

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real(handle)

    monkeypatch.setattr(os, "fsync", note)
    bench.run()
    assert bench.states() == {"a.dm4": "verified"}
    assert (bench.target / "a.dm4").stat().st_ino in synced
