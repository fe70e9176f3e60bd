"""How the steps of a translated workflow are connected: from Scipion's pointers to our outputs."""

from dataclasses import dataclass, field

from icestream.flow.declaration import Port, find_step
from icestream.flow.workflow import Link, StepSpec
from icestream.records import Record
from icestream.workflows.scipion.parse import Pointer, Protocol
from icestream.workflows.scipion.rules import Mapping, Via
from icestream.workflows.scipion.streams import COLLECTS

_KINDS = ("movie", "micrograph", "ctf", "coordinate", "particle")


def kind_of(name: str) -> str | None:
    """Return of what an output or a parameter is, as far as its name says."""
    return next((kind for kind in _KINDS if kind in name.lower()), None)


@dataclass
class Wiring:
    """What is known of the steps so far.

    ``made`` pairs a protocol with its step; ``passed`` one that is no step with what the steps after it read, ``passed_outputs``
    an output of one; ``replaced`` one with an output that another step gives; ``streams`` a step that passes on what it gets (or
    the mean of it) with what that is; ``lists`` a protocol with everything that its inputs take that take several streams;
    ``united`` one that only makes a set of volumes with these.
    """

    steps: dict[str, StepSpec]
    protocols: dict[str, Protocol]
    made: dict[str, tuple[str, Mapping]] = field(default_factory=dict)
    passed: dict[str, Link] = field(default_factory=dict)
    passed_outputs: dict[Pointer, Link] = field(default_factory=dict)
    replaced: dict[str, tuple[str, Link]] = field(default_factory=dict)
    streams: dict[str, Link] = field(default_factory=dict)
    lists: dict[str, dict[str, list[Link]]] = field(default_factory=dict)
    united: dict[str, list[Link]] = field(default_factory=dict)

    def links(self, protocol: Protocol, mapping: Mapping) -> tuple[dict[str, Link], list[str], list[str]]:
        """Return the inputs, what is missing of them, and what else a person should know."""
        links, missing, notes = {}, [], []
        fed = {first.port for first in mapping.first}
        for port in (port for port in find_step(mapping.use).ports if port.name not in fed):
            found, reasons = self._candidates(protocol, mapping.ports.get(port.name, ()), port)
            if found:
                links[port.name] = found[0]
                if port.many:
                    self.lists.setdefault(protocol.id, {})[port.name] = list(dict.fromkeys(found))
                elif len(set(found)) > 1 and not any(isinstance(source, Via) for source in mapping.ports[port.name]):
                    notes.append(f"{port.name} takes one stream: {found[0]}, not {', '.join(map(str, found[1:]))}")
            elif not port.optional:
                missing.append(f"{port.name}: {'; '.join(reasons) or 'the protocol names none'}")
            elif reasons:
                notes.append(f"without {port.name}: {'; '.join(reasons)}")
        return links, missing, notes

    def links_of(self, protocol: Protocol, names: tuple[str, ...]) -> list[Link]:
        """Return our outputs for all that some parameters point at and that are items of exposures, not versions of a whole."""
        pointers = [pointer for name in names for pointer in protocol.pointers.get(name, ())]
        links = [link for pointer in pointers if (link := self.resolve(pointer)) is not None]
        return list(dict.fromkeys(link for link in links if not find_step(self.steps[link.step].use).accumulates))

    def pass_unknown(self, protocol: Protocol) -> list[str]:
        """Let the outputs of an unknown protocol that are named like one of its inputs be that input; return what was done."""
        told = []
        readers = [pointer for other in self.protocols.values() for group in other.pointers.values() for pointer in group]
        for output in dict.fromkeys(one for one in readers if one.protocol == protocol.id and "iscarded" not in one.output):
            inputs = [
                (parameter, pointer)
                for parameter, group in protocol.pointers.items()
                for pointer in group
                if kind_of(output.output) in (kind_of(pointer.output), kind_of(parameter)) and kind_of(output.output)
            ]
            link = next((link for _, pointer in inputs if (link := self.resolve(pointer)) is not None), None)
            if link is not None:
                self.passed_outputs[output] = link
                told.append(
                    f"steps that read {output.output} read {link}, as if it only passed its {inputs[0][0]} on: check that"
                )
        return told

    def _candidates(self, protocol: Protocol, sources: tuple[str | Via, ...], port: Port) -> tuple[list[Link], list[str]]:
        found: list[Link] = []
        reasons: list[str] = []
        for source in sources:
            parameter = source.parameter if isinstance(source, Via) else source
            pointers = protocol.pointers.get(parameter, ())
            read = [
                (pointer, link) for pointer in pointers for link in self.united.get(pointer.protocol, [self.resolve(pointer)])
            ]
            for pointer, own in read:
                link = own
                if link is not None and isinstance(source, Via):
                    link = self._companion(link, source.port)
                while link is not None and not port.many and self._collects(link):
                    link = self.streams[link.step]  # it follows the stream itself
                if link is None:
                    reasons.append(f"{parameter} {pointer} of {self.protocols[pointer.protocol].class_name} has no equivalent")
                elif not issubclass(offered := self.offered(link), port.record):
                    reasons.append(f"{parameter} gives {offered.__name__}, not {port.record.__name__}")
                else:
                    found.append(link)
        return found, reasons

    def resolve(self, pointer: Pointer) -> Link | None:
        """Return our output for one of Scipion's."""
        discarded = "iscarded" in pointer.output
        if pointer.protocol not in self.made:
            return None if discarded else self.passed_outputs.get(pointer, self.passed.get(pointer.protocol))
        step, mapping = self.made[pointer.protocol]
        replaced, by = self.replaced.get(pointer.protocol, ("", None))
        if by is not None and not discarded and pointer.output.startswith(replaced):
            return by
        for start, ours in mapping.outputs:
            if pointer.output.startswith(start):
                return None if ours is None else Link(step, ours)
        if discarded:
            return Link(step, "rejected") if find_step(mapping.use).is_filter else None
        return Link(step, "out")

    def _companion(self, link: Link, port: str) -> Link | None:
        """Return what the step of ``link`` took as ``port``, or passes on under this name, or its own assignments."""
        if link.step in self.streams:
            return self._companion(self.streams[link.step], port)
        spec = self.steps[link.step]
        if port == "assignments" and find_step(spec.use).assigns is not None:
            return Link(link.step, port)
        if find_step(spec.use).is_filter:
            return Link(link.step, f"rejected.{port}" if link.output.startswith("rejected") else port)
        target = spec.inputs.get(port)
        if target is None and spec.use == "select_classes" and port != "classes":
            classes = self._companion(link, "classes")
            return None if classes is None else self._companion(classes, port)
        if not isinstance(target, str):
            return None
        step, _, output = target.partition(".")
        return Link(step, output or "out")

    def estimate_read(self, protocol: Protocol) -> str | None:
        """Return the step that estimates the gain, where a protocol reads the movies that it passes on."""
        read = [self.made.get(pointer.protocol) for pointers in protocol.pointers.values() for pointer in pointers]
        return next((made[0] for made in read if made is not None and made[1].use == "estimate_gain"), None)

    def _collects(self, link: Link) -> bool:
        return self.steps[link.step].use in COLLECTS

    def offered(self, link: Link) -> type[Record]:
        """Return the type of what an output gives."""
        if link.step in self.streams:
            return self.offered(self.streams[link.step])
        step_type = find_step(self.steps[link.step].use)
        if link.output == "assignments" and step_type.assigns is not None:
            return step_type.assigns
        ports = {port.name: port.record for port in step_type.ports}
        name = link.output.removeprefix("rejected").removeprefix(".")
        if step_type.is_filter:
            return ports.get(name, step_type.ports[0].record)
        if link.output == "assignments" and step_type.assigns is not None:
            return step_type.assigns
        return step_type.output or Record
