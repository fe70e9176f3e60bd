"""Transfers in a real browser: what is copied is seen while it is copied, and what failed is found."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from playwright.sync_api import Browser, expect

from icestream.flow.runner.stopping import StopRequests
from icestream.flow.storage.session import DOCUMENT, Session, dump_document
from icestream.transfer.anchored import FileStamp
from icestream.transfer.ledger import account_ledger, session_ledger
from icestream.transfer.plan import TransferPlan
from icestream.transfer.running import Transfer
from web.browsing import PATIENCE_MS, Server, Visit, browser, serious, start_server, stop_server

__all__ = ["browser"]

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

HOSTILE = "<img src=x onerror=alert(1)>.dm4"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, Session]]:
    paper = write_acquisition(tmp_path / "sessions" / "paper", 6)
    (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
    server = start_server(tmp_path / "sessions", tmp_path / "state")
    yield server, paper.session
    stop_server(server)
    shutil.rmtree(tmp_path / "sessions")


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_a_transfer_is_seen_as_it_goes_on(browser: Browser, served, tmp_path, width, scheme):
    server, session = served
    source, target = tmp_path / "microscope", tmp_path / "raw data"
    (source / "grid").mkdir(parents=True)
    visit = Visit(browser, width=width, scheme=scheme)
    page = visit.open(f"{server.address}/s/paper/transfer")
    expect(page.get_by_text("Nothing was transferred")).to_be_visible()
    plan = TransferPlan(source, target, stable_s=0.1, look_every_s=0.1, remove_after_s=48 * 3600.0)
    ledger = session_ledger(session)
    with closing(StopRequests()) as stop:
        transfer = Transfer(plan, ledger, stop)
        thread = threading.Thread(target=transfer.run)
        thread.start()
        (source / "grid" / HOSTILE).write_bytes(os.urandom(3_000_000))
        (source / "link.xml").symlink_to("/etc/passwd")
        card = page.locator("article.transfer")
        expect(card).to_contain_text(f"{source} → {target}", timeout=PATIENCE_MS)
        expect(card).to_contain_text("running", timeout=PATIENCE_MS)
        expect(card).to_contain_text("removed at the source 2\N{NO-BREAK SPACE}days after", timeout=PATIENCE_MS)
        row = page.locator("tr", has_text=HOSTILE)
        expect(row).to_contain_text("verified", timeout=PATIENCE_MS)
        expect(row).to_contain_text("3\N{NO-BREAK SPACE}MB")
        assert visit.too_wide() <= 0
        assert serious(page) == []
        source.rename(tmp_path / "unplugged")
        expect(card.locator(".bad")).to_contain_text("paused: ", timeout=PATIENCE_MS)
        stop.ask()
        thread.join(timeout=60)
    expect(card).to_contain_text("stopped", timeout=PATIENCE_MS)
    ledger.put(transfer.id, "grid/late.dm4", FileStamp(5, 5), "failed", reason="Input/output error", attempts=2, retry_at=2e9)
    page.get_by_label("State").select_option("failed")
    failed = page.locator("tbody tr")
    expect(failed).to_have_count(1, timeout=PATIENCE_MS)
    expect(failed).to_contain_text("Input/output error")
    expect(failed).to_contain_text("2\N{NO-BREAK SPACE}attempts")
    page.get_by_label("State").select_option("refused")
    expect(page.locator("tbody tr")).to_contain_text("it is a link", timeout=PATIENCE_MS)
    if "ICESTREAM_SCREENSHOTS" in os.environ:
        page.get_by_label("State").select_option("")
        expect(page.locator("tbody tr")).to_have_count(3, timeout=PATIENCE_MS)
        page.screenshot(path=Path(os.environ["ICESTREAM_SCREENSHOTS"]) / f"transfer-{width}.png")
    assert visit.complaints == []
    visit.context.close()


def test_the_copy_of_a_whole_disk_has_a_page_of_its_own(browser: Browser, served, tmp_path):
    server, _ = served
    ledger = account_ledger(tmp_path / "state")
    row = ledger.open_transfer(Path("/mnt/krios"), Path("/data/krios"))
    ledger.tell(row.id, "paused", "the disk is full")
    ledger.put(row.id, f"grid7/{HOSTILE}", FileStamp(5, 5), "failed", reason="Input/output error", attempts=2, retry_at=2e9)
    visit = Visit(browser, width=390)
    page = visit.open(f"{server.address}/s/paper/transfer")
    page.get_by_role("link", name="Transfers of the facility").click()
    expect(page.get_by_role("heading", name="Transfers of the facility")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("article.transfer")).to_contain_text("/mnt/krios → /data/krios", timeout=PATIENCE_MS)
    expect(page.locator("article.transfer .bad")).to_contain_text("paused: the disk is full")
    expect(page.locator("tr", has_text=HOSTILE)).to_contain_text("Input/output error")
    assert visit.too_wide() <= 0
    assert visit.complaints == []
    visit.context.close()
