"""Reading a session's store beside the runner, in one short transaction."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, inspect

from icestream.flow import schema
from icestream.flow.session import Session
from icestream.flow.store import engine_for


@contextmanager
def reading(session: Session) -> Iterator[Connection | None]:
    """Give a connection that only reads, or None while the session has no store yet."""
    if not session.store_path.is_file():
        yield None
        return
    engine = engine_for(session.store_path, read_only=True)
    try:
        with engine.begin() as connection:
            yield connection if inspect(connection).has_table(schema.runner.name) else None
    finally:
        engine.dispose()
