"""The placeholders that a workflow implies: where its data lie, what the microscope did, how large the particle is.

A workflow without placeholders of its own is asked for these, so that every workflow is a template and there is one way to make a
session. An export gives them the values of the session as defaults.
"""

import glob
import re
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from icestream.errors import IcestreamError, WorkflowError
from icestream.flow.declaration import StepType, find_step
from icestream.flow.workflow import StepSpec, file_parameters
from icestream.records import GainReference, ParticleSize, Picks, PossibleAcquisition, Record
from icestream.workflows.placeholders import LONGEST_TEXT, Placeholder
from icestream.workflows.template import Template, TemplateStep, asks_in

ACQUISITION_NAMES = {
    "voltage_kv": "voltage",
    "cs_mm": "cs",
    "amplitude_contrast": "amplitude_contrast",
    "pixel_size_ang": "pixel_size",
    "dose_per_frame_e_per_ang2": "dose_per_frame",
    "pre_exposure_e_per_ang2": "pre_exposure",
}
"""Values of `Acquisition`, and the placeholders (and options of ``icestream new``) that give them."""

OPTIONS = {name: f"--{name.replace('_', '-')}" for name in ACQUISITION_NAMES.values()} | {
    name: f"--{name}" for name in ("movies", "micrographs", "pattern", "gain", "diameter")
}
"""Placeholders that ``icestream new`` has an option of its own for."""

_USUAL = {"amplitude_contrast": 0.1}
"""What is usual for protein in ice, of values that no file states."""

_DATA, _MICROSCOPE, _PARTICLE = "Data", "Microscope", "Particle"
_FOLDER_LABELS = {"movies": "Folder where movies appear", "micrographs": "Folder where micrographs appear"}
_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}


def imply_template(
    steps: Mapping[str, StepSpec], *, acquisition: Mapping[str, float] | None = None, roots: Mapping[str, str] | None = None
) -> Template:
    """Return a workflow as a template; given values become the defaults of its placeholders.

    What is asked for already stays as it is.
    """
    maker = _Maker(_USUAL if acquisition is None else acquisition, dict(roots or {}))
    made = {name: maker.step(name, spec) for name, spec in steps.items()}
    maker.remaining_roots()
    asked = {name: maker.acquisition_value(name) for name in ACQUISITION_NAMES}
    return Template(placeholders=maker.placeholders, acquisition=asked, roots=maker.roots, steps=made)


def ask_for_what_is_missing(template: Template) -> Template:
    """Return a template that asks for all that its steps read: folders, and where it fixes nothing of a session, the rest too.

    What it says or asks for already stays as it is.

    Raises
    ------
    WorkflowError
        A name that is needed is that of another placeholder.
    """
    if not template.acquisition and not template.roots:
        implied = imply_template(template.steps)
        clash = sorted(set(implied.placeholders) & set(template.placeholders))
        if clash:
            raise WorkflowError(f"placeholder {clash[0]!r}: every session is asked for this; give yours another name")
        placeholders = {**implied.placeholders, **template.placeholders}
        changed = {"steps": implied.steps, "roots": implied.roots, "acquisition": implied.acquisition}
        return template.model_copy(update={"placeholders": placeholders, **changed})
    maker = _Maker({}, {}, template.placeholders, template.roots)
    for spec in template.steps.values():
        maker.folders(spec)
    return template.model_copy(update={"placeholders": maker.placeholders, "roots": maker.roots})


def ask_for_acquisition(name: str, default: float | None = None) -> Placeholder:
    """Return the placeholder for a value of the microscope, with its unit and range."""
    schema = PossibleAcquisition.model_json_schema()["properties"][name]
    number: dict[str, Any] = next(branch for branch in schema["anyOf"] if branch["type"] != "null")
    usual = default is not None and _USUAL.get(name) == default
    return Placeholder(
        label=schema["description"],
        type="float",
        unit=number.get("unit"),
        default=default,
        optional=not usual,
        group=_MICROSCOPE,
        help=f"No file states it; {default:g} is usual for protein in ice."
        if usual
        else "If left out, it is taken from the files, where they state it.",
        **{ours: number[theirs] for theirs, ours in _BOUNDS.items() if theirs in number},
    )


def type_of(spec: StepSpec) -> StepType | None:
    """Return the type of a step, or None where it is not installed; the check of the graph tells that."""
    try:
        return find_step(spec.use)
    except IcestreamError:
        return None


def imports_gain(step_type: StepType) -> bool:
    """Tell whether a step imports gain references."""
    return step_type.is_source and step_type.output is not None and issubclass(step_type.output, GainReference)


def given_roots(step_type: StepType, params: Mapping[str, Any]) -> list[str]:
    """Return the roots of the files that parameters of a step name, as ``root:path``; the session's own folder is none."""
    values = [params.get(name) for name in file_parameters(step_type)]
    refs = [ref for value in values for ref in (value if isinstance(value, list) else [value]) if isinstance(ref, str)]
    return [root for root in dict.fromkeys(ref.partition(":")[0] for ref in refs if ":" in ref) if root != "session"]


def needs_diameters(step_type: StepType) -> bool:
    """Tell whether a step is a picker that is told a range of diameters."""
    field = step_type.params.model_fields.get("diameter_ang")
    picks = step_type.output is not None and issubclass(step_type.output, Picks)
    kinds = () if field is None else (field.annotation, *get_args(field.annotation))
    return picks and any(get_origin(kind) is tuple for kind in kinds)


