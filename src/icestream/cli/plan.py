"""From what a person typed to the document of a session."""

import glob
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from icestream.errors import IcestreamError, WorkflowError
from icestream.flow.graph import StepSpec, Workflow, build_graph
from icestream.flow.registry import find_step
from icestream.flow.session import Session, SessionDocument
from icestream.flow.step import Kind
from icestream.records import Acquisition, GainReference, Picks

_UNSET_MEANS_NONE = {"pre_exposure_e_per_ang2"}


def parse_roots(given: Iterable[str], *, movies: Path | None, micrographs: Path | None, gain: Path | None) -> dict[str, str]:
    """Return the named folders of raw data, as absolute paths.

    Raises
    ------
    WorkflowError
        A root is not written as NAME=FOLDER, or is no folder.
    """
    roots = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise WorkflowError(f"--root {text!r}: write NAME=FOLDER")
        roots[name] = str(Path(folder).absolute())
    folders = {"movies": movies, "micrographs": micrographs, "gain": None if gain is None else gain.parent}
    roots |= {name: str(folder.absolute()) for name, folder in folders.items() if folder is not None}
    for name, path in roots.items():
        if Path(path).exists() and not Path(path).is_dir():
            raise WorkflowError(f"{name}: {path} is a file; give the folder it lies in, and --pattern for its name")
    return roots


def check_diameter(diameter_ang: tuple[float, float] | None) -> None:
    """Check that a range of diameters is one.

    Raises
    ------
    WorkflowError
        It is upside down, not positive or not finite.
    """
    if diameter_ang is None:
        return
    low, high = diameter_ang
    if not 0 < low <= high < math.inf:
        raise WorkflowError(f"--diameter {low:g} {high:g}: give the smallest diameter first, then the largest, both above 0 Å")


def acquisition_from(**values: float | None) -> Acquisition:
    """Check the values of the microscope.

    Raises
    ------
    WorkflowError
        A value is outside of what is possible.
    """
    try:
        return Acquisition.model_validate(values)
    except ValidationError as error:
        raise WorkflowError(
            "; ".join(f"{issue['loc'][0]} is {issue['input']}: {issue['msg']}" for issue in error.errors())
        ) from error


def document_for(
    name: str,
    workflow: Workflow,
    *,
    roots: dict[str, str],
    pattern: str | None,
    gain_file: str | None,
    settings: Iterable[str],
    diameter_ang: tuple[float, float] | None,
    acquisition: Acquisition,
) -> SessionDocument:
    """Return the document of a session: the workflow with its sources set and the parameters that were asked for.

    Without a gain reference, steps that import one are left out, and so are the inputs they fed.

    Raises
    ------
    WorkflowError
        A source has no folder, or a setting names no step.
    """
    _check_types(workflow)
    steps = dict(workflow.steps)
    for step, spec in workflow.steps.items():
        if not _is_source(spec):
            continue
        if _imports_gain(spec):
            if gain_file is None and "gain" not in roots:
                steps = _without(steps, step)
                continue
            steps[step] = _with_params(spec, {"root": "gain"} | ({"pattern": glob.escape(gain_file)} if gain_file else {}))
        elif pattern is not None:
            steps[step] = _with_params(spec, {"pattern": pattern})
    if diameter_ang is not None:
        steps = {name: _with_diameter(spec, diameter_ang) for name, spec in steps.items()}
    for step, values in parse_settings(settings).items():
        if step not in steps:
            raise WorkflowError(f"--set {step}.{next(iter(values))}: no step {step!r} in this session; it has {', '.join(steps)}")
        steps[step] = _with_params(steps[step], values)
    _check_sources(steps, roots)
    return SessionDocument(name=name, acquisition=acquisition, roots=roots, steps=steps)


def parse_settings(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``step.param=value`` texts; values are YAML, so ``[0.5, 3]``, ``true`` and ``null`` mean what they say.

    Raises
    ------
    WorkflowError
        A setting is written otherwise.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in settings:
        target, equals, value = text.partition("=")
        step, dot, parameter = target.partition(".")
        if not (step and dot and parameter and equals):
            raise WorkflowError(f"--set {text!r}: write STEP.PARAM=VALUE, as in --set ctf.tile_ang=900")
        found.setdefault(step, {})[parameter] = _read_value(text, value)
    return found


def parse_values(settings: Iterable[str]) -> dict[str, Any]:
    """Read ``name=value`` texts; values are YAML.

    Raises
    ------
    WorkflowError
        A setting is written otherwise.
    """
    found = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise WorkflowError(f"--set {text!r}: write NAME=VALUE")
        found[name] = _read_value(text, value)
    return found


def _read_value(text: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise WorkflowError(f"--set {text!r}: the value is not YAML: {error}") from error


def unset_values(session: Session) -> dict[str, list[str]]:
    """Return the acquisition values that nobody gave, each with the steps that read it."""
    given = session.document.acquisition.model_dump(exclude_none=True)
    readers: dict[str, list[str]] = {}
    for node in build_graph(Workflow(steps=session.document.steps)).nodes.values():
        for value in sorted(node.type.reads - set(given) - _UNSET_MEANS_NONE):
            readers.setdefault(value, []).append(node.name)
    return readers


def _check_types(workflow: Workflow) -> None:
    problems = []
    for name, spec in workflow.steps.items():
        try:
            find_step(spec.use)
        except IcestreamError as error:
            problems.append(f"step {name!r}: {error}")
    if problems:
        raise WorkflowError("\n".join(problems))


def _is_source(spec: StepSpec) -> bool:
    return find_step(spec.use).kind is Kind.SOURCE


def _imports_gain(spec: StepSpec) -> bool:
    output = find_step(spec.use).output
    return output is not None and issubclass(output, GainReference)


def _with_params(spec: StepSpec, values: Mapping[str, Any]) -> StepSpec:
    return spec.model_copy(update={"params": {**spec.params, **values}})


def _with_diameter(spec: StepSpec, diameter_ang: tuple[float, float]) -> StepSpec:
    """Tell a picking step how large the particle is."""
    step_type = find_step(spec.use)
    picks = step_type.output is not None and issubclass(step_type.output, Picks)
    return (
        _with_params(spec, {"diameter_ang": list(diameter_ang)})
        if picks and "diameter_ang" in step_type.params.model_fields
        else spec
    )


def _without(steps: dict[str, StepSpec], dropped: str) -> dict[str, StepSpec]:
    kept = {}
    for name, spec in steps.items():
        inputs = {port: target for port, target in spec.inputs.items() if target != dropped}
        if name != dropped:
            kept[name] = spec.model_copy(update={"inputs": inputs})
    return kept


def _check_sources(steps: dict[str, StepSpec], roots: dict[str, str]) -> None:
    for name, spec in steps.items():
        if not _is_source(spec):
            continue
        field = find_step(spec.use).params.model_fields.get("root")
        wanted = spec.params.get("root", None if field is None else field.default)
        if field is not None and wanted not in roots:
            raise WorkflowError(
                f"step {name!r} ({spec.use}) looks for files in the folder {wanted!r}, which is not given; "
                f"write --{wanted} FOLDER"
                if wanted in ("movies", "micrographs")
                else f"step {name!r} ({spec.use}) looks for files in the folder {wanted!r}, which is not given; "
                f"write --root {wanted}=FOLDER"
            )
