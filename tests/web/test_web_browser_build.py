"""Building a workflow in a real browser: drafts with undo, templates and sessions of them, imports, and changes of a session."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import open_session
from icestream.settings import Settings
from icestream.workflows import load_template
from toys.scipion_exports import protocol
from toys.session import make_toy_session, toy_steps
from web.browsing import PATIENCE_MS, Server, Visit, browser, serious, start_server, stop_server, visit

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


@dataclass
class Facility:
    """A folder of sessions that is served, one of which has run."""

    home: Path
    server: Server

    @property
    def address(self) -> str:
        return self.server.address


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    home = tmp_path_factory.mktemp("facility")
    (home / "movies").mkdir()
    session = make_toy_session(home / "sessions", toy_steps(4), numbers=range(4))
    report = run_session(session, Settings(cores=2, min_free_gb=0))
    assert report.finished, report.reason
    templates = str(home / "templates")
    server = start_server(home / "sessions", home / "state", "--data", str(home), ICESTREAM_TEMPLATES=templates)
    yield Facility(home, server)
    stop_server(server)


@pytest.fixture
def page(facility: Facility, visit: Visit) -> Iterator[Page]:
    """The page of drafts; the browser tells of what is refused."""
    visit.context.request.get(f"{facility.address}/api/v1/steps", timeout=10 * PATIENCE_MS)  # the first look imports all steps
    visit.open(f"{facility.address}/build")
    yield visit.page
    visit.complaints[:] = [one for one in visit.complaints if "422" not in one and "409" not in one and "net::" not in one]


def add(page: Page, words: str, title: str) -> None:
    """Add a step that is found by words, by keyboard alone."""
    page.get_by_role("button", name="Add a step").click()
    page.get_by_label("Search by words").fill(words)
    expect(page.get_by_role("dialog").get_by_role("button", name=title).first).to_be_visible(timeout=PATIENCE_MS)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)


def saved(page: Page) -> None:
    expect(page.locator(".tools [role=status]")).to_have_text("saved", timeout=PATIENCE_MS)


def test_a_workflow_is_built_saved_and_becomes_a_session(page: Page, facility: Facility):
    page.get_by_role("button", name="Empty workflow").click()
    add(page, "import movies", "Import movies")
    add(page, "motion", "Motion")
    expect(page.get_by_label("movie (Movie)")).to_have_value("movies", timeout=PATIENCE_MS)
    add(page, "ctf", "Ctf")
    expect(page.get_by_label("micrograph (Micrograph)")).to_have_value("motion", timeout=PATIENCE_MS)
    expect(page.get_by_role("region", name="Problems")).to_contain_text("It can run", timeout=PATIENCE_MS)
    page.get_by_label("Label: what people call it").fill("First look")
    page.get_by_label("Note: what people").fill("<script>alert(1)</script>")
    page.get_by_label("How tile_ang is given").select_option("asked for at the start")
    expect(page.get_by_label("tile_ang (Å)")).to_be_disabled(timeout=PATIENCE_MS)
    saved(page)
    page.reload()
    expect(page.get_by_role("region", name="Graph of the draft")).to_contain_text("First look", timeout=PATIENCE_MS)
    page.locator('.node[data-key="ctf"] button').click()
    page.get_by_role("button", name="Duplicate").click()
    expect(page.locator(".node")).to_have_count(4, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(".node")).to_have_count(3, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".node")).to_have_count(4, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".node")).to_have_count(3, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Redo").click()
    page.keyboard.press("Control+z")
    expect(page.locator(".node")).to_have_count(3, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Save as a template").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name: a-z").fill("movies_to_ctf")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("never replaced", timeout=PATIENCE_MS)
    dialog.get_by_label("Name: a-z").fill("our_look")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("#template")).to_have_value("our_look", timeout=PATIENCE_MS)
    template = load_template(str(facility.home / "templates" / "our_look.yaml"))
    assert list(template.steps) == ["movies", "motion", "ctf"]
    assert template.steps["ctf"].note == "<script>alert(1)</script>"
    assert template.steps["ctf"].params == {"tile_ang": {"ask": "tile_ang"}}
    assert {"movies", "voltage", "tile_ang"} <= set(template.placeholders)
    page.get_by_label("Folder where movies appear", exact=True).fill(str(facility.home / "movies"))
    page.get_by_label("Name of the session").fill("looked")
    page.get_by_label("Start processing at once").uncheck()
    page.get_by_role("button", name="Make the session").click()
    page.get_by_role("dialog").get_by_role("button", name="Make").click()
    expect(page.get_by_role("region", name="Graph of the workflow")).to_contain_text("First look", timeout=PATIENCE_MS)
    expect(page.locator(".workflow")).to_contain_text("<script>alert(1)</script>")
    assert open_session(facility.home / "sessions" / "looked").document.steps["ctf"].label == "First look"


def test_a_mistake_is_shown_at_its_step_and_field(page: Page):
    page.get_by_role("button", name="Empty workflow").click()
    add(page, "motion", "Motion")
    expect(page.get_by_role("region", name="Problems")).to_contain_text("input 'movie' (Movie) is missing", timeout=PATIENCE_MS)
    expect(page.locator(".field.wrong")).to_contain_text("no step of this workflow gives Movie yet")
    page.get_by_label("bin", exact=True).fill("-3")
    expect(page.locator('.field.wrong[data-key="bin"]')).to_contain_text("-3", timeout=PATIENCE_MS)
    expect(page.locator(".node.wrong")).to_have_count(1)


def test_a_workflow_of_scipion_is_brought_and_exported(page: Page):
    steps = [
        protocol("ProtImportMovies", 10, filesPath="/data", filesPattern="*.tiff", voltage=300, samplingRate=1.1),
        protocol("ProtMotionCorr", 20, "aligned", binFactor=2.0, inputMovies="10.outputMovies", odd=7),
        protocol("SomethingUnknown", 30, inputMovies="20.outputMovies"),
    ]
    text = json.dumps(steps).encode()
    page.get_by_label("File").set_input_files({"name": "w.json", "mimeType": "application/json", "buffer": text})
    expect(page.locator(".node")).to_have_count(2, timeout=PATIENCE_MS)
    page.get_by_text("What became of the import").click()
    expect(page.locator("details", has_text="What became of the import")).to_contain_text("SomethingUnknown")
    page.get_by_role("button", name="Export for Scipion").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Scipion cannot say everything", timeout=PATIENCE_MS)
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Download").click()
    classes = [one["object.className"] for one in json.loads(download.value.path().read_text(encoding="utf-8"))]
    assert classes == ["ProtImportMovies", "ProtMotionCorr"]


def test_a_file_that_is_none_is_told_with_its_line(page: Page):
    text = "steps:\n  a:\n    use: ctf\n    colour: red\n"
    page.get_by_label("File").set_input_files({"name": "w.yaml", "mimeType": "text/yaml", "buffer": text.encode()})
    expect(page.get_by_role("alert")).to_contain_text(
        "steps.a.colour: Extra inputs are not permitted (line 4)", timeout=PATIENCE_MS
    )


def test_two_people_do_not_overwrite_each_other(page: Page, visit: Visit):
    page.get_by_role("button", name="Empty workflow").click()
    add(page, "import movies", "Import movies")
    saved(page)
    other = visit.context.new_page()
    other.goto(page.url)
    other.locator('.node[data-key="movies"] button').click()
    other.get_by_label("Label: what people call it").fill("theirs")
    saved(other)
    page.get_by_label("Label: what people call it").fill("mine")
    expect(page.get_by_role("alert")).to_contain_text("was changed by", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Keep mine as another draft").click()
    expect(page.get_by_role("region", name="Graph of the draft")).to_contain_text("mine", timeout=PATIENCE_MS)
    other.reload()
    expect(other.get_by_role("region", name="Graph of the draft")).to_contain_text("theirs", timeout=PATIENCE_MS)


def test_a_session_is_changed_with_what_it_costs(page: Page, facility: Facility):
    page.goto(f"{facility.address}/s/session")
    expect(page.get_by_role("region", name="Graph of the workflow").locator(".node")).to_have_count(12, timeout=PATIENCE_MS)
    page.get_by_role("button", name="Change the workflow").click()
    page.locator('.node[data-key="triple"] button').click()
    page.get_by_role("button", name="Duplicate").click()
    expect(page.locator("#chosen-step")).to_contain_text("triple_2", timeout=PATIENCE_MS)
    page.get_by_label("factor", exact=True).fill("4")
    page.get_by_label("Note: what people").fill("four times")
    page.locator('.node[data-key="newest"] button').click()
    expect(page.locator("#chosen-step")).to_contain_text("newest", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Apply to the session").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("2 steps are added, changed or removed", timeout=PATIENCE_MS)
    expect(dialog.locator("tbody tr", has_text="triple_2").locator("td").nth(2)).to_have_text("4")
    dialog.get_by_label("Why").fill("to compare")
    dialog.get_by_role("button", name="Apply").click()
    expect(page.locator(".toast")).to_contain_text("newest was removed; triple_2 is new", timeout=PATIENCE_MS)
    expect(page.locator(".workflow")).to_contain_text("four times", timeout=PATIENCE_MS)
    steps = open_session(facility.home / "sessions" / "session").document.steps
    assert (steps["triple_2"].params["factor"], "newest" in steps) == (4, False)


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_nothing_serious_is_found_and_nothing_is_too_wide(browser: Browser, facility: Facility, width: int, scheme: str):
    visit, found = Visit(browser, width=width, scheme=scheme), []
    visit.context.request.get(f"{facility.address}/api/v1/steps", timeout=10 * PATIENCE_MS)
    page = visit.open(f"{facility.address}/build")
    found += [("drafts", *one) for one in serious(page)]
    page.locator("#from-template").select_option("movies_to_classes")
    page.get_by_role("button", name="Begin with it").click()
    page.locator(".node").get_by_role("button").first.click()
    expect(page.locator(".given").first).to_be_visible(timeout=PATIENCE_MS)
    found += [("a draft", *one) for one in serious(page)]
    assert visit.too_wide() <= 0
    page.get_by_role("button", name="Add a step").click()
    expect(page.locator(".palette button").first).to_be_visible(timeout=PATIENCE_MS)
    found += [("the palette", *one) for one in serious(page)]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto(f"{facility.address}/s/session")
    expect(page.get_by_role("region", name="Graph of the workflow")).to_be_visible(timeout=PATIENCE_MS)
    found += [("the graph of a session", *one) for one in serious(page)]
    assert visit.too_wide() <= 0
    visit.context.close()
    assert found == []
