"""Writing a workflow as Scipion's JSON.

What was written is read back by the importer, and everything that does not come back as it was is told: the importer knows what
Scipion's words mean, so the two cannot drift apart.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from icestream.errors import IcestreamError
from icestream.flow.declaration import StepType, find_step
from icestream.flow.workflow import StepSpec
from icestream.workflows.placeholders import Placeholder
from icestream.workflows.scipion import convert
from icestream.workflows.scipion.export_words import CHOSEN, PASSED, WRITERS
from icestream.workflows.scipion.parse import FIELD_TYPES, parse_scipion
from icestream.workflows.scipion.rules import Mapping as Rules
from icestream.workflows.scipion.table import MAPPED
from icestream.workflows.scipion.translate import Translation, translate_scipion
from icestream.workflows.template import Template, is_ask

_KINDS = ("Movies", "Micrographs", "CTF", "Coordinates", "Particles", "Classes", "Averages")
_OUTPUTS = {
    "Movie": "outputMovies",
    "Micrograph": "outputMicrographs",
    "CtfFit": "outputCTF",
    "Picks": "outputCoordinates",
    "Particles": "outputParticles",
    "ClassAverages": "outputClasses",
}
_FIELDS = {"bool": "yes or no", "path": "path", "file": "file", "folder": "folder", "int": "integer", "float": "decimal"}
_SAME = frozenset({convert.as_number, convert.as_positive, convert.as_integer, convert.as_flag})
_INVERSES: dict[Callable[..., Any], Callable[[Any], tuple[Any, ...]]] = {
    **{same: lambda value: (value,) for same in _SAME},
    convert.as_fraction: lambda value: (100 * value,),
    convert.as_not: lambda value: (not value,),
    convert.as_index: lambda value: (value + 1,),
    convert.as_range: tuple,
    convert.as_resolution: tuple,
    convert.as_range_um: lambda value: tuple(round(1e4 * one, 3) for one in value),
    convert.as_seconds: lambda value: (f"{value:g}",),
}
"""How a value that the importer converts is written."""


@dataclass(frozen=True)
class ScipionWorkflow:
    """The text of a workflow of Scipion, and what it cannot say, a sentence each."""

    text: str
    left_out: tuple[str, ...]


def export_scipion(template: Template) -> ScipionWorkflow:
    """Return a workflow as Scipion's JSON; what a template asks for becomes a field where Scipion has one for it."""
    writer = _Writer(template)
    written = [writer.protocol(name, spec) for name, spec in template.steps.items() if name in writer.ids]
    text = json.dumps(written, indent=4, ensure_ascii=False)
    told = [*writer.told, *(f"{name} is disabled, so it is not written" for name in template.disabled)]
    if template.alarms is not None:
        told.append("rules of alarms are not written")
    if written:
        told += _compare(writer, translate_scipion(parse_scipion(text, name="export.json")))
    return ScipionWorkflow(text, tuple(dict.fromkeys(told)))


