"""Storage in a real browser: what is held is seen, removed after a dry run, undone; raw data need the name of the session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from icestream.facility.raw_copies import CopyLedger
from icestream.facility.raw_deletion import read_deletions
from icestream.flow.storage.session import Session
from toys.session import make_toy_session, toy_steps
from virtual.machine import VirtualMachine
from web.browsing import PATIENCE_MS, Server, Visit, answer, browser, serious, start_server, stop_server, visit
from web.raw_session import note_raw_file

__all__ = ["browser", "visit"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

SHOTS = os.environ.get("ICESTREAM_SCREENSHOTS")


def serve(folder: Path) -> Iterator[tuple[Server, Session]]:
    """Serve a session that has run to its end, with a raw file of which there is a verified copy."""
    session = make_toy_session(folder, toy_steps(8), numbers=range(8))
    VirtualMachine(session).run_out()
    note_raw_file(session, "3")
    CopyLedger(session).verify("numbers", folder / "archive")
    server = start_server(session.folder, folder / "state")
    yield server, session
    stop_server(server)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Session]]:
    yield from serve(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def served_apart(tmp_path: Path) -> Iterator[tuple[Server, Session]]:
    """A session of its own, for what cannot be taken back."""
    yield from serve(tmp_path)


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_what_is_held_is_seen(browser: Browser, served: tuple[Server, Session], width: int, scheme: str) -> None:
    server, _ = served
    visit = Visit(browser, width=width, scheme=scheme)
    page = visit.open(f"{server.address}/s/session/storage")
    expect(page.get_by_role("img", name="Metadata")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="triple").first
    expect(row).to_contain_text("8")
    expect(row).to_contain_text("yes")
    expect(page.get_by_text("There are no rules: nothing is removed unless somebody asks.")).to_be_visible()
    assert visit.too_wide() <= 0
    assert serious(page) == []
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"storage-{width}.png", full_page=True)
    assert visit.complaints == []
    visit.context.close()


def test_files_are_removed_after_a_dry_run_and_put_back(served: tuple[Server, Session], visit: Visit) -> None:
    server, session = served
    page = visit.open(f"{server.address}/s/session/storage")
    page.get_by_role("button", name="Remove metadata").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("All numbers stay", timeout=PATIENCE_MS)
    expect(dialog).to_contain_text("triple, metadata: 8")
    assert len(list((session.folder / "steps" / "triple").rglob("*.txt"))) == 8
    dialog.get_by_label("Why").fill("the disk is full")
    dialog.get_by_role("button", name="Remove").click()
    line = page.get_by_role("row").filter(has_text="No. 1")
    expect(line).to_contain_text("the disk is full", timeout=PATIENCE_MS)
    expect(line).to_contain_text("trash")
    assert list((session.folder / "steps" / "triple").rglob("*.txt")) == []
    page.get_by_role("button", name="Undo removal 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Undo").click()
    expect(line).to_contain_text("undone", timeout=PATIENCE_MS)
    assert len(list((session.folder / "steps" / "triple").rglob("*.txt"))) == 8


def test_a_removal_is_deleted_for_good_computed_again_and_rules_are_written(
    served_apart: tuple[Server, Session], visit: Visit
) -> None:
    server, session = served_apart
    page = visit.open(f"{server.address}/s/session/storage")
    page.get_by_role("button", name="Remove metadata").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    line = page.get_by_role("row").filter(has=page.get_by_role("button", name="Delete removal"))
    expect(line).to_contain_text("trash", timeout=PATIENCE_MS)
    assert serious(page) == []
    line.get_by_role("button", name="Delete removal").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("row").filter(has_text="gone")).to_have_count(1, timeout=PATIENCE_MS)
    answer(page, "Compute removed files again", "Compute again")
    expect(page.locator(".toast").last).to_contain_text("while the session is running", timeout=PATIENCE_MS)
    page.get_by_text("Rules of this session (storage.yaml)").click()
    page.get_by_label("YAML").fill("rules: [{name: thumbs, kinds: [thumbnails], after_hours: -1}]")
    page.get_by_role("button", name="Check and save").click()
    expect(page.locator(".toast.bad").last).to_contain_text("after_hours", timeout=PATIENCE_MS)
    page.get_by_label("YAML").fill("rules: [{name: thumbs, kinds: [thumbnails], after_hours: 48}]")
    page.get_by_role("button", name="Check and save").click()
    expect(page.get_by_role("row").filter(has_text="thumbs")).to_contain_text("48", timeout=PATIENCE_MS)
    assert "after_hours: 48" in (session.folder / "storage.yaml").read_text(encoding="utf-8")
    visit.complaints[:] = [one for one in visit.complaints if "400" not in one]  # the refusal above


def test_raw_data_go_only_where_the_name_is_typed(served: tuple[Server, Session], visit: Visit) -> None:
    server, session = served
    page = visit.open(f"{server.address}/s/session/storage")
    for typed, told in (("session", "is not the name of this session"), ("toy", "1\N{NO-BREAK SPACE}raw file is deleted after")):
        page.get_by_role("button", name="Delete raw data …").click()
        page.get_by_label("Type the name of the session").fill(typed)
        page.get_by_role("dialog").get_by_role("button", name="Delete raw data").click()
        expect(page.locator("#toasts")).to_contain_text(told, timeout=PATIENCE_MS)
    assert (session.folder.parent / "numbers" / "3").exists()
    page.get_by_role("button", name="Withdraw deletion 1").click()
    expect(page.get_by_role("row").filter(has_text="withdrawn")).to_be_visible(timeout=PATIENCE_MS)
    assert [one.state for one in read_deletions(session, state=session.folder.parent / "state")] == ["withdrawn"]
    visit.complaints[:] = [one for one in visit.complaints if "400" not in one]  # the refusal above
