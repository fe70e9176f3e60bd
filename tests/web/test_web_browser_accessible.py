"""Every page checked by axe-core: nothing serious in light, in dark, and on a phone; and what is used needs no mouse."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from icestream.settings import Settings
from icestream.transfer.anchored import FileStamp
from icestream.transfer.ledger import account_ledger
from icestream.web.access import AccessFile
from icestream.web.server import ACCESS_FILE
from web.browsing import PATIENCE_MS, Server, Visit, browser, serious, start_server, stop_server
from web.paper_classes import write_classes
from web.paper_filter import write_filtered
from web.parts import PASSWORD
from web.test_web_watches import write_watch

__all__ = ["browser"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

PAGES = (
    "/",
    "/new",
    "/audit",
    "/build",
    "/storage",
    "/trends",
    "/transfers",
    "/watch",
    "/share",
    "/s/every",
    "/s/every/exposures",
    "/s/every/exposures/FoilHole_0004",
    "/s/every/failures",
    "/s/every/log",
    "/s/every/map",
    "/s/every/monitors",
    "/s/every/alarms",
    "/s/every/storage",
    "/s/every/transfer",
    "/s/filtered/series",
    "/s/filtered/steps/good",
    "/s/classified/classes",
)


@pytest.fixture(scope="module")
def server(shown_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("accessible")
    (folder / "every").symlink_to(shown_folder / "every")
    write_filtered(folder / "filtered")
    write_classes(folder / "classified")
    state = tmp_path_factory.mktemp("state")
    write_watch(Settings(state=state).state, folder / "data", folder)
    ledger = account_ledger(state)
    row = ledger.open_transfer(Path("/mnt/krios"), Path("/data/krios"))
    ledger.tell(row.id, "paused", "the disk is full")
    ledger.put(row.id, "grid7/1.eer", FileStamp(5, 5), "failed", reason="Input/output error", attempts=2, retry_at=2e9)
    started = start_server(folder, state)
    yield started
    stop_server(started)


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_nothing_serious_is_found_on_any_page(browser: Browser, server: Server, width: int, scheme: str):
    visit, found = Visit(browser, width=width, scheme=scheme), []
    for where in PAGES:
        page = visit.open(f"{server.address}{where}")
        expect(page.locator("main")).not_to_contain_text("Loading", timeout=PATIENCE_MS)
        found += [(where, *one) for one in serious(page)]
        assert visit.too_wide() <= 0, where
    page = visit.open(f"{server.address}/s/filtered/steps/good")
    page.get_by_role("button", name="Restart from here").click()
    expect(page.get_by_role("dialog")).to_be_visible(timeout=PATIENCE_MS)
    found += [("a question", *one) for one in serious(page)]
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


def test_nothing_serious_is_found_on_the_form_to_sign_in(browser: Browser, tmp_path: Path):
    (tmp_path / "sessions").mkdir()
    AccessFile(tmp_path / "state" / ACCESS_FILE).add_password("anna", PASSWORD, "operate")
    server, found = start_server(tmp_path / "sessions", tmp_path / "state"), []
    for width, scheme in ((1360, "light"), (1360, "dark"), (390, "light")):
        visit = Visit(browser, width=width, scheme=scheme)
        page = visit.open(server.address)
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=PATIENCE_MS)
        found += [(width, scheme, *one) for one in serious(page)]
        page.get_by_label("Name").fill("anna")
        page.keyboard.press("Tab")
        expect(page.get_by_label("Password")).to_be_focused()
        page.keyboard.type("not the password")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("the name or the password is wrong", timeout=PATIENCE_MS)
        found += [(width, f"{scheme}, refused", *one) for one in serious(page)]
        assert visit.too_wide() <= 0, width
        visit.context.close()
    stop_server(server)
    assert found == []