def finds_diameter(step_type: StepType, spec: StepSpec) -> bool:
    """Tell whether a picker reads the size of its particles from another step, so that nobody needs to give it."""
    return any(issubclass(port.record, ParticleSize) and port.name in spec.inputs for port in step_type.ports)


def _may_be_asked(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_TEXT


class _Maker:
    def __init__(
        self,
        acquisition: Mapping[str, float],
        known_roots: dict[str, str],
        placeholders: Mapping[str, Placeholder] | None = None,
        roots: Mapping[str, Any] | None = None,
    ) -> None:
        self.placeholders: dict[str, Placeholder] = dict(placeholders or {})
        self.roots: dict[str, Any] = dict(roots or {})
        self._acquisition, self._known_roots = acquisition, known_roots
        self._patterns: dict[Any, str] = {}

    def step(self, name: str, spec: StepSpec) -> TemplateStep:
        """Return one step, asking for what it needs of the session."""
        step_type, params, only_with = type_of(spec), dict(spec.params), None
        if step_type is None:
            pass
        elif imports_gain(step_type):
            only_with = self._gain(step_type, params)
        elif step_type.is_source:
            self._source(name, step_type, params)
        elif needs_diameters(step_type):
            self._picker(name, params, optional=finds_diameter(step_type, spec))
        elif step_type.output is not None and issubclass(step_type.output, Picks) and "root" in step_type.params.model_fields:
            self._root(str(params.get("root", step_type.params.model_fields["root"].default)))
        for root in given_roots(step_type, params) if step_type is not None else ():
            self._root(root)
        given = {field: getattr(spec, field) for field in StepSpec.model_fields}
        conditions = spec.conditions if isinstance(spec, TemplateStep) else {}
        return TemplateStep(**{**given, "params": params, **({"only_with": only_with} | conditions)})

    def folders(self, spec: StepSpec) -> None:
        """Ask for the folders that a step reads, and for nothing else."""
        step_type = type_of(spec)
        field = None if step_type is None else step_type.params.model_fields.get("root")
        if step_type is None:
            return
        if field is not None and (step_type.is_source or issubclass(step_type.output or Record, Picks)):
            self._root(str(spec.params.get("root", field.default)))
        for root in given_roots(step_type, spec.params):
            self._root(root)

    def _source(self, name: str, step_type: StepType, params: dict[str, Any]) -> None:
        fields = step_type.params.model_fields
        if "root" in fields:
            self._root(str(params.get("root", fields["root"].default)))
        default = params.get("pattern")
        if "pattern" in fields and (default is None or _may_be_asked(default)):
            if default not in self._patterns:
                asked = self._free("pattern" if "pattern" not in self.placeholders else f"{name}_pattern")
                self._patterns[default] = asked
                self.placeholders[asked] = Placeholder(
                    label="Which files to take",
                    help="A pattern relative to the folder, such as **/*_fractions.tiff; if left out, every file.",
                    default=default,
                    optional=True,
                    group=_DATA,
                )
            params["pattern"] = {"ask": self._patterns[default]}

    def _root(self, root: str) -> None:
        if root not in self.roots:
            asked = self._free(root)
            label = _FOLDER_LABELS.get(root, f"Folder {root}")
            default = self._known_roots.get(root)
            self.placeholders[asked] = Placeholder(label=label, type="folder", default=default, group=_DATA)
            self.roots[root] = {"ask": asked}

    def _gain(self, step_type: StepType, params: dict[str, Any]) -> str | None:
        root = str(params.get("root", "gain"))
        if root in self.roots or any(asks_in(params)):
            return None
        name = self._free(root)
        pattern, folder = params.get("pattern"), self._known_roots.get(root)
        plain = re.sub(r"\[([*?[])\]", r"\1", pattern) if isinstance(pattern, str) else None
        whole = plain is not None and "/" not in plain and glob.escape(plain) == pattern
        default = None if folder is None else f"{folder.rstrip('/')}/{plain if whole else ''}"
        self.placeholders[name] = Placeholder(
            label="Gain reference of the camera",
            type="path",
            help="A file, which may appear later than the first movies, or a folder ending in /.",
            default=default,
            optional=True,
            group=_DATA,
        )
        self.roots[root] = {"ask": f"{name}.folder"}
        if whole or pattern is None:
            params["pattern"] = {"ask": f"{name}.pattern"}
        return name

    def _picker(self, name: str, params: dict[str, Any], *, optional: bool) -> None:
        if any(asks_in(params.get("diameter_ang"))):
            return
        default = params.get("diameter_ang")
        if isinstance(default, dict):
            return
        asked = "diameter"
        if asked in self.placeholders and self.placeholders[asked].default != default:
            asked = self._free(f"{name}_diameter")
        if asked not in self.placeholders:
            self.placeholders[asked] = Placeholder(
                label="Smallest and largest diameter of the particle",
                type="range",
                unit="Å",
                gt=0,
                default=list(default) if isinstance(default, tuple) else default,
                optional=optional,
                group=_PARTICLE,
            )
        params["diameter_ang"] = {"ask": asked}

    def remaining_roots(self) -> None:
        """Ask for folders that no step of a known type names."""
        for root in self._known_roots:
            self._root(root)

    def acquisition_value(self, name: str) -> dict[str, str]:
        """Ask for one value of the microscope."""
        asked = self._free(ACQUISITION_NAMES[name])
        self.placeholders[asked] = ask_for_acquisition(name, self._acquisition.get(name))
        return {"ask": asked}

    def _free(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.placeholders:
            name, number = f"{wanted}_{number}", number + 1
        return name
