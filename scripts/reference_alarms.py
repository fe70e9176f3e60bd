"""The reference page of alarms: every kind of rule and of channel, the two documents, and the default rules."""

import inspect
from collections.abc import Iterable
from typing import get_args

from pydantic import BaseModel

from icestream.alarms.channels import CHANNEL_KINDS, Secret
from icestream.alarms.defaults import DEFAULT_RULES
from icestream.alarms.document import AlarmsDocument, FacilityAlarms, QuietHours, settings_of
from icestream.alarms.observations import Sample
from icestream.alarms.rules import RULE_KINDS, SUMMARY_UNITS, SYSTEM_UNITS, Rule, SummaryValue, SystemValue
from icestream.records import Record
from icestream.records.description import describe_record
from reference_parts import fields_table, page, table


def alarms_page(records: Iterable[type[Record]]) -> str:
    """Return the page."""
    parts = [
        "What `alarms.yaml` in a session's folder and the file that ICESTREAM_ALARMS names hold "
        "([how](../how-to/monitors-and-alarms.md)). `icestream alarms SESSION --rules` lists what holds for a session.",
        "## The session's document",
        fields_table(AlarmsDocument),
        "## The facility's document",
        "What a session's document has, and also:",
        _own_fields(FacilityAlarms, AlarmsDocument),
        "## Quiet hours",
        fields_table(QuietHours),
        "## Rules",
        "Every rule has a `name`, a `kind`, and these:",
        fields_table(Rule),
    ]
    for kind in RULE_KINDS:
        parts += [f"### {_kind(kind)}", inspect.cleandoc(kind.__doc__ or ""), _own_fields(kind, Rule)]
    parts += ["## Values of the machine", table(["value", "unit"], _values(SystemValue, SYSTEM_UNITS))]
    parts += ["## Values of the session", table(["value", "unit"], _values(SummaryValue, SUMMARY_UNITS))]
    parts += ["## Measures", "Every measure that a record declares; those of a plugin's records may be named as well."]
    parts += [table(["measure", "of", "what"], _measures(records))]
    defaults = [[f"`{one.name}`", one.kind, one.severity, _settings(settings_of(one))] for one in DEFAULT_RULES]
    parts += ["## Default rules", table(["rule", "kind", "severity", "settings"], defaults)]
    parts += ["## Channels", "Every channel has a `name`, a `kind`, and `least` and `timeout_s`."]
    for channel in CHANNEL_KINDS:
        parts += [f"### {_kind(channel)}", inspect.cleandoc(channel.__doc__ or ""), fields_table(channel)]
    parts += ["### A secret", inspect.cleandoc(Secret.__doc__ or ""), fields_table(Secret)]
    parts += ["## A sample of the machine", fields_table(Sample)]
    return page("Monitors and alarms", *parts)


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default)


def _own_fields(model: type[BaseModel], parent: type[BaseModel]) -> str:
    """Return the table of the fields that the parent does not have."""
    inherited = {f"| `{name}` |" for name in [*parent.model_fields, "kind"]}
    lines = fields_table(model).split("\n")
    return "\n".join(line for line in lines if not any(line.startswith(start) for start in inherited))


def _values(kind: object, units: object) -> list[list[str]]:
    known = dict(units.items()) if isinstance(units, dict) else {}
    return [[f"`{value}`", known[value]] for value in get_args(kind)]


def _measures(records: Iterable[type[Record]]) -> list[list[str]]:
    return [
        [f"`{one.metric}`", record.__name__, one.label] for record in records for one in describe_record(record).shown.measures
    ]


def _settings(told: dict[str, str | float | int | bool | list[str] | None]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in told.items())
