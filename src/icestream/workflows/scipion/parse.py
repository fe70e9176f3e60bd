"""Reading the workflows that Scipion exports: a JSON array of protocols, as a file or as a template with fields to fill in."""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from icestream.errors import WorkflowError

LARGEST_BYTES = 16 << 20
MOST_PROTOCOLS = 1000

FIELD_TYPES = ("text", "yes or no", "path", "integer", "decimal", "file", "folder")
"""What the type numbers of a field mean."""

_ADMIN = {"object.className", "object.id", "object.label", "object.comment"}
_ID = re.compile(r"[0-9]+")
_POINTER = re.compile(r"([0-9]+)\.((?:[A-Za-z_]\w*(?:\.\w+)*)?)", re.ASCII)
_NAMES_A_POINTER = re.compile(r"input(?!_)|trigger|ctfRelations|protRefine")
_BARE_FIELD = re.compile(r'("(?:[^"\\]|\\.)*"?)|(~[^~"\n]*~)', re.DOTALL)
_NAMES_A_FILE = re.compile(r"file|path|pattern|suffix|defectMap|label|extra", re.IGNORECASE)


NOT_IN_FILE = "NotInThisFile"
"""The class of what stands for a protocol that others point at and that was not exported with them."""


@dataclass(frozen=True)
class Pointer:
    """One output of another protocol; ``output`` is empty where the protocol itself is meant."""

    protocol: str
    output: str

    def __str__(self) -> str:
        return f"{self.protocol}.{self.output}" if self.output else self.protocol


@dataclass(frozen=True)
class DynamicField:
    """A value that a template asks for: its label, what stands there first, its type, and its name on a command line."""

    label: str
    default: str | None
    type: str
    cmd_id: str | None


Scalar = str | int | float | bool | None
Value = Scalar | Pointer | DynamicField | tuple[Scalar | Pointer, ...]


@dataclass(frozen=True)
class Protocol:
    """One protocol: its class, what people call it, its parameters, and the object of the file it was read from.

    ``notes`` say what was odd in the file.
    """

    id: str
    class_name: str
    label: str
    comment: str
    values: dict[str, Value]
    prerequisites: tuple[str, ...]
    raw: dict[str, Any]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.id} ({self.class_name})"

    @property
    def pointers(self) -> dict[str, tuple[Pointer, ...]]:
        """The parameters that point at other protocols."""
        found = {}
        for name, value in self.values.items():
            members = value if isinstance(value, tuple) else (value,)
            pointers = tuple(member for member in members if isinstance(member, Pointer))
            if pointers:
                found[name] = pointers
        return found


@dataclass(frozen=True)
class Document:
    """An exported workflow: the free text at its head, and its protocols, inputs before those that use them."""

    name: str
    description: str
    protocols: tuple[Protocol, ...]


def read_scipion_file(path: Path) -> Document:
    """Read an exported workflow or template.

    Raises
    ------
    WorkflowError
        The file cannot be read, is too large, or is no export of Scipion.
    """
    if not path.is_file():
        raise WorkflowError(
            f"{path}: no such file; give a workflow that Scipion exported, as workflow.json or name.json.template"
        )
    try:
        with path.open("rb") as handle:
            content = handle.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise WorkflowError(f"{path}: is larger than {LARGEST_BYTES >> 20} MiB; a workflow has some hundred kB at most")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WorkflowError(f"{path}: cannot be read as text: {error}") from error
    return parse_scipion(text, name=path.name, template=path.name.endswith(".template"))


