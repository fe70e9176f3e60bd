"""What a session keeps of a declaration, so that its records show where the software that made them is not installed."""

import inspect
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import TypeAdapter

from icestream.records.literature import Method
from icestream.records.shown import Comparison, Shown
from icestream.records.vocabulary import Column, Record, Snapshot


@dataclass(frozen=True)
class Description:
    """A type of record in one of its versions, without the class."""

    name: str
    version: int
    summary: str
    whole: bool
    """It is a snapshot: later versions replace it."""
    former_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    shown: Shown = field(default_factory=Shown)


_DESCRIPTION = TypeAdapter(Description)
_COMPARISON = TypeAdapter(Comparison)
_METHOD = TypeAdapter(Method)


@lru_cache(maxsize=256)
def describe_record(record: type[Record]) -> Description:
    """Return the description of a type of record as it is declared."""
    return Description(
        name=record.stored_name,
        version=record.schema_version,
        summary=inspect.cleandoc(record.__doc__ or "").partition("\n")[0],
        whole=issubclass(record, Snapshot),
        former_names=record.former_names,
        columns=record.block_columns,
        shown=record.shown,
    )


def write_description(description: Description) -> str:
    """Return a description as JSON."""
    return _DESCRIPTION.dump_json(description, exclude_defaults=True).decode()


@lru_cache(maxsize=256)
def read_description(text: str) -> Description:
    """Return the description that `write_description` wrote; what a newer version added is left out."""
    return _DESCRIPTION.validate_json(text)


def write_comparison(comparison: Comparison) -> str:
    """Return a comparison as JSON."""
    return _COMPARISON.dump_json(comparison, exclude_defaults=True).decode()


@lru_cache(maxsize=256)
def read_comparison(text: str) -> Comparison:
    """Return the comparison that `write_comparison` wrote."""
    return _COMPARISON.validate_json(text)


def write_method(method: Method) -> str:
    """Return a method as JSON."""
    return _METHOD.dump_json(method, exclude_defaults=True).decode()


@lru_cache(maxsize=256)
def read_method(text: str) -> Method:
    """Return the method that `write_method` wrote."""
    return _METHOD.validate_json(text)
