"""From a new acquisition folder to the session that processes it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icestream.errors import SessionError
from icestream.facility.folders import collect_values, session_name
from icestream.facility.watch_decisions import WatchState
from icestream.flow.storage.session import DOCUMENT, SessionDocument, open_session
from icestream.workflows.filling import fill_template
from icestream.workflows.foreseeing import foresee
from icestream.workflows.template import Template

_MOST_OF_ONE_NAME = 1000


@dataclass(frozen=True)
class WatchPlan:
    """What a watch is to do."""

    root: Path
    pattern: str
    sessions: Path
    template: Template
    folder_as: str
    values: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    at_most: int | None = None
    take_existing: bool = False
    look_every_s: float = 5.0
    stop_within_s: float = 30.0


def plan_session(plan: WatchPlan, state: WatchState, name: str) -> tuple[Path, SessionDocument]:
    """Return where the session of an acquisition folder is to be, and what it is to be.

    Raises
    ------
    WorkflowError
        Values are missing or not allowed; all problems, one a line.
    SessionError
        There is no free folder for it.
    """
    data = plan.root / name
    values = collect_values(data, plan.template, folder_as=plan.folder_as, given=plan.values)
    chosen = state.folders[name].session
    target = _free_folder(plan, state, name) if chosen is None else Path(chosen)
    document = fill_template(plan.template, values, name=target.name, settings=plan.settings, base=data)
    foresee(document, folder=target)
    return target, document


def _free_folder(plan: WatchPlan, state: WatchState, name: str) -> Path:
    """Return a free folder, or that of the session which reads these data already: then what was remembered is lost."""
    wanted, data = session_name(name), str((plan.root / name).resolve())
    claimed = {folder.session for other, folder in state.folders.items() if other != name}
    for number in range(1, _MOST_OF_ONE_NAME):
        target = (plan.sessions / (wanted if number == 1 else f"{wanted}_{number}")).absolute()
        if str(target) in claimed:
            continue
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return target
        if (target / DOCUMENT).exists() and data in open_session(target).roots.values():
            return target
    raise SessionError(f"{plan.sessions / wanted}: already exists, and so do all that are numbered up to {_MOST_OF_ONE_NAME}")
