"""Limits of filters: which measure each limits, and how many exposures others would drop, told by the filter's own rule."""

from pathlib import Path

import pytest
from sqlalchemy import insert

from icestream.flow.storage import schema
from icestream.flow.storage.session import open_session
from icestream.observe import filters
from icestream.observe.filters import count_drops, read_material
from icestream.observe.queries import open_view
from web.paper_filter import RESOLUTIONS_ANG, write_filtered
from web.parts import Served, serve_folder

AT = "/api/v1/sessions/filtered/filters"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Served:
    folder = tmp_path_factory.mktemp("sessions")
    write_filtered(folder / "filtered")
    return serve_folder(folder, folder.parent / "access.json")


def test_filters_say_which_measures_they_limit(site: Served):
    good, moved = site.page().get(AT).json()
    assert (good["step"], good["label"], good["why_not"]) == ("good", "Good CTFs", None)
    told = {one["parameter"]: (one["measure"], one["side"], one["value"]) for one in good["thresholds"]}
    assert told == {
        "defocus_um": ("ctf:ctf_defocus_micrometers", "range", [0.3, 4.0]),
        "max_astigmatism_ang": ("ctf:ctf_astigmatism_angstroms", "most", None),
        "max_resolution_ang": ("ctf:ctf_resolution_angstroms", "most", 6.0),
    }
    assert moved["thresholds"][0]["measure"] == "align:motion_total_angstroms"


def count(site: Served, params: dict[str, object], step: str = "good") -> dict[str, int]:
    answer = site.page().post(f"{AT}/{step}/count", json={"params": params})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("limit", [3.05, 4.0, 5.55, 6.0, 6.5, 9.0])
def test_a_limit_drops_what_is_beyond_it(site: Served, limit: float):
    kept = [value for value in RESOLUTIONS_ANG if value <= limit]
    now = [value for value in RESOLUTIONS_ANG if value <= 6.0]
    found = count(site, {"max_resolution_ang": limit})
    assert (found["decided"], found["asked"], found["failed"]) == (40, 40, 0)
    assert (found["kept"], found["dropped"]) == (len(kept), 40 - len(kept))
    assert found["newly_dropped"] == len(set(now) - set(kept))
    assert found["newly_kept"] == len(set(kept) - set(now))


def test_limits_count_together_and_a_default_is_one_of_them(site: Served):
    both = count(site, {"max_resolution_ang": 9.0, "defocus_um": [1.5, 2.0]})
    assert both["kept"] == sum(1.5 <= (10000 + 500 * number) * 1e-4 <= 2.0 for number in range(1, 41))
    assert count(site, {"max_resolution_ang": None})["kept"] == 40  # 17 Å
    assert count(site, {})["newly_dropped"] == 0
    assert count(site, {}, step="moved")["kept"] == 31  # as it has decided


def test_a_filter_behind_another_is_asked_about_what_reached_it(site: Served):
    found = count(site, {"max_movie_shift_ang": 10.0, "max_frame_shift_ang": 100.0}, step="moved")
    assert (found["asked"], found["kept"]) == (31, 9)  # the path of number n is n + 1 long


def test_what_cannot_be_counted_is_said(site: Served):
    page = site.page()
    wrong = page.post(f"{AT}/good/count", json={"params": {"max_resolution_ang": -1}})
    assert (wrong.status_code, list(wrong.json()["fields"])) == (422, ["max_resolution_ang"])
    assert page.post(f"{AT}/ctf/count", json={"params": {}}).status_code == 400
    assert page.post(f"{AT}/nothing/count", json={"params": {}}).status_code == 400
    assert page.post("/api/v1/sessions/nothing/filters/good/count", json={"params": {}}).status_code == 404


def test_a_long_session_is_sampled_evenly_and_a_decision_by_hand_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    paper = write_filtered(tmp_path / "long", repeat=5)
    unit = paper.expose("by hand", 201)
    paper.settle("good", unit, "item", {})
    monkeypatch.setattr(filters, "MOST_ASKED", 50)
    with open_view(open_session(tmp_path / "long")) as view:
        material = read_material(view, "good")
    assert (material.decided, material.stride) == (201, 8)
    found = count_drops(material, {"max_resolution_ang": 4.0})
    assert (found.asked, found.kept) == (25, sum(value <= 4.0 for value in (RESOLUTIONS_ANG * 5)[::8]))
    with paper.store.transaction() as connection:
        first = connection.execute(schema.exposure.select().order_by(schema.exposure.c.ordinal)).first()
        assert first is not None
        values = {"unit": first.unit, "step": "good", "verdict": "accept", "author": "anna", "reason": "", "active": True}
        connection.execute(insert(schema.override).values(**values, at=1.0, seq=99_999))
    with open_view(open_session(tmp_path / "long")) as view:
        assert count_drops(read_material(view, "good"), {"max_resolution_ang": 1.0}).kept == 1