def parse_scipion(text: str, *, name: str, template: bool = False) -> Document:
    """Read the text of an exported workflow.

    Environment variables, as ``%(HOME)s``, are kept as they are written. In a template a doubled ``%%`` is one, and a field may
    stand without quotes, as in ``"voltage": ~Voltage|300|4|kv~``. A number that is not finite is kept as text.

    Raises
    ------
    WorkflowError
        The text is no JSON array of protocols, or protocols take input in a circle.
    """
    description, array = _split_description(text, name)
    objects = _load(_quote_fields(array.replace("%%", "%")) if template else array, name)
    if not isinstance(objects, list):
        raise WorkflowError(f"{name}: is a JSON {type(objects).__name__}; a Scipion workflow is an array of protocols")
    if len(objects) > MOST_PROTOCOLS:
        raise WorkflowError(f"{name}: has {len(objects)} protocols; at most {MOST_PROTOCOLS}")
    protocols: dict[str, Protocol] = {}
    for index, item in enumerate(objects):
        protocol = _read_protocol(item, f"{name}: protocol {index + 1} of {len(objects)}")
        before = protocols.pop(protocol.id, None)
        if before is not None:
            told = f"the file has the id {protocol.id} more than once, also as {before.class_name}; the last is taken"
            protocol = replace(protocol, notes=(told,))
        protocols[protocol.id] = protocol
    protocols = {**_stand_ins(protocols), **protocols}
    return Document(name, description, tuple(protocols[one] for one in _put_in_order(protocols, name)))


def _stand_ins(protocols: dict[str, Protocol]) -> dict[str, Protocol]:
    """Return a protocol for each that others point at and that is not in the file: a part of a workflow was exported."""
    groups = [group for protocol in protocols.values() for group in protocol.pointers.values()]
    outside = dict.fromkeys(one.protocol for group in groups for one in group if one.protocol not in protocols)
    return {one: Protocol(one, NOT_IN_FILE, "", "", {}, (), {}) for one in outside}


def _put_in_order(protocols: Mapping[str, Protocol], name: str) -> list[str]:
    """Return the ids of protocols, each after all that it needs; prerequisites are heeded where they make no circle.

    Raises
    ------
    WorkflowError
        Protocols take their input from each other in a circle.
    """
    needs = {
        protocol.id: {pointer.protocol for group in protocol.pointers.values() for pointer in group}
        for protocol in protocols.values()
    }
    waits = {identity: wanted | (set(protocols[identity].prerequisites) & set(protocols)) for identity, wanted in needs.items()}
    order = _sorted(waits) if len(_sorted(waits)) == len(protocols) else _sorted(needs)
    if len(order) < len(protocols):
        circle = [str(protocols[identity]) for identity in protocols if identity not in order]
        raise WorkflowError(f"{name}: protocols {', '.join(circle[:20])} take their input from each other in a circle")
    return order


def _sorted(needs: dict[str, set[str]]) -> list[str]:
    """Return what can be put in order: each after all that it needs."""
    sorter = TopologicalSorter(dict.fromkeys(needs, ()))  # each in its place, whoever needs it
    for identity, wanted in needs.items():
        sorter.add(identity, *wanted)
    with suppress(CycleError):  # what lies outside of circles can be put in order still
        sorter.prepare()
    order = list(sorter.get_ready())
    for identity in order:  # grows while it is read
        sorter.done(identity)
        order += sorter.get_ready()
    return order


def _split_description(text: str, name: str) -> tuple[str, str]:
    before, bracket, rest = text.partition("[")
    if not bracket or before.lstrip().startswith("{"):
        raise WorkflowError(f"{name}: starts with {text.strip()[:20]!r}; a Scipion workflow is a JSON array: [{{…}}, …]")
    return before.strip(), bracket + rest


def _quote_fields(text: str) -> str:
    return _BARE_FIELD.sub(lambda found: found[1] or json.dumps(found[2], ensure_ascii=False), text)


