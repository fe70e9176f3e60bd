"""What a facility's watch decides: pure functions from what is known of acquisition folders to what is to be done."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ALERT_AFTER = 3
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0
LONG_RUN_S = 600.0
"""A runner that fell after so long starts the count of falls again."""


class Phase(StrEnum):
    """Where an acquisition folder stands."""

    LEFT_OUT = "left out"  # a link to what is found anyway, or a name that cannot be printed
    IGNORED = "ignored"  # it was there before the watch began
    EMPTY = "no data yet"
    INCOMPLETE = "incomplete"  # values are missing
    READY = "ready"  # has a session, waits for a place
    RUNNING = "running"
    ENDED = "ended"  # every stream has closed
    STOPPED = "stopped"  # by a person; left alone
    FALLEN = "fallen"  # the runner died; tried again after a pause


class Folder(BaseModel):
    """One acquisition folder; what is remembered of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Phase
    since: float = Field(description="When it was first seen, in seconds since 1970")
    stands_since: float | None = Field(None, description="When it entered its present phase; unset: when it was first seen")
    session: str | None = Field(None, description="Folder of its session; chosen before the session is made")
    problems: list[str] = Field(default_factory=list, description="Why there is no session yet")
    pid: int | None = None
    pid_started: float | None = None
    falls: int = Field(0, ge=0, description="How often its runner died in a row")
    tried: list[str] = Field(default_factory=list, description="Files that existed at its last run and were not taken")
    note: str | None = None
    template: str | None = Field(None, description="Template that a person chose for it")
    left_alone: bool = Field(False, description="A person wants no session of it")

    @property
    def alert(self) -> bool:
        """Tell whether a person should look at it."""
        return self.falls >= ALERT_AFTER


class Wish(BaseModel):
    """What a person asks of a watch: to take a folder, with a template of their choice, to leave it alone, or to try it again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    what: Literal["take", "ignore", "retry"]
    author: str
    template: str | None = None


_MAY: dict[str, tuple[Phase, ...]] = {
    "take": (Phase.IGNORED, Phase.EMPTY, Phase.INCOMPLETE),
    "ignore": (Phase.EMPTY, Phase.INCOMPLETE),
    "retry": (Phase.FALLEN, Phase.STOPPED),
}


def possible_wishes(folder: Folder) -> list[str]:
    """Return what may be asked of a folder as it stands."""
    return [what for what, phases in _MAY.items() if folder.phase in phases]


def grant(folder: Folder, wish: Wish) -> Folder:
    """Return a folder after what a person asked; one that does not stand so that it can be done stays as it is."""
    if wish.what not in possible_wishes(folder):
        return folder
    if wish.what == "retry":
        return wait_for_place(folder, f"as {wish.author} asked").model_copy(update={"falls": 0})
    if wish.what == "ignore":
        told = f"left alone, as {wish.author} asked"
        return folder.model_copy(update={"phase": Phase.IGNORED, "problems": [], "note": told, "left_alone": True})
    told = f"taken, as {wish.author} asked"
    chosen = {"template": wish.template, "left_alone": False}
    return folder.model_copy(update={"phase": Phase.EMPTY, "problems": [], "note": told, **chosen})


class WatchState(BaseModel):
    """What the watch of one root remembers; written before anything is done that must not be done twice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(1, ge=1, le=1)
    root: str
    pattern: str
    looked: bool = Field(False, description="The folders that existed at the beginning are known")
    folders: dict[str, Folder] = Field(default_factory=dict)

    def put(self, name: str, folder: Folder, *, now: float | None = None) -> "WatchState":
        """Return the state with one folder as it is; with ``now``, one that stands otherwise than before stands so since then."""
        known = self.folders.get(name)
        if now is not None and known is not None and known.phase is not folder.phase:
            folder = folder.model_copy(update={"stands_since": now})
        return self.model_copy(update={"folders": {**self.folders, name: folder}})


