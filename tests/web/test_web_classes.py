"""Classes through the interface: names and places of the parts, what is selected of them, and where their particles come from."""

from pathlib import Path

import pytest

from icestream.flow.storage.session import open_session
from web.paper_classes import COUNTS, write_classes
from web.parts import Served, serve_folder

AT = "/api/v1/sessions/classified"


@pytest.fixture
def site(tmp_path: Path) -> Served:
    write_classes(tmp_path / "classified")
    return serve_folder(tmp_path / "classified", tmp_path / "access.json")


def test_parts_keep_their_names_and_places_whatever_the_order(site: Served):
    found = site.page().get(f"{AT}/galleries").json()
    walls = {one["step"]: one for one in found}
    wall = walls["classes"]
    assert wall["ids"] == [3, 8, 5, 7, 1, 6, 4, 2]  # by size
    assert [COUNTS[place] for place in wall["places"]] == sorted(COUNTS, reverse=True)
    assert wall["in_a_row"] == 4
    assert walls["chosen"]["ids"] == []  # its picture has only some of them


def test_what_is_selected_and_by_whom_stands_beside_the_classes(site: Served):
    (select,) = next(one for one in site.page().get(f"{AT}/galleries").json() if one["step"] == "classes")["selecting"]
    assert (select["step"], select["label"], select["keep"], select["drop"]) == ("chosen", "Good classes", [], [6])
    assert {int(one) for one, good in select["selected"].items() if good} == {3, 5, 7, 8}
    assert (select["by_hand"], select["version"]) == ([6], 2)


def test_a_selection_by_hand_is_an_edit_of_its_step(site: Served):
    page = site.page()
    edit = {"kind": "set", "arguments": {"step": "chosen", "params": {"keep": [2], "drop": [3, 6]}}}
    foreseen = page.post(f"{AT}/plans", json=edit).json()
    assert foreseen["steps"][-1]["step"] == "chosen"
    assert page.post(f"{AT}/actions", json=edit).json()["state"] == "done"
    assert open_session(site.folder).document.steps["chosen"].params == {"keep": [2], "drop": [3, 6]}
    wrong = {"kind": "set", "arguments": {"step": "chosen", "params": {"keep": ["x"]}}}
    assert list(page.post(f"{AT}/actions", json=wrong).json()["fields"]) == ["keep"]


def test_members_of_a_class_are_told_by_exposure(site: Served):
    found = site.page().get(f"{AT}/galleries/classes/members?part=2").json()
    assert (found["looked_at"], found["particles"]) == (3, 6)
    assert [(one["name"], one["count"], one["of"]) for one in found["exposures"]] == [
        ("mic_3", 3, 6), ("mic_2", 2, 5), ("mic_1", 1, 4),
    ]  # fmt: skip
    assert site.page().get(f"{AT}/galleries/classes/members?part=7").json()["exposures"] == []
    for step in ("chosen", "nothing"):
        assert site.page().get(f"{AT}/galleries/{step}/members?part=2").status_code == 400
