"""Full resolution and pictures of particles in a real browser: with mouse, fingers and keys, wide and narrow."""

from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from web.browsing import PATIENCE_MS, Server, Visit, browser, serious, start_server, stop_server
from web.drawn_session import HEIGHT, WIDTH, write_drawn

__all__ = ["browser"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

LONG_MS = 4 * PATIENCE_MS
"""A process that draws has to start first."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("drawn")
    write_drawn(home / "drawn")
    started = start_server(home / "drawn", home / "state")
    yield started
    stop_server(started)


def zoom_of(page: Page) -> int:
    return int((page.locator(".viewer-zoom").text_content() or "").removesuffix(" %"))


def circle_on_sheet(page: Page) -> tuple[float, float]:
    """Return where the first pick is, as shares of the width and the height of the image."""
    circle, sheet = page.locator(".sheet circle").first.bounding_box(), page.locator(".sheet").bounding_box()
    assert circle is not None
    assert sheet is not None
    x, y = circle["x"] + circle["width"] / 2, circle["y"] + circle["height"] / 2
    return (x - sheet["x"]) / sheet["width"], (y - sheet["y"]) / sheet["height"]


def complaints(visit: Visit) -> list[str]:
    """Return what the browser complained of, but for being told to ask again: on a slow machine drawing takes a while."""
    return [one for one in visit.complaints if "status of 503" not in one]


def look_around(visit: Visit) -> None:
    page = visit.page
    page.get_by_role("button", name="Full resolution").click()
    expect(page.locator("dialog.viewer")).to_be_visible()
    expect(page.locator("img.tile-of-image").first).to_be_attached(timeout=LONG_MS)
    expect(page.locator(".viewer-status")).to_have_text("")
    fitted, place = zoom_of(page), circle_on_sheet(page)
    assert place == pytest.approx((80 / WIDTH, 1 - 60 / HEIGHT), abs=0.005)
    page.keyboard.press("+")
    assert zoom_of(page) > fitted
    page.keyboard.press("1")
    assert zoom_of(page) == 100
    expect(page.locator("img.tile-of-image[src*='/tiles/0/']").first).to_be_attached()
    expect(page.locator("img.tile-of-image[src*='/tiles/0/']").first).to_have_js_property("complete", True)
    before = page.locator(".sheet").bounding_box()
    page.keyboard.press("ArrowLeft")
    box = page.locator(".stage").bounding_box()
    assert before is not None
    assert box is not None
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 150)
    page.mouse.up()
    after = page.locator(".sheet").bounding_box()
    assert after is not None
    assert (after["x"], after["y"]) != (before["x"], before["y"])
    page.mouse.wheel(0, -400)
    expect(page.locator(".viewer-zoom")).not_to_have_text("100 %")
    assert zoom_of(page) > 100
    assert circle_on_sheet(page) == pytest.approx(place, abs=0.002)  # what lies on it stays in place
    assert serious(page) == []
    page.get_by_role("button", name="Fit into the window").click()
    assert zoom_of(page) == fitted
    page.get_by_label("Overlays").uncheck()
    expect(page.locator(".sheet svg")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("dialog.viewer")).to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (390, "dark")])
def test_full_resolution_and_particles_are_seen(browser: Browser, server: Server, width: int, scheme: str):
    visit = Visit(browser, width=width, scheme=scheme)
    page = visit.open(f"{server.address}/s/drawn/exposures/mic_1")
    look_around(visit)
    page.get_by_role("button", name="Show 12 particles").click()
    picture = page.get_by_role("img", name="Particles 1 to 12 of 12")
    expect(picture).to_be_visible(timeout=LONG_MS)
    expect(picture).to_have_js_property("naturalWidth", 258)
    expect(picture).to_have_js_property("naturalHeight", 50)
    assert visit.too_wide() <= 0
    assert serious(page) == []
    visit.open(f"{server.address}/s/drawn/classes")
    page.get_by_role("button", name="members of class 2").click()
    members = page.get_by_role("img", name="The newest particles of class 2")
    expect(members).to_be_visible(timeout=LONG_MS)
    expect(members).to_have_js_property("naturalWidth", 154)
    assert visit.too_wide() <= 0
    assert serious(page) == []
    visit.context.close()
    assert complaints(visit) == []
    assert all(one.startswith(server.address) for one in visit.elsewhere)


def test_a_tile_that_is_not_there_is_not_asked_for_again_and_one_that_comes_later_is(browser: Browser, server: Server):
    visit = Visit(browser)
    asked: Counter[str] = Counter()

    def answer(route: Route) -> None:
        url = route.request.url
        asked[url] += 1
        missing, later = [*asked, "", ""][:2]
        if url == missing:
            route.fulfill(status=404, json={"detail": "there is no such tile"})
        elif url == later and asked[url] <= 2:
            route.fulfill(status=503, headers={"retry-after": "2"}, json={"detail": "it is being drawn; ask again"})
        else:
            route.continue_()

    visit.context.route("**/tiles/0/**", answer)
    page = visit.open(f"{server.address}/s/drawn/exposures/mic_2")
    page.get_by_role("button", name="Full resolution").click()
    expect(page.locator("dialog.viewer")).to_be_visible()
    expect(page.locator(".viewer-status")).to_have_text("", timeout=LONG_MS)
    page.keyboard.press("1")
    expect(page.locator("img.tile-of-image[src*='/tiles/0/']").first).to_be_attached()
    page.wait_for_function("performance.getEntriesByType('resource').filter((one) => one.name.includes('/tiles/0/')).length > 1")
    missing, later = list(asked)[:2]
    tile = page.locator(f"img.tile-of-image[src='{urlsplit(later).path}']")
    expect(tile).to_have_js_property("naturalWidth", 512, timeout=LONG_MS)  # longer after than what is asked for again takes
    assert (asked[missing], asked[later]) == (2, 3)  # the picture, and why it has not come; the third is the picture
    visit.context.close()


def test_two_fingers_zoom(browser: Browser, server: Server):
    visit = Visit(browser, width=390)
    page = visit.open(f"{server.address}/s/drawn/exposures/mic_2")
    page.get_by_role("button", name="Full resolution").click()
    expect(page.locator("dialog.viewer")).to_be_visible()
    before = zoom_of(page)
    page.evaluate("""() => {
        const stage = document.querySelector(".stage");
        stage.setPointerCapture = () => {};
        const touch = (kind, pointerId, clientX, clientY) =>
            stage.dispatchEvent(new PointerEvent(kind, { pointerId, clientX, clientY, pointerType: "touch" }));
        touch("pointerdown", 1, 150, 400); touch("pointerdown", 2, 250, 400);
        touch("pointermove", 1, 100, 400); touch("pointermove", 2, 300, 400);
        touch("pointerup", 1, 100, 400); touch("pointerup", 2, 300, 400);
    }""")
    assert zoom_of(page) == pytest.approx(2 * before, abs=2)
    page.get_by_role("button", name="Close").click()
    expect(page.locator("dialog.viewer")).to_have_count(0)
    visit.context.close()
    assert complaints(visit) == []
