"""Pausing, resuming and stopping."""

from icestream.counting import counted
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Pause, Resume, Stop
from icestream.flow.scheduling import NoticeCause
from icestream.flow.storage import ActivePause

NOT_PAUSED = "is not paused"


def pause(context: CommandContext, command: Pause) -> str:
    """Dispatch nothing more and watch no folder; what is running is finished."""
    asked = ActivePause("person", command.reason, context.author)
    if not context.controls.pause(asked):
        return "is already paused"
    context.notify(NoticeCause.PAUSE, asked.sentence)
    return f"paused; {counted(len(context.controls.running()), 'running call')} will finish"


def resume(context: CommandContext, _command: Resume) -> str:
    """Go on."""
    if not context.controls.resume():
        return NOT_PAUSED
    context.notify(NoticeCause.PAUSE, f"resumed by {context.author}")
    return "resumed"


def stop(context: CommandContext, command: Stop) -> str:
    """End the runner after what is running, or at once."""
    reason = f"stopped by {context.author}"
    context.controls.stop(reason, now=command.now)
    context.notify(NoticeCause.PAUSE, reason)
    return "is stopping now" if command.now else f"stops after {counted(len(context.controls.running()), 'running call')}"
