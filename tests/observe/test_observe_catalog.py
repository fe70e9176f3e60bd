"""What views know of types of record: from what is installed, and from what the session keeps."""

import json
import sys
from pathlib import Path
from typing import ClassVar

import pytest
from paper_session import PaperSession, new_session
from sqlalchemy import insert, update

from icestream.flow.storage import schema
from icestream.flow.storage.descriptions import keep_descriptions
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Graph, Workflow
from icestream.observe.catalog import Catalog, read_catalog
from icestream.observe.queries import open_view
from icestream.records import CtfFit, Record
from icestream.records.description import Description, describe_record, write_description
from icestream.records.shown import Measure, Panel, Shown


class Growth(Record):
    """A record of a plugin, whose first version called its field ``old``."""

    stored_name: ClassVar[str] = "test.Growth"
    former_names: ClassVar[tuple[str, ...]] = ("somewhere.else:Growth",)
    schema_version: ClassVar[int] = 2
    new: int

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        return {"new": stored["old"]} if version == 1 else super().upcast(stored, version)


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    written = PaperSession(new_session(tmp_path / "session", {"grow": {"use": "grow"}}))
    written.revise("grow", "map")
    written.make("grow", written.expose("one", 1), Growth(new=3))
    return written


def rewrite(paper: PaperSession, **values: object) -> None:
    with paper.store.transaction() as connection:
        connection.execute(update(schema.result).values(**values))


def test_an_old_record_of_a_plugin_is_read_through_its_upcaster_under_its_name_of_today(paper: PaperSession) -> None:
    rewrite(paper, record_type="somewhere.else:Growth", record_version=1, record=json.dumps({"old": 3}))
    with open_view(paper.session) as view:
        (stored,) = view.records("grow")
        assert (stored.record_type, stored.record) == ("test.Growth", {"new": 3})
        assert view.trace("one").steps[0].results[0].record == {"new": 3}
        assert view.steps()[0].records == {"out": "test.Growth"}


def test_a_type_that_nobody_knows_is_shown_as_it_is(paper: PaperSession) -> None:
    rewrite(paper, record_type="lab:Gone", record_version=7, record=json.dumps({"left": 1}))
    with open_view(paper.session) as view:
        (stored,) = view.records("grow")
        assert (stored.record_type, stored.record) == ("lab:Gone", {"left": 1})
        assert view.catalog().shown("lab:Gone") == Shown()


def test_what_the_session_keeps_of_a_newer_version_wins_over_what_is_installed() -> None:
    newer = Description("CtfFit", 9, "Newer", whole=False, shown=Shown(Panel("New CTF")))
    older = Description("CtfFit", 1, "Older", whole=False, shown=Shown(Panel("Old CTF")))
    assert Catalog({("CtfFit", 1): older, ("CtfFit", 9): newer}).description("CtfFit") == newer
    assert Catalog({("CtfFit", 1): older}).description("CtfFit") == describe_record(CtfFit)


PLUGIN = '''"""A plugin whose record has grown."""

from typing import ClassVar

from icestream.flow import step
from icestream.records import Micrograph, Record


class Crystals(Record):
    """Crystals on a micrograph."""

    stored_name: ClassVar[str] = "lab.Crystals"
    schema_version: ClassVar[int] = 2
    number: int

    @classmethod
    def upcast(cls, stored, version):
        return {"number": stored["count"]} if version == 1 else super().upcast(stored, version)


@step.map("lab_count_crystals", version=1)
def count_crystals(micrograph: Micrograph) -> Crystals:
    """Count crystals."""
    return Crystals(number=micrograph.height_px)
'''


def test_a_plugin_is_imported_only_where_records_of_two_versions_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab_crystals.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    use = "lab_crystals:count_crystals"
    old = {"record_type": "lab.Crystals", "record_version": 1, "record": json.dumps({"count": 3})}
    known = {("lab.Crystals", version): Description("lab.Crystals", version, "Crystals.", whole=False) for version in (1, 2)}
    alone = Catalog({("lab.Crystals", 1): known["lab.Crystals", 1]}, uses=(use,))
    assert alone.fields(old) == {"count": 3}
    assert "lab_crystals" not in sys.modules
    assert Catalog(known, uses=("gone:step", use)).fields(old) == {"number": 3}
    assert Catalog(known, uses=("gone:step",)).fields(old | {"record_type": "lab.Gone"}) == {"count": 3}


def test_a_stored_description_answers_to_former_names(paper: PaperSession) -> None:
    measure = Measure("Length", "length", "m", metric="length_meters")
    kept = Description(
        "lab.Gone", 1, "It is gone.", whole=False, former_names=("lab:Gone",), shown=Shown(Panel("Gone", measures=(measure,)))
    )
    row = {"subject": "record", "name": kept.name, "version": kept.version, "content": write_description(kept)}
    paper.add(schema.description, **row)
    with open_view(paper.session) as view:
        assert view.catalog().name_of("lab:Gone") == "lab.Gone"
        assert view.catalog().shown("lab:Gone").measures == (measure,)


def graph() -> Graph:
    document = {
        "micrographs": {"use": "import_micrographs"},
        "a": {"use": "ctf", "in": {"micrograph": "micrographs"}},
        "b": {"use": "ctf_equiphase", "in": {"micrograph": "micrographs"}},
        "both": {"use": "compare_ctfs", "in": {"ctf": "a", "second": "b"}},
    }
    return build_graph(Workflow.model_validate({"steps": document}))


def test_a_revision_keeps_what_is_declared_and_brings_it_up_to_date(paper: PaperSession) -> None:
    table = schema.description
    outdated = {"subject": "record", "name": "CtfFit", "version": CtfFit.schema_version, "content": "{}"}
    with paper.store.transaction() as connection:
        connection.execute(insert(table).values(**outdated))
        keep_descriptions(connection, graph().nodes.values())
        keep_descriptions(connection, graph().nodes.values())
        catalog = read_catalog(connection)
    assert catalog.kept
    assert set(catalog.descriptions) == {("CtfAgreement", 1), ("CtfFit", 2), ("Micrograph", 1)}
    assert catalog.descriptions["CtfFit", 2] == describe_record(CtfFit)
    assert catalog.comparison("compare_ctfs") is not None
    assert catalog.comparison("ctf") is None
