"""The workflows that come with icestream; each is a YAML document with a ``steps:`` map and nothing else."""

from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError

from icestream.errors import WorkflowError
from icestream.flow.graph import Workflow

_SUFFIX = ".yaml"


def list_workflows() -> dict[str, str]:
    """Return the names of the workflows that come with icestream, each with its first comment line as a summary."""
    found = sorted((entry for entry in files(__name__).iterdir() if entry.name.endswith(_SUFFIX)), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(_SUFFIX): entry.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for entry in found
    }


def find_workflow(name_or_path: str) -> Workflow:
    """Return the workflow that comes with icestream under this name, or the one in this file.

    Raises
    ------
    WorkflowError
        There is no such workflow, or it cannot be read.
    """
    if name_or_path in list_workflows():
        return read_workflow((files(__name__) / f"{name_or_path}{_SUFFIX}").read_text(encoding="utf-8"), origin=name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise WorkflowError(
            f"workflow {name_or_path!r}: no such file, and none of this name comes with icestream: {', '.join(list_workflows())}"
        )
    try:
        return read_workflow(path.read_text(encoding="utf-8"), origin=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"workflow {path}: cannot be read: {error}") from error


def read_workflow(text: str, *, origin: str) -> Workflow:
    """Read a workflow document; ``origin`` names it in messages.

    Raises
    ------
    WorkflowError
        The text is not YAML, or not a workflow.
    """
    try:
        return Workflow.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise WorkflowError(f"workflow {origin}: is not YAML: {error}") from error
    except ValidationError as error:
        issues = [f"{'.'.join(map(str, issue['loc'])) or 'document'}: {issue['msg']}" for issue in error.errors()]
        raise WorkflowError(f"workflow {origin}: " + "; ".join(issues)) from error
