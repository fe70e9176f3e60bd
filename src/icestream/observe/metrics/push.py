"""Sending metrics to a server that is not able to ask for them."""

import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from icestream.errors import SessionError

TIMEOUT_S = 15.0
_LONGEST_ANSWER = 300


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would be repeated as a GET, and could carry the authorization elsewhere."""

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> None:
        """Refuse."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def check_address(address: str) -> None:
    """Refuse what is no address to push to.

    Raises
    ------
    SessionError
        It is not http or https, or has a user or password in it, which everybody on the machine could read.
    """
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise SessionError(f"{address!r}: is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise SessionError(f"{address!r}: must begin with http:// or https:// and name a server")
    if parts.username is not None:
        shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        raise SessionError(f"{shown}: has a password in it, which others can read in the list of processes; use --authorization")


def read_authorization(path: Path) -> str:
    """Return what a file says that the header ``Authorization`` must be, such as ``Bearer`` and a token.

    Raises
    ------
    SessionError
        The file cannot be read, or is not one line.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"{path}: cannot be read as a line of text: {error}") from None
    if len(text.split()) != 2 or "\n" in text:
        raise SessionError(
            f"{path}: must be one line with a scheme and a value, such as: Bearer TOKEN, Token TOKEN, Basic BASE64"
        )
    return text


def push(address: str, text: str, *, authorization: str | None = None) -> None:
    """Send metrics to a server, as the body of a POST.

    Raises
    ------
    SessionError
        The address is none (`check_address`), the server cannot be reached, or it does not take what it got.
    """
    check_address(address)
    headers = {"content-type": "text/plain; charset=utf-8"}
    if authorization is not None:
        headers["authorization"] = authorization
    request = urllib.request.Request(address, text.encode(), headers, method="POST")  # noqa: S310 - checked to be http(s)
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(_LONGEST_ANSWER).decode("utf-8", "replace").strip()
        raise SessionError(f"{address}: answers {error.code} {error.reason}{f': {said}' if said else ''}") from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise SessionError(f"{address}: cannot be reached: {reason}") from None
