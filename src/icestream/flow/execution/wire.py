"""Messages between the runner and its workers: JSON, followed by the blocks it names. No pickle."""

import json
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any


@dataclass
class Message:
    """A JSON-able body and the binary blocks that it refers to by index."""

    body: dict[str, Any]
    blocks: list[bytes] = field(default_factory=list)

    def add_block(self, block: bytes | None) -> int | None:
        """Attach a block; return its index."""
        if block is None:
            return None
        self.blocks.append(block)
        return len(self.blocks) - 1

    def block(self, index: int | None) -> bytes | None:
        """Return an attached block."""
        return None if index is None else self.blocks[index]


def pack(message: Message) -> bytes:
    """Return a message as bytes, for a transport that carries bytes."""
    head = json.dumps({"blocks": [len(block) for block in message.blocks], "body": message.body}).encode()
    return b"".join([len(head).to_bytes(8, "big"), head, *message.blocks])


def unpack(packed: bytes) -> Message:
    """Return the message that `pack` made bytes of."""
    start = 8 + int.from_bytes(packed[:8], "big")
    head = json.loads(packed[8:start])
    blocks = []
    for length in head["blocks"]:
        blocks.append(packed[start : start + length])
        start += length
    return Message(head["body"], blocks)


def send(connection: "Connection[Any, Any]", message: Message) -> None:
    """Send a message."""
    connection.send_bytes(json.dumps({"blocks": len(message.blocks), "body": message.body}).encode())
    for block in message.blocks:
        connection.send_bytes(block)


def receive(connection: "Connection[Any, Any]") -> Message:
    """Receive a message.

    Raises
    ------
    EOFError
        The other side is gone.
    """
    frame = json.loads(connection.recv_bytes())
    blocks = [connection.recv_bytes() for _ in range(frame["blocks"])]
    return Message(frame["body"], blocks)
