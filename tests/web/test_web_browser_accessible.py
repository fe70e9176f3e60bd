"""Every page checked by axe-core: nothing serious in light, in dark, and on a phone; and what is used needs no mouse."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server
from web.paper_classes import write_classes
from web.paper_filter import write_filtered

__all__ = ["browser"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

PAGES = (
    "/",
    "/new",
    "/audit",
    "/s/every",
    "/s/every/exposures",
    "/s/every/exposures/FoilHole_0004",
    "/s/every/failures",
    "/s/every/log",
    "/s/filtered/series",
    "/s/filtered/steps/good",
    "/s/classified/classes",
)
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def server(shown_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("accessible")
    (folder / "every").symlink_to(shown_folder / "every")
    write_filtered(folder / "filtered")
    write_classes(folder / "classified")
    started = start_server(folder, tmp_path_factory.mktemp("state"))
    yield started
    stop_server(started)


def check(page: Page, where: str) -> list[str]:
    """Return what axe-core finds serious on a page."""
    found = Axe().run(page).response["violations"]
    return [
        f"{where}: {one['id']} ({one['impact']}): {node['html'][:150]} {node['failureSummary'][:200]}"
        for one in found
        if one["impact"] in SERIOUS
        for node in one["nodes"][:2]
    ]


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_nothing_serious_is_found_on_any_page(browser: Browser, server: Server, width: int, scheme: str):
    visit, found = Visit(browser, width=width, scheme=scheme), []
    for where in PAGES:
        page = visit.open(f"{server.address}{where}")
        expect(page.locator("main")).not_to_contain_text("Loading", timeout=PATIENCE_MS)
        found += check(page, where)
        assert visit.too_wide() <= 0, where
    page = visit.open(f"{server.address}/s/filtered/steps/good")
    page.get_by_role("button", name="Restart from here").click()
    expect(page.get_by_role("dialog")).to_be_visible(timeout=PATIENCE_MS)
    found += check(page, "a question")
    visit.context.close()
    assert found == []


def test_a_question_is_answered_and_left_by_keyboard(browser: Browser, server: Server):
    visit = Visit(browser)
    page = visit.open(f"{server.address}/s/filtered/steps/good")
    button = page.get_by_role("button", name="Restart from here")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Restart")).to_be_focused(timeout=PATIENCE_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    visit.context.close()
