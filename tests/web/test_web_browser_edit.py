"""Steering a session in a real browser: parameters, restart, branch, each foreseen and asked once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.observe.queries import open_view
from icestream.settings import Settings
from toys.session import make_toy_session, toy_steps
from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server, visit

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Server]:
    """A toy session that has run, and its server."""
    session = make_toy_session(tmp_path, toy_steps(6), numbers=range(6))
    run_session(session, Settings(cores=2, min_free_gb=0))
    server = start_server(session.folder, tmp_path / "state")
    yield server
    stop_server(server)


@pytest.fixture
def page(toy: Server, visit: Visit) -> Iterator[Page]:
    """The page of the session; the browser tells of values that are refused, and of a server that is gone."""
    visit.page.goto(f"{toy.address}/s/session")
    yield visit.page
    visit.complaints[:] = [one for one in visit.complaints if "422" not in one and "net::" not in one]


def test_parameters_are_changed_with_what_it_costs(page: Page, tmp_path: Path):
    page.locator(".workflow").get_by_role("link", name="odd", exact=True).click()
    expect(page.locator("h1")).to_contain_text("odd", timeout=PATIENCE_MS)
    change = page.get_by_role("button", name="Change")
    expect(change).to_be_disabled()
    page.get_by_label("factor", exact=True).fill("many")
    change.click()
    expect(page.locator(".field.wrong")).to_contain_text("valid integer", timeout=PATIENCE_MS)
    expect(page.get_by_label("factor", exact=True)).to_be_focused()
    page.get_by_label("factor", exact=True).fill("9")
    change.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("results to compute", timeout=PATIENCE_MS)
    expect(dialog.locator("tbody tr").first).to_contain_text("odd")
    expect(dialog.locator("tbody tr").first.locator("td").nth(2)).to_have_text("3")
    dialog.get_by_label("Why").fill("too dim")
    dialog.get_by_role("button", name="Change").click()
    expect(page.locator(".toast")).to_contain_text("applied", timeout=PATIENCE_MS)
    expect(page.get_by_label("factor", exact=True)).to_have_value("9")
    expect(change).to_be_disabled()
    with open_view(open_session(tmp_path / "session")) as view:
        assert [one.what for one in view.history() if one.author] == ["set odd factor=9 (too dim)"]


def test_a_step_is_branched_and_restarted(page: Page, tmp_path: Path):
    page.locator(".workflow").get_by_role("link", name="odd", exact=True).click()
    page.get_by_role("button", name="Restart from here").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Restart from here").click()
    page.get_by_role("dialog").get_by_role("button", name="Restart").click()
    expect(page.locator(".toast")).to_contain_text("recomputed", timeout=PATIENCE_MS)
    page.get_by_label("factor", exact=True).fill("11")
    page.get_by_label("Branch: a second variant").fill("odd_wide")
    page.get_by_label("only this step").check()
    page.get_by_role("button", name="Branch").click()
    expect(page.get_by_role("dialog").locator("tbody tr")).to_have_count(1, timeout=PATIENCE_MS)
    page.get_by_role("dialog").get_by_role("button", name="Branch").click()
    expect(page.locator(".workflow")).to_contain_text("odd_wide", timeout=PATIENCE_MS)
    assert open_session(tmp_path / "session").document.steps["odd_wide"].params["factor"] == 11
    with open_view(open_session(tmp_path / "session")) as view:
        assert [one.what.split()[0] for one in view.history() if one.author] == ["restart", "branch"]


def test_one_exposure_is_recomputed_with_values_of_its_own(page: Page, tmp_path: Path):
    page.get_by_role("navigation").get_by_role("link", name="Exposures").click()
    page.locator("tbody").get_by_role("link", name="3", exact=True).click()
    odd = page.locator('.other[data-key="odd"]')
    odd.locator("summary").click()
    odd.get_by_role("link", name="Recompute with other values").click()
    expect(page.locator(".notice")).to_contain_text("are for 3 alone", timeout=PATIENCE_MS)
    page.get_by_label("factor", exact=True).fill("8")
    page.get_by_role("button", name="Recompute").click()
    expect(page.get_by_role("dialog").locator("tbody tr").first).to_contain_text("odd", timeout=PATIENCE_MS)
    page.get_by_role("dialog").get_by_role("button", name="Recompute").click()
    expect(page.locator(".notice.warning")).to_contain_text("parameters of its own", timeout=PATIENCE_MS)
    with open_view(open_session(tmp_path / "session")) as view:
        assert [one.params for one in view.decisions()] == [{"factor": 8}]
