"""What can be done to a running session, in a real browser: retry, accept, withdraw, reopen, let through, reset, continue."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from icestream.flow.storage.session import Session, open_session
from icestream.observe.queries import open_view
from toys.session import make_toy_session, start_runner, toy_steps
from web.browsing import PATIENCE_MS, Visit, answer, browser, start_server, stop_server, visit

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A running session that waits for more; a step fails for two numbers until it is healed, and a gate for a person."""
    steps = toy_steps(30, fail_on=[2, 4], heal_file="session:healed") | {
        "held": {"use": "trigger", "in": {"items": "triple"}, "params": {"manual": True}},
    }
    made = make_toy_session(tmp_path, steps, numbers=range(6))
    with start_runner(made) as runner:
        yield made
        runner.kill()


@pytest.fixture
def page(session: Session, visit: Visit, tmp_path: Path) -> Iterator[Page]:
    server = start_server(session.folder, tmp_path / "state")
    visit.page.goto(f"{server.address}/s/session")
    expect(visit.page.locator(".figures .card").first.locator("b")).to_have_text("6", timeout=PATIENCE_MS)
    yield visit.page
    stop_server(server)
    visit.complaints[:] = [one for one in visit.complaints if "net::" not in one]  # the server is gone at the end


def asked(session: Session) -> list[str]:
    with open_view(open_session(session.folder)) as view:
        return [one.what.split(" ")[0] for one in view.history() if one.author]


def tab(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Pages of the session").get_by_role("link", name=name).click()


def test_what_failed_is_retried_one_by_one_and_all_at_once(page: Page, session: Session):
    tab(page, "Failures")
    failures = page.locator("article.failure")
    expect(failures).to_have_count(2, timeout=PATIENCE_MS)
    expect(failures.first).to_contain_text("is refused")
    failures.first.get_by_text("Traceback").click()
    expect(failures.first.locator("pre")).to_contain_text("ItemError")
    (session.folder / "healed").touch()
    answer(page, "Retry 2 at triple", "Retry")
    expect(failures).to_have_count(1, timeout=PATIENCE_MS)
    answer(page, "Retry everything", "Retry")
    expect(page.get_by_text("Nothing has failed.")).to_be_visible(timeout=PATIENCE_MS)
    assert asked(session) == ["retry", "retry"]


def test_exposures_are_rejected_accepted_and_given_back_to_the_steps(page: Page, session: Session):
    tab(page, "Exposures")
    page.get_by_role("checkbox", name="select 3").check()
    page.get_by_role("checkbox", name="select 5").check()
    answer(page, "Accept", "Accept")
    expect(page.locator(".toast").last).to_contain_text("accept", timeout=PATIENCE_MS)
    page.locator("tbody").get_by_role("link", name="0", exact=True).click()
    answer(page, "Reject", "Reject")
    withdraw = page.get_by_role("button", name="Withdraw the decision")
    expect(withdraw).to_be_visible(timeout=PATIENCE_MS)
    answer(page, "Accept", "Accept")
    expect(page.get_by_role("button", name="Reject")).to_be_visible(timeout=PATIENCE_MS)
    answer(page, "Withdraw the decision", "Withdraw")
    expect(withdraw).to_have_count(0, timeout=PATIENCE_MS)
    kinds = asked(session)
    assert set(kinds) == {"accept", "reject", "withdraw"} or set(kinds) == {"accept", "reject", "lift"}, kinds


def test_steps_are_closed_reopened_let_through_reset_and_continued(page: Page, session: Session):
    answer(page, "Close odd", "Close")
    answer(page, "Reopen odd", "Reopen")
    expect(page.get_by_role("button", name="Close odd")).to_be_visible(timeout=PATIENCE_MS)
    held = page.locator('.workflow li[data-key="held"]')
    expect(held).to_contain_text("waiting for a person to release them", timeout=PATIENCE_MS)
    answer(page, "Open held", "Open")
    expect(held.locator(".counts")).to_contain_text("4 done", timeout=PATIENCE_MS)
    page.locator(".workflow").get_by_role("link", name="odd", exact=True).click()
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("dialog").get_by_role("button", name="Reset").click()
    expect(page.locator(".toast").last).to_contain_text("dropped", timeout=PATIENCE_MS)
    tab(page, "Workflow")
    answer(page, "Continue everything", "Continue")
    expect(page.get_by_role("button", name="Close odd")).to_be_visible(timeout=PATIENCE_MS)
    assert asked(session) == ["close", "reopen", "release", "reset", "continue"]
