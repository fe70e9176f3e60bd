"""``icestream serve`` and ``access``: sessions in the browser, and who may sign in."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import make_table, output, print_json
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.facility.database import FacilityDatabase
    from icestream.web.access import Grant


def serve(
    folder: Path = typer.Argument(Path(), metavar="[FOLDER]", help="A session, or a folder of sessions; by default this folder."),
    host: str = typer.Option("127.0.0.1", help="Address to listen at; by default only this machine can reach it."),
    port: int = typer.Option(8765, min=0, max=65535, help="Port to listen at."),
    name: list[str] = typer.Option([], metavar="NAME", help="A further name under which people reach this machine."),
    data: list[Path] = typer.Option(
        [], metavar="FOLDER", help="A folder below which raw data may be chosen for new sessions; by default the folder served."
    ),
    proxy: list[str] = typer.Option(
        [], metavar="ADDRESS", help="A proxy in front of this server, or a network of some: it may say for whom it asks."
    ),
    proxy_user_header: str | None = typer.Option(
        None, metavar="HEADER", help="With --proxy: the header in which it names who has signed in there."
    ),
    certificate: Path | None = typer.Option(None, help="TLS certificate, a PEM file with the whole chain."),
    key: Path | None = typer.Option(None, help="Key of the TLS certificate, a PEM file."),
    no_monitor: bool = typer.Option(False, "--no-monitor", help="Do not judge sessions by their rules, nor send alarms."),
) -> None:
    """Show sessions in the browser, as they run, and control them from there.

    Whoever is at this machine may look and act, unless `icestream access` has given somebody a password: then all must sign in.
    On any other address the command refuses to start until somebody has. Stopping it stops no session. While it runs, sessions
    are judged by their rules and alarms are sent, see `icestream alarms`.

    ```
    icestream serve lysozyme
    icestream serve /sessions --port 8080 --data /data/krios
    icestream serve /sessions --host 0.0.0.0 --name icestream.lab.org --certificate lab.pem --key lab.key
    icestream serve /sessions --name icestream.lab.org --proxy 127.0.0.1 --proxy-user-header X-Remote-User
    ```
    """
    from icestream.cli.run import make_settings

    try:
        from icestream.web.places import find_places
        from icestream.web.server import Listening, access_file, allowed_folders, check_listening, trusted_proxies
        from icestream.web.server import serve as run_server
    except ImportError as error:
        raise _missing(error) from None
    settings = make_settings(cores=None, newest_first=False)
    places = find_places(folder)
    listening = Listening(host, port, tuple(name), certificate, key, trusted_proxies(proxy, proxy_user_header))
    check_listening(listening, access_file(settings), others_sign_in=settings.oidc is not None)
    raw_folders = allowed_folders(places, settings, data)
    if not places.single and not places.names():
        output().print(f"{places.folder} has no sessions yet; they appear here when there are some", markup=False)
    if not listening.local and certificate is None and not proxy:
        output().print("without --certificate, passwords cross the network as they are typed", style="bold yellow")
    run_server(places, listening, settings, raw_folders=raw_folders, on_ready=_say_where, observe=not no_monitor)


def _say_where(address: str) -> None:
    output().print(f"open {address} in a browser; Ctrl-C ends the server, not the sessions", markup=False, soft_wrap=True)


def access(
    name: str | None = typer.Argument(None, help="Who, or which script; without a name all are listed."),
    role: str = typer.Option(
        "operate", metavar="look|operate|administrate", help="Only look, also act, or also share links and read the audit log."
    ),
    sessions: list[str] = typer.Option(
        [], metavar="PATTERN", help="Only in sessions whose names fit, e.g. 'ribosome_*'; added to what the name may do already."
    ),
    by_proxy: bool = typer.Option(False, "--by-proxy", help="No password: a trusted proxy says who has signed in."),
    token: bool = typer.Option(False, "--token", help="Print a token for a script instead of asking for a password."),
    remove: bool = typer.Option(False, "--remove", help="Withdraw the access of this name; it ends at once."),
    json: bool = typer.Option(False, "--json", help="Print JSON for another program."),
) -> None:
    """Give somebody access to `icestream serve` on this machine, or list who has it.

    The password is asked for, or read from standard input. Passwords and tokens are stored as hashes.

    ```
    icestream access anna
    icestream access wall-screen --role look
    icestream access nightly-script --token
    icestream access berta --role look --sessions 'ribosome_*'
    icestream access anna --remove
    ```
    """
    from icestream.cli.run import make_settings

    try:
        from icestream.web.server import access_file
    except ImportError as error:
        raise _missing(error) from None
    file = access_file(make_settings(cores=None, newest_first=False))
    if name is None:
        _list_access([_describe(one) for one in file.grants()], json=json)
    elif remove:
        file.remove(name)
        _say(json, name, removed=True)
    elif token:
        text = file.add_token(name, role, sessions=sessions)
        _say(json, name, token=text)
    elif by_proxy:
        file.add_for_proxy(name, role, sessions=sessions)
        _say(json, name)
    elif sessions and name in {one.name for one in file.grants()}:
        file.allow(name, role, sessions)
        _say(json, name)
    else:
        file.add_password(name, _ask_password(), role, sessions=sessions)
        _say(json, name)


def backup(target: Path = typer.Argument(metavar="FILE", help="Where to write the backup; it must not exist.")) -> None:
    """Back up the facility's database: who has access, shared links, and what people did. A server may be running.

    The sessions are not in it; `icestream pack` makes copies of those.

    ```
    icestream backup /backup/icestream-2026-11-30.db
    ```
    """
    database, files = _database_and_files()
    database.back_up(target, files)
    output().print(f"{target}: holds who has access, shared links and what people did", markup=False, soft_wrap=True)


def restore(source: Path = typer.Argument(metavar="FILE", help="A backup made by `icestream backup`.")) -> None:
    """Restore the facility's database from a backup. What it replaces is kept beside it, with `.before-restore` in its name.

    Stop `icestream serve` first, or restart it afterwards: whoever has signed in stays signed in as what the backup says.

    ```
    icestream restore /backup/icestream-2026-11-30.db
    ```
    """
    database, files = _database_and_files()
    for path in database.restore(source, files):
        output().print(f"restored {path}", markup=False, soft_wrap=True)


def _database_and_files() -> "tuple[FacilityDatabase, dict[str, Path]]":
    from icestream.cli.run import make_settings

    try:
        from icestream.web.server import ACCESS_FILE, access_file, facility_database
    except ImportError as error:
        raise _missing(error) from None
    settings = make_settings(cores=None, newest_first=False)
    return facility_database(settings), {ACCESS_FILE: access_file(settings).path}


def _describe(grant: "Grant") -> dict[str, str]:
    """Return what a name may do, as it is listed."""
    some = [f"{one.role} in {one.sessions}" for one in grant.rules]
    return {"name": grant.name, "role": ", ".join([*([grant.role] if grant.role else []), *some]), "by": grant.how}


def _list_access(grants: list[dict[str, str]], *, json: bool) -> None:
    if json:
        print_json(grants)
        return
    if not grants:
        output().print("nobody has a password or token yet")
        return
    table = make_table("name", "role", "by")
    for one in grants:
        table.add_row(*one.values())
    output().print(table)


def _say(as_json: bool, name: str, *, token: str | None = None, removed: bool = False) -> None:
    if as_json:
        print_json({"name": name, "token": token, "removed": removed})
    elif token is not None:
        output().print(f"token of {name}, shown only now: {token}", markup=False, soft_wrap=True)
    else:
        output().print(f"{name} has {'no access any more' if removed else 'access'}", markup=False)


def _ask_password() -> str:
    import sys

    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password: str = typer.prompt("password", hide_input=True, confirmation_prompt=True)
    return password


def _missing(error: ImportError) -> SessionError:
    return SessionError(f"the web application needs {error.name}: install icestream-em[web]")
