"""Identity by content: what makes two results the same."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from icestream.flow.declaration import InputNames

KEY_LENGTH = 32


def canonical_json(value: object) -> str:
    """Write ``value`` in the one form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(*parts: object) -> str:
    """Hash JSON-able parts to 32 hexadecimal digits."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:KEY_LENGTH]


def origin_of(identity: str) -> str:
    """Return the id of the exposure whose content is ``identity``."""
    return digest("origin", identity)


def source_key(step_type: str, version: int, identity: str) -> str:
    """Return the key of an item that a source found: its content alone, never a time or an absolute path."""
    return digest("source", step_type, version, identity)


def revised_key(key: str, record: str) -> str:
    """Return the key of another record (as JSON) of an item that a source found before: what lies beside its file has changed."""
    return digest("revised", key, meaning_of(record))


def meaning_of(record: str) -> object:
    """Return what a record says, as JSON, without what is unset: later versions of a type may have more of that."""
    return _without_unset(json.loads(record))


def _without_unset(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_unset(part) for name, part in value.items() if part is not None}
    return [_without_unset(part) for part in value] if isinstance(value, list) else value


def result_key(
    step_type: str,
    version: int,
    *,
    params: Mapping[str, object],
    epoch: int,
    inputs: Mapping[str, Sequence[str]],
    acquisition: Mapping[str, object],
    names: InputNames | None = None,
) -> str:
    """Return the key of a map's result: step type and version, parameters, epoch, input keys, and the acquisition values read.

    Where the step asks for the ``names`` of its inputs, they belong to it too.
    """
    parts = [step_type, version, params, epoch, {port: list(keys) for port, keys in inputs.items()}, acquisition]
    told = [] if names is None else [dict(names.given), dict(names.missing)]
    return digest("map", *parts, *told)


def state_key(previous: str, members: Sequence[tuple[str, Mapping[str, str]]], *, closing: bool) -> str:
    """Return the key of an accumulator's state after one more entry of its log."""
    return digest("state", previous, [[unit, dict(keys)] for unit, keys in members], closing)


def assignment_key(state: str, origin: str) -> str:
    """Return the key of what an accumulator says about one exposure."""
    return digest("assignment", state, origin)


def seed_of(key: str) -> int:
    """Derive a random seed from a key."""
    return int(key[:15], 16)
