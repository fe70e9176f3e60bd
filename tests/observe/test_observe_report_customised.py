"""The report as facilities make it their own: documented examples work, mistakes are told, what is hostile is inert."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_session import HOSTILE, PaperSession
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import DeclarationError, WorkflowError
from icestream.flow.declaration import find_step, step, step_names
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.observe.queries import open_view
from icestream.observe.report import ReportWriter, Written, gather
from icestream.observe.report.data_file import CONTENT
from icestream.observe.report.methods import describe_methods
from icestream.records import CtfFit, Method, Micrograph, Text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "customise-the-report.md"
LOGO = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="4"/></svg>'


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> PaperSession:
    written = write_acquisition(tmp_path_factory.mktemp("custom"), 18, name=f"Session {HOSTILE}")
    written.store.close("every stream closed")
    return written


def write(paper: PaperSession, folder: Path, files: dict[str, str]) -> tuple[Written, str]:
    """Write the report with these files in the facility's folder."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    with ReportWriter(paper.session, folder / "out", template_folder=folder, session_templates=True) as writer:
        written = writer.write()
    return written, written.page.read_text(encoding="utf-8")


def examples_under(heading: str) -> dict[str, str]:
    """Return the files that the documentation shows under a heading, by the name in their first line."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```(?:html|css|yml)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return {re.sub(r"^[{/#* ]+| ?[#*}/]+$", "", block.splitlines()[0]): block for block in blocks}


def test_the_logo_and_the_colours_of_a_facility(paper, tmp_path):
    written, html = write(paper, tmp_path, {**examples_under("Change the logo"), "logo.svg": LOGO})
    assert written.problems == ()
    assert '<img class="logo" src="data:image/svg+xml;base64,' in html
    assert ":root { --accent: #7a2e8c; }" in html
    assert "page made" in html  # the rest of the header is ours


def test_a_column_is_dropped(paper, tmp_path):
    _, before = write(paper, tmp_path / "ours", {})
    written, html = write(paper, tmp_path / "theirs", examples_under("Drop a column"))
    assert written.problems == ()
    table = re.compile(r'<table class="exposures">.*?</table>', re.DOTALL)
    assert "Astigmatism" in table.search(before)[0]
    assert "Astigmatism" not in table.search(html)[0]
    assert "CTF resolution" in table.search(html)[0]
    assert (">Absent, items<" in before, ">Absent, items<" in html) == (True, False)


def test_a_column_of_fit_quality_is_added(paper, tmp_path):
    written, html = write(paper, tmp_path, examples_under("Add a column of fit quality"))
    assert written.problems == ()
    assert html.count('<th class="n">Fit quality</th>') == 2  # one for each of the two programs
    table = json.loads(written.data.read_text())["exposures"]
    place = [one["label"] for one in table["columns"]].index("Fit quality")
    assert {row["values"][place] for row in table["rows"]} == {0.3, None}  # the third exposure failed


def test_a_plot_of_any_field_is_added(paper, tmp_path):
    written, html = write(paper, tmp_path, examples_under("Add a plot of any field"))
    assert written.problems == ()
    plots = html.split("<h2>Plots</h2>")[1].split("<h2>")[0]
    assert plots.count("<h3>Quality of the CTF fits") == plots.count("<h3>Does motion cost resolution?") == 2
    assert "CTF resolution (Å) against Total motion (px)" in plots
    assert "Fit quality: distribution" not in plots


def test_units_are_those_of_the_facility(paper, tmp_path):
    written, html = write(paper, tmp_path, examples_under("Show other units"))
    assert written.problems == ()
    assert "Defocus (nm) of each exposure" in html
    assert "\N{NO-BREAK SPACE}µm" not in html
    assert re.search(r"Defocus</span> [12],?\d{3}\N{NO-BREAK SPACE}nm", html)


def test_a_section_shows_records_of_any_type_and_sections_are_ordered(paper, tmp_path):
    written, html = write(paper, tmp_path, examples_under("Add a section for the records of a plugin"))
    assert written.problems == ()
    assert html.index('class="figures"') < html.index("<h2>Defocus as set</h2>") < html.index("<h2>Steps</h2>")
    assert html.split("<h2>Defocus as set</h2>")[1].split("</table>")[0].count("<tr>") == 5
    assert "Beamline 7</span>" in html
    assert "What people did" not in html


def test_what_is_published_is_as_documented(paper, tmp_path):
    written, _ = write(paper, tmp_path, examples_under("Publish it"))
    assert written.problems == ()
    assert written.customised.settings.publish.command[-1] == "web@www.example.org:/srv/reports/{session}/"


def test_the_session_takes_precedence_and_extends_what_the_facility_has(paper, tmp_path):
    own = paper.session.folder / "report-templates"
    own.mkdir()
    block = '{% extends "figures.html" %}{% block figures %}<p>NAME</p>{{ super() }}{% endblock %}'
    try:
        (own / "figures.html").write_text(block.replace("NAME", "of the session"))
        (own / "report.yaml").write_text("title: Grid 3\n")
        files = {
            "figures.html": block.replace("NAME", "of the facility"),
            "report.yaml": "title: F30\nunits: {Å: {unit: nm, factor: 0.1}}\n",
        }
        written, html = write(paper, tmp_path, files)
    finally:
        for file in own.iterdir():
            file.unlink()
        own.rmdir()
    assert written.problems == ()
    assert html.index("of the session") < html.index("of the facility") < html.index('class="figures"')
    assert "Grid 3</span>" in html
    assert "Astigmatism (nm)" in html


def test_what_a_session_brings_is_used_only_where_the_facility_allows_it(paper, tmp_path):
    own = paper.session.folder / "report-templates"
    own.mkdir()
    try:
        (own / "figures.html").write_text("<p>of the session</p>")
        (paper.session.folder / DOCUMENT).write_text(dump_document(paper.session.document), encoding="utf-8")
        with ReportWriter(paper.session, tmp_path / "out") as writer:
            written = writer.write()
        asked = CliRunner().invoke(app, ["report", str(paper.session.folder), "--check"])
        allowed = CliRunner(env={"ICESTREAM_SESSION_REPORT_TEMPLATES": "true"}).invoke(
            app, ["report", str(paper.session.folder), "--check"]
        )
    finally:
        (own / "figures.html").unlink()
        own.rmdir()
    html = written.page.read_text(encoding="utf-8")
    assert ("of the session" in html, 'class="figures"' in html) == (False, True)
    (problem,) = written.problems
    assert (problem.file, "ICESTREAM_SESSION_REPORT_TEMPLATES" in html) == (own, True)
    assert (asked.exit_code, "is not used here" in " ".join(asked.output.split())) == (1, True)
    assert (allowed.exit_code, "nothing is wrong" in " ".join(allowed.output.split())) == (0, True)


def test_a_template_for_which_memory_does_not_suffice_is_told(paper, tmp_path, monkeypatch):
    def too_much(*_: object) -> str:
        raise MemoryError

    monkeypatch.setattr("icestream.observe.report.rendering.embed_picture", too_much)
    written, html = write(paper, tmp_path, {"panels.html": "{{ picture('a.png') }}"})
    assert [one.message for one in written.problems] == ["MemoryError"]
    assert "<h2>Steps</h2>" in html


@pytest.mark.parametrize(
    ("files", "where", "what"),
    [
        ({"steps.html": "<p>\n{% for step in data.steps %}\n"}, "steps.html:2", "Unexpected end of template"),
        ({"steps.html": "<p>\n\n{{ data.stepz }}</p>"}, "steps.html:3", "has no attribute 'stepz'"),
        ({"figures.html": "{{ 1 / 0 }}"}, "figures.html:1", "division by zero"),
        (
            {
                "report.html": '{% extends "report.html" %}\n{% block logo %}\n{{ logo }}{% endblock %}'
                "{% block footer %}Ours{% endblock %}"
            },
            "report.html:3",
            "'logo' is undefined",
        ),
        ({"report.html": '{% extends "gone.html" %}'}, "report.html:1", "no template 'gone.html'"),
        ({"panels.html": "{% autoescape false %}x{% endautoescape %}"}, "panels.html:1", "escaping cannot be switched off"),
        ({"panels.html": "{{ data.overview.name|safe }}"}, "panels.html:1", "No filter named 'safe'"),
        ({"panels.html": "{% include '../secret.html' %}"}, "panels.html:1", "leads out of the folder"),
        ({"panels.html": "{{ picture('link.png') }}"}, "panels.html:1", "leads out of the folder"),
        ({"panels.html": "\n{{ picture('/etc/hostname') }}"}, "panels.html:2", "leads out of the folder"),
        ({"panels.html": "{{ ''.__class__.__mro__ }}"}, "panels.html:1", "unsafe"),
        ({"panels.html": "{{ picture.__globals__ }}"}, "panels.html:1", "unsafe"),
        (
            {"panels.html": "{% for n in range(51) %}{{ 'x' * 999999 }}{% endfor %}"},
            "panels.html",
            "writes more than",
        ),
        ({"panels.html": "{{ 'a' * 4000000000 }}"}, "panels.html:1", "repeats something to more than"),
        ({"panels.html": "{{ (4000000000 * [1])|length }}"}, "panels.html:1", "repeats something to more than"),
        ({"panels.html": "{{ 9 ** (9 ** 9) }}"}, "panels.html:1", "is too large"),
        ({"panels.html": "{{ '%4000000000d' % 1 }}"}, "panels.html:1", "not formatted by %"),
        ({"panels.html": "{{ 'a'.ljust(4000000000) }}"}, "panels.html:1", "the method ljust of texts is not allowed"),
        ({"panels.html": "{{ 'a'|center(4000000000) }}"}, "panels.html:1", "No filter named 'center'"),
        ({"panels.html": "{{ lipsum(n=99999) }}"}, "panels.html:1", "'lipsum' is undefined"),
        (
            {"panels.html": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"},
            "panels.html:1",
            "takes more than 1,000,000 turns",
        ),
        (
            {"panels.html": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}"},
            "panels.html:1",
            "takes more than 1,000,000 turns",
        ),
        ({"panels.html": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}"}, "panels.html:1", "call themselves"),
        ({"panels.html": "<MeTa http-equiv=refresh content='0;url=//evil.example'>"}, "panels.html", "writes a `meta` element"),
        ({"style.css": "a { } </style><script>alert(1)</script>"}, "style.css", "contains '</'"),
        (
            {"report.yaml": "plots:\n- record: CtfFit\n  field: score\n- record: CtfFit\n"},
            "report.yaml:4",
            "plots[2].field: field required",
        ),
        (
            {"report.yaml": "title: x\nexposures:\n  colums: 3\n"},
            "report.yaml:3",
            "is not known here; known are add, leave_out, rows",
        ),
        (
            {"report.yaml": "exposures:\n  add:\n  - {record: CtfFit, field: fit_quality}\n"},
            "report.yaml:3",
            "no field 'fit_quality'; its fields",
        ),
        ({"report.yaml": "sections:\n- figures\n- beamline\n- others\n"}, "report.yaml:3", "there is no section 'beamline'"),
        ({"report.yaml": "title: [\n"}, "report.yaml:2", "is not YAML"),
        ({"report.yaml": "- 1\n"}, "report.yaml:1", "must be names with values"),
    ],
)
def test_a_mistake_is_told_with_file_and_line_and_the_rest_stands(paper, tmp_path, files, where, what):
    (tmp_path / "secret.html").write_text("the secret")
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "secret.html")
    written, html = write(paper, folder, files)
    (problem,) = written.problems
    assert str(problem).startswith(f"{folder / where.partition(':')[0]}")
    assert problem.where.endswith(where)
    assert what in problem.message
    assert "the secret" not in html
    for heading in ("<h2>Steps</h2>", "<h2>Exposures ", "<h2>Acquisition and provenance</h2>", 'class="figures"'):
        assert heading in html  # ours stands where theirs fails
    assert html.index('class="problems"') < html.index("<header>")
    assert problem.message.split("'")[0] in html
    if "Ours" in files.get("report.html", ""):
        assert "Ours" in html  # the other block of the same template


def test_a_mistake_that_is_mended_is_gone_with_the_next_report(paper, tmp_path):
    (tmp_path / "figures.html").write_text("{{ nothing }}")
    with ReportWriter(paper.session, tmp_path / "out", template_folder=tmp_path) as writer:
        first = writer.seen()
        assert [one.line for one in writer.write().problems] == [1]
        (tmp_path / "figures.html").write_text("<p>mended</p>\n")
        assert writer.seen() != first
        written = writer.write()
    assert written.problems == ()
    assert "<p>mended</p>" in written.page.read_text()


def test_a_session_says_neither_what_is_run_nor_what_runs_in_the_browser(paper, tmp_path):
    own = paper.session.folder / "report-templates"
    own.mkdir()
    try:
        (own / "report.yaml").write_text("title: mine\npublish: {command: [touch, /tmp/owned]}\n")
        (own / "script.js").write_text("alert(1)")
        written, html = write(paper, tmp_path, {})
    finally:
        for file in own.iterdir():
            file.unlink()
        own.rmdir()
    told = sorted(str(one) for one in written.problems)
    assert [(":2: publish: a session cannot say" in told[0]), ("a session cannot add a script" in told[1])] == [True, True]
    assert written.customised.settings.publish is None
    assert (">alert(1)" in html, "mine</span>" in html) == (False, True)


def test_a_template_of_somebody_s_own_cannot_let_a_script_run(paper, tmp_path):
    body = "<script>alert(1)</script><p onclick='alert(2)'>{{ data.overview.name }}</p>"
    written, html = write(paper, tmp_path, {"report.html": body})
    assert written.problems == ()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert html.index("Content-Security-Policy") < html.index("<script>alert(1)")
    assert "<script>alert('x')" not in html  # the name of the session stays text


def test_the_json_has_what_is_documented(paper, tmp_path):
    written, _ = write(paper, tmp_path, {})
    told = json.loads(written.data.read_text())
    assert (told["format"], told["version"]) == ("icestream-report", 1)
    assert set(told) - {"made_by"} == set(CONTENT)
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name, what in CONTENT.items() if f"| `{name}` | {what} |" not in page] == []
    assert told["session"]["exposures"] == 18
    assert told["wholes"][0]["history"][0]["parts"] == 8
    assert {one["label"] for one in told["measures"]} >= {"CTF resolution", "Defocus", "Total motion"}


def test_the_digest_changes_with_what_is_shown_and_not_with_the_time(paper, tmp_path):
    first, _ = write(paper, tmp_path, {})
    again, _ = write(paper, tmp_path, {})
    other, _ = write(paper, tmp_path, {"report.yaml": "exposures: {rows: 3}"})
    assert first.digest == again.digest != other.digest


def test_methods_name_what_ran_and_what_is_cited(paper, tmp_path):
    with open_view(paper.session) as view:
        data = gather(view, refresh_s=0)
        steps = [replace(one, params=defaults_of(one.use)) for one in data.steps]
        methods = describe_methods(view.catalog(), steps, data.conditions)
    assert methods.text.startswith(
        "Data were acquired at 300\N{NO-BREAK SPACE}kV and with a pixel size of 0.8\N{NO-BREAK SPACE}Å. "
        "Data were processed on the fly with icestream [1]. Movies were aligned with a B-factor of 150 px², and summed"
    )
    keys = [one.key for one in methods.references]
    assert keys[:3] == ["icestream", "zheng2017", "grant2015"]
    assert {"rohou2015", "zhang2016", "zivanov2018", "scheres2012"} <= set(keys)
    assert methods.bibtex.count("@article{") + methods.bibtex.count("@misc{") == len(keys)
    assert "doi = {10.1016/j.jsb.2015.08.008}" in methods.bibtex
    assert ("icestream", "9.9") in [(one.name, one.version) for one in methods.software]
    written, html = write(paper, tmp_path, {})
    assert "@misc{icestream," in written.references.read_text()
    assert "For the methods section" in html


def defaults_of(use: str) -> dict[str, object]:
    try:
        return find_step(use).params().model_dump()
    except WorkflowError:
        return {}


def test_every_reference_is_whole_and_keys_are_their_own():
    methods = [method for name in step_names() if (method := find_step(name).method) is not None]
    references = {one.key: one for method in methods for one in method.references}
    assert len({one.doi for one in references.values()}) == len(references) > 10
    for method in methods:
        assert all(references[one.key] == one for one in method.references)
        assert all(one.template.endswith(".") for one in method.sentences)
    for one in references.values():
        assert re.fullmatch(r"10\.\d{4,}/\S+", one.doi)
        assert one.key == f"{one.authors[0].partition(',')[0].lower()}{one.year}"
        assert one.bibtex.startswith(f"@article{{{one.key},")
        assert str(one.year) in one.line


def test_a_step_whose_method_names_no_parameter_of_it_is_refused():
    with pytest.raises(DeclarationError, match="its method names tile_px, which is no parameter"):

        @step.map("toy", version=1, method=Method((Text("Tiles of {tile_px} px."),)))
        def toy(micrograph: Micrograph) -> CtfFit:
            """Do nothing."""
            raise NotImplementedError
