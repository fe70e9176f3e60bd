"""Whether a database of alarms was made here: what came with the folder of a stranger is not sent in the facility's name.

A database has a token. The state folder of this account notes the place and file of each token, and from where on its messages
are this facility's own. A database that is not where it was noted is a copy: it gets a token of its own, and what waited in it to
be sent is dropped. Of one that is noted nowhere, which another machine may be working with, nothing is sent that was there
before.
"""

import hashlib
import json
import secrets
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from icestream.account import state_folder
from icestream.alarms.alarm_rows import Mark
from icestream.alarms.alarm_store import AlarmStore
from icestream.files import publish_text


class _Noted(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: str
    inode: int
    delivery: int
    number: int


def meet(store: AlarmStore) -> Mark:
    """Return from where on the messages of a database are this facility's own, and note it where it is new.

    Raises
    ------
    OSError
        The state folder of the account cannot be written to.
    """
    place = state_folder() / "icestream" / "alarms"
    with store.meeting() as met:  # no other observer meets it meanwhile
        stat = store.path.stat()
        path, inode = str(store.path.resolve()), stat.st_ino
        token = met.token
        noted = None if token is None else _read(place, token)
        if noted is not None and (noted.path, noted.inode) == (path, inode):
            return Mark(noted.delivery, noted.number)
        copied = noted is not None and noted.path != path
        if token is None or copied:
            token = secrets.token_hex(16)
            met.rename(token, drop=copied)
        place.mkdir(parents=True, exist_ok=True)
        told = _Noted(path=path, inode=inode, delivery=met.mark.delivery, number=met.mark.number)
        publish_text(_file_of(place, token), json.dumps(told.model_dump()))
        return met.mark


def _read(place: Path, token: str) -> _Noted | None:
    try:
        return _Noted.model_validate_json(_file_of(place, token).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None


def _file_of(place: Path, token: str) -> Path:
    """Return where a token is noted for this machine, as others that share the state folder may have other paths."""
    return place / f"{hashlib.sha256(f'{socket.gethostname()} {token}'.encode()).hexdigest()}.json"
