"""Columns that are kept between looks are what the store has, whatever happened meanwhile."""

import shutil
from pathlib import Path

import pytest
from paper_session import T0, PaperSession, new_session
from sqlalchemy import delete, func, select, update

from icestream.flow.storage import schema
from icestream.observe import kept_columns
from icestream.observe.kept_columns import KeptColumns
from icestream.observe.queries import open_view
from icestream.records import CtfFit

PATHS = ("resolution_ang", None, "score")


def fit(resolution_ang: float) -> CtfFit:
    values = {"defocus_u_ang": 1e4, "defocus_v_ang": 1e4, "astigmatism_angle_deg": 0.0, "phase_shift_deg": 0.0, "score": 0.5}
    return CtfFit(**values, resolution_ang=resolution_ang)


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    made = PaperSession(new_session(tmp_path / "paper", {"movies": {"use": "import_movies"}, "ctf": {"use": "ctf"}}))
    made.revise("ctf", "map")
    for number in range(1, 5):
        made.make("ctf", made.expose(f"m{number}", number), fit(3.0 + number))
    return made


def read(paper: PaperSession, kept: KeptColumns) -> list[tuple[object, ...]]:
    with open_view(paper.session) as view, view.reading() as connection:
        assert connection is not None
        return kept.read(paper.session, connection, paper.revisions["ctf"], PATHS)


def test_only_what_is_new_is_read_again(paper: PaperSession) -> None:
    kept = KeptColumns()
    assert read(paper, kept) == [(number, 3.0 + number, None, 0.5) for number in range(1, 5)]
    unit = paper.expose("m5", 5)
    paper.fail("ctf", paper.expose("m6", 6), "no signal")
    paper.make("ctf", unit, fit(9.0))
    again = read(paper, kept)
    assert again == read(paper, KeptColumns())
    assert again[-1] == (5, 9.0, None, 0.5)


def test_what_was_withdrawn_and_another_store_are_noticed(paper: PaperSession) -> None:
    kept, outcome = KeptColumns(), schema.outcome
    read(paper, kept)
    newest = select(func.max(outcome.c.seq)).scalar_subquery()
    with paper.store.transaction() as connection:
        connection.execute(delete(outcome).where(outcome.c.seq == newest))
    assert [row[0] for row in read(paper, kept)] == [1, 2, 3]
    paper.make("ctf", paper.expose("m7", 7), fit(2.0))
    assert [row[0] for row in read(paper, kept)] == [1, 2, 3, 7]
    with paper.store.transaction() as connection:  # as in an earlier copy of the store
        connection.execute(delete(outcome).where(outcome.c.seq == newest))
        connection.execute(update(schema.result).values(record=fit(8.0).model_dump_json()))
    assert read(paper, kept) == read(paper, KeptColumns()) == [(number, 8.0, None, 0.5) for number in (1, 2, 3)]


def test_a_new_session_of_the_same_name_shows_its_own_values(tmp_path: Path) -> None:
    kept, found = KeptColumns(), []
    for begun, resolution_ang in ((T0, 3.0), (T0 + 3600, 6.0)):
        shutil.rmtree(tmp_path / "paper", ignore_errors=True)
        made = PaperSession(new_session(tmp_path / "paper", {"ctf": {"use": "ctf"}}), begun)
        made.revise("ctf", "map")
        made.make("ctf", made.expose("m1", 1), fit(resolution_ang))
        found.append(read(made, kept))
    assert found == [[(1, 3.0, None, 0.5)], [(1, 6.0, None, 0.5)]]


def test_what_was_asked_for_long_ago_is_forgotten(paper: PaperSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_columns, "MOST_ROWS", 5)
    kept = KeptColumns()
    with open_view(paper.session) as view, view.reading() as connection:
        assert connection is not None
        for path in ("resolution_ang", "score"):
            rows = kept.read(paper.session, connection, paper.revisions["ctf"], (path,))
            assert len(rows) == 4
    assert len(kept._kept) == 1  # noqa: SLF001 - what is kept is seen nowhere else
