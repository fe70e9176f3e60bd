"""Drafts of workflows: what is asked and answered, two people at one draft, templates and sessions of it, and hostile clients."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from icestream.facility.drafts import MOST_DRAFTS
from icestream.flow.storage.session import open_session
from icestream.web.access import AccessFile
from icestream.workflows import list_templates, load_template
from toys.session import make_toy_session, toy_steps
from web.parts import PASSWORD, Served, serve_folder
from web.toy_template import TOY_TEMPLATE

DRAFTS = "/api/v1/drafts"
STEPS: dict[str, dict[str, Any]] = {
    "movies": {"use": "import_movies"},
    "aligned": {"use": "motion", "in": {"movie": "movies"}},
    "ctf": {"use": "ctf", "in": {"micrograph": "aligned"}, "note": "look here first"},
}


@pytest.fixture
def site(tmp_path: Path, granted: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A folder with one toy session, a folder of templates with one in it, and people."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "toy.yaml").write_text(TOY_TEMPLATE, encoding="utf-8")
    monkeypatch.setenv("ICESTREAM_TEMPLATES", str(tmp_path / "templates"))
    make_toy_session(tmp_path / "sessions", toy_steps(4), numbers=range(4))
    shutil.copy(granted, tmp_path / "access.json")
    yield serve_folder(tmp_path / "sessions", tmp_path / "access.json", local=False, raw=(tmp_path,))


@pytest.fixture
def anna(site: Served) -> TestClient:
    return site.signed_in()


def begun(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.post(DRAFTS, json=asked)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def save(client: TestClient, draft: dict[str, Any], document: dict[str, Any], **more: Any) -> Any:
    given = {"version": draft["version"], "title": draft["title"], "document": document}
    return client.post(f"{DRAFTS}/{draft['id']}", json=given | more)


def test_the_palette_has_every_step_with_what_it_reads_and_gives(anna: TestClient):
    lines = {one["use"]: one for one in anna.get("/api/v1/steps").json()}
    assert lines["ctf"]["inputs"][0] == {
        "name": "micrograph", "record": "Micrograph", "many": False, "optional": False, "bound": False,
    }  # fmt: skip
    assert (lines["ctf"]["outputs"], lines["ctf"]["category"], lines["ctf"]["problem"]) == ({"out": "CtfFit"}, "CTF", None)
    assert lines["keep_if"]["outputs"]["out"] == "same as the input"
    page = anna.get("/api/v1/steps/ctf").json()
    assert page["values"]["properties"]["tile_ang"]
    assert page["placeholders"]["tile_ang"]["type"] == "float"
    for use in ("nothing", "os:system", "toys.steps:multiply", "..%2f.."):
        assert anna.get(f"/api/v1/steps/{use}").status_code == 404


def test_a_draft_is_checked_by_step_and_field_and_offers_what_fits(anna: TestClient):
    draft = begun(anna)
    steps = STEPS | {"ctf": {"use": "ctf", "params": {"tile_ang": -1, "odd": 2}}, "more": {"use": "nothing"}}
    page = save(anna, draft, {"steps": steps}).json()
    problems = {(one["step"], one["field"]): one["text"] for one in page["check"]["problems"]}
    assert set(problems) == {("ctf", "in.micrograph"), ("ctf", "params.tile_ang"), ("ctf", "params.odd"), ("more", "use")}
    assert "no step type is called 'nothing'" in problems["more", "use"]
    ctf = next(one for one in page["check"]["steps"] if one["name"] == "ctf")
    assert ctf["inputs"][0]["offers"] == ["aligned"]
    aligned = next(one for one in page["check"]["steps"] if one["name"] == "aligned")
    assert aligned["inputs"][0]["offers"] == ["movies"]
    assert anna.get(f"{DRAFTS}/{draft['id']}/check").json() == page["check"]


def test_a_draft_becomes_a_template_and_a_session(site: Served, anna: TestClient, tmp_path: Path):
    draft = begun(anna)
    document = {
        "steps": STEPS | {"ctf": {**STEPS["ctf"], "params": {"tile_ang": {"ask": "tile"}}}},
        "placeholders": {"tile": {"label": "Tile", "type": "float", "default": 500, "unit": "Å"}},
    }
    saved = save(anna, draft, document, summary="Ours").json()
    assert saved["check"]["problems"] == []
    at = f"{DRAFTS}/{draft['id']}/template"
    assert anna.post(at, json={"version": 1, "name": "ours"}).status_code == 409
    made = anna.post(at, json={"version": 2, "name": "ours"})
    assert (made.status_code, made.json()["file"]) == (201, str(tmp_path / "templates" / "ours.yaml"))
    template = load_template("ours")
    assert list_templates()["ours"].summary == "Ours"
    assert template.steps["ctf"].note == "look here first"
    assert {"movies", "voltage", "tile"} <= set(template.placeholders)
    values = {"movies": str(tmp_path / "raw"), "pixel_size": 1.0, "tile": 600}
    answer = anna.post("/api/v1/sessions", json={"name": "new", "template": "ours", "values": values, "run": False})
    assert answer.status_code == 201, answer.text
    ctf = open_session(site.folder / "new").document.steps["ctf"]
    assert (ctf.params["tile_ang"], ctf.note) == (600, "look here first")


def test_templates_are_replaced_only_where_they_were_saved(anna: TestClient, tmp_path: Path):
    draft = begun(anna)
    save(anna, draft, {"steps": STEPS})

    def name(wanted: str, *, replace: bool = False) -> Any:
        return anna.post(f"{DRAFTS}/{draft['id']}/template", json={"version": 2, "name": wanted, "replace": replace})

    for taken in ("movies_to_ctf", "movies_to_classes"):
        answer = name(taken, replace=True)
        assert (answer.status_code, "never replaced" in answer.json()["fields"]["name"]) == (422, True)
    assert name("toy").status_code == 422
    assert name("toy", replace=True).status_code == 201
    assert (tmp_path / "templates" / "toy.yaml.before").read_text(encoding="utf-8") == TOY_TEMPLATE
    before = sorted(tmp_path.rglob("*.yaml"))
    for odd in ("", "../up", "a/b", ".hidden", "A", "-x", "x" * 81, "a\nb", "a.yaml", "C:x", "é"):
        assert name(odd).status_code == 422, odd
    assert sorted(tmp_path.rglob("*.yaml")) == before


def test_a_draft_that_cannot_run_is_no_template(anna: TestClient):
    draft = begun(anna)
    save(anna, draft, {"steps": {"ctf": {"use": "ctf"}}})
    answer = anna.post(f"{DRAFTS}/{draft['id']}/template", json={"version": 2, "name": "bad"})
    assert (answer.status_code, "micrograph" in answer.json()["fields"][""]) == (422, True)


def test_nobody_overwrites_another(site: Served, anna: TestClient):
    draft, other = begun(anna), site.signed_in()
    assert save(anna, draft, {"steps": STEPS}).json()["version"] == 2
    answer = save(other, draft, {"steps": {}})
    assert (answer.status_code, "changed by anna" in answer.json()["detail"]) == (409, True)
    mine = begun(other, copy_of=draft["id"], document={"steps": {"movies": STEPS["movies"]}})
    assert (mine["title"], list(mine["document"]["steps"])) == ("New workflow (copy)", ["movies"])
    assert anna.post(f"{DRAFTS}/{draft['id']}/delete", json={"version": 1}).status_code == 409
    assert anna.post(f"{DRAFTS}/{draft['id']}/delete", json={"version": 2}).status_code == 204
    assert save(anna, draft, {"steps": {}}, version=2).status_code == 404
    assert [one["id"] for one in anna.get(DRAFTS).json()] == [mine["id"]]


def test_a_session_is_changed_by_a_draft_and_what_others_did_stays(site: Served, anna: TestClient):
    draft = begun(anna, session="session", edit=True)
    document = draft["document"]
    document["steps"]["again"] = {"use": "toys.steps:multiply", "in": {"number": "numbers"}, "params": {"factor": 7}}
    del document["steps"]["newest"]
    save(anna, draft, document)
    act = lambda kind, given: anna.post("/api/v1/sessions/session/actions", json={"kind": kind, "arguments": given})  # noqa: E731
    assert act("set", {"step": "odd", "params": {"factor": 9}}).json()["state"] == "done"
    changes = anna.get(f"{DRAFTS}/{draft['id']}/changes").json()
    assert (set(changes["steps"]), changes["steps"]["newest"], changes["conflicts"]) == ({"again", "newest"}, None, [])
    given = {"steps": changes["steps"], "based_on": changes["based_on"], "reason": "to compare"}
    plan = anna.post("/api/v1/sessions/session/plans", json={"kind": "change_steps", "arguments": given})
    assert plan.status_code == 200, plan.text
    done = act("change_steps", given).json()
    assert (done["state"], done["text"]) == ("done", "applied: newest was removed; again is new")
    steps = open_session(site.folder / "session").document.steps
    assert (steps["odd"].params["factor"], steps["again"].params["factor"], "newest" in steps) == (9, 7, False)
    again = act("change_steps", given).json()
    assert (again["state"], again["text"]) == ("done", "nothing changes")
    stale = act("change_steps", {**given, "steps": {"again": None}}).json()
    assert (stale["state"], "changed since this edit" in stale["text"]) == ("refused", True)
    said = anna.get("/api/v1/sessions/session/history").json()["entries"]
    assert any(one["what"] == "change steps again newest (removed) (to compare)" for one in said)


def test_a_step_that_both_changed_is_a_conflict(anna: TestClient):
    draft = begun(anna, session="session", edit=True)
    document = draft["document"]
    document["steps"]["odd"]["params"] = {"factor": 2}
    save(anna, draft, document)
    given = {"kind": "set", "arguments": {"step": "odd", "params": {"factor": 9}}}
    assert anna.post("/api/v1/sessions/session/actions", json=given).json()["state"] == "done"
    assert anna.get(f"{DRAFTS}/{draft['id']}/changes").json()["conflicts"] == ["odd"]


def test_the_workflow_of_a_session_as_a_template_names_no_folder(anna: TestClient, tmp_path: Path):
    draft = begun(anna, session="session")
    assert draft["session"] is None
    assert str(tmp_path) not in str(draft["document"])
    assert anna.get(f"{DRAFTS}/{draft['id']}/changes").status_code == 400


def test_files_are_brought_and_taken(anna: TestClient):
    yaml = anna.post(f"{DRAFTS}/import", json={"file_name": "toy.yaml", "text": "# Ours\nsteps: {m: {use: import_movies}}\n"})
    assert (yaml.status_code, yaml.json()["summary"], list(yaml.json()["document"]["steps"])) == (201, "Ours", ["m"])
    at = f"{DRAFTS}/{yaml.json()['id']}"
    assert anna.get(f"{at}/workflow.yaml").json()["text"].startswith("# Ours\n\nsteps:\n  m: {use: import_movies}")
    file = anna.get(f"{at}/scipion.json?download=true")
    assert (file.headers["content-disposition"], "ProtImportMovies" in file.text) == ('attachment; filename="toy.json"', True)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("w.yaml", "steps:\n  a: {use: ctf, colour: red}\n", "line 2"),
        ("w.yaml", "steps: [", "is not YAML"),
        ("w.yaml", BOMB, "holds more than"),
        ("w.yaml", "steps: " + "[" * 200 + "]" * 200, "nested"),
        ("w.yaml", "steps: {a: {use: !!python/object/apply:os.system [id]}}", "is not YAML"),
        ("w.yaml", "steps: {a: {use: 'os:system'}}", "installed type of step"),
        ("w.json", "[{}]", "object.className"),
        ("w.json", "[" * 20_000, "w.json"),
        ("w.json.template", "nothing", "JSON array"),
        ("../../etc/passwd", "steps: {}", "String should match"),
        ("w.yaml", "", "at least 1 character"),
    ],
)
def test_files_that_are_none_are_told(anna: TestClient, name: str, text: str, told: str):
    answer = anna.post(f"{DRAFTS}/import", json={"file_name": name, "text": text})
    assert (answer.status_code, told in answer.text) == (422, True), answer.text[:500]
    assert anna.get(DRAFTS).json() == []


@pytest.mark.parametrize(
    "document",
    [
        {"steps": {"a": {"use": "os:system"}}},
        {"steps": {"a": {"use": "toys.steps:multiply"}}},
        {"steps": {"a": {"use": "ctf", "code": "x"}}},
        {"steps": []},
        {"stairs": {}},
        {"steps": {"a": {"use": "ctf", "params": {"x": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}}},
        {"steps": {"a": {"use": "ctf", "note": "x" * 2001}}},
    ],
)
def test_what_is_no_draft_is_refused(anna: TestClient, document: dict[str, Any]):
    assert save(anna, begun(anna), document).status_code == 422


def test_what_a_draft_may_not_say_keeps_it_from_being_a_template(anna: TestClient, tmp_path: Path):
    draft = begun(anna)
    document = {
        "steps": {
            "movies": {"use": "import_movies", "params": {"pattern": "../../*.tiff"}},
            "aligned": {"use": "motion", "in": {"movie": "movies"}, "params": {"defects": "movies:../../etc/passwd"}},
        },
        "placeholders": {"secret": {"label": "x", "env": "HOME", "optional": True}},
        "roots": {"movies": "/etc", "other": {"ask": "secret"}},
    }
    page = save(anna, draft, document).json()
    told = {(one["step"], one["field"]) for one in page["check"]["problems"]}
    assert {("movies", "params.pattern"), ("aligned", "params.defects"), (None, "placeholders"), (None, "roots")} <= told
    answer = anna.post(f"{DRAFTS}/{draft['id']}/template", json={"version": 2, "name": "bad"})
    assert (answer.status_code, (tmp_path / "templates" / "bad.yaml").exists()) == (422, False)


def test_a_session_takes_no_code_and_no_way_out_either(anna: TestClient):
    for spec in ({"use": "os:system"}, {"use": "import_movies", "params": {"pattern": "/etc/*"}}):
        given = {"kind": "change_steps", "arguments": {"steps": {"bad": spec}}}
        for address in ("actions", "plans"):
            assert anna.post(f"/api/v1/sessions/session/{address}", json=given).status_code == 422


def test_what_a_template_of_the_facility_names_stays_usable(anna: TestClient):
    draft = begun(anna, template="toy")
    assert draft["check"]["problems"] == []
    page = save(anna, draft, draft["document"] | {"description": "x"})
    assert page.status_code == 200
    assert anna.get(f"{DRAFTS}/{draft['id']}/steps/times").json()["values"]["properties"]["factor"]
    assert anna.get(f"{DRAFTS}/{draft['id']}/steps/nothing").status_code == 404


def test_odd_questions_get_no_error_of_the_server(anna: TestClient):
    draft = begun(anna)
    at = f"{DRAFTS}/{draft['id']}"
    for address in (f"{DRAFTS}/0", f"{DRAFTS}/9999", f"{DRAFTS}/x", f"{DRAFTS}/99999999999999999999", f"{at}/nothing"):
        assert anna.get(address).status_code in (404, 405, 422)
    kind = {"content-type": "application/json"}
    for body in (b"{", b"[" * 100_000, b'{"version": 1, "title": "\\ud800", "document": {"steps": {}}}',
                 b'{"version": 1, "title": "x", "document": {"steps": {"a": {"use": "ctf", "params": {"x": NaN}}}}}',
                 b'{"version": 1, "title": "a\\u0000b", "document": {"steps": {}}}'):  # fmt: skip
        assert anna.post(at, content=body, headers=kind).status_code in (400, 422), body[:80]
    huge = b'{"version": 1, "title": "' + b"x" * (2 << 20) + b'"}'
    assert anna.post(at, content=huge, headers=kind).status_code == 413
    nowhere: list[dict[str, object]] = [
        {"template": "../toy"}, {"template": "/etc/passwd"}, {"session": ".."}, {"session": "no"}, {"copy_of": 99},
    ]  # fmt: skip
    for asked in nowhere:
        assert anna.post(DRAFTS, json=asked).status_code == 404
    odd: list[dict[str, object]] = [
        {"template": "toy", "session": "session"}, {"document": {"steps": {}}}, {"title": "x" * 121}, {"odd": 1},
    ]  # fmt: skip
    for asked in odd:
        assert anna.post(DRAFTS, json=asked).status_code == 422


def test_only_who_may_act_builds(site: Served, anna: TestClient):
    screen, draft = site.signed_in("screen"), begun(anna)
    assert screen.get(DRAFTS).status_code == screen.post(DRAFTS, json={}).status_code == 403
    assert site.client().get(DRAFTS).status_code == 401
    assert site.client().get("/api/v1/steps").status_code == 401
    del anna.headers["x-icestream-csrf"]
    assert anna.post(f"{DRAFTS}/{draft['id']}/delete", json={"version": 1}).status_code == 403
    assert anna.post(DRAFTS, json={}, headers={"origin": "http://evil.example"}).status_code == 403


def test_a_draft_of_a_session_is_for_those_who_act_there(site: Served, anna: TestClient, tmp_path: Path):
    AccessFile(tmp_path / "access.json").add_password("berta", PASSWORD, "operate", sessions=["other_*"])
    berta, mine = site.signed_in("berta"), begun(anna, session="session", edit=True)
    assert berta.get(DRAFTS).json() == []
    assert berta.get(f"{DRAFTS}/{mine['id']}").status_code == 404
    for edit in (True, False):
        assert berta.post(DRAFTS, json={"session": "session", "edit": edit}).status_code == 404
    own = begun(berta, template="movies_to_ctf")
    assert own["may_save"] is False
    assert berta.post(f"{DRAFTS}/{own['id']}/template", json={"version": 1, "name": "hers"}).status_code == 403


def test_a_template_of_a_session_is_for_its_author_and_those_who_act_there(site: Served, anna: TestClient, tmp_path: Path):
    people = AccessFile(tmp_path / "access.json")
    people.add_password("berta", PASSWORD, "operate", sessions=["other_*"])
    people.add_password("carla", PASSWORD, "operate", sessions=["session"])
    berta, carla = site.signed_in("berta"), site.signed_in("carla")
    made = begun(anna, session="session")
    copy = begun(anna, copy_of=made["id"])
    for draft in (made, copy):
        assert berta.get(f"{DRAFTS}/{draft['id']}").status_code == 404
        assert save(berta, draft, {"steps": {}}).status_code == 404
        assert berta.post(f"{DRAFTS}/{draft['id']}/delete", json={"version": 1}).status_code == 404
    assert berta.get(DRAFTS).json() == []
    assert save(carla, made, {"steps": STEPS}).status_code == 200
    assert carla.post(f"{DRAFTS}/{made['id']}/delete", json={"version": 2}).status_code == 403
    own, free = begun(carla, session="session"), begun(anna)
    assert berta.post(f"{DRAFTS}/{free['id']}/delete", json={"version": 1}).status_code == 403
    assert carla.post(f"{DRAFTS}/{own['id']}/delete", json={"version": 1}).status_code == 204
    assert anna.post(f"{DRAFTS}/{made['id']}/delete", json={"version": 2}).status_code == 204


def test_the_drafts_of_one_person_have_room_together(anna: TestClient, monkeypatch: pytest.MonkeyPatch):
    draft = begun(anna)
    monkeypatch.setattr("icestream.facility.drafts.MOST_BYTES_OF_ONE", 400)
    answer = save(anna, draft, {"steps": STEPS | {"more": STEPS["ctf"] | {"note": "x" * 400}}})
    assert (answer.status_code, "the drafts that anna has begun would have" in answer.json()["detail"]) == (400, True)
    assert save(anna, draft, {"steps": {"movies": STEPS["movies"]}}).status_code == 200
    assert anna.post(DRAFTS, json={"template": "movies_to_ctf"}).status_code == 400


def test_there_are_not_too_many_drafts(anna: TestClient, monkeypatch: pytest.MonkeyPatch):
    assert MOST_DRAFTS >= 100
    monkeypatch.setattr("icestream.facility.drafts.MOST_DRAFTS", 2)
    begun(anna)
    begun(anna)
    assert (anna.post(DRAFTS, json={}).status_code, len(anna.get(DRAFTS).json())) == (400, 2)
