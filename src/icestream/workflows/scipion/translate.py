"""From Scipion's protocols to a workflow of ours, with an account of what became of each of them."""

from typing import Any

from icestream.flow.declaration import find_step
from icestream.flow.workflow import Link, StepSpec
from icestream.records import Particles, Volume
from icestream.workflows.scipion import streams
from icestream.workflows.scipion.convert import AbsentError, Reader, UntranslatableError
from icestream.workflows.scipion.links import Wiring
from icestream.workflows.scipion.monitors import MONITORS, join_rules, read_monitor
from icestream.workflows.scipion.motion import DEFECTS_ROOT, defects_folder
from icestream.workflows.scipion.params import Account, keep_unread, read_params, tell_lost
from icestream.workflows.scipion.parse import NOT_IN_FILE, Document, DynamicField, Protocol
from icestream.workflows.scipion.picking import imported_folder
from icestream.workflows.scipion.quality import averages_two
from icestream.workflows.scipion.rules import Mapping
from icestream.workflows.scipion.sources import FOLDERS, IMPORTED, SOURCES, ImportValues, gain_pattern, read_import
from icestream.workflows.scipion.streams import FLOWS, Flow, FlowMapping
from icestream.workflows.scipion.table import MAPPED, UNMAPPED, mapping_of
from icestream.workflows.scipion.translation import (
    CHANGED,
    DISABLED,
    LEFT_OUT,
    MAPPED_SAME,
    UNKNOWN,
    AskedField,
    Row,
    Translation,
    find_problems,
    is_tomography,
)
from icestream.workflows.template import DisabledStep

__all__ = ["Row", "Translation", "translate_scipion"]


def translate_scipion(document: Document) -> Translation:
    """Make a workflow of an exported one."""
    translator = _Translator(document)
    for protocol in document.protocols:
        translator.add(protocol)
    result = translator.result
    result.problems = find_problems(result)
    return result


