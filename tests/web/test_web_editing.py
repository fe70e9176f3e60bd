"""Edits from the page: a form from the schema, a dry run first, errors by field, and a command row with its author."""

import pytest

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from web.parts import Served

AT = "/api/v1/sessions/session"
SETTINGS = Settings(cores=2, min_free_gb=0)


@pytest.fixture
def ran_site(toy_site: Served) -> Served:
    """The toy session after its run."""
    report = run_session(open_session(toy_site.folder), SETTINGS)
    assert report.finished, report.reason  # a signal to this process ends a run early, and then nothing is computed again
    return toy_site


def test_the_form_of_a_step_comes_from_its_schema(toy_site: Served):
    anna = toy_site.signed_in()
    page = anna.get(f"{AT}/steps/triple/parameters").json()
    assert page["values"]["properties"]["factor"]["description"] == "Multiply by this"
    assert (page["given"]["factor"], page["complete"]["factor"], page["complete"]["fail_on"]) == (3, 3, [])
    assert page["below"][:2] == ["triple", "even"]
    assert anna.get(f"{AT}/steps/nothing/parameters").status_code == 404


def test_an_edit_is_foreseen_then_done_and_recorded(ran_site: Served):
    anna = ran_site.signed_in()
    edit = {"kind": "set", "arguments": {"step": "odd", "params": {"factor": 7}}}
    foreseen = anna.post(f"{AT}/plans", json=edit).json()
    lines = {one["step"]: one for one in foreseen["steps"]}
    assert (lines["odd"]["computed"], lines["odd"]["change"], lines["any"]["change"]) == (2, "revised", "revised")
    assert foreseen["computed"] >= 4 and foreseen["cores"] >= 1 and foreseen["seconds"] is not None
    assert "triple" not in lines
    assert anna.get(f"{AT}/steps/odd/parameters").json()["complete"]["factor"] == 5  # a dry run changes nothing
    edit["arguments"]["reason"] = "brighter"
    done = anna.post(f"{AT}/actions", json=edit).json()
    assert (done["state"], "applied" in done["text"]) == ("done", True)
    assert anna.get(f"{AT}/steps/odd/parameters").json()["complete"]["factor"] == 7
    entries = anna.get(f"{AT}/history").json()["entries"]
    asked = [(one["author"], one["what"]) for one in entries if one["author"]]
    assert asked == [("anna", "set odd factor=7 (brighter)")]
    back = {"kind": "set", "arguments": {"step": "odd", "params": {"factor": None}}}  # its default
    assert anna.post(f"{AT}/actions", json=back).json()["state"] == "done"
    assert anna.get(f"{AT}/steps/odd/parameters").json()["complete"]["factor"] == 2


def test_restart_branch_and_reset_are_foreseen_and_done(ran_site: Served):
    anna = ran_site.signed_in()
    restart = {"kind": "restart", "arguments": {"step": "odd"}}
    assert {one["step"] for one in anna.post(f"{AT}/plans", json=restart).json()["steps"]} >= {"odd", "any", "total"}
    assert anna.post(f"{AT}/actions", json=restart).json()["state"] == "done"
    branch = {"kind": "branch", "arguments": {"step": "odd", "name": "odd_wide", "params": {"factor": 11}, "below": False}}
    assert [one["step"] for one in anna.post(f"{AT}/plans", json=branch).json()["steps"]] == ["odd_wide"]
    assert anna.post(f"{AT}/actions", json=branch).json()["state"] == "done"
    assert open_session(ran_site.folder).document.steps["odd_wide"].params["factor"] == 11
    reset = {"kind": "reset", "arguments": {"step": "sums"}}
    assert anna.post(f"{AT}/actions", json=reset).json()["state"] == "done"
    assert anna.post(f"{AT}/actions", json={"kind": "continue"}).json()["state"] == "done"


def test_one_exposure_is_computed_again_with_values_of_its_own(ran_site: Served):
    anna = ran_site.signed_in()
    unit = next(one["unit"] for one in anna.get(f"{AT}/exposures").json()["rows"] if one["name"] == "3")
    again = {"kind": "recompute", "arguments": {"unit": unit, "step": "odd", "params": {"factor": 8}}}
    lines = {one["step"]: one for one in anna.post(f"{AT}/plans", json=again).json()["steps"]}
    assert (lines["odd"]["computed"], lines["odd"]["change"]) == (1, "again")
    assert anna.post(f"{AT}/actions", json=again).json()["state"] == "done"
    (decision,) = anna.get(f"{AT}/history").json()["decisions"]
    assert (decision["exposure"], decision["step"], decision["params"], decision["author"]) == ("3", "odd", {"factor": 8}, "anna")
    wrong = {"kind": "recompute", "arguments": {"unit": unit, "step": "odd", "params": {"factor": "x"}}}
    assert list(anna.post(f"{AT}/actions", json=wrong).json()["fields"]) == ["factor"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"factor": "many"}, "factor"),
        ({"factor": 2.5}, "factor"),
        ({"colour": 1}, "colour"),
        ({"heal_file": "numbers:../../etc/passwd"}, "heal_file"),
        ({"fail_on": [1, "x"]}, "fail_on"),
    ],
)
def test_what_is_wrong_is_told_by_field_and_nothing_is_asked(toy_site: Served, params: dict[str, object], field: str):
    anna = toy_site.signed_in()
    for address in ("plans", "actions"):
        answer = anna.post(f"{AT}/{address}", json={"kind": "set", "arguments": {"step": "triple", "params": params}})
        assert (answer.status_code, list(answer.json()["fields"])) == (422, [field])
    assert not (toy_site.folder / "icestream.db").exists()


def test_only_edits_are_foreseen_and_only_by_who_may_act(toy_site: Served):
    anna = toy_site.signed_in()
    assert anna.post(f"{AT}/plans", json={"kind": "pause"}).status_code == 422
    assert anna.post(f"{AT}/plans", json={"kind": "set", "arguments": {"step": "x", "params": {"a": 1}}}).status_code == 400
    screen = toy_site.signed_in("screen")
    assert screen.post(f"{AT}/plans", json={"kind": "restart", "arguments": {"step": "odd"}}).status_code == 403
    assert screen.get(f"{AT}/steps/odd/parameters").status_code == 200
