"""``icestream storage``: what a session holds on the disk, and freeing it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from icestream.account import user_name
from icestream.cli.asking import DRY_RUN, JSON, REASON, YES, ask_for, confirm
from icestream.cli.console import make_table, output, print_json
from icestream.cli.planned import span
from icestream.counting import counted
from icestream.errors import ExitStatus, IcestreamError, SessionError

if TYPE_CHECKING:
    from icestream.facility.deletion_requests import RawDeletion
    from icestream.facility.retention import Applied
    from icestream.flow.commands.requests import Command, Remove
    from icestream.flow.storage import Session
    from icestream.observe.storage import Holding
    from icestream.settings import Settings

_KIND = "KIND"
_SHOWN = 10
Asked = TypeVar("Asked", bound="Command")


def storage(
    session: Path = typer.Argument(help="Folder of the session; with --apply also a folder of sessions."),
    remove: list[str] = typer.Option(
        [], metavar=_KIND, help="Remove files of this kind, or of `all`, that can be computed again."
    ),
    restore: list[str] = typer.Option([], metavar=_KIND, help="Put removed files of this kind, or of `all`, back."),
    step: list[str] = typer.Option([], help="Only files that this step wrote."),
    rejected: bool = typer.Option(False, "--rejected", help="Only files of exposures that were rejected."),
    older_than: float = typer.Option(0.0, min=0, metavar="HOURS", help="Only files that are so old."),
    even_if_lost: bool = typer.Option(False, "--even-if-lost", help="Also remove what cannot be computed again."),
    undo_hours: float = typer.Option(72.0, min=0, help="How long it can be undone."),
    undo: int | None = typer.Option(None, metavar="NUMBER", help="Undo a removal: its files are put back from the trash."),
    empty: bool = typer.Option(False, "--empty", help="Delete for good what can be undone no longer."),
    delete_now: int | None = typer.Option(None, metavar="NUMBER", help="Delete one removal for good, before its time."),
    apply: bool = typer.Option(False, "--apply", help="Carry out the rules, such as from cron, and delete what is due."),
    verify: Path | None = typer.Option(None, metavar="FOLDER", help="Compare the raw data with their copy in this folder."),
    root: str | None = typer.Option(None, help="With --verify: the root of raw data, if the session has several."),
    delete_raw: str | None = typer.Option(None, metavar="NAME", help="Delete copied raw data; NAME is the session's."),
    keep_raw: int | None = typer.Option(None, metavar="NUMBER", help="Withdraw the deletion of raw data."),
    reason: str = REASON,
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    json: bool = JSON,
) -> None:
    """Show what a session holds by kind, and free the disk of what can be computed again.

    Kinds are micrographs, particles, thumbnails and metadata. Records stay when files are removed: all numbers are still
    shown, and a step that needs such a file has it computed again first. Removed files wait in the trash of the session as long
    as that can be undone.

    ```
    icestream storage lysozyme
    icestream storage lysozyme --remove micrographs --rejected --dry-run
    icestream storage lysozyme --undo 1
    icestream storage /sessions --apply --dry-run
    icestream storage lysozyme --verify /archive/grid3
    ```
    """
    from icestream.cli.run import make_settings
    from icestream.flow.commands.requests import BringBack, EmptyTrash, Remove, RestoreFiles
    from icestream.flow.storage import open_session

    opened, settings = None if apply else open_session(session), make_settings(cores=None, newest_first=False)
    if opened is None:
        _apply(session, settings, dry_run=dry_run, json=json)
        return
    limits = {"rejected": rejected, "older_than_hours": older_than, "even_if_lost": even_if_lost, "undo_hours": undo_hours}
    if remove:
        asked = _checked(Remove, kinds=_kinds(remove), steps=step, reason=reason, **limits)
        _remove(opened, asked, dry_run=dry_run, yes=yes, json=json)
    elif restore:
        ask_for(session, _checked(RestoreFiles, kinds=_kinds(restore), steps=step), json=json)
    elif undo is not None:
        ask_for(session, BringBack(removal=undo), json=json)
    elif empty or delete_now is not None:
        confirm("Delete for good what was removed?", yes=yes)
        ask_for(session, EmptyTrash(removal=delete_now), json=json)
    elif verify is not None:
        _verify(opened, verify, root, json=json)
    elif delete_raw is not None:
        _delete_raw(opened, settings, delete_raw, rejected=rejected, undo_hours=undo_hours, reason=reason, dry_run=dry_run)
    elif keep_raw is not None:
        _keep_raw(opened, settings, keep_raw)
    else:
        _show(opened, settings, json=json)


def _kinds(given: list[str]) -> list[str]:
    return [] if "all" in given else given


def _checked(command: "type[Asked]", **values: object) -> "Asked":
    """Return a command, or say which value is not allowed."""
    from pydantic import ValidationError

    try:
        return command.model_validate(values)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, issue['loc']))}: {issue['msg']} (got {issue['input']!r})" for issue in error.errors()]
        raise SessionError("; ".join(told)) from None


def _show(session: "Session", settings: "Settings", *, json: bool) -> None:
    from icestream.facility.raw_deletion import read_deletions
    from icestream.observe.file_sizes import FileSizes
    from icestream.observe.storage import read_holding

    found, raw = read_holding(session, FileSizes(session)), read_deletions(session, state=settings.state)
    if json:
        print_json({**asdict(found), "bytes": found.bytes, "raw_deletions": raw})
        return
    columns = ("files", "size", "can be computed again", "of rejected exposures")
    table = make_table("kind", *columns, right=columns)
    for one in found.kinds:
        table.add_row(one.kind, str(one.files), _size(one.bytes), _size(one.again_bytes), _size(one.rejected_bytes))
    output().print(table)
    numbers = ("files", "size", "of old revisions")
    table = make_table("step", "kind", *numbers, "computed again", right=numbers)
    for line in found.steps:
        again = "yes" if line.again else "no"
        table.add_row(line.step, line.kind, str(line.files), _size(line.bytes), _size(line.old_bytes), again)
    output().print(table)
    _print_removals(found)
    for deletion in raw:
        _print_deletion(deletion)


def _print_removals(found: "Holding") -> None:
    for one in found.removals:
        until = f", can be undone until {_time(one.goes_at)}" if one.may_be_undone else ""
        about = f"{counted(one.n_files, 'file')}, {_size(one.n_bytes)}, removed by {one.author} at {_time(one.at)}"
        output().print(f"no. {one.id}: {about}: {one.state}{until}", markup=False, soft_wrap=True)
    growth = "" if found.bytes_per_hour is None else f", growing by {_size(int(found.bytes_per_hour))} an hour"
    trash = f", {_size(found.trash_bytes)} of it in the trash" if found.trash_bytes else ""
    output().print(f"{_size(found.bytes)} in total{trash}{growth}; {_size(found.free_bytes)} free", markup=False, soft_wrap=True)


def _print_deletion(one: "RawDeletion") -> None:
    when = f" after {_time(one.goes_at)}" if one.state == "waiting" else ""
    about = f"{counted(one.n_files, 'raw file')}, {_size(one.n_bytes)}, asked by {one.author} at {_time(one.at)}"
    note = f"; {one.note}" if one.note else ""
    output().print(f"deletion {one.id} of raw data: {about}: {one.state}{when}{note}", markup=False, soft_wrap=True)


def _remove(session: "Session", asked: "Remove", *, dry_run: bool, yes: bool, json: bool) -> None:
    from icestream.flow.commands.removing import plan_removal

    if dry_run:
        found = plan_removal(session, asked)
        if json:
            print_json({"steps": found.by_step(), "bytes": found.n_bytes, "seconds": found.seconds, "kept": found.kept})
            return
        columns = ("files", "size")
        table = make_table("step", "kind", *columns, right=columns)
        for one in found.by_step():
            table.add_row(one.step, one.kind, str(one.files), _size(one.bytes))
        output().print(table)
        _print_kept(found.kept)
        again = f"; about {span(found.seconds) or '0 s'} of one worker to compute again" if found.files else ""
        output().print(f"{_size(found.n_bytes)} in total{again}", markup=False, soft_wrap=True)
        return
    confirm("Remove files that can be computed again?", yes=yes)
    ask_for(session.folder, asked, json=json)


def _print_kept(kept: "Mapping[str, int]") -> None:
    for reason, count in kept.items():
        output().print(f"{counted(count, 'file', 'stays/stay')}: {reason}", markup=False, soft_wrap=True)


def _apply(folder: Path, settings: "Settings", *, dry_run: bool, json: bool) -> None:
    from icestream.facility.observing import sessions_in
    from icestream.facility.raw_deletion import carry_out_due
    from icestream.facility.retention import apply_rules, empty_due_trash
    from icestream.flow.storage import open_session

    if not folder.is_dir():
        raise SessionError(f"{folder}: is no folder; give a session, or a folder that has sessions in it")
    done: list[Applied] = []
    deleted: list[RawDeletion] = []
    troubles: list[str] = []
    for place in sessions_in(folder.absolute()):
        with _noting(place, troubles):
            session = open_session(place)
            with _noting(place, troubles):  # a rule that is not allowed stops neither the trash nor raw data
                done += apply_rules(session, settings, author=user_name(), dry_run=dry_run)
            with _noting(place, troubles):
                done += [] if dry_run else empty_due_trash(session, settings, author=user_name())
            with _noting(place, troubles):
                deleted += [] if dry_run else carry_out_due(session, settings)
    if json:
        print_json([_plain(one) for one in done])
        done, deleted = [], []
    for deletion in deleted:
        _print_deletion(deletion)
    for one in done:
        said = one.answer or (one.found.sentence + " would be removed" if one.found and one.found.files else "nothing to remove")
        output().print(f"{one.session}: {one.rule or 'trash'}: {said}", markup=False, soft_wrap=True)
    if troubles:
        raise SessionError("; ".join(troubles))


@contextmanager
def _noting(place: Path, troubles: list[str]) -> Iterator[None]:
    try:
        yield
    except (IcestreamError, OSError) as error:
        troubles.append(f"{place.name}: {error}")


def _plain(one: "Applied") -> dict[str, object]:
    files, size = (0, 0) if one.found is None else (len(one.found.files), one.found.n_bytes)
    return {"session": one.session, "rule": one.rule, "files": files, "bytes": size, "answer": one.answer}


def _verify(session: "Session", folder: Path, root: str | None, *, json: bool) -> None:
    from icestream.facility.raw_copies import CopyLedger

    names = [root] if root is not None else list(session.document.roots)
    if len(names) != 1:
        raise SessionError(f"--root: the session has {', '.join(names) or 'no roots'}; name the one that was copied to {folder}")
    found = CopyLedger(session).verify(names[0], folder)
    if json:
        print_json({"verified": found.verified, "known": found.known, "refused": found.refused})
    else:
        about = f"{found.verified} raw files are equal to their copies, {found.known} were before"
        output().print(f"{about}, {len(found.refused)} have no verified copy", markup=False, soft_wrap=True)
        for ref, why in list(found.refused.items())[:_SHOWN]:
            output().print(f"  {ref}: {why}", markup=False, soft_wrap=True)
    if found.refused:
        raise typer.Exit(ExitStatus.SOME_FAILED)


def _delete_raw(
    session: "Session", settings: "Settings", name: str, *, rejected: bool, undo_hours: float, reason: str, dry_run: bool
) -> None:
    from icestream.facility.raw_deletion import ask_for_deletion, plan_raw_deletion

    if dry_run:
        found = plan_raw_deletion(session, state=settings.state, rejected=rejected)
        _print_kept(found.kept)
        if found.same_disk:
            output().print(f"{found.same_disk} copies are on the same disk as the raw data, and are lost with it")
        output().print(f"{len(found.files)} raw files, {_size(found.n_bytes)}, could be deleted", markup=False, soft_wrap=True)
        return
    asked = ask_for_deletion(
        session,
        settings,
        typed_name=name,
        author=user_name(),
        undo_hours=undo_hours,
        rejected=rejected,
        reason=reason,
    )
    _print_deletion(asked)


def _keep_raw(session: "Session", settings: "Settings", number: int) -> None:
    from icestream.facility.raw_deletion import withdraw_deletion

    done = withdraw_deletion(session, settings, number, author=user_name())
    output().print(f"deletion {number} of raw data is withdrawn: {done.note or 'nothing was deleted'}", markup=False)


def _size(size: int) -> str:
    """Write bytes in the unit that suits them."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
