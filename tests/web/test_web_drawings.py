"""Pictures that are drawn when a browser asks: what is sent, for how long it counts, and what those get who ask for too much."""

import shutil

import imagecodecs
import numpy as np
import pytest
from sqlalchemy import insert

from icestream.flow.storage import schema
from icestream.observe.drawing import order
from icestream.observe.drawing.order import NotDrawn
from icestream.settings import Settings
from web.drawn_session import HEIGHT, SPOT, WIDTH, Drawn, write_drawn
from web.parts import PASSWORD, Served, serve_folder

AT = "/api/v1/sessions/drawn/drawings"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return write_drawn(tmp_path_factory.mktemp("drawn") / "drawn")


def patient(served: Served) -> Served:
    """Have those who ask wait for long: on a slow machine the process that draws takes its time to start."""
    served.site.studio.patience_s = 200
    return served


@pytest.fixture(scope="module")
def site(drawn: Drawn, tmp_path_factory: pytest.TempPathFactory):
    state = tmp_path_factory.mktemp("state")
    served = patient(serve_folder(drawn.folder, state / "access.json", settings=Settings(min_free_gb=0, cores=1, state=state)))
    yield served
    served.site.studio.close()


def test_a_micrograph_is_sent_tile_by_tile(site: Served, drawn: Drawn):
    client, at = site.client(), f"{AT}/micrographs/{drawn.micrographs[0]}"
    found = client.get(at)
    assert found.status_code == 200, found.text
    index = found.json()
    assert (index["height_px"], index["width_px"], index["tile_px"]) == (HEIGHT, WIDTH, 512)
    assert [(one["rows"], one["columns"]) for one in index["levels"]] == [(2, 3), (1, 2), (1, 1)]
    assert found.headers["cache-control"] == "private, no-cache"  # how drawings are made may change
    y, x = HEIGHT - 1 - SPOT[0], SPOT[1]  # row 0 is at the bottom
    answer = client.get(f"{at}/tiles/0/{y // 512}/{x // 512}")
    assert answer.headers["content-type"] == "image/jpeg"
    tile = imagecodecs.jpeg8_decode(answer.content)
    assert tile[y % 512 - 15 : y % 512 + 15, x % 512 - 15 : x % 512 + 15].min() > 240
    assert np.median(tile) < 180
    again = client.get(f"{at}/tiles/0/{y // 512}/{x // 512}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{at}/tiles/0/2/0").status_code == 404


