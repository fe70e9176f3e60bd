"""From Scipion's protocols to a workflow of ours, with an account of what became of each of them."""

from dataclasses import dataclass, field
from typing import Any

from icestream.errors import WorkflowError
from icestream.flow.graph import Link, StepSpec, Workflow, build_graph
from icestream.flow.registry import find_step
from icestream.flow.step import Kind, Port
from icestream.records import Picks, Record
from icestream.workflows.scipion_convert import AbsentError, Reader, UntranslatableError
from icestream.workflows.scipion_params import Account, read_params, tell_lost
from icestream.workflows.scipion_parse import Document, DynamicField, Pointer, Protocol
from icestream.workflows.scipion_rules import Mapping, Via
from icestream.workflows.scipion_sources import FOLDERS, ImportValues, gain_pattern, read_import
from icestream.workflows.scipion_table import MAPPED, UNMAPPED

MAPPED_SAME, CHANGED, LEFT_OUT, UNKNOWN = "mapped", "changed meaning", "left out", "unknown"


@dataclass(frozen=True)
class Row:
    """What became of one protocol; ``kept`` are parameters without a counterpart, as they were written."""

    protocol: Protocol
    step: str | None
    outcome: str
    notes: tuple[str, ...]
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AskedField:
    """A field of a template, and where its value goes now: an option of ``icestream new``, or nowhere."""

    protocol: str
    parameter: str
    asked: DynamicField
    target: str | None


@dataclass
class Translation:
    """A workflow made from Scipion's, and everything a person has to know about it.

    ``options`` are those of ``icestream new``; a value of None is to be filled in. ``problems`` are what still keeps the workflow
    from running.
    """

    document: Document
    steps: dict[str, StepSpec] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    fields: list[AskedField] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def translate_scipion(document: Document) -> Translation:
    """Make a workflow of an exported one."""
    translator = _Translator(document)
    for protocol in document.protocols:
        translator.add(protocol)
    result = translator.result
    result.problems = _problems(result)
    return result


def _problems(result: Translation) -> tuple[str, ...]:
    """Check the workflow as ``icestream new`` will complete it; picks without a size get one there."""
    steps = dict(result.steps)
    picking = [name for name, spec in steps.items() if issubclass(find_step(spec.use).output or Record, Picks)]
    unsized = [name for name in picking if "diameter_ang" not in steps[name].params]
    for name in unsized:
        steps[name] = steps[name].model_copy(update={"params": {**steps[name].params, "diameter_ang": [100, 120]}})
        result.options["--diameter" if unsized == picking else f"--set {name}.diameter_ang"] = None
    try:
        build_graph(Workflow(steps=steps))
    except WorkflowError as error:
        return tuple(str(error).split("\n"))
    return ()


