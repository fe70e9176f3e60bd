"""Reading the YAML that people write. What is refused costs no memory, and every value is one that JSON can hold."""

import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

LARGEST_BYTES = 1 << 20
MOST_VALUES = 50_000
DEEPEST = 64

_TAG = "tag:yaml.org,2002:"
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_NUMBERS = {
    "int": r"[-+]?(?:0b[01_]{1,99}|0x[0-9a-fA-F_]{1,99}|0|[1-9][0-9_]{0,99})",
    "float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?",
}
"""What is a number; only what is written in quotes where it is text, so that what was dumped is read as it was."""
_SEPARATORS = re.compile(r"[\s,;]+")


class _Loader(yaml.SafeLoader):
    """Text, numbers, yes and no, lists and maps. A date, a time and what is not finite are text."""

    n_composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Count what was written before it takes memory."""
        self.n_composed += 1
        if self.n_composed > MOST_VALUES:
            raise _too_many()
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Refuse a name that is written twice: YAML forbids it, and the last would win without a word."""
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Node] = {}
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and name.tag != f"{_TAG}merge":
                earlier = first.setdefault((name.tag, name.value), name)
                if earlier is not name:
                    told = f"{name.value!r} is written twice, first in line {earlier.start_mark.line + 1}"
                    raise yaml.composer.ComposerError(None, None, told, name.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a map whose names are text."""
        made = super().construct_mapping(node, deep=deep)
        for name in made:
            if not isinstance(name, str):
                told = f"the name {name!r} is not text; write it in quotes"
                raise yaml.constructor.ConstructorError(None, None, told, node.start_mark)
        return made


_Loader.yaml_constructors = {
    tag: made for tag, made in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag.removeprefix(_TAG) in _KINDS
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.removeprefix(_TAG) in ("null", "bool", "merge")]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list("-+0123456789."))


def read_document(path: Path, *, largest_bytes: int = LARGEST_BYTES) -> Any:
    """Return what a YAML file says.

    Raises
    ------
    ValueError
        It cannot be read, is too large, or is refused by `parse_document`; the reason follows the name of the file.
    """
    try:
        with path.open("rb") as handle:
            content = handle.read(largest_bytes + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > largest_bytes:
        raise ValueError(f"is larger than {_size(largest_bytes)}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not text") from None
    return parse_document(text)


def parse_document(text: str) -> Any:
    """Return what a YAML text says. Aliases are allowed as long as they stand for little.

    Raises
    ------
    ValueError
        It is not YAML, holds too many values (aliases counted for all that they stand for), or is nested too deeply.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {}, ())
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {_describe(error)}") from None
    except RecursionError:
        raise _too_deep() from None


def parse_typed_value(text: str) -> Any:
    """Return the value that a person typed on a command line.

    A list or map in brackets and a quoted text are YAML; a number, ``true``, ``no``, ``null`` or nothing mean what they say;
    everything else is text as it stands, with ``*``, ``&``, ``#`` and ``:`` in it.

    Raises
    ------
    ValueError
        A bracket or quote is not closed.
    """
    plain = text.strip()
    closing = {"[": "]", "{": "}", "'": "'", '"': '"'}.get(plain[:1])
    if closing is not None and (plain.endswith(closing) or closing not in plain[1:]):  # else a pattern, as [ab]*.tiff
        return parse_document(plain)
    loader = _Loader("")
    tag: str = loader.resolve(yaml.ScalarNode, plain, (True, False))  # type: ignore[no-untyped-call]
    return loader.construct_document(yaml.ScalarNode(tag, plain))


def split_members(text: str) -> list[str]:
    """Return the members of a list that was written as text: ``0, 180``, ``[0,180]``, ``0 180`` and ``0;180`` are the same."""
    return [part for part in _SEPARATORS.split(text.strip().strip("[]()").strip()) if part]


def read_lists(model: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for ``model``, a list that was written as text (or as its only member) being a list."""
    lists = {name for name, field in model.model_fields.items() if _takes_only_a_list(field.annotation)}
    return {name: _as_members(value) if name in lists else value for name, value in given.items()}


def _as_members(value: Any) -> Any:
    if isinstance(value, str):
        return split_members(value)
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _takes_only_a_list(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _takes_only_a_list(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [member for member in typing.get_args(hint) if member is not type(None)]
        return bool(kinds) and all(map(_takes_only_a_list, kinds))
    return origin in (list, tuple)


def _count_values(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node stands for, those behind aliases included."""
    if id(node) in above:
        raise ValueError(f"is not YAML: an alias stands for what it is part of (line {node.start_mark.line + 1})")
    if len(above) > DEEPEST:
        raise _too_deep()
    if id(node) not in known:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        members = [one for child in children for one in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_count_values(member, known, (*above, id(node))) for member in members)
    if known[id(node)] > MOST_VALUES:
        raise _too_many()
    return known[id(node)]


def _describe(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, without a copy of the text, which may hold secrets."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        said = ", ".join(filter(None, (error.context, error.problem)))
        return f"{said} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split())


def _too_many() -> ValueError:
    return ValueError(f"holds more than {MOST_VALUES} values, those behind aliases included")


def _too_deep() -> ValueError:
    return ValueError(f"is nested more than {DEEPEST} deep")


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def find_line(text: str, place: Sequence[str | int]) -> int:
    """Return the line of a YAML text in which the value at ``place`` begins, or the last part of the way there that exists.

    ``place`` is a path of names and numbers, as pydantic says where a value is wrong; what is no part of the text is passed over.
    """
    node = _Loader(text).get_single_node()
    line = 1 if node is None else node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [(name, value) for name, value in node.value if name.value == part]
            if pairs:
                line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