def _load(text: str, name: str) -> Any:
    def number(written: str) -> float | str:
        return value if math.isfinite(value := float(written)) else written  # no number that a parameter can have

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = sorted({key for key, _ in pairs if [other for other, _ in pairs].count(key) > 1})
            raise WorkflowError(f"{name}: a protocol has {', '.join(twice[:5])} twice; each parameter may occur once")
        return found

    try:
        return json.loads(text, parse_constant=str, parse_float=number, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        hint = "; an environment variable must be in quotes" if text[error.pos : error.pos + 2] == "%(" else ""
        raise WorkflowError(f"{name}: is not JSON from its first '[' on, line {error.lineno}: {error.msg}{hint}") from error
    except RecursionError as error:
        raise WorkflowError(f"{name}: is nested too deeply; parameters of a protocol are plain values or lists") from error
    except ValueError as error:
        raise WorkflowError(f"{name}: is not JSON: {error}") from error


def _read_protocol(item: Any, where: str) -> Protocol:
    if not isinstance(item, dict):
        raise WorkflowError(f"{where}: is {str(item)[:40]!r}; it must be an object with object.className and object.id")
    class_name, identity = item.get("object.className"), item.get("object.id")
    if not isinstance(class_name, str) or not class_name.isidentifier():
        raise WorkflowError(f"{where}: object.className is {class_name!r}; it must be the name of a protocol class")
    identity = str(identity) if isinstance(identity, int) and not isinstance(identity, bool) else identity
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise WorkflowError(f"{where} ({class_name}): object.id is {identity!r}; it must be a number")
    where = f"{where}, {identity} ({class_name})"
    values = {
        _checked(name, f"{where}: a parameter's name"): _read_value(name, value, where)
        for name, value in item.items()
        if name not in _ADMIN
    }
    waits = item.get("_prerequisites") or ""
    return Protocol(
        identity,
        class_name,
        _read_text(item, "object.label", where),
        _read_text(item, "object.comment", where),
        values,
        tuple(_ID.findall(waits)) if isinstance(waits, str) else (),
        item,
    )


def _read_text(item: dict[str, Any], name: str, where: str) -> str:
    text = item.get(name)
    if text is not None and not isinstance(text, str):
        raise WorkflowError(f"{where}: {name} is {str(text)[:40]!r}; it must be text")
    return _checked(text or "", f"{where}: {name}").strip()


def _checked(text: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise WorkflowError(f"{where} is {text[:40]!a}, which is not Unicode text") from error
    return text


def _read_value(name: str, value: Any, where: str) -> Value:
    if isinstance(value, str):
        return _read_string(name, _checked(value, f"{where}: {name}"), where)
    if value is None or isinstance(value, bool | int | float):
        return value
    if name.startswith("_"):
        return None
    if isinstance(value, list) and all(member is None or isinstance(member, str | int | float) for member in value):
        return tuple(_read_member(member, where, name) for member in value)
    raise WorkflowError(f"{where}: {name} is {str(value)[:40]!r}; it must be a number, yes or no, text, or a list of pointers")


def _read_member(member: Scalar, where: str, name: str) -> Scalar | Pointer:
    if not isinstance(member, str):
        return member
    return _pointer(_checked(member, f"{where}: {name}"), alone=True) or member


def _read_string(name: str, text: str, where: str) -> Value:
    if len(text) > 1 and text.startswith("~") and text.endswith("~") and "|" in text:
        return _read_field(text, f"{where}: {name}")
    if _NAMES_A_FILE.search(name) or name.startswith("_"):
        return text
    return _pointer(text, alone=_NAMES_A_POINTER.match(name) is not None) or text


def _pointer(text: str, *, alone: bool) -> Pointer | None:
    """Read ``id.output``, ``id.``, and, where a number cannot be meant, ``id`` alone."""
    found = _POINTER.fullmatch(text)
    if found:
        return Pointer(found[1], found[2])
    return Pointer(text, "") if alone and _ID.fullmatch(text) else None


def _read_field(text: str, where: str) -> DynamicField:
    parts = [part.strip() for part in text[1:-1].split("|")]
    kinds = {str(number): kind for number, kind in enumerate(FIELD_TYPES)}
    if len(parts) not in (3, 4) or parts[2] not in kinds:
        raise WorkflowError(
            f"{where} is {text[:80]!r}; it must be ~Label|default|type~ or ~Label|default|type|name~, type 0 to 6"
        )
    return DynamicField(parts[0], parts[1] or None, kinds[parts[2]], parts[3] or None if len(parts) == 4 else None)
