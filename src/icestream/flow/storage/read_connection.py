"""Reading a session's store beside the runner, in one short transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.session import Session
from icestream.flow.storage.store_trouble import explain


@contextmanager
def reading(session: Session) -> Iterator[Connection | None]:
    """Give a connection that only reads, or None while the session has no store yet.

    Raises
    ------
    SessionError
        The store cannot be read.
    """
    location = session.store_at
    if isinstance(location, Path) and not location.is_file():
        yield None
        return
    engine = engine_for(location, read_only=True)
    try:
        with engine.begin() as connection:
            yield connection if inspect(connection).has_table(schema.runner.name) else None
    except DBAPIError as error:
        raise explain(location, error, "cannot be read") from error
    finally:
        engine.dispose()
