"""Make the pictures of the pages anew: ``python scripts/screenshots.py [FOLDER]``, from a simulated session, with Chromium.

FOLDER is where the session is made, or was made before; by default ``build/screenshots``. The first time takes some minutes.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from icestream.facility.runners import find_runner, start_runner
from icestream.facility.simulating import TEMPLATE, acquisition_values, lifelike_settings, simulating_arguments
from icestream.facility.watch_decisions import Folder, Phase, WatchState
from icestream.facility.watch_state import StateFile
from icestream.flow.storage import create_session, open_session
from icestream.microscope.settings import Fault
from icestream.observe.queries import open_view
from icestream.observe.session_alarms import read_alarms
from icestream.workflows import fill_template, load_template

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "how-to"
LARGEST_BYTES = 120_000
MOVIES, BROKEN = 24, 4
NAME, OTHER = "apoferritin_grid3", "apoferritin_grid2"
PASSWORD = "only for the pictures"  # noqa: S105 - of a server that lasts a minute
PATIENCE_MS, PATIENCE_S = 180_000, 3600.0

RULES = """rules:
  - {name: resolution, kind: measure, measure: ctf_resolution_angstroms, high: 3.6, window: 10, count: 3}
  - {name: stalled, kind: stalled, minutes: 1, times: 1, severity: critical}
"""


@dataclass(frozen=True)
class Shot:
    """One picture: its name, the page below that of the session (or an address from the root), and what is done before."""

    name: str
    page: str
    before: Callable[[Page], None] = lambda _: None
    width: int = 1280
    height: int = 860
    scheme: str = "light"


def _first_exposure(page: Page) -> None:
    page.locator(".exposures tbody tr", has=page.locator(".tag.done")).first.get_by_role("link").first.click()
    expect(page.locator(".frame img").first).to_be_visible(timeout=PATIENCE_MS)


def _edit_picks(page: Page) -> None:
    _first_exposure(page)
    page.get_by_role("button", name="Edit picks").click()
    surface = page.locator("svg.editing")
    surface.wait_for()
    for x, y in ((0.35, 0.55), (0.6, 0.5), (0.8, 0.93)):
        box = surface.bounding_box() or {"width": 0, "height": 0}
        surface.click(position={"x": x * box["width"], "y": y * box["height"]})
        page.wait_for_timeout(1000)
    page.evaluate("window.scrollTo(0, 0)")


def _move_limit(page: Page) -> None:
    limit = page.locator("input.limit").first
    limit.scroll_into_view_if_needed()
    limit.focus()
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".filter-bar.changed").first).to_be_visible(timeout=PATIENCE_MS)
    page.wait_for_timeout(1000)


def _a_class(page: Page) -> None:
    page.locator(".tiles button.tile").first.click()


def _filled_form(page: Page) -> None:
    page.get_by_role("button", name="Simulate a microscope").click()
    page.get_by_role("dialog").wait_for()


def _share(page: Page) -> None:
    page.get_by_role("button", name="Share").click()
    page.get_by_role("dialog").wait_for()


def _restart(page: Page) -> None:
    page.get_by_role("button", name="Restart from here").click()
    page.get_by_role("dialog").wait_for()


def _with_atlas(page: Page) -> None:
    expect(page.locator("svg.grid-map")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("svg.grid-map image.atlas")).to_have_count(1)


def _a_draft(page: Page) -> None:
    page.locator("#from-template").select_option("movies_to_ctf")
    page.get_by_role("button", name="Begin with it").click()
    page.locator('.node[data-key="aligned"]').get_by_role("button").click()
    expect(page.locator(".given").first).to_be_visible(timeout=PATIENCE_MS)


SHOTS = (
    Shot("page-sessions", "/", height=520),
    Shot("page-start", "/new", _filled_form),
    Shot("page-workflow", ""),
    Shot("page-exposures", "exposures"),
    Shot("page-exposure", "exposures", _first_exposure, height=1100),
    Shot("page-series", "series", _move_limit),
    Shot("page-classes", "classes", _a_class),
    Shot("page-step", "steps/good", _restart),
    Shot("page-failures", "failures", height=620),
    Shot("page-monitors", "monitors"),
    Shot("page-alarms", "alarms"),
    Shot("page-log", "log"),
    Shot("page-share", "", _share),
    Shot("page-audit", "/audit", height=620),
    Shot("page-phone", "", width=390, height=844),
    Shot("page-phone-exposure", "exposures", _first_exposure, width=390, height=844),
    Shot("page-dark", "series", scheme="dark"),
    Shot("page-picks", "exposures", _edit_picks, height=900),
    Shot("page-map", "map", _with_atlas, height=900),
    Shot("page-storage", "storage"),
    Shot("page-transfer", "transfer", height=700),
    Shot("page-build", "/build", _a_draft, height=900),
    Shot("page-facility-storage", "/storage", height=420),
    Shot("page-watch", "/watch", height=520),
    Shot("page-trends", "/trends", height=760),
)


def make_session(home: Path, *, cores: int | None) -> Path:
    """Let a simulated microscope write movies, and process them in a session that goes on waiting for more."""
    microscope, sessions = home / "microscope", home / "sessions"
    simulated = lifelike_settings(MOVIES, seed=5, faults={BROKEN: Fault.TRUNCATED})
    if not (sessions / NAME).exists():
        values = acquisition_values(simulated, microscope)
        settings = {"movies": {"give_up_s": 15}, "classes": {"n_classes": 24}, "vacuum": {"n_samples": 8}}
        create_session(sessions / NAME, fill_template(load_template(TEMPLATE), values, name=NAME, settings=settings))
        del values["diameter"]
        create_session(sessions / OTHER, fill_template(load_template("movies_to_ctf"), values, name=OTHER))
        (sessions / NAME / "alarms.yaml").write_text(RULES, encoding="utf-8")
    if not (microscope / "truth").exists():
        arguments = simulating_arguments(microscope, simulated, seconds_per_movie=4.0, write_s=1.0)
        (microscope / "movies").mkdir(parents=True)
        subprocess.Popen([sys.executable, "-m", "icestream", *arguments])
    for name in (NAME, OTHER):
        if find_runner(sessions / name) is None:
            start_runner(sessions / name, [] if cores is None else ["--cores", str(cores)])
    _wait("the classes", lambda: _decided(sessions / NAME, "good_particles") >= MOVIES - 3)
    return sessions


def _decided(session: Path, step: str) -> int:
    with open_view(open_session(session)) as view:
        return next(one.counts.decided for one in view.steps() if one.name == step)


def _wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not appear")
        time.sleep(1)


def _remember_a_watch(home: Path, sessions: Path) -> None:
    """Write what a watch of the microscope's disk would remember."""
    now, root = time.time(), home / "krios"
    folders = {
        "20261128_test": Folder(phase=Phase.IGNORED, since=now - 2 * 86_400),
        OTHER: Folder(phase=Phase.ENDED, since=now - 6 * 3600, session=str(sessions / OTHER)),
        NAME: Folder(phase=Phase.RUNNING, since=now - 3600, session=str(sessions / NAME)),
        "apoferritin_grid4": Folder(
            phase=Phase.INCOMPLETE, since=now - 300, problems=["'voltage' (Acceleration voltage) is not given"]
        ),
    }
    file = StateFile(home / "state", root)
    file.write(WatchState(root=str(root), pattern="*/", looked=True, folders=folders))


