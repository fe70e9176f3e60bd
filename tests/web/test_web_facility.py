"""All sessions at once: their figures, what they hold, and the types of step, which a process of its own has read."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from icestream.web.access import AccessFile
from icestream.web.catalogue import Catalogue
from web.paper_grid import write_grid
from web.parts import PASSWORD, Served, serve_folder


def test_a_session_has_its_figures_and_its_microscope_on_the_page_of_all(client: TestClient, tmp_path: Path) -> None:
    every = next(one for one in client.get("/api/v1/sessions").json() if one["id"] == "every")
    figures = {one["label"]: one for one in every["figures"]}
    assert list(figures)[-4:] == ["Particles", "CTF resolution", "Ice", "Best resolution"]
    assert figures["CTF resolution"]["unit"] == figures["Best resolution"]["unit"] == "Å"
    assert all(figures[label]["value"] is not None for label in ("Particles", "CTF resolution", "Ice", "Best resolution"))
    assert every["figures"] == client.get("/api/v1/sessions/every").json()["headlines"]
    write_grid(tmp_path / "grid", n_exposures=6, with_map=False, microscope="Krios G4")
    (line,) = serve_folder(tmp_path, tmp_path / "access.json").client().get("/api/v1/sessions").json()
    assert line["microscope"] == "Krios G4"


def test_storage_of_all_sessions_is_at_one_address(client: TestClient, open_site: Served, tmp_path: Path) -> None:
    for _ in range(20):
        found = client.get("/api/v1/storage").json()
        if found["complete"]:
            break
    lines = {one["id"]: one for one in found["sessions"]}
    assert (set(lines), found["complete"]) == ({"every", "hostile <b>&'\"", "old", "broken"}, True)
    assert lines["every"]["bytes"] == client.get("/api/v1/sessions/every/storage").json()["bytes"]
    assert "session.yaml" in lines["broken"]["trouble"]
    assert lines["old"]["again_bytes"] <= lines["old"]["bytes"]
    sizes = [one["bytes"] or 0 for one in found["sessions"]]
    assert sizes == sorted(sizes, reverse=True)
    (disk,) = found["disks"]
    assert (disk["sessions"], disk["bytes"]) == (3, sum(sizes))
    access = AccessFile(tmp_path / "some.json")
    access.add_password("ruth", PASSWORD, "look", sessions=["ev*"])
    ruth = serve_folder(open_site.folder, access.path, local=False).signed_in("ruth")
    assert [one["id"] for one in ruth.get("/api/v1/storage").json()["sessions"]] == ["every"]


def test_the_types_of_step_are_read_by_another_process(open_site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_site.client().get("/api/v1/steps").json()
    catalogue = Catalogue()
    catalogue.read()
    monkeypatch.setattr(open_site.site, "catalogue", catalogue)
    monkeypatch.setattr("icestream.web.catalogue.list_palette", None)  # nobody imports them here any more
    assert open_site.client().get("/api/v1/steps").json() == before
    page = open_site.client().get("/api/v1/templates/movies_to_ctf").json()
    assert {one["use"] for one in page["steps"]} >= {"import_grid", "map_grid", "ice_transmission", "ice_ring", "ctf_local"}
    assert all(one["summary"] for one in page["steps"])
