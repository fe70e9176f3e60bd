"""The address of the storage of a facility: what all sessions hold, and how long the disks that they are on will last."""

from pathlib import Path

from fastapi import APIRouter

from icestream.errors import IcestreamError
from icestream.flow.storage import Session
from icestream.observe.storage import Holding
from icestream.web.site import Answer, Asking, Site, ThisSite

SECONDS = 1.0
"""The page waits so long for files that were not looked at yet; the rest is looked at for the next who asks."""

router = APIRouter(prefix="/api/v1", tags=["storage"])


class HeldBySession(Answer):
    """What one session holds; numbers are unset until its files have been looked at, and are sums so far until ``complete``."""

    id: str
    name: str
    disk: str | None = None
    bytes: int | None = None
    """All of it but raw data outside the session."""
    raw_bytes: int | None = None
    again_bytes: int | None = None
    """Of files that can be computed again."""
    rejected_bytes: int | None = None
    trash_bytes: int | None = None
    bytes_per_hour: float | None = None
    complete: bool = False
    trouble: str | None = None


class Disk(Answer):
    """A disk that sessions are on."""

    id: str
    free_bytes: int
    sessions: int
    bytes: int
    bytes_per_hour: float
    full_in_s: float | None
    """If all sessions on it go on growing so."""


class FacilityStorage(Answer):
    """What the sessions of a facility hold."""

    sessions: list[HeldBySession]
    disks: list[Disk]
    complete: bool


@router.get("/storage", summary="What all sessions hold, what of it can be computed again, and how long the disks will last")
def facility_storage(site: ThisSite, caller: Asking) -> FacilityStorage:
    """Return what the sessions hold that who asks may see, the largest first."""
    opened, lines = _open_all(site, [name for name in site.places.names() if caller.person.role_in(name) is not None])
    found = site.holdings.read_many(opened, seconds=SECONDS)
    lines += [_line(name, opened[name], held) for name, held in found.items()]
    lines.sort(key=lambda one: (-(one.bytes or 0), one.id))
    return FacilityStorage(sessions=lines, disks=_disks(lines, found), complete=all(one.complete for one in lines))


def _open_all(site: Site, names: list[str]) -> tuple[dict[str, Session], list[HeldBySession]]:
    opened, broken = dict[str, Session](), []
    for name in names:
        try:
            opened[name] = site.places.open(name)
        except (IcestreamError, OSError) as error:
            broken.append(HeldBySession(id=name, name=name, complete=True, trouble=str(error)))
    return opened, broken


def _line(name: str, session: Session, held: Holding | str | None) -> HeldBySession:
    known = {"id": name, "name": session.document.name, "disk": _disk_of(session.folder)}
    if held is None or isinstance(held, str):
        return HeldBySession.model_validate({**known, "trouble": held, "complete": held is not None})
    of_kind = {one.kind: one for one in held.kinds}
    return HeldBySession.model_validate(
        {
            **known,
            "bytes": held.bytes,
            "raw_bytes": of_kind["raw"].bytes if "raw" in of_kind else 0,
            "again_bytes": sum(one.again_bytes for one in held.kinds),
            "rejected_bytes": sum(one.rejected_bytes for one in held.kinds),
            "trash_bytes": held.trash_bytes,
            "bytes_per_hour": held.bytes_per_hour,
            "complete": held.complete,
        }
    )


def _disk_of(folder: Path) -> str | None:
    try:
        return str(folder.stat().st_dev)
    except OSError:  # it was moved meanwhile
        return None


def _disks(lines: list[HeldBySession], found: dict[str, Holding | str | None]) -> list[Disk]:
    disks = []
    for disk in sorted({one.disk for one in lines if one.disk is not None}):
        mine = [one for one in lines if one.disk == disk]
        known = [held for one in mine if isinstance(held := found.get(one.id), Holding)]
        growing = sum(one.bytes_per_hour or 0.0 for one in known)
        if known:
            free = min(one.free_bytes for one in known)
            full_in_s = 3600.0 * free / growing if growing > 0 else None
            held = sum(one.bytes for one in known)
            disks.append(
                Disk(id=disk, free_bytes=free, sessions=len(mine), bytes=held, bytes_per_hour=growing, full_in_s=full_in_s)
            )
    return disks
