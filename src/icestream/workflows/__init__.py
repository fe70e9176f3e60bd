"""Workflows and templates: those that come with icestream, finding, filling, exporting and joining them, import from Scipion."""

from icestream.errors import WorkflowError
from icestream.flow.workflow import Workflow
from icestream.workflows.filling import UnfilledTemplate, default_of, fill_template, read_values
from icestream.workflows.foreseeing import foresee, unset_values
from icestream.workflows.implied import ACQUISITION_NAMES
from icestream.workflows.placeholders import MOST_MEMBERS, PATH_TYPES, Placeholder, describe_allowed, read_value
from icestream.workflows.places import FoundTemplate, find_template, list_templates, load_template, missing_folders
from icestream.workflows.schema import placeholders_schema
from icestream.workflows.template import Template, asks_in, read_template

__all__ = [
    "ACQUISITION_NAMES",
    "MOST_MEMBERS",
    "PATH_TYPES",
    "FoundTemplate",
    "Placeholder",
    "Template",
    "UnfilledTemplate",
    "asks_in",
    "default_of",
    "describe_allowed",
    "fill_template",
    "find_template",
    "find_workflow",
    "foresee",
    "list_templates",
    "list_workflows",
    "load_template",
    "missing_folders",
    "placeholders_schema",
    "read_template",
    "read_value",
    "read_values",
    "read_workflow",
    "unset_values",
]


def list_workflows() -> dict[str, str]:
    """Return the names of the workflows that come with icestream, each with its first comment line as a summary."""
    return {name: found.summary for name, found in list_templates("").items() if found.origin == "icestream"}


def find_workflow(name_or_path: str) -> Workflow:
    """Return the workflow of the template of this name, or of the one in this file, with nothing but its defaults.

    Raises
    ------
    WorkflowError
        There is no such workflow, or it cannot be read.
    """
    found = find_template(name_or_path)
    if found.problem is not None:
        raise WorkflowError(f"workflow {found.origin}: {found.problem}")
    return read_workflow(found.text, origin=found.name)


def read_workflow(text: str, *, origin: str) -> Workflow:
    """Read a workflow or template document; ``origin`` names it in messages.

    Raises
    ------
    WorkflowError
        The text is not YAML, or not a workflow.
    """
    return read_template(text, origin=origin).workflow()
