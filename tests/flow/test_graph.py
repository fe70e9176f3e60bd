from typing import Any

import pytest

from icestream.errors import WorkflowError
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Graph, Workflow
from toys.session import TOYS, toy_steps


def graph_of(steps: dict[str, Any]) -> Graph:
    return build_graph(Workflow.model_validate({"steps": steps}))


def test_a_whole_workflow_is_ordered_and_typed() -> None:
    graph = graph_of(toy_steps(5))
    order = list(graph.nodes)
    assert all(order.index(above) < order.index(name) for name in order for above in graph.inputs_of(name))
    assert graph.nodes["gate"].outputs["out"].__name__ == "Number"
    assert graph.nodes["sums"].domain == "batch:batch"
    assert graph.nodes["newest"].domain == "version:newest"
    assert graph.nodes["late"].bound == {"total"}
    assert graph.descendants("odd") == {"odd", "any", "total", "late", "newest"}


NUMBERS = {"use": f"{TOYS}:count_numbers", "params": {"stop_after": 3}}
DOUBLE = f"{TOYS}:multiply"


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"a": {"use": "no_such_step"}}, "step 'a': no step type is called 'no_such_step'; installed:"),
        ({"a": {"use": "no.such.module:thing"}}, "module 'no.such.module' cannot be imported"),
        ({"a": {"use": f"{TOYS}:Number"}}, "is not a step"),
        ({"A-b": NUMBERS}, "step 'A-b': a step's name is made of a-z, 0-9 and _"),
        (
            {"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": "m"}}},
            "takes input from 'm', which is not a step of this workflow: n, d",
        ),
        ({"n": NUMBERS, "d": {"use": DOUBLE}}, "step 'd': input 'number' (Number) is missing"),
        (
            {"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": "n", "nomber": "n"}}},
            "has no input 'nomber'; toy_multiply takes number",
        ),
        ({"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": "n.rejected"}}}, "n (source) has no output 'rejected'; it has out"),
        ({"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": ["n", "n"]}}}, "input 'number' takes one stream, got 2"),
        (
            {"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": "n"}, "params": {"factr": 3}}},
            "step 'd': toy_multiply has no parameter 'factr'; it has: factor",
        ),
        (
            {"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": "n"}, "params": {"factor": "three"}}},
            "step 'd': parameter 'factor' is 'three'",
        ),
        (
            {"d": {"use": DOUBLE, "in": {"number": "e"}}, "e": {"use": DOUBLE, "in": {"number": "d"}}},
            "steps d, e: take their input from each other in a circle",
        ),
        (
            {
                "a": {"use": DOUBLE, "in": {"number": "d"}},
                "d": {"use": DOUBLE, "in": {"number": "e"}},
                "e": {"use": DOUBLE, "in": {"number": "d"}},
            },
            "steps d, e: take their input from each other in a circle",
        ),
        (
            {
                "n": NUMBERS,
                "t": {"use": f"{TOYS}:AddUp", "in": {"number": "n"}},
                "d": {"use": DOUBLE, "in": {"number": "t"}},
            },
            "step 'd': input 'number' wants Number, but t gives Total",
        ),
        (
            {
                "n": NUMBERS,
                "b": {"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 2}},
                "d": {"use": DOUBLE, "in": {"number": "b"}},
            },
            "takes one item, but b gives batches",
        ),
        (
            {
                "n": NUMBERS,
                "b": {"use": f"{TOYS}:batches", "in": {"items": "n"}, "params": {"count": 2}},
                "s": {"use": f"{TOYS}:add_all", "in": {"numbers": ["b", "n"]}},
            },
            "its inputs come per batch:b and per exposure",
        ),
        (
            {"n": NUMBERS, "d": {"use": DOUBLE, "in": {"number": "n"}, "params": {"factor": {"from": "n"}}}},
            "parameter 'factor' takes 'n' as a value; write {from: n.field}",
        ),
    ],
)
def test_what_cannot_run_is_refused_by_name(steps: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        graph_of(steps)
    assert said in str(refused.value)


def test_all_problems_are_told_at_once() -> None:
    steps = {
        "n": NUMBERS,
        "d": {"use": DOUBLE, "in": {"number": "n"}, "params": {"factr": 1, "factor": "x"}},
        "e": {"use": DOUBLE},
    }
    with pytest.raises(WorkflowError) as refused:
        graph_of(steps)
    assert len(str(refused.value).split("\n")) == 3
