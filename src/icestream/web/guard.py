"""What every request must be before anything else looks at it, and what every answer says to the browser.

A name that is not ours in ``Host`` is how a page on the internet reaches a server on this machine (DNS rebinding); an address is
harmless, because no name can be made to mean it. What changes something must come from our own page: it has our origin, JSON,
which no form of another page can send, and a text that only our page knows.
"""

import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from icestream.errors import SessionError
from icestream.web.audit import Audit
from icestream.web.callers import Caller, Callers

API = "/api/"
METRICS = "/metrics"
GUARDED = (API, METRICS)
"""What is only answered to who may look; everything else are the pages themselves, the same for all."""
LARGEST_BODY_BYTES = 64 * 1024
LARGEST_DRAFT_BYTES = 2 << 20
"""A workflow that somebody brings, as JSON, may have that."""
DRAFTS = "/api/v1/drafts"
LONGEST_ADDRESS = 8 * 1024
CSRF_HEADER = "x-icestream-csrf"
FROM_ELSEWHERE = "/api/v1/oidc/callback"
"""Where a provider of accounts sends a browser back to; it checks by itself what another site's page may not send."""
WITHOUT_SIGNING_IN = frozenset({"/api/v1/me", "/api/v1/sign-in", "/api/v1/open-share", "/api/v1/oidc/start", FROM_ELSEWHERE})
QUIET_HEADER = "x-icestream-quiet"
"""What our page sends with requests that no person has caused: they do not keep a sign-in alive."""
ROLE_HEADER = "x-icestream-role"
"""What who asks may do in the session that is asked about."""
MOST_CHANGES = 16
MOST_SIGN_INS = 8
"""So many changes, and sign-ins, are worked on at a time; each holds a thread, of which there are 40."""
_SAFE = frozenset({"GET", "HEAD"})

HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class Refusal(Exception):
    """A request that goes no further: with which status, and why."""

    status: int
    why: str


@dataclass(frozen=True)
class OwnNames:
    """The names under which this server is asked for; any address is one."""

    names: frozenset[str] = frozenset({"localhost"})

    def __contains__(self, host: str) -> bool:
        name = host.lower()
        bare = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] or name
        try:
            ip_address(bare)
        except ValueError:
            return bare.rstrip(".") in self.names
        return True


