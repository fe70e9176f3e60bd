"""Event tables: what is seen, and which alarms come and go."""

import pytest

from alarms.seen import T0, Story, measured, sample
from icestream.alarms.defaults import DEFAULT_RULES
from icestream.alarms.evaluate import SESSION_OVER, evaluate
from icestream.alarms.observations import (
    ArrivalsSeen,
    Gpu,
    LostWorker,
    Observations,
    RecentOutcome,
    RunnerSeen,
    StepSeen,
    Totals,
    TransferSeen,
)
from icestream.alarms.rules import (
    AgeingRule,
    BacklogRule,
    DiskRule,
    DriftRule,
    MeasureRule,
    RunnerLostRule,
    StalledRule,
    StepFailingRule,
    SummaryRule,
    SystemRule,
    TransferRule,
    WorkerLostRule,
)
from icestream.alarms.state import AlarmState

DEFOCUS = "ctf:ctf_defocus_micrometers"
MEASURE = "ctf_defocus_micrometers"


def seen(*values: float, **kinds: object) -> Observations:
    return Observations(measured=(measured(values, **kinds),))


def test_hysteresis_in_counts_and_in_values():
    rule = MeasureRule(name="r", measure=MEASURE, low=0.5, high=3.0, window=4, count=3, clear_count=1, margin=0.2)
    story = Story(rule)
    table = [
        ((1, 1, 1, 1), []),
        ((1, 1, 4, 4), []),
        ((1, 4, 4, 0.1), [f"+{DEFOCUS}"]),
        ((4, 4, 1, 1), []),  # two are outside, one would be few enough
        ((4, 2.9, 1, 1), []),  # 2.9 is inside by less than the margin
        ((4, 2.7, 1, 1), [f"-{DEFOCUS}"]),
    ]
    for minute, (values, expected) in enumerate(table):
        assert story.words(seen(*values), T0 + minute) == expected, values


def test_an_alarm_says_since_when_how_many_and_which_first_and_counts_each_once():
    story = Story(MeasureRule(name="r", measure=MEASURE, high=3.0, window=5, count=1))
    (raised,) = story.see(seen(1, 1, 4, 5), T0 + 1000).opened
    assert (raised.number, raised.exposures, raised.first, raised.newest) == (1, 2, "e003", "e004")
    assert raised.since == T0 + 180
    assert raised.detail == "2 of the newest 4 exposures are outside the limits (at most 3\N{NO-BREAK SPACE}µm); " + (
        "the worst is 5\N{NO-BREAK SPACE}µm (e004)"
    )
    assert raised.page == "exposures/e004"
    assert story.see(seen(1, 1, 4, 5), T0 + 1001).state.open[raised.key].exposures == 2
    later = story.see(seen(1, 1, 4, 5, 1, 9, 9), T0 + 1002).state.open[raised.key]
    assert (later.exposures, later.first, later.newest) == (4, "e003", "e007")
    (ended,) = story.see(seen(*[1] * 9), T0 + 1003).ended
    assert (ended.ended_at, ended.ended_because, ended.exposures) == (T0 + 1003, "it is well again", 4)
    (again,) = story.see(seen(*[1] * 9, 7), T0 + 1004).opened
    assert (again.number, again.first) == (2, "e010")


def test_a_rule_holds_for_each_step_that_has_the_measure_or_for_one():
    two = Observations(
        measured=(measured([5.0]), measured([5.0]).__class__(**{**measured([5.0]).__dict__, "id": f"b:{MEASURE}", "step": "b"}))
    )
    assert Story(MeasureRule(name="r", measure=MEASURE, high=3.0)).words(two, T0) == [f"+{DEFOCUS}", f"+b:{MEASURE}"]
    assert Story(MeasureRule(name="r", measure=f"b:{MEASURE}", high=3.0)).words(two, T0) == [f"+b:{MEASURE}"]


def test_the_newest_version_of_a_whole_is_judged_alone():
    story = Story(MeasureRule(name="r", measure="gain", high=1.15, window=20, count=5))
    assert story.words(seen(1.2, 1.1, whole=True, metric="gain"), T0) == []
    assert story.words(seen(1.1, 1.2, whole=True, metric="gain"), T0) == ["+ctf:gain"]


STEADY = [3.0, 3.2, 2.9, 3.1, 3.0, 2.8, 3.3, 3.1, 2.9, 3.0] * 4


