"""What a session holds: sums are those of the disk, only what is new is looked at, and what was removed is no longer counted."""

import os
import shutil
from pathlib import Path

import pytest

from icestream.flow.commands.requests import Remove, Set
from icestream.flow.storage import kind_of_file
from icestream.flow.storage.session import Session, open_session
from icestream.observe import file_sizes
from icestream.observe.file_sizes import FileSizes
from icestream.observe.storage import Holding, read_holding
from toys.session import arrive, make_toy_session, toy_steps
from virtual.machine import VirtualMachine


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    VirtualMachine(make_toy_session(folder, toy_steps(8), numbers=range(8))).run_out()
    return folder


@pytest.fixture
def session(finished: Path, tmp_path: Path) -> Session:
    shutil.copytree(finished, tmp_path / "copy")
    return open_session(tmp_path / "copy" / "session")


def read(session: Session) -> Holding:
    return read_holding(session, FileSizes(session))


def on_disk(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and ".trash" not in path.parts)


def results_bytes(found: Holding) -> int:
    return sum(one.bytes for one in found.kinds if one.kind not in ("raw", "other"))


def test_sums_are_those_of_the_disk(session: Session) -> None:
    found = read(session)
    assert found.complete
    assert results_bytes(found) == sum(one.bytes for one in found.steps)
    named = {one.kind: one for one in found.kinds}
    unnamed = on_disk(session.folder / "steps") - results_bytes(found)  # states of the accumulator are in no result
    assert 0 <= unnamed < 200
    assert {(one.step, one.files) for one in found.steps if one.step in ("triple", "odd")} == {("triple", 8), ("odd", 4)}
    assert named["metadata"].again_bytes == sum(one.bytes for one in found.steps if one.again)
    everything = sum(path.lstat().st_size for path in session.folder.rglob("*") if path.is_file())
    assert found.bytes <= everything


def test_only_new_results_are_looked_at(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(session)
    looked: list[str] = []
    real = os.lstat

    def look(path: Path, *, dir_fd: int | None = None) -> os.stat_result:
        looked.append(str(path))
        return real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "lstat", look)
    assert read(session).steps == before.steps
    assert not [path for path in looked if "/triple/" in path]
    arrive(session.folder.parent, range(8, 10))
    VirtualMachine(session).ask(Set(step="numbers", params={"stop_after": 10}))
    VirtualMachine(session).run_out()
    looked.clear()
    after = {one.step: one for one in read(open_session(session.folder)).steps}
    assert after["triple"].files == 10
    assert len({path for path in looked if "/triple/" in path}) == 2


def test_it_can_be_read_in_slices(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sizes, "_PAGE", 5)
    sizes, whole = FileSizes(session), 0
    while not read_holding(session, sizes, seconds=0.0).complete:
        whole += 1
    assert whole > 3
    assert read_holding(session, sizes).steps == read(session).steps


def test_what_was_removed_is_counted_as_trash(session: Session) -> None:
    before = {one.step: one for one in read(session).steps}
    machine = VirtualMachine(session)
    machine.ask(Remove(steps=("triple",)))
    machine.answer_here()
    found = read(session)
    assert "triple" not in {one.step for one in found.steps}
    assert (found.trash_bytes, found.removals[0].n_files) == (before["triple"].bytes, 8)
    assert found.bytes == results_bytes(found) + next(one.bytes for one in found.kinds if one.kind == "other") + found.trash_bytes


def test_an_index_that_is_none_or_a_link_is_left_alone(session: Session, tmp_path: Path) -> None:
    expected = read(session).steps
    sizes = FileSizes(session)
    sizes.path.write_bytes(b"no database" * 100)
    assert read(session).steps == expected
    assert sizes.path.read_bytes() == b"no database" * 100
    sizes.path.unlink()
    sizes.path.symlink_to(tmp_path / "elsewhere.db")
    assert read(session).steps == expected
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_session_that_has_not_run_holds_nothing(tmp_path: Path) -> None:
    session = make_toy_session(tmp_path, toy_steps(2), numbers=range(2))
    found = read(session)
    assert (found.steps, found.removals, [one.kind for one in found.kinds]) == ((), (), ["other"])


@pytest.mark.parametrize(
    ("name", "whole", "kind"),
    [
        ("a_dw.mrc", False, "micrographs"),
        ("a.MRCS", False, "particles"),
        ("a.png", False, "thumbnails"),
        ("a.star", False, "metadata"),
        ("classes.mrcs", True, "averages"),
        ("without_suffix", False, "metadata"),
    ],
)
def test_a_file_has_a_kind(name: str, whole: bool, kind: str) -> None:
    assert kind_of_file(f"session:steps/x/1/{name}", whole=whole) == kind
