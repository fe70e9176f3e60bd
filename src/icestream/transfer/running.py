"""One transfer as it runs: look, copy, verify, remove what is due; pause while a link is broken, and go on.

A turn never takes much longer than `TURN_S`, so that new files and removals get their part whatever is waiting. A file that
fails is retried after a pause that grows, and stops no other.
"""

import errno
import fnmatch
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from icestream.errors import SessionBusy, SessionError
from icestream.transfer.anchored import AnchoredFolder, FileRefused, FileStamp, parts_of
from icestream.transfer.copies import remove_source
from icestream.transfer.copying import CopyDamaged, FileCopy, Published, SourceChanged, sweep_unfinished
from icestream.transfer.ledger import FileRow, FileState, Ledger, TransferState
from icestream.transfer.looking import Look, ReadyFile, SourceFolder
from icestream.transfer.plan import Progress, Stopping, TransferPlan
from icestream.transfer.target import LinkBroken, TargetFolder
from icestream.transfer.throttle import Interrupted, Throttle

TURN_S = 60.0
TELL_EVERY_S, NOTE_EVERY_S = 2.0, 10.0
REMOVE_EVERY_S = 30.0
ABANDONED_S = 7 * 24 * 3600.0
"""An unfinished copy that nobody has gone on with for so long is removed."""
FIRST_RETRY_S, LONGEST_RETRY_S = 30.0, 3600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
_REST = 4.0
"""After a look this many times its duration passes before the next: looking takes at most a fifth of the time."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LINK = (
    *(errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ENODEV, errno.ENXIO, errno.ECONNABORTED, errno.ECONNRESET, errno.EPIPE),
)
NO_STAMP = FileStamp(0, 0)
"""Stands in the ledger for what is refused whatever its size and time are."""
_IN_A_ROW = 3
"""So many files in a row that cannot be read or written are no accident of files: the link is broken."""


@dataclass
class Transfer:
    """One transfer; ``say`` gets a sentence about what people should know, ``show`` the progress."""

    plan: TransferPlan
    ledger: Ledger
    stop: Stopping
    say: Callable[[str], None] = lambda _text: None
    show: Callable[[Progress], None] = lambda _progress: None
    clock: Callable[[], float] = time.monotonic
    progress: Progress = field(default_factory=Progress, init=False)

    def __post_init__(self) -> None:
        self.plan.check()
        row = self.ledger.open_transfer(self.plan.source.resolve(), self.plan.target.resolve())
        self.id, self._known_marker = row.id, row.marker
        self._source, self._target = AnchoredFolder(Path(row.source)), AnchoredFolder(Path(row.target))
        fallback = self.ledger.path.with_name(f"{self.ledger.path.name}.lock-{row.id}")
        self._guard = TargetFolder(Path(row.target), row.marker, self.plan.keep_free_bytes, fallback, Path(row.source))
        self._looking = SourceFolder(
            Path(row.source), self.plan.pattern, self.plan.stable_s, self.plan.give_up_s, self._is_settled, self.clock
        )
        self._throttle = Throttle(self.plan.bytes_per_s, self.stop.wait, self._is_asked_to_stop, self.clock)
        self._known: dict[tuple[str, FileStamp], FileState] = {}
        self._resting: dict[tuple[str, FileStamp], float] = {}
        """Files that failed, and when they are tried again, in seconds since 1970."""
        self._reappeared: list[tuple[str, FileStamp]] = []
        self._kept: set[int] = set()
        self._swept: set[tuple[str, ...]] = set()
        self._said: dict[str, str] = {}
        self._in_a_row = 0
        self._look_s = 0.0
        self._told_at_s = self._removed_at_s = float("-inf")
        self._measured = (self.clock(), 0)
        self._noted: tuple[tuple[object, ...], float] = ((), float("-inf"))

    def run(self, *, once: bool = False) -> Progress:
        """Transfer until somebody stops it; ``once`` until nothing is left to do at this time.

        Raises
        ------
        SessionBusy
            Another transfer writes into the target.
        SessionError
            With ``once``: the source, the target or the ledger cannot be used.
        """
        pauses = 0
        try:
            while not self.stop.count:
                try:
                    more = self.turn(once=once)
                except Interrupted:
                    break
                except SessionBusy:
                    raise
                except (SessionError, OSError) as broken:
                    if once:
                        raise
                    self._tell("paused", str(broken))
                    self.stop.wait(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(pauses, 10)))
                    pauses += 1
                    continue
                pauses = 0
                if once and not more:
                    break
                self._rest(once=once)
        finally:
            self._end()
        return self.progress

    def turn(self, *, once: bool = False) -> bool:
        """Do what there is to do, for about a minute; tell whether more is left that will not take long to come.

        ``once`` looks for what is to be removed in every turn.

        Raises
        ------
        LinkBroken
            The source or the target cannot be used now.
        """
        self._check_target()
        began_s = self.clock()
        look = self._looking.look()
        self._look_s = self.clock() - began_s
        if look.unreadable is not None:
            raise LinkBroken(f"{self._source.root}: cannot be read: {look.unreadable}")
        self._note(look)
        self._tell("running")
        left = self._copy_all(look.ready, until_s=began_s + TURN_S)
        if once:
            self._removed_at_s = float("-inf")
        self._remove_due(until_s=began_s + 2 * TURN_S)
        self._tell("running")
        return left or look.undecided > 0

    def _check_target(self) -> None:
        self._guard.check()
        if self._guard.marker != self._known_marker and self._guard.marker is not None:
            self.ledger.set_marker(self.id, self._guard.marker)
            self._known_marker = self._guard.marker
        if not self._known:
            for row in self.ledger.files(self.id):
                if row.state == "refused" and row.stamp != NO_STAMP:  # it was gone, and may come again
                    continue
                self._known[row.name, row.stamp] = row.state
                if row.state == "failed" and row.retry_at is not None:
                    self._resting[row.name, row.stamp] = row.retry_at

    def _is_settled(self, name: str, stamp: FileStamp) -> bool:
        state = self._known.get((name, stamp))
        if state == "removed":  # it is there again: its disk was not mounted when it was looked for
            self._reappeared.append((name, stamp))
        if state == "failed":
            return time.time() < self._resting.get((name, stamp), 0.0)
        return state is not None and state != "copying"

    def _note(self, look: Look) -> None:
        """Remember what a look found beside the files that are ready."""
        for name, stamp in self._reappeared:
            self._put(name, stamp, "verified", reason="it is at the source again", removed_at=None)
        self._reappeared.clear()
        for name, reason in look.refused.items():
            self._refuse(name, NO_STAMP, reason)
        for name, reason in look.troubles.items():
            self._say_once(name, f"{name}: cannot be read: {reason}")
        ready = {(one.name, one.stamp) for one in look.ready}
        for (name, stamp), retry_at in list(self._resting.items()):
            if time.time() >= retry_at and (name, stamp) not in ready and self._is_gone(name):
                del self._resting[name, stamp]
                self._put(name, stamp, "refused", reason="it failed, and is not at the source any more")
                del self._known[name, stamp]  # it may come again: its disk may not be mounted
        self.progress.growing = look.growing
        self.progress.waiting = len(look.ready)
        self.progress.waiting_bytes = sum(one.stamp.size_bytes for one in look.ready)

    def _copy_all(self, ready: Sequence[ReadyFile], *, until_s: float) -> bool:
        """Copy files until a moment; tell whether some are left."""
        for one in ready:
            if self.clock() >= until_s:
                return True
            self._copy(one)
            self.progress.waiting -= 1
            self.progress.waiting_bytes -= one.stamp.size_bytes
        return False

    def _copy(self, one: ReadyFile) -> None:
        self._guard.check_space(one.stamp.size_bytes)
        self._sweep(parts_of(one.name)[:-1])
        earlier = [row.target_name for row in self.ledger.versions(self.id, one.name) if row.target_name is not None]
        copy = FileCopy(
            self._source,
            self._target,
            one.name,
            one.stamp,
            self._throttle,
            self.ledger.chunks(self.id, one.name, one.stamp),
            lambda chunks: self._put(one.name, one.stamp, "copying", chunks=json.dumps(chunks)),
            earlier,
            self.plan.chunk_bytes,
        )
        try:
            done = copy.run()
        except SourceChanged:  # it was not complete, and is seen again with another size or time
            return
        except (CopyDamaged, FileRefused) as reason:  # refused by what is at the target: a person may mend that
            self._fail(one.name, one.stamp, str(reason))
        except OSError as error:
            self._hear(error)
            if not (isinstance(error, FileNotFoundError) and self._is_gone(one.name)):
                self._fail(one.name, one.stamp, error.strerror or str(error))
        else:
            self._in_a_row = 0
            self._keep(one, done)

    def _is_gone(self, name: str) -> bool:
        try:
            return self._source.status(name) is None
        except (FileRefused, OSError):
            return False

    def _sweep(self, folder: tuple[str, ...]) -> None:
        """Remove what is left of copies that were given up in a folder, once in a run."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        with suppress(FileRefused, OSError):  # copying into it fails, too, and is accounted for
            sweep_unfinished(self._target, folder, older_than_s=ABANDONED_S)

    def _keep(self, one: ReadyFile, done: Published) -> None:
        now, reason = time.time(), "; ".join(filter(None, (done.note, one.note))) or None
        for stamp in self.ledger.forget_unfinished(self.id, one.name, but=one.stamp):
            self._resting.pop((one.name, stamp), None)
        self._resting.pop((one.name, one.stamp), None)
        self._put(
            one.name,
            one.stamp,
            "verified",
            target_name=done.target_name,
            target_modified_ns=done.target_modified_ns,
            digest=done.digest,
            chunks=None,
            copied_at=now,
            verified_at=now,
            retry_at=None,
            reason=reason,
        )
        self.progress.copied += 1
        self.progress.copied_bytes += one.stamp.size_bytes
        if reason is not None:
            self._say_once(one.name, f"{one.name}: {reason}")

    def _remove_due(self, *, until_s: float) -> None:
        """Remove at the source what was verified long enough ago, after its copy was read again."""
        if self.plan.remove_after_s is None or self.clock() - self._removed_at_s < REMOVE_EVERY_S:
            return
        self._removed_at_s = self.clock()
        for row in self.ledger.verified_until(self.id, time.time() - self.plan.remove_after_s):
            if self.clock() >= until_s:
                return
            if row.id not in self._kept and fnmatch.fnmatch(row.name, self.plan.remove_pattern):
                self._remove(row)

    def _remove(self, row: FileRow) -> None:
        was_removing = row.state == "removing"
        self._put(row.name, row.stamp, "removing")
        try:
            ours = remove_source(self._source, self._target, row, Throttle(stopping=self._is_asked_to_stop))
        except SourceChanged as change:
            self._put(row.name, row.stamp, "verified", reason=str(change))
            self._kept.add(row.id)
        except FileRefused as refusal:  # the copy is not what it was
            self._fail(row.name, row.stamp, str(refusal))
        except OSError as error:
            self._put(row.name, row.stamp, "verified")
            self._hear(error)
            self._say_once(row.name, f"{row.name}: cannot be removed at the source: {error.strerror or error}")
            self._kept.add(row.id)
        else:
            reason = None if ours or was_removing else "it was not at the source any more"
            self._put(row.name, row.stamp, "removed", removed_at=time.time(), reason=reason)
            self.progress.removed += 1

    def _hear(self, error: OSError) -> None:
        """Decide whether an error is of the link rather than of one file.

        Raises
        ------
        LinkBroken
            It is.
        """
        where = f"{self._target.root}" if error.errno in _DISK else f"{self._source.root} or {self._target.root}"
        told = f"{where}: {error.strerror or error}"
        self._in_a_row += 1
        if error.errno in (*_DISK, *_LINK) or (error.errno == errno.EIO and self._in_a_row >= _IN_A_ROW):
            self._in_a_row = 0
            raise LinkBroken(told)
        self._guard.check()
        try:
            with os.scandir(self._source.root) as entries:
                next(entries, None)
        except OSError as trouble:
            raise LinkBroken(f"{self._source.root}: cannot be read: {trouble.strerror}") from trouble

    def _refuse(self, name: str, stamp: FileStamp, reason: str) -> None:
        if self._known.get((name, stamp)) != "refused":
            self._put(name, stamp, "refused", reason=reason)
            self._say_once(name, f"{name}: not transferred: {reason}")

    def _fail(self, name: str, stamp: FileStamp, reason: str) -> None:
        attempts = next((row.attempts for row in self.ledger.versions(self.id, name) if row.stamp == stamp), 0)
        retry_at = time.time() + min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempts, 10))
        self._put(name, stamp, "failed", reason=reason, attempts=attempts + 1, retry_at=retry_at)
        self._resting[name, stamp] = retry_at
        self._say_once(name, f"{name}: failed: {reason}")

    def _put(self, name: str, stamp: FileStamp, state: FileState, **values: object) -> None:
        self.ledger.put(self.id, name, stamp, state, **values)
        self._known[name, stamp] = state

    def _say_once(self, subject: str, text: str) -> None:
        if self._said.get(subject) != text:
            self._said[subject] = text
            self.say(text)

    def _is_asked_to_stop(self) -> bool:
        if self.clock() - self._told_at_s >= TELL_EVERY_S:
            self._tell("running")
        return self.stop.count > 0

    def _rest(self, *, once: bool) -> None:
        """Wait until it is time for another look."""
        wanted_s = 0.0 if self.progress.waiting else self.plan.look_every_s
        if once:
            wanted_s = min(wanted_s, max(0.02, self.plan.stable_s / 2))
        self.stop.wait(max(wanted_s, min(TURN_S, _REST * self._look_s)))

    def _tell(self, state: TransferState, note: str | None = None) -> None:
        """Show what the transfer is doing, and note it where something has changed, or now and then."""
        changed = (state, note) != (self.progress.state, self.progress.note)
        if changed and state == "paused":
            self.say(f"paused: {note}")
        elif changed and (self.progress.state, state) == ("paused", "running"):
            self.say("goes on")
        self._measure()
        self.progress.state, self.progress.note, self.progress.failed = state, note, len(self._resting)
        self.show(self.progress)
        self._told_at_s = self.clock()
        counted = (state, note, self.progress.waiting, self.progress.growing)
        if counted == self._noted[0] and self.clock() - self._noted[1] < NOTE_EVERY_S:
            return
        self._noted = (counted, self.clock())
        with suppress(SessionError):  # while the disk of the ledger is away, nothing can be told there
            self.ledger.tell(
                self.id,
                state,
                note,
                waiting=(self.progress.waiting, self.progress.waiting_bytes),
                growing=self.progress.growing,
                bytes_per_s=self.progress.bytes_per_s,
                remove_after_s=self.plan.remove_after_s,
            )

    def _measure(self) -> None:
        (at_s, passed), now_s = self._measured, self.clock()
        if now_s - at_s >= TELL_EVERY_S:
            self.progress.bytes_per_s = (self._throttle.passed_bytes - passed) / (now_s - at_s)
            self._measured = (now_s, self._throttle.passed_bytes)

    def _end(self) -> None:
        self._guard.release()
        self._tell("stopped")