class Guard:
    """Refuses what is no proper request, says who sends it, adds headers to what is answered, and has changes written down."""

    def __init__(self, app: ASGIApp, *, callers: Callers, names: OwnNames, audit: Audit | None = None) -> None:
        self._app, self._callers, self._names, self._audit = app, callers, names, audit
        self._working = {True: 0, False: 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        said: dict[str, str] = {}
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in (*HEADERS.items(), *said.items()):
                    headers[name] = value
                headers.setdefault("cache-control", "no-store" if scope["path"].startswith(GUARDED) else "no-cache")
            await send(message)

        self._believe_proxy(scope)
        caller, body, reached = None, b"", False
        try:
            caller = await self._check(scope, said)
            scope.setdefault("state", {})["caller"] = caller
            if scope["method"] in _SAFE:
                await self._app(scope, receive, send_with_headers)
                return
            body, receive = await _read_body(receive, most=_most_bytes(scope["path"]))
            with self._one_of_few(scope["path"]):
                reached = True
                await self._app(scope, receive, send_with_headers)
        except Refusal as refusal:
            await _refuse(refusal, send_with_headers)
        finally:
            if reached and scope["path"].startswith(API) and self._audit is not None:
                await self._audit.write(scope, caller, body, status)

    @contextmanager
    def _one_of_few(self, path: str) -> Iterator[None]:
        """Have a change worked on, unless too many are: they must leave threads to those who only look."""
        signing_in = path in WITHOUT_SIGNING_IN
        if self._working[signing_in] >= (MOST_SIGN_INS if signing_in else MOST_CHANGES):
            raise Refusal(503, "too much is being asked for at this moment; try again")
        self._working[signing_in] += 1
        try:
            yield
        finally:
            self._working[signing_in] -= 1

    def _believe_proxy(self, scope: Scope) -> None:
        """Take from a proxy that we trust who asks through it, and how; remember the address of the proxy itself."""
        peer = scope["client"][0] if scope.get("client") else ""
        scope.setdefault("state", {})["peer"] = peer
        if peer in self._callers.proxies:
            headers = Headers(scope=scope)
            scope["client"] = (self._callers.proxies.client_of(headers, peer), 0)
            scheme = headers.get("x-forwarded-proto", "")
            scope["scheme"] = scheme if scheme in ("http", "https") else scope["scheme"]

    async def _check(self, scope: Scope, said: dict[str, str]) -> Caller | None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        host = headers.get("host", "")
        if headers.getlist("host") != [host] or host not in self._names:
            raise Refusal(421, f"this server is not called {host[:200]!r}; `icestream serve --name` gives it further names")
        if "transfer-encoding" in headers and "content-length" in headers:
            raise Refusal(400, "a request says its length once")  # a proxy may have read another one than we do
        if len(scope["raw_path"]) + len(scope["query_string"]) > LONGEST_ADDRESS:
            raise Refusal(414, f"the address is longer than {LONGEST_ADDRESS} characters")
        if not path.startswith(GUARDED):
            if method not in _SAFE:
                raise Refusal(405, "pages are only read")
            return None
        sent_back = path == FROM_ELSEWHERE and method == "GET"
        if not sent_back and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Refusal(403, "another site's page asks for this")
        try:
            caller = await self._callers.find(headers, scope["state"]["peer"], renew=_is_person(headers, path))
        except SessionError as error:
            raise Refusal(503, f"nobody can be let in: {error}") from None
        if caller is None and path not in WITHOUT_SIGNING_IN:
            raise Refusal(401, "sign in, or send a token as `Authorization: Bearer …`")
        if caller is not None:
            _check_session(path, caller, said)
        if method not in _SAFE:
            _check_change(headers, host, _most_bytes(path), None if path in WITHOUT_SIGNING_IN else caller)
        return caller


def _is_person(headers: Headers, path: str) -> bool:
    """Tell whether a person has caused a request: no stream of events, no page that brings itself and its pictures up to date."""
    pictures = "/pictures/" in path or "/drawings/" in path
    return not path.endswith("/events") and not pictures and QUIET_HEADER not in headers


def _check_session(path: str, caller: Caller, said: dict[str, str]) -> None:
    """Let people ask only about sessions that they may see; the others do not exist for them, whatever is asked."""
    parts = path.split("/", 5)  # "", api, v1, sessions, name, …
    session = parts[4] if len(parts) > 4 and parts[3] == "sessions" else ""
    if path.startswith(METRICS):
        session = path.removeprefix(METRICS).strip("/")
        if not session and not caller.person.may("look"):
            raise Refusal(403, f"{caller.person.name} may look at some sessions; ask {METRICS}/NAME for the metrics of one")
    if session:
        role = caller.person.role_in(session)
        if role is None:
            raise Refusal(404, f"{session[:200]!r}: no session of this name is served here")
        said[ROLE_HEADER] = role


def _most_bytes(path: str) -> int:
    return LARGEST_DRAFT_BYTES if path.startswith(DRAFTS) else LARGEST_BODY_BYTES


def _check_change(headers: Headers, host: str, most: int, caller: Caller | None) -> None:
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise Refusal(403, "another site's page asks for a change")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "what is sent must be application/json")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise Refusal(413, f"what is sent may have {most} bytes")
    if caller is not None and caller.csrf is not None:
        given = headers.get(CSRF_HEADER, "").encode()
        if not hmac.compare_digest(given, caller.csrf.encode()):
            raise Refusal(403, f"the header {CSRF_HEADER} is missing or wrong; /api/v1/me says what it must be")


async def _read_body(receive: Receive, *, most: int) -> tuple[bytes, Receive]:
    """Read what is sent, whatever its length is said to be, and give it on as one message too."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(400, "what is sent has ended too early")  # nobody hears it; half a request is none
        body += message.get("body", b"")
        if len(body) > most:
            raise Refusal(413, f"what is sent may have {most} bytes")
        if not message.get("more_body", False):
            break
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_whole() -> Message:
        return whole.pop() if whole else await receive()

    return body, receive_whole


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"detail": refusal.why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if refusal.status == 401 else []
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
