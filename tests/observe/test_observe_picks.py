"""Picks that steps removed, in the trace, the report and the tables."""

import numpy as np
import pytest
from paper_session import PaperSession, new_session

from icestream.io.picks import make_picks, table_of_picks
from icestream.observe.queries import open_view
from icestream.observe.report import gather
from icestream.records import pack_tables

BORDERS = ((True, False, False), (False, False, False), (True, True, False))


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> PaperSession:
    steps = {
        "mics": {"use": "import_micrographs"},
        "pick": {"use": "pick_blob", "in": {"micrograph": "mics"}, "params": {"diameter_ang": [90, 110]}},
    }
    paper = PaperSession(new_session(tmp_path_factory.mktemp("removed"), steps))
    paper.revise("mics", "source")
    paper.revise("pick", "map", links={"micrograph": "mics"})
    for ordinal, border in enumerate(BORDERS, start=1):
        table = table_of_picks(np.full((3, 2), 10.0 * ordinal), np.arange(3.0))
        picks = make_picks(table, diameter_ang=100.0, removed={"at the border": np.array(border), "duplicate": ~np.array(border)})
        if ordinal == 2:
            picks = make_picks(table, diameter_ang=100.0, removed={"at the border": np.array(border)})
        paper.make("pick", paper.expose(f"mic_{ordinal}", ordinal, step="mics"), picks, block=pack_tables(picks))
    return paper


def test_the_trace_says_why_picks_were_removed(paper) -> None:
    with open_view(paper.session) as view:
        notes = [result.notes for step in view.trace("mic_3").steps for result in step.results]
        nothing = [result.notes for step in view.trace("mic_2").steps for result in step.results]
    assert notes == [("picks removed: 2 at the border, 1 duplicate",)]
    assert nothing == [()]


def test_the_report_adds_up_what_was_removed_by_reason(paper) -> None:
    with open_view(paper.session) as view:
        (panel,) = [one for one in gather(view, refresh_s=0).panels if one.title == "Picking"]
    (tally,) = panel.plots
    assert tally.numbers == (("at the border", 3.0, "picks"), ("duplicate", 3.0, "picks"))
    assert next(one for one in panel.measures if one.label == "Picks removed per micrograph").median == 3


def test_tables_of_a_record_are_read_by_name(paper) -> None:
    with open_view(paper.session) as view:
        (first, second, _) = view.records("pick")
        assert set(first.tables) == {"block", "rejected"}
        assert set(second.tables) == {"block"}
        assert second.block == second.tables["block"]
