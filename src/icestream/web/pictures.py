"""Pictures that steps have published, as they are: named by the key of a record and a field that it declares, never by a path."""

from pathlib import Path

from sqlalchemy import select

from icestream.errors import IcestreamError, SessionError
from icestream.flow.storage import schema
from icestream.flow.storage.file_refs import resolve_ref
from icestream.observe.catalog import read_catalog
from icestream.observe.one_exposure import published_pictures
from icestream.observe.queries import SessionView
from icestream.observe.values import field_at

LARGEST_BYTES = 16_000_000

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class NoPicture(SessionError):
    """There is no such picture."""


def read_picture(view: SessionView, key: str, field: str) -> tuple[bytes, str]:
    """Return a picture and its media type.

    Raises
    ------
    NoPicture
        The record does not declare it, it is not in the session's folder, too large, or neither PNG nor JPEG.
    """
    ref = _find_ref(view, key, field)
    folder = view.session.folder.resolve()
    try:
        path = resolve_ref(view.session.roots, ref).resolve(strict=True)
    except (OSError, IcestreamError):
        raise NoPicture("the file of this picture is not there any more") from None
    if not ref.startswith("session:") or not path.is_relative_to(folder):  # a link may lead out
        raise NoPicture("the picture is not in the folder of the session")
    return _read(path)


def _find_ref(view: SessionView, key: str, field: str) -> str:
    table = schema.result
    columns = (table.c.record_type, table.c.record_version, table.c.record)
    with view.reading() as connection:
        row = None if connection is None else connection.execute(select(*columns).where(table.c.key == key)).mappings().first()
        if connection is None or row is None:
            raise NoPicture("no result has this key")
        catalog = read_catalog(connection)
    record = catalog.fields(row)
    declared = {one.field for one in published_pictures(catalog.shown(row["record_type"]), record, key)}
    if field not in declared:
        raise NoPicture("the record declares no such picture")
    return str(field_at(record, field))


def _read(path: Path) -> tuple[bytes, str]:
    with path.open("rb") as handle:
        content = handle.read(LARGEST_BYTES + 1)
    kind = next((kind for signature, kind in _SIGNATURES.items() if content.startswith(signature)), None)
    if kind is None or len(content) > LARGEST_BYTES:
        raise NoPicture("the file is neither PNG nor JPEG, or too large")
    return content, kind
