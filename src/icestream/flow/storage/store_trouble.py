"""What an error of the database means: trouble that may heal (`StoreUnavailable`), or a store that cannot be used."""

import sqlite3
from typing import Any

from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionError, StoreUnavailable
from icestream.flow.storage.location import Location, hide_passwords

_SQLITE_HEALS = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
"""Another process has the lock, the disk is full, read-only or gone. What is left: a bad file, a bad question, a broken rule."""

_SERVER_HEALS = ("08", "53", "58", "40", "57P", "57014", "55P03", "25P03", "25006")
"""Beginnings of SQLSTATE codes: connection, resources, input and output, rollback, shutdown, time-outs and locks, standby."""

_WHERE_FROM = "; a password comes from ~/.pgpass, from PGPASSWORD, or from a service of ~/.pg_service.conf"


def explain(location: Location, error: DBAPIError | sqlite3.Error, doing: str) -> SessionError:
    """Return what people should read about ``error``, as the kind of `SessionError` that says whether waiting helps.

    ``doing`` says what could not be done: "cannot be written".
    """
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    cause, heals = _judge(error.orig if isinstance(error, DBAPIError) else error, lost=lost)
    kind = StoreUnavailable if heals else SessionError
    return kind(f"{location}: {doing}: {hide_passwords(cause)}")


def _judge(cause: Any, *, lost: bool) -> tuple[str, bool]:
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", None)
        return str(cause), code is not None and code & 0xFF in _SQLITE_HEALS
    said = cause.args[0] if cause is not None and cause.args else ""
    if isinstance(said, dict):  # what the server answered: C is the SQLSTATE code, M its message
        code, message = str(said.get("C", "")), str(said.get("M", ""))
        hint = _WHERE_FROM if code.startswith("28") else ""
        return f"{message} (SQLSTATE {code}){hint}", code.startswith(_SERVER_HEALS)
    text = str(cause)
    if "password" in text:
        return f"{text}{_WHERE_FROM}", False
    lasting = any(word in text for word in ("refuses SSL", "not supported", "not recognized"))
    return text, lost or (type(cause).__name__ == "InterfaceError" and not lasting)
