"""Everything that the report of a session with every type of record shows, line by line."""

import re
from html.parser import HTMLParser
from pathlib import Path

from paper_every_record import write_every_record
from sqlalchemy import text, update

from icestream.flow.storage import schema
from icestream.flow.storage.database import engine_for
from icestream.observe.queries import open_view
from icestream.observe.report import write_report
from icestream.records import named_records

LISTED = Path(__file__).with_name("report_of_every_record.txt")
_VOID = {"meta", "img", "path", "circle", "rect", "image", "br"}


class Outline(HTMLParser):
    """Lists headings, figures, numbers, notes, pictures and charts of a page, in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.open: list[tuple[str, str, list[str]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "svg" and given.get("role") == "img":
            self.lines.append(f"chart: {given['aria-label']}")
        elif tag in ("img", "image"):
            there = "there" if (given.get("src") or given.get("href") or "").startswith("data:image/png") else "missing"
            self.lines.append(f"picture ({there}): {given.get('alt', '')}")
        elif tag == "circle" and given.get("class") != "ring":
            self.lines.append(f"circle at {given['cx']} {given['cy']} radius {given['r']}")
        elif tag not in _VOID:
            self.open.append((tag, given.get("class", ""), []))

    def handle_data(self, data):
        for _, _, texts in self.open:
            texts.append(data)

    def handle_endtag(self, tag):
        if tag in _VOID or not self.open or self.open[-1][0] != tag:
            return
        name, style, texts = self.open.pop()
        text = re.sub(r"\s+", " ", "".join(texts)).strip()
        kind = {"h2": "section", "h3": "card", "p": "line", "figcaption": "caption", "tr": "row"}.get(name)
        kind = "figure" if name == "div" and style.startswith("card") and self.figures else kind
        if kind and text:
            self.lines.append(f"{kind}: {text}")

    @property
    def figures(self) -> bool:
        return any(tag == "section" and style == "figures" for tag, style, _ in self.open)


def outline_of(html: str) -> list[str]:
    """Return the lines of the parts that show results; the table of steps, methods and provenance have tests of their own."""
    lines = Outline(html).lines
    first, last = lines.index("section: Steps"), lines.index("section: Methods and software")
    measured = next(n for n, line in enumerate(lines) if n > first and line.startswith("section:"))
    return [*lines[:first], *lines[measured:last]]


def test_the_report_shows_every_figure(tmp_path):
    paper = write_every_record(tmp_path / "session")
    paper.store.close("every stream closed")
    shown = outline_of(write_report(paper.session).read_text(encoding="utf-8"))
    assert shown == LISTED.read_text(encoding="utf-8").splitlines()


def test_a_gain_that_was_learnt_from_the_session_hides_what_is_left_of_it(tmp_path):
    paper = write_every_record(tmp_path / "session", gain="session:steps/gain.mrc")
    shown = outline_of(write_report(paper.session).read_text(encoding="utf-8"))
    assert "card: Total motion" in shown
    assert "card: Gain left in the movie" not in shown


def test_a_store_of_the_schema_before_with_the_names_of_its_time_shows_the_same(tmp_path):
    paper = write_every_record(tmp_path / "session")
    results = schema.result
    with paper.store.transaction() as connection:
        for record in named_records():
            for name in record.former_names:
                renamed = update(results).where(results.c.record_type == record.stored_name).values(record_type=name)
                connection.execute(renamed)
        connection.execute(text("DROP TABLE description"))
    paper.store.close("every stream closed")
    engine = engine_for(paper.session.store_at, durable=True)
    with engine.begin() as connection:
        connection.execute(update(schema.runner).values(schema_version=3))
    engine.dispose()
    shown = outline_of(write_report(paper.session).read_text(encoding="utf-8"))
    assert shown == LISTED.read_text(encoding="utf-8").splitlines()
    with open_view(paper.session) as view:
        assert {one.record_type for one in view.records("tilted")} == {"TiltMeasure"}
