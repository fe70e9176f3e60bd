"""Bringing the tables of an older store up to date: after a backup, in one transaction, by the runner that has claimed it."""

from pathlib import Path

from sqlalchemy import Connection, Engine, text

from icestream.errors import SessionError
from icestream.flow.storage.copying import copy_file
from icestream.flow.storage.location import Location

_FIRST_ON_A_SERVER = 2
_SCRIPTS = Path(__file__).parent / "migrations"


def migrate_store(location: Location, engine: Engine, version: int) -> None:
    """Migrate a store from schema ``version`` to that of this software.

    A backup lies beside a store that is a file; a server has backups of its own, and changes the tables all or not at all.

    Raises
    ------
    StoreUnavailable
        There is no room for the backup.
    SessionError
        The store is on a server, where icestream never wrote a version so old.
    """
    if isinstance(location, Path):
        copy_file(location, location.with_name(f"{location.name}.v{version}.bak"))
    elif version < _FIRST_ON_A_SERVER:
        raise SessionError(f"{location}: has schema {version}, which icestream never wrote to a server; it is left as it is")
    with engine.begin() as connection:
        upgrade_tables(connection, version)


def upgrade_tables(connection: Connection, version: int) -> None:
    """Run all migrations after ``version``. Their number lives in the runner's row alone: Alembic's own table goes again."""
    from alembic import command  # noqa: PLC0415 - only an old store needs it
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.stamp(config, str(version))
    command.upgrade(config, "head")
    connection.execute(text("DROP TABLE alembic_version"))
