"""Making sessions from templates: forms from schemas, errors by field, raw data below allowed folders only, runners that stay."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from icestream.facility.runners import find_runner
from icestream.facility.simulating import MOST_BYTES, MOVIE_BYTES
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from icestream.web.access import AccessFile
from icestream.web.raw_folders import NotAllowed, RawFolders
from toys.session import arrive
from web.parts import PASSWORD, Served, serve_folder
from web.toy_template import TOY_TEMPLATE, until

NEW = "/api/v1/sessions"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of raw data with a secret beside it."""
    (tmp_path / "secret").mkdir()
    arrive(tmp_path / "raw", range(3))
    (tmp_path / "raw" / "out").symlink_to(tmp_path / "secret")
    return tmp_path / "raw"


@pytest.fixture
def site(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A folder of sessions, empty so far; runners that are left are ended."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "toy.yaml").write_text(TOY_TEMPLATE, encoding="utf-8")
    monkeypatch.setenv("ICESTREAM_TEMPLATES", str(tmp_path / "templates"))
    folder = tmp_path / "sessions"
    folder.mkdir()
    yield serve_folder(folder, tmp_path / "access.json", raw=(raw,))
    for path in folder.glob("*/session.yaml"):
        running = find_runner(path.parent)
        if running is not None:
            os.kill(running.pid, signal.SIGKILL)


def asked(raw: Path, **changes: object) -> dict[str, object]:
    values = {"numbers": str(raw / "numbers"), "count": 3}
    return {"name": "first", "template": "toy", "values": values, "run": False} | changes


def test_templates_are_listed_with_what_they_ask_for(site: Served):
    client = site.page()
    lines = {one["name"]: one for one in client.get("/api/v1/templates").json()}
    assert {"toy", "movies_to_classes"} <= set(lines)
    page = client.get("/api/v1/templates/toy").json()
    assert page["values"]["properties"]["numbers"]["format"] == "folder"
    assert page["values"]["properties"]["factor"] == {
        "type": "integer", "title": "Factor", "description": "What each number is multiplied by", "default": 3, "unit": "x",
        "group": "Numbers", "minimum": 1.0, "maximum": 9.0,
    }  # fmt: skip
    assert [one["name"] for one in page["steps"]] == ["numbers", "times"]
    assert page["steps"][1]["summary"]
    assert client.get("/api/v1/templates/nothing").status_code == 404
    assert client.get("/api/v1/templates/%2Fetc%2Fpasswd").status_code == 404


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(site: Served, raw: Path):
    answer = site.page().post(NEW, json=asked(raw, dry_run=True))
    assert (answer.status_code, answer.json()["made"], answer.json()["steps"]) == (200, False, ["numbers", "times"])
    assert answer.json()["roots"] == {"numbers": str(raw / "numbers")}
    assert list(site.folder.iterdir()) == []


def test_a_session_is_made_and_shown_at_once(site: Served, raw: Path):
    client = site.page()
    answer = client.post(NEW, json=asked(raw))
    assert (answer.status_code, answer.json()["made"], answer.json()["pid"]) == (201, True, None)
    document = open_session(site.folder / "first").document
    assert document.steps["times"].params["factor"] == 3
    assert client.get(f"{NEW}/first").json()["overview"]["runner"]["state"] == "not started"
    again = client.post(NEW, json=asked(raw))
    assert (again.status_code, list(again.json()["fields"])) == (422, ["name"])


@pytest.mark.parametrize(
    ("values", "field", "told"),
    [
        ({"factor": 12}, "factor", "at most 9"),
        ({"factor": "many"}, "factor", "a whole number"),
        ({"numbers": None}, "numbers", "is not given"),
        ({"numbers": "/etc"}, "numbers", "must be in"),
        ({"numbers": "RAW/out"}, "numbers", "must be in"),
        ({"numbers": "RAW/../secret"}, "numbers", "must be in"),
        ({"numbers": "relative"}, "numbers", "must be in"),
        ({"colour": "red"}, "colour", "is not a value that is asked for"),
    ],
)
def test_errors_are_told_by_field(site: Served, raw: Path, values: dict[str, object], field: str, told: str):
    given = {name: value.replace("RAW", str(raw)) if isinstance(value, str) else value for name, value in values.items()}
    answer = site.page().post(NEW, json=asked(raw, values={"numbers": str(raw / "numbers"), "count": 3} | given))
    assert (answer.status_code, list(answer.json()["fields"])) == (422, [field])
    assert told in answer.json()["fields"][field]
    assert list(site.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-x", "new\nline", "x" * 121, "a b"])
def test_a_name_is_no_path(site: Served, raw: Path, name: str):
    assert site.page().post(NEW, json=asked(raw, name=name)).status_code == 422
    assert list(site.folder.iterdir()) == []


def test_a_pattern_stays_below_its_folder(site: Served, raw: Path):
    for pattern in ("../*.mrc", "/etc/*.mrc", "a/../../*.tiff"):
        values = {"movies": str(raw), "pattern": pattern, "voltage": 300, "cs": 2.7, "pixel_size": 1, "dose_per_frame": 1}
        answer = site.page().post(NEW, json=asked(raw, template="movies_to_classes", values=values, dry_run=True))
        assert (answer.status_code, "pattern" in answer.json()["fields"]) == (422, True), answer.text


def test_only_allowed_folders_are_listed(site: Served, raw: Path):
    client = site.page()
    found = client.get("/api/v1/raw-folders").json()
    assert [one["path"] for one in found["folders"]] == [str(raw)]
    inside = client.get("/api/v1/raw-folders", params={"path": str(raw)}).json()
    assert ([one["name"] for one in inside["folders"]], inside["above"]) == (["numbers"], "")  # no link that leads out
    numbers = client.get("/api/v1/raw-folders", params={"path": str(raw / "numbers")}).json()
    assert (numbers["n_files"], numbers["files"], numbers["above"]) == (3, ["0", "1", "2"], str(raw))
    for path in ("/etc", str(raw.parent), f"{raw}/../secret", f"{raw}/out", "numbers"):
        assert client.get("/api/v1/raw-folders", params={"path": path}).status_code == 403
    assert client.get("/api/v1/raw-folders", params={"path": f"{raw}/nothing"}).status_code == 404


def test_a_folder_with_a_session_in_it_is_no_raw_data(tmp_path: Path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "session.yaml").touch()
    assert RawFolders((tmp_path,)).look(str(tmp_path)).folders == ()
    with pytest.raises(NotAllowed, match="no folder"):
        RawFolders().check(str(tmp_path))


def test_nothing_in_a_session_is_raw_data(tmp_path: Path):
    inside = tmp_path / "b_1" / "movies"
    inside.mkdir(parents=True)
    (tmp_path / "b_1" / "session.yaml").touch()
    (tmp_path / "linked").symlink_to(inside)
    (tmp_path / "plain").mkdir()
    allowed = RawFolders((tmp_path,))
    for path in (inside.parent, inside, inside / "later", tmp_path / "linked", tmp_path / "plain" / ".." / "b_1"):
        with pytest.raises(NotAllowed, match="in the folder of a session"):
            allowed.check(str(path))
        with pytest.raises(NotAllowed, match="in the folder of a session"):
            allowed.look(str(path))
    with pytest.raises(NotAllowed, match="in the folder of a session"):
        RawFolders((inside,)).check(str(inside))
    assert [one.name for one in allowed.look(str(tmp_path)).folders] == ["plain"]
    assert allowed.check(str(tmp_path / "plain")) == tmp_path / "plain"


def test_a_single_session_makes_no_others(toy_site: Served, raw: Path):
    answer = toy_site.signed_in().post(NEW, json=asked(raw))
    assert (answer.status_code, "single session" in answer.text) == (409, True)


def test_who_may_look_starts_nothing(closed_site: Served, raw: Path):
    screen = closed_site.signed_in("screen")
    assert screen.post(NEW, json=asked(raw)).status_code == 403
    assert screen.post(f"{NEW}/every/runner", json={}).status_code == 403
    assert screen.get("/api/v1/raw-folders").status_code == 403
    assert closed_site.client().get("/api/v1/templates").status_code == 401


def test_a_runner_is_a_process_of_its_own(site: Served, raw: Path):
    client = site.page()
    client.post(NEW, json=asked(raw, values={"numbers": str(raw / "numbers"), "count": 4}))  # one more than there is: it waits
    answer = client.post(f"{NEW}/first/runner", json={})
    assert answer.status_code == 201
    runner = psutil.Process(answer.json()["pid"])
    assert os.getsid(runner.pid) != os.getsid(0)
    until(lambda: client.get(f"{NEW}/first").json()["overview"]["runner"]["alive"])
    again = client.post(f"{NEW}/first/runner", json={})
    assert (again.status_code, "already running" in again.text) == (409, True)
    assert client.post(f"{NEW}/first/actions", json={"kind": "stop"}).json()["state"] == "done"
    until(lambda: not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE)
    until(lambda: client.get(f"{NEW}/first").json()["overview"]["runner"]["state"] == "stopped")


def test_a_runner_that_ends_at_once_says_why(site: Served, raw: Path, monkeypatch: pytest.MonkeyPatch):
    client = site.page()
    client.post(NEW, json=asked(raw))
    monkeypatch.setattr("icestream.facility.runners._STARTING_S", 60.0)
    monkeypatch.setenv("ICESTREAM_CORES", "many")
    answer = client.post(f"{NEW}/first/runner", json={})
    assert (answer.status_code, "ICESTREAM_CORES" in answer.json()["detail"]) == (400, True)


@pytest.fixture
def simulated(site: Served) -> Iterator[Served]:
    """The same site; a microscope that is left writing is ended."""
    yield site
    running = site.site.simulated
    if running is not None:
        running.process.kill()
        running.process.wait()


def test_a_simulated_microscope_writes_and_its_values_make_a_session(simulated: Served):
    client = simulated.page()
    assert client.post("/api/v1/simulations", json={"movies": 0}).status_code == 422
    answer = client.post("/api/v1/simulations", json={"movies": 2, "seconds_per_movie": 1})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    folder = simulated.folder / "simulated_microscope"
    assert told["folder"] == str(folder)
    again = client.post("/api/v1/simulations", json={})
    assert (again.status_code, str(folder) in again.json()["detail"]) == (409, True)
    made = client.post(NEW, json={"name": told["session"], "template": told["template"], "values": told["values"], "run": False})
    assert made.status_code == 201, made.text  # its folder may be chosen, though only another one was allowed
    document = open_session(simulated.folder / "simulated").document
    assert (document.roots["movies"], document.acquisition.voltage_kv) == (str(folder / "movies"), 300.0)
    until((folder / "gain.mrc").exists)
    assert [one["id"] for one in client.get(NEW).json()] == ["simulated"]  # the folder of the microscope is no session


def test_a_second_microscope_has_another_folder_and_who_may_only_look_starts_none(simulated: Served, granted: Path):
    client = simulated.page()
    first = client.post("/api/v1/simulations", json={"movies": 2}).json()
    running = simulated.site.simulated
    assert running is not None
    running.process.kill()
    running.process.wait()
    second = client.post("/api/v1/simulations", json={"movies": 2}).json()
    assert [Path(one["folder"]).name for one in (first, second)] == ["simulated_microscope", "simulated_microscope_2"]
    assert second["session"] == "simulated_2"
    shown = serve_folder(simulated.folder, granted, local=False)
    assert shown.signed_in("screen").post("/api/v1/simulations", json={}).status_code == 403


def test_a_server_that_began_anew_sees_the_microscope_that_is_writing(simulated: Served, granted: Path):
    folder = simulated.page().post("/api/v1/simulations", json={"movies": 2}).json()["folder"]
    anew = serve_folder(simulated.folder, granted)
    assert anew.site.simulated is None
    refused = anew.signed_in().post("/api/v1/simulations", json={"movies": 2})
    assert (refused.status_code, folder in refused.json()["detail"]) == (409, True)
    assert not (simulated.folder / "simulated_microscope_2").exists()


def test_who_operates_only_some_sessions_simulates_no_microscope(site: Served, tmp_path: Path):
    access = AccessFile(tmp_path / "some.json")
    access.add_password("ruth", PASSWORD, "operate", sessions=["ev*"])
    ruth = serve_folder(site.folder, access.path, local=False).signed_in("ruth")
    told = ruth.get("/api/v1/me").json()
    assert (told["creates"], told["operates"]) == (True, False)
    assert ruth.post("/api/v1/simulations", json={"movies": 2}).status_code == 403
    assert list(site.folder.glob("simulated*")) == []


def test_simulated_movies_take_a_limited_part_of_the_disk(site: Served, granted: Path):
    (site.folder / "simulated_microscope" / "movies").mkdir(parents=True)
    with (site.folder / "simulated_microscope" / "movies" / "old.tif").open("wb") as old:
        old.truncate(MOST_BYTES - 2 * MOVIE_BYTES + 1)  # a file with a hole: it only seems to be large
    refused = site.page().post("/api/v1/simulations", json={"movies": 2})
    assert (refused.status_code, "at most 4 GB are allowed" in refused.json()["detail"]) == (400, True)
    full = serve_folder(site.folder, granted, settings=Settings(min_free_gb=1e9, cores=1))
    refused = full.signed_in().post("/api/v1/simulations", json={"movies": 1})
    assert (refused.status_code, "must stay free" in refused.json()["detail"]) == (400, True)
    assert not (site.folder / "simulated_microscope_2").exists()


def test_beside_a_single_session_no_microscope_is_simulated(toy_site: Served):
    assert toy_site.signed_in().post("/api/v1/simulations", json={}).status_code == 409
