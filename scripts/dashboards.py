"""Write the dashboards that icestream ships, as Grafana JSON: ``python scripts/dashboards.py [FOLDER]``.

Each dashboard is a list of panels below, each panel a question to Prometheus. The builder is Grafana's own, so that what it
writes has the form that Grafana reads; `tests/observe/test_observe_grafana.py` compares what is shipped with what this writes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).resolve().parents[1] / "src" / "icestream" / "observe" / "grafana" / "files" / "dashboards"
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
HERE = 'session=~"$session"'
ANG, UM, NM, PER_HOUR = "suffix: Å", "suffix: µm", "suffix: nm", "suffix: /h"
SHARE = "percentunit"

Kind = Literal["lines", "number", "table", "states", "pictures"]


@dataclass(frozen=True)
class Question:
    """A query, and what its answers are called."""

    expr: str
    legend: str = "{{session}} {{step}}"


@dataclass(frozen=True)
class Drawn:
    """One panel."""

    title: str
    questions: tuple[Question, ...]
    unit: str = "short"
    about: str = ""
    kind: Kind = "lines"
    width: int = 12
    height: int = 8
    limits: tuple[tuple[float, str], ...] = ()
    """From which value on a number has which colour."""


def lines(title: str, expr: str, unit: str = "short", *, legend: str = "{{session}} {{step}}", about: str = "") -> Drawn:
    """Return a chart along time."""
    return Drawn(title, (Question(expr, legend),), unit, about)


def spread(title: str, metric: str, unit: str, *, times: str = "", about: str = "") -> Drawn:
    """Return the median of the newest exposures along time, between the 10th and the 90th percentile."""
    questions = [
        Question(f'{metric}{{{HERE}, quantile="{quantile}"}}{times}', f"{{{{session}}}} {{{{step}}}} {word}")
        for quantile, word in (("0.5", "median"), ("0.1", "10 %"), ("0.9", "90 %"))
    ]
    return Drawn(title, tuple(questions), unit, about or "Median of the newest 50 exposures, with the 10th and 90th percentile")


def number(title: str, expr: str, unit: str = "short", *, limits: tuple[tuple[float, str], ...] = (), about: str = "") -> Drawn:
    """Return one number for each session."""
    return Drawn(title, (Question(expr, "{{session}}"),), unit, about, "number", 4, 4, limits)


def late(yellow: float, red: float) -> tuple[tuple[float, str], ...]:
    """Return colours of what is bad when it is large."""
    return ((0, "green"), (yellow, "yellow"), (red, "red"))


SUMMARY = (
    number("Sessions running", 'sum(icestream_sessions{state="running"}) or vector(0)'),
    number("Exposures", f"icestream_exposures_total{{{HERE}}}"),
    number("Exposures an hour", f"icestream_exposure_rate_hertz{{{HERE}}} * 3600", PER_HOUR),
    number("Since the last exposure", f"time() - icestream_exposure_last_timestamp_seconds{{{HERE}}}", "s",
           limits=late(300, 900)),
    number("Resolution of the CTF", f'min by (session) (icestream_ctf_resolution_angstroms{{{HERE}, quantile="0.5"}})', ANG),
    number("Particles", f"max by (session) (icestream_step_particles{{{HERE}}})"),
    replace(lines("State", f"icestream_session_state{{{HERE}}} == 1", legend="{{session}} {{state}}"), kind="states", height=6),
    replace(lines("Failed and rejected", f'icestream_step_units{{{HERE}, state=~"failed|rejected"}} > 0',
                  legend="{{session}} {{step}} {{state}}"), height=6),
    lines("Outcomes an hour", f'sum by (session, step) (rate(icestream_step_outcomes_total{{{HERE}, '
          'outcome=~"item|rejected|failed"}[$__rate_interval])) * 3600', PER_HOUR),
    lines("Queue", f'sum by (session, step) (icestream_step_units{{{HERE}, state=~"waiting|running"}})',
          about="Exposures that wait for a step, or that it is working on"),
    spread("Delay", "icestream_step_latency_seconds", "s", about="From the arrival of an exposure to its outcome at a step"),
    spread("Duration of one computation", "icestream_step_wall_seconds", "s"),
    lines("Attempts that failed", f"icestream_step_failures_total{{{HERE}}}", legend="{{session}} {{step}} {{kind}}"),
    lines("Particles picked on an exposure", f'icestream_picks_per_micrograph{{{HERE}, quantile="0.5"}}'),
    replace(lines("Steps", f"icestream_step_info{{{HERE}}}"), kind="table", width=24, height=10,
            about="What runs: step, type, version and revision"),
)  # fmt: skip

CTF = (
    number("Resolution, median", f'min by (session) (icestream_ctf_resolution_angstroms{{{HERE}, quantile="0.5"}})', ANG),
    number("Defocus, median", f'max by (session) (icestream_ctf_defocus_angstroms{{{HERE}, quantile="0.5"}}) / 1e4', UM),
    number("Astigmatism, median", f'max by (session) (icestream_ctf_astigmatism_angstroms{{{HERE}, quantile="0.5"}}) / 10', NM),
    number("Total motion, median", f'max by (session) (icestream_motion_total_angstroms{{{HERE}, quantile="0.5"}})', ANG),
    spread("Resolution", "icestream_ctf_resolution_angstroms", ANG),
    spread("Defocus", "icestream_ctf_defocus_angstroms", UM, times=" / 1e4"),
    spread("Astigmatism", "icestream_ctf_astigmatism_angstroms", NM, times=" / 10"),
    spread("Phase shift", "icestream_ctf_phase_shift_degrees", "degree"),
    spread("Two programs agree to", "icestream_ctf_agreement_angstroms", ANG),
    spread("Total motion", "icestream_motion_total_angstroms", ANG),
    spread("Early motion", "icestream_motion_early_angstroms", ANG),
    lines(
        "Kept by each filter",
        f'sum by (session, step) (icestream_step_units{{{HERE}, state="item"}}) / '
        f'sum by (session, step) (icestream_step_units{{{HERE}, state=~"item|rejected"}}) and on (session, step) '
        f'icestream_step_units{{{HERE}, state="rejected"}} > 0',
        SHARE,
        about="Share of the exposures within its limits",
    ),
)

GAIN = (
    lines("Noise of the learnt gain", f"icestream_gain_noise_ratio{{{HERE}}}", SHARE),
    lines("Share of the given gain in the movies", f"icestream_gain_share_ratio{{{HERE}}}",
          about="1 where the given gain fits the movies; 0 where it has nothing to do with them"),
    lines("Unevenness left", f"icestream_gain_residual_unevenness_ratio{{{HERE}}}", SHARE),
    lines("Spread left: 97.5th to 2.5th percentile", f"icestream_gain_residual_spread_ratio{{{HERE}}}"),
    lines("Peak left: maximum to 97.5th percentile", f"icestream_gain_residual_peak_ratio{{{HERE}}}"),
    lines("Age of the newest version", f'time() - icestream_whole_published_timestamp_seconds{{{HERE}}} and on (session, step) '
          f"icestream_gain_noise_ratio{{{HERE}}}", "s"),
    spread("Left in the micrographs", "icestream_gain_left_ratio", SHARE),
    spread("Counts in a pixel and frame", "icestream_movie_counts_per_pixel_frame", "short"),
    spread("Change of the dose during a movie", "icestream_movie_dose_drift_ratio", SHARE),
)  # fmt: skip

SYSTEM = (
    number("Sign of life of the runner", f"time() - icestream_runner_heartbeat_timestamp_seconds{{{HERE}}}", "s",
           limits=late(30, 120)),
    number("Disk free", f'min by (session) (icestream_disk_free_bytes{{{HERE}, root="session"}})', "bytes"),
    number("Disk used", f'1 - min by (session) (icestream_disk_free_bytes{{{HERE}, root="session"}} / '
           f'icestream_disk_size_bytes{{{HERE}, root="session"}})', SHARE, limits=late(0.85, 0.95)),
    number("Computations running", f'sum by (session) (icestream_step_units{{{HERE}, state="running"}})'),
    lines("Processors", '1 - sum by (host) (rate(icestream_host_cpu_seconds_total{mode="idle"}[$__rate_interval])) / '
          "sum by (host) (icestream_host_cores)", SHARE, legend="{{host}}"),
    lines("Load for each core", "icestream_host_load_average / icestream_host_cores", legend="{{host}}"),
    lines("Memory used", 'sum by (host) (icestream_host_memory_bytes{state="total"}) - '
          'sum by (host) (icestream_host_memory_bytes{state="available"})', "bytes", legend="{{host}}"),
    lines("Swap used", 'icestream_host_swap_bytes{state="used"}', "bytes", legend="{{host}}"),
    lines("Disks", "sum by (host, direction) (rate(icestream_host_disk_bytes_total[$__rate_interval]))", "Bps",
          legend="{{host}} {{direction}}"),
    lines("Network", "sum by (host, direction) (rate(icestream_host_network_bytes_total[$__rate_interval]))", "Bps",
          legend="{{host}} {{direction}}"),
    lines("GPUs, share of the time", "icestream_host_gpu_use_ratio", SHARE, legend="{{host}} {{gpu}}"),
    lines("GPUs, memory used", 'icestream_host_gpu_memory_bytes{state="used"}', "bytes", legend="{{host}} {{gpu}}"),
    lines("GPUs, temperature", "icestream_host_gpu_temperature_celsius", "celsius", legend="{{host}} {{gpu}}"),
    lines("Disk free", f"icestream_disk_free_bytes{{{HERE}}}", "bytes", legend="{{session}} {{root}}"),
    lines("Processor time of one computation", f'icestream_step_cpu_seconds{{{HERE}, quantile="0.5"}}', "s"),
    lines("Notices that hold", f'icestream_notices{{{HERE}, level!="info"}}', legend="{{session}} {{level}}"),
)  # fmt: skip

GALLERY = (
    number("Classes", f"max by (session) (icestream_gallery_parts{{{HERE}}})"),
    number("Particles in them", f"max by (session) (icestream_gallery_members{{{HERE}}})"),
    number("Share of the largest", f"max by (session) (icestream_gallery_largest_share_ratio{{{HERE}}})", SHARE),
    number("Version", f"max by (session) (icestream_whole_version{{{HERE}}})"),
    Drawn("Newest pictures", (Question(
        f'label_replace(icestream_picture_info{{{HERE}}}, "picture", "${{icestream}}$1", "path", "(.*)")'),),
        about="The newest picture of each step; your browser gets them from icestream, where you must be signed in",
        kind="pictures", width=24, height=24),
    lines("Particles in classes", f"icestream_gallery_members{{{HERE}}}"),
    lines("Versions", f"icestream_whole_version{{{HERE}}}"),
)  # fmt: skip

DASHBOARDS = {
    "summary": ("icestream: summary", SUMMARY),
    "ctf": ("icestream: CTF and motion", CTF),
    "gain": ("icestream: gain and dose", GAIN),
    "system": ("icestream: system", SYSTEM),
    "gallery": ("icestream: gallery", GALLERY),
}


def build(name: str) -> str:
    """Return a dashboard as JSON."""
    title, panels = DASHBOARDS[name]
    made = builders.Dashboard(title).uid(f"icestream-{name}").tags(["icestream"]).refresh("30s").time("now-6h", "now")
    made = made.editable().tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    for variable in _variables(pictures=name == "gallery"):
        made = made.with_variable(variable)
    for panel, place in zip(panels, _places(panels), strict=True):
        made = made.with_panel(_panel(panel).grid_pos(place))
    text = JSONEncoder(sort_keys=True, indent=1, ensure_ascii=False).encode(made.build())
    return f"{text}\n"


def _places(panels: Sequence[Drawn]) -> list[dashboard.GridPos]:
    """Return where panels are: side by side, those that do not fit begin a new row."""
    x = y = highest = 0
    places = []
    for panel in panels:
        if x + panel.width > WIDTH:
            x, y, highest = 0, y + highest, 0
        places.append(dashboard.GridPos(h=panel.height, w=panel.width, x=x, y=y))
        x, highest = x + panel.width, max(highest, panel.height)
    return places


def _variables(*, pictures: bool) -> list[Any]:
    source = builders.DatasourceVariable("datasource").label("Data source").type("prometheus")
    session = (
        builders.QueryVariable("session")
        .label("Session")
        .datasource(SOURCE)
        .query("label_values(icestream_session_info, session)")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )
    address = builders.TextBoxVariable("icestream").label("Address of icestream").default_value("")
    return [source, session, *([address] if pictures else [])]


def _panel(drawn: Drawn) -> Any:
    instant = drawn.kind in ("number", "table", "pictures")
    made = {"number": _number, "table": _table, "pictures": _pictures, "states": _states, "lines": _lines}[drawn.kind](drawn)
    made = made.title(drawn.title).datasource(SOURCE)
    made = made.description(drawn.about) if drawn.about else made
    for letter, question in zip("ABC", drawn.questions, strict=False):
        query = prometheus.Dataquery().expr(question.expr).legend_format(question.legend).ref_id(letter).datasource(SOURCE)
        query = query.instant() if instant else query.range()
        made = made.with_target(query.format(PromQueryFormat.TABLE) if drawn.kind in ("table", "pictures") else query)
    return made


def _lines(drawn: Drawn) -> Any:
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(show_legend=True)
    made = timeseries.Panel().unit(drawn.unit).legend(legend.placement(common.LegendPlacement.BOTTOM))
    return made.show_points(common.VisibilityMode.AUTO).fill_opacity(0).span_nulls(span_nulls=False)


def _number(drawn: Drawn) -> Any:
    reduced = common_builders.ReduceDataOptions().calcs(["lastNotNull"])
    steps = [dashboard.Threshold(None if at == 0 else at, colour) for at, colour in drawn.limits or ((0, "text"),)]
    thresholds = builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)
    made = stat.Panel().unit(drawn.unit).reduce_options(reduced).thresholds(thresholds)
    return made.graph_mode(common.BigValueGraphMode.NONE).text_mode(common.BigValueTextMode.AUTO)


def _states(_drawn: Drawn) -> Any:
    return statetimeline.Panel().show_value(common.VisibilityMode.NEVER).merge_values(merge_values=True)


def _table(_drawn: Drawn) -> Any:
    return table.Panel().with_transformation(_columns("session", "step", "label", "use", "type_version", "revision", "software"))


def _pictures(_drawn: Drawn) -> Any:
    image = [
        dashboard.DynamicConfigValue("custom.cellOptions", common.TableImageCellOptions()),
        dashboard.DynamicConfigValue("custom.width", 420),
    ]
    made = table.Panel().with_transformation(_columns("session", "step", "title", "picture"))
    made = made.align(common.FieldTextAlignment.AUTO).cell_height(common.TableCellHeight.LG)
    return made.override_by_name("picture", image)


def _columns(*first: str) -> dashboard.DataTransformerConfig:
    """Return what puts these columns of a table first, and leaves out what says nothing to a person."""
    hidden = ("Time", "Value", "__name__", "instance", "job", "path")
    options = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: place for place, name in enumerate(first)},
    }
    return dashboard.DataTransformerConfig("organize", options=options)


def main(folder: Path) -> None:
    """Write all dashboards."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DASHBOARDS:
        (folder / f"{name}.json").write_text(build(name), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
