"""The address of transfers: the table, its filters, and what who may only look is not told."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from icestream.transfer.anchored import FileStamp
from icestream.transfer.ledger import account_ledger, session_ledger
from icestream.web.access import AccessFile
from web.parts import PASSWORD, Served, serve_folder

HOSTILE = "<img src=x onerror=alert(1)>.mrc"


@pytest.fixture
def ledger_of_site(toy_site: Served, tmp_path: Path) -> int:
    """A transfer on paper, into the session that is served; return its number."""
    ledger = session_ledger(open_session(tmp_path / "session"))
    row = ledger.open_transfer(Path("/mnt/secret place/microscope"), Path("/data/raw"))
    ledger.tell(row.id, "paused", "/mnt/secret place/microscope: cannot be read: Host is down", waiting=(3, 3_000_000_000))
    for number in range(60):
        ledger.put(row.id, f"grid/{number:03}.mrc", FileStamp(10**8, number), "verified", digest="ab" * 32, verified_at=1e9)
    ledger.put(row.id, HOSTILE, FileStamp(5, 5), "failed", reason="/secret place: Input/output error", attempts=2, retry_at=2e9)
    return row.id


def _page(client: TestClient, query: str = "") -> dict:
    answer = client.get(f"/api/v1/sessions/session/transfers{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_transfers_are_listed_and_filtered(toy_site: Served, ledger_of_site: int) -> None:
    anna = toy_site.signed_in("anna")
    page = _page(anna)
    (line,) = page["transfers"]
    assert (line["doing"], line["waiting"], line["source"]) == ("paused", 3, "/mnt/secret place/microscope")
    assert {one["state"]: one["files"] for one in line["counts"]} == {"verified": 60, "failed": 1}
    assert page["shown"] == ledger_of_site
    assert len(page["files"]) == 50
    assert page["more"]
    (failed,) = _page(anna, "?state=failed")["files"]
    assert (failed["name"], failed["reason"], failed["attempts"]) == (HOSTILE, "/secret place: Input/output error", 2)
    assert [one["name"] for one in _page(anna, "?text=012")["files"]] == ["grid/012.mrc"]
    last = _page(anna, "?offset=60&limit=10")
    assert (len(last["files"]), last["more"]) == (1, False)
    assert _page(anna, "?transfer=77")["files"] == []
    assert anna.get("/api/v1/sessions/session/transfers?state=stolen").status_code == 422


def test_who_may_only_look_is_not_told_where_folders_are(toy_site: Served, ledger_of_site: int) -> None:
    told = toy_site.signed_in("screen").get("/api/v1/sessions/session/transfers?state=failed").text
    assert "who operates the session is told why" in told
    assert "secret place" not in told
    assert "microscope" in told
    assert toy_site.client().get("/api/v1/sessions/session/transfers").status_code == 401


def test_a_session_without_transfers_has_an_empty_table(client: TestClient) -> None:
    empty: dict[str, object] = {"alarms": [], "transfers": [], "shown": None, "files": [], "more": False}
    assert client.get("/api/v1/sessions/every/transfers").json() == empty


def test_the_copy_of_a_whole_disk_is_shown_to_who_operates_all_sessions(granted: Path, tmp_path: Path):
    settings = Settings(state=tmp_path / "state", min_free_gb=0, cores=1)
    (tmp_path / "sessions").mkdir()
    ledger = account_ledger(settings.state)
    row = ledger.open_transfer(Path("/mnt/krios"), Path("/data/krios"))
    ledger.put(row.id, "grid7/1.eer", FileStamp(5, 5), "failed", reason="Input/output error", attempts=2, retry_at=2e9)
    site = serve_folder(tmp_path / "sessions", granted, local=False, settings=settings)
    anna = site.signed_in()
    page = anna.get("/api/v1/transfers?state=failed").json()
    assert [(one["source"], one["target"]) for one in page["transfers"]] == [("/mnt/krios", "/data/krios")]
    assert [(one["name"], one["reason"]) for one in page["files"]] == [("grid7/1.eer", "Input/output error")]
    assert anna.get("/api/v1/me").json()["operates"]
    assert site.signed_in("screen").get("/api/v1/transfers").status_code == 403
    assert site.client().get("/api/v1/transfers").status_code == 401
    access = AccessFile(tmp_path / "some.json")
    access.add_password("ruth", PASSWORD, "operate", sessions=["ev*"])
    some = serve_folder(tmp_path / "sessions", access.path, local=False, settings=settings)
    assert some.signed_in("ruth").get("/api/v1/transfers").status_code == 403
