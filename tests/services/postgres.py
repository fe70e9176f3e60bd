"""A PostgreSQL server of one's own, thrown away afterwards: for tests of the store, and for trying one out.

``python -m services.postgres`` starts one and prints how to reach it, until Ctrl-C.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from icestream.errors import SessionError

USER = "icestream"
_STARTS_WITHIN_S = 60.0
_PORTS = 3
_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class ThrowawayServer:
    """A server that lives as long as its context: on loopback, with a password."""

    url: str
    """For ``store:`` in a session's document; a session adds its own ``?schema=``."""
    password: str
    process: "subprocess.Popen[bytes]"
    folder: Path
    port: int


def find_binaries() -> Path | None:
    """Return the folder with the programs of the newest PostgreSQL server here, or None."""
    versions = sorted(_DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]), reverse=True)
    on_path = shutil.which("initdb")
    found = versions[0] if versions else Path(on_path).resolve() if on_path else None
    return None if found is None or not (found.parent / "postgres").exists() else found.parent


@contextmanager
def throwaway_server() -> Iterator[ThrowawayServer]:
    """Start a private server in a temporary folder, and stop and remove it afterwards.

    PostgreSQL refuses to run as root: then it runs as the user ``postgres`` that its package makes.

    Raises
    ------
    SessionError
        The programs are not installed, or the server does not start.
    """
    binaries = find_binaries()
    if binaries is None:
        raise SessionError("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="icestream-postgres-"))
    account, password = _account(), secrets.token_urlsafe(18)
    try:
        _make_cluster(binaries, folder, password=password, account=account)
        process, port = _start(binaries, folder, account)
        try:
            yield ThrowawayServer(f"postgresql://{USER}@127.0.0.1:{port}/postgres", password, process, folder, port)
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: clients are sent away
            process.wait()
    finally:
        shutil.rmtree(folder)


def _account() -> str | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        raise SessionError("PostgreSQL does not run as root, and there is no user 'postgres' here") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    """Return an environment without the caller's PostgreSQL settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C.UTF-8"}


def _make_cluster(binaries: Path, folder: Path, *, password: str, account: str | None) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password, encoding="utf-8")
    if account is not None:
        for path in (folder, secret):
            shutil.chown(path, account)
    command = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", USER, "--pwfile", str(secret), "--no-sync"]
    command += ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--encoding=UTF8"]
    made = subprocess.run(command, user=account, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    secret.unlink()
    if made.returncode:
        raise SessionError(f"initdb failed: {made.stderr.strip()}")


def _start(binaries: Path, folder: Path, account: str | None) -> tuple["subprocess.Popen[bytes]", int]:
    """Start the server on a free port; another process may take that port first, so try some."""
    for _ in range(_PORTS):
        port = _free_port()
        command = _as_child([str(binaries / "postgres"), "-D", str(folder / "data"), *_settings(folder, port)])
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, user=account, cwd=folder, env=_environment())
        if _is_ready(binaries, process, port):
            return process, port
        process.kill()
        process.wait()
    said = (folder / "log").read_text(encoding="utf-8", errors="replace")
    raise SessionError(f"the PostgreSQL server did not start: {said.strip()}")


def _settings(folder: Path, port: int) -> list[str]:
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _as_child(command: list[str]) -> list[str]:
    """Let the server end with its parent, also where that is killed."""
    setpriv = shutil.which("setpriv")
    return command if setpriv is None else [setpriv, "--pdeathsig", "INT", *command]


def _is_ready(binaries: Path, process: "subprocess.Popen[bytes]", port: int) -> bool:
    ask = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    end = time.monotonic() + _STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < end:
        if subprocess.run(ask, check=False).returncode == 0:
            return process.poll() is None
        time.sleep(0.05)
    return False


def main() -> None:
    """Run a server until Ctrl-C."""
    with throwaway_server() as server:
        sys.stdout.write(f"store: {server.url}\nPGPASSWORD={server.password}\n")
        sys.stdout.flush()
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # not before: the server would inherit it
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
