"""The pages in a real browser: every page is opened, every action is taken, and names stay text."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from paper_session import HOSTILE
from playwright.sync_api import Page, expect

from icestream.flow.storage.session import open_session
from icestream.observe.queries import open_view
from icestream.web.access import AccessFile
from icestream.web.server import ACCESS_FILE
from toys.session import arrive, make_toy_session, start_runner, toy_steps
from web.browsing import PATIENCE_MS, Server, Visit, answer, browser, sign_in, start_server, stop_server, visit
from web.parts import PASSWORD

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

PAGES = (
    "",
    "/exposures",
    "/series",
    "/classes",
    "/failures",
    "/monitors",
    "/alarms",
    "/transfer",
    "/log",
    "/exposures/FoilHole_0004",
)


@pytest.fixture(scope="module")
def shown(shown_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_server(shown_folder, tmp_path_factory.mktemp("state"))
    yield server
    stop_server(server)


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (390, "dark")])
def test_every_page_opens_without_complaint_or_a_word_to_another_server(browser, shown, width, scheme):
    visit = Visit(browser, width=width, scheme=scheme)
    for page in PAGES:
        visit.open(f"{shown.address}/s/every{page}")
        expect(visit.page.locator(".notice.alert")).to_have_count(0)
        assert visit.too_wide() <= 0, page
    assert visit.complaints == []
    assert {url.split("/")[2] for url in visit.elsewhere} == {shown.address.split("/")[2]}
    visit.context.close()


def test_one_click_leads_from_the_sessions_to_an_exposure(visit, shown):
    page = visit.open(shown.address)
    expect(page.get_by_text("cannot be read:")).to_be_visible()
    page.get_by_role("link", name="Every record").click()
    expect(page.locator(".workflow li")).to_have_count(24, timeout=PATIENCE_MS)
    page.get_by_role("navigation").get_by_role("link", name="Exposures").click()
    expect(page.locator("tbody tr")).to_have_count(8)
    page.locator("tbody").get_by_role("link", name="FoilHole_0004").click()
    expect(page.locator("h1")).to_contain_text("FoilHole_0004")
    expect(page.locator(".overlay circle")).to_have_count(9)
    page.get_by_role("checkbox", name="Find: 9").uncheck()
    expect(page.locator(".overlay").first).to_have_attribute("visibility", "hidden")
    expect(page.locator(".plot canvas").first).to_be_visible()
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("h1")).to_contain_text("FoilHole_0005")
    page.go_back()
    expect(page.locator("h1")).to_contain_text("FoilHole_0004")


def test_the_table_sorts_filters_and_remembers_columns(visit, shown):
    page = visit.open(f"{shown.address}/s/every/exposures")
    first = page.locator("tbody tr").first
    expect(first).to_contain_text("FoilHole_0008")
    page.get_by_role("button", name="Name").click()
    expect(first).to_contain_text("FoilHole_0001")
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("Name")
    page.get_by_label("Name has").fill("0007")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Name has").fill("")
    page.get_by_label("Measure between").select_option(label="Particles per micrograph (particles), Find")
    page.get_by_label("at least").fill("12")
    page.get_by_label("at least").press("Tab")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_text("Columns").click()
    page.get_by_role("checkbox", name="Defocus (µm), Ctf A", exact=True).check()
    expect(page.get_by_role("columnheader", name="Defocus")).to_be_visible()


def test_pages_are_used_by_keyboard_alone(visit, shown):
    page = visit.open(f"{shown.address}/s/every")
    navigation = page.get_by_role("navigation").get_by_role("link")
    expect(navigation.filter(has_text="Classes")).to_be_visible()
    page.keyboard.press("Tab")
    visited = []
    for _ in range(page.get_by_role("link").count() + page.get_by_role("button").count()):
        visited.append(page.evaluate("document.activeElement.textContent"))
        page.keyboard.press("Tab")
    assert {"Workflow", "Exposures", "Series", *navigation.all_text_contents()} <= set(visited)
    page.get_by_role("navigation").get_by_role("link", name="Classes").focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Classes")
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("version 1 of 2")).to_be_visible()
    expect(slider).to_be_focused()


def test_names_with_markup_are_shown_as_they_are(visit, shown):
    folder = quote("hostile <b>&'\"", safe="")
    for page in ("", "/exposures", "/failures", "/log", "/series", "/classes"):
        visit.open(f"{shown.address}/s/{folder}{page}")
        expect(visit.page.locator(".crumb")).to_have_text(HOSTILE)
    visit.open(f"{shown.address}/s/{folder}/failures")
    expect(visit.page.locator(".failure")).to_contain_text(f"frame 7 is broken {HOSTILE}")
    visit.page.get_by_text("Traceback", exact=True).click()
    expect(visit.page.locator("pre")).to_have_text("Traceback of attempt 1")
    visit.open(f"{shown.address}/s/{folder}/exposures")
    visit.page.locator("tbody").get_by_role("link", name=HOSTILE).first.click()
    expect(visit.page.locator("h1")).to_contain_text(HOSTILE)
    assert visit.page.locator("main script, main b[onclick], .crumb b").count() == 0
    visit.complaints[:] = [one for one in visit.complaints if "404" not in one]  # the first pictures of this session are gone


def test_a_session_of_an_older_version_shows_on_every_page(visit, shown):
    for page in ("", "/exposures", "/series", "/classes", "/failures", "/log", "/exposures/mic_0005"):
        visit.open(f"{shown.address}/s/old{page}")
        expect(visit.page.locator(".notice.alert")).to_have_count(0)
    visit.complaints[:] = [one for one in visit.complaints if "404" not in one]  # its large pictures were not kept


def steer(page: Page, folder: Path) -> None:
    """Follow a running session, and do to it what can be done."""
    exposures, state = page.locator(".figures .card").first.locator("b"), page.locator(".state")
    expect(exposures).to_have_text("3", timeout=PATIENCE_MS)
    arrive(folder, range(3, 9))
    expect(exposures).to_have_text("9", timeout=PATIENCE_MS)  # without anything done on the page
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Why").fill("changing <i>apertures</i>")
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    told = "Paused by anna: changing <i>apertures</i>."
    expect(page.locator(".notice.warning").first).to_have_text(told, timeout=PATIENCE_MS)
    answer(page, "Resume", "Cancel")
    expect(state).to_have_text("paused")
    answer(page, "Resume", "Resume")
    expect(state).to_have_text("running", timeout=PATIENCE_MS)
    page.get_by_role("navigation").get_by_role("link", name="Exposures").click()
    page.get_by_role("checkbox", name="select 4").check()
    answer(page, "Reject", "Reject")
    expect(page.locator("tbody")).to_contain_text("rejected by hand by anna", timeout=PATIENCE_MS)
    page.get_by_role("link", name="Workflow").click()
    answer(page, "Close odd", "Close")
    expect(page.get_by_role("button", name="Reopen odd")).to_be_visible(timeout=PATIENCE_MS)
    answer(page, "Stop", "Stop")
    expect(state).to_have_text("stopped", timeout=PATIENCE_MS)


def test_a_running_session_is_followed_paused_and_resumed(browser, tmp_path):
    session = make_toy_session(tmp_path, toy_steps(30), numbers=range(3))
    state = tmp_path / "state"
    AccessFile(state / ACCESS_FILE).add_password("anna", PASSWORD, "operate")
    server, visit = start_server(session.folder, state), Visit(browser)
    with start_runner(session) as runner:
        try:
            sign_in(visit.page, server.address)
            steer(visit.page, tmp_path)
            visit.page.get_by_role("button", name="Sign out").click()
            expect(visit.page.get_by_role("heading", name="Sign in")).to_be_visible()
            runner.wait(timeout=60)
        finally:
            runner.kill()
            visit.context.close()
            stop_server(server)
    with open_view(open_session(session.folder)) as view:
        asked = [(one.author, one.what) for one in view.history() if one.author]
    assert [who for who, _ in asked] == ["anna"] * 5
    assert asked[0] == ("anna", "pause (changing <i>apertures</i>)")
    assert [what.split()[0] for _, what in asked] == ["pause", "resume", "reject", "close", "stop"]
    assert [one for one in visit.complaints if "401" not in one] == []  # the browser tells of each refused sign-in
