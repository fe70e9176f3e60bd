"""Pausing, resuming and stopping; and pausing by itself while the surroundings are not well."""

import time
from typing import TYPE_CHECKING

from icestream.flow.commands.requests import Pause, Resume, Stop
from icestream.flow.declaration import outcomes
from icestream.flow.runner.pausing import Hold
from icestream.flow.scheduling import instructions
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner

_LOOK_S = 2.0
_TRY_AGAIN_S = (2.0, 60.0)
_OVER = "the trouble is over; the session goes on"


def pause(runner: "Runner", writing: Writing, command: Pause, author: str) -> str:
    """Dispatch nothing more and watch no folder; what is running ends in peace."""
    hold = Hold("person", command.reason, author)
    if not runner.holds.put(hold):
        return "is paused already"
    runner.sources.rest()
    writing.notify(instructions.Notify("info", hold.sentence))
    return f"paused; {len(runner.running)} running will end in peace"


def resume(runner: "Runner", writing: Writing, _command: Resume, author: str) -> str:
    """Go on."""
    if runner.holds.lift("person") is None:
        return "is not paused"
    runner.sources.wanted = True
    writing.notify(instructions.Notify("info", f"resumed by {author}"))
    return "goes on"


def stop(runner: "Runner", writing: Writing, command: Stop, author: str) -> str:
    """End the runner after what is running, or at once."""
    runner.stop_reason = f"stopped by {author}"
    runner.stop()
    if command.now:
        runner.stop()
    writing.notify(instructions.Notify("info", runner.stop_reason))
    return "stops at once" if command.now else f"stops after {len(runner.running)} running"


def hold_for(runner: "Runner", writing: Writing, trouble: str) -> None:
    """Hold the session for something that no item is to blame for; `look_around` lets it go."""
    if runner.holds.put(Hold("surroundings", trouble)):
        writing.notify(instructions.Notify("alert", f"paused by itself: {trouble}"))


def hold_after(runner: "Runner", writing: Writing, step: str, trouble: str) -> None:
    """Hold the session for something that a step met; it is tried again after a pause that grows, and told once."""
    holds = runner.holds
    if "surroundings" in holds.by_kind:
        return
    if step in holds.met_by:
        holds.put(Hold("surroundings", f"{step}: {trouble}"))
    else:
        hold_for(runner, writing, f"{step}: {trouble}")
    shortest, longest = _TRY_AGAIN_S
    holds.again_at = time.monotonic() + min(longest, shortest * 2 ** min(holds.met, 10))
    holds.met += 1
    holds.met_by.add(step)


def blame_surroundings(runner: "Runner", writing: Writing, kind: outcomes.FailureKind) -> bool:
    """Look around after a failure; if the surroundings are not well, hold the session, and no item is to blame.

    A worker that died, or had too little memory, is not asked about: what it did is counted whatever the disks are like.
    """
    if kind in (outcomes.FailureKind.WORKER_DIED, outcomes.FailureKind.OUT_OF_MEMORY):
        return False
    trouble = runner.health.trouble()
    if trouble is not None:
        hold_for(runner, writing, trouble)
    return trouble is not None


def note_success(runner: "Runner", writing: Writing, step: str) -> None:
    """Tell that the trouble is over when the steps that met it have worked again."""
    holds = runner.holds
    if step in holds.met_by and "surroundings" not in holds.by_kind:
        holds.met_by.discard(step)
        if not holds.met_by:
            holds.met = 0
            writing.notify(instructions.Notify("info", _OVER))


def look_around(runner: "Runner", writing: Writing) -> None:
    """Hold the session while its disk or its raw data are away, and let go when they are well again."""
    now = time.monotonic()
    if now - runner.looked_at < _LOOK_S:
        return
    runner.looked_at = now
    trouble = runner.health.trouble()
    if trouble is not None:
        hold_for(runner, writing, trouble)
    elif now >= runner.holds.again_at and runner.holds.lift("surroundings") is not None and not runner.holds.met:
        writing.notify(instructions.Notify("info", _OVER))
    if trouble is None:
        look_at_given_files(runner, writing)


def look_at_given_files(runner: "Runner", writing: Writing) -> None:
    """Take up the new content of a file that a parameter names, as new revisions; say that one is away."""
    params = {step: revision.params for step, revision in runner.revisions.items()}
    changed, missing = runner.given_files.look(runner.graph, params, runner.session.roots)
    for text in [*changed, *missing]:
        writing.notify(instructions.Notify("warning", text))
    runner.outdated = runner.outdated or bool(changed)
