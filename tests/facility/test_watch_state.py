"""What a watch and those who ask of it share on the disk: whoever reads meets half-written files, and removes none of them."""

from pathlib import Path

import pytest

from icestream.errors import SessionBusy
from icestream.facility import watch_state
from icestream.facility.watch_decisions import WatchState, Wish
from icestream.facility.watch_state import StateFile, list_watches
from icestream.files import temporary_path


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state", tmp_path / "data")


def wish(folder: str, what: str = "take") -> Wish:
    return Wish(folder=folder, what=what, author="anna")


def asked_of(file: StateFile) -> Path:
    return file.path.with_suffix(".asked")


def test_a_request_that_is_being_written_is_left_in_peace(file: StateFile) -> None:
    file.ask(wish("a"))
    half = temporary_path(asked_of(file) / "1.json", attempt="0")
    half.write_text("", encoding="utf-8")
    assert half.match("*.json")
    assert [one.folder for _, one in file.wishes()] == ["a"]
    file.drop_unreadable_wishes()
    assert half.exists()


def test_only_the_watch_drops_a_request_and_only_one_that_is_whole_and_wrong(file: StateFile) -> None:
    file.ask(wish("a"))
    wrong, not_now = asked_of(file) / "1.json", asked_of(file) / "2.json"
    wrong.write_text("not a wish", encoding="utf-8")
    not_now.mkdir()  # reading it is an error of the system
    assert [one.folder for _, one in file.wishes()] == ["a"]
    assert wrong.exists()
    file.drop_unreadable_wishes()
    assert (wrong.exists(), not_now.exists()) == (False, True)
    assert [one.folder for _, one in file.wishes()] == ["a"]


def test_the_newest_request_for_a_folder_replaces_the_others(file: StateFile) -> None:
    for folder, what in (("a", "take"), ("b", "take"), ("a", "ignore"), ("a", "retry")):
        file.ask(wish(folder, what))
    assert [(one.folder, one.what) for _, one in file.wishes()] == [("b", "take"), ("a", "retry")]
    assert len(list(asked_of(file).iterdir())) == 2


def test_only_so_many_requests_wait(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_state, "MOST_WISHES", 2)
    for folder in ("a", "b", "a"):
        file.ask(wish(folder))
    with pytest.raises(SessionBusy, match="2 requests wait"):
        file.ask(wish("c"))
    file.ask(wish("b", "ignore"))
    assert [(one.folder, one.what) for _, one in file.wishes()] == [("a", "take"), ("b", "ignore")]


def test_a_root_is_listed_once(file: StateFile) -> None:
    file.write(WatchState(root=str(file.root), pattern="*/"))
    text = file.path.read_text(encoding="utf-8")
    temporary_path(file.path, attempt="0").write_text(text, encoding="utf-8")
    file.path.with_name("kept by a person.json").write_text(text, encoding="utf-8")
    assert [state.root for _, state in list_watches(file.state_folder)] == [str(file.root)]
