"""Views of a store that was written by hand."""

import json
from typing import Any

import pytest
from paper_acquisition import write_acquisition
from paper_session import HOSTILE, T0, PaperSession, new_session, picks_block

from icestream.errors import SessionError
from icestream.flow.storage import schema
from icestream.observe.answers import Counts
from icestream.observe.order import workflow_order
from icestream.observe.queries import SessionView, open_view
from icestream.records import CtfFit, Picks


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> PaperSession:
    written = write_acquisition(tmp_path_factory.mktemp("paper"))
    written.store.close("every stream closed")
    return written


@pytest.fixture
def view(paper):
    with open_view(paper.session) as opened:
        yield opened


def by_name(view: SessionView) -> dict:
    return {step.name: step for step in view.steps()}


def fit(resolution_ang: float) -> CtfFit:
    return CtfFit(defocus_u_ang=1e4, defocus_v_ang=9e3, astigmatism_angle_deg=0, score=0.2, resolution_ang=resolution_ang)


def test_a_session_that_has_not_started_is_empty(tmp_path):
    session = new_session(tmp_path / "nowhere", {"movies": {"use": "import_movies"}})
    with open_view(session) as view:
        overview = view.overview()
        assert overview.runner.state == "not started"
        assert (overview.exposures, overview.items, overview.failed, overview.started_at) == (0, 0, 0, None)
        (step,) = view.steps()
        assert (step.name, step.kind, step.revision_id, step.counts) == ("movies", None, None, Counts())
        assert view.failed() == view.rejected() == view.notices() == view.changes_since(0) == view.snapshots("movies") == []
        assert list(view.records("movies")) == []
        with pytest.raises(SessionError, match="has not started"):
            view.trace("anything")


def test_a_view_sees_the_store_that_appears_later(tmp_path):
    session = new_session(tmp_path, {"movies": {"use": "import_movies"}})
    with open_view(session) as view:
        assert view.overview().exposures == 0
        paper = PaperSession(session)
        paper.revise("movies", "source")
        paper.expose("a", 1)
        overview = view.overview()
        assert (overview.exposures, overview.runner.state, overview.runner.alive) == (1, "running", True)


def test_a_runner_that_died_is_interrupted(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"movies": {"use": "import_movies"}}))
    with paper.store.transaction() as connection:
        connection.execute(schema.runner.update().values(pid_started=1.0))
    with open_view(paper.session) as view:
        assert view.overview().runner.state == "interrupted"


def test_overview_counts(view):
    overview = view.overview()
    assert overview.exposures == 40
    assert overview.items == 40 + 3 * 39 + 3 * 34
    assert (overview.rejected, overview.failed) == (5, 1)
    assert (overview.started_at, overview.updated_at) == (T0 + 60, T0 + 2400)
    assert overview.runner.state == "stopped"
    assert overview.runner.note == "every stream closed"


def test_step_counts_weights_streams_and_record_types(view):
    steps = by_name(view)
    assert steps["align"].counts == Counts(item=39, failed=1)
    assert steps["good"].counts == Counts(item=34, rejected=5, skipped=1)
    assert steps["find"].weight == sum(60 + n % 30 for n in range(1, 41) if n != 3 and n % 7)
    assert (steps["movies"].stream, steps["movies"].stream_reason) == ("closed", "no new file for 10 minutes")
    assert steps["align"].stream is None
    assert [step.records.get("out") for step in steps.values()] == [
        *("Movie", "Micrograph", "CtfFit", "CtfFit", None, "Picks", "ClassAverages")
    ]
    assert (steps["align"].pace.median_wall_s, steps["align"].pace.median_cpu_s) == (4.0, 7.0)
    assert steps["good"].pace.median_wall_s is None
    assert steps["align"].params == {"note": HOSTILE}


def test_rates_are_recent_and_compared_with_the_mean(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"movies": {"use": "import_movies"}}))
    paper.revise("movies", "source")
    for index in range(1, 61):
        paper.now = T0 + (index * 60 if index <= 30 else 1800 + (index - 30) * 20)
        paper.settle("movies", paper.expose(f"m{index}", index))
    paper.store.close("done")
    with open_view(paper.session) as view:
        (step,) = view.steps(recent_minutes=5)
    assert step.pace.per_minute == pytest.approx(3.2, abs=0.01)  # both ends of the five minutes count
    assert step.pace.mean_per_minute == pytest.approx(60 / (2340 / 60))
    assert step.pace.trend == "rising"


