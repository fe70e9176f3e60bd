"""Looking for what must never be in a store of toy numbers, at any moment and at the end."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table

from icestream.files import TEMPORARY_MARK
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session
from toys.model import ABSENT, ITEM, Expected, Record, Wanted, expect, kind_of, offered, read_rows
from toys.steps import Number

_NUMBERED: tuple[Table, ...] = (
    schema.exposure,
    schema.outcome,
    schema.snapshot,
    schema.stream,
    schema.gate_opening,
    schema.batch,
    schema.failure,
    schema.drain,
    schema.notice,
    schema.override,
    schema.recompute,
)
"""The tables whose rows carry numbers of the change sequence."""


@dataclass
class Watcher:
    """Looks at one session again and again; remembers what it saw."""

    session: Session
    high: int = 0
    fence: int = 0
    old: dict[int, str] = field(default_factory=dict)  # number of the change sequence → the table it was seen in
    results: dict[str, tuple[str, str]] = field(default_factory=dict)
    answers: dict[int, tuple[str, str]] = field(default_factory=dict)
    logs: dict[tuple[int, int], str] = field(default_factory=dict)

    def look(self) -> list[str]:
        """Return what is wrong at this moment; nothing needs to be finished."""
        if not self.session.store_path.is_file():
            return []
        return [*self._sequence(), *self._leases(), *self._results(), *self._taken(), *self._answers()]

    def _sequence(self) -> Iterator[str]:
        (runner,) = read_rows(self.session, schema.runner)
        seen: dict[int, str] = {}
        for table in _NUMBERED:
            for row in read_rows(self.session, table):
                number = int(row["seq"])
                if number in seen:
                    yield f"number {number} of the change sequence is in {seen[number]} and in {table.name}"
                if number <= self.high and number not in self.old:
                    yield f"{table.name}: number {number} is new, but {self.high} was given before"
                if number > runner["last_seq"]:
                    yield f"{table.name}: number {number} was never given"
                seen[number] = table.name
        if runner["last_seq"] < self.high or runner["fence"] < self.fence:
            yield f"the change sequence or the fencing number went back: {runner['last_seq']}, {runner['fence']}"
        self.old, self.high, self.fence = seen, runner["last_seq"], runner["fence"]

    def _leases(self) -> Iterator[str]:
        (runner,) = read_rows(self.session, schema.runner)
        leases = read_rows(self.session, schema.lease)
        if runner["state"] == "running":
            yield from (f"a lease of runner {row['fence']} outlived it" for row in leases if row["fence"] != runner["fence"])

    def _results(self) -> Iterator[str]:
        results = {row["key"]: row for row in read_rows(self.session, schema.result)}
        for key, row in results.items():
            if self.results.setdefault(key, (row["record"], row["record_type"])) != (row["record"], row["record_type"]):
                yield f"result {key} was changed"
        yield from (f"result {key} is gone" for key in self.results.keys() - results.keys())
        active = {row["id"]: row["step"] for row in read_rows(self.session, schema.revision) if row["state"] == "active"}
        for row in read_rows(self.session, schema.outcome):
            if row["revision"] not in active:
                continue
            for key in json.loads(row["keys"]).values():
                if key not in results:
                    yield f"{active[row['revision']]}, {row['unit']}: result {key} is not there"
                else:
                    yield from self._content(results[key])

    def _content(self, row: dict[str, Any]) -> Iterator[str]:
        record = json.loads(row["record"])
        ref = record.get("file")
        if ref is None or row["record_type"] != Number.stored_name:
            return
        path = self.session.folder / ref.removeprefix("session:")
        text = path.read_text() if path.is_file() else ""
        if text.split(" ")[0] != str(record["value"]):
            yield f"{ref} holds {text!r}, its record says {record['value']}"

    def _taken(self) -> Iterator[str]:
        taken: Counter[tuple[int, str]] = Counter()
        for row in read_rows(self.session, schema.accumulator_log):
            taken.update((row["revision"], unit) for unit, _ in json.loads(row["members"]))
            if row["absorbed"]:
                known = self.logs.setdefault((row["revision"], row["position"]), row["members"])
                if known != row["members"]:
                    yield f"entry {row['position']} of a log was changed after it was absorbed"
        for row in read_rows(self.session, schema.batch):
            taken.update((row["revision"], unit) for unit, _ in json.loads(row["members"]))
        yield from (f"revision {revision} took {unit} {times} times" for (revision, unit), times in taken.items() if times > 1)

    def _answers(self) -> Iterator[str]:
        for row in read_rows(self.session, schema.command):
            if row["state"] != "asked" and self.answers.setdefault(row["id"], (row["state"], row["answer"])) != (
                row["state"],
                row["answer"],
            ):
                yield f"command {row['id']} ({row['kind']}) was answered twice"
        active = Counter((row["unit"], row["step"]) for row in read_rows(self.session, schema.override) if row["active"])
        own = Counter((row["unit"], row["step"]) for row in read_rows(self.session, schema.recompute) if row["active"])
        yield from (f"{pair} has {times} decisions by hand" for pair, times in active.items() if times > 1)
        yield from (f"{pair} has {times} sets of parameters of its own" for pair, times in own.items() if times > 1)


def compare_end(session: Session, wanted: Wanted) -> list[str]:
    """Return how a session that has come to its end differs from what must come out."""
    record = Record(session)
    expected = expect(record, wanted)
    wrong = [f"{name} never arrived" for name in set(wanted.names) - set(record.exposures.values())]
    wrong += [f"{name} arrived from nowhere" for name in set(record.exposures.values()) - set(wanted.names)]
    for (step, name), should in expected.items():
        wrong += _compare_one(record, step, name, should)
    for step, spec in record.session.document.steps.items():
        match kind_of(spec):
            case "enough":
                wrong += _check_gate(record, step)
            case "batches":
                wrong += _check_batches(record, step) + _check_stale(record, step, expected)
            case "AddUp":
                wrong += _check_total(record, step) + _check_stale(record, step, expected)
            case "report_total":
                wrong += _check_newest(record, step)
    if read_rows(session, schema.lease):
        wrong.append("leases were left")
    wrong += [f"{path.name} was left" for path in (session.folder / "steps").rglob(f".*{TEMPORARY_MARK}*")]
    return wrong + [
        f"command {row['id']} was not answered" for row in read_rows(session, schema.command) if row["state"] == "asked"
    ]


def _compare_one(record: Record, step: str, name: str, should: Expected) -> list[str]:
    row = record.outcomes.get((step, name))
    if row is None:
        return [f"{step}, {name}: has no outcome; {should.status} expected"]
    if row["status"] != should.status:
        return [f"{step}, {name}: is {row['status']} ({row['reason']}); {should.status} expected"]
    values = {output: record.value(key) for output, key in row["keys"].items() if output in should.values}
    if values != should.values and should.values and kind_of(record.session.document.steps[step]) not in ("batches", "AddUp"):
        return [f"{step}, {name}: gives {values}; {dict(should.values)} expected"]
    return []


def _check_gate(record: Record, step: str) -> list[str]:
    left_out = [name for (gate, name), row in record.outcomes.items() if gate == step and row["status"] == ABSENT]
    needed = record.session.document.steps[step].params["count"]
    if step not in record.opened and len(left_out) >= needed:
        return [f"{step} left out {len(left_out)} exposures, and {needed} were enough"]
    return []


def _check_batches(record: Record, step: str) -> list[str]:
    wrong = []
    for row in record.batches:
        if row["step"] != step:
            continue
        unit, keys = f"{step}:{row['number']:06d}", [keys["items"] for _, keys in json.loads(row["members"])]
        size = record.session.document.steps[step].params["count"]
        if len(keys) != size and not row["remainder"]:
            wrong.append(f"{unit} has {len(keys)} members, not {size}")
        for below, spec in record.session.document.steps.items():
            if spec.inputs.get("numbers") == step:
                outcome = record.outcomes.get((below, unit), {"status": "nothing", "keys": {}})
                total = sum(map(record.value, keys))
                if outcome["status"] != ITEM or record.value(outcome["keys"]["out"]) != total:
                    wrong.append(f"{below}, {unit}: {outcome['status']}; the sum {total} expected")
    return wrong


def _check_total(record: Record, step: str) -> list[str]:
    rows = [row for row in record.log if row["step"] == step]
    wrong = [f"{step}: entry {row['position']} was not absorbed" for row in rows if not row["absorbed"]]
    members = record.members(step)
    total = sum(record.value(keys["number"]) for _, keys in members)
    last = [row["state"] for row in rows if row["absorbed"] and row["state"] is not None][-1:]
    state = json.loads(last[0]) if last else {"value": 0, "count": 0}
    if (state["value"], state["count"]) != (total, len(members)):
        wrong.append(f"{step}: its state is {state['value']} of {state['count']}; its log says {total} of {len(members)}")
    return wrong


def _check_stale(record: Record, step: str, expected: Mapping[tuple[str, str], Expected]) -> list[str]:
    """Compare what a batch step or accumulator took and is no item, or another one, now with what is marked so."""
    spec = record.session.document.steps[step]
    stale = {record.exposures[unit] for stale_step, unit in record.stale if stale_step == step}
    members = record.members(step)
    gone = {name for name, _ in members if offered(spec, expected, name) is None}
    changed = {name for name, keys in members if name not in gone and _has_changed(record, step, name, keys)}
    if stale == gone | changed:
        return []
    told = f"{sorted(gone)} are in it and no items any more, {sorted(changed)} are others"
    return [f"{step}: {told}; {sorted(stale)} are marked stale"]


def _has_changed(record: Record, step: str, name: str, keys: Mapping[str, str]) -> bool:
    """Tell whether an exposure now gives another result than was taken; that its outcomes are right is looked at elsewhere."""
    for port, key in keys.items():
        above, _, output = str(record.session.document.steps[step].inputs[port]).partition(".")
        if record.outcomes[above, name]["keys"][output or "out"] != key:
            return True
    return False


def _check_newest(record: Record, step: str) -> list[str]:
    above = str(record.session.document.steps[step].inputs["total"])
    published = [row["key"] for row in record.snapshots if row["step"] == above]
    runs = {unit: row for (name, unit), row in record.outcomes.items() if name == step}
    newest = max(runs, default="")  # one that failed and was overtaken meanwhile is not tried again
    wrong = [f"{step}, {unit}: is {row['status']}" for unit, row in runs.items() if unit == newest and row["status"] != ITEM]
    used = [record.bindings.get((step, unit)) for unit in sorted(runs)]
    if published and (not used or used[-1] != published[-1]):
        wrong.append(f"{step}: last ran on {used[-1:]}, the newest total is {published[-1]}")
    return wrong
