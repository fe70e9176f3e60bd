"""A step that asks where the items of its list come from: it is told, and that is part of what its result is."""

import json
from typing import Any, ClassVar

import pytest

from icestream.errors import DeclarationError
from icestream.flow import InputNames, Verdict, keep, step
from icestream.flow.storage import schema
from icestream.flow.workflow.keys import result_key
from icestream.records import Record
from toys.model import read_rows
from toys.session import TOYS, make_toy_session, outcomes_of
from toys.steps import Number
from virtual.machine import VirtualMachine, quiet_settings

HERE = __name__


class Named(Record):
    """What a step was told of its inputs."""

    stored_name: ClassVar[str] = "toy.Named"

    values: list[int]
    given: list[str]
    missing: list[str]


@step.map("toy_name_inputs", version=1, memory_gb=0.1)
def name_inputs(numbers: list[Number], names: InputNames) -> Named:
    """Say where numbers come from."""
    return Named(
        values=[number.value for number in numbers], given=list(names.given["numbers"]), missing=list(names.missing["numbers"])
    )


def test_a_step_is_told_who_gave_and_who_was_missing(tmp_path) -> None:
    steps: dict[str, Any] = {
        "n": {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 3}},
        "even": {"use": f"{TOYS}:keep_multiples", "in": {"number": "n"}},
        "triple": {"use": f"{TOYS}:multiply", "in": {"number": "n"}, "params": {"factor": 3}},
        "told": {"use": f"{HERE}:name_inputs", "in": {"numbers": ["even", "triple", "even.rejected"]}},
        "twin": {"use": f"{HERE}:name_inputs", "in": {"numbers": ["triple", "even", "even.rejected"]}},
    }
    session = make_toy_session(tmp_path, steps, numbers=range(1, 4))
    VirtualMachine(session, settings=quiet_settings(rebuild_fraction=1.0)).run_out()
    records = {row["key"]: json.loads(row["record"]) for row in read_rows(session, schema.result)}
    outcomes = outcomes_of(session)
    assert records[outcomes["told", "2"]["keys"]["out"]] == {
        "values": [2, 6],
        "given": ["even", "triple"],
        "missing": ["even.rejected"],
    }
    assert records[outcomes["told", "3"]["keys"]["out"]] == {
        "values": [9, 3],
        "given": ["triple", "even.rejected"],
        "missing": ["even"],
    }
    assert records[outcomes["twin", "3"]["keys"]["out"]]["given"] == ["triple", "even.rejected"]


def test_names_are_part_of_the_key_where_they_are_asked_for() -> None:
    common: dict[str, Any] = {"params": {}, "epoch": 0, "inputs": {"numbers": ["a", "b"]}, "acquisition": {}}
    one, other = (InputNames({"numbers": names}, {"numbers": ()}) for names in (("x", "y"), ("y", "x")))
    gone = InputNames({"numbers": ("x", "y")}, {"numbers": ("z",)})
    keys = [result_key("told", 1, **common, names=names) for names in (None, one, other, gone)]
    assert len(set(keys)) == 4
    assert keys[0] == result_key("told", 1, **common)


def test_only_maps_are_told() -> None:
    def judge(number: Number, names: InputNames) -> Verdict:
        """Keep it."""
        return keep()

    with pytest.raises(DeclarationError, match="only a map can be told the names of its inputs, it is a filter"):
        step.filter("toy_judge", version=1)(judge)