def test_drift_by_windows():
    story = Story(DriftRule(name="r", measure=MEASURE, window=10, reference=40, shift=3.0, least_change=0.3))
    assert story.words(seen(*STEADY), T0) == []
    assert story.words(seen(*STEADY[10:], *[value + 1 for value in STEADY[:10]]), T0) == [f"+{DEFOCUS}"]
    alarm = story.state.open[f"r/{DEFOCUS}"]
    assert "from 3\N{NO-BREAK SPACE}µm to 4\N{NO-BREAK SPACE}µm" in alarm.detail
    assert (alarm.exposures, alarm.first) == (10, "e031")
    assert story.words(seen(*[value + 1 for value in STEADY]), T0) == [f"-{DEFOCUS}"]


@pytest.mark.parametrize(("better", "direction", "raised"), [
    ("low", "worse", True), ("high", "worse", False), (None, "worse", True), ("low", "low", False), ("high", "high", True),
])  # fmt: skip
def test_only_changes_in_the_direction_that_counts(better, direction, raised):
    rule = DriftRule(name="r", measure=MEASURE, window=10, reference=40, direction=direction)
    worse = seen(*STEADY[10:], *[value + 1 for value in STEADY[:10]], better=better)
    assert bool(Story(rule).words(worse, T0)) is raised


def test_a_change_point_is_found_where_it_is_and_chance_is_not():
    rule = DriftRule(name="r", measure=MEASURE, by="change_point", window=10, reference=40, shift=2.0)
    story = Story(rule)
    assert story.words(seen(*STEADY), T0) == []
    (alarm,) = story.see(seen(*STEADY[:24], *[value + 0.8 for value in STEADY[:16]]), T0 + 9000).opened
    assert (alarm.first, alarm.since) == ("e025", T0 + 60 * 25)


def test_ageing_remembers_the_lowest_that_was_seen():
    story = Story(AgeingRule(name="r", measure="gain", factor=1.5, window=3))
    assert story.words(seen(2.0, 2.0, 2.0, 2.1, whole=True, metric="gain"), T0) == []
    assert story.words(seen(2.8, 2.8, 2.8, whole=True, metric="gain", first=50), T0) == []
    assert story.words(seen(3.1, 3.1, 3.1, whole=True, metric="gain", first=60), T0) == ["+ctf:gain"]
    assert story.words(seen(2.4, 2.4, 2.4, whole=True, metric="gain", first=70), T0) == ["-ctf:gain"]


def test_the_machine_over_some_minutes():
    story = Story(SystemRule(name="r", value="memory", high=90.0, margin=5.0, for_minutes=5))

    def samples(*values: float) -> Observations:
        return Observations(samples=tuple(sample(T0 + 60 * n, memory_percent=value) for n, value in enumerate(values)))

    assert story.words(samples(50, 95, 96, 97, 95), T0 + 4 * 60) == []
    assert story.words(samples(50, 95, 96, 97, 95, 99, 98), T0 + 6 * 60) == ["+memory node1"]
    assert story.state.open["r/memory node1"].since == T0 + 60
    assert story.words(samples(50, *[95] * 6, 88, 88), T0 + 8 * 60) == []
    assert story.words(samples(*[95] * 6, 88, *[80] * 6), T0 + 12 * 60) == ["-memory node1"]


def test_a_transfer_that_is_stuck_or_fails():
    story = Story(TransferRule(name="t", minutes=10, failed=4))

    def one(doing: str, *, since: float = T0, failed: int = 0, note: str | None = None) -> Observations:
        return Observations(transfers=(TransferSeen("/microscope", "/raw", doing, note, since, failed),))

    assert story.words(one("running", failed=3), T0 + 3600) == []
    assert story.words(one("paused", note="the disk is full"), T0 + 500) == []
    (alarm,) = story.see(one("paused", note="the disk is full"), T0 + 700).opened
    assert alarm.what == "A transfer is stuck"
    assert "the disk is full" in alarm.detail
    assert alarm.page == "transfer"
    assert story.words(one("running", since=T0 + 800), T0 + 900) == ["-/microscope to /raw"]
    assert story.words(one("running", failed=4), T0 + 1000) == ["+/microscope to /raw"]
    assert story.words(one("running", failed=3), T0 + 1100) == []
    assert story.words(one("running", failed=2), T0 + 1200) == ["-/microscope to /raw"]
    assert story.words(one("interrupted"), T0 + 1300) == ["+/microscope to /raw"]
    assert story.words(one("stopped", failed=9), T0 + 1400) == ["-/microscope to /raw"]


def test_each_gpu_has_an_alarm_of_its_own():
    story = Story(SystemRule(name="r", value="gpu_temperature", high=85.0, for_minutes=2))
    hot = tuple(Gpu(index=n, name="H200", temperature_c=value) for n, value in enumerate((60.0, 95.0)))
    seen_ = Observations(samples=tuple(sample(T0 + 60 * n, gpus=hot) for n in range(4)))
    assert story.words(seen_, T0 + 180) == ["+gpu_temperature GPU 1"]


