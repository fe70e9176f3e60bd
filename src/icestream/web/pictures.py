"""Pictures that steps have published, as they are: named by the key of a record and a field that it declares, never by a path."""

from pathlib import Path

from icestream.errors import IcestreamError
from icestream.flow.declaration import resolve_ref
from icestream.observe.one_exposure import published_pictures
from icestream.observe.queries import SessionView
from icestream.web.places import NotThere

LARGEST_BYTES = 16_000_000

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


class NoPicture(NotThere):
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


def read_newest_picture(view: SessionView, step: str, field: str) -> tuple[bytes, str]:
    """Return the newest picture that a step has published, and its media type.

    Raises
    ------
    NoPicture
        See `read_picture`; or the step has made nothing yet.
    """
    if step not in view.order:
        raise NoPicture("the session has no such step")
    versions = [one.key for one in view.snapshots(step, limit=1) if not one.pruned]
    keys = versions or [one.key for one in view.records(step, newest_first=True, limit=1)]
    if not keys:
        raise NoPicture("the step has made nothing yet")
    return read_picture(view, keys[0], field)


def _find_ref(view: SessionView, key: str, field: str) -> str:
    found = view.result(key)
    if found is None:
        raise NoPicture("no result has this key")
    name, record = found
    declared = published_pictures(view.catalog().shown(name), record)
    if field not in declared:
        raise NoPicture("the record declares no such picture")
    return declared[field][1]


def _read(path: Path) -> tuple[bytes, str]:
    with path.open("rb") as handle:
        content = handle.read(LARGEST_BYTES + 1)
    kind = next((kind for signature, kind in _SIGNATURES.items() if content.startswith(signature)), None)
    if kind is None or len(content) > LARGEST_BYTES:
        raise NoPicture("the file is neither PNG nor JPEG, or too large")
    return content, kind
