"""What the interface answers: on every type of record, on a session of an older version, and on one that has not started."""

import json
from pathlib import Path

import numpy as np
import pytest
from paper_session import PaperSession, new_session

from icestream.flow.storage.session import dump_document
from icestream.records import CtfFit
from icestream.web.places import UnknownSession, find_places
from web.parts import Served, serve_folder

EVERY, OLD = "/api/v1/sessions/every", "/api/v1/sessions/old"


def test_all_sessions_are_listed_and_a_broken_one_says_why(client):
    lines = {line["id"]: line for line in client.get("/api/v1/sessions").json()}
    assert len(lines) == 4
    assert lines["every"]["overview"]["exposures"] == 8
    assert lines["every"]["arrivals"]["per_hour"] == pytest.approx(60.0)
    assert lines["every"]["arrivals"]["name"] == "FoilHole_0008"
    assert (lines["broken"]["overview"], "session.yaml" in lines["broken"]["trouble"]) == (None, True)
    assert lines["old"]["overview"]["runner"]["state"] == "stopped"
    assert client.get("/api/v1/sessions/broken").status_code == 400


def test_a_session_page_has_the_workflow_with_counts_rates_and_reasons(client):
    page = client.get(OLD).json()
    steps = {one["step"]["name"]: one for one in page["steps"]}
    assert steps["ctf"]["step"]["counts"]["item"] == 4
    assert steps["aligned"]["inputs"] == ["right_dose", "gain"]
    assert steps["classes"]["waiting"] == ["is holding 1: 8 of 200 particles"]
    assert any("CTF resolution" in one["label"] for one in steps["ctf"]["medians"])
    assert {one["label"] for one in page["headlines"]} >= {"Pace", "Particles", "CTF resolution"}
    assert page["waiting"][0].startswith("no runner is running")
    assert client.get(OLD).headers["x-icestream-seq"] == str(page["overview"]["last_seq"])


def test_the_table_has_every_declared_measure_of_exposures(client):
    page = client.get(f"{EVERY}/exposures").json()
    columns = {one["id"] for one in page["columns"]}
    measures = {one["id"] for one in client.get(f"{EVERY}/measures").json() if not one["whole"]}
    assert columns == measures
    assert {"ctf_a:ctf_resolution_angstroms", "ctf_b:ctf_resolution_angstroms", "find:picks_per_micrograph"} <= columns
    assert [row["number"] for row in page["rows"]] == list(range(8, 0, -1))
    newest = page["rows"][0]
    assert newest["values"]["ctf_a:ctf_resolution_angstroms"] == pytest.approx(3.0 * 1.8)
    assert newest["values"]["find:picks_per_micrograph"] == 13
    assert newest["picture"]["field"] == "thumbnail"


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("descending=false", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("sort=name&descending=false&limit=3", [1, 2, 3]),
        ("limit=3&offset=3", [5, 4, 3]),
        ("sort=find:picks_per_micrograph&limit=2", [8, 7]),
        ("sort=find:picks_per_micrograph&descending=false&limit=2&offset=2", [3, 4]),
        ("range=find:picks_per_micrograph,8,10", [5, 4, 3]),
        ("range=find:picks_per_micrograph,8,&range=ctf_a:ctf_resolution_angstroms,,4.6", [5, 4, 3]),
        ("sort=name&range=find:picks_per_micrograph,,7", [2, 1]),
        ("text=0007", [7]),
        ("offset=100", []),
        ("state=failed", []),
    ],
)
def test_the_server_sorts_filters_and_pages(client, query, numbers):
    assert [row["number"] for row in client.get(f"{EVERY}/exposures?{query}").json()["rows"]] == numbers


def test_states_say_what_became_of_an_exposure(client):
    everything = {row["name"]: row for row in client.get(f"{OLD}/exposures").json()["rows"]}
    assert everything["mic_0003"]["state"] == "failed"
    assert everything["mic_0003"]["marks"][0]["step"] == "movies"
    assert any("recomputed" in text or "local=false" in text for text in everything["mic_0001"]["decisions"])
    by_state = {
        state: {row["name"] for row in client.get(f"{OLD}/exposures?state={state}").json()["rows"]}
        for state in ("failed", "set aside", "processing", "done")
    }
    assert set.union(*by_state.values()) == set(everything)
    assert sum(map(len, by_state.values())) == len(everything)
    assert all(everything[name]["state"] == state for state, names in by_state.items() for name in names)


