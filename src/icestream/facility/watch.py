"""The loop of a watch: look at the folders, decide, remember, and only then act."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icestream.alarms.document import write_session_alarms
from icestream.errors import IcestreamError, WorkflowError
from icestream.facility import folders, watch_decisions
from icestream.facility.new_sessions import WatchPlan, plan_session
from icestream.facility.runners import Process, RunEnd, Runners, find_runner, how_run_ended, last_log_line, untaken_files
from icestream.facility.watch_decisions import Folder, Phase, WatchState
from icestream.facility.watch_state import StateFile
from icestream.flow.runner.stopping import StopRequests
from icestream.flow.storage import DOCUMENT, create_session

_SLOW = 6
"""Folders that have ended are looked at every so many looks."""
_MARGIN_S = 15.0
_AGAIN_S = 0.5


class Watch:
    """One watch of one root; the caller holds its lock."""

    def __init__(self, plan: WatchPlan, state_file: StateFile, runners: Runners, say: Callable[[str], None]) -> None:
        self.plan, self._state_file, self._runners, self._say = plan, state_file, runners, say
        self.state = state_file.read() or WatchState(root=str(plan.root), pattern=plan.pattern)
        if self.state.pattern != plan.pattern:  # what another pattern finds was there before as well
            self.state = self.state.model_copy(update={"pattern": plan.pattern, "looked": False})
        self._paused: dict[str, float] = {}
        self._started_s: dict[str, float] = {}
        self._looks = 0
        self._unreadable: str | None = None

    def run(self, stop: StopRequests) -> None:
        """Watch until somebody stops it."""
        self.find_runners_again()
        while not stop.count:
            self.look()
            stop.wait(self.plan.look_every_s)

    def session_folders(self) -> list[Path]:
        """Return the folders of the sessions that there are."""
        found = [Path(folder.session) for folder in self.state.folders.values() if folder.session is not None]
        return [path for path in found if (path / DOCUMENT).is_file()]

    def find_runners_again(self) -> None:
        """Take up what an earlier watch left: runners that live are kept, the others are started again."""
        for name, folder in self._in_phase(Phase.RUNNING):
            process = self._process_of(folder)
            if process is None or not self._runners.alive(process):
                closed = self._guarded(name, how_run_ended, _path_of(folder))
                again = watch_decisions.wait_for_place(folder, "the watch was interrupted")
                self._put(name, self._ended(folder) if closed is RunEnd.CLOSED else again)

    def look(self) -> None:
        """Do everything once."""
        try:
            found = folders.find_folders(self.plan.root, self.plan.pattern, sessions=self.plan.sessions)
        except OSError as error:
            self._tell_unreadable(str(error.strerror))
        else:
            self._tell_unreadable(None)
            self._admit(found)
            self._hear_wishes()
            self._make_sessions(set(found.names))
        self._check_runners()
        if self._looks % _SLOW == 0:
            self._look_at_the_past()
        self._looks += 1
        self._start_runners()

    def stop_runners(self, stop: StopRequests) -> None:
        """Let all runners stop after what they are doing; at once if the watch is asked to stop a second time."""
        left = {name: process for name, folder in self._in_phase(Phase.RUNNING) if (process := self._process_of(folder))}
        for process in left.values():
            self._runners.ask_to_stop(process)
        deadline_s, again_s = time.monotonic() + self.plan.stop_within_s + _MARGIN_S, 0.0
        while left and time.monotonic() < deadline_s:
            if stop.count > 1 and time.monotonic() >= again_s:  # again and again: two signals at once may arrive as one
                again_s = time.monotonic() + _AGAIN_S
                for process in left.values():
                    self._runners.ask_to_stop(process)
            left = {name: process for name, process in left.items() if self._runners.alive(process)}
            time.sleep(0.05)
        for name, folder in self._in_phase(Phase.RUNNING):
            if name not in left:
                self._put(name, watch_decisions.wait_for_place(folder, "continues when the watch does"))

    def _admit(self, found: folders.FoundFolders) -> None:
        state = watch_decisions.admit(
            self.state, found.names, take_existing=self.plan.take_existing, now=time.time(), left_out=found.left_out
        )
        if state != self.state:
            for name in set(state.folders) - set(self.state.folders):
                note = state.folders[name].note
                self._say(f"{name}: {state.folders[name].phase.value}{f' ({note})' if note else ''}")
            self._write(state)

    def _hear_wishes(self) -> None:
        """Do what people asked for; a request is removed once what it changed is on the disk."""
        self._state_file.drop_unreadable_wishes()
        for path, wish in self._state_file.wishes():
            folder = self.state.folders.get(wish.folder)
            if folder is not None:
                self._paused.pop(wish.folder, None)
                self._put(wish.folder, watch_decisions.grant(folder, wish))
                self._say(f"{wish.folder}: {self.state.folders[wish.folder].phase.value}; {wish.author} asked: {wish.what}")
            path.unlink(missing_ok=True)

    def _make_sessions(self, present: set[str]) -> None:
        for name, folder in self._in_phase(Phase.EMPTY, Phase.INCOMPLETE):
            path = self.plan.root / name
            if name in present:
                self._make_session(name, folder, path)

    def _make_session(self, name: str, folder: Folder, path: Path) -> None:
        try:
            if not folders.look_for_data(path):
                return
            target, document, template = plan_session(self.plan, self.state, name)
            if not (target / DOCUMENT).exists():
                self._put(name, folder.model_copy(update={"session": str(target)}))
                create_session(target, document)
                if template.alarms is not None:
                    write_session_alarms(target, template.alarms)
        except (IcestreamError, OSError) as error:
            problems = str(error).split("\n")
            if problems != folder.problems:
                self._say(f"{name}: incomplete: {'; '.join(problems)}")
            self._put(name, folder.model_copy(update={"phase": Phase.INCOMPLETE, "problems": problems}))
            return
        self._say(f"{name}: session {target}")
        ready = watch_decisions.wait_for_place(folder).model_copy(update={"session": str(target), "problems": []})
        self._put(name, ready)

    def _check_runners(self) -> None:
        for name, folder in self._in_phase(Phase.RUNNING):
            process = self._process_of(folder)
            if process is not None and self._runners.alive(process):
                continue
            self._guarded(name, self._hear_end, name, folder)

    def _hear_end(self, name: str, folder: Folder) -> None:
        session = _path_of(folder)
        other = find_runner(session)
        if other is not None:
            self._put(name, watch_decisions.start(folder, pid=other.pid, pid_started=other.started))
            return
        how = how_run_ended(session)
        if how is RunEnd.CLOSED:
            self._put(name, self._ended(folder))
        elif how is RunEnd.STOPPED:
            self._put(name, watch_decisions.stop(folder))
        else:
            ran_s = time.monotonic() - self._started_s.get(name, time.monotonic())
            fallen = watch_decisions.fall(folder, reason=last_log_line(session), ran_s=ran_s)
            self._pause(name, fallen)
        self._say(f"{name}: {self.state.folders[name].phase.value} {self.state.folders[name].note or ''}".rstrip())

    def _pause(self, name: str, fallen: Folder) -> None:
        self._paused[name] = time.monotonic() + watch_decisions.pause_s(fallen.falls)
        self._put(name, fallen)
        if fallen.alert:
            self._say(f"ALERT {name}: its runner died {fallen.falls} times in a row: {fallen.note}")

    def _ended(self, folder: Folder) -> Folder:
        return watch_decisions.end(folder, untaken_files(_path_of(folder)))

    def _look_at_the_past(self) -> None:
        """Find new files in folders that have ended, and sessions that a person runs again."""
        for name, folder in self._in_phase(Phase.ENDED, Phase.STOPPED):
            if (_path_of(folder) / DOCUMENT).exists():  # else it was archived or deleted
                self._guarded(name, self._look_again, name, folder)

    def _look_again(self, name: str, folder: Folder) -> None:
        process = find_runner(_path_of(folder))
        if process is not None:
            self._put(name, watch_decisions.start(folder, pid=process.pid, pid_started=process.started))
        elif folder.phase is Phase.ENDED:
            again = watch_decisions.look_again(folder, untaken_files(_path_of(folder)))
            if again != folder:
                self._say(f"{name}: {again.note}")
                self._put(name, again)

    def _start_runners(self) -> None:
        now_s = time.monotonic()
        for name in watch_decisions.choose_starts(self.state, at_most=self.plan.at_most, paused=self._paused, now_s=now_s):
            self._guarded(name, self._start, name)

    def _start(self, name: str) -> None:
        folder = self.state.folders[name]
        if not (_path_of(folder) / DOCUMENT).exists():
            self._put(name, watch_decisions.stop(folder, "its session was moved or deleted"))
            self._say(f"{name}: its session was moved or deleted: {folder.session}")
            return
        process = self._runners.start(_path_of(folder))
        self._started_s[name] = time.monotonic()
        self._put(name, watch_decisions.start(folder, pid=process.pid, pid_started=process.started))
        self._say(f"{name}: running as process {process.pid}")

    def _guarded(self, name: str, act: Callable[..., Any], *arguments: Any) -> Any:
        """Act on one folder; what is wrong with its session is told and does not stop the others."""
        try:
            return act(*arguments)
        except (IcestreamError, OSError) as error:
            folder = self.state.folders[name]
            self._pause(name, watch_decisions.fall(folder, reason=str(error), ran_s=0.0))
            self._say(f"{name}: {error}")
            return None

    def _tell_unreadable(self, reason: str | None) -> None:
        if reason != self._unreadable:
            self._say(f"{self.plan.root}: {'can be read again' if reason is None else f'cannot be read: {reason}'}")
        self._unreadable = reason

    def _in_phase(self, *phases: Phase) -> list[tuple[str, Folder]]:
        return [(name, folder) for name, folder in self.state.folders.items() if folder.phase in phases]

    @staticmethod
    def _process_of(folder: Folder) -> Process | None:
        return None if folder.pid is None or folder.pid_started is None else Process(folder.pid, folder.pid_started)

    def _put(self, name: str, folder: Folder) -> None:
        if self.state.folders.get(name) != folder:
            self._write(self.state.put(name, folder, now=time.time()))

    def _write(self, state: WatchState) -> None:
        self._state_file.write(state)
        self.state = state


def _path_of(folder: Folder) -> Path:
    if folder.session is None:
        raise WorkflowError("the folder has no session yet")
    return Path(folder.session)
