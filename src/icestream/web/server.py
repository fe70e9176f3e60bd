"""Running the application: where it listens, under which names, and that it never stands open on a network."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import uvicorn
from fastapi import APIRouter

from icestream.account import expand_home, user_name
from icestream.errors import SessionError
from icestream.facility.database import FacilityDatabase
from icestream.facility.observing import Observer, observing
from icestream.settings import Settings
from icestream.web.access import AccessFile
from icestream.web.app import make_app
from icestream.web.callers import Callers, TrustedProxies
from icestream.web.connections import Connection, most_connections
from icestream.web.oidc import Oidc
from icestream.web.places import Places
from icestream.web.raw_folders import RawFolders
from icestream.web.site import Site

ACCESS_FILE = "web-access.json"
DATABASE = "facility.db"
PORT = 8765
CLOSING_S = 3
WAITING = 2048


@dataclass(frozen=True)
class Listening:
    """Where the server listens; ``names`` are further names under which people ask for it."""

    host: str = "127.0.0.1"
    port: int = PORT
    names: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    proxies: TrustedProxies = field(default_factory=TrustedProxies)

    @property
    def local(self) -> bool:
        """Tell whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def unreachable(self) -> bool:
        """Tell whether nobody but this machine can reach it, through no proxy either."""
        return self.local and not self.names and not self.proxies.networks

    @property
    def own_names(self) -> frozenset[str]:
        """The names that a request may ask for."""
        mine = () if self.local else (socket.gethostname(), socket.getfqdn(), self.host)
        return frozenset(name.lower() for name in ("localhost", *mine, *self.names))

    @property
    def address(self) -> str:
        """What a person types into a browser."""
        scheme = "http" if self.certificate is None else "https"
        anywhere = self.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
        host = self.names[0] if self.names else socket.gethostname() if anywhere else self.host
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/"


def access_file(settings: Settings) -> AccessFile:
    """Return the file that says who may sign in on this machine."""
    return AccessFile(settings.state / ACCESS_FILE)


def facility_database(settings: Settings) -> FacilityDatabase:
    """Return the database of shared links and of what people did."""
    return FacilityDatabase(settings.state / DATABASE)


def trusted_proxies(addresses: Sequence[str], user_header: str | None) -> TrustedProxies:
    """Return the proxies that may say for whom they ask.

    Raises
    ------
    SessionError
        An address is none.
    """
    networks = []
    for address in addresses:
        try:
            networks.append(ip_network(address))
        except ValueError as error:
            raise SessionError(f"--proxy {address}: must be an address, or a network as 10.1.0.0/24: {error}") from None
    return TrustedProxies(tuple(networks), user_header)


def allowed_folders(places: Places, settings: Settings, given: Sequence[Path]) -> RawFolders:
    """Return the folders of raw data that may be chosen: those that are given, else those of the settings, else what is served.

    Raises
    ------
    SessionError
        A folder that was given is none.
    """
    missing = [folder for folder in given if not folder.is_dir()]
    if missing:
        raise SessionError(f"--data {missing[0]}: is no folder")
    said = [expand_home(folder) for folder in settings.raw_folders.split(os.pathsep) if folder]
    return RawFolders(tuple(folder.absolute() for folder in given or said or [places.folder]))


def check_listening(listening: Listening, access: AccessFile, *, others_sign_in: bool = False) -> None:
    """Refuse to stand open on a network. ``others_sign_in``: people have accounts at a provider.

    Raises
    ------
    SessionError
        Others could reach the server, also under a further name that a proxy answers to, and nobody has a password or token; or
        half of what TLS needs is missing.
    """
    if listening.proxies.user_header is not None and not listening.proxies.networks:
        raise SessionError("--proxy-user-header: say with --proxy which address may send it")
    if not listening.unreachable and not others_sign_in and not access.grants():
        proxied = [f"--proxy {one}" for one in listening.proxies.networks]
        given = [*(f"--name {one}" for one in listening.names), *proxied, f"--host {listening.host}"][0]
        raise SessionError(
            f"{given}: others can reach this address, and nobody has a password yet; "
            "give yourself one with `icestream access NAME`, or a token to a script with `icestream access NAME --token`"
        )
    if (listening.certificate is None) != (listening.key is None):
        raise SessionError("TLS needs both a certificate and its key: give --certificate and --key")
    for path in (listening.certificate, listening.key):
        if path is not None and not path.is_file():
            raise SessionError(f"{path}: is no file")


def serve(
    places: Places,
    listening: Listening,
    settings: Settings,
    *,
    raw_folders: RawFolders,
    on_ready: Callable[[str], None],
    observe: bool = True,
) -> None:
    """Serve until interrupted; ``on_ready`` is told the address. Runners are processes of their own and go on.

    Meanwhile the sessions are judged by their rules, and alarms are sent, unless ``observe`` says that others do so.

    Raises
    ------
    SessionError
        See `check_listening`; or the port is taken.
    """
    access = access_file(settings)
    check_listening(listening, access, others_sign_in=settings.oidc is not None)
    callers = Callers(
        access,
        owner=user_name(),
        local=listening.unreachable,
        database=facility_database(settings),
        proxies=listening.proxies,
        oidc=None if settings.oidc is None else Oidc.read(settings.oidc),
    )
    site = Site(places, callers, settings, raw_folders, _routes(callers.oidc))
    app = make_app(site, listening.own_names)
    config = uvicorn.Config(
        app,
        host=listening.host,
        port=listening.port,
        log_level=logging.ERROR,  # what strangers send fills no log
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        http=Connection,
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=CLOSING_S,
        ssl_certfile=None if listening.certificate is None else str(listening.certificate),
        ssl_keyfile=None if listening.key is None else str(listening.key),
    )
    with _bound(listening) as listener:
        site.catalogue.begin()
        on_ready(replace(listening, port=listener.getsockname()[1]).address)
        observer = Observer(settings.alarms) if observe else None
        with (
            closing(site.studio),
            observing(observer, lambda: map(places.folder_of, places.names()), account=settings.state),
        ):
            uvicorn.Server(config).run(sockets=[listener])


def _routes(oidc: Oidc | None) -> tuple[APIRouter, ...]:
    """Return the addresses for signing in at a provider of accounts, if there is one."""
    if oidc is None:
        return ()
    try:
        from icestream.web.oidc_provider import Provider  # noqa: PLC0415 - a facility without a provider needs no such library
        from icestream.web.oidc_signing_in import oidc_routes  # noqa: PLC0415
    except ImportError as error:
        raise SessionError(f"signing in at a provider of accounts needs {error.name}: install icestream-em[oidc]") from None
    return (oidc_routes(Provider(oidc)),)


def _bound(listening: Listening) -> socket.socket:
    """Return a socket at the wanted address; a port that is taken is said in words rather than in a log."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listening.host, listening.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(WAITING)  # whoever comes before the application is ready waits for it
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SessionError(f"cannot listen at {listening.host}, port {listening.port}: {error.strerror}") from None
    return listener
