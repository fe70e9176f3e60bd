"""Tracing one exposure."""

import json

import pytest
from paper_acquisition import write_acquisition
from paper_session import PaperSession

from icestream.errors import SessionError
from icestream.flow.storage import schema
from icestream.observe.queries import open_view


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> PaperSession:
    written = write_acquisition(tmp_path_factory.mktemp("traced"), 12)
    with open_view(written.session) as view:
        unit = view.trace("FoilHole_2913_0004").unit
    revision = written.revisions["classes"]
    log = {"weight": 1, "closing": False, "state_key": "s", "absorbed": True, "at": written.now}
    written.add(schema.accumulator_log, revision=revision, position=3, members=json.dumps([[unit, {"picks": "k"}]]), **log)
    written.add(schema.binding, revision=written.revisions["align"], unit=unit, port="gain#0", version=2, key="gainkey")
    written.store.close("done")
    return written


@pytest.fixture
def view(paper):
    with open_view(paper.session) as opened:
        yield opened


def test_a_trace_tells_everything_step_by_step(view):
    trace = view.trace("FoilHole_2913_0004")
    assert (trace.ordinal, trace.source, trace.acquisition) == (4, "movies", {"voltage_kv": 300.0})
    assert trace.files == ("raw:day1/FoilHole_2913_0004.tif",)
    assert trace.identity == "FoilHole_2913_0004|7|abc"
    steps = {step.step: step for step in trace.steps}
    assert list(steps) == ["movies", "align", "ctf_a", "ctf_b", "good", "find", "classes"]
    (micrograph,) = steps["align"].results
    assert micrograph.inputs == {"movie": [steps["movies"].results[0].key]}
    assert (micrograph.wall_s, micrograph.cpu_s, micrograph.host, micrograph.software) == (4.0, 7.0, "node1", "9.9")
    assert micrograph.files == ("session:steps/align/4.mrc", "session:steps/align/4.png")
    assert (steps["align"].type_version, steps["align"].revision, steps["align"].use) == (2, 1, "motion")
    assert [(bound.port, bound.version) for bound in steps["align"].bindings] == [("gain#0", 2)]
    assert steps["classes"].log_positions == (3,)
    assert steps["movies"].log_positions == ()


def test_a_failed_exposure_names_the_root(view):
    steps = {step.step: step for step in view.trace("FoilHole_2913_0003").steps}
    assert steps["align"].status == "failed"
    assert (steps["find"].status, steps["find"].root) == ("skipped", "align")


def test_an_exposure_is_found_by_id_file_and_key(view):
    wanted = view.trace("FoilHole_2913_0004")
    key = wanted.steps[1].results[0].key
    for name in (
        wanted.unit,
        wanted.unit[:10],
        "FoilHole_2913_0004.tif",
        "raw:day1/FoilHole_2913_0004.tif",
        "2913_0004",
        key,
        key[:9],
    ):
        assert view.trace(name).unit == wanted.unit


def test_an_ambiguous_name_lists_candidates_and_an_unknown_one_says_so(view):
    with pytest.raises(SessionError, match=r"could be any of: .*FoilHole_2913_0001 \(.*…"):
        view.trace("FoilHole_2913")
    with pytest.raises(SessionError, match="no exposure, file or result"):
        view.trace("100%_")
    with pytest.raises(SessionError, match="no name was given"):
        view.trace("")


def test_the_key_of_a_snapshot_leads_to_no_single_exposure(view):
    (newest,) = view.snapshots("classes")
    with pytest.raises(SessionError, match="made from many exposures"):
        view.trace(newest.key)
