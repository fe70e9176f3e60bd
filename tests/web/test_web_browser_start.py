"""Starting sessions in a real browser: the form of a template, its errors, and a runner that outlives the server."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from icestream.facility.runners import find_runner
from toys.session import arrive
from web.browsing import PATIENCE_MS, Server, Visit, answer, browser, start_server, stop_server, visit
from web.toy_template import TOY_TEMPLATE, until

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@dataclass
class Facility:
    """A folder of sessions that is served, and raw data."""

    home: Path
    server: Server

    @property
    def sessions(self) -> Path:
        return self.home / "sessions"

    def serve(self) -> None:
        self.server = serve(self.home)


def serve(home: Path) -> Server:
    raw, templates = str(home / "raw"), str(home / "templates")
    return start_server(home / "sessions", home / "state", "--data", raw, ICESTREAM_TEMPLATES=templates)


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    for name in ("sessions", "templates"):
        (tmp_path / name).mkdir()
    (tmp_path / "templates" / "toy.yaml").write_text(TOY_TEMPLATE, encoding="utf-8")
    arrive(tmp_path / "raw" / "grid 3", range(3))
    made = Facility(tmp_path, serve(tmp_path))
    yield made
    stop_server(made.server)
    for document in made.sessions.glob("*/session.yaml"):
        running = find_runner(document.parent)
        if running is not None:
            psutil.Process(running.pid).kill()


@pytest.fixture
def page(facility: Facility, visit: Visit) -> Iterator[Page]:
    """The page of all sessions; the browser tells of forms that are refused, and of a server that is gone."""
    visit.page.goto(facility.server.address)
    yield visit.page
    visit.complaints[:] = [one for one in visit.complaints if "422" not in one and "net::" not in one]


def fill(page: Page) -> None:
    """Fill in the form, with a mistake that is mended."""
    page.get_by_role("link", name="New session").click()
    page.get_by_label("Template").select_option("toy")
    page.get_by_role("button", name="Make the session").click()
    expect(page.locator(".field.wrong")).to_have_count(2, timeout=PATIENCE_MS)
    expect(page.locator(".field.wrong").last).to_contain_text("Folder of numbers")
    page.get_by_role("button", name="Choose Folder of numbers").click()
    for name in ("raw", "grid 3", "numbers"):
        page.get_by_role("dialog").get_by_role("button", name=name).click()
    expect(page.get_by_role("dialog")).to_contain_text("3 files here")
    page.get_by_role("dialog").get_by_role("button", name="Take this folder").click()
    expect(page.get_by_label("Name of the session")).to_have_value("numbers")
    page.get_by_label("How many").fill("4")
    page.get_by_label("Factor").fill("12")
    page.get_by_role("button", name="Make the session").click()
    expect(page.locator(".field.wrong")).to_have_count(1, timeout=PATIENCE_MS)
    expect(page.locator(".field.wrong")).to_contain_text("at most 9")
    expect(page.get_by_label("Factor")).to_be_focused()
    page.get_by_label("Factor").fill("7")
    page.get_by_label("Name of the session").fill("grid3")


def test_a_session_is_made_by_a_form_and_its_runner_outlives_the_server(page, visit, facility):
    fill(page)
    answer(page, "Make the session", "Make and start")
    expect(page.locator(".crumb")).to_have_text("grid3", timeout=PATIENCE_MS)
    expect(page.locator(".state")).to_have_text("running", timeout=PATIENCE_MS)
    expect(page.locator(".figures .card").first.locator("b")).to_have_text("3", timeout=PATIENCE_MS)
    running = find_runner(facility.sessions / "grid3")
    assert running is not None
    stop_server(facility.server)
    arrive(facility.home / "raw" / "grid 3", range(3, 4))  # while no server is there
    until(lambda: find_runner(facility.sessions / "grid3") is None)  # it ended by itself: the stream closed after four
    facility.serve()
    page.goto(f"{facility.server.address}/s/grid3")
    expect(page.locator(".state")).to_have_text("finished", timeout=PATIENCE_MS)
    expect(page.locator(".figures .card").first.locator("b")).to_have_text("4")


def test_a_stopped_session_is_started_again(page):
    fill(page)
    page.get_by_label("Start processing at once").uncheck()
    answer(page, "Make the session", "Make")
    expect(page.locator(".state")).to_have_text("not started", timeout=PATIENCE_MS)
    answer(page, "Start", "Start")
    expect(page.locator(".state")).to_have_text("running", timeout=PATIENCE_MS)
    answer(page, "Stop", "Stop")
    expect(page.locator(".state")).to_have_text("stopped", timeout=PATIENCE_MS)


def test_somebody_without_data_gets_from_the_first_page_to_a_running_session(page, facility):
    """As a new user would, with nothing but what the pages show."""
    expect(page.locator("main")).to_contain_text("Without data of your own", timeout=PATIENCE_MS)
    page.get_by_role("link", name="New session").click()
    page.get_by_role("button", name="Simulate a microscope").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Movies").fill("2")
    dialog.get_by_label("Time from one movie to the next").fill("1")
    dialog.get_by_role("button", name="Simulate", exact=True).click()
    folder = page.get_by_role("textbox", name="Folder where movies appear")
    expect(folder).to_have_value(re.compile("simulated_microscope/movies$"), timeout=PATIENCE_MS)
    expect(page.get_by_label("Acceleration voltage")).to_have_value("300")
    answer(page, "Make the session", "Make and start")
    expect(page.locator(".state")).to_have_text("running", timeout=PATIENCE_MS)
    expect(page.locator(".figures .card").first.locator("b")).to_have_text("1", timeout=4 * PATIENCE_MS)
    answer(page, "Stop", "Stop")
    expect(page.locator(".state")).to_have_text("stopped", timeout=4 * PATIENCE_MS)
