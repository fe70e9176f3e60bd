"""The few questions that SQLite and PostgreSQL put in different words, and what a store of an older version does not have."""

from typing import Any

from sqlalchemy import Boolean, Column, ColumnElement, Connection, Float, Integer, String, Table, inspect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


def outcome_rowid() -> ColumnElement[int]:
    """Return what orders outcomes: in SQLite the row number, which ends every index of the table, else the change sequence."""
    return _OutcomeOrder()


def json_text(document: ColumnElement[Any], path: str) -> ColumnElement[str]:
    """Return the text at ``path`` (names with dots between) of a column that holds JSON."""
    return _JsonText(document, path)


def json_number(document: ColumnElement[Any], path: str) -> ColumnElement[float]:
    """Return the number at ``path`` (names with dots between) of a column that holds JSON; NULL where there is none."""
    return _JsonNumber(document, path)


def begins_with(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Compare the beginning of a text, in SQLite as a range, which an index can answer."""
    return _Begins(column, text, text + "\U0010ffff")


def has_text(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Tell whether ``text`` is somewhere in a column, in the same case."""
    return _Has(column, text)


def columns_there(connection: Connection, table: Table) -> list[Column[Any]]:
    """Return the columns of ``table`` that this store has: an older store lacks the newer ones, or the whole table."""
    seen = inspect(connection)
    if not seen.has_table(table.name):
        return []
    names = {column["name"] for column in seen.get_columns(table.name)}
    return [column for column in table.columns if column.name in names]


def is_there(connection: Connection, table: Table) -> bool:
    """Tell whether this store has a table: an older one lacks those that came later."""
    return inspect(connection).has_table(table.name)


class _OutcomeOrder(FunctionElement[int]):
    name, type, inherit_cache = "outcome_order", Integer(), True


class _JsonText(FunctionElement[str]):
    name, type, inherit_cache = "json_text", String(), True


class _JsonNumber(FunctionElement[float]):
    name, type, inherit_cache = "json_number", Float(), True


class _Begins(FunctionElement[bool]):
    name, type, inherit_cache = "begins_with", Boolean(), True


class _Has(FunctionElement[bool]):
    name, type, inherit_cache = "has_text", Boolean(), True


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler) -> list[str]:
    return [compiler.process(clause) for clause in element.clauses]


@compiles(_OutcomeOrder)
def _order(_element: FunctionElement[Any], _compiler: SQLCompiler, **_: Any) -> str:
    return "outcome.seq"


@compiles(_OutcomeOrder, "sqlite")
def _order_sqlite(_element: FunctionElement[Any], _compiler: SQLCompiler, **_: Any) -> str:
    return "outcome.rowid"


@compiles(_JsonText)
def _text(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    document, path = _arguments(element, compiler)
    return f"(CAST({document} AS JSONB) #>> string_to_array({path}, '.'))"


@compiles(_JsonText, "sqlite")
def _text_sqlite(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    document, path = _arguments(element, compiler)
    return f"json_extract({document}, '$.' || {path})"


@compiles(_JsonNumber)
def _number(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    document, path = _arguments(element, compiler)
    found = f"CAST({document} AS JSONB) #> string_to_array({path}, '.')"
    return f"CASE jsonb_typeof({found}) WHEN 'number' THEN CAST({found} AS DOUBLE PRECISION) END"


@compiles(_JsonNumber, "sqlite")
def _number_sqlite(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    return f"CAST({_text_sqlite(element, compiler)} AS FLOAT)"


@compiles(_Begins)
def _begins(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    column, first, _last = _arguments(element, compiler)
    return f"starts_with({column}, {first})"


@compiles(_Begins, "sqlite")
def _begins_sqlite(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    column, first, last = _arguments(element, compiler)
    return f"({column} >= {first} AND {column} < {last})"


@compiles(_Has)
def _has(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    column, text = _arguments(element, compiler)
    return f"(strpos({column}, {text}) > 0)"


@compiles(_Has, "sqlite")
def _has_sqlite(element: FunctionElement[Any], compiler: SQLCompiler, **_: Any) -> str:
    column, text = _arguments(element, compiler)
    return f"(instr({column}, {text}) > 0)"