def test_one_exposure_has_its_image_overlays_curves_and_lineage(client):
    unit = client.get(f"{EVERY}/exposures?text=0004").json()["rows"][0]["unit"]
    found = client.get(f"{EVERY}/exposures/{unit}").json()
    assert client.get(f"{EVERY}/exposures/FoilHole_0004").json()["unit"] == unit
    image = found["images"][0]
    assert (image["step"], image["width_px"], image["overlays"][0]["count"]) == ("align", 300, 9)
    assert len(image["overlays"][0]["xy"]) == 9
    assert image["overlays"][0]["radius_px"] == pytest.approx(24.0 / 2 / (0.8 * 2))
    steps = {one["step"]: one for one in found["steps"]}
    curve = steps["ctf_a"]["results"][0]["curves"][0]
    assert curve["x"] == [0.01, 0.1, 0.2, 0.3]
    assert curve["mark"] == pytest.approx(1 / (3.0 * 1.4))
    path = steps["align"]["results"][0]["paths"][0]
    assert (path["unit"], path["yx"][1]) == ("Å", [pytest.approx(1.4 * 0.8), 0.0])
    assert steps["align"]["results"][0]["fields"]["motion.total_px"] == pytest.approx(7.0)
    assert found["files"] == ["raw:day1/FoilHole_0004.tif"]
    names = {one["unit"]: one["name"] for one in client.get(f"{EVERY}/exposures").json()["rows"]}
    assert (names[found["before"]], names[found["after"]]) == ("FoilHole_0003", "FoilHole_0005")


def test_a_filter_passes_on_what_others_made(client):
    found = client.get(f"{OLD}/exposures/mic_0005").json()
    steps = {one["step"]: one for one in found["steps"]}
    assert steps["good"]["results"] == []
    assert "mean_ctf" in steps["good"]["forwards"]
    assert [one["record_type"] for one in steps["ctf"]["results"]] == ["CtfFit"]


def test_an_unknown_exposure_is_not_found(client):
    for address in ("exposures/nobody", "exposures/nobody/why"):
        answer = client.get(f"{EVERY}/{address}")
        assert (answer.status_code, "'nobody'" in answer.json()["detail"]) == (404, True)


def test_an_exposure_says_what_it_waits_for(client):
    said = client.get(f"{OLD}/exposures/mic_0001/why").json()["sentences"]
    assert any(one["step"] == "held" and "100 exposures" in one["sentence"] for one in said)


def test_series_and_histograms_of_all_measures_or_some(client):
    every = {one["measure"]["id"]: one for one in client.get(f"{EVERY}/series").json()}
    picks = every["find:picks_per_micrograph"]
    assert picks["values"] == [6, 7, 8, 9, 10, 11, 12, 13]
    assert picks["exposures"] == list(range(1, 9))
    assert (picks["median"], sum(picks["histogram"]["counts"])) == (9.5, 8)
    gain = next(one for one in every.values() if one["measure"]["step"] == "gain")
    assert (gain["measure"]["whole"], gain["exposures"]) == (True, [1, 2])
    some = client.get(f"{EVERY}/series?measure=find:picks_per_micrograph").json()
    assert [one["measure"]["id"] for one in some] == ["find:picks_per_micrograph"]


def test_galleries_have_parts_and_every_version(client):
    (newest,) = client.get(f"{EVERY}/galleries").json()
    assert (newest["step"], newest["version"], newest["versions"]) == ("classes", 2, [1, 2])
    assert [one["label"] for one in newest["columns"]] == [
        "Class", "Particles", "Share", "Resolution", "Score", "Effective size", "Since version",
    ]  # fmt: skip
    counts = [row[1] for row in newest["rows"]]
    assert counts == sorted(counts, reverse=True)
    (first,) = client.get(f"{EVERY}/galleries?step=classes&version=1").json()
    assert first["version"] == 1
    assert client.get(f"{EVERY}/galleries?step=classes&version=99").json() == []
    assert client.get(f"{EVERY}/galleries?step=nothing").status_code == 400


def test_pictures_are_sent_as_they_are_and_may_be_kept(client, shown_folder):
    (newest,) = client.get(f"{EVERY}/galleries").json()
    picture = newest["picture"]
    answer = client.get(f"{EVERY}/pictures/{picture['key']}/{picture['field']}")
    assert answer.content == (shown_folder / "every" / "steps" / "board.png").read_bytes()
    assert (answer.headers["content-type"], "immutable" in answer.headers["cache-control"]) == ("image/png", True)


def test_failures_come_with_tracebacks_and_reasons(client):
    hostile = next(one["id"] for one in client.get("/api/v1/sessions").json() if one["id"].startswith("hostile"))
    found = client.get(f"/api/v1/sessions/{hostile}/failures").json()
    (failed,) = found["failed"]
    assert (failed["step"], failed["attempts"], failed["traceback"]) == ("align", 2, "Traceback of attempt 1")
    assert found["failed_reasons"][0]["count"] == 1
    assert found["rejected"]


