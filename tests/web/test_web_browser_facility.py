"""The pages of a whole facility in a real browser: figures, trends of microscopes, storage, and watched folders."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from icestream.facility.watch_state import StateFile
from web.browsing import PATIENCE_MS, Server, Visit, browser, start_server, stop_server, visit
from web.paper_grid import write_grid
from web.test_web_watches import write_watch

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, StateFile]]:
    folder, state = tmp_path_factory.mktemp("facility"), tmp_path_factory.mktemp("state")
    write_grid(folder / "grid1", n_exposures=12, with_map=False, microscope="Krios G4")
    write_grid(folder / "grid2", n_exposures=18, with_map=False, microscope="Krios G4")
    write_grid(folder / "grid3", n_exposures=6, with_map=False)
    file = write_watch(state, folder / "data", folder)
    server = start_server(folder, state)
    yield server, file
    stop_server(server)


def test_figures_of_each_session_lead_to_trends_of_each_microscope(watched: tuple[Server, StateFile], visit: Visit):
    page = visit.open(watched[0].address)
    row = page.locator("tbody tr").filter(has=page.locator('a[href="/s/grid2"]'))
    expect(row).to_contain_text("Krios G4")
    expect(row.locator('td[data-name="ctf resolution"]')).to_contain_text("Å")
    page.get_by_role("link", name="Trends").click()
    krios = page.locator("section").filter(has_text="Microscope Krios G4")
    expect(krios).to_contain_text("2\N{NO-BREAK SPACE}sessions", timeout=PATIENCE_MS)
    expect(krios.locator("figure").filter(has_text="CTF resolution").locator("canvas")).to_be_visible()
    krios.get_by_text("The same as a table").click()
    expect(krios.locator("tbody tr")).to_have_count(2)
    expect(page.locator("section").filter(has_text="not named").locator("tbody tr")).to_have_count(1)
    krios.get_by_role("link", name="grid").first.click()
    expect(page.locator(".workflow")).to_be_visible(timeout=PATIENCE_MS)


def test_storage_of_all_sessions_is_seen_at_a_glance(watched: tuple[Server, StateFile], visit: Visit):
    page = visit.open(watched[0].address)
    page.get_by_role("link", name="Storage").click()
    expect(page.get_by_role("heading", name="Storage of all sessions")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("main")).to_contain_text("3\N{NO-BREAK SPACE}sessions with")
    expect(page.locator('tbody tr td[data-name="size"]').first).to_contain_text("B")
    page.locator("tbody").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="By kind")).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_role("link", name="Storage of all sessions").click()
    expect(page.get_by_role("heading", name="Storage of all sessions")).to_be_visible(timeout=PATIENCE_MS)


def test_a_watched_folder_is_taken_with_a_template(watched: tuple[Server, StateFile], visit: Visit):
    server, file = watched
    page = visit.open(server.address)
    page.get_by_role("link", name="Watched folders").click()
    expect(page.get_by_text("Nobody is watching it now")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("tr").filter(has_text="grid 4 <b>")).to_contain_text("'voltage' (Voltage) is not given")
    expect(page.get_by_role("button", name="Try again: grid 6")).to_be_visible()
    page.get_by_role("button", name="Take: old").click()
    page.get_by_role("dialog").get_by_label("Template").select_option("movies_to_ctf")
    page.get_by_role("dialog").get_by_role("button", name="Take").click()
    expect(page.locator(".toast")).to_contain_text("when the watch is started", timeout=PATIENCE_MS)
    expect(page.locator("tr").filter(has_text="old")).to_contain_text("asked: take", timeout=PATIENCE_MS)
    ((_, wish),) = file.wishes()
    assert (wish.folder, wish.what, wish.template) == ("old", "take", "movies_to_ctf")
