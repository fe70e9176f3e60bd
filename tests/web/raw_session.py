"""A toy session with a raw file that has content, and a copy of all raw files beside it."""

import shutil

from sqlalchemy import insert, select

from icestream.flow.storage import engine_for, schema
from icestream.flow.storage.session import Session


def note_raw_file(session: Session, name: str) -> None:
    """Give a number content, note its file as one that a source took, and copy all numbers to `archive`."""
    numbers = session.folder.parent / "numbers"
    (numbers / name).write_bytes(b"raw data")
    seen = (numbers / name).stat()
    engine = engine_for(session.store_at)
    with engine.begin() as connection:
        unit = connection.execute(select(schema.exposure.c.unit).where(schema.exposure.c.name == name)).scalar_one()
        values = {"size_bytes": seen.st_size, "modified_ns": seen.st_mtime_ns, "unit": unit}
        connection.execute(insert(schema.source_file).values(step="numbers", ref=f"numbers:{name}", **values))
    engine.dispose()
    shutil.copytree(numbers, numbers.with_name("archive"))