def admit(
    state: WatchState, seen: Iterable[str], *, take_existing: bool, now: float, left_out: Mapping[str, str] = MappingProxyType({})
) -> WatchState:
    """Return the state with the folders that are there; those of the first look are ignored unless they are to be taken.

    Those that are ``left_out`` are listed with the reason.
    """
    folders = dict(state.folders)
    phase = Phase.EMPTY if state.looked or take_existing else Phase.IGNORED
    for name in seen:
        if name not in folders:
            folders[name] = Folder(phase=phase, since=now)
        elif folders[name].phase is Phase.LEFT_OUT or (
            take_existing and folders[name].phase is Phase.IGNORED and not folders[name].left_alone
        ):
            folders[name] = folders[name].model_copy(update={"phase": Phase.EMPTY, "stands_since": now, "note": None})
    for name, reason in left_out.items():
        if name not in folders:
            folders[name] = Folder(phase=Phase.LEFT_OUT, since=now, note=reason)
    return state.model_copy(update={"folders": folders, "looked": True})


def choose_starts(state: WatchState, *, at_most: int | None, paused: Mapping[str, float], now_s: float) -> list[str]:
    """Return the folders whose runners are to be started now, the oldest first.

    ``paused`` says until when (on the clock of ``now_s``) a folder whose runner fell has to wait.
    """
    running = sum(folder.phase is Phase.RUNNING for folder in state.folders.values())
    waiting = [
        name
        for name, folder in state.folders.items()
        if folder.phase in (Phase.READY, Phase.FALLEN) and paused.get(name, now_s) <= now_s
    ]
    waiting.sort(key=lambda name: (state.folders[name].since, name))
    return waiting if at_most is None else waiting[: max(0, at_most - running)]


def pause_s(falls: int) -> float:
    """Return how long to wait before the next try after so many falls."""
    return min(FIRST_PAUSE_S * 2.0 ** max(0, falls - 1), LONGEST_PAUSE_S) if falls < 64 else LONGEST_PAUSE_S


def start(folder: Folder, *, pid: int, pid_started: float) -> Folder:
    """Return a folder whose runner was started."""
    return folder.model_copy(update={"phase": Phase.RUNNING, "pid": pid, "pid_started": pid_started, "note": None})


def end(folder: Folder, untaken: Collection[str]) -> Folder:
    """Return a folder whose streams have closed; files that came meanwhile make it ready again.

    Files that were there at the last start and still were not taken (copies, files of another kind) do not.
    """
    done = folder.model_copy(update={"phase": Phase.ENDED, "pid": None, "pid_started": None, "falls": 0, "note": None})
    return look_again(done, untaken)


def look_again(folder: Folder, untaken: Collection[str]) -> Folder:
    """Return a folder that has ended, ready to be run again if new files came."""
    new = set(untaken) - set(folder.tried)
    if not new:
        return folder
    note = f"{len(new)} new file{'s' if len(new) > 1 else ''}"
    return folder.model_copy(update={"phase": Phase.READY, "tried": sorted(untaken), "note": note})


def stop(folder: Folder, note: str = "stopped by a person; icestream run continues it") -> Folder:
    """Return a folder whose session a person stopped or took away."""
    return folder.model_copy(update={"phase": Phase.STOPPED, "pid": None, "pid_started": None, "falls": 0, "note": note})


def fall(folder: Folder, *, reason: str, ran_s: float) -> Folder:
    """Return a folder whose runner died."""
    falls = 1 if ran_s >= LONG_RUN_S else folder.falls + 1
    return folder.model_copy(
        update={"phase": Phase.FALLEN, "pid": None, "pid_started": None, "falls": falls, "note": reason[:500]}
    )


def wait_for_place(folder: Folder, note: str | None = None) -> Folder:
    """Return a folder that is to be run as soon as there is a place."""
    return folder.model_copy(update={"phase": Phase.READY, "pid": None, "pid_started": None, "note": note})
