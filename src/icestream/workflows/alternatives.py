"""Inputs with alternatives: of the steps that a template names for one input, the first that is not left out."""

from collections.abc import Mapping

from icestream.errors import IcestreamError
from icestream.flow.declaration import find_step
from icestream.flow.workflow import StepSpec


def take_first_inputs(spec: StepSpec, *, optional: Mapping[str, bool]) -> StepSpec:
    """Return a step whose inputs that take one stream have one: the first of those that the template lists.

    ``optional`` says of each step that is there whether the template could have left it out. A list is one of alternatives
    only if each step but the last could be; else it is a mistake, which the check of the workflow tells.
    """
    many = _list_inputs(spec)
    inputs = {
        port: targets[0]
        for port, targets in spec.inputs.items()
        if many is not None
        and port not in many
        and isinstance(targets, list)
        and targets
        and all(optional.get(target.partition(".")[0], False) for target in targets[:-1])
    }
    return spec.model_copy(update={"inputs": {**spec.inputs, **inputs}}) if inputs else spec


def _list_inputs(spec: StepSpec) -> set[str] | None:
    """Return the inputs that take any number of streams; None if there is no such step type, which is told elsewhere."""
    try:
        return {port.name for port in find_step(spec.use).ports if port.many}
    except IcestreamError:
        return None