def test_the_disk_is_extrapolated():
    story = Story(DiskRule(name="r", hours=6, fit_minutes=60))

    def filling(per_hour: float, free_gb: float, minutes: int = 60) -> Observations:
        return Observations(
            samples=tuple(
                sample(T0 + 60 * n, disk_free_gb=free_gb + per_hour * (minutes - n) / 60) for n in range(0, minutes + 1, 5)
            )
        )

    now = T0 + 3600
    assert story.words(filling(10, 100), now) == []
    assert story.words(filling(0, 1), now) == []
    assert story.words(filling(100, 10, minutes=10), T0 + 600) == []  # of too short a time nothing follows
    (alarm,) = story.see(filling(10, 50), now).opened
    assert (
        alarm.detail == "50\N{NO-BREAK SPACE}GB are free and 10\N{NO-BREAK SPACE}GB/h are written: full in 5.0\N{NO-BREAK SPACE}h"
    )
    assert story.words(filling(10, 70), now) == []
    assert story.words(filling(10, 80), now) == ["-disk"]


def test_an_acquisition_that_stalls():
    story = Story(StalledRule(name="r", minutes=15, times=5))

    def quiet(usual_s: float = 60.0, *, expected: bool = True, **runner: object) -> Observations:
        return Observations(
            runner=RunnerSeen(**{"state": "running", **runner}),  # type: ignore[arg-type]
            arrivals=ArrivalsSeen(expected, "e042", T0, usual_s),
        )

    assert story.words(quiet(), T0 + 14 * 60) == []
    assert story.words(quiet(usual_s=600), T0 + 40 * 60) == []
    assert story.words(quiet(expected=False), T0 + 40 * 60) == []
    assert story.words(quiet(paused=True), T0 + 40 * 60) == []
    (alarm,) = story.see(quiet(), T0 + 16 * 60).opened
    assert (alarm.since, alarm.exposures) == (T0, None)
    assert "e042, arrived 16\N{NO-BREAK SPACE}min ago" in alarm.detail
    assert story.words(quiet(expected=False), T0 + 17 * 60) == ["-acquisition"]


def test_a_first_exposure_that_never_comes():
    story = Story(StalledRule(name="r", minutes=15))

    def waiting(**arrivals: object) -> Observations:
        return Observations(runner=RunnerSeen(started_at=T0), arrivals=ArrivalsSeen(**arrivals))  # type: ignore[arg-type]

    assert story.words(waiting(expected=True), T0 + 14 * 60) == []
    assert story.words(waiting(), T0 + 16 * 60) == []
    (alarm,) = story.see(waiting(expected=True), T0 + 16 * 60).opened
    assert (alarm.since, alarm.what) == (T0, "No new exposures arrive")
    assert alarm.detail == "none has come; the session was started 16\N{NO-BREAK SPACE}min ago"
    assert story.words(waiting(expected=True, newest="e001", newest_at=T0 + 17 * 60), T0 + 17 * 60) == ["-acquisition"]


def outcomes(*statuses: str) -> Observations:
    """The newest outcome of a step is the last."""
    listed = [RecentOutcome(n, T0 + n, f"e{n:03d}", status, "it is broken") for n, status in enumerate(statuses, 1)]
    return Observations(steps=(StepSeen("align", "Align", 0, tuple(reversed(listed))),))


def test_a_step_that_fails_for_everything():
    story = Story(StepFailingRule(name="r", count=3))
    assert story.words(outcomes("item", "failed", "failed"), T0) == []
    assert story.words(outcomes("failed", "failed", "rejected", "failed"), T0) == []
    (alarm,) = story.see(outcomes("item", "failed", "failed", "failed"), T0 + 9).opened
    assert (alarm.what, alarm.exposures, alarm.first, alarm.since) == ("Align fails for everything", 3, "e002", T0 + 2)
    assert "it is broken" in alarm.detail
    longer = story.see(outcomes("item", *["failed"] * 5), T0 + 10).state.open["r/align"]
    assert (longer.exposures, longer.newest) == (5, "e006")
    assert story.words(outcomes("item", *["failed"] * 5, "item"), T0 + 11) == ["-align"]


def test_a_backlog_that_grows():
    story = Story(BacklogRule(name="r", exposures=50, minutes=30))

    def waiting(count: int) -> Observations:
        return Observations(steps=(StepSeen("ctf", "CTF", count),))

    table = [(0, 10, []), (20, 60, []), (40, 70, ["+ctf"]), (60, 80, []), (80, 75, []), (100, 60, ["-ctf"]), (120, 49, [])]
    for minute, count, expected in table:
        assert story.words(waiting(count), T0 + 60 * minute) == expected, minute
    assert len(story.state.memory.waiting["ctf"]) <= 4