class _Translator:
    def __init__(self, document: Document) -> None:
        self.result = Translation(document)
        self._protocols = {protocol.id: protocol for protocol in document.protocols}
        self._wiring = Wiring(self.result.steps, self._protocols)
        self._pixels: dict[str, tuple[float | None, float]] = {}  # step: pixel size of the import, binning since
        self._gains: dict[str, str] = {}  # step that imports movies: step that imports their gain
        self._gain_files: dict[str | None, str] = {}
        self._holds: dict[str, tuple[Flow, int]] = {}  # checkpoint without an input: its gate, and the place of its row
        self._gates: dict[tuple[str, Link], Link] = {}  # checkpoint and what waits for it: what passes the gate
        self._scales: dict[str, float] = {}  # protocol: how many of our pixels one of its micrographs' pixels is

    def add(self, protocol: Protocol) -> None:
        """Translate one protocol; those that it reads were translated before."""
        self._scales[protocol.id] = self._scale(protocol)
        if protocol.class_name in MAPPED:
            self._map(protocol, mapping_of(protocol, self._protocols.values()))
        elif protocol.class_name in FLOWS:
            self._map_flow(protocol, FLOWS[protocol.class_name])
        elif protocol.class_name in MONITORS:
            self._monitor(protocol)
        elif protocol.class_name in UNMAPPED:
            self._pass_on(protocol)
        elif protocol.class_name == NOT_IN_FILE:
            self._leave(protocol, LEFT_OUT, ["is not in this file: export it together with what reads it"])
        else:
            self._leave_unknown(protocol)

    def _monitor(self, protocol: Protocol) -> None:
        found = read_monitor(Reader(protocol))
        self.result.alarms = join_rules(self.result.alarms, found)
        self._leave(protocol, CHANGED, found.notes)

    def _leave_unknown(self, protocol: Protocol) -> None:
        if is_tomography(protocol):
            self._leave(protocol, UNKNOWN, ["is tomography; icestream processes single particles"])
            return
        told = self._wiring.pass_unknown(protocol)
        self._leave(protocol, UNKNOWN, ["no protocol of this name is known to icestream", *told])

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

    def _leave(self, protocol: Protocol, outcome: str, notes: list[str], disabled: DisabledStep | None = None) -> None:
        notes = [*protocol.notes, *notes]
        self.result.rows.append(Row(protocol, None, outcome, tuple(notes)))
        self.result.disabled[f"scipion_{protocol.id}"] = disabled or DisabledStep(
            use=f"scipion:{protocol.class_name}",
            reason="; ".join(notes),
            inputs={name: [str(pointer) for pointer in pointers] for name, pointers in protocol.pointers.items()},
            params=protocol.raw,
            label=" ".join(protocol.label.split()) or None,
        )
        self._list_fields(protocol, {})

    def _pass_on(self, protocol: Protocol) -> None:
        unmapped, notes = UNMAPPED[protocol.class_name], []
        pointers = [pointer for name in unmapped.passes for pointer in protocol.pointers.get(name, ())]
        links = [link for pointer in pointers if (link := self._wiring.resolve(pointer)) is not None]
        if links:
            self._wiring.passed[protocol.id] = links[0]
            notes.append(f"steps after it read {links[0]}")
        self._leave(protocol, LEFT_OUT, [unmapped.reason, *tell_lost(protocol, unmapped.lost), *notes])

    def _map(self, protocol: Protocol, mapping: Mapping) -> None:
        links, missing, notes = self._wiring.links(protocol, mapping)
        if missing:
            self._leave(protocol, LEFT_OUT, [f"{mapping.use} has no input: {reason}" for reason in missing])
            return
        first = next(iter(links.values()), None)
        raw_pixel_ang, binning = (None, 1.0) if first is None else self._pixels.get(first.step, (None, 1.0))
        scale = self._scales[protocol.id]
        pixel_ang = None if raw_pixel_ang is None else raw_pixel_ang * binning * scale
        reader = Reader(protocol, raw_pixel_ang, pixel_ang, scale, self._protocols)
        if scale != 1 and mapping.use in ("pick_blob", "extract", "pick_consensus", "remove_duplicates", "pick_difference"):
            notes.append(f"Scipion scaled the micrographs down by {scale:g}; sizes in pixels are larger here by as much")
        account = read_params(reader, mapping)
        links = self._hold(protocol, links)
        inputs: dict[str, Any] = {port: str(link) for port, link in links.items()}
        for port, group in self._wiring.lists.get(protocol.id, {}).items():
            inputs[port] = [str(links[port]), *(str(link) for link in group[1:])]
        self._add_first(protocol, mapping, inputs, reader, account)
        self._add_before(protocol, mapping, inputs, reader)
        name = self._name(mapping.step)
        if gain := self._gains.get(first.step if first else "") or self._wiring.estimate_read(protocol):
            self._gains[name] = gain
            inputs |= {"gain": gain} if mapping.use in ("motion", "estimate_gain") else {}
        bin_ = account.params.get("bin", 1.0) if mapping.use == "motion" else 1.0
        self._pixels[name] = (raw_pixel_ang, binning * bin_)
        self._add_step(name, mapping.use, protocol, inputs, account.params)
        self._wiring.made[protocol.id] = (name, mapping)
        if mapping.use == "estimate_gain" and first is not None:
            self._wiring.replaced[protocol.id] = ("outputMovies", first)
        if mapping.use in IMPORTED:
            self.result.options.setdefault(f"--root {IMPORTED[mapping.use]}", imported_folder(reader))
        if "defects" in account.params:
            self.result.options.setdefault(f"--root {DEFECTS_ROOT}", defects_folder(reader))
        if protocol.class_name in FOLDERS:
            self._import(protocol, mapping, name, read_import(reader), account)
        self._add_mean(protocol, name, notes)
        changed = [mapping.changed] if mapping.changed else []
        notes = [*protocol.notes, *changed, *account.notes, *notes, *self._does_not_wait(protocol)]
        self.result.rows.append(Row(protocol, name, CHANGED if notes else MAPPED_SAME, tuple(notes), account.kept))
        targets = account.targets.items()
        self._list_fields(protocol, {key: target if target[0] == "-" else f"--set {name}.{target}" for key, target in targets})

    def _add_first(self, protocol: Protocol, mapping: Mapping, inputs: dict[str, Any], reader: Reader, account: Account) -> None:
        """Add the steps that one protocol is besides; each feeds an input of the step that follows."""
        for first in mapping.first:
            own = read_params(reader, Mapping(first.use, first.step, {}, first.rules))
            name = self._name(first.step)
            self._add_step(name, first.use, protocol, {ours: inputs[theirs] for ours, theirs in first.inputs.items()}, own.params)
            inputs[first.port] = name
            account.notes += own.notes
            read = {source for rule in first.rules for source in rule.sources if source not in own.kept}
            account.kept = {key: value for key, value in account.kept.items() if key not in read}

    def _add_before(self, protocol: Protocol, mapping: Mapping, inputs: dict[str, Any], reader: Reader) -> None:
        """Put steps between what a protocol reads and its step; protocols that need the same one share it."""
        for one in mapping.before:
            read = {port: target[0] if isinstance(target, list) else target for port, target in inputs.items()}
            if self.result.steps[read[one.port].partition(".")[0]].use in one.unless:
                continue
            params = {**one.params, **read_params(reader, Mapping(one.use, one.step, {}, one.rules)).params}
            wanted = {ours: read[theirs] for ours, theirs in one.inputs.items()}
            known = self.result.steps.items()
            name = next((name for name, spec in known if (spec.use, spec.inputs, spec.params) == (one.use, wanted, params)), None)
            if name is None:
                name = self._name(one.step)
                self._add_step(name, one.use, protocol, wanted, params)
                self._pixels[name] = self._pixels.get(read[one.port].partition(".")[0], (None, 1.0))
            inputs[one.port] = name

    def _add_mean(self, protocol: Protocol, name: str, notes: list[str]) -> None:
        """Add the mean of two CTFs where a consensus passes that on."""
        if self.result.steps[name].use == "ctf_consensus" and averages_two(protocol):
            mean = self._name("mean_ctf")
            self._add_step(mean, "ctf_average", protocol, {"ctf": f"{name}.ctf", "second": f"{name}.second"}, {})
            self._wiring.replaced[protocol.id] = ("outputCTF", Link(mean, "out"))
            self._wiring.streams[mean] = Link(name, "ctf")
            self._pixels[mean] = self._pixels[name]
            notes.append(f"the mean of the two CTFs is made by the step {mean}")

    def _add_step(self, name: str, use: str, protocol: Protocol, inputs: dict[str, Any], params: dict[str, Any]) -> None:
        label = " ".join(protocol.label.split()) or None
        self.result.steps[name] = StepSpec(use=use, inputs=inputs, params=params, label=label, after=self._waits_for(protocol))

    def _waits_for(self, protocol: Protocol) -> list[str]:
        if protocol.class_name in SOURCES:  # a source waits for nothing
            return []
        return [self._wiring.made[identity][0] for identity in protocol.prerequisites if identity in self._wiring.made]

    def _does_not_wait(self, protocol: Protocol) -> list[str]:
        is_source = protocol.class_name in SOURCES
        waits = set() if is_source else {*self._wiring.made, *(identity for identity, _ in self._gates)}
        lost = [identity for identity in protocol.prerequisites if identity not in waits]
        return [f"does not wait for {', '.join(lost)}"] if lost else []

    def _map_flow(self, protocol: Protocol, mapping: FlowMapping) -> None:
        """Translate a protocol that passes on a stream of any kind."""
        links, seen = self._wiring.links_of(protocol, mapping.inputs), streams.PORTS
        if links and issubclass(self._wiring.offered(links[0]), Volume):
            self._wiring.united[protocol.id] = links
            self._leave(protocol, CHANGED, [f"no step: what reads these volumes reads {', '.join(map(str, links))}"])
            return
        if not links:
            self._hold_others(protocol, mapping)
            return
        links = list(self._hold(protocol, {str(number): link for number, link in enumerate(links)}).values())
        counted = "particles" if issubclass(self._wiring.offered(links[0]), Particles) else "exposures"
        flow = mapping.make(Reader(protocol), counted)
        stream = [str(link) for link in links] if flow.use == "union" else str(links[0])
        also = {
            port: found
            for port, name in flow.also.items()
            if (found := [str(link) for link in self._wiring.links_of(protocol, (name,))])
        }
        inputs = {seen[flow.use]: stream, **also}
        params = {**flow.params, **self._closes(protocol, flow)}
        notes = [*protocol.notes, *flow.notes, *streams.tell_unread(protocol, mapping), *self._does_not_wait(protocol)]
        refused = streams.why_refused(flow.use, params)
        if refused is not None:
            self._wiring.passed[protocol.id] = links[0]
            label = " ".join(protocol.label.split()) or None
            kept = DisabledStep(use=flow.use, reason=refused, inputs=inputs, params=params, label=label)
            self._leave(protocol, DISABLED, [*notes, refused, f"steps after it read {links[0]}"], kept)
            return
        name = self._name(flow.use)
        self._add_step(name, flow.use, protocol, inputs, params)
        self._wiring.streams[name] = links[0]
        self._pixels[name] = self._pixels.get(links[0].step, (None, 1.0))
        if links[0].step in self._gains:
            self._gains[name] = self._gains[links[0].step]
        self._wiring.made[protocol.id] = (name, Mapping(flow.use, name, {}))
        notes += self._classify_sets(protocol, flow, Link(name, "out"))
        rest = keep_unread(protocol, {*mapping.inputs, *flow.also.values(), *mapping.fields, *mapping.reads})
        self.result.rows.append(Row(protocol, name, CHANGED if notes else MAPPED_SAME, tuple(notes), rest))
        self._list_fields(protocol, {key: f"--set {name}.{ours}" for key, ours in mapping.fields.items() if ours in params})

    def _classify_sets(self, protocol: Protocol, flow: Flow, sets: Link) -> list[str]:
        """Add the classification of closed sets of particles; return what a person should know."""
        if flow.classifies is None or not issubclass(self._wiring.offered(sets), Particles):
            return []
        named = [self._protocols.get(pointer.protocol) for pointer in protocol.pointers.get(flow.classifies, ())]
        pattern = next((one for one in named if one is not None and one.class_name in MAPPED), None)
        params: dict[str, Any] = {}
        if pattern is not None:
            params = read_params(Reader(pattern), mapping_of(pattern, self._protocols.values())).params
            known = find_step("classify2d_batch").params.model_fields
            params = {name: value for name, value in params.items() if name in known}
        step = self._name("classes_of_sets")
        self._add_step(step, "classify2d_batch", protocol, {"particles": str(sets)}, params)
        return [f"each set is classified by the step {step}"]

    def _hold_others(self, protocol: Protocol, mapping: FlowMapping) -> None:
        """Leave out what reads no stream; one that holds until a time or a person holds those that wait for it."""
        flow = mapping.make(Reader(protocol), "exposures")
        self._leave(protocol, LEFT_OUT, ["it reads no items of exposures that have an equivalent"])
        if flow.use == "trigger" and "count" not in flow.params and streams.why_refused(flow.use, flow.params) is None:
            self._holds[protocol.id] = (flow, len(self.result.rows) - 1)

    def _hold(self, protocol: Protocol, links: dict[str, Link]) -> dict[str, Link]:
        """Return the inputs of a protocol, of which one comes through a gate for each checkpoint that it waits for."""
        held = next((port for port, link in links.items() if not find_step(self.result.steps[link.step].use).accumulates), None)
        for identity in protocol.prerequisites:
            if identity in self._holds and held is not None:
                links = {**links, held: self._gate(identity, links[held])}
        return links

    def _gate(self, identity: str, link: Link) -> Link:
        if (identity, link) in self._gates:
            return self._gates[identity, link]
        (flow, place), checkpoint = self._holds[identity], self._protocols[identity]
        name = self._name("checkpoint")
        self._add_step(name, flow.use, checkpoint, {streams.PORTS[flow.use]: str(link)}, flow.params)
        self._wiring.streams[name] = link
        self._pixels[name] = self._pixels.get(link.step, (None, 1.0))
        if link.step in self._gains:
            self._gains[name] = self._gains[link.step]
        told = f"{link} waits at {name} for the steps after it"
        before = self.result.rows[place]
        notes = (*(before.notes if before.step is not None else flow.notes), told)
        self.result.rows[place] = Row(checkpoint, before.step or name, CHANGED, notes)
        self.result.disabled.pop(f"scipion_{identity}", None)
        self._gates[identity, link] = Link(name, "out")
        return self._gates[identity, link]

    def _closes(self, protocol: Protocol, flow: Flow) -> dict[str, list[str]]:
        """Return the steps that are closed when a trigger opens: those that Scipion sends its signal to."""
        told = [pointer.protocol for pointer in protocol.pointers.get("triggerProt", ())]
        steps = [self._wiring.made[identity][0] for identity in told if identity in self._wiring.made]
        return {"closes": steps} if steps and flow.use == "trigger" else {}

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
            self._wiring.made[protocol.id] = (prepared, mapping)
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

    def _list_fields(self, protocol: Protocol, targets: dict[str, str]) -> None:
        for parameter, value in protocol.values.items():
            if isinstance(value, DynamicField):
                self.result.fields.append(AskedField(protocol.id, parameter, value, targets.get(parameter)))