@pytest.mark.parametrize(("seconds", "per_minute"), [(0.0, None), (9.0, None), (30.0, 10.0)])
def test_what_was_decided_in_a_moment_has_no_rate(tmp_path, seconds, per_minute):
    paper = PaperSession(new_session(tmp_path, {"movies": {"use": "import_movies"}}))
    paper.revise("movies", "source")
    for index in range(5):
        paper.now = T0 + seconds * index / 4
        paper.settle("movies", paper.expose(f"m{index}", index))
    paper.store.close("done")
    with open_view(paper.session) as view:
        (step,) = view.steps()
    assert step.pace.per_minute == per_minute


def test_waiting_and_running_make_up_the_rest(tmp_path):
    steps: dict[str, dict[str, Any]] = {
        "movies": {"use": "a"},
        "align": {"use": "b", "in": {"m": "movies"}},
        "cut": {"use": "c", "in": {"items": "align"}},
    }
    steps["map3d"] = {"use": "d", "in": {"batch": "cut"}}
    paper = PaperSession(new_session(tmp_path, steps))
    for (step, spec), kind in zip(steps.items(), ("source", "map", "collect", "map"), strict=True):
        paper.revise(step, kind, links={port: [target] for port, target in spec.get("in", {}).items()})
    units = [paper.expose(f"m{index}", index) for index in range(1, 11)]
    for unit in units:
        paper.settle("movies", unit)
    for unit in units[:4]:
        paper.settle("align", unit)
    lease = {"revision": 2, "attempt": "x", "fence": 1, "worker": "w", "started_at": T0}
    paper.add(schema.lease, unit=units[4], **lease)
    with open_view(paper.session) as view:
        found = by_name(view)
    assert (found["align"].counts.running, found["align"].counts.waiting) == (1, 5)
    assert found["movies"].counts.waiting == 0
    assert found["cut"].counts.waiting == 10
    assert found["map3d"].counts.waiting == 0  # it works on batches, of which there is none


def test_failed_lists_failures_and_no_skipped_unit(view):
    (item,) = view.failed()
    assert (item.step, item.exposure, item.kind, item.attempts) == ("align", "FoilHole_2913_0003", "error", 2)
    assert item.reason.startswith("frame 7 is broken")
    assert item.traceback == "Traceback of attempt 1"
    assert view.failed("ctf_a") == []
    with pytest.raises(SessionError, match="is not a step of this session; its steps are movies, align"):
        view.failed("ctf")


def test_rejected_and_reasons(view):
    assert [item.exposure[-4:] for item in view.rejected("good")] == ["0035", "0028", "0021", "0014", "0007"]
    (reason,) = view.reasons("rejected")
    assert (reason.step, reason.count) == ("good", 5)


def test_what_arrived_broken_is_failed_without_an_attempt(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"movies": {"use": "import_movies"}}))
    paper.revise("movies", "source")
    paper.settle("movies", paper.expose("m", 1), "failed", weight=0, reason="the file is cut short")
    with open_view(paper.session) as view:
        (item,) = view.failed()
    assert (item.reason, item.kind, item.traceback, item.attempts) == ("the file is cut short", None, None, 1)


def many_fits(folder, n: int) -> PaperSession:
    steps = {"ctf": {"use": "ctf"}}
    paper = PaperSession(new_session(folder, steps))
    paper.revise("ctf", "map")
    rows: dict = {"exposure": [], "result": [], "outcome": []}
    for index in range(1, n + 1):
        unit, seq, record = f"{index:032d}", paper.store.next_seq(), fit(3 + index / 1000).model_dump_json()
        arrival = {"source": "movies", "acquisition": "{}", "arrived_at": T0, "seq": 0}
        rows["exposure"].append({"unit": unit, "ordinal": index, "name": f"m{index}", "identity": "i", **arrival})
        fixed = {"revision": 1, "unit": unit, "weight": 1}
        cost = {"wall_s": 1.0, "cpu_s": 1.0, "host": "h", "software": "9", "created_at": T0}
        text = {"inputs": "{}", "params": "{}", "acquisition": "{}", "record": record}
        rows["result"].append({"key": f"k{index}", "record_type": "CtfFit", "record_version": 1, **fixed, **cost, **text})
        rows["outcome"].append({"status": "item", "keys": json.dumps({"out": f"k{index}"}), "at": T0, "seq": seq, **fixed})
    paper.add_many(rows)
    return paper


