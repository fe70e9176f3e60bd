"""Making the tables of a new store."""

from pathlib import Path

from sqlalchemy import Connection, func, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionError
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.location import Location, Server
from icestream.flow.storage.store_schema import SCHEMA_VERSION
from icestream.flow.storage.store_trouble import explain


def create_store(location: Location) -> None:
    """Make the tables, in one transaction, unless they are there; two runners may try at once.

    Raises
    ------
    StoreUnavailable
        The store cannot be reached or written at this moment.
    SessionError
        It is not a database, the role may not make a schema, or results are there that belong to another schema.
    """
    engine = engine_for(location, durable=True, create=True)
    try:
        with engine.begin() as connection:
            if isinstance(location, Server):
                _open_schema(connection, location)
            if not inspect(connection).has_table("runner"):
                schema.metadata.create_all(connection)
                new = {"id": 1, "schema_version": SCHEMA_VERSION, "fence": 0, "last_seq": 0, "state": "stopped"}
                connection.execute(insert(schema.runner).values(new))
    except DBAPIError as error:
        raise explain(location, error, "cannot be used as a store") from error
    finally:
        engine.dispose()


def _open_schema(connection: Connection, server: Server) -> None:
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(server.schema))))
    known = text("select 1 from pg_catalog.pg_namespace where nspname = :name")
    if connection.execute(known, {"name": server.schema}).first() is not None:
        return
    if server.derived_for is not None and _has_results(server.derived_for):
        raise SessionError(
            f"{server}: not found, but {server.derived_for} has results: the session was moved or renamed since; "
            "write the schema it used before into the URL of `store:` in session.yaml (…?schema=NAME)"
        )
    connection.execute(text(f'CREATE SCHEMA "{server.schema}"'))


def _has_results(folder: Path) -> bool:
    return any(path.is_file() for path in (folder / "steps").rglob("*"))
