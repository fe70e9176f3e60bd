"""Messages as bytes: JSON that names the type of each message, followed by the blocks it refers to. No pickle."""

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from multiprocessing.connection import Connection
from typing import Any

from icestream.flow.declaration import Exposure, SeenFile
from icestream.flow.execution import messages
from icestream.flow.execution.executor import Request

_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(one for one in vars(messages).values() if is_dataclass(one) and isinstance(one, type)),
        Exposure,
        SeenFile,
        Request,
    )
}
"""What may travel; anything else is refused."""

_TAG = "~"  # before the name of a type, so that no field of a message can be taken for it

Decoder = Callable[[Any, list[bytes]], Any]


def _encode(message: object) -> tuple[str, list[bytes]]:
    blocks: list[bytes] = []

    def default(value: Any) -> Any:
        if isinstance(value, bytes):
            blocks.append(value)
            return len(blocks) - 1
        name = type(value).__name__
        if _TYPES.get(name) is not type(value):
            raise TypeError(f"{name} is neither a message nor a part of one")
        return {_TAG: name, **vars(value)}

    return json.dumps(message, default=default), blocks


def _decode(value: Any, blocks: list[bytes]) -> Any:
    """Return the message or part of one that ``value`` describes."""
    if value is None:
        return None
    name = value.pop(_TAG)
    for part, decoder in _decoders(name):
        value[part] = decoder(value[part], blocks)
    return _TYPES[name](**value)


@cache
def _decoders(name: str) -> tuple[tuple[str, Decoder], ...]:
    """Return the fields of a type that JSON alone does not bring back, and what does."""
    hints = typing.get_type_hints(_TYPES[name])
    found = {one.name: _decoder(hints[one.name]) for one in fields(_TYPES[name])}
    return tuple((part, decoder) for part, decoder in found.items() if decoder is not None)


def _decoder(hint: Any) -> Decoder | None:
    """Return what brings a value of a field back, or None where JSON does."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return next((found for found in map(_decoder, arguments) if found is not None), None)
    if origin in (dict, Mapping):
        inner = _decoder(arguments[1])
        return None if inner is None else lambda value, blocks: {name: inner(one, blocks) for name, one in value.items()}
    if origin is tuple:
        return _tuple_decoder(*[argument if argument is Ellipsis else _decoder(argument) or _as_it_is for argument in arguments])
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value, _blocks: hint(value)
    if hint is bytes:
        return lambda value, blocks: None if value is None else blocks[value]
    return _decode if is_dataclass(hint) else None


def _tuple_decoder(*parts: Any) -> Decoder:
    if parts[-1] is Ellipsis:
        return lambda value, blocks: tuple([parts[0](one, blocks) for one in value])
    return lambda value, blocks: tuple(part(one, blocks) for part, one in zip(parts, value, strict=True))


def _as_it_is(value: Any, _blocks: list[bytes]) -> Any:
    return value


def check_sendable(message: object) -> None:
    """Check that a message can travel.

    Raises
    ------
    TypeError, ValueError
        Naming what in it cannot.
    """
    _encode(message)


def pack(message: object) -> bytes:
    """Return a message as bytes, for a transport that carries bytes."""
    text, blocks = _encode(message)
    head = json.dumps({"blocks": [len(block) for block in blocks], "chars": len(text)}).encode()
    return b"".join([len(head).to_bytes(8, "big"), head, text.encode(), *blocks])


def unpack(packed: bytes) -> Any:
    """Return the message that `pack` made bytes of."""
    start = 8 + int.from_bytes(packed[:8], "big")
    head = json.loads(packed[8:start])
    body, start = packed[start : start + head["chars"]], start + head["chars"]
    blocks = []
    for length in head["blocks"]:
        blocks.append(packed[start : start + length])
        start += length
    return _decode(json.loads(body), blocks)


def send(connection: "Connection[Any, Any]", message: object) -> None:
    """Send a message."""
    text, blocks = _encode(message)
    connection.send_bytes(len(blocks).to_bytes(4, "big") + text.encode())
    for block in blocks:
        connection.send_bytes(block)


def receive(connection: "Connection[Any, Any]") -> Any:
    """Receive a message.

    Raises
    ------
    EOFError
        The other side is gone.
    """
    frame = connection.recv_bytes()
    blocks = [connection.recv_bytes() for _ in range(int.from_bytes(frame[:4], "big"))]
    return _decode(json.loads(frame[4:]), blocks)