@dataclass
class _Writer:
    template: Template
    ids: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        folded = self._folded()
        for name, spec in self.template.steps.items():
            if spec.use in CHOSEN and _type_of(spec) is not None:
                self.ids[name] = 100 * (len(self.ids) + 1)
            elif name not in folded and spec.use not in PASSED:
                passed = self._passed(spec)
                follow = f"; what reads it reads {passed}" if passed else ""
                self.told.append(f"{name} ({spec.use}) has no counterpart in Scipion{follow}")

    def _folded(self) -> set[str]:
        """Return the steps that Scipion's protocol of another step is as well, as that which measures the tilt it judges."""
        return {
            link
            for spec in self.template.steps.values()
            if spec.use in CHOSEN
            for first in MAPPED[CHOSEN[spec.use]].first
            for link in _links(spec.inputs.get(first.port, ()))
            if link in self.template.steps and self.template.steps[link].use == first.use
        }

    def protocol(self, name: str, spec: StepSpec) -> dict[str, Any]:
        """Return one step as a protocol."""
        mapping, class_name = MAPPED[CHOSEN[spec.use]], CHOSEN[spec.use]
        waits = [str(self.ids[one]) for one in spec.after if one in self.ids]
        made: dict[str, Any] = {
            "object.className": class_name,
            "object.id": str(self.ids[name]),
            "object.label": spec.label or name,
            "object.comment": spec.note or "",
            "_useQueue": False,
            "_prerequisites": ",".join(waits),
            "_queueParams": None,
            "runName": None,
            "runMode": 0,
        }
        made |= dict(self._params(spec, mapping)) | dict(self._inputs(spec, mapping))
        return made | (self._import(spec) if find_step(spec.use).is_source else {})

    def _params(self, spec: StepSpec, mapping: Rules) -> Iterator[tuple[str, Any]]:
        values, writers = self.complete(spec), WRITERS.get(spec.use, {})
        for target, write in writers.items():
            if target in values:
                yield from write(values[target]).items()
        for rule in mapping.rules:
            given = spec.params.get(rule.target)
            if given is not None and is_ask(given) and rule.convert in _SAME:
                yield rule.sources[0], self.field(given)
            elif rule.target not in writers and rule.convert in _INVERSES and values.get(rule.target) is not None:
                yield from zip(rule.sources, _INVERSES[rule.convert](values[rule.target]), strict=False)

    def complete(self, spec: StepSpec) -> dict[str, Any]:
        """Return the parameters of a step with their defaults; those that are asked for are at the defaults of the template."""
        given = {}
        for name, value in spec.params.items():
            one = self.template.placeholders.get(str(value["ask"])) if is_ask(value) else None
            if not (isinstance(value, Mapping) and set(value) & {"ask", "from"}):
                given[name] = value
            elif one is not None and one.default is not None:
                given[name] = one.default
        return _complete(spec.use, given)

    def field(self, value: Mapping[str, Any]) -> str:
        """Return what is asked for as a field of a template of Scipion."""
        name = str(value["ask"])
        one = self.template.placeholders.get(name, Placeholder(label=name))
        label = " ".join(one.label.replace("|", "/").replace("~", "-").split())
        unit = f" ({one.shown_unit})" if one.shown_unit else ""
        default = "" if one.default is None else str(one.default).replace("|", "/").replace("~", "-")
        return f"~{label}{unit}|{default}|{FIELD_TYPES.index(_FIELDS.get(one.type, 'text'))}|{name}~"

    def _value(self, value: Any) -> Any:
        return self.field(value) if is_ask(value) and "." not in str(value["ask"]) else None if is_ask(value) else value

    def _inputs(self, spec: StepSpec, mapping: Rules) -> Iterator[tuple[str, Any]]:
        for port, sources in mapping.ports.items():
            parameter = next((one for one in sources if isinstance(one, str)), None)
            found = [self._pointer(link, parameter) for link in _links(spec.inputs.get(port, ())) if parameter is not None]
            pointers = [pointer for pointer in found if pointer is not None]
            if parameter is not None and pointers:
                many = next(one.many for one in find_step(spec.use).ports if one.name == port)
                yield parameter, pointers if many else pointers[0]

    def _pointer(self, link: str, parameter: str) -> str | None:
        """Return Scipion's name of one of our outputs; of a step that it does not have, that of what the step passes on."""
        step, _, output = link.partition(".")
        if step not in self.template.steps:
            return None
        spec = self.template.steps[step]
        if step not in self.ids:
            passed = self._passed(spec, output)
            return None if passed is None else self._pointer(passed, parameter)
        mapping = MAPPED[CHOSEN[spec.use]]
        named = next((start for start, ours in mapping.outputs if ours == output and output), None)
        kind = next((kind for kind in _KINDS if kind in parameter), None)
        record = find_step(spec.use).output
        own = _OUTPUTS.get("" if record is None else record.__name__, "outputSet")
        name = named or (f"output{kind}" if kind is not None else own)
        discarded = "Discarded" if output.startswith("rejected") and "iscarded" not in name else ""
        return f"{self.ids[step]}.{name}{discarded}"

    def _passed(self, spec: StepSpec, output: str = "") -> str | None:
        """Return what a step without a counterpart passes on: an input of the type that it gives."""
        step_type = _type_of(spec)
        if step_type is None or output.startswith("rejected"):
            return None
        if step_type.is_filter or step_type.holds_units:
            port = output or step_type.ports[0].name
            return next(iter(_links(spec.inputs.get(port, spec.inputs.get(step_type.ports[0].name, ())))), None)
        same = [port.name for port in step_type.ports if step_type.output is not None and port.record is step_type.output]
        return next((link for port in same for link in _links(spec.inputs.get(port, ()))), None)

    def _import(self, spec: StepSpec) -> dict[str, Any]:
        values = {
            name: self._value(self.template.acquisition[ours])
            for name, ours in _ACQUISITION.items()
            if ours in self.template.acquisition
        }
        fields = find_step(spec.use).params.model_fields
        root = str(spec.params.get("root", fields["root"].default if "root" in fields else ""))
        made = {"importFrom": 0, "filesPath": self._value(self.template.roots.get(root)) or "", "dataStreaming": True}
        pattern = self._value(spec.params.get("pattern"))
        made |= {"filesPattern": pattern} if pattern is not None else {}
        gain = next((one for one in self.template.placeholders if one == "gain"), None)
        if spec.use == "import_movies" and gain is not None:
            made["gainFile"] = self.field({"ask": gain})
        return made | {name: value for name, value in values.items() if value is not None}


