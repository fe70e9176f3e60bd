"""Bringing the tables of an older store up to date: after a backup, in one transaction, by the runner that has claimed it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, text

from icestream.errors import SessionError, StoreUnavailable
from icestream.files import publish
from icestream.flow.location import Location

_SCRIPTS = Path(__file__).parent / "migrations"
_SPARE_BYTES = 16 * 2**20
"""Room that is left beside a backup, for the migration itself."""


def migrate_store(location: Location, engine: Engine, version: int) -> None:
    """Migrate a store from schema ``version`` to that of this software; a backup lies beside it afterwards.

    Raises
    ------
    StoreUnavailable
        There is no room for the backup.
    SessionError
        The store is on a server: no version of icestream before the present one wrote there.
    """
    if not isinstance(location, Path):
        raise SessionError(f"{location}: has schema {version}, which icestream never wrote to a server; it is left as it is")
    backup_file(location, location.with_name(f"{location.name}.v{version}.bak"))
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


def backup_file(path: Path, target: Path) -> None:
    """Copy a SQLite store as it is at one moment, also while it is written.

    Raises
    ------
    StoreUnavailable
        There is no room beside it.
    """
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source:
        pages, page_bytes = (source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        needed, free = pages * page_bytes + _SPARE_BYTES, shutil.disk_usage(target.parent).free
        if free < needed:
            raise StoreUnavailable(
                f"{target}: a copy of the store needs {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free there"
            )
        with publish(target) as temporary, closing(sqlite3.connect(temporary)) as copy:
            source.backup(copy)
