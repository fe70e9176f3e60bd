"""The addresses that a monitoring system asks: who may, what they answer, and sessions that nobody can read or that are quiet."""

import os
import shutil
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from icestream.settings import Settings
from icestream.web.access import AccessFile
from icestream.web.callers import Callers
from icestream.web.places import UnknownSession, find_places
from icestream.web.site import Site
from toys.session import make_toy_session, toy_steps
from web.parts import serve_folder


def samples_of(text: str) -> dict[str, list]:
    found: dict[str, list] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_all_sessions_are_told_with_the_machine_and_each_family_stands_once(client):
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    found = samples_of(answer.text)
    states = {one.labels["state"]: one.value for one in found["icestream_sessions"]}
    assert (sum(states.values()), states["unreadable"]) == (4, 1)
    told = {one.labels["session"] for one in found["icestream_exposures_total"]}
    assert told >= {"every", "old", "hostile <b>&'\""}
    assert found["icestream_host_cores"][0].value >= 1
    types = [line for line in answer.text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_what_was_counted_of_sessions_that_are_gone_is_forgotten(tmp_path):
    for name in ("a", "b", "c"):
        make_toy_session(tmp_path / name, toy_steps(2), numbers=range(2)).folder.rename(tmp_path / f"session {name}")
    metrics = Site(find_places(tmp_path), Callers(AccessFile(tmp_path / "x"), owner="o", local=True), Settings()).metrics
    metrics.read()
    assert set(metrics._known) == {"session a", "session b", "session c"}  # noqa: SLF001 - what is remembered is what is tested
    shutil.rmtree(tmp_path / "session a")
    metrics.read()
    assert set(metrics._known) == {"session b", "session c"}  # noqa: SLF001
    shutil.rmtree(tmp_path / "session b")
    (tmp_path / "session c").rename(tmp_path / "session d")
    metrics.read_session("session d")  # nobody asks for all of them
    assert set(metrics._known) == {"session d"}  # noqa: SLF001
    with pytest.raises(UnknownSession):
        metrics.read_session("session c")


def test_one_session_is_told_alone_as_the_command_does(client):
    found = samples_of(client.get("/metrics/every").text)
    assert {one.labels["session"] for one in found["icestream_step_units"]} == {"every"}
    assert "icestream_host_cores" not in found
    assert client.get("/metrics/nobody").status_code == 404
    assert client.get("/metrics/broken").status_code == 400


@pytest.mark.parametrize("address", ["/metrics", "/metrics/every"])
def test_a_token_that_may_look_is_needed_where_anybody_has_access(closed_site, address):
    token = closed_site.access.add_token("prometheus", "look")
    assert closed_site.client().get(address).status_code == 401
    assert closed_site.client(authorization="Bearer ice_wrong").get(address).status_code == 401
    assert closed_site.client(authorization=f"Bearer {token}").get(address).status_code == 200
    assert closed_site.client(authorization=f"Bearer {token}").post(address).status_code in (405, 415)
    assert closed_site.client(**{"sec-fetch-site": "cross-site"}, authorization=f"Bearer {token}").get(address).status_code == 403
    assert closed_site.client(host="evil.example", authorization=f"Bearer {token}").get(address).status_code == 421


def test_pictures_of_the_gallery_have_addresses_that_stay(client):
    told = samples_of(client.get("/metrics").text)["icestream_picture_info"]
    pictures = [one for one in told if one.labels["session"] != "old"]  # its pictures are not kept
    assert len(pictures) > 10
    for one in pictures:
        answer = client.get(one.labels["path"])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), one.labels["path"]
        assert answer.headers["cache-control"] == "private, no-cache"
    for step, field in (("nobody", "thumbnail"), ("align", "image"), ("find", "thumbnail"), ("align", "..%2Fsecret")):
        assert client.get(f"/api/v1/sessions/every/newest/{step}/{field}").status_code == 404, (step, field)


def test_a_session_that_is_quiet_for_a_day_is_counted_and_told_only_alone(shown_folder, tmp_path):
    shutil.copytree(shown_folder / "every", tmp_path / "sessions" / "every")
    for name in ("icestream.db", "icestream.db-wal"):
        path = tmp_path / "sessions" / "every" / name
        if path.exists():
            os.utime(path, (time.time() - 100_000,) * 2)
    client = serve_folder(tmp_path / "sessions", tmp_path / "access.json").client()
    found = samples_of(client.get("/metrics").text)
    assert {one.labels["state"]: one.value for one in found["icestream_sessions"]}["quiet"] == 1
    assert "icestream_exposures_total" not in found
    assert samples_of(client.get("/metrics/every").text)["icestream_exposures_total"][0].value == 8