_ACQUISITION = {
    "voltage": "voltage_kv",
    "sphericalAberration": "cs_mm",
    "amplitudeContrast": "amplitude_contrast",
    "samplingRate": "pixel_size_ang",
    "dosePerFrame": "dose_per_frame_e_per_ang2",
    "doseInitial": "pre_exposure_e_per_ang2",
}


def _compare(writer: _Writer, back: Translation) -> Iterator[str]:
    """Yield what does not come back as it was."""
    rows = {row.protocol.id: row.step for row in back.rows}
    theirs = {name: rows.get(str(identity)) for name, identity in writer.ids.items()}
    steps = writer.template.steps
    for name, step in theirs.items():
        mine = steps[name]
        if step is None or back.steps[step].use != mine.use:
            told = f"{CHOSEN[mine.use]} stands for it (protocol {writer.ids[name]}), which does not do the same"
            yield f"{name}: Scipion has no {mine.use} of this kind; {told}"
            continue
        ours, other = writer.complete(mine), _complete(mine.use, back.steps[step].params)
        asked = {key for key, value in mine.params.items() if isinstance(value, Mapping) and set(value) & {"ask", "from"}}
        for key in ours:
            if ours[key] != other.get(key) and key not in ("root", "pattern"):
                kept = "its default" if key not in back.steps[step].params else repr(other.get(key))
                yield f"{name}: {key} {ours[key]!r} cannot be said; there it is {kept}"
        yield from (
            f"{name}: {key} is a value of another step or of the session, which is not asked for there"
            for key in asked - set(ours)
        )
        for port, links in mine.inputs.items():
            read = [link.partition(".")[0] for link in _links(links)]
            wanted = {theirs.get(one) for one in read if one not in steps or steps[one].use not in PASSED}
            found = {link.partition(".")[0] for link in _links(back.steps[step].inputs.get(port, ()))}
            if None in wanted or not wanted <= found:
                yield f"{name}: input {port} reads {', '.join(_links(links))}, which is not said there in the same way"


def _links(targets: Any) -> list[str]:
    return [targets] if isinstance(targets, str) else list(targets)


def _type_of(spec: StepSpec) -> StepType | None:
    try:
        return find_step(spec.use)
    except IcestreamError:
        return None


def _complete(use: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with the defaults of a step, as far as they can be had."""
    model = find_step(use).params
    try:
        return model.model_validate(given).model_dump(mode="json")
    except ValidationError:
        defaults = {
            name: one.get_default(call_default_factory=True) for name, one in model.model_fields.items() if not one.is_required()
        }
        return {**defaults, **given}
