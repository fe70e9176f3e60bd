"""Transfers between two folders of this machine: what is copied, verified, removed, refused and retried."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icestream.errors import SessionBusy, SessionError
from icestream.io.raw_folder import RawFolder
from icestream.transfer import copying, running
from icestream.transfer.anchored import AnchoredFolder
from icestream.transfer.copies import verified_copy
from icestream.transfer.target import MARKER, LinkBroken
from icestream.transfer.throttle import Throttle
from transfer.transferring import CHUNK, HOUR_S, Bench, Story, digest, path_of


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_files_are_copied_with_their_paths_and_times_and_verified(bench: Bench) -> None:
    movie = bench.write("grid 1/Images-Disc1/GridSquare_7/a_Fractions.tiff", os.urandom(3 * CHUNK + 17))
    bench.write("grid 1/Images-Disc1/GridSquare_7/a.xml", "<MicroscopeImage/>")
    bench.write("gain/gain.dm4", b"")
    bench.run()
    assert bench.at_target() == {path.relative_to(bench.source).as_posix(): path.read_bytes() for path in _files(bench.source)}
    copy = bench.target / movie.relative_to(bench.source)
    assert copy.stat().st_mtime_ns == movie.stat().st_mtime_ns
    assert set(bench.states().values()) == {"verified"}
    row = bench.ledger.versions(1, movie.relative_to(bench.source).as_posix())[0]
    assert row.digest == digest(movie.read_bytes())
    assert row.copied_at is not None
    assert bench.unfinished() == []
    assert bench.ledger.transfers()[0].doing(row.copied_at) == "stopped"
    assert movie.exists(), "nothing is removed unless asked"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_digests_are_those_of_b2sum(bench: Bench) -> None:
    program = shutil.which("b2sum")
    if program is None:
        pytest.skip("b2sum is missing (GNU coreutils)")
    path = bench.write("a.dm4", os.urandom(70_000))
    bench.run()
    printed = subprocess.run([program, "-l", "256", str(path)], capture_output=True, text=True, check=True).stdout
    assert printed.split()[0] == bench.ledger.versions(1, "a.dm4")[0].digest


def test_a_file_that_is_being_written_is_left_alone(bench: Bench) -> None:
    grown = bench.write("growing.dm4", b"begun")

    def grow() -> None:
        with grown.open("ab") as handle:
            handle.write(b"more")

    story = Story(most_waits=12, events=dict.fromkeys(range(1, 12), grow))
    bench.run(story, once=False)
    assert bench.at_target() == {}
    assert bench.ledger.transfers()[0].growing == 1
    bench.run(Story())
    assert bench.at_target() == {"growing.dm4": grown.read_bytes()}


def test_a_file_that_is_shorter_than_its_header_says_waits_and_is_then_copied_as_it_is(bench: Bench) -> None:
    header = bytearray(1024)
    for at, value in ((0, 64), (4, 64), (8, 3), (12, 2)):
        header[at : at + 4] = value.to_bytes(4, "little")
    header[208:216] = b"MAP DA\0\0"
    bench.write("short.mrc", bytes(header) + bytes(100))
    bench.run(Story(most_waits=6), once=False, give_up_s=600)
    assert bench.at_target() == {}
    bench.run(Story(most_waits=12), once=False, give_up_s=600, look_every_s=100)
    assert list(bench.at_target()) == ["short.mrc"]
    assert "1124" in (bench.ledger.versions(1, "short.mrc")[0].reason or "")


def test_no_source_sees_an_unfinished_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("deep/movie.dm4", os.urandom(2 * CHUNK))
    seen: list[list[Path]] = []
    monkeypatch.setattr(copying, "fault_point", lambda _name: seen.append(RawFolder(bench.target).scan().files))
    bench.run()
    assert seen[0] == seen[1] == []
    assert seen[-1] == [bench.target / "deep" / "movie.dm4"]


def test_a_file_that_changes_while_it_is_copied_is_not_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.write("a.dm4", os.urandom(CHUNK))
    changes = [b"longer than before" * CHUNK]

    def change(name: str) -> None:
        if name == "copied" and changes:
            path.write_bytes(changes.pop())

    monkeypatch.setattr(copying, "fault_point", change)
    story = Story(most_waits=3)
    bench.run(story, once=False)
    assert bench.at_target() == {}
    assert bench.unfinished() == []
    bench.run()
    assert bench.at_target() == {"a.dm4": path.read_bytes()}


def test_a_file_that_changed_after_it_was_copied_is_put_beside_and_told(bench: Bench) -> None:
    bench.write("a.dm4", b"first")
    bench.write("a.xml", "<first/>")
    bench.run()
    bench.write("a.dm4", b"second", age_s=50)
    bench.write("a.xml", "<second/>", age_s=50)
    bench.run()
    assert bench.at_target() == {"a.dm4": b"first", "a_v2.dm4": b"second", "a.xml": b"<second/>"}
    assert any("beside it" in text for text in bench.said)
    assert any("replaced the earlier version" in text for text in bench.said)
    bench.write("a.dm4", b"second", age_s=20)
    bench.run()
    assert sorted(bench.at_target()) == ["a.dm4", "a.xml", "a_v2.dm4"], "only its time is another"


def test_what_is_at_the_target_already_is_compared_and_never_overwritten(bench: Bench) -> None:
    bench.write("same.dm4", b"the same")
    bench.write("other.dm4", b"from the microscope")
    bench.target.mkdir()
    (bench.target / "same.dm4").write_bytes(b"the same")
    (bench.target / "other.dm4").write_bytes(b"someone else's file")
    kept = (bench.target / "same.dm4").stat()
    bench.run()
    assert bench.at_target() == {
        "same.dm4": b"the same",
        "other.dm4": b"someone else's file",
        "other_v2.dm4": b"from the microscope",
    }
    assert (bench.target / "same.dm4").stat().st_ino == kept.st_ino
    assert verified_copy(bench.ledger, bench.source / "same.dm4") is not None


def test_links_special_files_and_hostile_names_are_refused_and_told(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret.dm4"
    secret.write_bytes(b"secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.dm4").write_bytes(b"elsewhere")
    bench.write("good.dm4")
    bench.write("session.yaml", "name: evil")
    bench.write("new\nline.dm4")
    (bench.source / "link.dm4").symlink_to(secret)
    (bench.source / "folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(bench.source / "pipe.dm4")
    bench.run()
    assert list(bench.at_target()) == ["good.dm4"]
    refused = {row.name: row.reason for row in bench.ledger.files(1, ["refused"])}
    assert sorted(refused) == ["folder", "link.dm4", "new\nline.dm4", "pipe.dm4", "session.yaml"]
    assert all(refused.values())
    told = len(bench.said)
    bench.run()
    assert len(bench.said) == told, "what is known is not told again"


def test_a_link_in_the_target_leads_nothing_out_of_it(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    bench.target.mkdir()
    (bench.target / "grid").symlink_to(outside)
    (bench.target / "a_session").mkdir()
    (bench.target / "a_session" / "session.yaml").write_text("name: x")
    bench.write("grid/a.dm4")
    bench.write("a_session/b.dm4")
    bench.write("good.dm4")
    bench.run()
    assert list(outside.iterdir()) == []
    assert bench.states() == {"good.dm4": "verified", "grid/a.dm4": "refused", "a_session/b.dm4": "refused"}


def test_one_failing_file_does_not_stop_the_others_and_is_retried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.dm4", "b.dm4", "c.dm4"):
        bench.write(name, name)
    bad = [True]
    pread = os.pread

    def broken_sector(handle: int, n_bytes: int, at: int) -> bytes:
        if bad[0] and path_of(handle).endswith("microscope/b.dm4"):
            raise OSError(errno.EIO, "Input/output error")
        return pread(handle, n_bytes, at)

    monkeypatch.setattr(os, "pread", broken_sector)
    made = bench.run()
    assert bench.states() == {"a.dm4": "verified", "b.dm4": "failed", "c.dm4": "verified"}
    assert made.progress.failed == 1
    bench.run()
    assert bench.ledger.versions(1, "b.dm4")[0].attempts == 1, "it is not yet time to retry"
    bench.age(60)
    bench.run()
    assert bench.ledger.versions(1, "b.dm4")[0].attempts == 2
    bad[0] = False
    bench.age(2 * HOUR_S)
    bench.run()
    assert bench.states()["b.dm4"] == "verified"


def test_a_broken_source_pauses_and_goes_on(bench: Bench) -> None:
    bench.write("a.dm4")
    away = bench.folder / "away"
    bench.source.rename(away)
    story = Story(most_waits=12, events={3: lambda: away.rename(bench.source)})
    bench.run(story, once=False)
    assert bench.at_target() == {"a.dm4": b"movie"}
    assert [text.split(":")[0] for text in bench.said] == ["paused", "goes on"]
    with pytest.raises(LinkBroken, match="cannot be read"):
        shutil.rmtree(bench.source)
        bench.run()


def test_a_target_whose_disk_is_not_mounted_is_not_filled(bench: Bench) -> None:
    bench.write("a.dm4")
    bench.run()
    disk = bench.folder / "the disk"
    bench.target.rename(disk)
    bench.target.mkdir()  # where it was mounted
    bench.write("b.dm4")

    def mount() -> None:
        bench.target.rmdir()
        disk.rename(bench.target)

    bench.run(Story(most_waits=12, events={4: mount}), once=False)
    assert sorted(bench.at_target()) == ["a.dm4", "b.dm4"]
    assert "may not be mounted" in bench.said[0]
    (bench.target / MARKER).write_text("another\n")
    with pytest.raises(LinkBroken, match="another disk is mounted there"):
        bench.run()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ESTALE, errno.EROFS])
def test_a_full_or_lost_disk_pauses(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    bench.write("a.dm4", os.urandom(2 * CHUNK))
    pwrite, left = os.pwrite, [3]

    def full(handle: int, block: bytes, at: int) -> int:
        if path_of(handle).endswith(".part"):
            left[0] -= 1
            if left[0] == 1:
                raise OSError(number, os.strerror(number))
        return pwrite(handle, block, at)

    monkeypatch.setattr(os, "pwrite", full)
    bench.run(Story(most_waits=12), once=False)
    assert bench.states() == {"a.dm4": "verified"}
    assert bench.said[0].startswith("paused: ")
    assert os.strerror(number) in bench.said[0]
    assert bench.at_target() == {"a.dm4": (bench.source / "a.dm4").read_bytes()}


def test_space_is_kept_free(bench: Bench) -> None:
    bench.write("a.dm4")
    with pytest.raises(LinkBroken, match="are to stay free"):
        bench.run(keep_free_bytes=1 << 60)
    assert bench.at_target() == {}


def test_one_folder_has_one_transfer(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other")
    other.target = bench.target
    bench.write("a.dm4")
    other.write("b.dm4")
    busy: list[str] = []

    def begin_another() -> None:
        with pytest.raises(SessionBusy, match="another transfer") as refused:
            other.run()
        busy.append(str(refused.value))

    bench.run(Story(most_waits=5, events={1: begin_another}), once=False)
    assert len(busy) == 1
    other.run()
    assert sorted(bench.at_target()) == ["a.dm4", "b.dm4"]


def test_folders_in_each_other_are_refused(bench: Bench) -> None:
    bench.target = bench.source / "raw"
    with pytest.raises(SessionError, match="one is in the other"):
        bench.run()


def test_removal_waits_for_its_time_and_takes_only_what_fits(bench: Bench) -> None:
    bench.write("a.dm4")
    bench.write("a.xml", "<a/>")
    bench.run(remove_after_s=HOUR_S, remove_pattern="*.dm4")
    assert len(_files(bench.source)) == 2
    bench.age(HOUR_S + 1)
    bench.run(remove_after_s=HOUR_S, remove_pattern="*.dm4")
    assert [path.name for path in _files(bench.source)] == ["a.xml"]
    assert bench.states() == {"a.dm4": "removed", "a.xml": "verified"}
    assert bench.at_target()["a.dm4"] == b"movie"
    assert bench.ledger.versions(1, "a.dm4")[0].removed_at is not None


@pytest.mark.parametrize("damage", ["changed", "gone", "same size and time"])
def test_nothing_is_removed_whose_copy_is_not_what_it_was(bench: Bench, damage: str) -> None:
    source = bench.write("a.dm4", b"precious")
    bench.run()
    copy = bench.target / "a.dm4"
    status = copy.stat()
    if damage == "gone":
        copy.unlink()
    else:
        copy.write_bytes(b"damaged." if damage != "changed" else b"damaged and longer")
        if damage == "same size and time":
            os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
    bench.age(HOUR_S)
    bench.run(remove_after_s=1.0)
    assert source.read_bytes() == b"precious"
    assert bench.states() == {"a.dm4": "failed"}
    bench.age(HOUR_S)
    bench.run(remove_after_s=HOUR_S)
    assert b"precious" in bench.at_target().values(), "it is copied again, beside what is there"
    bench.age(HOUR_S + 1)
    bench.run(remove_after_s=HOUR_S)
    assert not source.exists()


def test_a_file_that_changed_at_the_source_is_not_removed(bench: Bench) -> None:
    bench.write("a.dm4", b"first")
    bench.run()
    bench.age(HOUR_S)
    made = bench.transfer(remove_after_s=1.0)
    made._check_target()  # noqa: SLF001
    bench.write("a.dm4", b"second", age_s=3)
    made._remove_due(until_s=1e9)  # noqa: SLF001
    assert (bench.source / "a.dm4").read_bytes() == b"second"
    assert bench.states() == {"a.dm4": "verified"}


def test_a_file_that_is_there_again_is_verified_again_before_it_is_removed(bench: Bench) -> None:
    source = bench.write("a.dm4")
    bench.run()
    bench.age(HOUR_S)
    hidden = source.rename(bench.folder / "unmounted")
    bench.run(remove_after_s=1.0)
    assert bench.states() == {"a.dm4": "removed"}
    hidden.rename(source)
    (bench.target / "a.dm4").write_bytes(b"?????")
    bench.run(remove_after_s=1.0)
    assert source.exists()
    assert bench.states() == {"a.dm4": "failed"}


def test_a_copy_is_known_only_while_both_are_what_they_were(bench: Bench) -> None:
    source = bench.write("deep/a.dm4")
    assert verified_copy(bench.ledger, source) is None
    bench.run()
    known = verified_copy(bench.ledger, source)
    assert known is not None
    assert known.path == bench.target / "deep" / "a.dm4"
    assert known.digest == digest(b"movie")
    assert known.same_disk
    assert verified_copy(bench.ledger, source, reread=True) == known
    assert verified_copy(bench.ledger, bench.target / "deep" / "a.dm4") is None, "the source is no copy to rely on"
    times = (source.stat().st_mtime_ns, source.stat().st_mtime_ns)
    (bench.target / "deep" / "a.dm4").write_bytes(b"evil!")
    os.utime(bench.target / "deep" / "a.dm4", ns=times)
    assert verified_copy(bench.ledger, source) is not None, "size and time are as they were"
    assert verified_copy(bench.ledger, source, reread=True) is None
    (bench.target / "deep" / "a.dm4").write_bytes(b"movie")
    assert verified_copy(bench.ledger, source) is None, "its time is another"
    bench.run()
    source.write_bytes(b"other")
    assert verified_copy(bench.ledger, source) is None


def test_a_copy_that_is_damaged_on_its_way_is_copied_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write("a.dm4", os.urandom(5000))
    pwrite, bad = os.pwrite, [True]

    def flip(handle: int, block: bytes, at: int) -> int:
        if bad and path_of(handle).endswith(".part"):
            bad.clear()
            pwrite(handle, b"\0" + bytes(block[1:]), at)
            return len(block)
        return pwrite(handle, block, at)

    monkeypatch.setattr(os, "pwrite", flip)
    bench.run()
    assert bench.states() == {"a.dm4": "failed"}
    assert bench.at_target() == {}
    bench.age(HOUR_S)
    bench.run()
    assert bench.at_target() == {"a.dm4": (bench.source / "a.dm4").read_bytes()}


def test_stopping_in_the_middle_of_a_file_keeps_its_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(4 * CHUNK)
    bench.write("a.dm4", content)
    story = Story()
    read: list[int] = []
    pread = os.pread

    def count(handle: int, n_bytes: int, at: int) -> bytes:
        if path_of(handle).endswith("microscope/a.dm4"):
            read.append(at)
        return pread(handle, n_bytes, at)

    monkeypatch.setattr(os, "pread", count)
    monkeypatch.setattr(copying, "fault_point", lambda name: story.stop() if name == "piece_noted" else None)
    bench.run(story, once=False)
    assert bench.states() == {"a.dm4": "copying"}
    assert len(bench.unfinished()) == 1
    monkeypatch.setattr(copying, "fault_point", lambda _name: None)
    read.clear()
    bench.run()
    assert min(read) == CHUNK, "the first piece is not read at the source again"
    assert bench.at_target() == {"a.dm4": content}
    assert bench.unfinished() == []


def test_a_torn_piece_is_copied_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(3 * CHUNK)
    bench.write("a.dm4", content)
    story, pieces = Story(), [0]

    def stop_after_two(name: str) -> None:
        pieces[0] += name == "piece_noted"
        if pieces[0] == 2:
            story.stop()

    monkeypatch.setattr(copying, "fault_point", stop_after_two)
    bench.run(story, once=False)
    (part,) = bench.unfinished()
    with part.open("r+b") as handle:  # as after a power cut
        handle.seek(CHUNK + 5)
        handle.write(bytes(1000))
    monkeypatch.setattr(copying, "fault_point", lambda _name: None)
    bench.run()
    assert bench.at_target() == {"a.dm4": content}


def test_bandwidth_is_limited(bench: Bench) -> None:
    story = Story(most_waits=10**6)
    bench.write("a.dm4", os.urandom(10 * CHUNK))
    bench.run(story, bytes_per_s=CHUNK, stable_s=0.0)
    assert 9.0 <= story.now_s <= 11.0


@settings(max_examples=50, deadline=None)
@given(rate=st.floats(1e4, 1e7), asked=st.lists(st.integers(1, 100_000), min_size=1, max_size=20))
def test_never_more_passes_than_the_rate_allows(rate: float, asked: list[int]) -> None:
    story = Story(most_waits=10**9)
    throttle = Throttle(rate, story.wait, lambda: False, story.clock)
    for n_bytes in asked:
        throttle.take(n_bytes)
        assert throttle.passed_bytes <= rate * (story.now_s + throttle.burst_s) * (1 + 1e-6) + 1


def test_a_lost_ledger_costs_reading_and_copies_nothing_twice(bench: Bench) -> None:
    bench.write("a.dm4", b"movie a")
    bench.write("b.dm4", b"movie b")
    bench.run()
    bench.ledger.path.unlink()
    bench.run()
    assert sorted(bench.at_target()) == ["a.dm4", "b.dm4"]
    assert set(bench.states().values()) == {"verified"}


def test_errors_of_files_that_keep_coming_are_of_the_link(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        bench.write(f"{number}.dm4")
    pread = os.pread

    def dead(handle: int, n_bytes: int, at: int) -> bytes:
        if "/microscope/" in path_of(handle):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(handle, n_bytes, at)

    monkeypatch.setattr(os, "pread", dead)
    with pytest.raises(LinkBroken):
        bench.run()
    assert sum(state == "failed" for state in bench.states().values()) == running._IN_A_ROW - 1  # noqa: SLF001


def test_a_name_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    folder = AnchoredFolder(tmp_path / "root")
    for name in ("../a", "/etc/passwd", "a/../../b", ""):
        with pytest.raises(Exception, match="leads out"):
            folder.status(name)
