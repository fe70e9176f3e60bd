"""Watched folders through the interface: what became of each, what people ask, and who may."""

from pathlib import Path

import pytest

from icestream.facility import watch_state
from icestream.facility.watch_decisions import Folder, Phase, WatchState
from icestream.facility.watch_state import StateFile
from icestream.settings import Settings
from icestream.web.access import AccessFile
from toys.session import make_toy_session, toy_steps
from web.parts import PASSWORD, Served, serve_folder

AT = "/api/v1/watches"


def write_watch(state: Path, root: Path, sessions: Path) -> StateFile:
    """Write what a watch remembers: one folder that was there before, one without a value, one that runs, one that fell."""
    folders = {
        "old": Folder(phase=Phase.IGNORED, since=100.0),
        "grid 4 <b>": Folder(phase=Phase.INCOMPLETE, since=200.0, problems=["'voltage' (Voltage) is not given"]),
        "grid 5": Folder(phase=Phase.RUNNING, since=300.0, session=str(sessions / "session")),
        "grid 6": Folder(phase=Phase.FALLEN, since=400.0, session=str(sessions / "elsewhere"), falls=3, note="killed"),
    }
    file = StateFile(state, root)
    file.write(WatchState(root=str(root), pattern="*/", looked=True, folders=folders))
    return file


@pytest.fixture
def watched(granted: Path, tmp_path: Path) -> tuple[Served, StateFile]:
    make_toy_session(tmp_path / "sessions", toy_steps(4), numbers=range(4))
    settings = Settings(state=tmp_path / "state", min_free_gb=0, cores=1)
    file = write_watch(settings.state, tmp_path / "data", tmp_path / "sessions")
    return serve_folder(tmp_path / "sessions", granted, local=False, settings=settings), file


def test_what_became_of_each_folder_is_listed_and_asked_of(watched: tuple[Served, StateFile]) -> None:
    site, file = watched
    anna = site.signed_in()
    (page,) = anna.get(AT).json()
    lines = {one["name"]: one for one in page["folders"]}
    assert (page["watched_by"], page["more"], list(lines)) == (None, 0, ["grid 6", "grid 5", "grid 4 <b>", "old"])
    assert (lines["grid 5"]["session"], lines["grid 6"]["session"]) == ("session", None)  # the other is served elsewhere
    assert (lines["grid 6"]["alert"], lines["grid 6"]["may"], lines["old"]["may"]) == (True, ["retry"], ["take"])
    asked = {"root": page["root"], "folder": "old", "what": "take", "template": "movies_to_ctf"}
    answer = anna.post(f"{AT}/ask", json=asked)
    assert answer.json()["text"] == "the watch does it when the watch is started; it is not running now"
    ((_, wish),) = file.wishes()
    assert (wish.folder, wish.what, wish.author, wish.template) == ("old", "take", "anna", "movies_to_ctf")
    assert {one["name"]: one["asked"] for one in anna.get(AT).json()[0]["folders"]}["old"] == "take"
    with file.held():
        assert "at its next look" in anna.post(f"{AT}/ask", json={**asked, "folder": "grid 6", "what": "retry"}).text


def test_what_cannot_be_asked_is_refused(watched: tuple[Served, StateFile]) -> None:
    site, file = watched
    anna = site.signed_in()
    right = {"root": anna.get(AT).json()[0]["root"], "folder": "old", "what": "take"}
    for wrong, status in (
        ({"root": "/etc"}, 404),
        ({"folder": "../../etc"}, 404),
        ({"what": "retry"}, 409),
        ({"what": "remove"}, 422),
        ({"template": "/etc/passwd"}, 404),
    ):
        assert anna.post(f"{AT}/ask", json=right | wrong).status_code == status, wrong
    assert file.wishes() == []
    assert site.signed_in("screen").get(AT).status_code == 403
    assert site.client().get(AT).status_code == 401
    access = AccessFile(site.folder.parent / "some.json")
    access.add_password("ruth", PASSWORD, "operate", sessions=["ses*"])
    some = serve_folder(site.folder, access.path, local=False, settings=site.site.settings).signed_in("ruth")
    assert (some.get(AT).status_code, some.post(f"{AT}/ask", json=right).status_code) == (403, 403)


def test_a_damaged_memory_hides_no_other(watched: tuple[Served, StateFile]) -> None:
    site, file = watched
    (file.path.parent / "damaged.json").write_text("{", encoding="utf-8")
    (file.path.with_suffix(".asked")).mkdir()
    (file.path.with_suffix(".asked") / "1.json").write_text("not a wish", encoding="utf-8")
    assert len(site.signed_in().get(AT).json()) == 1
    assert [path.name for path in file.path.with_suffix(".asked").iterdir()] == ["1.json"]  # who only looks removes nothing


def test_requests_do_not_pile_up_while_no_watch_runs(watched: tuple[Served, StateFile], monkeypatch: pytest.MonkeyPatch) -> None:
    site, file = watched
    anna = site.signed_in()
    asked = {"root": anna.get(AT).json()[0]["root"], "folder": "old", "what": "take"}
    for template in ("movies_to_ctf", None, "movies_to_ctf"):
        assert anna.post(f"{AT}/ask", json={**asked, "template": template}).status_code == 200
    ((_, wish),) = file.wishes()
    assert wish.template == "movies_to_ctf"
    monkeypatch.setattr(watch_state, "MOST_WISHES", 1)
    answer = anna.post(f"{AT}/ask", json={**asked, "folder": "grid 6", "what": "retry"})
    assert (answer.status_code, "1 requests wait" in answer.text) == (409, True)
    assert len(list(file.path.with_suffix(".asked").iterdir())) == 1
