"""What every record is made of: the base of records and of wholes, references to files, tables, and names that last.

Three rules hold for all records:

* Files are named by `FileRef` (``root:relative/path``), never by an absolute path; ``session:`` is the session's own folder.
* Per-particle tables are `Block`s: a NumPy structured array in ``.npy`` bytes, kept in the store beside the record. Their columns
  are declared with the record. What has several tables keeps them in the store as one (`pack_tables`).
* Geometry is in pixels, with ``bin`` relative to the raw movie pixel; physical values (pixel size, voltage, dose) come from
  `Acquisition`, so that correcting one recomputes only the steps that read it.

Pixel coordinates are ``yx``; row 0 is the first row of an MRC file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import DeclarationError
from icestream.records.references import settle_shown
from icestream.records.shown import Shown

FileRef = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*:[^/].*$", json_schema_extra={"file": True})]
"""A file as ``root:relative/path``."""

Block = Annotated[bytes, Field(exclude=True, repr=False, json_schema_extra={"block": True})]
"""The per-particle table as ``.npy`` bytes; at most one field of a record, and it must be named ``block``."""

FurtherBlock = Annotated[bytes | None, Field(exclude=True, repr=False, json_schema_extra={"block": True})]
"""Another table as ``.npy`` bytes, or None; its field is a key of ``further_columns``."""


@dataclass(frozen=True)
class Column:
    """One column of the table of a record; ``dtype`` is a NumPy type code without byte order, as ``f4``."""

    name: str
    dtype: str
    unit: str
    description: str


_SEVERAL = b"\x93TABLES\n"
"""What the stored tables of a record begin with where there are several; a single one begins with NumPy's own mark."""

_NAMED: dict[str, "type[Record]"] = {}


def _learn(record: "type[Record]") -> None:
    for name in (record.stored_name, *record.former_names) if record.stored_name else ():
        known = _NAMED.get(name)
        if known is not None and not _is_same(known, record):
            raise DeclarationError(
                f"{record.__module__}.{record.__qualname__}: its stored name {name!r} is that of "
                f"{known.__module__}.{known.__qualname__} already; give it one of its own"
            )
        _NAMED[name] = record


def _is_same(one: "type[Record]", other: "type[Record]") -> bool:
    """Tell whether two classes come from one declaration: of a module that was loaded again, or that runs as a script."""
    modules = {one.__module__, other.__module__}
    return one.__qualname__ == other.__qualname__ and (len(modules) == 1 or "__main__" in modules)


class Record(BaseModel):
    """One immutable output of a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stored_name: ClassVar[str] = ""
    """What the store calls records of this type, for good; a record without one is part of another or a step's state."""
    former_names: ClassVar[tuple[str, ...]] = ()
    """What stores called it before."""
    schema_version: ClassVar[int] = 1
    block_columns: ClassVar[tuple[Column, ...]] = ()
    """The columns of ``block``."""
    further_columns: ClassVar[Mapping[str, tuple[Column, ...]]] = {}
    """The columns of its other tables, by the field that holds each."""
    shown: ClassVar[Shown] = Shown()
    """What people see of it."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Check what is declared with a type of record, and learn its name."""
        super().__pydantic_init_subclass__(**kwargs)
        if "stored_name" not in vars(cls):  # a name is of one type, not of those derived from it
            cls.stored_name, cls.former_names = "", ()
        if "shown" in vars(cls):
            cls.shown = settle_shown(cls.shown, cls)
        _learn(cls)

    @property
    def weight(self) -> int:
        """How many things the record stands for: the particles where it has a table of them, else 1."""
        return int(getattr(self, "count", 1)) if "block" in type(self).model_fields else 1

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know of how it came about, of a record that a source brings."""
        return ()

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Turn the fields stored by schema ``version`` into today's fields."""
        if version != cls.schema_version:
            raise ValueError(f"{cls.__name__}: no upcaster from schema {version} to {cls.schema_version}")
        return stored

    @classmethod
    def restore(cls, text: str, *, version: int, block: bytes | None) -> Self:
        """Build the record from its stored JSON ``text`` and its tables, as `pack_tables` gave them."""
        return cls.model_validate({**cls.upcast(json.loads(text), version), **unpack_tables(block)})


class Snapshot(Record):
    """A whole that later versions replace: class averages, a map, a gain reference."""


def pack_tables(record: Record) -> bytes | None:
    """Return the tables of a record as the store keeps them: the bytes of the only one, or a mark, all sizes, and all tables."""
    names = ("block", *type(record).further_columns)
    tables = {name: table for name in names if (table := getattr(record, name, None)) is not None}
    if not tables.keys() - {"block"}:
        return tables.get("block")
    sizes = json.dumps({name: len(table) for name, table in tables.items()}).encode()
    return b"".join((_SEVERAL, len(sizes).to_bytes(4, "little"), sizes, *tables.values()))


def unpack_tables(stored: bytes | None) -> dict[str, bytes]:
    """Return the tables of a record, by the fields that hold them, from what the store keeps.

    Raises
    ------
    ValueError
        The stored bytes are shorter or longer than their tables.
    """
    if stored is None or not stored.startswith(_SEVERAL):
        return {} if stored is None else {"block": stored}
    at = len(_SEVERAL) + 4
    begin = at + int.from_bytes(stored[at - 4 : at], "little")
    tables: dict[str, bytes] = {}
    for name, size in json.loads(stored[at:begin]).items():
        tables[name] = stored[begin : begin + size]
        begin += size
    if begin != len(stored):
        raise ValueError(f"the tables {', '.join(tables)} are of {begin} bytes together, the store has {len(stored)}")
    return tables


def record_named(name: str) -> type[Record] | None:
    """Return the type of record that the store calls ``name``, now or before; None where it is not loaded."""
    return _NAMED.get(name)


def named_records() -> list[type[Record]]:
    """Return all types of record that have a stored name and are loaded, in the order of their declaration."""
    return list(dict.fromkeys(_NAMED.values()))