@contextmanager
def serving(home: Path, sessions: Path) -> Iterator[str]:
    """Serve the sessions to somebody who may do everything; give the address."""
    environment = os.environ | {"ICESTREAM_STATE": str(home / "state"), "PYTHONUNBUFFERED": "1"}
    icestream = [sys.executable, "-m", "icestream"]
    access = [*icestream, "access", "anna", "--role", "administrate"]
    subprocess.run(access, input=f"{PASSWORD}\n{PASSWORD}\n", text=True, env=environment, check=True)
    for words in (["pause", "--reason", "nitrogen is being refilled"], ["resume"]):
        subprocess.run([*icestream, words[0], str(sessions / NAME), *words[1:]], env=environment, check=True)
    subprocess.run([*icestream, "transfer", str(sessions / NAME), str(home / "archive"), "--once"], env=environment, check=True)
    _remember_a_watch(home, sessions)
    command = [*icestream, "serve", str(sessions), "--port", "0", "--data", str(home)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None  # noqa: S101 - it is a pipe
        yield next(found[1] for line in server.stdout if (found := re.search(r"open (http://\S+)/ in", line)))
    finally:
        server.terminate()
        server.wait()


def take(browser: Browser, address: str, shot: Shot) -> bytes:
    """Return one picture as JPEG, as good as fits."""
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme="dark" if shot.scheme == "dark" else "light",
        storage_state=str(_signed_in(browser, address)),
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address + (shot.page if shot.page.startswith("/") else f"/s/{NAME}/{shot.page}"))
    expect(page.locator("#content h1").first).to_be_attached(timeout=PATIENCE_MS)
    expect(page.locator("main")).not_to_contain_text("Loading", timeout=PATIENCE_MS)
    page.wait_for_timeout(1500)
    shot.before(page)
    page.wait_for_timeout(1500)
    qualities = (page.screenshot(type="jpeg", quality=quality) for quality in range(88, 30, -6))
    picture = next(one for one in qualities if len(one) <= LARGEST_BYTES)
    context.close()
    return picture


_STATES: dict[str, Path] = {}


def _signed_in(browser: Browser, address: str) -> Path:
    """Sign in once, and return the file with what the browser then knows."""
    if address not in _STATES:
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"screenshots-{os.getpid()}.json"  # noqa: S108 - of this process
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.get_by_label("Name").fill("anna")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("main table")).to_be_visible(timeout=PATIENCE_MS)
        context.storage_state(path=str(path))
        context.close()
        _STATES[address] = path
    return _STATES[address]


def main() -> None:
    """Make the session if it is not there, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "screenshots")
    parser.add_argument("--only", default="", help="Only pictures whose names match this regular expression")
    parser.add_argument("--cores", type=int, help="Cores of each runner")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("chromium is missing (Debian: chromium)")
    home = given.folder.absolute()
    sessions = make_session(home, cores=given.cores)
    with serving(home, sessions) as address, sync_playwright() as playwright:
        _wait("an alarm", lambda: len(read_alarms(open_session(sessions / NAME), now=time.time()).open) >= 2)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for shot in SHOTS:
            if re.search(given.only, shot.name):
                (TARGET / f"{shot.name}.jpg").write_bytes(take(browser, address, shot))
                sys.stdout.write(f"{shot.name}\n")
        browser.close()


if __name__ == "__main__":
    main()
