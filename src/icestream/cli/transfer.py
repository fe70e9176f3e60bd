"""``icestream transfer`` and ``icestream transfers``: copy from the microscope's disk, verified, and what was done."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from icestream.cli.asking import JSON
from icestream.cli.console import make_table, output, print_json
from icestream.counting import counted
from icestream.errors import ExitStatus, SessionError

if TYPE_CHECKING:
    from icestream.transfer.dry_run import Foreseen
    from icestream.transfer.ledger import FileRow, Ledger, TransferRow
    from icestream.transfer.plan import Progress, TransferPlan

_MB, _GB = 10**6, 10**9
_MOST_NAMED = 10
_LINE_EVERY_S = 60.0


def transfer(
    source: Path = typer.Argument(help="Folder to copy from, such as the mounted disk of the microscope; or a session."),
    target: Path = typer.Argument(help="Folder to copy to; or a session, which means its folder of raw data."),
    pattern: str = typer.Option("**/*", help="Which files: a glob relative to the source; **/ matches any depth."),
    root: str | None = typer.Option(None, help="Which folder of raw data, where the session has several."),
    bandwidth: float | None = typer.Option(None, min=0.001, metavar="MB/S", help="Copy at most so many megabytes a second."),
    remove_after: float | None = typer.Option(
        None, min=0, metavar="HOURS", help="Remove files at the source so long after they were verified; by default never."
    ),
    remove_pattern: str = typer.Option("*", help="With --remove-after: only files whose path fits, such as `*.mrc`."),
    keep_free: float = typer.Option(5.0, min=0, metavar="GB", help="Pause rather than leave less space free at the target."),
    stable: float = typer.Option(10.0, min=0, metavar="S", help="A file is complete when it has not changed for this long."),
    give_up: float = typer.Option(600.0, min=0, metavar="S", help="Copy a file that stays too short for its header after this."),
    look_every: float = typer.Option(5.0, min=0.05, metavar="S", help="Seconds between two looks at the source."),
    once: bool = typer.Option(False, "--once", help="Copy what is complete now, then exit; with 3 if a file failed."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what would be copied and removed; write nothing."),
    json: bool = typer.Option(False, "--json", help="With --dry-run or --once: print JSON for another program."),
) -> None:
    """Copy files from the microscope's disk as they are completed, verified, until Ctrl-C.

    A file appears at the target when all of it is there: it is copied under a hidden name, read back, compared, and renamed. A
    copy that was interrupted goes on where it ended. While a disk is away or full, the transfer pauses. Nothing is ever
    overwritten; at the source nothing is written, and removed only with `--remove-after`, after the copy was read again.
    The same command copies raw data to an archive: give the session as the source; there, nothing is removed.

    ```
    icestream transfer /mnt/microscope/grid7 lysozyme
    icestream transfer /mnt/microscope/grid7 lysozyme --bandwidth 80 --remove-after 48 --remove-pattern '*.eer'
    icestream transfer /mnt/microscope/grid7 lysozyme --remove-after 48 --dry-run
    icestream transfer lysozyme /archive/lysozyme --once
    icestream transfers lysozyme --state failed
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.transfer.ends import find_ends, refuse_removal
    from icestream.transfer.plan import TransferPlan

    if remove_after is not None:
        refuse_removal(source, target)
    ends = find_ends(source, target, root=root, state_folder=make_settings(cores=None, newest_first=False).state)
    plan = TransferPlan(
        source=ends.source,
        target=ends.target,
        pattern=pattern,
        bytes_per_s=None if bandwidth is None else bandwidth * _MB,
        remove_after_s=None if remove_after is None else 3600.0 * remove_after,
        remove_pattern=remove_pattern,
        keep_free_bytes=int(keep_free * _GB),
        stable_s=stable,
        give_up_s=give_up,
        look_every_s=look_every,
    )
    if dry_run:
        _show_foreseen(plan, ends.ledger, json=json)
    else:
        _run(plan, ends.ledger, once=once, json=json and once)


def _run(plan: "TransferPlan", ledger: "Ledger", *, once: bool, json: bool) -> None:
    from icestream.flow.runner.stopping import StopRequests, on_stop_signals
    from icestream.transfer.running import Transfer

    console = Console(quiet=True) if json else output()

    def say(text: str) -> None:
        console.print(f"{time.strftime('%H:%M:%S')}  {text}", markup=False, soft_wrap=True)

    with closing(StopRequests()) as stop, on_stop_signals(stop.ask), _following(console) as show:
        made = Transfer(plan, ledger, stop, say, show)
        say(f"copying from {plan.source} to {plan.target}; {'' if once else 'Ctrl-C ends this, '}nothing is lost at any moment")
        done = made.run(once=once)
        interrupted = once and stop.count > 0
    if json:
        print_json(done)
    else:
        copied = f"{counted(done.copied, 'file')} copied and verified, {done.copied_bytes / _GB:.2f} GB"
        say(f"{copied}; {done.removed} removed at the source")
    if interrupted:
        raise typer.Exit(ExitStatus.INTERRUPTED)
    if once and done.failed:
        raise typer.Exit(ExitStatus.SOME_FAILED)


@contextmanager
def _following(console: Console) -> Iterator[Callable[["Progress"], None]]:
    """Give a function that shows the progress: a line that changes on a terminal, a line now and then in a log."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield lambda progress: live.update(Text(_describe(progress)), refresh=True)
        return
    printed = [time.monotonic(), 0.0]

    def show(progress: "Progress") -> None:
        if time.monotonic() - printed[0] >= _LINE_EVERY_S and progress.copied_bytes != printed[1]:
            printed[:] = [time.monotonic(), progress.copied_bytes]
            console.print(f"{time.strftime('%H:%M:%S')}  {_describe(progress)}", markup=False, soft_wrap=True)

    yield show


def _describe(progress: "Progress") -> str:
    """Return a line about a transfer that is running."""
    parts = [f"{progress.copied} files copied, {progress.copied_bytes / _GB:.2f} GB"]
    parts += [f"{progress.bytes_per_s / _MB:.1f} MB/s"] if progress.bytes_per_s else []
    parts += [f"{progress.waiting} waiting ({progress.waiting_bytes / _GB:.2f} GB)"] if progress.waiting else []
    parts += [f"{progress.growing} being written"] if progress.growing else []
    parts += [f"{progress.failed} failed"] if progress.failed else []
    parts += [f"{progress.removed} removed at the source"] if progress.removed else []
    parts += [f"paused: {progress.note}"] if progress.state == "paused" else []
    return "; ".join(parts)


def _show_foreseen(plan: "TransferPlan", ledger: "Ledger", *, json: bool) -> None:
    from icestream.transfer.dry_run import foresee_transfer

    found = foresee_transfer(plan, ledger)
    if json:
        print_json(_plain(found))
        return
    console = output()
    console.print(
        f"would copy {counted(len(found.copied), 'file')}, {found.copied_bytes / _GB:.2f} GB, to {plan.target}", markup=False
    )
    for name in [one.name for one in found.copied][:_MOST_NAMED]:
        console.print(f"  {name}", markup=False, soft_wrap=True)
    if plan.remove_after_s is not None:
        console.print(
            f"would remove {counted(len(found.removed), 'file')}, {found.removed_bytes / _GB:.2f} GB, at {plan.source}",
            markup=False,
        )
        for name in [one.name for one in found.removed][:_MOST_NAMED]:
            console.print(f"  {name}", markup=False, soft_wrap=True)
    if found.growing:
        console.print(f"{counted(found.growing, 'file')} shorter than the header says, waited for")
    for name, reason in [*found.refused.items(), *found.troubles.items()][:_MOST_NAMED]:
        console.print(f"not transferred: {name}: {reason}", markup=False, soft_wrap=True)


def _plain(found: "Foreseen") -> dict[str, object]:
    return {
        "copied": [one.name for one in found.copied],
        "copied_bytes": found.copied_bytes,
        "removed": [one.name for one in found.removed],
        "removed_bytes": found.removed_bytes,
        "growing": found.growing,
        "refused": found.refused,
        "troubles": found.troubles,
    }


def transfers(
    session: Path | None = typer.Argument(None, help="Folder of the session; by default transfers that belong to no session."),
    state: list[str] = typer.Option(
        [], metavar="STATE", help="Only files in this state: copying, verified, removing, removed, failed or refused."
    ),
    name: str = typer.Option("", help="Only files with this text in their path."),
    limit: int = typer.Option(50, min=1, help="At most so many files of each transfer, what changed last first."),
    json: bool = JSON,
) -> None:
    """List what was copied, verified and removed, file by file, and what each transfer is doing.

    ```
    icestream transfers lysozyme
    icestream transfers lysozyme --state failed --state refused
    icestream transfers --json
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.flow.storage import open_session
    from icestream.transfer.ledger import FILE_STATES, account_ledger, session_ledger

    unknown = [one for one in state if one not in FILE_STATES]
    if unknown:
        raise SessionError(f"--state {unknown[0]}: must be {', '.join(FILE_STATES)}")
    ledger = (
        session_ledger(open_session(session))
        if session is not None
        else account_ledger(make_settings(cores=None, newest_first=False).state)
    )
    chosen = [one for one in FILE_STATES if not state or one in state]
    found = [(one, ledger.files(one.id, chosen, limit=limit, text=name)) for one in ledger.transfers()]
    if json:
        print_json([{"transfer": one, "counts": ledger.counts(one.id), "files": files} for one, files in found])
    elif not found:
        output().print(f"nothing was transferred yet ({ledger.path} is not there)", markup=False, soft_wrap=True)
    for one, files in [] if json else found:
        _show_transfer(ledger, one, files)


def _show_transfer(ledger: "Ledger", one: "TransferRow", files: "list[FileRow]") -> None:
    console = output()
    counts = ", ".join(f"{each.files} {each.state} ({each.size_bytes / _GB:.2f} GB)" for each in ledger.counts(one.id))
    console.print(f"{one.source} → {one.target}", markup=False, style="bold", soft_wrap=True)
    note = "" if one.note is None else f": {one.note}"
    console.print(f"{one.doing(time.time())}{note}; {counts or 'no files yet'}", markup=False, soft_wrap=True)
    table = make_table("file", "state", "MB", "copied and verified", "removed", "notes", right=("MB",))
    for row in files:
        moments = (_moment(row.verified_at), _moment(row.removed_at))
        notes = "; ".join(filter(None, (row.reason, None if row.target_name in (None, row.name) else f"as {row.target_name}")))
        table.add_row(escape(row.name), row.state, f"{row.size_bytes / _MB:.1f}", *moments, escape(notes))
    if files:
        console.print(table)


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
