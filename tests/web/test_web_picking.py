"""Picks by hand through the interface: what is added and removed, what is refused, and how it is withdrawn."""

import shutil
from pathlib import Path

import pytest

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.observe.queries import open_view
from web.parts import Served, serve_folder
from web.picked_session import PLACES, SETTINGS, make_picked, positions

AT = "/api/v1/sessions/session"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, granted: Path) -> Served:
    home = tmp_path_factory.mktemp("picked")
    make_picked(home)
    shutil.copy(granted, home / "access.json")
    return serve_folder(home / "session", home / "access.json", local=False)


def test_picks_are_added_removed_and_withdrawn(site: Served):
    anna, session = site.signed_in(), open_session(site.folder)
    overlays = {one["step"]: one for one in anna.get(f"{AT}/exposures/mic_1").json()["images"][0]["overlays"]}
    assert (overlays["edited"]["editable"], overlays["one"]["editable"]) == (True, False)
    assert (overlays["edited"]["pids"], overlays["edited"]["xy"][0]) == ([0, 1, 2], [60.0, 88.0])  # row 0 is at the bottom
    edit = {"step": "edited", "add": [[20.0, 110.0]], "remove": [1], "reason": "on the carbon"}
    answer = anna.post(f"{AT}/exposures/mic_1/picks", json=edit)
    assert (answer.status_code, answer.json()["state"]) == (200, "done"), answer.text
    run_session(session, SETTINGS)
    assert positions(session) == [(20, 110), (40, 60), (100, 100)]
    more = anna.post(f"{AT}/exposures/mic_1/picks", json={"step": "edited", "add": [[64, 64]]})  # beside what was decided before
    assert more.json()["state"] == "done"
    run_session(session, SETTINGS)
    assert positions(session) == [(20, 110), (40, 60), (64, 64), (100, 100)]
    with open_view(session) as view:
        first = next(one for one in view.history() if one.author)
    assert (first.author, "on the carbon" in first.what) == ("anna", True)
    unit = anna.get(f"{AT}/exposures/mic_1").json()["unit"]
    lift = {"kind": "recompute", "arguments": {"unit": unit, "step": "edited", "lift": True}}
    assert anna.post(f"{AT}/actions", json=lift).json()["state"] == "done"
    run_session(session, SETTINGS)
    assert positions(session) == sorted(PLACES)


@pytest.mark.parametrize(
    ("edit", "status"),
    [
        ({"step": "edited"}, 422),
        ({"step": "edited", "remove": [99]}, 422),
        ({"step": "one", "remove": [0]}, 400),
        ({"step": "nothing", "add": [[1, 1]]}, 400),
        ({"step": "edited", "add": [[-1, 1]]}, 422),
        ({"step": "edited", "add": [[1]]}, 422),
        ({"step": "edited", "add": [["nan", 1]]}, 422),
        ({"step": "edited", "add": [[1, 1]] * 1001}, 422),
    ],
)
def test_what_cannot_be_edited_is_refused(site: Served, edit: dict[str, object], status: int):
    assert site.signed_in().post(f"{AT}/exposures/mic_1/picks", json=edit).status_code == status
    assert site.signed_in("screen").post(f"{AT}/exposures/mic_1/picks", json=edit).status_code == 403
