"""The metrics of a session: what they count, under which names, and that neither their number nor their cost grows with it."""

import re
import threading
from collections import defaultdict
from typing import Any

import pytest
from paper_acquisition import write_acquisition
from paper_every_record import write_every_record
from paper_session import T0, PaperSession, new_session
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, event, text
from sqlalchemy.engine import Engine

from icestream.flow.storage import schema
from icestream.observe.measured import list_measures, measure_series
from icestream.observe.metrics import names
from icestream.observe.metrics.families import Family, Samples
from icestream.observe.metrics.host import HostReader
from icestream.observe.metrics.influx import write_lines
from icestream.observe.metrics.measured import base_name, quantiles
from icestream.observe.metrics.newest import NEWEST, ResultReader
from icestream.observe.metrics.session import SessionMetrics
from icestream.observe.metrics.tally import RECOUNT_S, SOONEST_RECOUNT_S, Tally
from icestream.observe.queries import SessionView, open_view
from icestream.records import CtfFit

STEPS: dict[str, dict[str, Any]] = {
    "movies": {"use": "import_movies"},
    "ctf": {"use": "ctf", "in": {"micrograph": "movies"}},
    "good": {"use": "ctf_filter", "in": {"ctf": "ctf"}},
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def look(metrics: SessionMetrics, paper: PaperSession) -> dict[tuple, float]:
    """Return the samples by name and labels."""
    with open_view(paper.session) as view:
        samples = list(metrics.read(view))
    found = {(name, *labels.values()): value for name, labels, value in samples}
    assert len(found) == len(samples)
    return found


@pytest.fixture
def paper(tmp_path):
    paper = PaperSession(new_session(tmp_path / "lysozyme", STEPS, acquisition={"pixel_size_ang": 0.8}))
    for (step, spec), kind in zip(STEPS.items(), ("source", "map", "filter"), strict=True):
        paper.revise(step, kind, links={port: [target] for port, target in spec.get("in", {}).items()})
    return paper


def fit(resolution_ang: float) -> CtfFit:
    return CtfFit(defocus_u_ang=10_200, defocus_v_ang=9_800, astigmatism_angle_deg=0, score=0.3, resolution_ang=resolution_ang)


def expose(paper: PaperSession, number: int, *, resolution_ang: float = 4.0, delay_s: float = 30.0) -> str:
    """Let an exposure arrive, and its CTF a while later."""
    unit = paper.expose(f"m{number}", number)
    paper.settle("movies", unit, keys={"out": f"movie{number}"})
    paper.now += delay_s
    key = paper.make("ctf", unit, fit(resolution_ang), wall_s=3.0, cpu_s=2.0)
    paper.settle("good", unit, "item", {"out": key})
    return unit


def test_two_who_look_at_once_are_counted_for_one_after_the_other(paper, monkeypatch):
    expose(paper, 1)
    metrics, go, inside = SessionMetrics("s"), threading.Event(), threading.Semaphore(0)
    read, most, now = SessionMetrics._read, 0, 0  # noqa: SLF001

    def slow(self: SessionMetrics, view: SessionView) -> Samples:
        nonlocal most, now
        now += 1
        most = max(most, now)
        inside.release()
        go.wait(timeout=60)
        found = read(self, view)
        now -= 1
        return found

    monkeypatch.setattr(SessionMetrics, "_read", slow)
    threads = [threading.Thread(target=look, args=(metrics, paper)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=60)
    assert not inside.acquire(timeout=0.1)  # the other one waits
    go.set()
    for thread in threads:
        thread.join(timeout=60)
    assert (most, metrics.tally.exposures) == (1, 1)


def test_counts_delays_and_measures_of_a_session(paper):
    for number in range(1, 5):
        expose(paper, number, resolution_ang=float(number))
    late = paper.expose("m5", 5)
    paper.settle("movies", late)
    paper.fail("ctf", late, "too dark", attempts=3)
    paper.settle("good", late, "skipped", weight=0, root="ctf", reason="too dark")
    paper.expose("m6", 6)
    found = look(SessionMetrics("lysozyme"), paper)
    assert found["icestream_exposures_total", "lysozyme"] == 6
    assert found["icestream_exposure_last_timestamp_seconds", "lysozyme"] == T0 + 120
    assert found["icestream_exposure_rate_hertz", "lysozyme"] == pytest.approx(5 / 120)
    units = {state: found["icestream_step_units", "lysozyme", "ctf", state] for state in ("item", "failed", "waiting", "running")}
    assert units == {"item": 4, "failed": 1, "waiting": 1, "running": 0}
    assert found["icestream_step_units", "lysozyme", "good", "skipped"] == 1
    assert found["icestream_step_failures_total", "lysozyme", "ctf", "error"] == 3
    assert found["icestream_step_latency_seconds", "lysozyme", "ctf", "0.5"] == 30
    assert found["icestream_step_latency_seconds", "lysozyme", "good", "0.5"] == 30
    assert found["icestream_step_wall_seconds", "lysozyme", "ctf", "0.9"] == 3
    assert ("icestream_step_wall_seconds", "lysozyme", "good", "0.9") not in found  # a filter computes nothing
    assert found["icestream_ctf_resolution_angstroms", "lysozyme", "ctf", "0.5"] == 2.5
    assert found["icestream_ctf_defocus_angstroms", "lysozyme", "ctf", "0.5"] == pytest.approx(10_000)
    assert ("icestream_ctf_resolution_angstroms", "lysozyme", "good", "0.5") not in found  # it made no CTF
    assert found["icestream_session_info", "lysozyme", "paper", "9.9"] == 1
    assert found["icestream_session_state", "lysozyme", "running"] == 1
    assert (
        0 < found["icestream_disk_free_bytes", "lysozyme", "session"] < found["icestream_disk_size_bytes", "lysozyme", "session"]
    )


def test_a_session_without_a_store_says_its_state_and_its_disk(tmp_path):
    session = new_session(tmp_path, STEPS)
    with open_view(session) as view:
        found = {name for name, _, _ in SessionMetrics("new").read(view)}
    assert found == {"icestream_session_state", "icestream_disk_free_bytes", "icestream_disk_size_bytes"}


def test_later_looks_equal_a_first_one(paper):
    followed = SessionMetrics("s")
    expose(paper, 1)
    look(followed, paper)
    for number in range(2, 2 * NEWEST):
        expose(paper, number, resolution_ang=3 + number / 100)
        if number % 17 == 0:
            assert steady(look(followed, paper)) == steady(look(SessionMetrics("s"), paper))
    paper.stream("movies", "closed", "all there")
    assert steady(look(followed, paper)) == steady(look(SessionMetrics("s"), paper))


def steady(found: dict) -> dict:
    """Return samples without those that change by themselves."""
    return {key: value for key, value in found.items() if not key[0].startswith("icestream_disk")}


def test_the_window_forgets_what_is_older(paper):
    for number in range(1, NEWEST + 1):
        expose(paper, number, resolution_ang=9.0)
    followed = SessionMetrics("s")
    assert look(followed, paper)["icestream_ctf_resolution_angstroms", "s", "ctf", "0.9"] == 9
    for number in range(NEWEST + 1, 2 * NEWEST + 1):
        expose(paper, number, resolution_ang=3.0)
        if number % 7 == 0:
            look(followed, paper)
    assert look(followed, paper)["icestream_ctf_resolution_angstroms", "s", "ctf", "0.9"] == 3


def test_a_replaced_outcome_is_counted_once_and_the_decisions_never_fall(paper):
    clock = Clock()
    followed = SessionMetrics("s", Tally(clock))
    units = [expose(paper, number) for number in range(1, 4)]
    look(followed, paper)
    again(paper, units[0], "rejected")  # nobody asked: a sidecar came late
    clock.now += SOONEST_RECOUNT_S
    expose(paper, 4)
    found = look(followed, paper)
    assert (found["icestream_step_units", "s", "good", "item"], found["icestream_step_units", "s", "good", "rejected"]) == (3, 1)
    outcomes = [found["icestream_step_outcomes_total", "s", "good", status] for status in ("item", "rejected")]
    assert outcomes == [4, 1]
    again(paper, units[0], None)  # dropped by a command, and not decided yet
    paper.add(schema.command, id=1, kind="retry", arguments="{}", author="anna", at=1.0, state="done", answer="", done_at=2.0)
    found = look(followed, paper)
    assert (found["icestream_step_units", "s", "good", "rejected"], found["icestream_step_units", "s", "good", "waiting"]) == (
        0,
        1,
    )
    assert found["icestream_step_outcomes_total", "s", "good", "rejected"] == 1


def again(paper: PaperSession, unit: str, status: str | None) -> None:
    """Drop an outcome, and decide it again."""
    table = schema.outcome
    with paper.store.transaction() as connection:
        connection.execute(delete(table).where((table.c.unit == unit) & (table.c.revision == paper.revisions["good"])))
    if status is not None:
        paper.settle("good", unit, status, reason="again")


def test_what_no_sign_shows_is_counted_again_after_a_while(paper):
    clock = Clock()
    followed = SessionMetrics("s", Tally(clock))
    unit = expose(paper, 1)
    paper.expose("m2", 2)  # behind, so that one outcome too many does not show
    look(followed, paper)
    again(paper, unit, "rejected")
    assert look(followed, paper)["icestream_step_units", "s", "good", "item"] == 1
    clock.now += RECOUNT_S
    paper.expose("m3", 3)
    assert look(followed, paper)["icestream_step_units", "s", "good", "item"] == 0


def test_a_look_that_breaks_off_counts_nothing_twice_and_loses_nothing(paper, monkeypatch):
    followed = SessionMetrics("s")
    expose(paper, 1)
    look(followed, paper)
    expose(paper, 2, resolution_ang=8.0)
    with monkeypatch.context() as broken:
        broken.setattr(ResultReader, "read", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            look(followed, paper)
    expose(paper, 3)
    assert steady(look(followed, paper)) == steady(look(SessionMetrics("s"), paper))


def test_another_session_of_the_same_name_begins_at_zero(paper, tmp_path):
    followed = SessionMetrics("s")
    for number in range(1, 9):
        expose(paper, number)
    look(followed, paper)
    other = write_acquisition(tmp_path / "other", 3)
    found = look(followed, other)
    assert found["icestream_exposures_total", "s"] == 3
    assert found["icestream_step_outcomes_total", "s", "movies", "item"] == 3


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
BULK = {
    "exposure": "SELECT 'u' || i, i, 'm' || i, 'x', 'movies', '{}', :t0 + i, NULL, i FROM n",
    "result": "SELECT 'k' || i, 2, 'u' || i, :type, :version, :record, NULL, 1, '', '{}', '{}', 3.0, 2.0, 'h', '9.9', 0 FROM n",
    "outcome": "SELECT r.id, 'u' || i, CASE WHEN r.step = 'good' AND i % 3 = 0 THEN 'rejected' ELSE 'item' END, "
    "json_object('out', 'k' || i), 1, 'defocus is ' || i, NULL, NULL, :t0 + i, r.id * :count + i FROM n, revision r",
}


def fill(paper: PaperSession, count: int) -> None:
    """Store exposures in bulk: every CTF an item, and every third exposure rejected for a reason of its own."""
    values = {"count": count, "t0": T0, "type": CtfFit.stored_name, "version": CtfFit.schema_version}
    with paper.store.transaction() as connection:
        for table, rows in BULK.items():
            given = {
                name: value
                for name, value in (values | {"record": fit(4.0).model_dump_json()}).items()
                if f":{name}" in NUMBERS + rows
            }
            connection.execute(text(f"INSERT INTO {table} {NUMBERS} {rows}"), given)
        paper.store.seq = 4 * count


def cost_of(metrics: SessionMetrics, paper: PaperSession) -> int:
    """Return how many steps SQLite took for a look, in hundreds."""
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    def watch(connection, _record) -> None:
        connection.set_progress_handler(count, 100)

    event.listen(Engine, "connect", watch)
    try:
        look(metrics, paper)
    finally:
        event.remove(Engine, "connect", watch)
    return steps[0]


def test_neither_samples_nor_cost_grow_with_the_session(tmp_path):
    """50,000 exposures, 16,666 of them rejected for a reason of their own."""
    sizes, costs = set(), {}
    for count in (3_000, 50_000):
        paper = PaperSession(new_session(tmp_path / str(count), STEPS))
        for (step, spec), kind in zip(STEPS.items(), ("source", "map", "filter"), strict=True):
            paper.revise(step, kind, links={port: [target] for port, target in spec.get("in", {}).items()})
        fill(paper, count)
        metrics = SessionMetrics("s")
        found = look(metrics, paper)
        assert found["icestream_step_units", "s", "good", "rejected"] == count // 3
        assert found["icestream_step_units", "s", "good", "waiting"] == 0
        sizes.add(len(found))
        for number in range(4):
            expose(paper, count + 1 + number)
        costs[count] = cost_of(metrics, paper)
        assert look(metrics, paper)["icestream_exposures_total", "s"] == count + 4
        paper.store.close("enough")
    assert len(sizes) == 1
    assert max(sizes) < 120
    assert costs[50_000] < 1.05 * costs[3_000]


def test_every_measure_that_records_declare_is_told_in_base_units(tmp_path):
    paper = write_every_record(tmp_path / "every")
    with open_view(paper.session) as view:
        steps, samples = view.steps(), SessionMetrics("every").read(view)
        series = measure_series(view, steps, list_measures(view, steps))
    told = {(name, labels.get("step")) for name, labels, _ in samples}
    measured = {(base_name(one.measure.declared.metric)[0], one.measure.step) for one in series}
    assert len(measured) > 40
    assert measured - told == set()
    middle = {
        (name, labels["step"]): value
        for name, labels, value in samples
        if labels.get("quantile", "0.5") == "0.5"
        if "step" in labels
    }
    for one in series:
        name, factor = base_name(one.measure.declared.metric)
        expected = one.values[-1] if one.measure.whole else one.median
        assert middle[name, one.measure.step] == pytest.approx(expected * factor), one.measure.id
    for family in text_string_to_metric_families(samples.text()):
        assert re.fullmatch(r"icestream_[a-z0-9_]+", family.name), family.name
        assert not family.name.endswith(("_percent", "_micrometers", "_ms", "_mb", "_gb", "_minutes", "_hours")), family.name
        assert (bool(family.documentation), family.type != "unknown") == (True, True), family.name


def test_the_list_of_metrics_is_what_is_told(tmp_path):
    told: dict[str, set] = defaultdict(set)
    samples = Samples()
    gpu = "0, 35, 2048, 24576, 61\n"
    samples.extend(HostReader(lambda: gpu).read())
    samples.add(names.BUILD, 1, "1.0")
    samples.add(names.SESSIONS, 1, "running")
    for paper in (write_every_record(tmp_path / "every"), write_acquisition(tmp_path / "acquisition", 24)):
        with open_view(paper.session) as view:
            samples.extend(SessionMetrics(paper.session.folder.name).read(view))
    for name, labels, _ in samples:
        told[name].add(tuple(labels))
    for family in names.ALL:
        assert told[family.name] == {family.labels}, family.name


def test_gpus_are_asked_now_and_then_and_what_a_driver_does_not_know_is_left_out():
    clock, asked = Clock(), []

    def ask() -> str:
        asked.append(1)
        return "0, 35, 2048, 24576, 61\n1, [N/A], 0, 24576, [N/A]\n"

    host = HostReader(ask, clock)
    found = {(name, labels.get("gpu"), labels.get("state")): value for name, labels, value in host.read()}
    assert found["icestream_host_gpu_use_ratio", "0", None] == 0.35
    assert found["icestream_host_gpu_memory_bytes", "0", "used"] == 2**31
    assert found["icestream_host_gpu_temperature_celsius", "0", None] == 61
    assert found["icestream_host_gpu_memory_bytes", "1", "total"] == 24 * 2**30
    assert ("icestream_host_gpu_use_ratio", "1", None) not in found
    host.read()
    assert len(asked) == 1
    clock.now += 60
    host.read()
    assert len(asked) == 2


def test_lengths_in_pixels_are_left_out_where_nobody_knows_the_pixel_size(tmp_path):
    told = {}
    for size in (0.8, None):
        paper = write_acquisition(tmp_path / str(size), 4)
        acquisition = paper.session.document.acquisition.model_copy(update={"pixel_size_ang": size})
        session = type(paper.session)(
            paper.session.folder, paper.session.document.model_copy(update={"acquisition": acquisition})
        )
        with open_view(session) as view:
            told[size] = {name for name, _, _ in SessionMetrics("s").read(view)}
    assert told[0.8] - told[None] == {"icestream_motion_total_angstroms", "icestream_motion_early_angstroms"}


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("ctf_resolution_angstroms", ("icestream_ctf_resolution_angstroms", 1.0)),
        ("gain_noise_percent", ("icestream_gain_noise_ratio", 0.01)),
        ("ctf_defocus_micrometers", ("icestream_ctf_defocus_angstroms", 1e4)),
        ('Spots "seen", in %\nup 1', ("icestream_spots_seen_in_up_1", 1.0)),
    ],
)
def test_a_metric_is_told_under_a_name_that_prometheus_reads(declared, told):
    assert base_name(declared) == told


def test_quantiles_lie_between_neighbours():
    assert quantiles([]) == {}
    assert quantiles([7.0]) == {"0.1": 7.0, "0.5": 7.0, "0.9": 7.0}
    assert quantiles([3.0, 1.0, 2.0, 5.0, 4.0]) == pytest.approx({"0.1": 1.4, "0.5": 3.0, "0.9": 4.6})


HOSTILE = 'a "quoted"\\, tag=1\nicestream_up 1 \\'


def test_labels_that_nobody_expected_stay_labels():
    family = Family("icestream_x_total", "counter", "Any", ("session", "step"))
    samples = Samples()
    samples.add(family, 2, HOSTILE, "ctf")
    (read,) = text_string_to_metric_families(samples.text())
    assert [(one.labels, one.value) for one in read.samples] == [({"session": HOSTILE, "step": "ctf"}, 2.0)]
    lines = write_lines(samples, at_s=1.5).splitlines()
    assert lines == ['icestream_x_total,session=a\\ "quoted"\\\\,\\ tag\\=1\\ icestream_up\\ 1\\ ,step=ctf value=2.0 1500000000']


def test_a_sample_needs_the_labels_of_its_family_and_a_number():
    samples = Samples()
    family = Family("icestream_y", "gauge", "Any", ("session",))
    with pytest.raises(ValueError, match="zip"):
        samples.add(family, 1.0)
    samples.add(family, None, "s")
    samples.add(family, float("nan"), "s")
    assert [value for _, _, value in samples] == [pytest.approx(float("nan"), nan_ok=True)]
    assert write_lines(samples, at_s=0) == ""