def test_records_come_in_order_over_pages_from_both_ends(tmp_path):
    paper = many_fits(tmp_path, 1000)
    with open_view(paper.session) as view:
        forward = list(view.records("ctf"))
        backward = list(view.records("ctf", newest_first=True))
        assert [record.ordinal for record in forward] == list(range(1, 1001))
        assert [record.ordinal for record in backward] == list(range(1000, 0, -1))
        assert [record.ordinal for record in view.records("ctf", newest_first=True, limit=3)] == [1000, 999, 998]
        later = forward[799].seq
        assert [record.ordinal for record in view.records("ctf", since_seq=later)] == list(range(801, 1001))
        assert len(list(view.records("ctf", since_seq=later, newest_first=True, limit=500))) == 200
        assert [record.ordinal for record in view.records("ctf", since_seq=later, limit=2)] == [801, 802]
        assert forward[0].record["resolution_ang"] == pytest.approx(3.001)
        assert view.records_of("ctf", [forward[4].unit])[forward[4].unit] == forward[4]


def test_records_of_other_outputs_and_their_blocks(view):
    rejected = list(view.records("good", output="rejected"))
    assert [record.ordinal for record in rejected] == [7, 14, 21, 28, 35]
    assert {record.record_type for record in rejected} == {"CtfFit"}
    assert list(view.records("good", output="assignments")) == []
    newest = next(view.records("find", newest_first=True, limit=1))
    assert len(newest.block) == len(picks_block([(0.0, 0.0)] * newest.record["count"]))


def test_snapshots_newest_first(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"classes": {"use": "classify2d"}}))
    paper.revise("classes", "accumulate")
    for version in (1, 2, 3):
        paper.publish("classes", version, fit(version))
    with open_view(paper.session) as view:
        assert [one.version for one in view.snapshots("classes")] == [3, 2, 1]
        assert view.snapshots("classes", limit=1)[0].record["resolution_ang"] == 3


def test_notices_and_changes(view):
    assert [notice.level for notice in view.notices()] == ["info", "alert"]
    changes = view.changes_since(0, limit=100_000)
    assert [change.seq for change in changes] == sorted(change.seq for change in changes)
    assert {change.what for change in changes} == {"exposure", "outcome", "snapshot", "stream", "failure", "notice"}
    middle = changes[len(changes) // 2].seq
    assert view.changes_since(middle, limit=5) == [change for change in changes if change.seq > middle][:5]
    (snapshot,) = [change for change in changes if change.what == "snapshot"]
    assert (snapshot.step, snapshot.detail) == ("classes", "version 1")


def test_workflow_order_keeps_the_document_where_it_can(tmp_path):
    steps = {"b": {"use": "x", "in": {"p": ["a", "c.rejected"]}}, "a": {"use": "x"}, "c": {"use": "x", "in": {"p": "a"}}}
    assert workflow_order(new_session(tmp_path, steps).document) == ["a", "c", "b"]
    circle = {"b": {"use": "x", "in": {"p": "a"}}, "a": {"use": "x", "in": {"p": "b"}}}
    assert sorted(workflow_order(new_session(tmp_path, circle).document)) == ["a", "b"]


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"movies": {"use": "import_movies"}}))
    with paper.store.transaction() as connection:
        connection.execute(schema.runner.update().values(schema_version=99))
    with open_view(paper.session) as view, pytest.raises(SessionError, match="has schema 99"):
        view.overview()


def test_a_file_that_is_no_store_is_named(tmp_path):
    session = new_session(tmp_path, {"movies": {"use": "import_movies"}})
    session.store_path.write_bytes(b"not a database" * 100)
    with open_view(session) as view, pytest.raises(SessionError, match=r"icestream\.db: cannot be read as a store"):
        view.overview()


def test_a_picks_record_needs_its_block_only_when_asked(tmp_path):
    paper = PaperSession(new_session(tmp_path, {"find": {"use": "pick_blob"}}))
    paper.revise("find", "map")
    block = picks_block([(1.0, 2.0)])
    paper.make("find", paper.expose("m", 1), Picks(count=1, diameter_ang=100, block=block), block=block)
    with open_view(paper.session) as view:
        (record,) = view.records("find")
        assert "block" not in record.record
        assert record.block == block
