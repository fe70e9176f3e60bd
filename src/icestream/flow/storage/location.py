"""Where the store of a session is: a file, or a schema of a PostgreSQL database, named by a URL that holds no password."""

import configparser
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from icestream.account import expand_home, user_name
from icestream.errors import SessionError

SCHEMES = ("postgresql", "postgres")
_OPTIONS = ("schema", "host", "service", "sslmode")
_SSL_MODES = ("disable", "prefer", "require", "verify-full")
_SCHEMA = re.compile(r"^[a-z_][a-z0-9_]{0,62}$")
_PASSWORD = re.compile(r"(\w+://[^/@\s:]*):\S*@")
_LONGEST_SLUG = 30


@dataclass(frozen=True)
class Server:
    """A schema of a PostgreSQL database: one session's store. The password is looked up when a connection is made."""

    host: str
    """A name, an address, or the folder of a Unix socket."""
    port: int
    user: str
    database: str
    schema: str
    sslmode: str = "prefer"
    service: str | None = None
    derived_for: Path | None = field(default=None, compare=False)
    """The session folder from which the name of the schema was made, where the URL does not give one."""

    def __str__(self) -> str:
        options = {"schema": self.schema}
        if self.host.startswith("/"):
            options["host"] = self.host
        if self.sslmode != "prefer":
            options["sslmode"] = self.sslmode
        if self.service is not None:
            options["service"] = self.service
        if self.host.startswith("/"):
            host = f":{self.port}" if self.port != 5432 else ""
        else:
            host = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"postgresql://{quote(self.user, safe='')}@{host}/{quote(self.database, safe='')}?{urlencode(options, safe='/')}"


Location: TypeAlias = Path | Server


def is_url(text: str) -> bool:
    """Tell whether ``text`` names a database server rather than a file."""
    return "://" in text


def hide_passwords(text: str) -> str:
    """Return ``text`` with the passwords of URLs in it replaced."""
    return _PASSWORD.sub(r"\1:***@", text)


def locate_server(url: str, *, session: str, folder: Path) -> Server:
    """Read the URL of a store: ``postgresql://user@host:port/database?schema=NAME``.

    What the URL leaves out comes from the service it names (``service=``, from ``~/.pg_service.conf``), else host
    ``localhost``, port 5432, the user who runs icestream, and a database of the user's name. Without ``schema=`` its name
    is made of the session's name and folder.

    Raises
    ------
    SessionError
        The URL holds a password, or something in it is not known or not allowed.
    """
    shown = hide_passwords(url)
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # neither the URL nor what is wrong with it is shown: it may be a password
        raise SessionError("store: is not a URL of the form postgresql://user@host:port/database?schema=name") from None
    if parts.scheme not in SCHEMES:
        raise SessionError(f"store {shown!r}: a store is a path, or a URL that begins with postgresql://")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.password is not None or "password" in options:
        raise SessionError(
            "store: a password does not belong in session.yaml; take it out of the URL and put it into ~/.pgpass, "
            "into PGPASSWORD, or into a service of ~/.pg_service.conf"
        )
    if unknown := sorted(set(options) - set(_OPTIONS)):
        named = ", ".join(name for name in unknown if name.isidentifier()) or "an option of its URL"
        raise SessionError(f"store: {named}: not known; must be one of {', '.join(_OPTIONS)}")
    service = read_service(options["service"]) if "service" in options else {}
    user = unquote(parts.username or "") or service.get("user") or user_name()
    schema = options.get("schema")
    return Server(
        host=options.get("host") or host or service.get("host") or "localhost",
        port=port or _read_port(service.get("port", "5432")),
        user=user,
        database=unquote(parts.path.strip("/")) or service.get("dbname") or user,
        schema=check_schema_name(schema) if schema is not None else derive_schema_name(session, folder),
        sslmode=_check_ssl_mode(options.get("sslmode") or service.get("sslmode") or "prefer"),
        service=options.get("service"),
        derived_for=None if schema is not None else folder,
    )


def check_schema_name(name: str) -> str:
    """Return ``name`` if a session may have a schema of that name.

    Raises
    ------
    SessionError
        It may not.
    """
    if not _SCHEMA.match(name) or name.startswith("pg_") or name in ("public", "information_schema"):
        raise SessionError(
            f"store: schema {name!r}: a schema's name is made of a-z, 0-9 and _, begins with a letter, has at most 63 "
            "characters, and is neither 'public' nor one of PostgreSQL's own; every session has a schema of its own"
        )
    return name


def derive_schema_name(session: str, folder: Path) -> str:
    """Return a schema name for a session that gives none: readable, and different for every folder."""
    slug = re.sub(r"[^a-z0-9]+", "_", session.lower()).strip("_")[:_LONGEST_SLUG].rstrip("_") or "session"
    mark = hashlib.sha256(f"{session}\0{folder}".encode()).hexdigest()[:10]
    return f"icestream_{slug}_{mark}"


def read_service(name: str) -> Mapping[str, str]:
    """Return what a service of the connection service file says.

    Raises
    ------
    SessionError
        The file cannot be read, or has no such service.
    """
    path = expand_home(os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf")
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"{path}: cannot be read, and the store names the service {name!r}: {error}") from error
    except configparser.Error as error:  # its message would show the line, which may hold a password
        raise SessionError(f"{path}: is not a connection service file ({type(error).__name__})") from None
    if not parser.has_section(name):
        raise SessionError(f"{path}: has no service {name!r}; it has {', '.join(parser.sections()) or 'none'}")
    return dict(parser.items(name))


def find_password(server: Server) -> str | None:
    """Return the password for a server: from ``PGPASSWORD``, its service, or the password file; None if none of them has it.

    Raises
    ------
    SessionError
        The password file may be read by others.
    """
    if given := os.environ.get("PGPASSWORD"):
        return given
    if server.service is not None and (given := read_service(server.service).get("password")):
        return given
    path = expand_home(os.environ.get("PGPASSFILE") or "~/.pgpass")
    if not path.is_file():
        return None
    if path.stat().st_mode & 0o077:
        raise SessionError(f"{path}: can be read by others; make it private: chmod 600 {path}")
    host = "localhost" if server.host.startswith("/") else server.host
    wanted = (host, str(server.port), server.database, server.user)
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = [re.sub(r"\\(.)", r"\1", part) for part in re.findall(r"((?:[^:\\]|\\.)*)(?::|$)", line)]
        if not line.startswith("#") and len(fields) >= 5 and all(f in ("*", w) for f, w in zip(fields, wanted, strict=False)):
            return fields[4]
    return None


def _read_port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SessionError(f"store: port {text!r}: a port is a number from 1 to 65535")
    return int(text)


def _check_ssl_mode(mode: str) -> str:
    if mode not in _SSL_MODES:
        raise SessionError(f"store: sslmode {mode!r}: must be one of {', '.join(_SSL_MODES)}")
    return mode
