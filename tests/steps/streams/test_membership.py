"""Steps that decide which exposures go on: the functions, and the laws of lots."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icestream.errors import WorkflowError
from icestream.flow import Exposure, Verdict
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Graph, Workflow
from icestream.records import Record
from icestream.steps.streams.membership import (
    KeepIfParams,
    SampleParams,
    SplitParams,
    SubsetParams,
    choose_subset,
    draw_lot,
    draw_sample,
    keep_where,
    take_part,
)
from icestream.testing.context import StepBench
from toys.session import TOYS
from toys.steps import Number

ITEM = Number(value=7)
IDS = [f"{number:032x}" for number in range(3000)]


def bench(*, name: str = "grid3_0001", ordinal: int = 1, unit: str = "0" * 32) -> StepBench:
    return StepBench(Path("unused"), exposure=Exposure(unit, name, ordinal))


def sampled(fraction: float, seed: int = 0) -> set[str]:
    params = SampleParams(fraction=fraction, seed=seed)
    return {unit for unit in IDS if draw_sample(ITEM, params, bench(unit=unit)).accepted}


def test_a_sample_has_its_size_and_larger_ones_hold_smaller_ones() -> None:
    tenth, third = sampled(0.1), sampled(0.333)
    assert abs(len(tenth) - 300) < 5 * (3000 * 0.1 * 0.9) ** 0.5
    assert abs(len(third) - 999) < 5 * (3000 * 0.333 * 0.667) ** 0.5
    assert tenth < third
    assert sampled(1.0) == set(IDS)
    assert sampled(0.1, seed=1) != tenth


@given(st.integers(2, 9), st.integers(0, 5), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_the_parts_of_a_split_are_a_partition(parts: int, seed: int, unit: str) -> None:
    kept = [
        take_part(ITEM, SplitParams(parts=parts, part=part, seed=seed), bench(unit=unit)).accepted for part in range(1, parts + 1)
    ]
    assert sum(kept) == 1


def test_parts_are_of_about_equal_size_and_independent_of_samples() -> None:
    part = {unit for unit in IDS if take_part(ITEM, SplitParams(part=1), bench(unit=unit)).accepted}
    half = sampled(0.5)
    assert abs(len(part) - 1500) < 5 * 750**0.5
    assert abs(len(part & half) - 750) < 5 * (3000 * 0.25 * 0.75) ** 0.5


def test_a_lot_is_the_same_on_every_machine() -> None:
    assert [round(draw_lot("sample", seed, "0" * 32), 6) for seed in (0, 1)] == [0.188049, 0.952871]
    assert all(0 <= draw_lot("x", 0, unit) < 1 for unit in IDS)


@pytest.mark.parametrize(
    ("params", "ordinal", "reason"),
    [
        ({"names": ["grid3_*"]}, 1, None),
        ({"names": ["grid4_*", "*0002"]}, 1, "grid3_0001 fits none of grid4_*, *0002"),
        ({"except_names": ["grid3_*"]}, 1, "grid3_0001 fits grid3_*"),
        ({"first": 10}, 10, None),
        ({"first": 10}, 11, "exposure 11, wanted are the first 10"),
        ({"every": 3}, 4, None),
        ({"every": 3}, 5, "exposure 5, wanted is one of 3"),
        ({"names": ["grid3_*"], "every": 2}, 2, "exposure 2, wanted is one of 2"),
    ],
)
def test_a_subset_by_name_and_number(params: dict[str, object], ordinal: int, reason: str | None) -> None:
    verdict = choose_subset(ITEM, None, None, SubsetParams.model_validate(params), bench(ordinal=ordinal))
    assert verdict == Verdict(accepted=reason is None, reason=reason)


def test_a_subset_by_other_streams() -> None:
    def subset(also_in: list[Record] | None, not_in: list[Record] | None) -> Verdict:
        return choose_subset(ITEM, also_in, not_in, SubsetParams(), bench())

    assert subset([ITEM], None).accepted
    assert subset([], None).reason == "not in the other stream"
    assert subset(None, []).accepted
    assert subset(None, [ITEM]).reason == "also in the other stream"


def test_a_condition_may_look_at_another_stream() -> None:
    params = KeepIfParams(where="value > other.value")
    assert keep_where(ITEM, Number(value=3), params).accepted
    assert keep_where(ITEM, Number(value=9), params).reason == "value = 7, other.value = 9, wanted value > other.value"


NUMBERS = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 3}}


def graph_of(**steps: object) -> Graph:
    return build_graph(Workflow.model_validate({"steps": {"n": NUMBERS, **steps}}))


def test_what_goes_on_has_the_type_of_what_came() -> None:
    graph = graph_of(
        c={"use": f"{TOYS}:gather_crowd", "in": {"number": "n"}},
        k={"use": "keep_if", "in": {"item": "n", "other": "c"}, "params": {"where": "other.count > 10"}},
        u={"use": "union", "in": {"items": ["k", "k.rejected"]}},
        d={"use": f"{TOYS}:multiply", "in": {"number": "u"}},
        s={"use": f"{TOYS}:count_crowds", "in": {"crowds": "k.other"}},
    )
    assert {name: record.__name__ for name, record in graph.nodes["k"].outputs.items()} == {
        "out": "Number",
        "rejected": "Number",
        "item": "Number",
        "other": "Crowd",
        "rejected.item": "Number",
        "rejected.other": "Crowd",
    }
    assert graph.nodes["u"].outputs["out"] is Number


CROWD = {"use": f"{TOYS}:gather_crowd", "in": {"number": "n"}}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"use": "keep_if", "in": {"item": "n"}, "params": {"where": "count > 3"}}, "step 'x': .*Number has no field 'count'"),
        ({"use": "keep_if", "in": {"item": "n"}, "params": {"where": "other.count > 3"}}, "has no field 'other'"),
        ({"use": "union", "in": {"items": ["n", "c"]}}, "takes streams of one type, but n gives Number, c gives Crowd"),
        ({"use": f"{TOYS}:multiply", "in": {"number": "u"}}, "input 'number' wants Number, but u gives Crowd"),
        ({"use": "split", "in": {"item": "n"}, "params": {"part": 3}}, "step 'x': part 3 of 2: parts are numbered from 1 to 2"),
        ({"use": "sample", "in": {"item": "b"}, "params": {"fraction": 0.5}}, "takes one item, but b gives batches"),
        ({"use": "union", "in": {"items": ["b"]}}, "takes one item, but b gives batches"),
        ({"use": "sample", "in": {"item": "t"}, "params": {"fraction": 0.5}}, "takes items of exposures, but t gives versions"),
        ({"use": "union", "in": {"items": []}}, "input 'items' \\(Record\\) is missing"),
    ],
)
def test_what_does_not_fit_is_refused(step: dict[str, object], said: str) -> None:
    steps = {
        "c": CROWD,
        "u": {"use": "union", "in": {"items": ["c"]}},
        "b": {"use": "batches", "in": {"items": "n"}, "params": {"count": 2}},
        "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
    }
    with pytest.raises(WorkflowError, match=said):
        graph_of(**steps, x=step)


def test_a_list_may_be_empty_where_none_is_needed() -> None:
    graph = graph_of(x={"use": "subset", "in": {"item": "n", "not_in": []}})
    assert graph.nodes["x"].min_inputs == 0