def test_workers_that_die_and_a_runner_that_does():
    story = Story(WorkerLostRule(name="w", count=2, minutes=10), RunnerLostRule(name="r", minutes=2))

    def lost(*ats: float, **runner: object) -> Observations:
        deaths = tuple(LostWorker(n, at, "Align", f"e{n:03d}") for n, at in enumerate(ats, 1))
        return Observations(runner=RunnerSeen(**{"state": "running", **runner}), lost_workers=deaths)  # type: ignore[arg-type]

    assert story.words(lost(T0), T0 + 60) == []
    assert story.words(lost(T0, T0 + 90), T0 + 100) == ["+workers"]
    assert story.words(lost(T0, T0 + 90), T0 + 640) == []
    assert story.words(lost(T0, T0 + 90), T0 + 700) == ["-workers"]
    assert story.words(lost(silence_s=60.0), T0 + 800) == []
    assert story.words(lost(state="interrupted", silence_s=130.0), T0 + 900) == ["+runner"]
    assert story.words(lost(state="interrupted", silence_s=90_000.0), T0 + 90_000) == ["-runner"]


def test_the_session_as_a_whole():
    rule = SummaryRule(name="r", value="failed_percent", high=10.0, margin=2.0, after=20)
    story = Story(rule)
    table = [((19, 10), []), ((20, 2), []), ((20, 3), ["+failed_percent"]), ((40, 3), ["-failed_percent"])]
    for (exposures, failed), expected in table:
        assert story.words(Observations(totals=Totals(exposures, failed)), T0) == expected


def test_a_rate_falls_when_the_microscope_stops():
    story = Story(SummaryRule(name="r", value="exposures_per_hour", low=30.0, margin=5.0))

    def stopped(*, expected: bool = True, paused: bool = False) -> Observations:
        arrivals = ArrivalsSeen(expected, "e061", T0, usual_s=60.0, recent=61, recent_from=T0 - 3600)
        return Observations(runner=RunnerSeen(paused=paused), arrivals=arrivals, totals=Totals(61))

    assert stopped().arrivals.per_hour(T0 + 60) == pytest.approx(60.0)
    assert story.words(stopped(), T0 + 1800) == []
    assert story.words(stopped(expected=False), T0 + 4000) == []
    assert story.words(stopped(paused=True), T0 + 4000) == []
    assert story.words(stopped(), T0 + 4000) == ["+exposures_per_hour"]


def test_alarms_end_with_the_session_and_with_their_rule():
    bad = seen(9.0)
    story = Story(MeasureRule(name="r", measure=MEASURE, high=3.0), MeasureRule(name="s", measure=MEASURE, high=4.0))
    assert len(story.see(bad, T0).opened) == 2
    story.rules = story.rules[1:]
    (ended,) = story.see(bad, T0 + 1).ended
    assert (ended.rule, ended.ended_because) == ("r", "its rule does not hold any more")
    assert story.see(Observations(), T0 + 2).ended == ()  # nothing is seen of the measure, so nothing is known
    (ended,) = story.see(Observations(runner=RunnerSeen("finished")), T0 + 3).ended
    assert (ended.rule, ended.ended_because) == ("s", SESSION_OVER)


def test_the_default_rules_find_nothing_wrong_with_a_session_that_is_well():
    fine = Observations(
        arrivals=ArrivalsSeen(expected=True, newest="e040", newest_at=T0, usual_s=45.0, recent=80, recent_from=T0 - 3600),
        totals=Totals(40, 1, 3),
        steps=(StepSeen("ctf", "CTF", 2),),
        measured=(measured([1.2, 1.8, 0.9, 2.2] * 40), measured([4.1, 3.8, 5.0, 4.4] * 40, metric="ctf_resolution_angstroms")),
        samples=tuple(sample(T0 + 60 * n - 3600, memory_percent=60.0, disk_percent=50.0, disk_free_gb=9e3) for n in range(60)),
    )
    assert evaluate(DEFAULT_RULES, AlarmState(), fine, T0).opened == ()


def test_an_evaluation_changes_nothing_that_it_is_given():
    story = Story(*DEFAULT_RULES)
    state, observed = story.state.model_dump_json(), seen(*[9.0] * 30)
    first = evaluate(story.rules, story.state, observed, T0)
    assert story.state.model_dump_json() == state
    assert evaluate(story.rules, story.state, observed, T0) == first
    assert {one.rule for one in first.opened} == {"ctf-defocus"}
