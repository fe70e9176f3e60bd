"""A session written by hand, row by row: what a runner would have stored, without running anything."""

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument
from icestream.flow.storage.store import Store
from icestream.flow.workflow.keys import digest
from icestream.io.blocks import to_block
from icestream.records import Record

T0 = 1_790_000_000.0
HOSTILE = "<script>alert('x')</script> \"å\u202e&amp;"


@dataclass
class PaperSession:
    """Rows are inserted at once; ``now`` is the time they bear."""

    session: Session
    now: float = T0
    revisions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.session.store_path)
        self.store.claim()

    def add(self, table, **values) -> None:
        with self.store.transaction() as connection:
            connection.execute(insert(table).values(**values))

    def add_many(self, rows: dict) -> None:
        with self.store.transaction() as connection:
            for table, values in rows.items():
                connection.execute(insert(schema.metadata.tables[table]), values)

    def revise(self, step: str, kind: str, *, links=None, number: int = 1, params=None) -> int:
        self.revisions[step] = len(self.revisions) + 1
        self.add(
            schema.revision,
            id=self.revisions[step],
            step=step,
            number=number,
            use=step,
            type=step,
            type_version=2,
            kind=kind,
            params=json.dumps(params or {}),
            links=json.dumps(links or {}),
            epoch=0,
            definition="d",
            software="9.9",
            state="active",
            created_at=self.now,
        )
        return self.revisions[step]

    def expose(self, name: str, ordinal: int, *, step: str = "movies") -> str:
        unit = digest("origin", name, ordinal)
        self.add(
            schema.exposure,
            unit=unit,
            ordinal=ordinal,
            name=name,
            identity=f"{name}|7|abc",
            source=step,
            acquisition=json.dumps({"voltage_kv": 300.0}),
            arrived_at=self.now,
            seq=self.store.next_seq(),
        )
        self.add(schema.source_file, step=step, ref=f"raw:day1/{name}.tif", size_bytes=7, modified_ns=1, unit=unit)
        return unit

    def store_result(self, step: str, unit: str, record: Record, *, block: bytes | None = None, **values) -> str:
        key = digest("result", step, unit, record.model_dump_json())
        defaults = {"inputs": "{}", "params": "{}", "acquisition": "{}", "wall_s": 2.0, "cpu_s": 1.5, "host": "node1"}
        self.add(
            schema.result,
            key=key,
            revision=self.revisions[step],
            unit=unit,
            record_type=type(record).stored_name or type(record).__name__,
            record_version=type(record).schema_version,
            record=record.model_dump_json(),
            block=block,
            weight=record.weight,
            software="9.9",
            created_at=self.now,
            **(defaults | values),
        )
        return key

    def settle(self, step: str, unit: str, status: str = "item", keys=None, *, weight: int = 1, **values) -> None:
        self.add(
            schema.outcome,
            revision=self.revisions[step],
            unit=unit,
            status=status,
            keys=json.dumps(keys or {}),
            weight=weight,
            at=self.now,
            seq=self.store.next_seq(),
            **values,
        )

    def make(self, step: str, unit: str, record: Record, *, block: bytes | None = None, **values) -> str:
        key = self.store_result(step, unit, record, block=block, **values)
        self.settle(step, unit, "item", {"out": key}, weight=record.weight)
        return key

    def fail(self, step: str, unit: str, message: str, *, attempts: int = 2) -> None:
        for attempt in range(attempts):
            self.add(
                schema.failure,
                seq=self.store.next_seq(),
                revision=self.revisions[step],
                unit=unit,
                attempt=f"{unit[:8]}-{attempt}",
                kind="error",
                error_type="ValueError",
                message=message,
                traceback=f"Traceback of attempt {attempt}",
                cleared=False,
                at=self.now,
            )
        self.settle(step, unit, "failed", weight=0, reason=message)

    def publish(self, step: str, version: int, record: Record) -> str:
        key = self.store_result(step, f"{step}:v{version}", record)
        values = {"revision": self.revisions[step], "version": version, "key": key, "pruned": False}
        self.add(schema.snapshot, at=self.now, seq=self.store.next_seq(), **values)
        return key

    def stream(self, step: str, state: str, reason: str) -> None:
        values = {"revision": self.revisions[step], "state": state, "reason": reason, "at": self.now}
        self.add(schema.stream, seq=self.store.next_seq(), **values)

    def notify(self, level: str, message: str, step: str | None = None) -> None:
        self.add(schema.notice, seq=self.store.next_seq(), level=level, step=step, message=message, at=self.now)


def new_session(folder: Path, steps: dict, *, name: str = "paper", acquisition=None) -> Session:
    document = SessionDocument.model_validate(
        {"name": name, "steps": steps, "acquisition": acquisition or {}, "roots": {"raw": "raw"}}
    )
    return Session(folder, document)


def picks_block(yx: list[tuple[float, float]]) -> bytes:
    columns = [("pid", "<i4"), ("y_px", "<f4"), ("x_px", "<f4"), ("score", "<f4")]
    return to_block(np.array([(pid, y, x, 1.0) for pid, (y, x) in enumerate(yx)], dtype=columns))


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a grey picture (h, w) uint8."""
    height, width = image.shape
    rows = b"".join(b"\0" + image[row].tobytes() for row in range(height))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
