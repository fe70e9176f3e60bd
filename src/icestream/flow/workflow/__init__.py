"""The workflow: a checked graph of steps, conditions, what steps ask for, and keys of results."""

from icestream.flow.workflow.acquiring import checked_acquisition, describe_refused, refuse_impossible
from icestream.flow.workflow.building import build_graph, examine_workflow, outputs_of_type
from icestream.flow.workflow.contents import (
    GivenFiles,
    check_contents,
    content_name,
    expected_contents,
    file_parameters,
    look_into_files,
    read_contents,
    settle_contents,
)
from icestream.flow.workflow.demands import Demand, check_requests, request_of, tokens_of, usable_gpus
from icestream.flow.workflow.expression import check_condition, parse_condition
from icestream.flow.workflow.expression_values import why_not
from icestream.flow.workflow.graph import Graph, GraphProblem, Link, Node, StepSpec, Workflow, may_repeat
from icestream.flow.workflow.graph_checks import check_params, run_own_check, unknown_parameter
from icestream.flow.workflow.keys import (
    assignment_key,
    canonical_json,
    digest,
    meaning_of,
    origin_of,
    result_key,
    revised_key,
    seed_of,
    source_key,
    state_key,
)
from icestream.flow.workflow.offers import Offers, find_offers
from icestream.flow.workflow.pinned import as_pinned, before, default_of
from icestream.flow.workflow.program_environment import clean_environment
from icestream.flow.workflow.programs import (
    find_program,
    look_for_programs,
    program_identity,
    read_program_settings,
    require_programs,
    tell_other_versions,
)

__all__ = [
    "Demand",
    "GivenFiles",
    "Graph",
    "GraphProblem",
    "Link",
    "Node",
    "Offers",
    "StepSpec",
    "Workflow",
    "as_pinned",
    "assignment_key",
    "before",
    "build_graph",
    "canonical_json",
    "check_condition",
    "check_contents",
    "check_params",
    "check_requests",
    "checked_acquisition",
    "clean_environment",
    "content_name",
    "default_of",
    "describe_refused",
    "digest",
    "examine_workflow",
    "expected_contents",
    "file_parameters",
    "find_offers",
    "find_program",
    "look_for_programs",
    "look_into_files",
    "may_repeat",
    "meaning_of",
    "origin_of",
    "outputs_of_type",
    "parse_condition",
    "program_identity",
    "read_contents",
    "read_program_settings",
    "refuse_impossible",
    "request_of",
    "require_programs",
    "result_key",
    "revised_key",
    "run_own_check",
    "seed_of",
    "settle_contents",
    "source_key",
    "state_key",
    "tell_other_versions",
    "tokens_of",
    "unknown_parameter",
    "usable_gpus",
    "why_not",
]
