"""A real browser and a real `icestream serve`, for the tests of pages."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from web.parts import PASSWORD

PATIENCE_MS = 30_000


@dataclass
class Server:
    """A real `icestream serve` and its address."""

    address: str
    process: "subprocess.Popen[str]"


def start_server(folder: Path, state: Path, *options: str, **more: str) -> Server:
    """Start `icestream serve` on a free port, and wait until it says where; ``more`` is added to its environment."""
    environment = os.environ | {"ICESTREAM_STATE": str(state), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"} | more
    command = [sys.executable, "-m", "icestream", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"open (http://\S+)/ in a browser", line)
        if found:
            return Server(found.group(1), process)
    raise AssertionError(f"icestream serve ended with {process.wait()}")


def stop_server(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(timeout=30) in (0, -15)
    assert server.process.stdout is not None
    server.process.stdout.close()


class Visit:
    """A page in which every complaint of the browser is kept."""

    def __init__(self, browser: Browser, *, width: int = 1360, scheme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda asked: self.elsewhere.append(asked.url))

    def open(self, address: str) -> Page:
        self.page.goto(address)
        expect(self.page.locator("#content h1").first).to_be_attached(timeout=PATIENCE_MS)
        return self.page

    def too_wide(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def serious(page: Page) -> list[tuple[str, str, str]]:
    """Return what axe-core finds serious on the page as it is: the rule, the first element, and what is to be done."""
    found = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    return [(one["id"], one["nodes"][0]["html"][:150], one["nodes"][0]["failureSummary"][:200]) for one in found]


def sign_in(page: Page, address: str) -> None:
    page.goto(address)
    page.get_by_label("Name").fill("anna")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("the name or the password is wrong", timeout=PATIENCE_MS)
    assert serious(page) == []
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def answer(page: Page, button: str, choice: str) -> None:
    """Press a button, and answer the question that it asks."""
    page.get_by_role("button", name=button).click()
    page.get_by_role("dialog").get_by_role("button", name=choice).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is missing (Debian: chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    made = Visit(browser)
    yield made
    made.context.close()
    assert made.complaints == []