def test_particles_and_members_are_sent_as_one_picture(site: Served, drawn: Drawn):
    client = site.client()
    answer = client.get(f"{AT}/particles/{drawn.particles[0]}")
    assert imagecodecs.jpeg8_decode(answer.content).shape == (50, 258)
    assert answer.headers["cache-control"] == "private, no-cache"
    assert client.get(f"{AT}/particles/{drawn.particles[0]}?page=1").status_code == 404
    answer = client.get(f"{AT}/members/classes?part=2")
    assert imagecodecs.jpeg8_decode(answer.content).shape == (24, 154)
    assert answer.headers["cache-control"] == "private, no-cache"  # which are the newest changes
    assert client.get(f"{AT}/members/classes?part=2", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    assert client.get(f"{AT}/members/classes?part=5", headers={"if-none-match": answer.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("damage", ["empty", "zeros", "cut off", "its tiles are zeros"])
@pytest.mark.parametrize("what", ["micrographs/{micrograph}/tiles/0/0/0", "micrographs/{micrograph}", "particles/{particles}"])
def test_a_damaged_drawing_is_drawn_anew(site: Served, drawn: Drawn, what: str, damage: str):
    address = f"{AT}/{what.format(micrograph=drawn.micrographs[0], particles=drawn.particles[0])}"
    folder = site.site.studio.cache.folder
    shutil.rmtree(folder, ignore_errors=True)
    client = site.client()
    right = client.get(address)
    assert (right.status_code, len(right.content) > 0) == (200, True)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    keep = whole.find(b"\xff\xd8") if damage == "its tiles are zeros" else 0
    left = {"empty": b"", "zeros": bytes(len(whole)), "cut off": whole[:50]}
    path.write_bytes(left.get(damage, whole[:keep].ljust(len(whole), b"\0")))
    again = client.get(address)
    assert (again.status_code, again.content) == (200, right.content)
    looked_at = not what.endswith("{micrograph}") or damage != "its tiles are zeros"  # of that file only the index was read
    assert (path.read_bytes() == whole) is looked_at


def test_what_the_browser_has_is_not_drawn_again(site: Served, drawn: Drawn, monkeypatch: pytest.MonkeyPatch):
    client, address = site.client(), f"{AT}/particles/{drawn.particles[0]}"
    etag = client.get(address).headers["etag"]

    def refuse(_order):
        raise NotDrawn("nothing is drawn here")

    monkeypatch.setattr(site.site.studio, "draw", refuse)
    assert client.get(address).status_code == 503
    assert client.get(address, headers={"if-none-match": etag}).status_code == 304
    monkeypatch.setattr(order, "_DRAWN_AS", 99)  # a new version draws otherwise
    assert client.get(address, headers={"if-none-match": etag}).status_code == 503


def test_the_page_of_an_exposure_knows_what_can_be_drawn(site: Served, drawn: Drawn):
    found = site.client().get(f"/api/v1/sessions/drawn/exposures/{drawn.units[2]}").json()
    assert [one["full"] for one in found["images"]] == [True]
    images = {step["step"]: [one["particle_images"] for one in step["results"]] for step in found["steps"]}
    assert (images["cut"], images["align"]) == ([12], [0])


@pytest.mark.parametrize(
    "address",
    [
        "micrographs/nothing", "micrographs/{particles}", "micrographs/..%2f..%2fetc%2fpasswd", "micrographs/%00",
        "micrographs/{micrograph}/tiles/99/0/0", "micrographs/{micrograph}/tiles/0/0/2147483647",
        "micrographs/{micrograph}/tiles/0/-1/0",
        "micrographs/{micrograph}/tiles/x/0/0", "micrographs/{micrograph}/tiles/0/0/9999999999", "micrographs/" + "k" * 300,
        "particles/{micrograph}", "particles/{particles}?page=2147483647", "particles/{particles}?page=-1",
        "particles/' or 1=1 --",
        "members/nothing?part=1", "members/align?part=1", "members/classes?part=77", "members/classes?part=x", "members/classes",
        "members/..%2fclasses?part=2",
    ],
)  # fmt: skip
def test_odd_questions_get_no_picture(site: Served, drawn: Drawn, address: str):
    answer = site.client().get(f"{AT}/{address.format(micrograph=drawn.micrographs[0], particles=drawn.particles[0])}")
    assert answer.status_code in (404, 422), answer.text
    assert "root:" not in answer.text
    assert str(drawn.folder) not in answer.text


def test_what_was_removed_says_so(tmp_path, site: Served):
    drawn = write_drawn(tmp_path / "drawn")
    served = patient(serve_folder(drawn.folder, tmp_path / "access.json", settings=Settings(state=tmp_path, cores=1)))
    ref = "session:steps/align/1.mrc"
    (drawn.folder / "steps/align/1.mrc").unlink()
    (drawn.folder / "steps/align/2.mrc").unlink()
    (drawn.folder / "steps/cut/2.mrcs").unlink()
    counts = {"n_files": 2, "n_bytes": 18, "at": 1.0, "goes_at": 2.0}
    with drawn.paper.store.transaction() as connection:
        connection.execute(insert(schema.removal).values(id=1, what="{}", author="a", reason="", state="gone", **counts))
        for one in (ref, "session:steps/cut/2.mrcs"):
            connection.execute(insert(schema.removed_file).values(ref=one, key="k", removal=1, size_bytes=9, wanted=False))
    client = served.client()
    try:
        answer = client.get(f"{AT}/micrographs/{drawn.micrographs[0]}")
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"{ref} was removed to free the disk; it is computed again when a step needs it"
        answer = client.get(f"{AT}/micrographs/{drawn.micrographs[1]}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "session:steps/align/2.mrc: the file is not there")
        answer = client.get(f"{AT}/members/classes?part=2")  # the others are shown
        assert imagecodecs.jpeg8_decode(answer.content).shape == (24, 102)
    finally:
        served.site.studio.close()


def test_who_asks_for_too_much_is_asked_to_come_again(site: Served, drawn: Drawn, monkeypatch: pytest.MonkeyPatch):
    def refuse(_order):
        raise NotDrawn("too much is being drawn at this moment; try again")

    monkeypatch.setattr(site.site.studio, "draw", refuse)
    answer = site.client().get(f"{AT}/particles/{drawn.particles[1]}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["detail"].startswith("too much")


def test_only_who_may_look_is_shown_a_drawing(drawn: Drawn, granted, tmp_path):
    shutil.copy(granted, tmp_path / "access.json")
    settings = Settings(state=tmp_path, cores=1)
    closed = patient(serve_folder(drawn.folder, tmp_path / "access.json", local=False, settings=settings))
    at = f"{AT}/particles/{drawn.particles[1]}"
    assert closed.client().get(at).status_code == 401
    try:
        assert closed.signed_in("screen", PASSWORD).get(at).status_code == 200
        assert closed.client(**{"sec-fetch-site": "cross-site"}).get(at).status_code == 403
    finally:
        closed.site.studio.close()
