"""Acting from the page: the same commands as from the command line, recorded with the name of who asked."""

import pytest

from icestream.flow.storage.session import open_session
from icestream.observe.queries import open_view
from web.parts import Served

ACTIONS = "/api/v1/sessions/session/actions"


def test_actions_are_carried_out_and_recorded_with_their_author(toy_site: Served):
    anna = toy_site.signed_in()
    paused = anna.post(ACTIONS, json={"kind": "pause", "arguments": {"reason": "changing the <b>grid</b>"}})
    assert (paused.status_code, paused.json()["state"]) == (200, "done")
    page = anna.get("/api/v1/sessions/session").json()
    assert page["pause"] == "paused by anna: changing the <b>grid</b>"
    assert anna.post(ACTIONS, json={"kind": "resume"}).json()["state"] == "done"
    assert anna.get("/api/v1/sessions/session").json()["pause"] is None
    assert anna.post(ACTIONS, json={"kind": "close", "arguments": {"step": "odd"}}).json()["state"] == "done"
    odd = next(one for one in anna.get("/api/v1/sessions/session").json()["steps"] if one["step"]["name"] == "odd")
    assert odd["marks"] == ["takes nothing new: closed by hand, by anna"]
    assert anna.post(ACTIONS, json={"kind": "reopen", "arguments": {"step": "odd"}}).json()["state"] == "done"
    entries = anna.get("/api/v1/sessions/session/history").json()["entries"]
    asked = [(one["author"], one["what"]) for one in reversed(entries) if one["author"]]
    wanted = ["pause (changing the <b>grid</b>)", "resume", "close odd", "reopen odd"]
    assert asked == [("anna", what) for what in wanted]


def test_a_token_acts_without_a_page(toy_site: Served):
    token = toy_site.access.add_token("night script", "operate")
    script = toy_site.client(authorization=f"Bearer {token}")
    assert script.get("/api/v1/me").json()["csrf"] is None
    assert script.post(ACTIONS, json={"kind": "pause"}).json()["state"] == "done"
    with open_view(open_session(toy_site.folder)) as view:
        assert [(one.author, one.what) for one in view.history()] == [("night script", "pause")]


def test_a_refused_command_says_why(toy_site: Served):
    anna = toy_site.signed_in()
    answer = anna.post(ACTIONS, json={"kind": "close", "arguments": {"step": "nothing"}}).json()
    assert (answer["state"], "nothing" in answer["text"]) == ("refused", True)
    stopped = anna.post(ACTIONS, json={"kind": "stop"})
    assert (stopped.status_code, "not running" in stopped.json()["detail"]) == (409, True)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"kind": "clean"}, 422),
        ({"kind": "set", "arguments": {"step": "odd"}}, 400),
        ({"kind": "pause", "arguments": {"author": "somebody else"}}, 400),
        ({"kind": "close"}, 400),
        ({"kind": "override", "arguments": {"unit": "x", "verdict": "delete"}}, 400),
        ({"kind": "retry", "arguments": {"step": {"a": 1}}}, 400),
        ({"kind": "set", "arguments": {"step": "odd", "params": {"a": [[[[[[[[[1]]]]]]]]]}}}, 422),
        ({"kind": "pause", "author": "somebody else"}, 422),
        ([], 422),
    ],
)
def test_only_known_commands_with_their_arguments_are_taken(toy_site: Served, asked, status):
    answer = toy_site.signed_in().post(ACTIONS, json=asked)
    assert answer.status_code == status
    assert not (toy_site.folder / "icestream.db").exists()


def test_an_unknown_session_cannot_be_asked(toy_site: Served):
    assert toy_site.signed_in().post("/api/v1/sessions/other/actions", json={"kind": "pause"}).status_code == 404