class _Translator:
    def __init__(self, document: Document) -> None:
        self.result = Translation(document)
        self._protocols = {protocol.id: protocol for protocol in document.protocols}
        self._made: dict[str, tuple[str, Mapping]] = {}
        self._passed: dict[str, Link] = {}
        self._pixels: dict[str, tuple[float | None, float]] = {}  # step: pixel size of the import, binning since
        self._gains: dict[str, str] = {}  # step that imports movies: step that imports their gain
        self._gain_files: dict[str | None, str] = {}
        self._scales: dict[str, float] = {}  # protocol: how many of our pixels one of its micrographs' pixels is

    def add(self, protocol: Protocol) -> None:
        """Translate one protocol; those that it reads were translated before."""
        self._scales[protocol.id] = self._scale(protocol)
        if protocol.class_name in MAPPED:
            self._map(protocol, MAPPED[protocol.class_name])
        elif protocol.class_name in UNMAPPED:
            self._pass_on(protocol)
        else:
            self._leave(protocol, UNKNOWN, ["no protocol of this name is known to icestream"])

    def _scale(self, protocol: Protocol) -> float:
        pointers = protocol.pointers
        source = next((name for name in ("inputMicrographs", "inputCoordinates") if name in pointers), next(iter(pointers), None))
        scale = self._scales[pointers[source][0].protocol] if source is not None else 1.0
        if protocol.class_name != "XmippProtPreprocessMicrographs":
            return scale
        reader = Reader(protocol)
        try:
            return scale * max(1.0, reader.number("downFactor")) if reader.flag("doDownsample") else scale
        except (AbsentError, UntranslatableError):
            return scale

    def _leave(self, protocol: Protocol, outcome: str, notes: list[str]) -> None:
        self.result.rows.append(Row(protocol, None, outcome, tuple(notes)))
        self._list_fields(protocol, {})

    def _pass_on(self, protocol: Protocol) -> None:
        unmapped, notes = UNMAPPED[protocol.class_name], []
        pointers = [pointer for name in unmapped.passes for pointer in protocol.pointers.get(name, ())]
        links = [link for pointer in pointers if (link := self._resolve(pointer)) is not None]
        if links:
            self._passed[protocol.id] = links[0]
            notes.append(f"steps after it read {links[0]}")
        self._leave(protocol, LEFT_OUT, [unmapped.reason, *tell_lost(protocol, unmapped.lost), *notes])

    def _map(self, protocol: Protocol, mapping: Mapping) -> None:
        links, missing, notes = self._links(protocol, mapping)
        if missing:
            self._leave(protocol, LEFT_OUT, [f"{mapping.use} has no input: {reason}" for reason in missing])
            return
        first = next(iter(links.values()), None)
        raw_pixel_ang, binning = (None, 1.0) if first is None else self._pixels.get(first.step, (None, 1.0))
        scale = self._scales[protocol.id]
        pixel_ang = None if raw_pixel_ang is None else raw_pixel_ang * binning * scale
        reader = Reader(protocol, raw_pixel_ang, pixel_ang, scale, self._protocols)
        if scale != 1 and mapping.use in ("pick_blob", "extract"):
            notes.append(f"Scipion scaled the micrographs down by {scale:g}; sizes in pixels are larger here by as much")
        account = read_params(reader, mapping)
        name = self._name(mapping.step)
        inputs = {port: str(link) for port, link in links.items()}
        if mapping.use == "motion" and first is not None and first.step in self._gains:
            inputs["gain"] = self._gains[first.step]
        bin_ = account.params.get("bin", 1.0) if mapping.use == "motion" else 1.0
        self._pixels[name] = (raw_pixel_ang, binning * bin_)
        self._add_step(name, mapping.use, protocol, inputs, account.params)
        self._made[protocol.id] = (name, mapping)
        if protocol.class_name in FOLDERS:
            self._import(protocol, mapping, name, read_import(reader), account)
        waits = [f"does not wait for {', '.join(protocol.prerequisites)}"] if protocol.prerequisites else []
        notes = [*([mapping.changed] if mapping.changed else []), *account.notes, *notes, *waits]
        self.result.rows.append(Row(protocol, name, CHANGED if notes else MAPPED_SAME, tuple(notes), account.kept))
        targets = account.targets.items()
        self._list_fields(protocol, {key: target if target[0] == "-" else f"--set {name}.{target}" for key, target in targets})

    def _add_step(self, name: str, use: str, protocol: Protocol, inputs: dict[str, Any], params: dict[str, Any]) -> None:
        label = " ".join(protocol.label.split()) or None
        self.result.steps[name] = StepSpec(use=use, inputs=inputs, params=params, label=label)

    def _name(self, wanted: str) -> str:
        taken = [name for name in self.result.steps if name == wanted or name.startswith(f"{wanted}_")]
        return f"{wanted}_{len(taken) + 1}" if taken else wanted

    def _import(self, protocol: Protocol, mapping: Mapping, name: str, values: ImportValues, account: Account) -> None:
        steps, options = self.result.steps, self.result.options
        kind = FOLDERS[protocol.class_name]
        root = kind if name == kind else name
        added = {**({} if root == kind else {"root": root}), **({"pattern": values.pattern} if values.pattern else {})}
        steps[name] = steps[name].model_copy(update={"params": {**added, **steps[name].params}})
        options[f"--{kind}" if root == kind else f"--root {root}"] = values.folder
        account.notes.extend(values.notes)
        for option, value in values.options.items():
            if options.setdefault(option, value) != value:
                account.notes.append(f"{option} is {value} here and {options[option]} before; a session has one value")
        self._pixels[name] = (values.pixel_ang, 1.0)
        if kind == "micrographs":
            prepared = self._name("prepared")
            steps[prepared] = StepSpec(use="prepare_micrograph", inputs={"micrograph": name})
            self._pixels[prepared] = self._pixels[name]
            self._made[protocol.id] = (prepared, mapping)
        elif values.has_gain:
            self._import_gain(name, values, account)

    def _import_gain(self, movies: str, values: ImportValues, account: Account) -> None:
        if values.gain not in self._gain_files:
            if self._gain_files:
                account.notes.append(f"gainFile {values.gain} is a second gain reference; a session takes one")
                return
            pattern = gain_pattern(values.gain)
            params = {} if pattern is None else {"pattern": pattern}
            name = self._name("gain")
            self.result.steps[name] = StepSpec(use="import_gain", params=params)
            self.result.options["--gain"] = values.gain
            self._gain_files[values.gain] = name
        self._gains[movies] = self._gain_files[values.gain]

    def _links(self, protocol: Protocol, mapping: Mapping) -> tuple[dict[str, Link], list[str], list[str]]:
        """Return the inputs, what is missing of them, and what else a person should know."""
        links, missing, notes = {}, [], []
        for port in find_step(mapping.use).ports:
            found, reasons = self._candidates(protocol, mapping.ports.get(port.name, ()), port)
            if found:
                links[port.name] = found[0]
                if len(set(found)) > 1 and not any(isinstance(source, Via) for source in mapping.ports[port.name]):
                    notes.append(f"{port.name} takes one stream: {found[0]}, not {', '.join(map(str, found[1:]))}")
            elif not port.optional:
                missing.append(f"{port.name}: {'; '.join(reasons) or 'the protocol names none'}")
            elif reasons:
                notes.append(f"without {port.name}: {'; '.join(reasons)}")
        return links, missing, notes

    def _candidates(self, protocol: Protocol, sources: tuple[str | Via, ...], port: Port) -> tuple[list[Link], list[str]]:
        found: list[Link] = []
        reasons: list[str] = []
        for source in sources:
            parameter = source.parameter if isinstance(source, Via) else source
            for pointer in protocol.pointers.get(parameter, ()):
                link = self._resolve(pointer)
                if link is not None and isinstance(source, Via):
                    link = self._companion(link, source.port)
                if link is None:
                    reasons.append(f"{parameter} {pointer} of {self._protocols[pointer.protocol].class_name} has no equivalent")
                elif not issubclass(offered := self._offered(link), port.record):
                    reasons.append(f"{parameter} gives {offered.__name__}, not {port.record.__name__}")
                else:
                    found.append(link)
        return found, reasons

    def _resolve(self, pointer: Pointer) -> Link | None:
        """Return our output for one of Scipion's."""
        discarded = "iscarded" in pointer.output
        if pointer.protocol not in self._made:
            return None if discarded else self._passed.get(pointer.protocol)
        step, mapping = self._made[pointer.protocol]
        for start, ours in mapping.outputs:
            if pointer.output.startswith(start):
                return None if ours is None else Link(step, ours)
        if discarded:
            return Link(step, "rejected") if find_step(mapping.use).kind is Kind.FILTER else None
        return Link(step, "out")

    def _companion(self, link: Link, port: str) -> Link | None:
        """Return what the step of ``link`` took as ``port``, or passes on under this name."""
        spec = self.result.steps[link.step]
        if find_step(spec.use).kind is Kind.FILTER:
            return Link(link.step, f"rejected.{port}" if link.output.startswith("rejected") else port)
        target = spec.inputs.get(port)
        if not isinstance(target, str):
            return None
        step, _, output = target.partition(".")
        return Link(step, output or "out")

    def _offered(self, link: Link) -> type[Record]:
        step_type = find_step(self.result.steps[link.step].use)
        ports = {port.name: port.record for port in step_type.ports}
        name = link.output.removeprefix("rejected").removeprefix(".")
        if step_type.kind is Kind.FILTER:
            return ports.get(name, step_type.ports[0].record)
        return step_type.output or Record

    def _list_fields(self, protocol: Protocol, targets: dict[str, str]) -> None:
        for parameter, value in protocol.values.items():
            if isinstance(value, DynamicField):
                self.result.fields.append(AskedField(protocol.id, parameter, value, targets.get(parameter)))
