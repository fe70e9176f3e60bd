"""What the sources that import files have in common: parameters, identity, and the loop."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from icestream.counting import counted
from icestream.flow import Arrival, Field, Foreseen, OtherKind, Params, Pulse, Second, SourceContext, Troubles, Watch
from icestream.flow.declaration import CallFailure
from icestream.io.raw_folder import RawFolder, Scan
from icestream.logs import log_event
from icestream.steps.movies.file_arrival import ReadRecord, Renames, check_on_record, make_arrival, ref_of
from icestream.steps.movies.folder_watch import FolderWatch, Found
from icestream.steps.movies.sidecar_watch import SidecarWatch

_LOG = logging.getLogger(__name__)

_OPERATIONAL = {"operational": True}


class FileSourceParams(Params):
    """Which files are taken, and when a file counts as complete."""

    root: str = Field("movies", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    pattern: str = Field("**/*", min_length=1, description="Which files: a glob relative to the root; **/ matches any depth")
    idle_s: Second = Field(
        43200.0,
        gt=0,
        description="Close the stream after this long without a new file (while the folder is readable)",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    max_files: int | None = Field(
        None, ge=1, description="Close the stream after this many files", json_schema_extra={**_OPERATIONAL}
    )
    stable_s: Second = Field(
        10.0,
        ge=0,
        description="Without a close event, a file is complete when it has not changed for this long",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    give_up_s: Second = Field(
        600.0,
        ge=0,
        description="A file that is shorter than its header declares counts as broken after this long without growth",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    sidecar_s: Second = Field(
        30.0,
        ge=0,
        description="Wait this long for the sidecar of a file if those before it had one; later ones are read when they come",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    rescan_s: Second = Field(
        5.0,
        gt=0,
        description="Scan the whole folder this often, in addition to events",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )


def watch_files(
    params: FileSourceParams,
    ctx: SourceContext,
    read: ReadRecord,
    *,
    suffixes: frozenset[str] | None,
    refuse_broken: bool = False,
    sidecars: bool = False,
) -> Watch:
    """Watch a folder and yield its files as they become complete.

    Parameters
    ----------
    read
        Makes the record of a complete file. It raises `OtherKind` for a good file of another kind: that is left out.
    suffixes
        Only files with these endings are looked at, possibly followed by one of a compression; all if unset.
    refuse_broken
        A broken file is not an item: it is listed among what cannot be taken, until a good one arrives.
    sidecars
        The record is read from sidecars, too: wait for them, and read again what comes late.
    """
    folder = ctx.path(f"{params.root}:.")
    renames = Renames(ctx, params.root, folder)
    beside = SidecarWatch(ctx, partial(ref_of, params.root, folder), params.sidecar_s if sidecars else 0.0, params.rescan_s)
    with FolderWatch(
        RawFolder(folder, params.pattern, suffixes),
        partial(check_on_record, ctx, params.root, folder),
        stable_s=params.stable_s,
        give_up_s=params.give_up_s,
        rescan_s=params.rescan_s,
        taken=beside.remembering(renames.taken),
    ) as watch:
        taking = _Taking(params, ctx, read, watch, renames, refuse_broken, beside)
        idle_s, looked_at = 0.0, time.monotonic()
        while not ctx.stopping():
            before = taking.count
            yield from taking.take_all(beside.release(watch.poll()))
            revised = taking.take_again() if sidecars else []
            yield from revised
            yield from taking.tell_troubles()
            if taking.is_full and not beside.pending:
                return f"{counted(params.max_files or 0, 'file')} arrived"
            now = time.monotonic()
            idle_s = 0.0 if taking.count > before or revised or watch.unreadable else idle_s + (now - looked_at)
            looked_at = now
            if idle_s >= params.idle_s:
                yield from taking.take_all(beside.release(watch.give_up(), closing=True))
                yield from taking.tell_troubles(at_the_end=True)
                return f"no new file for {params.idle_s:g} s"
            yield Pulse(taking.note)
            ctx.wait(0.05 if watch.candidates or taking.count > before else 0.1)
    return "stopping"


@dataclass
class _Taking:
    """What a source has taken of its folder, what it has not, and why."""

    params: FileSourceParams
    ctx: SourceContext
    read: ReadRecord
    watch: FolderWatch
    renames: Renames
    refuse_broken: bool
    sidecars: SidecarWatch
    count: int = 0
    _others: dict[str, str] = field(default_factory=dict)
    """Good files of another kind, by their references."""
    _broken: dict[str, str] = field(default_factory=dict)
    _told: Mapping[str, str] | None = None
    _logged: set[str] = field(default_factory=set)

    @property
    def is_full(self) -> bool:
        """As many files have arrived as were wanted."""
        return self.params.max_files is not None and self.count + self.renames.before >= self.params.max_files

    def take_all(self, found: list[Found]) -> Iterator[Arrival]:
        """Yield what arrives, until enough has."""
        for one in found:
            if self.is_full:
                return
            arrival = self._take(one)
            if arrival is not None:
                yield arrival
                self.renames.note(one)
                self.count += 1

    def take_again(self) -> list[Arrival]:
        """Return what was taken and whose sidecars came or changed since, read again."""
        found = [(one, self.sidecars.stamp(one.path)) for one in self.sidecars.changed()]
        read = [(one, beside, self._make(one)) for one, beside in found]
        answers = [(one, beside, answer) for one, beside, answer in read if isinstance(answer, Arrival) and answer.error is None]
        return [self.sidecars.complete(answer, one, beside) for one, beside, answer in answers]

    def _make(self, found: Found) -> Arrival | OtherKind | CallFailure:
        return make_arrival(self.ctx, self._ref(found.path), found, self.read, folder=self.watch.wanted.root)

    def _take(self, found: Found) -> Arrival | None:
        ref, beside = self._ref(found.path), self.sidecars.stamp(found.path)
        answer = self._make(found)
        if isinstance(answer, OtherKind):
            self._others[ref] = answer.reason
        elif isinstance(answer, CallFailure):
            self.watch.take_back(found, answer.message)
        elif self.refuse_broken and answer.error is not None:
            self._broken[ref] = answer.error.removeprefix(f"{ref.partition(':')[2]}: ")
        else:
            self._others.pop(ref, None)
            self._broken.clear()
            return self.sidecars.complete(answer, found, beside)
        return None

    def _ref(self, path: Path) -> str:
        return ref_of(self.params.root, self.watch.wanted.root, path)

    def tell_troubles(self, *, at_the_end: bool = False) -> Iterator[Troubles]:
        """Yield what cannot be taken, if that is not what was told last."""
        reasons = {self._ref(path): reason for path, reason in self.watch.troubles.items()} | self._broken
        took_any = self.count > 0 or self.renames.before > 0 or self.ctx.took_any()
        if at_the_end and not took_any:
            reasons |= self._nothing()
        if self.watch.unreadable and took_any:  # before anything came, a folder may be missing
            reasons[f"{self.params.root}:."] = f"the folder is not there any more: {self.watch.unreadable}"
        if reasons != self._told:
            self._told = reasons
            yield Troubles(reasons)
        for ref, reason in {**self._left_out(), **self._others}.items():
            if ref not in self._logged:
                self._logged.add(ref)
                log_event(_LOG, logging.INFO, "left out", file=ref, reason=reason)

    def _left_out(self) -> dict[str, str]:
        return {self._ref(path): reason for path, reason in self.watch.seen.left_out.items()}

    def _nothing(self) -> dict[str, str]:
        """Return what is wrong where a stream ends to which nothing has arrived."""
        subject = f"{self.params.root}:{self.params.pattern}"
        single = self.watch.wanted.single_file
        if single is not None:
            return {} if self.watch.troubles or self._broken else {subject: "never arrived"}
        text = say_nothing_fits(self.watch.seen, self.params, self._others, self._ref)
        return {} if text is None else {subject: text}

    @property
    def note(self) -> str:
        """What the source is doing, and what it has not taken."""
        if self.watch.unreadable:
            return self.watch.unreadable
        refused = self.watch.troubles
        growing = len(self.watch.candidates.keys() - refused.keys())
        parts = [f"{counted(growing, 'file', 'is/are')} being written"]
        troubles = {self._ref(path): reason for path, reason in refused.items()} | self._broken
        parts += [_some("cannot be taken", troubles)] if troubles else []
        nothing = None if self.count or self.renames.before else self._nothing_fits()
        parts += [nothing] if nothing else [_some("left out", self._others)] if self._others else []
        parts += [self.watch.no_events] if self.watch.no_events else []
        left_out = self._left_out()
        parts += [_some("not followed", left_out)] if left_out else []
        return "; ".join(parts)

    def _nothing_fits(self) -> str | None:
        return say_nothing_fits(self.watch.seen, self.params, self._others, self._ref)


def _some(what: str, reasons: Mapping[str, str]) -> str:
    """Return how many things were met with what, and the first of them."""
    first = min(reasons)
    return f"{len(reasons)} {what}: {first}: {reasons[first]}" + (" …" if len(reasons) > 1 else "")


def say_nothing_fits(scan: Scan, params: FileSourceParams, others: Mapping[str, str], ref: Callable[[Path], str]) -> str | None:
    """Return a sentence where files are there and none is what is wanted; None while nothing is there, or something fits."""
    if others:
        return _some("files are there, and none is what is wanted", others)
    if not scan.others or scan.example is None or scan.files:
        return None
    fits = "it has none of the formats that can be read" if params.pattern in ("**/*", "*") else f"fits {params.pattern}"
    number = "files" if scan.others == 1 else f"{scan.others} files"
    return f"none of the {number} that are there {fits}, such as {ref(scan.example)}"


def foresee_files(params: FileSourceParams, folder: Path, *, suffixes: frozenset[str] | None) -> Iterator[Foreseen]:
    """Yield what is to be said of a folder before it is watched: what cannot be read, and that nothing in it fits."""
    scan = RawFolder(folder, params.pattern, suffixes).scan()
    for path, error in scan.troubles.items():
        if not isinstance(error, FileNotFoundError):  # it may appear later
            yield Foreseen(f"{path} ({params.root}): cannot be read: {error.strerror}")
    nothing = say_nothing_fits(scan, params, {}, partial(ref_of, params.root, folder))
    if nothing is not None:
        yield Foreseen(f"{folder} ({params.root}): {nothing}")
