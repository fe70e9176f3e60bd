"""What must come out of a session of toy numbers, said in plain Python: no keys, no revisions, no order, no engine.

`expect` goes through the workflow once for each exposure. It follows the record of the engine only where the order of things
decides: whether a gate had opened, what an accumulator took before it changed its mind, which version of a total an exposure
was bound to.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any
from urllib.parse import quote

from sqlalchemy import Table

from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, open_session
from icestream.flow.workflow.graph import StepSpec

FAILED, ITEM, REJECTED, SKIPPED, ABSENT = "failed", "item", "rejected", "skipped", "absent"


def read_rows(session: Session, table: Table) -> list[dict[str, Any]]:
    """Return all rows of a table of a store that is a file, the quick way: with a connection of one's own."""
    connection = sqlite3.connect(f"file:{quote(str(session.store_path))}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table.name}")]  # noqa: S608 - a name of our own
    finally:
        connection.close()


@dataclass
class Wanted:
    """What people and the microscope did, as far as it decides the end."""

    names: list[str] = field(default_factory=list)
    decided: dict[tuple[str, str], bool] = field(default_factory=dict)  # (step, exposure) → accepted by hand
    own: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # (step, exposure) → parameters of its own
    healed: bool = False


@dataclass(frozen=True)
class Expected:
    """The outcome of one step for one exposure, and its value by output."""

    status: str
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Record:
    """What the store holds of the active revisions, read once."""

    session: Session

    def __post_init__(self) -> None:
        self.session = open_session(self.session.folder)
        self.revisions = {row["id"]: row for row in read_rows(self.session, schema.revision) if row["state"] == "active"}
        self.id_of = {row["step"]: number for number, row in self.revisions.items()}
        self.exposures = {row["unit"]: row["name"] for row in read_rows(self.session, schema.exposure)}
        self.results = {row["key"]: row for row in read_rows(self.session, schema.result)}
        self.outcomes: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.mine(schema.outcome):
            unit = self.exposures.get(row["unit"], row["unit"])
            self.outcomes[row["step"], unit] = row | {"keys": json.loads(row["keys"])}
        self.opened = {row["step"] for row in self.mine(schema.gate_opening)}
        self.stale = {(row["step"], row["unit"]) for row in self.mine(schema.stale)}
        self.log = sorted(self.mine(schema.accumulator_log), key=lambda row: int(row["position"]))
        self.batches = self.mine(schema.batch)
        self.snapshots = sorted(self.mine(schema.snapshot), key=lambda row: int(row["version"]))
        self.bindings = {
            (row["step"], self.exposures.get(row["unit"], row["unit"])): row["key"] for row in self.mine(schema.binding)
        }

    def mine(self, table: Any) -> list[dict[str, Any]]:
        """Return the rows of a table under the active revisions, with the name of their step."""
        rows = read_rows(self.session, table)
        return [row | {"step": self.revisions[row["revision"]]["step"]} for row in rows if row["revision"] in self.revisions]

    def value(self, key: str) -> int:
        """Return the value of a result."""
        return int(json.loads(self.results[key]["record"])["value"])

    def members(self, step: str) -> list[tuple[str, dict[str, str]]]:
        """Return what a batch step or accumulator has taken, in order: exposure → keys."""
        rows = [row for row in [*self.log, *self.batches] if row["step"] == step]
        return [(self.exposures[unit], keys) for row in rows for unit, keys in json.loads(row["members"])]


def expect(record: Record, wanted: Wanted) -> dict[tuple[str, str], Expected]:
    """Return what every step must say of every exposure, at the end, with nothing closed by hand."""
    steps = record.session.document.steps
    found: dict[tuple[str, str], Expected] = {}
    for name in wanted.names:
        for step in _in_order(steps):
            if not _of_exposures(steps, step):
                continue
            found[step, name] = _expect_one(record, wanted, found, step=step, name=name)
    return found


def _in_order(steps: Mapping[str, StepSpec]) -> list[str]:
    inputs = {step: [link.partition(".")[0] for links in _links(spec).values() for link in links] for step, spec in steps.items()}
    return list(TopologicalSorter(inputs).static_order())


def _links(spec: StepSpec) -> dict[str, list[str]]:
    return {port: list(links) if isinstance(links, list) else [links] for port, links in spec.inputs.items()}


def kind_of(spec: StepSpec) -> str:
    """Return the function behind a step."""
    return spec.use.rpartition(":")[2]


def _of_exposures(steps: Mapping[str, StepSpec], step: str) -> bool:
    """Tell whether a step decides exposures: not the sums of batches, nor what runs on totals alone."""
    above = [kind_of(steps[link.partition(".")[0]]) for links in _links(steps[step]).values() for link in links]
    return above not in (["batches"], ["AddUp"])


def _expect_one(record: Record, wanted: Wanted, found: Mapping[tuple[str, str], Expected], *, step: str, name: str) -> Expected:  # noqa: PLR0911 - one for each kind of step
    spec = record.session.document.steps[step]
    by_hand = wanted.decided.get((step, name))
    if kind_of(spec) == "count_numbers":
        return _arrived(name, by_hand)
    taken = dict(record.members(step)) if kind_of(spec) in ("batches", "AddUp") else {}
    if name in taken:  # whatever became of it since
        return Expected(ITEM)
    given = offered(spec, found, name)
    if given is None:
        return Expected(SKIPPED)
    match kind_of(spec):
        case "multiply":
            params = spec.params | wanted.own.get((step, name), {})
            return _multiplied(params, given["number"][0], wanted) if by_hand is None else Expected(REJECTED)
        case "keep_multiples":
            value = given["number"][0]
            good = value % int(spec.params.get("divisor", 2)) == 0 if by_hand is None else by_hand
            return Expected(ITEM, {"out": value}) if good else Expected(REJECTED, {"rejected": value})
        case "enough":
            if by_hand is False:
                return Expected(REJECTED)
            opened = by_hand or step in record.opened
            return Expected(ITEM, {"out": given["items"][0]}) if opened else Expected(ABSENT)
        case "less_total":
            total = record.bindings.get((step, name))
            return Expected(SKIPPED) if total is None else Expected(ITEM, {"out": given["number"][0] - record.value(total)})
        case "AddUp" if given["number"][0] in spec.params.get("fail_on", []):
            return Expected(FAILED)
        case _:  # additions, batches, totals
            return Expected(ITEM, {"out": sum(value for values in given.values() for value in values)})


def _arrived(name: str, by_hand: bool | None) -> Expected:
    if name.startswith("broken"):
        return Expected(FAILED)
    value = int(name)
    return Expected(REJECTED, {"rejected": value}) if by_hand is False else Expected(ITEM, {"out": value})


def offered(spec: StepSpec, found: Mapping[tuple[str, str], Expected], name: str) -> dict[str, list[int]] | None:
    """Return the values that come in by port (no bound totals), or None if the step is to skip the exposure."""
    given: dict[str, list[int]] = {}
    for port, links in _links(spec).items():
        if port == "total":
            continue
        values = []
        for link in links:
            step, _, output = link.partition(".")
            values += [value for key, value in found[step, name].values.items() if key == (output or "out")]
        if not values:
            return None
        given[port] = values
    return given


def _multiplied(params: Mapping[str, Any], value: int, wanted: Wanted) -> Expected:
    bad = [*params.get("crash_on", []), *params.get("break_on", []), *([] if wanted.healed else params.get("fail_on", []))]
    return Expected(FAILED) if value in bad else Expected(ITEM, {"out": value * int(params.get("factor", 2))})