def test_history_says_who_did_what(client):
    entries = client.get(f"{OLD}/history").json()["entries"]
    assert any("changing the apertures" in one["what"] for one in entries)
    times = [one["at"] for one in entries]
    assert times == sorted(times, reverse=True)


def test_the_log_is_read_from_its_end_and_by_level(shown_folder, client):
    log = shown_folder / "every" / "logs" / "icestream.jsonl"
    log.parent.mkdir()
    lines = [{"time": "t", "level": "info", "event": f"event {n}", "logger": "icestream.x", "n": n} for n in range(30)]
    lines[7]["level"] = "error"
    log.write_text("\n".join(map(json.dumps, lines)) + '\n[1]\nno json\n{"time": "half', encoding="utf-8")
    found = client.get(f"{EVERY}/log?limit=3").json()["lines"]
    assert [line["event"] for line in found] == ["event 29", "event 28", "event 27"]
    assert found[0]["about"] == {"n": "29"}
    assert [line["event"] for line in client.get(f"{EVERY}/log?level=warning").json()["lines"]] == ["event 7"]
    assert client.get(f"{OLD}/log").json()["lines"] == []


def test_changes_follow_the_sequence(client):
    first = client.get(f"{EVERY}/changes?limit=5").json()
    rest = client.get(f"{EVERY}/changes?since={first[-1]['seq']}").json()
    assert [one["seq"] for one in first] == [1, 2, 3, 4, 5]
    assert rest[0]["seq"] == 6


def test_a_session_that_has_not_run_answers_everywhere(toy_site: Served):
    anna = toy_site.signed_in()
    page = anna.get("/api/v1/sessions/session").json()
    assert (page["overview"]["runner"]["state"], len(page["steps"])) == ("not started", 12)
    assert anna.get("/api/v1/me").json()["single"] == "session"
    for address in ("exposures", "series", "galleries", "failures", "history", "log", "measures", "changes"):
        assert anna.get(f"/api/v1/sessions/session/{address}").status_code == 200


def test_values_that_are_no_numbers_do_not_break_an_answer(tmp_path: Path):
    steps = {"movies": {"use": "import_movies"}, "ctf": {"use": "ctf", "in": {"micrograph": "movies"}}}
    paper = PaperSession(new_session(tmp_path / "odd", steps))
    paper.revise("movies", "source")
    paper.revise("ctf", "map", links={"micrograph": ["movies"]})
    unit = paper.expose("a", 1)
    fit = CtfFit.model_construct(
        defocus_u_ang=float("inf"), defocus_v_ang=1.0, astigmatism_angle_deg=0.0, phase_shift_deg=0.0, score=float(np.nan),
        resolution_ang=1e300, frequency_per_ang=[0.1, 0.2], profile=[0.0, float("nan")], profile_fit=[0.0, 1.0],
    )  # fmt: skip
    paper.make("ctf", unit, fit)
    (tmp_path / "odd" / "session.yaml").write_text(dump_document(paper.session.document), encoding="utf-8")
    client = serve_folder(tmp_path, tmp_path / "access.json").client()
    for address in ("", "/exposures", "/exposures/a", "/series", "/measures"):
        assert client.get(f"/api/v1/sessions/odd{address}").status_code == 200, address


def test_answers_are_read_once_while_nothing_changes(open_site, monkeypatch):
    client, reads = open_site.client(), []

    def read(view: object, **_: object) -> list[object]:
        reads.append(view)
        return []

    monkeypatch.setattr("icestream.web.details.read_galleries", read)
    for _ in range(5):
        assert client.get(f"{EVERY}/galleries?step=classes&version=2").json() == []
    assert len(reads) == 1


def test_the_document_of_the_interface_names_every_address(client):
    document = client.get("/api/v1/openapi.json").json()
    assert len(document["paths"]) == 75
    for address, methods in document["paths"].items():
        assert address.startswith("/api/v1/")
        for method in methods.values():
            assert method["summary"]
    assert "ExposureData" in document["components"]["schemas"]
    assert client.get("/docs").text.startswith("<!doctype html>")


def test_places_are_found_where_they_appear_later(tmp_path):
    places = find_places(tmp_path)
    assert places.names() == []
    with pytest.raises(UnknownSession):
        places.open("later")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "session.yaml").write_text("name: x\nsteps: {}\n", encoding="utf-8")
    assert places.names() == ["later"]
    assert places.open("later") is places.open("later")
    (tmp_path / "later" / "session.yaml").write_text("name: longer\nsteps: {}\n", encoding="utf-8")
    assert places.open("later").document.name == "longer"
