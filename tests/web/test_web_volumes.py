"""Maps in three dimensions: what is said of them as JSON, and the cube of bytes that a browser turns."""

import json

import numpy as np
import pytest

from icestream.settings import Settings
from web.mapped_session import BOX, ERROR, VOXEL_ANG, Mapped, corner_map, write_mapped
from web.parts import Served, serve_folder

AT = "/api/v1/sessions/mapped"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    return write_mapped(tmp_path_factory.mktemp("mapped") / "mapped")


@pytest.fixture(scope="module")
def site(mapped: Mapped, tmp_path_factory: pytest.TempPathFactory):
    state = tmp_path_factory.mktemp("state")
    folder = mapped.paper.session.folder
    served = serve_folder(folder, state / "access.json", settings=Settings(min_free_gb=0, cores=1, state=state))
    served.site.studio.patience_s = 200
    yield served
    served.site.studio.close()


def read_cube(content: bytes) -> tuple[dict, np.ndarray]:
    header, _, voxels = content.partition(b"\n")
    said = json.loads(header)
    return said, np.frombuffer(voxels, np.uint8).reshape((said["side"],) * 3)


def test_what_is_declared_of_maps_is_said(site: Served, mapped: Mapped):
    client = site.client()
    refined, judged, classes = client.get(f"{AT}/volumes").json()
    assert (refined["step"], refined["version"], refined["versions"], refined["verdict"]) == ("refined", 2, [1, 2], "map")
    assert refined["densities"] == [{"title": "Map", "part": None}]
    assert ["Resolution", 6.1, "Å"] in refined["cards"][0]["numbers"]
    assert refined["cards"][0]["picture"]["field"] == "picture"
    assert judged["cards"][0]["curve"]["errors"] == ERROR
    assert ["B factor", -80.0, "Å²"] in judged["cards"][0]["numbers"]
    assert [card["picture"]["field"] for card in judged["cards"]] == ["picture", "local_picture", "views_picture"]
    assert [(one["title"], one["part"]) for one in classes["densities"]] == [("Class 0", 0), ("Class 1", 1)]
    told = [(one["label"], one["items"], one["rejected"], one["particles"]) for one in refined["survived"]]
    assert told == [("movies", 3, 0, None), ("Little motion", 2, 1, None), ("cut", 2, 0, 70)]
    assert [one["step"] for one in classes["survived"]] == ["movies", "kept", "cut"]
    older = client.get(f"{AT}/volumes", params={"step": "refined", "version": 1}).json()
    assert [one["key"] for one in older] == [mapped.refined[0]]


def test_a_map_is_sent_as_a_cube_with_its_scale(site: Served, mapped: Mapped):
    client = site.client()
    answer = client.get(f"{AT}/drawings/densities/{mapped.refined[1]}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    said, cube = read_cube(answer.content)
    volume = corner_map()
    assert (said["side"], said["voxel_ang"]) == (BOX, pytest.approx(VOXEL_ANG))
    back = said["low"] + cube / 255 * (said["high"] - said["low"])
    assert np.corrcoef(back.ravel(), volume.ravel())[0, 1] > 0.98
    assert np.mean((cube >= said["level"]) == (volume > 0.5)) > 0.99  # the first surface is that of the body
    again = client.get(f"{AT}/drawings/densities/{mapped.refined[1]}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_each_class_has_a_map_of_its_own_and_what_has_none_is_refused(site: Served, mapped: Mapped):
    client = site.client()
    cubes = [
        read_cube(client.get(f"{AT}/drawings/densities/{mapped.sorted}", params={"part": part}).content)[1] for part in (0, 1)
    ]
    mirrored = np.roll(cubes[1][:, :, ::-1], 1, axis=2)
    assert np.corrcoef(cubes[0].ravel(), mirrored.ravel())[0, 1] > 0.95 > np.corrcoef(cubes[0].ravel(), cubes[1].ravel())[0, 1]
    for address, said in (
        (f"{mapped.sorted}?part=7", "the record has no map of part 7"),
        (mapped.sorted, "the record has no map"),
        ("nothing", "no result has this key"),
    ):
        answer = client.get(f"{AT}/drawings/densities/{address}")
        assert (answer.status_code, answer.json()["detail"]) == (404, said)
