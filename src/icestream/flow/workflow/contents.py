"""Files that are given as parameters count by their content: a digest of it stands beside the path in what makes a result."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icestream.errors import IcestreamError, ItemError, WorkflowError
from icestream.flow.declaration import Params, StepType, resolve_ref
from icestream.flow.workflow.keys import KEY_LENGTH, digest

if TYPE_CHECKING:
    from icestream.flow.workflow.graph import Graph, Node

_SUFFIX = ".content"

Stamp = tuple[int, int, int]
"""Inode, size and time of change of a file: what tells that it has to be read again."""


def content_name(parameter: str) -> str:
    """Return the name under which the content of a file parameter counts."""
    return parameter + _SUFFIX


def file_parameters(step_type: StepType) -> tuple[str, ...]:
    """Return the parameters of a step that name files and make a difference to its results."""
    return _file_fields(step_type.params)


@lru_cache(maxsize=256)
def _file_fields(params: type[Params]) -> tuple[str, ...]:
    properties = params.model_json_schema().get("properties", {})
    return tuple(name for name, said in properties.items() if not said.get("operational") and _says_file(said))


def _says_file(schema: object) -> bool:
    if isinstance(schema, dict):
        return schema.get("file") is True or any(_says_file(inner) for inner in schema.values())
    return isinstance(schema, list) and any(_says_file(inner) for inner in schema)


def read_contents(step_type: StepType, params: Mapping[str, Any], roots: dict[str, str]) -> dict[str, str | None]:
    """Return content name → digest for the files that ``params`` name; None where one cannot be read."""
    found: dict[str, str | None] = {}
    for name in file_parameters(step_type):
        refs = list(_refs_in(params.get(name)))
        digests = [_digest_ref(ref, roots) for ref in refs]
        if refs:
            found[content_name(name)] = None if None in digests else digests[0] if len(digests) == 1 else digest(*digests)
    return found


def _refs_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _refs_in(inner)


def _digest_ref(ref: str, roots: dict[str, str]) -> str | None:
    try:
        path = resolve_ref(roots, ref)
        return _digest_file(path, _stamp_of(path))
    except (OSError, IcestreamError):
        return None


def _stamp_of(path: Path) -> Stamp:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=256)
def _digest_file(path: Path, _stamp: Stamp) -> str:
    """Read a file once for each state of it."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:KEY_LENGTH]


def look_into_files(graph: "Graph", roots: dict[str, str]) -> None:
    """Let the nodes of a graph know the contents of the files that their parameters name."""
    for name, node in graph.nodes.items():
        contents = read_contents(node.type, node.params, roots)
        if contents:
            graph.nodes[name] = replace(node, contents=contents)


def settle_contents(node: "Node", row: Mapping[str, Any] | None) -> "Node":
    """Return a node whose contents are all known: a file that is away counts as its active revision, a row, knew it.

    Raises
    ------
    WorkflowError
        A file is not there, and no revision knew it.
    """
    pinned = json.loads(row["params"]) if row is not None else {}
    settled: dict[str, str | None] = {}
    for name, content in node.contents.items():
        parameter = name.removesuffix(_SUFFIX)
        if content is not None:
            settled[name] = content
        elif parameter not in pinned or pinned[parameter] != node.params[parameter]:
            raise WorkflowError(
                f"step {node.name!r}: parameter {parameter!r} is {node.params[parameter]!r}; the file was not found"
            )
        elif name in pinned:  # else the revision is older than this rule
            settled[name] = pinned[name]
    return replace(node, contents=settled) if node.contents else node


def expected_contents(step_type: StepType, identity: Mapping[str, Any]) -> dict[str, str]:
    """Return content name → digest as the parameters that make a result say it."""
    return {name: identity[name] for name in map(content_name, file_parameters(step_type)) if name in identity}


def check_contents(step_type: StepType, params: Mapping[str, Any], expected: Mapping[str, str], roots: dict[str, str]) -> None:
    """Check that files still hold what the result will be stored for.

    Raises
    ------
    ItemError
        One was changed: its new content makes another result, under the revision that the change brings.
    """
    found = read_contents(step_type, params, roots)
    for name, content in expected.items():
        parameter = name.removesuffix(_SUFFIX)
        if found.get(name) is not None and found[name] != content:
            raise ItemError(
                f"{params[parameter]} ({parameter}) was changed after this revision was made; "
                "its new content counts for the next one"
            )


@dataclass
class GivenFiles:
    """Notices, while a session runs, that a file given as a parameter holds something else, or is away."""

    seen: dict[str, Stamp | None] = field(default_factory=dict)
    """File → how it was at the last look; one that is being written is left alone until it rests."""
    away: set[str] = field(default_factory=set)

    def look(self, graph: "Graph", params: Mapping[str, Mapping[str, Any]], roots: dict[str, str]) -> tuple[list[str], list[str]]:
        """Return sentences about files that have changed since revisions with ``params`` were made, and about missing ones."""
        changed, missing = [], []
        for node in graph.nodes.values():
            for name in [name for name in node.contents if name in params[node.name]]:
                parameter = name.removesuffix(_SUFFIX)
                refs = list(_refs_in(node.params.get(parameter)))
                stamps = [_stamp_or_none(ref, roots) for ref in refs]
                rests = all(self.seen.get(ref) == stamp for ref, stamp in zip(refs, stamps, strict=True))
                self.seen |= dict(zip(refs, stamps, strict=True))
                content = read_contents(node.type, node.params, roots).get(name) if rests else None
                if content is not None and content != params[node.name][name]:
                    changed.append(f"{', '.join(refs)} has changed: {node.name} ({parameter}) gets a new revision")
                missing += self._newly_away(refs, stamps, f"{node.name} ({parameter})")
        return changed, missing

    def _newly_away(self, refs: list[str], stamps: list[Stamp | None], who: str) -> list[str]:
        gone = {ref for ref, stamp in zip(refs, stamps, strict=True) if stamp is None}
        told = [f"{ref} is missing; {who} needs it" for ref in sorted(gone - self.away)]
        self.away = (self.away - set(refs)) | gone
        return told


def _stamp_or_none(ref: str, roots: dict[str, str]) -> Stamp | None:
    try:
        return _stamp_of(resolve_ref(roots, ref))
    except (OSError, IcestreamError):
        return None
