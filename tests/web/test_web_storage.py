"""Storage through the interface: what is held, who may remove, undo and delete raw data, and what is refused."""

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from icestream.facility.raw_copies import CopyLedger
from icestream.facility.raw_deletion import read_deletions
from icestream.flow.storage import schema
from icestream.flow.storage.session import open_session
from icestream.web.access import AccessFile
from toys.session import make_toy_session, read_rows, toy_steps
from virtual.machine import VirtualMachine
from web.parts import PASSWORD, Served, serve_folder
from web.raw_session import note_raw_file

S = "/api/v1/sessions/session/storage"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session that has run to its end, with a raw file of which there is a copy in `archive`."""
    folder = tmp_path_factory.mktemp("finished")
    session = make_toy_session(folder, toy_steps(4), numbers=range(4))
    VirtualMachine(session).run_out()
    note_raw_file(session, "3")
    return folder


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("access") / "access.json"
    file = AccessFile(path)
    for name, role in (("anna", "operate"), ("screen", "look"), ("admin", "administrate")):
        file.add_password(name, PASSWORD, role)
    return path


@pytest.fixture
def site(finished: Path, access: Path, tmp_path: Path) -> Served:
    shutil.copytree(finished, tmp_path / "here")
    shutil.copy(access, tmp_path / "access.json")
    return serve_folder(tmp_path / "here" / "session", tmp_path / "access.json", local=False)


@pytest.fixture
def anna(site: Served) -> TestClient:
    return site.signed_in()


def test_files_are_removed_after_a_dry_run_and_put_back(site: Served, anna: TestClient) -> None:
    before = anna.get(S).json()
    assert before["complete"]
    triple = next(one for one in before["steps"] if one["step"] == "triple")
    assert (triple["files"], triple["again"], before["raw_with_copy"]) == (4, True, 0)
    chosen = {"kinds": ["metadata"], "steps": ["triple"]}
    planned = anna.post(f"{S}/plan", json=chosen).json()
    assert (planned["files"], planned["bytes"], planned["exposures"]) == (4, triple["bytes"], 4)
    assert anna.get(S).json()["removals"] == []
    done = anna.post(f"{S}/remove", json={**chosen, "reason": "the disk is full"}).json()
    assert done["state"] == "done", done
    page = anna.get(S).json()
    (removal,) = page["removals"]
    assert (removal["author"], removal["reason"], removal["state"], removal["may_be_undone"]) == (
        "anna",
        "the disk is full",
        "trash",
        True,
    )
    assert page["trash_bytes"] == triple["bytes"]
    assert "triple" not in {one["step"] for one in page["steps"]}
    assert anna.post(f"{S}/undo", json={"number": 1}).json()["state"] == "done"
    page = anna.get(S).json()
    assert (page["removals"][0]["state"], page["trash_bytes"]) == ("undone", 0)
    assert triple in page["steps"]
    assert anna.post(f"{S}/undo", json={"number": 1}).json()["state"] == "refused"
    history = [row["author"] for row in read_rows(open_session(site.folder), schema.command)]
    assert history == ["anna", "anna", "anna"]


def test_what_was_deleted_for_good_is_computed_again(site: Served, anna: TestClient) -> None:
    anna.post(f"{S}/remove", json={"steps": ["triple"]})
    assert anna.post(f"{S}/empty", json={"number": 1}).json()["state"] == "done"
    page = anna.get(S).json()
    assert (page["removals"][0]["state"], page["trash_bytes"]) == ("gone", 0)
    assert page["removed_bytes"] > 0
    assert anna.post(f"{S}/restore", json={}).json()["state"] == "done"
    VirtualMachine(open_session(site.folder)).run_out()
    assert anna.get(S).json()["removed_bytes"] == 0


def test_who_may_only_look_changes_nothing_and_sees_no_rules(site: Served, anna: TestClient) -> None:
    rules = "rules: [{name: old, kinds: [thumbnails], after_hours: 1}]"
    assert anna.post(f"{S}/rules", json={"before": "", "document": rules}).status_code == 200
    assert anna.post(f"{S}/rules", json={"before": "", "document": rules}).status_code == 409
    wrong = anna.post(f"{S}/rules", json={"before": rules, "document": "rules: [{name: old, kinds: [raw], after_hours: 1}]"})
    assert (wrong.status_code, "is not removed by rules" in wrong.json()["detail"]) == (400, True)
    assert anna.get(S).json()["document"] == rules
    screen = site.signed_in("screen")
    page = screen.get(S).json()
    assert ([one["name"] for one in page["rules"]], page["document"]) == (["old"], "")
    for address, body in (
        ("plan", {}),
        ("remove", {}),
        ("undo", {"number": 1}),
        ("restore", {}),
        ("empty", {"number": 1}),
        ("rules", {"before": rules, "document": ""}),
        ("raw/plan", {"name": ""}),
        ("raw/delete", {"name": "toy"}),
        ("raw/withdraw", {"number": 1}),
    ):
        assert screen.post(f"{S}/{address}", json=body).status_code == 403, address
        assert site.client().post(f"{S}/{address}", json=body).status_code in (401, 403), address


def test_raw_data_need_an_administrator_a_copy_and_the_typed_name(site: Served, anna: TestClient) -> None:
    session = open_session(site.folder)
    assert anna.post(f"{S}/raw/delete", json={"name": "toy"}).status_code == 403
    admin = site.signed_in("admin")
    assert admin.post(f"{S}/raw/plan", json={"name": ""}).json()["files"] == 0
    assert "there is no verified copy" in admin.post(f"{S}/raw/delete", json={"name": "toy"}).json()["detail"]
    CopyLedger(session).verify("numbers", site.folder.parent / "archive")
    assert admin.get(S).json()["raw_with_copy"] == 1
    assert admin.post(f"{S}/raw/delete", json={"name": "session"}).status_code == 400
    assert admin.post(f"{S}/raw/delete", json={"name": "toy", "undo_hours": 0}).status_code == 422
    assert read_deletions(session, state=site.site.settings.state) == []
    done = admin.post(f"{S}/raw/delete", json={"name": "toy", "reason": "archived"}).json()
    assert (done["author"], done["state"], done["n_files"]) == ("admin", "waiting", 1)
    assert (site.folder.parent / "numbers" / "3").exists()
    assert anna.post(f"{S}/raw/withdraw", json={"number": 1}).status_code == 403
    assert admin.post(f"{S}/raw/withdraw", json={"number": 1}).status_code == 200
    assert admin.get(S).json()["raw_deletions"][0]["state"] == "withdrawn"


@pytest.mark.parametrize(
    "body",
    [
        {"kinds": ["raw"]},
        {"kinds": ["averages"]},
        {"steps": ["../../etc"]},
        {"steps": ["<img src=x>"]},
    ],
)
def test_what_cannot_be_removed_is_refused(site: Served, anna: TestClient, body: dict[str, list[str]]) -> None:
    assert anna.post(f"{S}/plan", json=body).status_code == 400
    assert anna.post(f"{S}/remove", json=body).json()["state"] == "refused"
    assert anna.post(f"{S}/plan", json={"kinds": ["everything"]}).status_code == 422
    assert read_rows(open_session(site.folder), schema.removal) == []
