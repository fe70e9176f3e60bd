"""The report: escaped, offline, bounded, and right."""

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from paper_acquisition import HEIGHT, write_acquisition
from paper_session import HOSTILE, T0, PaperSession, new_session, picks_block, write_png

from icestream.observe.gallery import MOST_CIRCLES
from icestream.observe.queries import open_view
from icestream.observe.report import gather, write_report
from icestream.records import DoseReference, FrameUse, Micrograph, Motion, MovieDose, Picks


class Page(HTMLParser):
    """Collects the elements, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> PaperSession:
    written = write_acquisition(tmp_path_factory.mktemp("reported"), 24, name=f"Session {HOSTILE}")
    written.store.close("every stream closed")
    return written


@pytest.fixture(scope="module")
def html(paper) -> str:
    return write_report(paper.session).read_text(encoding="utf-8")


def test_the_report_lies_in_the_session_and_is_replaced_whole(paper, html, tmp_path):
    folder = paper.session.folder / "report"
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "report.bib", "report.json"]
    assert write_report(paper.session, tmp_path / "shown").name == "index.html"
    assert write_report(paper.session, tmp_path / "grid3.html") == tmp_path / "grid3.html"


def test_hostile_names_stay_text(html):
    page = Page(html)
    assert len(page.all("script")) == 1
    assert f"Session {HOSTILE}" in page.texts
    assert any(f"frame 7 is broken {HOSTILE}" in text for text in page.texts)
    assert {name for attributes in page.elements for name in attributes[1]}.isdisjoint({"onload", "onerror", "onclick", "style"})


def test_the_page_asks_for_nothing(html):
    without_pictures = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", html)
    assert "://" not in without_pictures
    assert "url(" not in without_pictures
    assert "@import" not in without_pictures
    page = Page(html)
    addresses = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert len(addresses) >= 3
    inside = [address for address in addresses if address.startswith("#")]
    assert set(inside) <= {f"#{one['id']}" for one in page.all("figure")}
    assert all(address.startswith("data:image/png;base64,") or not address or address in inside for address in addresses)


def test_the_security_policy_allows_exactly_our_style_and_script(html):
    policy = next(one["content"] for one in Page(html).all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_numbers_are_right_and_have_units(paper):
    with open_view(paper.session) as view:
        data = gather(view, refresh_s=30)
    steps = {one.step.name: one for one in data.panels}
    assert [one.title for one in data.panels] == ["Motion", "CTF", "CTF", "Picking"]
    with open_view(paper.session) as view:
        fits = [record.record for record in view.records("ctf_a")]
        moves = [record.record["motion"]["total_px"] * 0.8 for record in view.records("align")]
    resolution, defocus, astigmatism = steps["ctf_a"].measures
    assert (resolution.unit, defocus.unit, astigmatism.unit) == ("Å", "µm", "Å")
    assert resolution.median == pytest.approx(np.median([fit["resolution_ang"] for fit in fits]))
    assert defocus.median == pytest.approx(np.median([fit["defocus_u_ang"] - 150 for fit in fits]) / 1e4)
    assert astigmatism.median == pytest.approx(300)
    total = steps["align"].measures[0]
    assert (total.unit, total.median) == ("Å", pytest.approx(np.median(moves)))
    assert {one.label: one.value for one in data.headlines}["Particles"] == sum(
        60 + n % 30 for n in range(1, 25) if n != 3 and n % 7
    )
    assert [one.value for one in data.conditions if one.name in ("pixel_size_ang", "voltage_kv")] == [300.0, 0.8]
    assert [one.said_by for one in data.conditions][:3] == ["files", "session", "nobody"]
    (classes,) = data.galleries
    counts, shares = ([row[column] or 0 for row in classes.rows] for column in (1, 2))
    assert counts == sorted(counts, reverse=True)
    assert sum(shares) == pytest.approx(100)


def test_a_phase_shift_is_shown_only_where_there_is_one(html):
    assert "Phase shift" not in html
    assert "CTF resolution" in html


def test_picks_are_drawn_on_the_flipped_picture(paper):
    with open_view(paper.session) as view:
        data = gather(view, refresh_s=0)
        (stored,) = list(view.records("find", newest_first=True, limit=1))
    newest = next(one for one in data.images if one.name == stored.name)
    table = np.frombuffer(stored.block[-stored.record["count"] * 16 :], dtype="<f4").reshape(-1, 4)  # pid, y, x, score
    assert [circle.y for circle in newest.circles] == pytest.approx((HEIGHT - table[:, 1]).tolist())
    assert [circle.x for circle in newest.circles] == pytest.approx(table[:, 2].tolist())
    assert newest.radius_px == pytest.approx(24 / 2 / 0.8)
    assert next(one for one in data.images if one.name.endswith("0014")).set_aside.startswith("good: resolution above 6 Å")


def test_missing_pictures_are_named_and_nothing_leaves_its_root(tmp_path):
    paper = PaperSession(new_session(tmp_path / "s", {"align": {"use": "motion"}}))
    paper.revise("align", "map")
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    (tmp_path / "s" / "text.png").write_bytes(b"<svg onload=alert(1)>")
    for index, thumbnail in enumerate(("session:x/../../secret.png", "session:text.png", "session:gone.png", "other:a.png"), 1):
        micrograph = Micrograph(image="session:a.mrc", height_px=10, width_px=10, bin=1, thumbnail=thumbnail)
        paper.make("align", paper.expose(f"m{index}", index, step="align"), micrograph)
    with open_view(paper.session) as view:
        found = {one.name: one.picture for one in gather(view, refresh_s=0).images}
    assert all(picture.uri is None for picture in found.values())
    assert "leads out of its root" in found["m1"].note
    assert found["m2"].note == "the file is neither PNG nor JPEG"
    assert "No such file" in found["m3"].note
    assert "no root 'other'" in found["m4"].note


def test_the_newest_motion_says_what_was_left_out_and_why(tmp_path):
    paper = PaperSession(new_session(tmp_path / "s", {"align": {"use": "motion"}}))
    paper.revise("align", "map")
    motion = Motion(global_yx_px=[(0.0, 0.0), (3.0, 4.0)], total_px=5, early_px=5, note="global only: 2 images are too few")
    frames = FrameUse(movie="movies:a.mrc", movie_frames=2, height_px=10, width_px=10, gain_note="the gain is flat")
    told = ("Global only: 2 images are too few", "The gain is flat", "Not weighted by dose: unset are voltage_kv")
    plain: dict[str, Any] = {"motion": motion.model_copy(update={"note": None})}
    noted: dict[str, Any] = {"motion": motion, "frames": frames, "dose_note": "not weighted by dose: unset are voltage_kv"}
    for index, values in enumerate((plain, noted), 1):
        image = Micrograph(image="session:a.mrc", height_px=10, width_px=10, bin=1, **values)
        paper.make("align", paper.expose(f"m{index}", index, step="align"), image)
        html = write_report(paper.session).read_text(encoding="utf-8")
        assert [text in html for text in told] == [values is noted] * 3


def test_a_lasting_change_of_the_dose_is_said(tmp_path):
    steps = {"dose": {"use": "measure_dose"}, "usual": {"use": "dose_reference", "in": {"dose": "dose"}}}
    paper = PaperSession(new_session(tmp_path / "s", steps))
    paper.revise("dose", "map")
    paper.revise("usual", "accumulate", links={"dose": ["dose"]})
    counts = MovieDose(counts_per_px_frame=2.0, zero_fraction=0, drift=0, n_frames=4)
    paper.make("dose", paper.expose("m1", 1, step="dose"), counts)
    told = "60% of the last 50 movies lay more than 5% from the reference"
    usual = DoseReference(counts_per_px_frame=1.0, source="acquisition", n_measured=60, n_samples=10, warning=told)
    paper.publish("usual", 1, usual)
    assert told in write_report(paper.session).read_text(encoding="utf-8")


def test_cards_that_belong_in_a_panel_that_is_not_there_have_one_of_their_own(tmp_path):
    paper = PaperSession(new_session(tmp_path / "s", {"usual": {"use": "dose_reference"}}))
    paper.revise("usual", "accumulate")
    paper.publish("usual", 1, DoseReference(counts_per_px_frame=1.0, source="median", n_measured=60, n_samples=10))
    with open_view(paper.session) as view:
        (panel,) = gather(view, refresh_s=0).panels
    assert (panel.title, panel.measures, panel.newest) == ("Usual dose", (), None)
    assert [card.note for card in panel.plots] == ["The median of what was measured."]


def test_a_crowded_micrograph_draws_some_picks_and_says_so(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"align": {"use": "m"}, "find": {"use": "p", "in": {"micrograph": "align"}}}))
    paper.revise("align", "map")
    paper.revise("find", "map", links={"micrograph": ["align"]})
    unit = paper.expose("m", 1)
    write_png(tmp_path / "t.png", np.zeros((8, 8), np.uint8))
    micrograph = Micrograph(image="session:a.mrc", height_px=64, width_px=64, bin=1, thumbnail="session:t.png")
    paper.make("align", unit, micrograph)
    block = picks_block([(1.0, 1.0)] * 900)
    paper.make("find", unit, Picks(count=900, diameter_ang=100, block=block), block=block)
    html = write_report(paper.session).read_text(encoding="utf-8")
    assert html.count("<circle") == MOST_CIRCLES
    assert f"({MOST_CIRCLES} drawn)" in html


def test_an_empty_session_has_a_report(tmp_path):
    session = new_session(tmp_path / "new", {"movies": {"use": "import_movies"}}, name="Just made")
    page = Page(write_report(session).read_text(encoding="utf-8"))
    assert "Just made" in page.texts
    assert "not started" in page.texts
    assert any("Nothing has arrived yet." in text for text in page.texts)


def test_the_page_reloads_while_a_runner_is_alive_and_never_after(tmp_path, html):
    paper = PaperSession(new_session(tmp_path, {"movies": {"use": "import_movies"}}))
    paper.revise("movies", "source")
    alive = write_report(paper.session, refresh_s=12).read_text(encoding="utf-8")
    assert '<html lang="en" data-refresh="12">' in alive
    assert '<noscript><meta http-equiv="refresh" content="12"></noscript>' in alive
    still = write_report(paper.session, refresh_s=0).read_text(encoding="utf-8")
    for finished in (html, still):
        assert '<html lang="en">' in finished
        assert 'http-equiv="refresh"' not in finished
        assert 'id="refresh"' not in finished


def test_a_facility_replaces_single_templates(paper, tmp_path):
    (tmp_path / "style.css").write_text("body { color: teal }", encoding="utf-8")
    (tmp_path / "figures.html").write_text("<p>Beamline 7: {{ data.overview.name }}</p>", encoding="utf-8")
    html = write_report(paper.session, tmp_path / "out.html", template_folder=tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert f"Beamline 7: Session {HOSTILE}" in page.texts
    assert any(text.endswith("\nbody { color: teal }") for text in page.texts)  # after ours, so that it takes precedence
    assert any("CTF resolution" in text for text in page.texts)


def test_long_sessions_are_thinned(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"find": {"use": "pick_blob"}}))
    paper.revise("find", "map")
    rows: dict = {"exposure": [], "outcome": []}
    arrival = {"source": "movies", "identity": "i", "acquisition": "{}", "arrived_at": T0, "seq": 0}
    block = picks_block([])
    key = paper.store_result("find", "x", Picks(count=0, diameter_ang=1, block=block), block=block)
    for index in range(1, 5001):
        unit = f"{index:032d}"
        rows["exposure"].append({"unit": unit, "ordinal": index, "name": unit, **arrival})
        decided = {"status": "item", "keys": f'{{"out": "{key}"}}', "at": T0, "seq": paper.store.next_seq()}
        rows["outcome"].append({"revision": 1, "unit": unit, "weight": index, **decided})
    paper.add_many(rows)
    with open_view(paper.session) as view:
        data = gather(view, refresh_s=0)
    (measure,) = data.panels[0].measures
    assert (measure.stride, measure.n_shown) == (8, 625)
    assert measure.median == pytest.approx(2504, abs=8)
    assert {one.label: one.value for one in data.headlines}["Particles"] == 5000 * 5001 // 2


@pytest.mark.services
def test_a_browser_shows_the_page_without_complaint(paper, html, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is missing")
    page = paper.session.folder / "report" / "index.html"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    picture = tmp_path / "page.png"
    shot = [f"--screenshot={picture}", "--window-size=1200,3000", page.as_uri()]
    done = subprocess.run([chromium, *options, *shot], capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 100_000  # charts and micrographs, not a blank page
