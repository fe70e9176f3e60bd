"""Parameters that an exposure has of its own: what is refused, how they are laid over, and what they make of a key."""

from typing import Any

import pytest

from icestream.errors import WorkflowError
from icestream.flow.storage.own_params import check_own_params, describe_values, lay_over, may_recompute
from icestream.flow.storage.revisions import identity_params
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Graph, Workflow
from icestream.flow.workflow.keys import result_key
from toys.session import TOYS, toy_steps


def graph_of(**changes: Any) -> Graph:
    return build_graph(Workflow.model_validate({"steps": {**toy_steps(3), **changes}}))


GRAPH = graph_of()


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("numbers", r"numbers \(source\) cannot compute one exposure again: it finds its items"),
        ("even", r"even \(filter\) .* accept or reject by hand"),
        ("gate", r"gate \(gate\) .* lets exposures pass"),
        ("batch", r"batch \(collect\) .* takes many exposures together; recompute at a step upstream of it"),
        ("total", r"total \(accumulate\) .* takes many exposures together"),
        ("sums", r"sums \(map\) works on the batches of batch, not on single exposures"),
        ("newest", r"newest \(map\) makes versions of a whole"),
    ],
)
def test_only_maps_of_single_exposures_compute_one_again(step: str, told: str) -> None:
    with pytest.raises(WorkflowError, match=told):
        check_own_params(GRAPH.nodes[step], {"factor": 3})
    assert all(may_recompute(GRAPH.nodes[name]) is None for name in ("triple", "odd", "both", "any", "late"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "step 'triple': no parameter was given; write name=value, with one of: factor"),
        ({"factr": 7}, "step 'triple': .* has no parameter 'factr'; it has: factor"),
        ({"factr": None}, "has no parameter 'factr'"),
        ({"factor": "many"}, "step 'triple': parameter 'factor' is 'many': Input should be a valid integer"),
    ],
)
def test_what_cannot_be_a_parameter_is_named_with_its_value_and_what_is_allowed(given: dict[str, Any], told: str) -> None:
    with pytest.raises(WorkflowError, match=told):
        check_own_params(GRAPH.nodes["triple"], given)


def test_a_parameter_that_makes_no_difference_is_refused() -> None:
    node = GRAPH.nodes["triple"]
    operational = set(node.type.params.model_fields) - set(identity_params(node))
    assert operational
    for name in operational:
        with pytest.raises(WorkflowError, match=f"parameter '{name}' makes no difference to a result; those that do: factor"):
            check_own_params(node, {name: node.params[name]})


def test_values_are_stored_as_the_step_takes_them_and_none_is_the_default() -> None:
    assert check_own_params(GRAPH.nodes["triple"], {"factor": "7"}) == {"factor": 7}
    assert check_own_params(GRAPH.nodes["triple"], {"factor": None}) == {"factor": 2}
    assert describe_values({"factor": 7, "names": ["ä"]}) == 'factor=7, names=["ä"]'


def key_of(params: Any) -> str:
    return result_key("toy_multiply", 1, params=params, epoch=0, inputs={"number": ["k"]}, acquisition={})


def test_the_key_is_that_of_a_step_which_has_these_parameters() -> None:
    node = GRAPH.nodes["triple"]
    other = graph_of(triple={"use": f"{TOYS}:multiply", "in": {"number": "numbers"}, "params": {"factor": 8}}).nodes["triple"]
    laid = lay_over(node, identity_params(node), {"factor": 8})
    assert key_of(laid.identity) == key_of(identity_params(other)) != key_of(identity_params(node))
    assert laid.complete == {**node.params, "factor": 8}
    assert lay_over(node, identity_params(node), {"factor": 3}).identity == identity_params(node)


def test_a_parameter_that_newer_software_added_counts_only_where_it_is_not_at_its_default() -> None:
    node = GRAPH.nodes["triple"]
    pinned = {"factor": 3}  # of a revision made when the step had no other parameter
    assert lay_over(node, pinned, {"factor": 8}).identity == {"factor": 8}
    assert lay_over(node, pinned, {"fail_on": [1]}).identity == {"factor": 3, "fail_on": [1]}


def test_a_parameter_that_another_step_gives_may_be_an_exposures_own() -> None:
    taken = {"use": f"{TOYS}:multiply", "in": {"number": "triple"}, "params": {"factor": {"from": "numbers.value"}}}
    node = graph_of(taken=taken).nodes["taken"]
    given = check_own_params(node, {"factor": None})
    laid = lay_over(node, identity_params(node), given)
    assert laid.identity["factor"] == laid.complete["factor"] == 2
    assert "factor" not in identity_params(node)


def test_what_does_not_go_together_any_more_is_left_to_the_step_to_refuse() -> None:
    laid = lay_over(GRAPH.nodes["triple"], identity_params(GRAPH.nodes["triple"]), {"factor": "many", "gone": 1})
    assert laid.complete["factor"] == laid.identity["factor"] == "many"
    assert "gone" not in laid.complete
