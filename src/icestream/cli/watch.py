"""``icestream watch``: a session for every new acquisition, by itself."""

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.markup import escape

from icestream.cli.console import make_table, output, print_json
from icestream.errors import SessionError, WorkflowError

if TYPE_CHECKING:
    from icestream.facility.new_sessions import WatchPlan
    from icestream.facility.observing import Observer
    from icestream.facility.watch_state import StateFile

Existing = Literal["ignore", "take"]


def watch(
    root: Path = typer.Argument(help="Folder in which the microscope creates a folder for each acquisition."),
    template: list[str] = typer.Option(
        [],
        metavar="[PATTERN=]TEMPLATE",
        help="Template for the sessions: a name (`icestream templates`) or a YAML file; with a pattern, for those that fit.",
    ),
    sessions: Path | None = typer.Option(None, help="Folder in which the sessions are created."),
    pattern: str = typer.Option("*/", help="Which folders inside the root are acquisitions, e.g. `*/Images-Disc1`."),
    set_: list[str] = typer.Option(
        [], "--set", metavar="[STEP.]NAME=VALUE", help="Value for all sessions; icestream.yaml in a folder takes precedence."
    ),
    folder_as: str | None = typer.Option(None, help="Placeholder that the folder fills in; by default movies or micrographs."),
    existing: str = typer.Option(
        "ignore", metavar="ignore|take", help="What to do with folders that already exist at the first start."
    ),
    at_most: int | None = typer.Option(None, min=1, help="Run at most this many sessions at once; the others wait."),
    look_every: float = typer.Option(5.0, min=0.05, help="Seconds between two scans of the folders."),
    cores: int | None = typer.Option(None, min=1, help="Cores that each session may use."),
    keep_running: bool = typer.Option(False, "--keep-running", help="When the watch stops, leave the runners running."),
    no_monitor: bool = typer.Option(False, "--no-monitor", help="Do not judge sessions by their rules, nor send alarms."),
    status: bool = typer.Option(False, "--status", help="Only show the state of each folder."),
    json: bool = typer.Option(False, "--json", help="With --status: print JSON for another program."),
) -> None:
    """Watch a folder, and create and run a session for every new acquisition in it.

    Each session is processed until no more files arrive. Values come from icestream.yaml in the acquisition folder, from
    `--set`, and from EPU or SerialEM files. `template: NAME` in icestream.yaml chooses another template for its folder. A folder
    that lacks a value is listed with what is missing. You can stop or kill the watch and start it again at any time.

    ```
    icestream watch /data --template movies_to_classes --sessions /sessions --set diameter=120,160
    icestream watch /data --template movies_to_classes --template 'screen_*=movies_to_ctf' --sessions /sessions
    icestream watch /data --status
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.facility.observing import Observer
    from icestream.facility.watch_state import StateFile

    settings = make_settings(cores=None, newest_first=False)
    state_file = StateFile(settings.state, root.absolute())
    if status:
        _show_status(state_file, as_json=json)
        return
    if not template or sessions is None:
        raise WorkflowError("watch: needs --template and --sessions")
    options = {"pattern": pattern, "folder_as": folder_as, "existing": existing, "at_most": at_most, "look_every": look_every}
    plan = _plan(root.absolute(), sessions.absolute(), template, set_, options, drain_s=settings.drain_s)
    _watch(plan, state_file, cores=cores, keep_running=keep_running, observer=None if no_monitor else Observer(settings.alarms))


def _plan(
    root: Path, sessions: Path, templates: list[str], given: list[str], options: dict[str, Any], *, drain_s: float
) -> "WatchPlan":
    from icestream.cli.plan import split_settings
    from icestream.facility.folders import check_pattern, folder_placeholder
    from icestream.facility.new_sessions import WatchPlan, make_choice
    from icestream.workflows import load_template, read_values

    check_pattern(options["pattern"])
    if options["existing"] not in ("ignore", "take"):
        raise WorkflowError(f"--existing {options['existing']!r}: must be ignore or take")
    if not root.is_dir():
        raise SessionError(f"{root}: not a folder, so it cannot be watched")
    values, parameters = split_settings(given)
    patterns, usual = _split_templates(templates)
    loaded = load_template(usual)
    choices = tuple(
        make_choice(
            load_template(name), given=values, settings=parameters, pattern=pattern, name=name, folder_as=options["folder_as"]
        )
        for pattern, name in patterns
    )
    taken = {value for one in choices for value in one.values}
    mine = {value: text for value, text in values.items() if value in loaded.placeholders or value not in taken}
    steps = {step for one in choices for step in one.settings}
    settings = {step: params for step, params in parameters.items() if step in loaded.steps or step not in steps}
    typed = read_values(loaded, mine, base=Path.cwd())
    return WatchPlan(
        root=root,
        pattern=options["pattern"],
        sessions=sessions,
        template=loaded,
        folder_as=folder_placeholder(loaded, options["folder_as"]),
        values={name: typed.get(name) for name in mine},
        settings=settings,
        given=dict(values),
        choices=choices,
        at_most=options["at_most"],
        take_existing=options["existing"] == "take",
        look_every_s=options["look_every"],
        stop_within_s=drain_s,
    )


def _split_templates(texts: list[str]) -> tuple[list[tuple[str, str]], str]:
    """Return pattern and name of the templates for some folders, and the name of the one for all others."""
    split = [text.partition("=") for text in texts]
    patterns = [(pattern.rstrip("/"), name) for pattern, equals, name in split if equals]
    usual = [text for text in texts if "=" not in text]
    if len(usual) != 1:
        raise WorkflowError(f"--template: {len(usual)} are given without a pattern; give one, for all that fit no pattern")
    return patterns, usual[0]


def _watch(
    plan: "WatchPlan", state_file: "StateFile", *, cores: int | None, keep_running: bool, observer: "Observer | None"
) -> None:
    from icestream.facility.observing import observing
    from icestream.facility.runners import Runners
    from icestream.facility.watch import Watch
    from icestream.flow.runner.stopping import StopRequests, on_stop_signals

    def say(text: str) -> None:
        output().print(f"{time.strftime('%H:%M:%S')}  {text}", markup=False, soft_wrap=True)

    with state_file.held(), closing(StopRequests()) as stop:
        daemon: Watch = Watch(plan, state_file, Runners(cores=cores), say)
        with on_stop_signals(stop.ask), observing(observer, daemon.session_folders, account=state_file.state_folder):
            say(f"watching {plan.root} for {plan.pattern}; sessions go to {plan.sessions}")
            daemon.run(stop)
            if keep_running:
                say("stopped; the runners keep running")
            else:
                say("stopping the runners")
                daemon.stop_runners(stop)


def _show_status(state_file: "StateFile", *, as_json: bool) -> None:
    state, holder = state_file.read(), state_file.holder()
    if state is None:
        root, missing = state_file.root, state_file.path
        raise SessionError(f"{root}: has not been watched on this machine by this account ({missing} is not there)")
    if as_json:
        print_json({"watched_by": holder, "root": state.root, "pattern": state.pattern, "folders": state.folders})
        return
    console = output()
    where = f"watched by process {holder}" if holder is not None else "not being watched"
    console.print(f"{state.root}: {where}", markup=False, style="bold", soft_wrap=True)
    table = make_table("folder", "state", "session", "since", "notes")
    for name, folder in state.folders.items():
        told = "; ".join(folder.problems) or folder.note or ""
        alert = f"ALERT, died {folder.falls} times: " if folder.alert else ""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(folder.stands_since or folder.since))
        table.add_row(escape(name), folder.phase.value, escape(folder.session or ""), since, escape(f"{alert}{told}"))
    console.print(table)
