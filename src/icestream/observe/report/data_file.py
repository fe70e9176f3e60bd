"""The JSON beside the page: the same numbers for other programs, in a form that is numbered and documented.

Fields are added without a new number; one that changes its meaning or goes raises `VERSION`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from icestream.observe.report.content import ReportData

FORMAT, VERSION = "icestream-report", 1

CONTENT = {
    "format": "always `icestream-report`",
    "version": "number of the form, 1",
    "made_at": "when, in seconds since 1970; `made_by` is the version of icestream",
    "session": "name, state, times, and counts of exposures, rejections and failures; why it is paused",
    "acquisition": "the values of the microscope with unit, and who said them",
    "headlines": "the figures at the top",
    "steps": "each step: type, version, revision, software, parameters, counts, rates, and how long one item takes",
    "measures": "what is followed along the session: median, newest value and unit of each measure of each step",
    "exposures": "the table of the newest exposures: columns, and rows with name, number, state, reason and values",
    "wholes": "the newest version of classes and the like: the table of their parts, and the history of versions",
    "failed": "the newest failures, and all reasons with their counts",
    "rejected": "the newest rejections, and all reasons with their counts",
    "notices": "warnings and alerts",
    "alarms": "open alarms and the newest that are over: what, when, for how long, in how many exposures, who acknowledged it",
    "people": "what people asked for, and what they decided about exposures",
    "methods": "the paragraph, the references with BibTeX, and the software",
    "problems": "mistakes in templates and settings of the report: file, line, message",
}
"""What the parts of the file are."""


def write_data(data: ReportData, problems: Sequence[Mapping[str, object]]) -> tuple[str, str]:
    """Return the file, and a digest of what in it is not only the time that passes."""
    content = describe_data(data, problems)
    lasting = {name: value for name, value in content.items() if name != "made_at"}
    lasting["steps"] = [{name: value for name, value in step.items() if name != "pace"} for step in content["steps"]]
    del lasting["headlines"]
    lasting["alarms"] = [_without(one, "lasting_s") for one in (*data.alarms.open, *data.alarms.over)]
    digest = sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n", digest


def describe_data(data: ReportData, problems: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Return the content of the file."""
    overview = data.overview
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_at": data.made_at,
        "made_by": data.made_by,
        "session": {
            "name": overview.name,
            "state": overview.runner.state,
            "started_at": overview.started_at,
            "updated_at": overview.updated_at,
            "exposures": overview.exposures,
            "items": overview.items,
            "rejected": overview.rejected,
            "failed": overview.failed,
            "pause": None if overview.pause is None else overview.pause.sentence,
        },
        "acquisition": [asdict(one) for one in data.conditions],
        "headlines": [asdict(one) for one in data.headlines],
        "steps": [_step(step) for step in data.steps],
        "measures": [measure for panel in data.panels for measure in _measures(panel)],
        "exposures": _exposures(data),
        "wholes": [_whole(section) for section in data.galleries],
        "failed": {
            "newest": [_without(one, "traceback") for one in data.failed],
            "reasons": [asdict(one) for one in data.failed_reasons],
        },
        "rejected": {"newest": [asdict(one) for one in data.rejected], "reasons": [asdict(one) for one in data.rejected_reasons]},
        "notices": [asdict(one) for one in data.notices],
        "alarms": asdict(data.alarms),
        "people": {"asked": [asdict(one) for one in data.audit], "decided": [asdict(one) for one in data.decisions]},
        "methods": {
            "text": data.methods.text,
            "references": [asdict(one) for one in data.methods.references],
            "software": [asdict(one) for one in data.methods.software],
        },
        "problems": [dict(one) for one in problems],
    }


def _step(step: Any) -> dict[str, Any]:
    told = _without(step, "revision_id", "marks")
    return {**told, "notes": step.marks.sentences}


def _measures(panel: Any) -> list[dict[str, Any]]:
    names = ("label", "unit", "median", "newest", "n_shown", "stride", "origin")
    return [{"step": panel.step.name, **{name: getattr(one, name) for name in names}} for one in panel.measures]


def _exposures(data: ReportData) -> dict[str, Any]:
    table = data.exposures
    return {
        "total": table.total,
        "columns": [asdict(one) for one in table.columns],
        "rows": [{**_without(row, "values"), "values": list(row.values)} for row in table.rows],
    }


def _whole(section: Any) -> dict[str, Any]:
    return {
        "step": section.step.name,
        "title": section.gallery.title,
        "version": section.version,
        "at": section.at,
        "count": section.count,
        "columns": [{"label": one.label, "unit": one.unit} for one in section.gallery.columns],
        "rows": [list(row) for row in section.rows],
        "history": [asdict(one) for one in section.history],
    }


def _without(one: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name not in names}
