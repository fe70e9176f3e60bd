"""The reference page of metrics: what is told of every session and machine, and what records add."""

from icestream.observe.metrics.families import Family
from icestream.observe.metrics.measured import QUANTILES, measure_family
from icestream.observe.metrics.names import ALL
from icestream.records import Snapshot
from reference_parts import page, table
from reference_records import own_records

_HEAD = ("name", "type", "labels", "meaning")


def metrics_page() -> str:
    """Return the page."""
    measured: dict[str, tuple[Family, str]] = {}
    for record in own_records():
        for measure in record.shown.measures:
            family = measure_family(measure, whole=issubclass(record, Snapshot))
            measured.setdefault(family.name, (family, record.__name__))
    return page(
        "Metrics",
        "What `/metrics` of `icestream serve`, and `icestream metrics`, tell "
        "([how to use them](../how-to/prometheus-and-grafana.md)). A summary has the quantiles "
        f"{', '.join(f'{one:g}' for one in QUANTILES)} of the newest 50 exposures. Lengths of the specimen are in Å, shares are "
        "ratios. Nothing is labelled with an exposure or a reason.",
        "## Sessions and machines",
        table(_HEAD, ([f"`{one.name}`", one.kind, ", ".join(one.labels), one.help] for one in ALL)),
        "## Measures",
        "Every measure that a record declares, also one of a plugin, under the name that it gives; percent become ratios and µm "
        "become Å.",
        table(
            ("name", "type", "record", "meaning"),
            ([f"`{name}`", one.kind, record, one.help] for name, (one, record) in sorted(measured.items())),
        ),
    )
