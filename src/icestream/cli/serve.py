"""``icestream serve`` and ``access``: sessions in the browser, and who may sign in."""

from pathlib import Path

import typer

from icestream.cli.console import make_table, output, print_json
from icestream.errors import SessionError


def serve(
    folder: Path = typer.Argument(Path(), metavar="[FOLDER]", help="A session, or a folder of sessions; by default this folder."),
    host: str = typer.Option("127.0.0.1", help="Address to listen at; by default only this machine can reach it."),
    port: int = typer.Option(8765, min=0, max=65535, help="Port to listen at."),
    name: list[str] = typer.Option([], metavar="NAME", help="A further name under which people reach this machine."),
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
    icestream serve /sessions --port 8080
    icestream serve /sessions --host 0.0.0.0 --name icestream.lab.org --certificate lab.pem --key lab.key
    ```
    """
    from icestream.cli.run import make_settings

    try:
        from icestream.web.places import find_places
        from icestream.web.server import Listening, access_file, check_listening
        from icestream.web.server import serve as run_server
    except ImportError as error:
        raise _missing(error) from None
    settings = make_settings(cores=None, newest_first=False)
    places = find_places(folder)
    listening = Listening(host, port, tuple(name), certificate, key)
    check_listening(listening, access_file(settings))
    if not places.single and not places.names():
        output().print(f"{places.folder} has no sessions yet; they appear here when there are some", markup=False)
    if not listening.local and certificate is None:
        output().print("without --certificate, passwords cross the network as they are typed", style="bold yellow")
    run_server(places, listening, settings, on_ready=_say_where, observe=not no_monitor)


def _say_where(address: str) -> None:
    output().print(f"open {address} in a browser; Ctrl-C ends the server, not the sessions", markup=False, soft_wrap=True)


def access(
    name: str | None = typer.Argument(None, help="Who, or which script; without a name all are listed."),
    role: str = typer.Option("operate", metavar="look|operate", help="Only look, or also act."),
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
        listed = [{"name": one.name, "role": one.role, "by": "token" if one.token else "password"} for one in file.grants()]
        _list_access(listed, json=json)
    elif remove:
        file.remove(name)
        _say(json, name, removed=True)
    elif token:
        text = file.add_token(name, role)
        _say(json, name, token=text)
    else:
        file.add_password(name, _ask_password(), role)
        _say(json, name)


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
