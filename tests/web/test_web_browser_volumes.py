"""Maps in a real browser: turned with mouse, fingers and keys, wide and narrow, and where WebGL is missing."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect, sync_playwright

from icestream.flow.storage.session import open_session
from icestream.observe.report import write_report
from web.browsing import PATIENCE_MS, Server, Visit, serious, start_server, stop_server
from web.mapped_session import write_mapped

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

LONG_MS = 4 * PATIENCE_MS
"""A process that draws has to start first."""
ON_THE_CPU = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
WITHOUT = ("--no-sandbox", "--disable-gpu", "--disable-3d-apis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("mapped")
    write_mapped(home / "mapped")
    started = start_server(home / "mapped", home / "state")
    yield started
    stop_server(started)


@pytest.fixture(scope="module")
def browsers() -> Iterator[dict[bool, Browser]]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is missing (Debian: chromium)")
    with sync_playwright() as playwright:
        launch = playwright.chromium.launch
        both = {able: launch(executable_path=chromium, args=[*args]) for able, args in ((True, ON_THE_CPU), (False, WITHOUT))}
        yield both
        for one in both.values():
            one.close()


def changes(canvas: Locator, before: bytes) -> bytes:
    """Return the picture of the map, which must have become another one."""
    canvas.page.wait_for_timeout(500)
    after = canvas.screenshot()
    assert after != before
    return after


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (390, "dark")])
def test_maps_are_turned(browsers: dict[bool, Browser], server: Server, width: int, scheme: str):
    visit = Visit(browsers[True], width=width, scheme=scheme)
    page = visit.open(f"{server.address}/s/mapped/volumes")
    expect(page.locator("section.volume")).to_have_count(3)
    canvas = page.locator(".density canvas").first
    expect(canvas).to_have_attribute("data-drawn", re.compile(r"\d+"), timeout=LONG_MS)
    expect(page.locator(".density canvas")).to_have_count(3, timeout=LONG_MS)
    seen = changes(canvas, b"")
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    seen = changes(canvas, seen)
    page.keyboard.press("+")
    seen = changes(canvas, seen)
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 120)
    page.mouse.up()
    seen = changes(canvas, seen)
    page.get_by_label("Threshold").first.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    seen = changes(canvas, seen)
    page.get_by_label("Shown as").first.select_option("projection")
    seen = changes(canvas, seen)
    expect(page.locator("section.volume").nth(1)).to_contain_text("−80")
    expect(page.locator("section.volume").nth(2).get_by_label("Map of")).to_be_visible()
    page.get_by_label("Map of").select_option(label="Class 1")
    expect(page.locator(".density[data-key$='part=1'] canvas")).to_be_attached(timeout=LONG_MS)
    page.get_by_role("slider", name="Version").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("section.volume").first).to_contain_text("version 1 of 2")
    assert visit.too_wide() <= 0
    assert serious(page) == []
    visit.context.close()
    assert [one for one in visit.complaints if "status of 503" not in one and "GPU stall" not in one] == []
    assert all(one.startswith(server.address) for one in visit.elsewhere)


def test_without_webgl_the_pictures_stay(browsers: dict[bool, Browser], server: Server):
    visit = Visit(browsers[False])
    page = visit.open(f"{server.address}/s/mapped/volumes")
    expect(page.get_by_text("This browser does not turn maps").first).to_be_visible(timeout=LONG_MS)
    expect(page.get_by_role("img", name="Sections and projections").first).to_be_visible()
    expect(page.locator(".density canvas")).to_have_count(0)
    visit.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (390, "dark")])
def test_the_report_turns_maps_without_a_network(
    browsers: dict[bool, Browser], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, scheme: str
):
    monkeypatch.setenv("ICESTREAM_STATE", str(tmp_path / "state"))
    write_mapped(tmp_path / "mapped")
    report = write_report(open_session(tmp_path / "mapped"))
    visit = Visit(browsers[True], width=width, scheme=scheme)
    page = visit.page
    page.goto(report.as_uri())
    expect(page.locator(".density canvas")).to_have_count(2)
    canvas = page.locator(".density canvas").first
    expect(canvas).to_have_attribute("data-drawn", re.compile(r"\d+"))
    seen = changes(canvas, b"")
    canvas.focus()
    page.keyboard.press("ArrowUp")
    changes(canvas, seen)
    expect(page.locator("path.errors")).to_have_count(1)
    assert visit.too_wide() <= 0
    assert serious(page) == []
    visit.context.close()
    assert [one for one in visit.complaints if "GPU stall" not in one] == []
    assert all(one.startswith(("file:", "data:")) for one in visit.elsewhere)
